//! What libuv's thread pool did: which of its threads had which work when, and who gave it.
//!
//! A pool thread has one piece of work at a time, so that what happens on it in between belongs to
//! that work. It must not know operations beyond the place that it is told.

use std::collections::HashMap;

use formats::capture::Moved;
use formats::catalogue::{FILE_WORK, LOOKUP_WORK, QUEUE_REQUEST_TO_WORK, QUEUED_WORK};

/// Bytes of a `uv_loop_t` (include/uv.h), at most: the handle by which the pool wakes a loop is within
/// it, and handles of the program's own are not.
const LOOP_BYTES: u64 = 1072;

/// Kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// A file operation.
    File,
    /// The program's own (`uv_queue_work`): cryptography, compression, add-ons, `fs.readFile` of
    /// Node 26.
    Queued,
    /// Looking up a host name.
    Lookup,
}

/// One piece of work of a pool thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// Kind.
    pub kind: JobKind,
    /// Index of the process in the capture.
    pub process: u32,
    /// The pool thread's id.
    pub worker: u32,
    /// When it was asked for, where that was seen; CLOCK_MONOTONIC nanoseconds, as all times.
    pub asked_ns: Option<u64>,
    /// The thread that asked.
    pub asked_by: Option<u32>,
    /// When the pool thread began.
    pub start_ns: u64,
    /// When it ended; `None` where the recording ended before, or the record was lost.
    pub end_ns: Option<u64>,
    /// The stack that asked, 0 where it is not known.
    pub stack: u32,
}

/// Who asked for work, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) time_ns: u64,
    pub(super) tid: u32,
    pub(super) stack: u32,
}

/// What a pool thread does now.
#[derive(Debug, Clone, Copy)]
struct Running {
    job: Job,
    /// Its place among the jobs.
    place: usize,
    /// The loop that gets the result.
    wakes: u64,
    /// The file operation's place.
    operation: Option<usize>,
}

/// A thread of a process: index of the process in the capture, thread id.
pub(super) type Place = (u32, u32);

/// The pool so far.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// Jobs that have ended, with their places: the order in which they began.
    jobs: Vec<(usize, Job)>,
    /// Places given out.
    next: usize,
    running: HashMap<Place, Running>,
    /// By process and address of the request.
    queued: HashMap<(u32, u64), Asked>,
}

impl Pool {
    /// A program gives work of its own to the pool.
    pub(super) fn queue(&mut self, process: u32, request: u64, asked: Asked) {
        self.queued.insert((process, request), asked);
    }

    /// A pool thread begins; `operation` is the file operation that it works for, by its place, and
    /// who asked for it.
    pub(super) fn begin(
        &mut self,
        event: &str,
        (process, worker): Place,
        start_ns: u64,
        (work, wakes): (u64, u64),
        operation: Option<(usize, Asked)>,
    ) {
        let (kind, asked) = match event {
            FILE_WORK => (JobKind::File, operation.map(|(_, asked)| asked)),
            QUEUED_WORK => {
                let request = work.wrapping_sub(QUEUE_REQUEST_TO_WORK);
                (JobKind::Queued, self.queued.remove(&(process, request)))
            }
            LOOKUP_WORK => (JobKind::Lookup, None),
            _ => return,
        };
        let job = Job {
            kind,
            process,
            worker,
            asked_ns: asked.map(|asked| asked.time_ns),
            asked_by: asked.map(|asked| asked.tid),
            start_ns,
            end_ns: None,
            stack: asked.map_or(0, |asked| asked.stack),
        };
        let operation = operation.map(|(place, _)| place);
        let running = Running { job, place: self.next, wakes, operation };
        self.next += 1;
        if let Some(before) = self.running.insert((process, worker), running) {
            // Its end was lost.
            self.jobs.push((before.place, before.job));
        }
    }

    /// A thread wakes a loop: if it is a pool thread and the loop the one that waits for its work, the
    /// work has ended. Gives the place of the file operation, and how long the work took.
    pub(super) fn wake(&mut self, at: Place, time_ns: u64, handle: u64) -> Option<(usize, u64)> {
        let Running { job, place, wakes, operation } = *self.running.get(&at)?;
        if handle.wrapping_sub(wakes) >= LOOP_BYTES {
            return None;
        }
        self.running.remove(&at);
        self.jobs.push((place, Job { end_ns: Some(time_ns), ..job }));
        Some((operation?, time_ns.saturating_sub(job.start_ns)))
    }

    /// The file operation that a thread does now, by its place.
    pub(super) fn file_on(&self, at: Place) -> Option<usize> {
        self.running.get(&at)?.operation
    }

    /// The program's own work that a thread does now, as a place among the jobs.
    pub(super) fn queued_on(&self, at: Place) -> Option<(u32, &Job)> {
        let running = self.running.get(&at)?;
        let job = Some(&running.job).filter(|job| job.kind == JobKind::Queued)?;
        Some((u32::try_from(running.place).ok()?, job))
    }

    /// All jobs, by time of their beginning.
    pub(super) fn finish(mut self) -> Vec<Job> {
        self.jobs.extend(self.running.into_values().map(|running| (running.place, running.job)));
        self.jobs.sort_unstable_by_key(|&(place, _)| place);
        self.jobs.into_iter().map(|(_, job)| job).collect()
    }

    /// Forgets the jobs that have ended, and requests that no thread has begun if there are more than
    /// `limit`: they were lost.
    pub(super) fn forget(&mut self, limit: usize) {
        self.jobs.clear();
        if self.queued.len() > limit {
            self.queued.clear();
        }
    }

    /// Forgets a process.
    pub(super) fn process_ended(&mut self, process: u32) {
        self.running.retain(|&(of, _), _| of != process);
        self.queued.retain(|&(of, _), _| of != process);
    }

    /// The stacks of the capture that may be asked for.
    pub(super) fn stacks(&self) -> impl Iterator<Item = u32> + '_ {
        let running = self.running.values().map(|running| running.job.stack);
        running.chain(self.queued.values().map(|asked| asked.stack))
    }

    /// The capture's stacks have other indexes now.
    pub(super) fn moved(&mut self, moved: &Moved) {
        for running in self.running.values_mut() {
            running.job.stack = moved.stack(running.job.stack);
        }
        for asked in self.queued.values_mut() {
            asked.stack = moved.stack(asked.stack);
        }
    }
}
