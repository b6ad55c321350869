//! The end of a process that is not our child, as a descriptor to poll.
//!
//! Unlike a process id, the descriptor cannot come to mean another process. pidfd_open(2),
//! Linux 5.3; readable once the whole process (not only a thread) has ended.

use super::errno_text;
use nix::errno::Errno;
use nix::libc;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// A process could not be opened.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
#[error("cannot open process {pid}: {}", errno_text(*errno))]
pub struct PidFdError {
    /// Process asked for.
    pub pid: i32,
    /// The kernel's answer; ESRCH = no such process, EINVAL = a thread, not a process.
    pub errno: Errno,
}

/// A reference to one process.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
    pid: i32,
}

impl PidFd {
    /// Opens the process `pid`.
    ///
    /// # Errors
    /// [`PidFdError`].
    pub fn open(pid: i32) -> Result<Self, PidFdError> {
        // SAFETY: pidfd_open takes two integers and touches no memory of ours.
        let answer = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let Some(raw) = i32::try_from(answer).ok().filter(|fd| *fd >= 0) else {
            return Err(PidFdError { pid, errno: Errno::last() });
        };
        // SAFETY: the kernel has just returned this (close-on-exec) descriptor; it is ours alone.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(raw) }, pid })
    }

    /// The process id it was opened by.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// True once the process has ended (it may still be an unreaped zombie).
    pub fn has_ended(&self) -> bool {
        let mut fds = [nix::poll::PollFd::new(self.as_fd(), nix::poll::PollFlags::POLLIN)];
        matches!(nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO), Ok(count) if count > 0)
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::spawn::PendingChild;
    use std::ffi::OsStr;

    #[test]
    fn sees_the_end_of_a_process() {
        let child = PendingChild::spawn(OsStr::new("true"), &[""; 0]).unwrap();
        let process = PidFd::open(child.pid()).unwrap();
        assert!(!process.has_ended());
        child.release().unwrap().wait().unwrap();
        assert!(process.has_ended());
        assert_eq!(PidFd::open(process.pid()).unwrap_err().errno, Errno::ESRCH);
    }
}
