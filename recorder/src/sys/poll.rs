//! One wait over rings, signals, processes and time.
//!
//! Built on epoll, since a recording of many threads on many CPUs has thousands of descriptors.
//! Level-triggered. A perf event whose task has ended reports a hang-up at every wait: remove it
//! then (kernel/events/core.c, `perf_poll`; such an event also no longer reports data that others
//! put into its ring, so drain every ring at least once a second whatever this wait says).

use super::errno_text;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::os::fd::AsFd;
use std::time::Duration;

/// Descriptors reported by one wait at most; the others follow at the next.
const BATCH: usize = 256;

/// A descriptor could not be watched.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
#[error("cannot {operation} polled descriptors: {}", errno_text(*errno))]
pub struct PollError {
    operation: &'static str,
    errno: Errno,
}

/// A descriptor that wants attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The caller's name for it.
    pub token: u64,
    /// It can be read.
    pub readable: bool,
    /// Its other side has ended.
    pub hung_up: bool,
}

/// A set of watched descriptors.
#[derive(Debug)]
pub struct Poller {
    epoll: Epoll,
    buffer: Vec<EpollEvent>,
}

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    /// When the kernel refuses one more descriptor.
    pub fn new() -> Result<Self, PollError> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(|errno| PollError { operation: "create a set of", errno })?;
        Ok(Self { epoll, buffer: vec![EpollEvent::empty(); BATCH] })
    }

    /// Watches `fd`, which [`Self::wait`] will report as `token`. Closing the last copy of the
    /// descriptor ends the watch.
    ///
    /// # Errors
    /// When the kernel refuses (ENOSPC: `fs.epoll.max_user_watches`).
    pub fn add(&self, fd: impl AsFd, token: u64) -> Result<(), PollError> {
        self.epoll
            .add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token))
            .map_err(|errno| PollError { operation: "add to the", errno })
    }

    /// Watches `fd`, which is only written to, for the end of whoever reads the other side.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_hang_up(&self, fd: impl AsFd, token: u64) -> Result<(), PollError> {
        // EPOLLERR and EPOLLHUP are always reported.
        self.epoll
            .add(fd, EpollEvent::new(EpollFlags::empty(), token))
            .map_err(|errno| PollError { operation: "add to the", errno })
    }

    /// Stops watching `fd`.
    ///
    /// # Errors
    /// When it was not watched.
    pub fn remove(&self, fd: impl AsFd) -> Result<(), PollError> {
        self.epoll.delete(fd).map_err(|errno| PollError { operation: "remove from the", errno })
    }

    /// Waits until something is ready or `timeout` has passed (`None` = for ever). The result is
    /// empty after the time or when a signal handler ran.
    ///
    /// # Errors
    /// When the kernel refuses to wait.
    pub fn wait(
        &mut self,
        timeout: Option<Duration>,
    ) -> Result<impl Iterator<Item = Ready> + '_, PollError> {
        let count = match self.epoll.wait(&mut self.buffer, milliseconds(timeout)) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(PollError { operation: "wait for the", errno }),
        };
        let ended = EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        Ok(self.buffer.iter().take(count).map(move |event| Ready {
            token: event.data(),
            readable: event.events().contains(EpollFlags::EPOLLIN),
            hung_up: event.events().intersects(ended),
        }))
    }
}

/// Rounded up, so that a wait of less than a millisecond does not become a busy loop.
fn milliseconds(timeout: Option<Duration>) -> EpollTimeout {
    let Some(timeout) = timeout else { return EpollTimeout::NONE };
    let rounded = timeout.as_nanos().div_ceil(1_000_000);
    EpollTimeout::try_from(i32::try_from(rounded).unwrap_or(i32::MAX)).unwrap_or(EpollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_data_then_the_end() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let mut poller = Poller::new().unwrap();
        poller.add(&reader, 7).unwrap();
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap().count(), 0);
        nix::unistd::write(&writer, b"x").unwrap();
        let ready: Vec<_> = poller.wait(None).unwrap().collect();
        assert_eq!(ready, [Ready { token: 7, readable: true, hung_up: false }]);
        drop(writer);
        let ready: Vec<_> = poller.wait(None).unwrap().collect();
        assert_eq!(ready, [Ready { token: 7, readable: true, hung_up: true }]);
        poller.remove(&reader).unwrap();
        assert!(poller.remove(&reader).is_err());
    }

    #[test]
    fn timeouts_round_up() {
        assert_eq!(milliseconds(Some(Duration::from_nanos(1))), EpollTimeout::from(1u8));
        assert_eq!(milliseconds(Some(Duration::from_millis(250))), EpollTimeout::from(250u8));
        assert_eq!(milliseconds(Some(Duration::MAX)), EpollTimeout::MAX);
        assert_eq!(milliseconds(None), EpollTimeout::NONE);
    }
}
