//! Operations of functions that are not libuv's `uv_fs_*`: a call joined with its return on the same
//! thread.
//!
//! Both tell where the thread's stack ends, so that a return belongs to exactly one call, and calls
//! within a call are known: `std::filesystem::create_directories` calls `create_directory`. One
//! operation is what was called first; what it called are its steps, and no operations of their own.
//! The return of `dlopen` must not be probed, so that what it runs, an add-on's beginning, is none of its
//! steps; that it failed is told by what Node asks next.
//! It must not know how requests are joined.

use std::collections::HashMap;

use formats::catalogue::{self, Entry, Role, THROWING};

use super::errno::{DLOPEN_FAILED, ENOENT, UNKNOWN};
use super::joining::{NewPath, SAME_HIT_NS};
use super::operations::{ErrnoFrom, Operation};
use super::sample::Sample;
use super::syscalls::{Cause, SystemCall};

/// What a call leaves on the stack, and its return takes off: the return address.
const RETURN_ADDRESS: u64 = 8;

/// The operation, and its event, that runs the beginning of an add-on, which does what it likes.
pub(super) const LOAD: &str = "dlopen";
/// Event that begins to watch a file, which looks at it by an operation with a request.
const POLL: &str = "uv_fs_poll_start";

/// A thread of a process: index of the process in the capture, thread id.
type Thread = (u32, u32);

/// A call that has not returned.
#[derive(Debug)]
struct Call {
    /// Where the stack ended.
    top: u64,
    /// The operation's place; `None` for a step of another one.
    place: Option<usize>,
    /// It can call what has a request.
    has_requests: bool,
}

/// What has been called and has not returned.
#[derive(Debug, Default)]
pub(super) struct Outside {
    calls: HashMap<Thread, Vec<Call>>,
    new_paths: HashMap<Thread, (u64, NewPath)>,
    /// The newest operation of a thread, while its error may still be told.
    doubtful: HashMap<Thread, usize>,
    /// The same of the newest `dlopen`.
    loading: HashMap<Thread, usize>,
}

/// What a return says of how it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It went well, and gave this.
    Gave(i64),
    /// It went well, or failed: Node will say so.
    Doubtful,
    /// It failed, with this error.
    Failed(i64),
}

impl Outcome {
    /// The operation's result; `would_be_told`: an error would be thrown where it is seen.
    pub(super) fn result(self, would_be_told: bool) -> Option<i64> {
        match self {
            Self::Gave(value) => Some(value),
            Self::Failed(number) => Some(-number),
            Self::Doubtful => would_be_told.then_some(0),
        }
    }
}

/// What a return says.
#[derive(Debug, Default)]
pub(super) struct Returned {
    /// Operations that have returned before, unseen, by place.
    pub(super) unseen: Vec<usize>,
    /// The operation that returns, and how it went.
    pub(super) call: Option<(usize, Outcome)>,
}

impl Outside {
    /// Whether the samples of this entry are parts of such operations.
    pub(super) fn is_part(entry: &Entry) -> bool {
        entry.arguments.iter().any(|argument| argument.role == Role::StackTop)
    }

    /// A call begins an operation unless it is a step of another one, as `is_step` says of one that has
    /// a request. `place` is where the operation will be. Beside it the operations that have returned,
    /// unseen.
    pub(super) fn begins(
        &mut self,
        sample: &Sample<'_, '_>,
        place: usize,
        is_step: bool,
    ) -> (bool, Vec<usize>) {
        let thread = (sample.process, sample.tid);
        self.doubtful.remove(&thread);
        self.loading.remove(&thread);
        let Some(top) = sample.value(Role::StackTop) else { return (false, Vec::new()) };
        let calls = self.calls.entry(thread).or_default();
        // The stack grows downwards: what would lie below this call has returned, unseen.
        let unseen = calls.extract_if(.., |call| call.top <= top);
        let unseen = unseen.filter_map(|call| call.place).collect();
        let entry = sample.part.entry;
        let is_load = entry.event == LOAD;
        let begins = !is_step
            && calls.is_empty()
            // Without a path it is about the program itself.
            && (!is_load || sample.text(Role::Path) != 0);
        if is_load && begins {
            self.loading.insert(thread, place);
        }
        if returns(entry) {
            let place = begins.then_some(place);
            calls.push(Call { top, place, has_requests: entry.event == POLL });
        }
        (begins, unseen)
    }

    /// The second path of a call: where its operation is, and the path. Both probes are at one
    /// instruction, and either may be written first.
    pub(super) fn new_path(&mut self, sample: &Sample<'_, '_>) -> Option<(usize, u32)> {
        let thread = (sample.process, sample.tid);
        let top = sample.value(Role::StackTop)?;
        let new =
            NewPath { tid: sample.tid, time: sample.time_ns, path: sample.text(Role::NewPath) };
        let call = self.calls.get(&thread).and_then(|calls| calls.last());
        match call.filter(|call| call.top == top) {
            Some(call) => Some((call.place?, new.path)),
            None => {
                self.new_paths.insert(thread, (top, new));
                None
            }
        }
    }

    /// The second path that was seen before its call; 0 for none.
    pub(super) fn stashed(&mut self, sample: &Sample<'_, '_>) -> u32 {
        let stashed = self.new_paths.remove(&(sample.process, sample.tid));
        let is_same = |(top, new): &(u64, NewPath)| {
            Some(*top) == sample.value(Role::StackTop)
                && sample.time_ns.saturating_sub(new.time) < SAME_HIT_NS
        };
        stashed.filter(is_same).map_or(0, |(_top, new)| new.path)
    }

    /// A function returns.
    pub(super) fn returned(&mut self, sample: &Sample<'_, '_>) -> Returned {
        let thread = (sample.process, sample.tid);
        let Some(top) = sample.value(Role::StackTop) else { return Returned::default() };
        let Some(calls) = self.calls.get_mut(&thread) else { return Returned::default() };
        let own = top.wrapping_sub(RETURN_ADDRESS);
        let unseen = calls.extract_if(.., |call| call.top < own);
        let unseen = unseen.filter_map(|call| call.place).collect();
        let place = calls.pop_if(|call| call.top == own).and_then(|call| call.place);
        let call = place.map(|place| (place, outcome(sample)));
        if let Some((place, Outcome::Doubtful | Outcome::Failed(UNKNOWN))) = call {
            self.doubtful.insert(thread, place);
        }
        Returned { unseen, call }
    }

    /// An operation with a request begins on this thread: an error that is told later is not that of
    /// the one before, and calls that never make such requests have returned, unseen. Gives their places.
    pub(super) fn goes_on(&mut self, sample: &Sample<'_, '_>) -> Vec<usize> {
        let thread = (sample.process, sample.tid);
        self.doubtful.remove(&thread);
        self.loading.remove(&thread);
        let Some(calls) = self.calls.get_mut(&thread) else { return Vec::new() };
        let unseen = calls.extract_if(.., |call| !call.has_requests);
        unseen.filter_map(|call| call.place).collect()
    }

    /// Node throws an error: the operation whose error it is, and the error.
    pub(super) fn thrown(&mut self, sample: &Sample<'_, '_>) -> Option<(usize, i64)> {
        let is_of_these = |call: u64| THROWING.iter().any(|own| call == word(*own));
        let place = self.doubtful.remove(&(sample.process, sample.tid))?;
        let error = sample.number(Role::Status).filter(|&error| error > 0)?;
        sample.value(Role::Number).is_some_and(is_of_these).then_some((place, error))
    }

    /// Node asks why a `dlopen` failed: its place, and what is told of it.
    pub(super) fn load_failed(&mut self, sample: &Sample<'_, '_>) -> Option<(usize, i64)> {
        Some((self.loading.remove(&(sample.process, sample.tid))?, DLOPEN_FAILED))
    }

    /// Operations whose error may still be told, by place.
    pub(super) fn doubtful(&self) -> impl Iterator<Item = usize> + '_ {
        self.doubtful.values().chain(self.loading.values()).copied()
    }

    /// Forgets a process.
    pub(super) fn process_ended(&mut self, process: u32) {
        self.calls.retain(|&(of, _), _| of != process);
        self.new_paths.retain(|&(of, _), _| of != process);
        self.doubtful.retain(|&(of, _), _| of != process);
        self.loading.retain(|&(of, _), _| of != process);
    }

    /// Second paths that wait for their calls.
    pub(super) fn new_paths(&mut self) -> impl Iterator<Item = &mut u32> + '_ {
        self.new_paths.values_mut().map(|(_top, new)| &mut new.path)
    }
}

/// Tells which error an operation failed with, where only the system calls in its midst do.
pub(super) fn tell_errors(calls: &[SystemCall], operations: &mut [Operation<'_>]) {
    for call in calls {
        let (Some(Cause::Operation(place)), Some(number)) = (call.cause, call.errno()) else {
            continue;
        };
        let operation = operations.get_mut(place as usize);
        // In the order of time, so that the last one stays.
        let is_open = |operation: &&mut Operation<'_>| {
            operation.result == Some(-UNKNOWN)
                || operation.errno_from == Some(ErrnoFrom::SystemCall)
        };
        if let Some(operation) = operation.filter(is_open) {
            operation.result = Some(-number);
            operation.errno_from = Some(ErrnoFrom::SystemCall);
        }
    }
}

fn word(letters: [u8; 2]) -> u64 {
    u64::from(u16::from_le_bytes(letters))
}

/// Whether the return of a function is probed.
pub(super) fn returns(call: &Entry) -> bool {
    catalogue::entries().any(|entry| entry.is_return() && entry.function == call.function)
}

fn outcome(sample: &Sample<'_, '_>) -> Outcome {
    let of = |role| sample.number(role);
    if let Some(status) = of(Role::Status) {
        return if status < 0 {
            Outcome::Failed(status.saturating_neg())
        } else {
            Outcome::Gave(0)
        };
    }
    if let Some(number) = of(Role::Descriptor) {
        return if number < 0 { Outcome::Failed(UNKNOWN) } else { Outcome::Gave(number) };
    }
    match (of(Role::Count), of(Role::Pointer), of(Role::FileType), of(Role::Done)) {
        (Some(-1), ..) | (_, Some(0), ..) => Outcome::Failed(UNKNOWN),
        // ENOTDIR is told as the same.
        (_, _, Some(-1), _) => Outcome::Failed(ENOENT),
        (_, _, Some(0), _) => Outcome::Failed(UNKNOWN),
        (.., Some(0)) | (None, None, None, None) => Outcome::Doubtful,
        _ => Outcome::Gave(0),
    }
}

#[cfg(test)]
#[path = "outside_tests.rs"]
mod tests;
