//! The one-page answer: gathers what every section needs from a capture. How it is shown is the
//! business of [`text`] and [`json`], which see nothing but a [`Report`] and a writer.

pub mod frames;
pub mod json;
pub mod stacks;
pub mod style;
pub mod text;
pub mod units;

#[cfg(test)]
mod javascript_tests;
#[cfg(test)]
mod operations_tests;
#[cfg(test)]
mod tests;

use formats::capture::{Capture, EventDef};

use crate::aggregate::calls::{self, CallSite, PathRow, Sum};
use crate::aggregate::count_stacks;
use crate::aggregate::cpu::{self, FunctionShare, Functions, InnermostShare};
use crate::aggregate::losses::{self, EventCount};
use crate::aggregate::operations::{OpenCount, PathFilter, PathOperations, by_operation};
use crate::aggregate::pool::{self, PoolUse};
use crate::aggregate::quality::{self, StackQuality};
use crate::asked::{Asked, Askers};
use crate::join;
use crate::join::operations::{self, Operation};
use crate::profile::{JsNames, Profile, ResolvedStackId};
use crate::source_map::Originals;
use crate::symbolise::Symboliser;

/// The set of time samples.
pub const CPU_SET: &str = "cpu";

/// The set of probes that the user asked for.
pub const PROBE_SET: &str = "probe";

/// Slowest operations that are kept.
const SLOWEST: usize = 100;

/// What CPU samples say.
#[derive(Debug, Clone)]
pub struct CpuReport {
    /// Samples taken.
    pub samples: u64,
    /// What the kernel counted, for example `cpu-clock`.
    pub source: String,
    /// Nanoseconds that a sample stands for, if one number holds for all.
    pub period_ns: Option<u64>,
    /// Functions, the most expensive first.
    pub functions: Vec<FunctionShare>,
    /// JavaScript of the application, by samples in the function and in what it called.
    pub javascript: Vec<InnermostShare>,
}

/// The hits of one probe.
#[derive(Debug, Clone)]
pub struct ProbeReport {
    /// Event name.
    pub event: String,
    /// How often it was hit.
    pub count: u64,
    /// Of these, the hits of which no stack was taken, because there were too many.
    pub not_taken: u64,
    /// The stacks, the most frequent first.
    pub stacks: Vec<(ResolvedStackId, u64)>,
}

/// Everything that the report shows.
#[derive(Debug)]
pub struct Report<'c> {
    /// The capture.
    pub capture: &'c Capture,
    /// Its stacks.
    pub profile: Profile,
    /// What the operations were filtered by.
    pub filter: &'c PathFilter,
    /// All operations, by time of their beginning.
    pub joined: Vec<Operation<'c>>,
    /// Who asked for each of them.
    pub askers: Askers,
    /// Operations by what they did and to which path, filtered as asked, all of them.
    pub operations: Vec<PathOperations<'c>>,
    /// The same with the steps of module resolution apart.
    pub split: Vec<PathOperations<'c>>,
    /// By path alone, filtered as asked, without module resolution unless that is asked for.
    pub paths: Vec<PathRow<'c>>,
    /// By call and line of the program, likewise.
    pub calls: Vec<(CallSite, Sum)>,
    /// Steps of module resolution that fit the filter.
    pub folded: u64,
    /// The slowest operations that fit, by their place.
    pub slowest: Vec<usize>,
    /// The thread pools of the processes.
    pub pools: Vec<PoolUse>,
    /// Asynchronous operations that no pool thread did.
    pub without_pool: u64,
    /// All opens of the capture, whatever the filter; `None` if opens were not recorded.
    pub opens: Option<OpenCount>,
    /// The same of all file operations, opens among them.
    pub all_operations: OpenCount,
    /// Bytes read and written.
    pub bytes: u64,
    /// Whether more than one process did something to files.
    pub many_open: bool,
    /// Results of opens that began before the recording.
    pub results_without_open: u64,
    /// The same of other operations.
    pub results_without_operation: u64,
    /// CPU time, if it was recorded.
    pub cpu: Option<CpuReport>,
    /// Probes that are no halves of opens.
    pub probes: Vec<ProbeReport>,
    /// How good the stacks are.
    pub quality: StackQuality,
    /// The same of the operations that fit, where a filter leaves some out.
    pub quality_of_fitting: Option<StackQuality>,
    /// How JavaScript frames got their names.
    pub js_names: JsNames,
    /// Samples and losses by event.
    pub events: Vec<EventCount>,
    /// What makes the capture incomplete.
    pub problems: Vec<String>,
}

impl<'c> Report<'c> {
    /// Gathers the report.
    #[must_use]
    pub fn new(capture: &'c Capture, filter: &'c PathFilter, originals: &Originals) -> Self {
        let mut symboliser = Symboliser::new(capture, originals);
        let joined = operations::join(capture);
        let askers = Askers::of(&joined.operations, &mut symboliser);
        let operations = by_operation(&joined.operations, &joined.folders, &askers, filter, false);
        let split = by_operation(&joined.operations, &joined.folders, &askers, filter, true);
        let pools = pool::pools(capture, &joined, &mut symboliser, capture.end_ns());
        let time = count_stacks(capture, &mut symboliser, |event| event.set == CPU_SET);
        // Results have no stack of interest: they would count every asynchronous open twice.
        let others = count_stacks(capture, &mut symboliser, |event| {
            let begins = operations::is_beginning(event);
            event.set != CPU_SET && (begins || !join::is_part(event))
        });
        let probes = probes(capture, &mut symboliser);
        let mut profile = symboliser.into_profile();
        let mut quality = StackQuality::of(&profile, time.iter().chain(others.iter()));
        quality.read_later = quality::read_later(capture);
        let fitting = joined.operations.iter().enumerate();
        let fitting =
            fitting.filter(|(_place, operation)| filter.takes(operation, &joined.folders));
        let fitting: Vec<Asked> = fitting.map(|(place, _operation)| askers.get(place)).collect();
        let folded = fitting.iter().filter(|asked| asked.folded.is_some()).count() as u64;
        let fitting = fitting.iter().map(|asked| (asked.own, 1));
        let quality_of_fitting = filter.is_set().then(|| StackQuality::of(&profile, fitting));
        let cpu = capture.events.iter().any(|event| event.set == CPU_SET).then(|| {
            let defs: Vec<_> = capture.events.iter().filter(|e| e.set == CPU_SET).collect();
            let mut sources: Vec<&str> = defs.iter().map(|e| e.source.as_str()).collect();
            sources.dedup();
            let period = defs.first().and_then(|def| def.period_ns);
            let by_function = Functions::of(&mut profile);
            let functions = cpu::functions(&profile, &by_function, &time);
            let wanted = crate::profile::ResolvedFrame::is_application;
            CpuReport {
                samples: time.total(),
                source: sources.join(", "),
                period_ns: period.filter(|_ns| defs.iter().all(|def| def.period_ns == period)),
                javascript: cpu::by_innermost(&profile, &by_function, &time, &functions, wanted),
                functions,
            }
        });
        let has_opens =
            capture.events.iter().any(|event| event.set == "fs" || operations::is_part(event));
        let mut pids = joined.operations.iter().map(|open| open.pid);
        let first = pids.next();
        let many_open = pids.any(|pid| Some(pid) != first);
        Self {
            capture,
            filter,
            operations,
            split,
            paths: calls::by_path(&joined, &askers, filter, &profile),
            calls: calls::by_call(&joined, &askers, filter, &profile),
            slowest: calls::slowest(&joined, filter, SLOWEST),
            folded,
            pools,
            without_pool: joined.without_pool,
            opens: has_opens
                .then(|| OpenCount::of(joined.operations.iter().filter(|open| open.is_open()))),
            all_operations: OpenCount::of(&joined.operations),
            bytes: joined.operations.iter().filter_map(Operation::bytes).sum(),
            many_open,
            results_without_open: joined.results_without_open,
            results_without_operation: joined.results_without_operation,
            cpu,
            probes,
            quality,
            quality_of_fitting,
            js_names: quality::js_names(capture),
            events: losses::by_event(capture),
            problems: losses::problems(capture),
            profile,
            askers,
            joined: joined.operations,
        }
    }

    /// The opens among the operations.
    pub fn open_paths(&self) -> impl Iterator<Item = &PathOperations<'c>> {
        let is_open = |row: &&PathOperations<'c>| row.operation == operations::OPEN_OPERATION;
        self.operations.iter().filter(is_open)
    }

    /// Recorded time in nanoseconds.
    #[must_use]
    pub fn duration_ns(&self) -> u64 {
        self.capture.end_ns().saturating_sub(self.capture.meta.start_ns)
    }

    /// Whether what was recorded is not known: the file ends before it says so.
    #[must_use]
    pub fn is_cut_before_events(&self) -> bool {
        !self.capture.read.complete() && self.capture.events.is_empty()
    }

    /// Records that are missing, lost by the kernel and dropped by the recorder.
    #[must_use]
    pub fn lost(&self) -> (u64, u64) {
        let sum = |count: fn(&EventCount) -> u64| {
            self.events.iter().map(count).fold(0, u64::saturating_add)
        };
        (sum(|event| event.lost), sum(|event| event.dropped))
    }
}

/// The hits of each probe. A half of an open that was asked for as a probe is among the opens.
fn probes(capture: &Capture, symboliser: &mut Symboliser<'_>) -> Vec<ProbeReport> {
    let is_probe = |event: &&EventDef| event.set == PROBE_SET && !operations::is_part(event);
    let probes = capture.events.iter().filter(is_probe).map(|probe| {
        let counts = count_stacks(capture, symboliser, |event| event.id == probe.id);
        let mut stacks = counts.rows();
        stacks.sort_by_key(|&(stack, count)| (std::cmp::Reverse(count), stack));
        let not_taken = losses::without_stack(capture, probe.id);
        ProbeReport { event: probe.name.clone(), count: counts.total(), not_taken, stacks }
    });
    probes.collect()
}
