//! What a recording shall do, checked: the form in which the command line reaches the session.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use formats::probe::{EventSpec, ProbeSpec, Set};

/// Samples a second and thread when nothing else is said. Not 100: a prime-like rate does not march
/// in step with timers.
pub const DEFAULT_FREQUENCY: u32 = 99;

/// A chunk is written at least this often: a kill loses less than a second.
pub const FLUSH: Duration = Duration::from_millis(800);
/// The same where somebody reads along.
pub const FLUSH_LIVE: Duration = Duration::from_millis(200);

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

/// Where the names of JavaScript frames come from, as the user says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum JsChoice {
    /// Heap, unless the target writes a complete perf map
    #[default]
    Auto,
    /// The perf map of a target that was started with V8's flags for it
    Map,
    /// V8's heap, read while the target runs; no flag needed
    Heap,
    /// Nowhere: JavaScript frames stay addresses
    Off,
}

/// Where the names of JavaScript frames come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsSource {
    /// Copied user stacks and V8's heap.
    Heap,
    /// Callchains and the perf map.
    Map,
    /// Callchains only.
    Off,
}

impl JsSource {
    /// The value of `js` in the capture.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Heap => "heap",
            Self::Map => "map",
            Self::Off => "off",
        }
    }
}

/// Bytes of user stack that are copied with a time sample when nothing else is said.
pub const CPU_STACK_BYTES: u32 = 16 << 10;
/// Bytes of user stack that are copied at a probe when nothing else is said. Not 8 KiB:
/// `fs.readFileSync(path, "utf8")` keeps as much on the stack itself (node::fs::ReadFileUtf8).
pub const PROBE_STACK_BYTES: u32 = 16 << 10;

/// A recording, validated and ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordPlan {
    /// Whom.
    pub target: Target,
    /// Whether time samples are taken, and how many a second and thread.
    pub frequency: Option<u32>,
    /// Whether file operations are recorded.
    pub files: bool,
    /// Whether all system calls are recorded.
    pub syscalls: bool,
    /// Whether paths given to the C library are recorded.
    pub libc: bool,
    /// Probes of the user.
    pub probes: Vec<ProbeSpec>,
    /// Whether children are followed (threads always are).
    pub inherit: bool,
    /// When to stop at the latest.
    pub duration: Option<Duration>,
    /// The capture's file; none where it is only read along.
    pub output: Option<PathBuf>,
    /// Longest time that a sample waits before it is written.
    pub flush: Duration,
    /// Whether dangerous probes are allowed.
    pub allow_unsafe: bool,
    /// Where JavaScript names come from.
    pub js: JsChoice,
    /// Bytes of user stack to copy with each sample, where stacks are copied.
    pub stack_bytes: Option<u32>,
    /// Bytes of each CPU's ring.
    pub ring_bytes: Option<u64>,
    /// Command line of the recorder, for the capture.
    pub command_line: Vec<String>,
}

impl RecordPlan {
    /// Sorts events into what the session arms; no event means the default sets. File operations are
    /// what tells who asked for a system call: with those they are recorded, too.
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
        let files = has(Set::Fs) || Self::syscalls(specs);
        (has(Set::Cpu).then_some(frequency), files, probes.collect())
    }

    /// Whether paths given to the C library are among the events. Only where they are asked for: their
    /// results need return probes on functions in which a thread may be cancelled.
    #[must_use]
    pub fn libc(specs: &[EventSpec]) -> bool {
        specs.contains(&EventSpec::Set(Set::Libc))
    }

    /// Whether all system calls are among the events.
    #[must_use]
    pub fn syscalls(specs: &[EventSpec]) -> bool {
        specs.contains(&EventSpec::Set(Set::Syscalls))
    }
}
