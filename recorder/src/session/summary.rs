//! How a recording went, for whoever started it.

use std::collections::BTreeMap;

use formats::capture::WriteStats;

/// Why a recording ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The command during which was recorded has ended.
    CommandEnded,
    /// All targets have ended.
    TargetEnded,
    /// The time is over.
    Duration,
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM or SIGHUP.
    Terminated,
    /// Whoever read along has had enough.
    ReaderGone,
    /// The capture cannot be written any further.
    WriteFailed,
    /// The rings cannot be read any further.
    ReadFailed,
}

impl StopReason {
    /// The key in the capture.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::CommandEnded => "command-ended",
            Self::TargetEnded => "target-ended",
            Self::Duration => "duration",
            Self::Interrupt => "interrupt",
            Self::Terminated => "terminated",
            Self::ReaderGone => "reader-gone",
            Self::WriteFailed => "write-failed",
            Self::ReadFailed => "read-failed",
        }
    }
}

/// How a recording went.
#[derive(Debug)]
pub struct Summary {
    /// Why it ended.
    pub reason: StopReason,
    /// How long it took, nanoseconds.
    pub duration_ns: u64,
    /// Samples by event name.
    pub samples: BTreeMap<String, u64>,
    /// Records that the kernel lost.
    pub lost: u64,
    /// Bytes of each CPU's ring.
    pub ring_bytes: u64,
    /// What was written.
    pub written: WriteStats,
    /// Exit status of the command, as a shell would say it.
    pub exit_status: Option<i32>,
    /// What went wrong after the beginning.
    pub problems: Vec<String>,
    /// What makes the result poorer though nothing is missing.
    pub warnings: Vec<String>,
    /// Probes whose function never appeared.
    pub missing: Vec<String>,
}
