//! File operations: the entry of a `uv_fs_*` function joined with the `uv_fs_req_cleanup` of the same
//! request, which carries the result of synchronous and asynchronous operations alike.
//!
//! The memory of a request is used again and again, so the latest entry wins. A request belongs to a
//! process; submission and result may happen on different threads. It must not resolve stacks.

use std::collections::HashMap;

use formats::capture::{Capture, EventDef, Samples};
use formats::catalogue::{self, CLEANUP, Entry, Gives, Role, UV_FS_OPEN};

use super::handles;

/// Event that begins an open.
pub const OPEN: &str = "uv_fs_open";
/// The operation's name of an open.
pub const OPEN_OPERATION: &str = "open";
/// Both probes of one hit are written within this time, nanoseconds.
const SAME_HIT_NS: u64 = 1_000_000;

/// One file operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation<'c> {
    /// What it does: `open`, `stat`, ….
    pub name: &'static str,
    /// The path as given; `None` where the kernel could not read it, or where there is none. Of an
    /// operation on an open file, the path that it was opened by.
    pub path: Option<&'c [u8]>,
    /// The second path of a rename, link or copy.
    pub new_path: Option<&'c [u8]>,
    /// The open file that it is about.
    pub descriptor: Option<i64>,
    /// The open directory that it is about, an address.
    pub directory: Option<u64>,
    /// Flags, and what they mean.
    pub flags: Option<(i64, Role)>,
    /// Mode, and what it means.
    pub mode: Option<(i64, Role)>,
    /// Whether a callback was given, so that a pool thread does it.
    pub asynchronous: Option<bool>,
    /// When it was asked for, CLOCK_MONOTONIC nanoseconds.
    pub start_ns: u64,
    /// Until the result was given up, nanoseconds; `None` without a result.
    pub latency_ns: Option<u64>,
    /// What it gave, or the error number negated.
    pub result: Option<i64>,
    /// What a result that is no error means.
    pub gives: Gives,
    /// Process id.
    pub pid: u32,
    /// Index of the process in the capture: an exec gives one more.
    pub process: u32,
    /// Thread that asked.
    pub tid: u32,
    /// Stack that asked, an index into the capture's stacks.
    pub stack: u32,
}

impl Operation<'_> {
    /// The error number, if it failed.
    #[must_use]
    pub fn errno(&self) -> Option<i64> {
        self.result.filter(|&result| result < 0).map(i64::saturating_neg)
    }

    /// Bytes that it moved.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        let result = self.result.filter(|_| self.gives == Gives::Bytes)?;
        u64::try_from(result).ok()
    }

    /// Whether it opened a path.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.name == OPEN_OPERATION
    }
}

/// What the join found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Operations<'c> {
    /// All operations, by time of their beginning.
    pub operations: Vec<Operation<'c>>,
    /// Results of asynchronous opens whose beginning is not in the capture: it was under way when
    /// recording started, or its record was lost.
    pub results_without_open: u64,
    /// The same of other operations.
    pub results_without_operation: u64,
}

/// Whether the samples of this event are parts of operations.
#[must_use]
pub fn is_half(event: &EventDef) -> bool {
    let has = |name: &str| event.fields.iter().any(|field| field.name == name);
    match catalogue::entry(&event.name) {
        Some(entry) if entry.event == CLEANUP => has("req") && has("result"),
        Some(entry) => entry.arguments.iter().all(|a| has(a.name) || !is_needed(a.role)),
        None => false,
    }
}

/// Whether the samples of this event begin operations.
#[must_use]
pub fn is_beginning(event: &EventDef) -> bool {
    is_half(event) && catalogue::entry(&event.name).is_some_and(|entry| entry.operation.is_some())
}

/// Arguments without which a sample cannot be joined.
fn is_needed(role: Role) -> bool {
    matches!(role, Role::Request | Role::Path | Role::NewPath | Role::Descriptor)
}

/// Joins all operations of a capture.
#[must_use]
pub fn join(capture: &Capture) -> Operations<'_> {
    let parts: Vec<Part<'_>> =
        capture.samples.iter().filter_map(|s| Part::new(capture, s)).collect();
    let mut order: Vec<(u64, usize, usize)> = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        order.extend(part.samples.time_ns.iter().enumerate().map(|(row, &time)| (time, at, row)));
    }
    order.sort_unstable();
    let mut joining = Joining::default();
    let mut found = Operations::default();
    // Addresses that results gave, by operation.
    let mut addresses: HashMap<usize, u64> = HashMap::new();
    for (time, at, row) in order {
        let Some(part) = parts.get(at) else { continue };
        let thread = part.samples.thread.get(row).copied().unwrap_or(u32::MAX);
        let owner = capture.threads.get(thread as usize);
        let process = owner.map_or(u32::MAX, |thread| thread.process);
        let Some(request) = part.value(Role::Request, row) else { continue };
        let key = (process, request);
        if part.entry.event == CLEANUP {
            let kind = part.value(Role::Type, row).map(|kind| kind as i64);
            match joining.finished(key, kind) {
                Some(place) => {
                    if let Some(operation) = found.operations.get_mut(place) {
                        let result = part.value(Role::Result, row);
                        operation.latency_ns = Some(time.saturating_sub(operation.start_ns));
                        operation.result = result.map(|value| value as i64);
                    }
                    addresses.extend(part.value(Role::Address, row).map(|to| (place, to)));
                }
                // Inner steps of libuv, such as the opens of a copy, have requests of their own that no
                // function was called with; nobody waits for them.
                None if part.value(Role::Callback, row) == Some(0) => {}
                None if kind.is_none_or(|kind| kind == UV_FS_OPEN) => {
                    found.results_without_open += 1;
                }
                None => found.results_without_operation += 1,
            }
            continue;
        }
        let tid = owner.map_or(0, |thread| thread.tid);
        let text = |role| part.value(role, row).and_then(|index| capture.string(index));
        let Some(operation) = part.entry.operation else {
            let new = NewPath { tid, time, path: text(Role::NewPath) };
            joining.new_path(key, new, &mut found.operations);
            continue;
        };
        let number = |role| part.value(role, row).map(|value| value as i64);
        let meant =
            |roles: [Role; 2]| roles.into_iter().find_map(|role| Some((number(role)?, role)));
        joining.waiting.insert(key, (found.operations.len(), operation.fs_type));
        found.operations.push(Operation {
            name: operation.name,
            path: text(Role::Path),
            new_path: joining.stashed(key, tid, time),
            descriptor: number(Role::Descriptor),
            directory: part.value(Role::Directory, row),
            flags: meant([Role::OpenFlags, Role::CopyFlags]),
            mode: meant([Role::Mode, Role::AccessMode]),
            asynchronous: part.value(Role::Callback, row).map(|callback| callback != 0),
            start_ns: time,
            latency_ns: None,
            result: None,
            gives: operation.gives,
            pid: capture.processes.get(process as usize).map_or(0, |process| process.pid),
            process,
            tid,
            stack: part.samples.stack.get(row).copied().unwrap_or(0),
        });
    }
    handles::name(&mut found.operations, &addresses);
    found
}

/// A second path that was seen.
struct NewPath<'c> {
    tid: u32,
    time: u64,
    path: Option<&'c [u8]>,
}

/// What waits for its other parts, by process and request.
#[derive(Default)]
struct Joining<'c> {
    /// The place of the operation, and its `uv_fs_type`.
    waiting: HashMap<(u32, u64), (usize, i64)>,
    new_paths: HashMap<(u32, u64), NewPath<'c>>,
}

impl<'c> Joining<'c> {
    /// The operation that a result of this type belongs to. A result of another type is that of an
    /// operation whose beginning was not seen.
    fn finished(&mut self, key: (u32, u64), kind: Option<i64>) -> Option<usize> {
        let &(place, own) = self.waiting.get(&key)?;
        if kind.is_some_and(|kind| kind != own) {
            return None;
        }
        self.waiting.remove(&key);
        Some(place)
    }

    /// Both probes are at one instruction, and either may be written first.
    fn new_path(&mut self, key: (u32, u64), new: NewPath<'c>, operations: &mut [Operation<'c>]) {
        let waiting = self.waiting.get(&key).and_then(|&(place, _)| operations.get_mut(place));
        let is_same = |operation: &&mut Operation<'_>| {
            operation.new_path.is_none()
                && operation.tid == new.tid
                && new.time.saturating_sub(operation.start_ns) < SAME_HIT_NS
                && has_new_path(operation.name)
        };
        match waiting.filter(is_same) {
            Some(operation) => operation.new_path = new.path,
            None => drop(self.new_paths.insert(key, new)),
        }
    }

    fn stashed(&mut self, key: (u32, u64), tid: u32, time: u64) -> Option<&'c [u8]> {
        let new = self.new_paths.remove(&key)?;
        (new.tid == tid && time.saturating_sub(new.time) < SAME_HIT_NS).then_some(new.path)?
    }
}

/// Whether an operation has a second path.
fn has_new_path(name: &str) -> bool {
    catalogue::entries().any(|entry| {
        entry.arguments.iter().any(|argument| argument.role == Role::NewPath)
            && entry.function.strip_prefix("uv_fs_") == Some(name)
    })
}

/// The samples of one event, with the places of the arguments.
struct Part<'c> {
    samples: &'c Samples,
    entry: &'static Entry,
    places: Vec<(Role, usize)>,
}

impl<'c> Part<'c> {
    fn new(capture: &'c Capture, samples: &'c Samples) -> Option<Self> {
        let event = capture.event(samples.event).filter(|event| is_half(event))?;
        let entry = catalogue::entry(&event.name)?;
        let place = |argument: &catalogue::Argument| {
            let place = event.fields.iter().position(|field| field.name == argument.name)?;
            Some((argument.role, place))
        };
        Some(Self { samples, entry, places: entry.arguments.iter().filter_map(place).collect() })
    }

    fn value(&self, role: Role, row: usize) -> Option<u64> {
        let (_, place) = self.places.iter().find(|(known, _)| *known == role)?;
        self.samples.fields.get(*place)?.get(row).copied()
    }
}

#[cfg(test)]
#[path = "operations_tests.rs"]
mod tests;
