//! Signals as a descriptor to poll.
//!
//! SIGINT, SIGTERM and SIGHUP ask for the end of a recording, SIGCHLD tells that a child changed
//! state. They are blocked in the calling thread and all threads it starts later, so call this
//! first. They stay blocked until the recording is over: a second Ctrl-C must not cut the capture's last
//! chunk.

use super::errno_text;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd, BorrowedFd};

/// Signals could not be received as records.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
#[error("cannot {operation} signals: {}", errno_text(*errno))]
pub struct SignalError {
    operation: &'static str,
    errno: Errno,
}

/// What was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// Ctrl-C.
    Interrupt,
    /// A request to end.
    Terminate,
    /// The terminal went away.
    HangUp,
    /// A child changed state; which one is for `try_wait` to say, as signals merge.
    Child,
}

impl Received {
    /// True when the user asks for the end.
    pub fn asks_to_stop(self) -> bool {
        !matches!(self, Self::Child)
    }
}

/// The four signals, blocked and readable.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
}

impl Signals {
    /// Blocks the signals in this thread and opens them for reading.
    ///
    /// # Errors
    /// When the kernel refuses either.
    pub fn block_and_open() -> Result<Self, SignalError> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD] {
            set.add(signal);
        }
        set.thread_block().map_err(|errno| SignalError { operation: "block", errno })?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .map_err(|errno| SignalError { operation: "open", errno })?;
        Ok(Self { fd })
    }

    /// The next signal, or `None` when none is waiting.
    ///
    /// # Errors
    /// When the descriptor cannot be read.
    pub fn next(&self) -> Result<Option<Received>, SignalError> {
        let failed = |errno| SignalError { operation: "read", errno };
        let Some(info) = self.fd.read_signal().map_err(failed)? else { return Ok(None) };
        let number = i32::try_from(info.ssi_signo).unwrap_or(0);
        match Signal::try_from(number) {
            Ok(Signal::SIGINT) => Ok(Some(Received::Interrupt)),
            Ok(Signal::SIGTERM) => Ok(Some(Received::Terminate)),
            Ok(Signal::SIGHUP) => Ok(Some(Received::HangUp)),
            Ok(Signal::SIGCHLD) => Ok(Some(Received::Child)),
            // The kernel gives only what the set holds.
            _ => Err(failed(Errno::EINVAL)),
        }
    }
}

/// Lets SIGINT, SIGTERM and SIGHUP end this program again: its recording is over, and it only waits.
///
/// # Errors
/// When the kernel refuses.
pub fn let_through() -> Result<(), SignalError> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_unblock().map_err(|errno| SignalError { operation: "unblock", errno })
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_of_this_thread_is_read_once() {
        let signals = Signals::block_and_open().unwrap();
        // raise() directs the signal at this thread, so parallel tests cannot take it.
        nix::sys::signal::raise(Signal::SIGHUP).unwrap();
        let mut received = Vec::new();
        while let Some(signal) = signals.next().unwrap() {
            // Children of tests running in parallel may add SIGCHLD.
            received.extend((signal != Received::Child).then_some(signal));
        }
        assert_eq!(received, [Received::HangUp]);
        assert!(Received::HangUp.asks_to_stop() && !Received::Child.asks_to_stop());
        let is_blocked = |signal| SigSet::thread_get_mask().unwrap().contains(signal);
        assert!(is_blocked(Signal::SIGINT));
        let_through().unwrap();
        assert!(!is_blocked(Signal::SIGINT) && is_blocked(Signal::SIGCHLD));
    }
}
