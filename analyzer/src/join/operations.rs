//! File operations: first of all the entry of a `uv_fs_*` function joined with the `uv_fs_req_cleanup` of the same
//! request, which carries the result of synchronous and asynchronous operations alike.
//!
//! The memory of a request is used again and again, so the latest entry wins. A request belongs to a
//! process; submission and result may happen on different threads. It must not resolve stacks.

use std::collections::{HashMap, HashSet};

use formats::capture::{Capture, EventDef, Holding};
use formats::catalogue::{
    self, CLEANUP, FILE_DONE, FILE_WORK, FS_REQUEST_TO_WORK, Gives, LOOKUP_WORK, QUEUE,
    QUEUED_WORK, Role, THROWN, UV_FS_OPEN, WAKE_LOOP,
};

use super::folders::{self, Folder};
use super::handles;
use super::outside::Outside;
use super::part::Part;
pub use super::part::{is_beginning, is_part};
use super::pool::{Asked, Job, Pool};

/// Event that begins an open.
pub const OPEN: &str = "uv_fs_open";
/// The operation's name of an open.
pub const OPEN_OPERATION: &str = "open";
/// Both probes of one hit are written within this time, nanoseconds.
pub(super) const SAME_HIT_NS: u64 = 1_000_000;

/// One file operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation<'c> {
    /// What it does: `open`, `stat`, ….
    pub name: &'static str,
    /// The path as given; `None` where the kernel could not read it, or where there is none. Of an
    /// operation on an open file, the path that it was opened by.
    pub path: Option<&'c [u8]>,
    /// The file was open before the recording: the path is what /proc said when it began.
    pub path_from_proc: bool,
    /// The folder that a relative path is in, a place among [`Operations::folders`].
    pub folder: Option<u32>,
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
    /// Until the caller had the result, or the event loop took it up to call back, nanoseconds; `None`
    /// without a result.
    pub latency_ns: Option<u64>,
    /// Where that time went.
    pub parts: Parts,
    /// What it gave, or the error number negated.
    pub result: Option<i64>,
    /// The function itself did not tell which error it was: the exception that Node made next did.
    pub errno_thrown: bool,
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
    /// The work of the program's own within which a pool thread did it, a place among
    /// [`Operations::jobs`]; the thread and the stack are then those that gave the work.
    pub job: Option<u32>,
    /// Of an operation on an open file or directory, the place of the operation that opened it.
    pub opened_by: Option<usize>,
}

/// Where the time of an asynchronous operation went, nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parts {
    /// Id of the pool thread that did it.
    pub worker: Option<u32>,
    /// From the call until a pool thread began.
    pub queue_ns: Option<u64>,
    /// From then until it had ended.
    pub work_ns: Option<u64>,
    /// Of that, in system calls.
    pub syscall_ns: Option<u64>,
    /// From then until the event loop took the result up.
    pub loop_ns: Option<u64>,
}

impl Operation<'_> {
    /// The error number, if it failed.
    #[must_use]
    pub fn errno(&self) -> Option<i64> {
        self.result.filter(|&result| result < 0).map(i64::saturating_neg)
    }

    /// A relative path of it as an absolute one; `None` for one that is absolute, and where the folder
    /// is not known.
    #[must_use]
    pub fn resolved(&self, path: &[u8], folders: &[Folder]) -> Option<Vec<u8>> {
        folders.get(self.folder? as usize)?.resolve(path)
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
    /// Working folders, see [`Operation::folder`].
    pub folders: Vec<Folder>,
    /// What the thread pool did, by time of its beginning.
    pub jobs: Vec<Job>,
    /// Asynchronous operations that no pool thread did: the kernel did them, by io_uring.
    pub without_pool: u64,
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
    // Where a probe found no place, it has no source.
    let is_armed = |event: &EventDef| event.name == FILE_DONE && !event.source.is_empty();
    let sees_done = capture.events.iter().any(is_armed);
    let mut joining = Joining { sees_done, ..Joining::default() };
    for (time_ns, at, row) in order {
        let Some(part) = parts.get(at) else { continue };
        let thread = part.samples.thread.get(row).copied().unwrap_or(u32::MAX);
        let owner = capture.threads.get(thread as usize);
        let process = owner.map_or(u32::MAX, |thread| thread.process);
        let tid = owner.map_or(0, |thread| thread.tid);
        joining.take(&Sample { capture, part, row, time_ns, process, tid });
    }
    let mut found = joining.finish(&capture.holdings);
    super::syscalls::time_in_kernel(capture, &mut found);
    found
}

/// One sample that is a part of an operation.
pub(super) struct Sample<'c, 'p> {
    capture: &'c Capture,
    pub(super) part: &'p Part<'c>,
    row: usize,
    pub(super) time_ns: u64,
    /// Index of the process in the capture.
    pub(super) process: u32,
    pub(super) tid: u32,
}

impl<'c> Sample<'c, '_> {
    pub(super) fn value(&self, role: Role) -> Option<u64> {
        self.part.value(role, self.row)
    }

    pub(super) fn number(&self, role: Role) -> Option<i64> {
        self.value(role).map(|value| value as i64)
    }

    pub(super) fn text(&self, role: Role) -> Option<&'c [u8]> {
        self.capture.string(self.value(role)?)
    }

    fn stack(&self) -> u32 {
        self.part.samples.stack.get(self.row).copied().unwrap_or(0)
    }
}

/// A second path that was seen.
pub(super) struct NewPath<'c> {
    pub(super) tid: u32,
    pub(super) time: u64,
    pub(super) path: Option<&'c [u8]>,
}

/// What waits for its other parts, by process and request.
#[derive(Default)]
struct Joining<'c> {
    found: Operations<'c>,
    /// The place of the operation, and its `uv_fs_type`.
    waiting: HashMap<(u32, u64), (usize, i64)>,
    new_paths: HashMap<(u32, u64), NewPath<'c>>,
    pool: Pool,
    outside: Outside<'c>,
    /// Addresses that results gave, by the operation's place.
    addresses: HashMap<usize, u64>,
    /// Whether it would be seen that a loop takes a result up.
    sees_done: bool,
    /// Operations whose result the loop has taken up from a pool thread, by place.
    done: HashSet<usize>,
}

impl<'c> Joining<'c> {
    fn take(&mut self, sample: &Sample<'c, '_>) {
        match sample.part.entry.event {
            CLEANUP => self.result(sample),
            FILE_DONE => self.taken_up(sample),
            WAKE_LOOP => self.ended(sample),
            FILE_WORK | QUEUED_WORK | LOOKUP_WORK => self.begun(sample),
            THROWN => self.outside.thrown(sample, &mut self.found.operations),
            _ if Outside::is_part(sample.part.entry) => self.outside(sample),
            event => {
                let Some(request) = sample.value(Role::Request) else { return };
                if event == QUEUE {
                    self.pool.queue(sample.process, request, asked_by(sample));
                } else {
                    self.asked(sample, (sample.process, request));
                }
            }
        }
    }

    /// An operation is asked for, or its second path is told.
    fn asked(&mut self, sample: &Sample<'c, '_>, key: (u32, u64)) {
        let &Sample { time_ns: time, tid, .. } = sample;
        let Some(operation) = sample.part.entry.operation else {
            return self.new_path(key, NewPath { tid, time, path: sample.text(Role::NewPath) });
        };
        let new_path = self.stashed(key, tid, time);
        self.outside.goes_on(sample);
        self.waiting.insert(key, (self.found.operations.len(), operation.fs_type));
        let operation = self.operation(sample, operation);
        self.found.operations.push(Operation { new_path, ..operation });
    }

    /// A part of an operation without a request.
    fn outside(&mut self, sample: &Sample<'c, '_>) {
        let operations = &mut self.found.operations;
        match sample.part.entry.operation {
            _ if sample.part.entry.is_return() => self.outside.returned(sample, operations),
            None => self.outside.new_path(sample, operations),
            Some(operation) if self.outside.begins(sample, operations.len()) => {
                let new_path = self.outside.stashed(sample);
                let operation = self.operation(sample, operation);
                let asynchronous = Some(operation.job.is_some());
                self.found.operations.push(Operation { new_path, asynchronous, ..operation });
            }
            Some(_step) => {}
        }
    }

    /// The operation that a sample begins.
    fn operation(&self, sample: &Sample<'c, '_>, meaning: catalogue::Operation) -> Operation<'c> {
        let &Sample { time_ns: time, tid, process, capture, .. } = sample;
        let meant = |roles: [Role; 2]| {
            roles.into_iter().find_map(|role| Some((sample.number(role)?, role)))
        };
        let mut operation = Operation {
            name: meaning.name,
            path: sample.text(Role::Path),
            path_from_proc: false,
            folder: None,
            new_path: None,
            descriptor: sample.number(Role::Descriptor),
            directory: sample.value(Role::Directory),
            flags: meant([Role::OpenFlags, Role::CopyFlags]),
            mode: meant([Role::Mode, Role::AccessMode]),
            asynchronous: sample.value(Role::Callback).map(|callback| callback != 0),
            start_ns: time,
            latency_ns: None,
            parts: Parts::default(),
            result: None,
            errno_thrown: false,
            gives: meaning.gives,
            pid: capture.processes.get(process as usize).map_or(0, |process| process.pid),
            process,
            tid,
            stack: sample.stack(),
            job: None,
            opened_by: None,
        };
        // Within work that the program gave to the pool, the thread that gave it does not wait.
        if let Some((place, job)) = self.pool.queued_on((process, tid)) {
            operation.job = Some(place);
            operation.asynchronous = Some(true);
            operation.parts.worker = Some(tid);
            operation.tid = job.asked_by.unwrap_or(tid);
            if job.stack != 0 {
                operation.stack = job.stack;
            }
        }
        operation
    }

    /// A pool thread begins.
    fn begun(&mut self, sample: &Sample<'c, '_>) {
        let &Sample { time_ns, process, tid, .. } = sample;
        let (Some(work), Some(wakes)) = (sample.value(Role::Work), sample.value(Role::Loop)) else {
            return;
        };
        let event = sample.part.entry.event;
        let waiting = self.waiting.get(&(process, work.wrapping_sub(FS_REQUEST_TO_WORK)));
        let place = waiting.filter(|_| event == FILE_WORK).map(|&(place, _)| place);
        let operation = place.and_then(|place| {
            let operation = self.found.operations.get_mut(place)?;
            operation.parts.worker = Some(tid);
            operation.parts.queue_ns = Some(time_ns.saturating_sub(operation.start_ns));
            let &mut Operation { start_ns, tid, stack, .. } = operation;
            Some((place, Asked { time_ns: start_ns, tid, stack }))
        });
        self.pool.begin(event, (process, tid), time_ns, (work, wakes), operation);
    }

    /// A thread wakes a loop; a pool thread has ended its work.
    fn ended(&mut self, sample: &Sample<'c, '_>) {
        let Some(handle) = sample.value(Role::Handle) else { return };
        let at = (sample.process, sample.tid);
        if let Some((place, took)) = self.pool.wake(at, sample.time_ns, handle)
            && let Some(operation) = self.found.operations.get_mut(place)
        {
            operation.parts.work_ns = Some(took);
        }
    }

    /// The loop takes the result up, and calls back.
    fn taken_up(&mut self, sample: &Sample<'c, '_>) {
        let Some(work) = sample.value(Role::Work) else { return };
        let key = (sample.process, work.wrapping_sub(FS_REQUEST_TO_WORK));
        let Some(&(place, _)) = self.waiting.get(&key) else { return };
        let Some(operation) = self.found.operations.get_mut(place) else { return };
        let latency = sample.time_ns.saturating_sub(operation.start_ns);
        operation.latency_ns = Some(latency);
        let Parts { queue_ns, work_ns, .. } = operation.parts;
        let before = queue_ns.zip(work_ns).map(|(queue, work)| queue.saturating_add(work));
        operation.parts.loop_ns = before.map(|before| latency.saturating_sub(before));
        self.done.insert(place);
    }

    /// The request is given up, with its result in it.
    fn result(&mut self, sample: &Sample<'c, '_>) {
        let Some(request) = sample.value(Role::Request) else { return };
        let kind = sample.number(Role::Type);
        let Some(place) = self.finished((sample.process, request), kind) else {
            match kind {
                // Inner steps of libuv, such as the opens of a copy, have requests of their own that no
                // function was called with; nobody waits for them.
                _ if sample.value(Role::Callback) == Some(0) => {}
                None | Some(UV_FS_OPEN) => self.found.results_without_open += 1,
                Some(_) => self.found.results_without_operation += 1,
            }
            return;
        };
        if let Some(operation) = self.found.operations.get_mut(place) {
            // The callback has run by now; a synchronous call has just returned.
            if !self.done.remove(&place) {
                operation.latency_ns = Some(sample.time_ns.saturating_sub(operation.start_ns));
                let by_callback = operation.asynchronous == Some(true) && operation.job.is_none();
                self.found.without_pool += u64::from(by_callback && self.sees_done);
            }
            operation.result = sample.number(Role::Result);
        }
        self.addresses.extend(sample.value(Role::Address).map(|to| (place, to)));
    }

    fn finish(mut self, holdings: &'c [Holding]) -> Operations<'c> {
        handles::name(&mut self.found.operations, &self.addresses, holdings);
        self.found.folders = folders::assign(&mut self.found.operations, holdings);
        self.found.jobs = self.pool.jobs;
        self.found
    }

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
    fn new_path(&mut self, key: (u32, u64), new: NewPath<'c>) {
        let waiting = self.waiting.get(&key);
        let waiting = waiting.and_then(|&(place, _)| self.found.operations.get_mut(place));
        let is_same = |operation: &&mut Operation<'_>| {
            operation.new_path.is_none()
                // Within work of the program's own it is the pool thread that calls.
                && operation.parts.worker.unwrap_or(operation.tid) == new.tid
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

fn asked_by(sample: &Sample<'_, '_>) -> Asked {
    Asked { time_ns: sample.time_ns, tid: sample.tid, stack: sample.stack() }
}

/// Whether an operation has a second path.
fn has_new_path(name: &str) -> bool {
    catalogue::entries().any(|entry| {
        entry.arguments.iter().any(|argument| argument.role == Role::NewPath)
            && entry.function.strip_prefix("uv_fs_") == Some(name)
    })
}

#[cfg(test)]
#[path = "operations_tests.rs"]
mod tests;
