//! System calls: each entry into the kernel joined with the exit of the same thread, and with the file
//! operation in the midst of which it was made. It must not resolve stacks.
//!
//! A thread is in one call at a time, so an exit belongs to the thread's newest entry. Threads are told
//! apart by their ids alone: a call that begins another program ends in another process image.

use std::collections::{HashMap, HashSet};

use formats::capture::{Capture, EventDef, Samples};
use formats::syscalls::{ENTER, EXIT, FAILED, MAX_ERRNO, SET, is_failure};

use super::operations::{Operation, Operations};
use super::outside::LOAD;
use super::sysno;

/// One system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemCall {
    /// The kernel's number of the call.
    pub number: i64,
    /// When it began, CLOCK_MONOTONIC nanoseconds.
    pub start_ns: u64,
    /// How long it took, nanoseconds; `None` if it did not return while recording.
    pub duration_ns: Option<u64>,
    /// What it gave, or the error number negated.
    pub result: Option<i64>,
    /// Thread, an index into the capture's threads.
    pub thread: u32,
    /// Thread id.
    pub tid: u32,
    /// Its own stack, of a call that failed; an index into the capture's stacks, 0 where none was to be
    /// taken.
    pub stack: u32,
    /// In the midst of which operation it was made.
    pub cause: Option<Cause>,
}

impl SystemCall {
    /// The error number, if it failed.
    #[must_use]
    pub fn errno(&self) -> Option<i64> {
        self.result.filter(|result| (-MAX_ERRNO..0).contains(result)).map(i64::saturating_neg)
    }

    /// Whether it failed, and is not merely to be made again.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.errno().is_some() && self.result.is_some_and(is_failure)
    }

    /// When it ended; its start if that is not known.
    #[must_use]
    pub fn end_ns(&self) -> u64 {
        self.start_ns.saturating_add(self.duration_ns.unwrap_or(0))
    }
}

/// What a system call was made for. Of two that begin together the first one here is the outer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Work of a pool thread, an index into [`Operations::jobs`].
    Job(u32),
    /// A file operation, an index into [`Operations::operations`].
    Operation(u32),
}

/// All system calls of a capture.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SystemCalls {
    /// By time of their beginning.
    pub calls: Vec<SystemCall>,
    /// Exits whose entry is not in the capture: the call was under way when recording started, its
    /// record was lost, or it is the first return of a new thread.
    pub exits_alone: u64,
}

/// Whether an event is one of system calls: what its samples are is said by the joined calls.
#[must_use]
pub fn is_part(event: &EventDef) -> bool {
    matches!(event.name.as_str(), ENTER | EXIT | FAILED) && number_field(event).is_some()
}

/// Whether the system calls of all threads were recorded.
#[must_use]
pub fn are_recorded(capture: &Capture) -> bool {
    capture.events.iter().any(|event| event.set == SET && event.name == ENTER)
}

fn number_field(event: &EventDef) -> Option<usize> {
    event.fields.iter().position(|field| field.name == "id")
}

/// The samples of one event.
struct Part<'c> {
    samples: &'c Samples,
    enters: bool,
    number: usize,
    result: Option<usize>,
}

impl<'c> Part<'c> {
    fn new(capture: &'c Capture, samples: &'c Samples) -> Option<Self> {
        let event = capture.event(samples.event).filter(|event| is_part(event))?;
        let result = event.fields.iter().position(|field| field.name == "ret");
        Some(Self { samples, enters: event.name == ENTER, number: number_field(event)?, result })
    }

    fn value(&self, field: usize, row: usize) -> Option<i64> {
        Some(self.samples.fields.get(field)?.get(row)?.cast_signed())
    }
}

/// Joins the entries and exits of a capture. No call has a cause yet.
#[must_use]
pub fn join(capture: &Capture) -> SystemCalls {
    let parts: Vec<Part<'_>> =
        capture.samples.iter().filter_map(|samples| Part::new(capture, samples)).collect();
    let mut order: Vec<(u64, u32, u32)> = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        let times = part.samples.time_ns.iter().enumerate();
        order.extend(times.map(|(row, &time)| (time, at as u32, row as u32)));
    }
    order.sort_unstable();
    let mut found = SystemCalls::default();
    // The call that each thread is in.
    let mut within: HashMap<u32, usize> = HashMap::new();
    for (time, at, row) in order {
        let Some(part) = parts.get(at as usize) else { continue };
        let row = row as usize;
        let thread = part.samples.thread.get(row).copied().unwrap_or(u32::MAX);
        let tid = capture.threads.get(thread as usize).map_or(0, |thread| thread.tid);
        let Some(number) = part.value(part.number, row) else { continue };
        if part.enters {
            within.insert(tid, found.calls.len());
            found.calls.push(SystemCall {
                number,
                start_ns: time,
                duration_ns: None,
                result: None,
                thread,
                tid,
                stack: 0,
                cause: None,
            });
            continue;
        }
        let call = within.remove(&tid).and_then(|place| found.calls.get_mut(place));
        let Some(call) = call.filter(|call| call.number == number) else {
            found.exits_alone += 1;
            continue;
        };
        call.duration_ns = Some(time.saturating_sub(call.start_ns));
        call.result = part.result.and_then(|field| part.value(field, row));
        call.stack = part.samples.stack.get(row).copied().unwrap_or(0);
    }
    forget_launch(capture, &mut found);
    found
}

/// Takes out what the recorder's own child did until it became the command: it looked for the command
/// in each folder of PATH.
fn forget_launch(capture: &Capture, found: &mut SystemCalls) {
    if capture.meta.mode != "launch" {
        return;
    }
    let launched: HashSet<u32> = capture.meta.targets.iter().copied().collect();
    let begins = |call: &&SystemCall| {
        launched.contains(&call.tid)
            && call.result == Some(0)
            && sysno::name(&capture.meta.arch, call.number) == "execve"
    };
    if let Some(start) = found.calls.iter().find(begins).map(|call| call.start_ns) {
        found.calls.retain(|call| call.start_ns >= start || !launched.contains(&call.tid));
    }
}

/// A time in which a thread was busy with something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    start_ns: u64,
    cause: Cause,
    end_ns: u64,
}

/// Says of each call in the midst of what its thread made it. Of operations within each other it is the
/// outer one, which the program asked for; work of a pool thread only counts where there is none.
pub fn attribute(calls: &mut [SystemCall], found: &Operations<'_>) {
    let mut spans: HashMap<u32, Vec<Span>> = HashMap::new();
    let mut add = |busy: Option<(u32, u64, u64)>, cause| {
        if let Some((tid, start_ns, end_ns)) = busy {
            spans.entry(tid).or_default().push(Span { start_ns, cause, end_ns });
        }
    };
    for (job, place) in found.jobs.iter().zip(0..) {
        let busy = job.end_ns.map(|end| (job.worker, job.start_ns, end));
        add(busy, Cause::Job(place));
    }
    for (operation, place) in found.operations.iter().zip(0..) {
        add(busy(operation), Cause::Operation(place));
    }
    spans.values_mut().for_each(|spans| spans.sort_unstable());
    // How many of its spans each thread has begun, and those that it is in, outermost first.
    let mut begun: HashMap<u32, (usize, Vec<Span>)> = HashMap::new();
    for call in calls {
        let Some(spans) = spans.get(&call.tid) else { continue };
        let (next, within) = begun.entry(call.tid).or_default();
        while let Some(span) = spans.get(*next).filter(|span| span.start_ns <= call.start_ns) {
            within.push(*span);
            *next += 1;
        }
        within.retain(|span| span.end_ns >= call.start_ns);
        let causes = || within.iter().map(|span| span.cause);
        // What an add-on does when it is loaded is no step of loading it.
        let has_steps = |cause: &Cause| match *cause {
            Cause::Operation(place) => {
                found.operations.get(place as usize).is_some_and(|own| own.name != LOAD)
            }
            Cause::Job(_) => false,
        };
        let operation = causes().find(has_steps);
        call.cause = operation.or_else(|| causes().next_back());
    }
}

/// On which thread an operation was done, from when until when.
fn busy(operation: &Operation<'_>) -> Option<(u32, u64, u64)> {
    let Operation { start_ns: asked_ns, tid, asynchronous, ref parts, .. } = *operation;
    let (thread, start_ns, took_ns) = match (parts.worker, parts.queue_ns) {
        (Some(worker), Some(queue_ns)) => {
            (worker, asked_ns.saturating_add(queue_ns), parts.work_ns)
        }
        // Within work of the program on a pool thread, where it is synchronous.
        (Some(worker), None) => (worker, asked_ns, operation.latency_ns),
        (None, _) if asynchronous == Some(true) => return None,
        (None, _) => (tid, asked_ns, operation.latency_ns),
    };
    Some((thread, start_ns, start_ns.saturating_add(took_ns?)))
}

/// Says of asynchronous operations how much of their work was spent in system calls, where those of
/// the pool thread were seen.
pub fn time_in_kernel(capture: &Capture, found: &mut Operations<'_>) {
    let mut calls = join(capture).calls;
    attribute(&mut calls, found);
    for call in &calls {
        let (Some(Cause::Operation(place)), Some(took_ns)) = (call.cause, call.duration_ns) else {
            continue;
        };
        if let Some(parts) = found.operations.get_mut(place as usize).map(|of| &mut of.parts)
            && let Some(work_ns) = parts.work_ns
        {
            // Both are measured by the same clock, but not at the same instructions.
            let sum = parts.syscall_ns.unwrap_or(0).saturating_add(took_ns);
            parts.syscall_ns = Some(sum.min(work_ns));
        }
    }
    super::outside::tell_errors(&calls, &mut found.operations);
}

#[cfg(test)]
#[path = "syscalls_tests.rs"]
mod tests;
