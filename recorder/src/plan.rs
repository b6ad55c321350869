//! What a recording shall do, checked: the form in which the command line reaches the session.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use formats::probe::{EventSpec, ProbeSpec, Set};

/// Samples a second and thread when nothing else is said. Not 100: a prime-like rate does not march
/// in step with timers.
pub const DEFAULT_FREQUENCY: u32 = 99;

/// Whom to record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Processes that run; with a command, only while it runs.
    Attach {
        /// Process ids.
        pids: Vec<u32>,
        /// Program and arguments, not recorded.
        during: Vec<OsString>,
    },
    /// A command that is started, and recorded from its first instruction.
    Launch {
        /// Program and arguments.
        command: Vec<OsString>,
    },
}

/// A recording, validated and ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordPlan {
    /// Whom.
    pub target: Target,
    /// Whether time samples are taken, and how many a second and thread.
    pub frequency: Option<u32>,
    /// Whether file operations are recorded.
    pub files: bool,
    /// Probes of the user.
    pub probes: Vec<ProbeSpec>,
    /// Whether children are followed (threads always are).
    pub inherit: bool,
    /// When to stop at the latest.
    pub duration: Option<Duration>,
    /// The capture.
    pub output: PathBuf,
    /// Whether dangerous probes are allowed.
    pub allow_unsafe: bool,
    /// Command line of the recorder, for the capture.
    pub command_line: Vec<String>,
}

impl RecordPlan {
    /// Sorts events into what the session arms; no event means the default sets.
    #[must_use]
    pub fn events(specs: &[EventSpec], frequency: u32) -> (Option<u32>, bool, Vec<ProbeSpec>) {
        if specs.is_empty() {
            return (Some(frequency), true, Vec::new());
        }
        let has = |set| specs.contains(&EventSpec::Set(set));
        let probes = specs.iter().filter_map(|spec| match spec {
            EventSpec::Probe(probe) => Some(probe.clone()),
            EventSpec::Set(_) => None,
        });
        (has(Set::Cpu).then_some(frequency), has(Set::Fs), probes.collect())
    }
}
