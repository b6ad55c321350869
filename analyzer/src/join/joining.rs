//! The join of file operations as it goes on: samples are taken as they come, and an operation is ready
//! when its last part has come. When it is given out is for `super::giving` to know. A whole capture is
//! one take.
//!
//! What is held between two takes are indexes, so that the capture may grow and move meanwhile.

use std::collections::{BTreeMap, HashMap};

use formats::capture::{Capture, EventDef, Samples};
use formats::catalogue::{
    self, CLEANUP, FILE_DONE, FILE_WORK, FS_REQUEST_TO_WORK, Gives, LIBC, LOAD_FAILED, LOOKUP_WORK,
    QUEUE, QUEUED_WORK, Role, THROWN, UV_FS_OPEN, WAKE_LOOP,
};
use formats::syscalls::MAX_ERRNO;

pub use super::giving::{Completed, Patience};
use super::giving::{Context, Ready};
use super::operations::{ErrnoFrom, Operation, Operations, Parts};
use super::outside::{self, Outside, Returned};
use super::part::Part;
use super::pool::{Asked, Pool};
use super::sample::Sample;

/// Both probes of one hit are written within this time, nanoseconds.
pub(super) const SAME_HIT_NS: u64 = 1_000_000;

/// Stands for the working folder (include/uapi/linux/fcntl.h).
const AT_FDCWD: i64 = -100;

/// Most that one read or write moves (MAX_RW_COUNT, include/linux/fs.h).
const MOST_BYTES: i64 = 0x7fff_f000;

/// An operation that has not been given out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    /// All but the paths.
    pub(super) operation: Operation<'static>,
    /// The paths, strings of the capture; 0 for none.
    pub(super) path: u32,
    pub(super) new_path: u32,
    /// The process and the request that it is known by.
    key: Option<(u32, u64)>,
    /// The loop has taken its result up from a pool thread.
    taken_up: bool,
    /// What opening a directory gave.
    pub(super) address: Option<u64>,
}

/// What has been joined, and what waits for its other parts.
#[derive(Debug)]
pub struct Joining {
    pub(super) patience: Patience,
    /// Places that were given to operations: the order in which they began.
    next: usize,
    /// Operations under way, by place.
    pub(super) pending: BTreeMap<usize, Begun>,
    /// Operations whose last part has come, or will not come, and which have not been given out.
    pub(super) ready: Ready,
    /// The place of the operation and its `uv_fs_type`, by process and request.
    waiting: HashMap<(u32, u64), (usize, i64)>,
    pub(super) new_paths: HashMap<(u32, u64), NewPath>,
    pub(super) pool: Pool,
    pub(super) outside: Outside,
    /// The synchronous operation that a thread is doing, by its place.
    pub(super) doing: HashMap<(u32, u32), usize>,
    /// Whether it would be seen that a loop takes a result up.
    sees_done: bool,
    /// Time of the newest sample.
    pub(super) now_ns: u64,
    results_without_open: u64,
    results_without_operation: u64,
    without_pool: u64,
    pub(super) context: Context,
}

impl Joining {
    /// Nothing has been taken.
    #[must_use]
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            next: 0,
            pending: BTreeMap::new(),
            ready: Ready::default(),
            waiting: HashMap::new(),
            new_paths: HashMap::new(),
            pool: Pool::default(),
            outside: Outside::default(),
            doing: HashMap::new(),
            sees_done: false,
            now_ns: 0,
            results_without_open: 0,
            results_without_operation: 0,
            without_pool: 0,
            context: Context::default(),
        }
    }

    /// Takes samples that follow those that were taken before.
    pub fn take(&mut self, capture: &Capture, samples: &[Samples]) {
        let parts: Vec<Part<'_>> = samples.iter().filter_map(|s| Part::new(capture, s)).collect();
        let mut order: Vec<(u64, usize, usize)> = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            let times = part.samples.time_ns.iter().enumerate();
            order.extend(times.map(|(row, &time)| (time, at, row)));
        }
        order.sort_unstable();
        // Where a probe found no place, it has no source.
        let is_armed = |event: &EventDef| event.name == FILE_DONE && !event.source.is_empty();
        self.sees_done = self.sees_done || capture.events.iter().any(is_armed);
        for (time_ns, at, row) in order {
            let Some(part) = parts.get(at) else { continue };
            let thread = part.samples.thread.get(row).copied().unwrap_or(u32::MAX);
            let owner = capture.threads.get(thread as usize);
            let process = owner.map_or(u32::MAX, |thread| thread.process);
            let tid = owner.map_or(0, |thread| thread.tid);
            self.now_ns = self.now_ns.max(time_ns);
            self.sample(&Sample { capture, part, row, time_ns, process, tid });
        }
    }

    /// Nothing more will come: what is under way has no result.
    #[must_use]
    pub fn finish(mut self, capture: &Capture) -> Completed<'_> {
        for (place, begun) in std::mem::take(&mut self.pending) {
            self.ready.push(place, begun);
        }
        let Completed { found, from } = self.give_out_all(capture);
        let found = Operations {
            results_without_open: self.results_without_open,
            results_without_operation: self.results_without_operation,
            jobs: self.pool.finish(),
            without_pool: self.without_pool,
            ..found
        };
        Completed { found, from }
    }

    fn sample(&mut self, sample: &Sample<'_, '_>) {
        match sample.part.entry.event {
            CLEANUP => self.result(sample),
            FILE_DONE => self.taken_up(sample),
            WAKE_LOOP => self.ended(sample),
            FILE_WORK | QUEUED_WORK | LOOKUP_WORK => self.begun(sample),
            THROWN => self.thrown(sample),
            LOAD_FAILED => self.load_failed(sample),
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
    fn asked(&mut self, sample: &Sample<'_, '_>, key: (u32, u64)) {
        let &Sample { time_ns: time, tid, process, .. } = sample;
        let Some(operation) = sample.part.entry.operation else {
            return self.new_path(key, NewPath { tid, time, path: sample.text(Role::NewPath) });
        };
        let new_path = self.stashed(key, tid, time);
        let unseen = self.outside.goes_on(sample);
        unseen.into_iter().for_each(|place| self.complete(place));
        let fs_type = operation.fs_type;
        let begun = Begun { new_path, key: Some(key), ..self.operation(sample, operation) };
        let place = self.begin(begun);
        if sample.value(Role::Callback) == Some(0) {
            self.doing.insert((process, tid), place);
        }
        if let Some((before, _)) = self.waiting.insert(key, (place, fs_type)) {
            // Its memory is used again: the result was lost, unless it is still there.
            self.kept(before, sample);
            self.complete(before);
        }
    }

    /// Node reads a file to its end with one request, which it does not give up between the reads. When
    /// the next operation on the file begins, the request holds the result of the one before; when
    /// that had come is not known.
    fn kept(&mut self, place: usize, sample: &Sample<'_, '_>) {
        let is_result = |result: &i64| (-MAX_ERRNO..=MOST_BYTES).contains(result);
        let Some(result) = sample.number(Role::Before).filter(is_result) else { return };
        let Some(begun) = self.pending.get_mut(&place) else { return };
        let operation = &mut begun.operation;
        let has_returned = operation.asynchronous == Some(false) || operation.job.is_some();
        let is_same_file = operation.descriptor.is_some()
            && operation.descriptor == sample.number(Role::Descriptor)
            && operation.parts.worker.unwrap_or(operation.tid) == sample.tid;
        if operation.gives == Gives::Bytes && has_returned && is_same_file {
            operation.result = Some(result);
        }
    }

    /// An operation begins; gives its place.
    fn begin(&mut self, begun: Begun) -> usize {
        let place = self.next;
        self.next += 1;
        self.pending.insert(place, begun);
        place
    }

    /// Nothing more will come to an operation.
    pub(super) fn complete(&mut self, place: usize) {
        let Some(begun) = self.pending.remove(&place) else { return };
        if let Some(key) = begun.key
            && self.waiting.get(&key).is_some_and(|&(known, _)| known == place)
        {
            self.waiting.remove(&key);
        }
        self.ready.push(place, begun);
    }

    /// A part of an operation without a request.
    fn outside(&mut self, sample: &Sample<'_, '_>) {
        match sample.part.entry.operation {
            _ if sample.part.entry.is_return() => self.returned(sample),
            None => {
                if let Some((place, path)) = self.outside.new_path(sample)
                    && let Some(begun) = self.pending.get_mut(&place)
                    && sample.time_ns.saturating_sub(begun.operation.start_ns) < SAME_HIT_NS
                {
                    begun.new_path = path;
                }
            }
            Some(operation) => {
                let is_step = sample.part.entry.set == LIBC && self.is_libuvs(sample);
                let (begins, unseen) = self.outside.begins(sample, self.next, is_step);
                unseen.into_iter().for_each(|place| self.complete(place));
                if !begins {
                    return;
                }
                let new_path = self.outside.stashed(sample);
                let mut begun = Begun { new_path, ..self.operation(sample, operation) };
                begun.operation.asynchronous = Some(begun.operation.job.is_some());
                let place = self.begin(begun);
                if !outside::returns(sample.part.entry) {
                    self.complete(place);
                }
            }
        }
    }

    /// Whether a call of the C library is a step of an operation that its thread is doing: it is given
    /// the same path, or one that is made of it.
    fn is_libuvs(&self, sample: &Sample<'_, '_>) -> bool {
        let thread = (sample.process, sample.tid);
        let doing = [self.doing.get(&thread).copied(), self.pool.file_on(thread)];
        // Where it is not seen what pool threads do, it may be any.
        let unseen = self.waiting.iter().filter(|((process, _), _)| *process == sample.process);
        let unseen = unseen.filter(|_| !self.sees_done).map(|(_, &(place, _))| place);
        let path = sample.text(Role::Path);
        let is_of = |own: &Begun| {
            [own.path, own.new_path].contains(&path) || own.operation.name == "mkdtemp"
        };
        let places = doing.into_iter().flatten().chain(unseen);
        path != 0 && places.filter_map(|place| self.pending.get(&place)).any(is_of)
    }

    fn returned(&mut self, sample: &Sample<'_, '_>) {
        let Returned { unseen, call } = self.outside.returned(sample);
        unseen.into_iter().for_each(|place| self.complete(place));
        let Some((place, outcome)) = call else { return };
        let Some(begun) = self.pending.get_mut(&place) else { return };
        let operation = &mut begun.operation;
        operation.latency_ns = Some(sample.time_ns.saturating_sub(operation.start_ns));
        // Node throws what went wrong on its own thread, at once; elsewhere it is not seen.
        let is_own = operation.job.is_none();
        operation.result = outcome.result(is_own);
        self.complete(place);
    }

    /// Node throws an error, which may be that of the operation before.
    fn thrown(&mut self, sample: &Sample<'_, '_>) {
        let Some((place, error)) = self.outside.thrown(sample) else { return };
        if let Some(operation) = self.ready.newest(place) {
            operation.result = Some(-error);
            operation.errno_from = Some(ErrnoFrom::Exception);
        }
    }

    /// Node asks what went wrong with a `dlopen`.
    fn load_failed(&mut self, sample: &Sample<'_, '_>) {
        let Some((place, error)) = self.outside.load_failed(sample) else { return };
        if let Some(operation) = self.ready.newest(place) {
            operation.result = Some(-error);
            operation.latency_ns = Some(sample.time_ns.saturating_sub(operation.start_ns));
        }
    }

    /// The operation that a sample begins.
    fn operation(&self, sample: &Sample<'_, '_>, meaning: catalogue::Operation) -> Begun {
        let &Sample { time_ns: time, tid, process, capture, .. } = sample;
        let meant = |roles: [Role; 2]| {
            roles.into_iter().find_map(|role| Some((sample.number(role)?, role)))
        };
        let mut operation = Operation {
            name: meaning.name,
            path: None,
            path_from_proc: false,
            // Of a folder that is given by a descriptor nothing is told.
            folder: sample.number(Role::Folder).filter(|&at| at != AT_FDCWD).map(|_| u32::MAX),
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
            errno_from: None,
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
        let path = sample.text(Role::Path);
        Begun { operation, path, new_path: 0, key: None, taken_up: false, address: None }
    }

    /// A pool thread begins.
    fn begun(&mut self, sample: &Sample<'_, '_>) {
        let &Sample { time_ns, process, tid, .. } = sample;
        let (Some(work), Some(wakes)) = (sample.value(Role::Work), sample.value(Role::Loop)) else {
            return;
        };
        let event = sample.part.entry.event;
        let waiting = self.waiting.get(&(process, work.wrapping_sub(FS_REQUEST_TO_WORK)));
        let place = waiting.filter(|_| event == FILE_WORK).map(|&(place, _)| place);
        let operation = place.and_then(|place| {
            let operation = &mut self.pending.get_mut(&place)?.operation;
            operation.parts.worker = Some(tid);
            operation.parts.queue_ns = Some(time_ns.saturating_sub(operation.start_ns));
            let &mut Operation { start_ns, tid, stack, .. } = operation;
            Some((place, Asked { time_ns: start_ns, tid, stack }))
        });
        self.pool.begin(event, (process, tid), time_ns, (work, wakes), operation);
    }

    /// A thread wakes a loop; a pool thread has ended its work.
    fn ended(&mut self, sample: &Sample<'_, '_>) {
        let Some(handle) = sample.value(Role::Handle) else { return };
        let at = (sample.process, sample.tid);
        if let Some((place, took)) = self.pool.wake(at, sample.time_ns, handle)
            && let Some(begun) = self.pending.get_mut(&place)
        {
            begun.operation.parts.work_ns = Some(took);
        }
    }

    /// The loop takes the result up, and calls back.
    fn taken_up(&mut self, sample: &Sample<'_, '_>) {
        let Some(work) = sample.value(Role::Work) else { return };
        let key = (sample.process, work.wrapping_sub(FS_REQUEST_TO_WORK));
        let Some(&(place, _)) = self.waiting.get(&key) else { return };
        let Some(begun) = self.pending.get_mut(&place) else { return };
        let operation = &mut begun.operation;
        let latency = sample.time_ns.saturating_sub(operation.start_ns);
        operation.latency_ns = Some(latency);
        let Parts { queue_ns, work_ns, .. } = operation.parts;
        let before = queue_ns.zip(work_ns).map(|(queue, work)| queue.saturating_add(work));
        operation.parts.loop_ns = before.map(|before| latency.saturating_sub(before));
        begun.taken_up = true;
    }

    /// The request is given up, with its result in it.
    fn result(&mut self, sample: &Sample<'_, '_>) {
        let Some(request) = sample.value(Role::Request) else { return };
        let kind = sample.number(Role::Type);
        let Some(place) = self.finished((sample.process, request), kind) else {
            match kind {
                // Inner steps of libuv, such as the opens of a copy, have requests of their own that no
                // function was called with; nobody waits for them.
                _ if sample.value(Role::Callback) == Some(0) => {}
                None | Some(UV_FS_OPEN) => self.results_without_open += 1,
                Some(_) => self.results_without_operation += 1,
            }
            return;
        };
        let Some(begun) = self.pending.get_mut(&place) else { return };
        let operation = &mut begun.operation;
        // The callback has run by now; a synchronous call has just returned.
        if !begun.taken_up {
            operation.latency_ns = Some(sample.time_ns.saturating_sub(operation.start_ns));
            let by_callback = operation.asynchronous == Some(true) && operation.job.is_none();
            self.without_pool += u64::from(by_callback && self.sees_done);
        }
        operation.result = sample.number(Role::Result);
        begun.address = sample.value(Role::Address);
        let thread = (sample.process, sample.tid);
        if self.doing.get(&thread) == Some(&place) {
            self.doing.remove(&thread);
        }
        self.complete(place);
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
    fn new_path(&mut self, key: (u32, u64), new: NewPath) {
        let waiting = self.waiting.get(&key);
        let waiting = waiting.and_then(|&(place, _)| self.pending.get_mut(&place));
        let is_same = |begun: &&mut Begun| {
            begun.new_path == 0
                // Within work of the program's own it is the pool thread that calls.
                && begun.operation.parts.worker.unwrap_or(begun.operation.tid) == new.tid
                && new.time.saturating_sub(begun.operation.start_ns) < SAME_HIT_NS
                && has_new_path(begun.operation.name)
        };
        match waiting.filter(is_same) {
            Some(begun) => begun.new_path = new.path,
            None => drop(self.new_paths.insert(key, new)),
        }
    }

    /// The second path that was told just before; 0 for none.
    fn stashed(&mut self, key: (u32, u64), tid: u32, time: u64) -> u32 {
        let is_same = |new: &NewPath| new.tid == tid && time.saturating_sub(new.time) < SAME_HIT_NS;
        self.new_paths.remove(&key).filter(is_same).map_or(0, |new| new.path)
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

/// A second path that was seen.
#[derive(Debug)]
pub(super) struct NewPath {
    pub(super) tid: u32,
    pub(super) time: u64,
    /// A string of the capture.
    pub(super) path: u32,
}

#[cfg(test)]
#[path = "joining_tests.rs"]
mod tests;
