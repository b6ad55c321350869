//! Why a recording cannot begin, and what the user can do about it.

use std::io;
use std::path::PathBuf;

use formats::tracepoint::FormatError;

use crate::probe::locate::LocateError;
use crate::process::companion::CompanionError;
use crate::sys::cpus::CpuError;
use crate::sys::perf_error::PerfError;
use crate::sys::poll::PollError;
use crate::sys::rlimit::LimitError;
use crate::sys::signals::SignalError;
use crate::sys::spawn::SpawnError;
use crate::tracefs::TracefsError;

/// A recording could not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The target is not there.
    #[error("no process {pid}: it has ended, or it never was")]
    NoSuchProcess {
        /// Process id.
        pid: u32,
    },
    /// The id belongs to a thread.
    #[error("{tid} is a thread of process {pid}, not a process: use -p {pid}")]
    IsThread {
        /// Thread id.
        tid: u32,
        /// Its process.
        pid: u32,
    },
    /// The capture cannot be made.
    #[error("cannot create {}: {cause}", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The first chunk cannot be written.
    #[error("cannot write the capture: {0}")]
    Write(#[from] io::Error),
    /// More descriptors than allowed.
    #[error("{budget}: more than the {allowed} open files that this process may have")]
    TooManyDescriptors {
        /// What is needed, spelled out.
        budget: String,
        /// The limit.
        allowed: u64,
    },
    /// Probes need tracefs.
    #[error("probes need tracefs, which is not there")]
    NoTracefs,
    /// Opens need libuv.
    #[error(
        "process {pid} has no libuv: it is not Node.js, or has not loaded it yet; its opens cannot \
         be recorded"
    )]
    NoLibuv {
        /// Process id.
        pid: u32,
    },
    /// The kernel has no tracepoints of system calls.
    #[error("cannot record system calls: {0}")]
    NoSyscalls(TracefsError),
    /// An event's format is not understood.
    #[error("cannot read the format of event {event}: {cause}")]
    Format {
        /// The event.
        event: String,
        /// Why.
        cause: FormatError,
    },
    /// A probe cannot be placed.
    #[error(transparent)]
    Locate(#[from] LocateError),
    /// An event cannot be opened.
    #[error(transparent)]
    Perf(#[from] PerfError),
    /// tracefs said no.
    #[error(transparent)]
    Tracefs(#[from] TracefsError),
    /// The command cannot be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// Nobody can read along.
    #[error(transparent)]
    Companion(#[from] CompanionError),
    /// Signals cannot be received.
    #[error(transparent)]
    Signals(#[from] SignalError),
    /// Nothing can be waited for.
    #[error(transparent)]
    Poll(#[from] PollError),
    /// The CPUs are not known.
    #[error(transparent)]
    Cpus(#[from] CpuError),
    /// The limit of open files is not known.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The clock cannot be read.
    #[error("cannot read the clock: {0}")]
    Clock(#[from] nix::errno::Errno),
}

impl RecordError {
    /// What the user can do about it.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Perf(error) => error.remedy(),
            Self::Tracefs(error) | Self::Locate(LocateError::Path(error)) => {
                error.remedy().map(str::to_owned)
            }
            Self::Spawn(error) => error.remedy().map(str::to_owned),
            Self::Companion(error) => error.remedy().map(str::to_owned),
            Self::NoSyscalls(error) => {
                Some(error.remedy().unwrap_or("the kernel needs CONFIG_FTRACE_SYSCALLS").to_owned())
            }
            Self::NoLibuv { .. } => Some("CPU samples work without: -e cpu".into()),
            Self::NoTracefs => Some("as root: mount -t tracefs tracefs /sys/kernel/tracing".into()),
            Self::TooManyDescriptors { .. } => {
                Some("raise it (ulimit -n), or record fewer events".into())
            }
            Self::Output { cause, .. } if cause.kind() == io::ErrorKind::PermissionDenied => {
                Some("name a folder that you may write with -o".into())
            }
            _ => None,
        }
    }
}
