//! What the user asked for, as plain data: nothing below the command line knows how it was typed.

use std::path::PathBuf;

use crate::aggregate::operations::PathFilter;
use crate::aggregate::syscalls::CallFilter;

/// One run of the program.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The capture or perf.data.
    pub file: PathBuf,
    /// What to do with it.
    pub action: Action,
    /// Apply source maps; the target's files are below this folder.
    pub source_maps: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Clone)]
pub enum Action {
    /// The one-page answer.
    Report(ReportPlan),
    /// A flamegraph as SVG.
    Flamegraph(FlamegraphPlan),
    /// One line an event.
    Events(EventsPlan),
    /// System calls.
    Syscalls(SyscallsPlan),
    /// What is in the capture.
    Info,
}

/// The one-page answer.
#[derive(Debug, Clone, Default)]
pub struct ReportPlan {
    /// JSON instead of text.
    pub json: bool,
    /// Which paths.
    pub filter: PathFilter,
    /// Rows of each table.
    pub top: Option<usize>,
}

/// What the width of a frame stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weight {
    /// How often.
    #[default]
    Count,
    /// How long: the latencies of file operations.
    Time,
    /// How many bytes were read and written.
    Bytes,
}

/// A flamegraph.
#[derive(Debug, Clone, Default)]
pub struct FlamegraphPlan {
    /// Set or event name; `cpu` if there are CPU samples, else `fs`, else the probe that was hit most.
    pub event: Option<String>,
    /// What widths are.
    pub weight: Weight,
    /// Where to; standard output if absent.
    pub output: Option<PathBuf>,
}

/// A list of events.
#[derive(Debug, Clone, Default)]
pub struct EventsPlan {
    /// Sets or event names; all if empty.
    pub events: Vec<String>,
    /// Which file operations; if it leaves any out, other events are only shown where they are named.
    pub filter: PathFilter,
    /// The capture is still being written: print what completes, until its end.
    pub follow: bool,
    /// JSON lines instead of text.
    pub json: bool,
    /// With stacks.
    pub stacks: bool,
}

/// System calls.
#[derive(Debug, Clone, Default)]
pub struct SyscallsPlan {
    /// JSON instead of text.
    pub json: bool,
    /// Which calls.
    pub filter: CallFilter,
    /// Rows of each table.
    pub top: Option<usize>,
}
