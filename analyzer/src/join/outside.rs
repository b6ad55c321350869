//! Operations of functions that are not libuv's `uv_fs_*`: a call joined with its return on the same
//! thread.
//!
//! Both tell where the thread's stack ends, so that a return belongs to exactly one call, and calls
//! within a call are known: `std::filesystem::create_directories` calls `create_directory`. One
//! operation is what was called first; what it called are its steps, and no operations of their own.
//! It must not know how requests are joined.

use std::collections::HashMap;

use formats::catalogue::{self, Entry, Role, THROWING};

use super::errno::{DLOPEN_FAILED, ENOENT, UNKNOWN};
use super::operations::{NewPath, Operation, SAME_HIT_NS, Sample};

/// What a call leaves on the stack, and its return takes off: the return address.
const RETURN_ADDRESS: u64 = 8;

/// A thread of a process: index of the process in the capture, thread id.
type Thread = (u32, u32);

/// A call that has not returned.
#[derive(Debug)]
struct Call {
    /// Where the stack ended.
    top: u64,
    /// The operation's place; `None` for a step of another one.
    place: Option<usize>,
}

/// What has been called and has not returned.
#[derive(Default)]
pub(super) struct Outside<'c> {
    calls: HashMap<Thread, Vec<Call>>,
    new_paths: HashMap<Thread, (u64, NewPath<'c>)>,
    /// The newest operation of a thread, while its error may still be told.
    doubtful: HashMap<Thread, usize>,
}

/// What a return says of how it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It went well.
    Well,
    /// It went well, or failed: Node will say so.
    Doubtful,
    /// It failed, with this error.
    Failed(i64),
}

impl<'c> Outside<'c> {
    /// Whether the samples of this entry are parts of such operations.
    pub(super) fn is_part(entry: &Entry) -> bool {
        entry.arguments.iter().any(|argument| argument.role == Role::StackTop)
    }

    /// A call begins an operation unless it is a step of another one. `place` is where the operation
    /// will be.
    pub(super) fn begins(&mut self, sample: &Sample<'c, '_>, place: usize) -> bool {
        let thread = (sample.process, sample.tid);
        self.doubtful.remove(&thread);
        let Some(top) = sample.value(Role::StackTop) else { return false };
        let calls = self.calls.entry(thread).or_default();
        // The stack grows downwards: what would lie below this call has returned, unseen.
        calls.retain(|call| call.top > top);
        let entry = sample.part.entry;
        let begins = calls.is_empty()
            // Without a path it is about the program itself.
            && (entry.event != "dlopen" || sample.text(Role::Path).is_some());
        if returns(entry) {
            calls.push(Call { top, place: begins.then_some(place) });
        }
        begins
    }

    /// The second path of a call; both probes are at one instruction, and either may be written first.
    pub(super) fn new_path(&mut self, sample: &Sample<'c, '_>, operations: &mut [Operation<'c>]) {
        let thread = (sample.process, sample.tid);
        let Some(top) = sample.value(Role::StackTop) else { return };
        let new =
            NewPath { tid: sample.tid, time: sample.time_ns, path: sample.text(Role::NewPath) };
        let call = self.calls.get(&thread).and_then(|calls| calls.last());
        let operation = call.filter(|call| call.top == top).map(|call| call.place);
        match operation {
            Some(None) => {}
            Some(Some(place)) => {
                if let Some(operation) = operations.get_mut(place)
                    && new.time.saturating_sub(operation.start_ns) < SAME_HIT_NS
                {
                    operation.new_path = new.path;
                }
            }
            None => drop(self.new_paths.insert(thread, (top, new))),
        }
    }

    /// The second path that was seen before its call.
    pub(super) fn stashed(&mut self, sample: &Sample<'c, '_>) -> Option<&'c [u8]> {
        let (top, new) = self.new_paths.remove(&(sample.process, sample.tid))?;
        let is_same = Some(top) == sample.value(Role::StackTop)
            && sample.time_ns.saturating_sub(new.time) < SAME_HIT_NS;
        new.path.filter(|_| is_same)
    }

    /// A function returns.
    pub(super) fn returned(&mut self, sample: &Sample<'c, '_>, operations: &mut [Operation<'c>]) {
        let thread = (sample.process, sample.tid);
        let Some(top) = sample.value(Role::StackTop) else { return };
        let Some(calls) = self.calls.get_mut(&thread) else { return };
        let own = top.wrapping_sub(RETURN_ADDRESS);
        calls.retain(|call| call.top >= own);
        let Some(call) = calls.pop_if(|call| call.top == own) else { return };
        let Some((place, operation)) =
            call.place.and_then(|place| Some((place, operations.get_mut(place)?)))
        else {
            return;
        };
        operation.latency_ns = Some(sample.time_ns.saturating_sub(operation.start_ns));
        let outcome = outcome(sample);
        operation.result = match outcome {
            Outcome::Well => Some(0),
            Outcome::Failed(number) => Some(-number),
            // Node throws what went wrong on its own thread, at once; elsewhere it is not seen.
            Outcome::Doubtful => operation.job.is_none().then_some(0),
        };
        if matches!(outcome, Outcome::Doubtful | Outcome::Failed(UNKNOWN)) {
            self.doubtful.insert(thread, place);
        }
    }

    /// Another operation of this thread: an error that is told later is not that of the one before.
    pub(super) fn goes_on(&mut self, sample: &Sample<'c, '_>) {
        self.doubtful.remove(&(sample.process, sample.tid));
    }

    /// Node throws an error.
    pub(super) fn thrown(&mut self, sample: &Sample<'c, '_>, operations: &mut [Operation<'c>]) {
        let is_of_these = |call: u64| THROWING.iter().any(|own| call == word(*own));
        let Some(place) = self.doubtful.remove(&(sample.process, sample.tid)) else { return };
        if let Some(operation) = operations.get_mut(place)
            && let Some(error) = sample.number(Role::Status).filter(|&error| error > 0)
            && sample.value(Role::Number).is_some_and(is_of_these)
        {
            operation.result = Some(-error);
            operation.errno_thrown = true;
        }
    }
}

fn word(letters: [u8; 2]) -> u64 {
    u64::from(u16::from_le_bytes(letters))
}

/// Whether the return of a function is probed.
fn returns(call: &Entry) -> bool {
    catalogue::entries().any(|entry| entry.is_return() && entry.function == call.function)
}

fn outcome(sample: &Sample<'_, '_>) -> Outcome {
    let of = |role| sample.number(role);
    if let Some(status) = of(Role::Status) {
        return if status < 0 { Outcome::Failed(status.saturating_neg()) } else { Outcome::Well };
    }
    match (of(Role::Count), of(Role::Pointer), of(Role::FileType), of(Role::Done)) {
        (Some(-1), ..) => Outcome::Failed(UNKNOWN),
        (_, Some(0), ..) => Outcome::Failed(DLOPEN_FAILED),
        // ENOTDIR is told as the same.
        (_, _, Some(-1), _) => Outcome::Failed(ENOENT),
        (_, _, Some(0), _) => Outcome::Failed(UNKNOWN),
        (.., Some(0)) | (None, None, None, None) => Outcome::Doubtful,
        _ => Outcome::Well,
    }
}

#[cfg(test)]
#[path = "outside_tests.rs"]
mod tests;
