//! Starting a command that waits, complete but for its exec, until the recorder has armed.
//!
//! The child touches nothing between fork and exec but async-signal-safe calls on memory that
//! was prepared before. Two close-on-exec pipes connect both sides: `go` holds the child back
//! and, by its end of file, tells it that the recorder died; `status` brings back the errno of
//! an exec that failed, and its end of file says that the exec happened.

use super::errno_text;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe2};
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

/// Exit status of a child whose exec failed, as a shell gives it.
const EXEC_FAILED: i32 = 127;

/// Why a command did not start or could not be waited for.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpawnError {
    /// A NUL byte in the program or an argument.
    #[error("cannot start {program:?}: an argument contains a NUL byte")]
    NulByte {
        /// The command.
        program: OsString,
    },
    /// No pipe or process could be made.
    #[error("cannot start {program:?}: {operation}: {}", errno_text(*errno))]
    Prepare {
        /// The command.
        program: OsString,
        /// The call that failed.
        operation: &'static str,
        /// Its answer.
        errno: Errno,
    },
    /// The exec failed, found when the child was released.
    #[error("cannot execute {program:?}: {}", errno_text(*errno))]
    Exec {
        /// The command.
        program: OsString,
        /// The answer of execvp(3).
        errno: Errno,
    },
    /// The child ended before it was released (killed from outside).
    #[error("{program:?} (pid {pid}) ended before it was started")]
    Vanished {
        /// The command.
        program: OsString,
        /// The process.
        pid: i32,
    },
    /// waitpid(2) failed.
    #[error("cannot wait for pid {pid}: {}", errno_text(*errno))]
    Wait {
        /// The process.
        pid: i32,
        /// The kernel's answer.
        errno: Errno,
    },
}

impl SpawnError {
    /// What the user can do about it.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Exec { errno: Errno::ENOENT, .. } => Some("check the name and PATH"),
            Self::Exec { errno: Errno::EACCES, .. } => {
                Some("the file, or a folder of PATH, is not accessible")
            }
            Self::Exec { errno: Errno::ENOEXEC, .. } => Some("the file is no program"),
            Self::Prepare { errno: Errno::EAGAIN, .. } => Some("raise the limit ulimit -u"),
            _ => None,
        }
    }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildExit {
    /// It returned this status.
    Status(i32),
    /// This signal killed it.
    Signal(i32),
}

impl ChildExit {
    /// The status a shell would report: 128 + signal for a killed child.
    pub fn shell_status(self) -> i32 {
        match self {
            Self::Status(status) => status,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// A child held back just before its exec. Dropped unreleased, it ends without running.
#[derive(Debug)]
pub struct PendingChild {
    program: OsString,
    child: Child,
    /// Taken (closed) to let the child end, written to let it run.
    go: Option<OwnedFd>,
    status: OwnedFd,
}

/// A running child. Dropping it neither kills nor waits.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    exit: Option<ChildExit>,
}

impl PendingChild {
    /// Forks a child that will run `program` (looked up in PATH) with `args`, in our environment
    /// and working directory, with no signal blocked and SIGPIPE at its default.
    ///
    /// # Errors
    /// [`SpawnError::NulByte`], [`SpawnError::Prepare`].
    pub fn spawn<A: AsRef<OsStr>>(program: &OsStr, args: &[A]) -> Result<Self, SpawnError> {
        let failed = |operation, errno| SpawnError::Prepare {
            program: program.to_owned(),
            operation,
            errno,
        };
        let words: Vec<CString> = std::iter::once(program)
            .chain(args.iter().map(AsRef::as_ref))
            .map(|word| CString::new(word.as_bytes()))
            .collect::<Result<_, _>>()
            .map_err(|_nul| SpawnError::NulByte { program: program.to_owned() })?;
        let mut argv: Vec<*const libc::c_char> = words.iter().map(|word| word.as_ptr()).collect();
        argv.push(std::ptr::null());
        let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(|errno| failed("pipe", errno));
        let (go_read, go_write) = pipe()?;
        let (status_read, status_write) = pipe()?;
        // SAFETY: the child calls only child_main, which makes async-signal-safe calls on memory
        // made above and never returns.
        let forked = unsafe { fork() };
        match forked.map_err(|errno| failed("fork", errno))? {
            ForkResult::Child => {
                // Our copy of the write end must go, or the recorder's death would not be seen.
                drop(go_write);
                child_main(&argv, &go_read, &status_write)
            }
            ForkResult::Parent { child } => Ok(Self {
                program: program.to_owned(),
                child: Child { pid: child, exit: None },
                go: Some(go_write),
                status: status_read,
            }),
        }
    }

    /// The child's process id.
    pub fn pid(&self) -> i32 {
        self.child.pid.as_raw()
    }

    /// Lets the child exec, and returns when that has happened or failed.
    ///
    /// # Errors
    /// [`SpawnError::Exec`] with the errno of execvp(3), [`SpawnError::Vanished`].
    pub fn release(mut self) -> Result<Child, SpawnError> {
        let (program, pid) = (self.program.clone(), self.child.pid.as_raw());
        let vanished = || SpawnError::Vanished { program: program.clone(), pid };
        let go = self.go.take().ok_or_else(vanished)?;
        // EPIPE: the child is gone. Rust programs ignore SIGPIPE, so this is an error, no death.
        nix::unistd::write(&go, &[1]).map_err(|_errno| vanished())?;
        drop(go);
        let mut answer = [0u8; 4];
        let got = read_uninterrupted(&self.status, &mut answer);
        let child =
            std::mem::replace(&mut self.child, Child { pid: Pid::from_raw(-1), exit: None });
        match got {
            // End of file: the exec closed the child's end.
            Ok(0) => Ok(child),
            Ok(4) => {
                self.child = child;
                let errno = Errno::from_raw(i32::from_ne_bytes(answer));
                Err(SpawnError::Exec { program, errno })
            }
            _ => {
                self.child = child;
                Err(vanished())
            }
        }
    }
}

impl Drop for PendingChild {
    fn drop(&mut self) {
        // The end of file on `go` ends a child that still waits; one whose exec failed has ended.
        self.go = None;
        if self.child.pid.as_raw() > 0 {
            // Nobody is left to tell about a failure to reap.
            let _reaped = self.child.wait();
        }
    }
}

impl Child {
    /// The child's process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Waits for the child's end.
    ///
    /// # Errors
    /// [`SpawnError::Wait`].
    pub fn wait(&mut self) -> Result<ChildExit, SpawnError> {
        loop {
            if let Some(exit) = self.poll_exit(None)? {
                return Ok(exit);
            }
        }
    }

    /// The child's end, if it has come. Call at SIGCHLD.
    ///
    /// # Errors
    /// [`SpawnError::Wait`].
    pub fn try_wait(&mut self) -> Result<Option<ChildExit>, SpawnError> {
        self.poll_exit(Some(WaitPidFlag::WNOHANG))
    }

    fn poll_exit(&mut self, flags: Option<WaitPidFlag>) -> Result<Option<ChildExit>, SpawnError> {
        if self.exit.is_none() {
            self.exit = match waitpid(self.pid, flags) {
                Ok(WaitStatus::Exited(_, status)) => Some(ChildExit::Status(status)),
                Ok(WaitStatus::Signaled(_, signal, _)) => Some(ChildExit::Signal(signal as i32)),
                Ok(_) | Err(Errno::EINTR) => None,
                Err(errno) => return Err(SpawnError::Wait { pid: self.pid(), errno }),
            };
        }
        Ok(self.exit)
    }
}

/// The child's life between fork and exec. `argv` ends with a null pointer.
fn child_main(argv: &[*const libc::c_char], go: &OwnedFd, status: &OwnedFd) -> ! {
    let mut byte = [0u8; 1];
    // The signal mask stays blocked until here: a Ctrl-C while the recorder arms is its business.
    if read_uninterrupted(go, &mut byte) == Ok(1) {
        // Rust ignores SIGPIPE, and ignored signals stay ignored across exec.
        // SAFETY: signal(2) with the default disposition installs no handler.
        let _previous = unsafe { libc::signal(Signal::SIGPIPE as i32, libc::SIG_DFL) };
        let unblocked = SigSet::empty().thread_set_mask();
        let program = argv.first().copied().unwrap_or(std::ptr::null());
        if unblocked.is_ok() && !program.is_null() {
            // SAFETY: argv is an array of pointers to NUL-terminated strings, ended by a null
            // pointer, all made before the fork and alive in this copy of the process.
            unsafe { libc::execvp(program, argv.as_ptr()) };
        }
        let errno = Errno::last_raw().to_ne_bytes();
        // If even this fails, the parent sees an end of file and the exit status below.
        let _written = nix::unistd::write(status, &errno);
    }
    // SAFETY: ends this process without running the parent's exit handlers or buffers.
    unsafe { libc::_exit(EXEC_FAILED) }
}

fn read_uninterrupted(fd: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match nix::unistd::read(fd, buffer) {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(program: &str, args: &[&str]) -> PendingChild {
        PendingChild::spawn(OsStr::new(program), args).unwrap()
    }

    #[test]
    fn runs_only_when_released() {
        let file = std::env::temp_dir().join(format!("nrec-spawn-{}", std::process::id()));
        let child = pending("sh", &["-c", "echo ran > \"$0\"; exit 7", &file.to_string_lossy()]);
        let exe = std::fs::read_link(format!("/proc/{}/exe", child.pid())).unwrap();
        assert_eq!(exe, std::env::current_exe().unwrap(), "the exec has not happened");
        assert!(!file.exists());
        let mut child = child.release().unwrap();
        assert_eq!(child.wait(), Ok(ChildExit::Status(7)));
        assert_eq!(child.try_wait(), Ok(Some(ChildExit::Status(7))), "the end is remembered");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "ran\n");
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn a_failed_exec_brings_its_errno() {
        let error = pending("/nonexistent/program", &[]).release().unwrap_err();
        assert!(matches!(error, SpawnError::Exec { errno: Errno::ENOENT, .. }), "{error}");
        assert!(error.remedy().is_some());
        let error = pending("/", &[]).release().unwrap_err();
        assert!(matches!(error, SpawnError::Exec { errno: Errno::EACCES, .. }), "{error}");
        let error = PendingChild::spawn(OsStr::new("a\0b"), &[""; 0]).unwrap_err();
        assert!(matches!(error, SpawnError::NulByte { .. }));
    }

    #[test]
    fn dropped_unreleased_it_ends_and_is_reaped() {
        let child = pending("sleep", &["100"]);
        let proc = format!("/proc/{}", child.pid());
        drop(child);
        assert!(!std::path::Path::new(&proc).exists());
    }

    #[test]
    fn killed_before_release_is_said() {
        let child = pending("true", &[]);
        nix::sys::signal::kill(Pid::from_raw(child.pid()), Signal::SIGKILL).unwrap();
        // The kill is asynchronous; the read end of `go` closes when it has happened.
        while std::fs::read_to_string(format!("/proc/{}/stat", child.pid()))
            .is_ok_and(|stat| !stat.contains(") Z "))
        {
            std::thread::yield_now();
        }
        let error = child.release().unwrap_err();
        assert!(matches!(error, SpawnError::Vanished { .. }), "{error}");
    }

    #[test]
    fn blocked_signals_and_sigpipe_are_reset_in_the_child() {
        // The mask is this thread's only, and the child is a copy of this thread.
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGTERM);
        blocked.thread_block().unwrap();
        let child = pending("sh", &["-c", "kill -TERM $$; exit 3"]);
        let mut child = child.release().unwrap();
        assert_eq!(child.wait(), Ok(ChildExit::Signal(Signal::SIGTERM as i32)));
        assert_eq!(ChildExit::Signal(15).shell_status(), 143);
        let script = "kill -PIPE $$; exit 3";
        let mut child = pending("sh", &["-c", script]).release().unwrap();
        assert_eq!(child.wait(), Ok(ChildExit::Signal(Signal::SIGPIPE as i32)));
        blocked.thread_unblock().unwrap();
    }
}
