//! System calls counted: by number with their times, failures by who asked for what, and the slowest.
//! It must not know how a result is shown.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

use formats::capture::Capture;

use super::operations::Latency;
use crate::asked::Askers;
use crate::join::operations::Operations;
use crate::join::pool::JobKind;
use crate::join::syscalls::{Cause, SystemCall, SystemCalls};
use crate::join::{errno, sysno};
use crate::profile::{Kind, Profile, ResolvedStackId};
use crate::symbolise::Symboliser;

/// Which calls to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallFilter {
    /// Only calls that failed.
    pub failed: bool,
    /// Only calls that took at least so long, nanoseconds.
    pub slow_ns: Option<u64>,
}

impl CallFilter {
    /// Whether it can leave anything out.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.failed || self.slow_ns.is_some()
    }

    fn takes(&self, call: &SystemCall) -> bool {
        let slow = |least| call.duration_ns.is_some_and(|took| took >= least);
        (!self.failed || call.failed()) && self.slow_ns.is_none_or(slow)
    }
}

/// All calls of one number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallCount {
    /// The kernel's number of the call.
    pub number: i64,
    /// Its name.
    pub name: Cow<'static, str>,
    /// Whether its time is as a rule spent waiting.
    pub waits: bool,
    /// How often.
    pub count: u64,
    /// Those that gave an error, "not yet" included.
    pub errors: u64,
    /// Those that had not returned when the recording ended.
    pub unfinished: u64,
    /// All times together, nanoseconds.
    pub total_ns: u64,
    /// Of those that returned.
    pub latency: Option<Latency>,
}

/// What a call was made for, as far as that tells calls apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose<'c> {
    /// A file operation.
    Operation {
        /// What it does.
        name: &'static str,
        /// The path, where there is one and it is known.
        path: Option<&'c [u8]>,
        /// The second path.
        new_path: Option<&'c [u8]>,
        /// The call of the program that it is a step of.
        call: Option<String>,
    },
    /// Work of a pool thread.
    Job(Work),
    /// A function of libuv or libc, the innermost that the call's own stack names.
    Function(String),
    /// Not known.
    Unknown,
}

/// Kind of a pool thread's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// A file operation that was asked for before the recording.
    File,
    /// The program's own.
    Queued,
    /// Looking up a host name.
    Lookup,
}

impl Work {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::File => "a file operation of before the recording",
            Self::Queued => "work that the program gave to the thread pool",
            Self::Lookup => "looking up a host name",
        }
    }
}

/// Calls that failed alike, for the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure<'c> {
    /// The kernel's number of the call.
    pub number: i64,
    /// Its name.
    pub name: Cow<'static, str>,
    /// Name of the error.
    pub errno: Cow<'static, str>,
    /// What for.
    pub purpose: Purpose<'c>,
    /// How often.
    pub count: u64,
    /// Who asked, the most frequent first: the stack of the operation, else the call's own.
    pub stacks: Vec<(ResolvedStackId, u64)>,
}

/// Calls that are to be made again, or whose waiting ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotYet {
    /// Name of the call.
    pub name: Cow<'static, str>,
    /// Name of the error.
    pub errno: Cow<'static, str>,
    /// How often.
    pub count: u64,
}

/// One call that took long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slow<'c> {
    /// The call.
    pub call: SystemCall,
    /// Its name.
    pub name: Cow<'static, str>,
    /// What for.
    pub purpose: Purpose<'c>,
    /// Who asked.
    pub stack: ResolvedStackId,
}

/// What the calls of a capture come to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counted<'c> {
    /// By number, the most time first.
    pub calls: Vec<CallCount>,
    /// The most frequent first.
    pub failures: Vec<Failure<'c>>,
    /// The most frequent first.
    pub not_yet: Vec<NotYet>,
    /// The slowest that do not wait, the slowest first.
    pub slowest: Vec<Slow<'c>>,
    /// Calls that do not wait and that returned: how many `slowest` was chosen from.
    pub working: u64,
    /// Threads that made calls.
    pub threads: u64,
}

/// Counts what `filter` takes of the calls; `slowest` bounds their list.
#[must_use]
pub fn count<'c>(
    capture: &'c Capture,
    found: &SystemCalls,
    operations: &Operations<'c>,
    symboliser: &mut Symboliser<'_>,
    (filter, slowest): (CallFilter, usize),
) -> Counted<'c> {
    let askers = Askers::of(&operations.operations, symboliser);
    let mut purposes = Purposes { operations, askers: &askers, symboliser };
    let mut counted = Counted::default();
    let mut threads = HashSet::new();
    let mut by_number: BTreeMap<i64, (CallCount, Vec<u64>)> = BTreeMap::new();
    let mut failures: HashMap<(i64, i64, Purpose<'c>), HashMap<ResolvedStackId, u64>> =
        HashMap::new();
    let mut not_yet: BTreeMap<(i64, i64), u64> = BTreeMap::new();
    let mut working: Vec<&SystemCall> = Vec::new();
    let arch = capture.meta.arch.as_str();
    for call in found.calls.iter().filter(|call| filter.takes(call)) {
        threads.insert(call.tid);
        let (count, times) = by_number.entry(call.number).or_insert_with(|| {
            let name = sysno::name(arch, call.number);
            let waits = sysno::waits(&name);
            (CallCount::none(call.number, name, waits), Vec::new())
        });
        count.count += 1;
        count.errors += u64::from(call.errno().is_some());
        count.unfinished += u64::from(call.duration_ns.is_none());
        count.total_ns = count.total_ns.saturating_add(call.duration_ns.unwrap_or(0));
        times.extend(call.duration_ns);
        if !count.waits && call.duration_ns.is_some() {
            working.push(call);
        }
        let Some(errno) = call.errno() else { continue };
        if call.failed() {
            let (purpose, stack) = purposes.of(call);
            let key = (call.number, errno, purpose);
            *failures.entry(key).or_default().entry(stack).or_default() += 1;
        } else {
            *not_yet.entry((call.number, errno)).or_default() += 1;
        }
    }
    counted.threads = threads.len() as u64;
    counted.working = working.len() as u64;
    working.sort_by_key(|call| (Reverse(call.duration_ns), call.start_ns));
    counted.slowest = working
        .into_iter()
        .take(slowest)
        .map(|call| {
            let (purpose, stack) = purposes.of(call);
            Slow { call: *call, name: sysno::name(arch, call.number), purpose, stack }
        })
        .collect();
    counted.calls = by_number
        .into_values()
        .map(|(count, times)| CallCount { latency: Latency::of(times), ..count })
        .collect();
    counted.calls.sort_by_key(|call| (Reverse(call.total_ns), Reverse(call.count), call.number));
    counted.failures = failures
        .into_iter()
        .map(|((number, error, purpose), stacks)| {
            let mut stacks: Vec<_> = stacks.into_iter().collect();
            stacks.sort_by_key(|&(stack, count)| (Reverse(count), stack));
            Failure {
                number,
                name: sysno::name(arch, number),
                errno: errno::name(error),
                purpose,
                count: stacks.iter().map(|&(_stack, count)| count).sum(),
                stacks,
            }
        })
        .collect();
    counted.failures.sort_by(|a, b| {
        let order = |failure: &Failure<'c>| (Reverse(failure.count), failure.number);
        order(a).cmp(&order(b)).then_with(|| (&a.errno, &a.purpose).cmp(&(&b.errno, &b.purpose)))
    });
    counted.not_yet = not_yet
        .into_iter()
        .map(|((number, error), count)| NotYet {
            name: sysno::name(arch, number),
            errno: errno::name(error),
            count,
        })
        .collect();
    counted.not_yet.sort_by_key(|not_yet| Reverse(not_yet.count));
    counted
}

impl CallCount {
    fn none(number: i64, name: Cow<'static, str>, waits: bool) -> Self {
        let (count, errors, unfinished, total_ns) = (0, 0, 0, 0);
        Self { number, name, waits, count, errors, unfinished, total_ns, latency: None }
    }
}

/// Finds what calls were made for.
struct Purposes<'a, 'c, 's, 'b> {
    operations: &'a Operations<'c>,
    askers: &'a Askers,
    symboliser: &'s mut Symboliser<'b>,
}

impl<'c> Purposes<'_, 'c, '_, '_> {
    /// What for, and the stack that asked.
    fn of(&mut self, call: &SystemCall) -> (Purpose<'c>, ResolvedStackId) {
        match call.cause {
            Some(Cause::Operation(place)) => {
                let place = place as usize;
                if let Some(operation) = self.operations.operations.get(place) {
                    let asked = self.askers.get(place);
                    let purpose = Purpose::Operation {
                        name: operation.name,
                        path: operation.path,
                        new_path: operation.new_path,
                        call: self.askers.name(asked.call).map(str::to_owned),
                    };
                    return (purpose, asked.stack());
                }
            }
            Some(Cause::Job(place)) => {
                if let Some(job) = self.operations.jobs.get(place as usize) {
                    let work = match job.kind {
                        JobKind::File => Work::File,
                        JobKind::Queued => Work::Queued,
                        JobKind::Lookup => Work::Lookup,
                    };
                    let stack = self.symboliser.resolve(job.stack, call.start_ns);
                    return (Purpose::Job(work), stack);
                }
            }
            None => {}
        }
        let stack = self.symboliser.resolve(call.stack, call.end_ns());
        let function = function(self.symboliser.profile(), stack);
        (function.map_or(Purpose::Unknown, Purpose::Function), stack)
    }
}

/// The function of libuv that made a call, else the innermost that has a name, which is as a rule
/// libc's, else the file that the innermost is in.
fn function(profile: &Profile, stack: ResolvedStackId) -> Option<String> {
    let native = || {
        // Beyond the first JavaScript it is another one's doing.
        let frames = profile.leaf_first(stack).take_while(|frame| frame.kind != Kind::Js);
        frames.filter(|frame| frame.kind == Kind::Native)
    };
    let named = || native().filter(|frame| frame.unresolved.is_none());
    let function = named().find(|frame| frame.function.starts_with("uv_"));
    let function = function.or_else(|| named().next()).map(|frame| frame.function.as_str());
    let file = || native().next()?.module.as_deref()?.rsplit('/').next();
    function.or_else(file).map(str::to_owned)
}

#[cfg(test)]
#[path = "syscalls_tests.rs"]
mod tests;
