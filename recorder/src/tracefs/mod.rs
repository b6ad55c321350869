//! tracefs: where it is, and the dynamic events (uprobes) made through it.
//!
//! `locate` finds and opens the file system, `path` makes file names the control file can carry,
//! `events` creates and removes, `error_log` fetches the kernel's reason, `owner` names the group
//! of events after the recorder, `sweep` removes what a killed recorder left. Must not know perf
//! events or processes' symbols. `dynamic_events` is only ever opened for appending: opening it
//! with truncation removes everybody's events.
//! Format: Documentation/trace/uprobetracer.rst.

pub mod error_log;
pub mod events;
pub mod locate;
pub mod owner;
pub mod path;
pub mod sweep;

pub use events::{DynamicEvent, DynamicEvents, ProbeKind, SiteSpec};
pub use locate::Tracefs;
pub use owner::Owner;
pub use path::ProbePath;
pub use sweep::{SweepReport, sweep_stale};

use crate::sys::errno_text;
use crate::sys::mount::MountError;
use nix::errno::Errno;
use std::path::PathBuf;

/// Why tracefs could not do what was asked.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TracefsError {
    /// Nothing of type tracefs is mounted.
    #[error("cannot find tracefs: it is mounted nowhere")]
    NotMounted,
    /// The kernel has tracefs but no file for dynamic events.
    #[error("cannot create dynamic events: {} does not exist", path.display())]
    NoDynamicEvents {
        /// The file that is missing.
        path: PathBuf,
    },
    /// Mounting it failed.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A file of tracefs could not be read, opened or written.
    #[error("cannot {operation} {}: {}", path.display(), errno_text(*errno))]
    File {
        /// `read`, `open` or `write`.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A name the kernel would refuse or misunderstand.
    #[error("cannot use '{name}' as the name of a dynamic event: {reason}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A fetch argument the control file cannot carry.
    #[error("cannot use fetch argument '{argument}': {reason}")]
    FetchArgument {
        /// The argument.
        argument: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file name the control file cannot carry.
    #[error("cannot probe {path:?}: {reason}")]
    Path {
        /// The file.
        path: PathBuf,
        /// What is wrong with its name.
        reason: &'static str,
    },
    /// More than the kernel takes in one line (MAX 4096 bytes, kernel/trace/trace.c,
    /// WRITE_BUFSIZE).
    #[error("cannot create dynamic event {event}: its line of {bytes} bytes exceeds 4095")]
    LineTooLong {
        /// GROUP/NAME.
        event: String,
        /// Length of the line.
        bytes: usize,
    },
    /// No site was given.
    #[error("cannot create dynamic event {event}: no site to probe")]
    NoSite {
        /// GROUP/NAME.
        event: String,
    },
    /// An event of this name exists; a further site would be added to it.
    #[error("cannot create dynamic event {event}: it exists already")]
    Exists {
        /// GROUP/NAME.
        event: String,
    },
    /// The kernel refused a site.
    #[error("cannot create dynamic event {event} at {site}: {reason}")]
    Create {
        /// GROUP/NAME.
        event: String,
        /// FILE:OFFSET.
        site: String,
        /// The tracing error log's reason, or else the errno's text.
        reason: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Someone still uses the event.
    #[error("cannot remove dynamic event {event}: in use for {waited_ms} ms")]
    InUse {
        /// GROUP/NAME.
        event: String,
        /// How long was tried, in milliseconds.
        waited_ms: u64,
    },
    /// A file of the event holds something unexpected.
    #[error("cannot understand {}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
    },
}

impl TracefsError {
    /// What the user can do about it.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::NotMounted => Some("as root: mount -t tracefs tracefs /sys/kernel/tracing"),
            Self::NoDynamicEvents { .. } => {
                Some("the kernel needs CONFIG_UPROBE_EVENTS; CPU samples work without")
            }
            Self::Mount(error) if error.errno == Errno::ENODEV => {
                Some("the kernel was built without CONFIG_TRACING; CPU samples work without")
            }
            Self::Mount(error) if error.errno == Errno::EPERM => {
                Some("run as root, or let root mount tracefs; a container needs CAP_SYS_ADMIN")
            }
            Self::File { errno: Errno::EACCES, .. } => {
                Some("run as root: tracefs is open to root only; -e cpu works without it")
            }
            // LOCKDOWN_TRACEFS, security/security.c: to root too.
            Self::File { errno: Errno::EPERM, .. } => Some(
                "kernel lockdown may have closed tracefs: see /sys/kernel/security/lockdown; \
                 -e cpu works without it",
            ),
            Self::File { errno: Errno::EROFS, .. } => {
                Some("tracefs is mounted read-only, as in most containers: run on the host")
            }
            Self::Path { .. } => Some("reach the file through /proc/PID/exe or map_files"),
            Self::InUse { .. } => Some("end the tool that uses it, then run nrec clean"),
            _ => None,
        }
    }
}

/// A closure that turns an I/O error into [`TracefsError::File`].
fn file_error(
    operation: &'static str,
    path: &std::path::Path,
) -> impl FnOnce(std::io::Error) -> TracefsError {
    let path = path.to_owned();
    move |error| TracefsError::File { operation, path, errno: crate::sys::errno_of(&error) }
}
