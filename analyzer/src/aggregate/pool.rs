//! How busy libuv's thread pool was, and what had to wait for it. It must not know how a job was
//! found.
//!
//! The pool of a process has as many threads as worked: libuv starts them all at the first work, and
//! shares it out among those that wait, so that a thread without work is one that was not needed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use formats::capture::Capture;

use crate::asked;
use crate::join::operations::{Operation, Operations};
use crate::join::pool::{Job, JobKind};
use crate::profile::{FrameId, ResolvedStackId};
use crate::symbolise::Symboliser;

/// Waits that are counted, nanoseconds.
const SHORT_NS: u64 = 1_000_000;
const LONG_NS: u64 = 10_000_000;

/// What waited for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waits {
    /// All of which the wait is known.
    pub count: u64,
    /// Longer than 1 ms.
    pub over_1ms: u64,
    /// Longer than 10 ms.
    pub over_10ms: u64,
    /// All waits together, nanoseconds.
    pub total_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

impl Waits {
    fn add(&mut self, ns: u64) {
        self.count += 1;
        self.over_1ms += u64::from(ns > SHORT_NS);
        self.over_10ms += u64::from(ns > LONG_NS);
        self.total_ns = self.total_ns.saturating_add(ns);
        self.max_ns = self.max_ns.max(ns);
    }
}

/// Work of one kind that one line of the program asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Kind.
    pub kind: JobKind,
    /// The first such stack; the empty one where it is not known.
    pub stack: ResolvedStackId,
    /// How often.
    pub jobs: u64,
    /// How long pool threads worked on it, nanoseconds.
    pub busy_ns: u64,
}

/// The pool of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolUse {
    /// Process id.
    pub pid: u32,
    /// Threads that worked.
    pub workers: u64,
    /// Pieces of work.
    pub jobs: u64,
    /// From the beginning of the first work to the end of the last, nanoseconds.
    pub window_ns: u64,
    /// Of that, while all threads worked.
    pub all_busy_ns: u64,
    /// The work of all threads together.
    pub busy_ns: u64,
    /// Waiting for a pool thread.
    pub queue: Waits,
    /// Of this waiting, while all threads worked.
    pub queue_full_ns: u64,
    /// Waiting for the event loop to take a result up.
    pub event_loop: Waits,
    /// What the threads did, the longest first.
    pub loads: Vec<Load>,
}

impl PoolUse {
    /// Whether more threads would have helped: work waited long, and mostly because all were busy.
    #[must_use]
    pub fn is_too_small(&self) -> bool {
        self.queue.over_10ms > 0 && self.queue_full_ns.saturating_mul(2) > self.queue.total_ns
    }

    /// Part of the threads' time in which they worked, of a thousand.
    #[must_use]
    pub fn busy_per_mille(&self) -> u64 {
        let whole = u128::from(self.window_ns) * u128::from(self.workers);
        u64::try_from((u128::from(self.busy_ns) * 1000).checked_div(whole).unwrap_or(0))
            .unwrap_or(u64::MAX)
    }
}

/// The pools of all processes of a capture, the busiest first. `end_ns` is the recording's end: work
/// whose end was not seen lasted until its thread began other work, or until then.
pub fn pools(
    capture: &Capture,
    joined: &Operations<'_>,
    symboliser: &mut Symboliser<'_>,
    end_ns: u64,
) -> Vec<PoolUse> {
    let mut processes: BTreeMap<u32, Vec<&Job>> = BTreeMap::new();
    for job in &joined.jobs {
        processes.entry(job.process).or_default().push(job);
    }
    let mut pools: Vec<PoolUse> = processes
        .into_iter()
        .map(|(process, jobs)| {
            let operations: Vec<&Operation<'_>> =
                joined.operations.iter().filter(|o| o.process == process).collect();
            let pid = capture.processes.get(process as usize).map_or(0, |process| process.pid);
            PoolUse { pid, ..pool(&jobs, &operations, symboliser, end_ns) }
        })
        .collect();
    pools.sort_by_key(|pool| (Reverse(pool.busy_ns), pool.pid));
    pools
}

fn pool(
    jobs: &[&Job],
    operations: &[&Operation<'_>],
    symboliser: &mut Symboliser<'_>,
    end_ns: u64,
) -> PoolUse {
    let mut next: HashMap<u32, u64> = HashMap::new();
    let mut spans: Vec<(u64, u64)> = vec![(0, 0); jobs.len()];
    // Backwards, so that the next work of a thread is known.
    for (job, span) in jobs.iter().zip(&mut spans).rev() {
        let limit = next.insert(job.worker, job.start_ns).unwrap_or(end_ns);
        let end = job.end_ns.unwrap_or(limit).min(limit);
        *span = (job.start_ns, end.max(job.start_ns));
    }
    let workers: BTreeSet<u32> = jobs.iter().map(|job| job.worker).collect();
    let full = full_times(&spans, workers.len());
    let first = spans.iter().map(|span| span.0).min().unwrap_or_default();
    let last = spans.iter().map(|span| span.1).max().unwrap_or_default();
    let (mut queue, mut event_loop, mut queue_full_ns) = (Waits::default(), Waits::default(), 0);
    for job in jobs {
        let Some(asked) = job.asked_ns.filter(|&asked| asked <= job.start_ns) else { continue };
        queue.add(job.start_ns - asked);
        queue_full_ns += overlap(&full, asked, job.start_ns);
    }
    for operation in operations {
        operation.parts.loop_ns.into_iter().for_each(|ns| event_loop.add(ns));
    }
    let mut loads: Vec<Load> = Vec::new();
    // Stacks that begin at one line of the program are one caller.
    let mut places: HashMap<(u8, Result<FrameId, ResolvedStackId>), usize> = HashMap::new();
    for (job, span) in jobs.iter().zip(&spans) {
        let stack = symboliser.resolve(job.stack, job.asked_ns.unwrap_or(job.start_ns));
        let kind = match job.kind {
            JobKind::File => 0,
            JobKind::Queued => 1,
            JobKind::Lookup => 2,
        };
        let caller = asked::line(symboliser.profile(), stack).ok_or(stack);
        let place = *places.entry((kind, caller)).or_insert(loads.len());
        if place == loads.len() {
            loads.push(Load { kind: job.kind, stack, jobs: 0, busy_ns: 0 });
        }
        if let Some(load) = loads.get_mut(place) {
            load.jobs += 1;
            load.busy_ns += span.1 - span.0;
        }
    }
    loads.sort_by_key(|load| Reverse(load.busy_ns));
    PoolUse {
        pid: 0,
        workers: workers.len() as u64,
        jobs: jobs.len() as u64,
        window_ns: last.saturating_sub(first),
        all_busy_ns: full.iter().map(|(from, to)| to - from).sum(),
        busy_ns: spans.iter().map(|(from, to)| to - from).sum(),
        queue,
        queue_full_ns,
        event_loop,
        loads,
    }
}

/// When all threads worked: times in order, without overlap.
fn full_times(spans: &[(u64, u64)], workers: usize) -> Vec<(u64, u64)> {
    let mut changes: Vec<(u64, i64)> =
        spans.iter().flat_map(|&(from, to)| [(from, 1), (to, -1)]).collect();
    // At one time ends come before beginnings.
    changes.sort_unstable();
    let (mut working, mut since) = (0i64, 0);
    let mut full = Vec::new();
    for (time, change) in changes {
        let was = working as usize == workers;
        working += change;
        let is = working as usize == workers;
        if is && !was {
            since = time;
        } else if was && !is && time > since {
            full.push((since, time));
        }
    }
    full
}

/// How much of a time lies within times in order.
fn overlap(times: &[(u64, u64)], from: u64, to: u64) -> u64 {
    let first = times.partition_point(|&(_from, end)| end <= from);
    let within = times.iter().skip(first).take_while(|&&(start, _end)| start < to);
    within.map(|&(start, end)| end.min(to).saturating_sub(start.max(from))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source_map::Originals;
    use crate::testing::CaptureBuilder;

    const MS: u64 = 1_000_000;

    fn job(worker: u32, asked: u64, start: u64, end: Option<u64>) -> Job {
        Job {
            kind: JobKind::Queued,
            process: 0,
            worker,
            asked_ns: Some(asked * MS),
            asked_by: Some(1),
            start_ns: start * MS,
            end_ns: end.map(|end| end * MS),
            stack: 0,
        }
    }

    fn used(jobs: Vec<Job>) -> PoolUse {
        let capture = CaptureBuilder::new().finish();
        let originals = Originals::default();
        let mut symboliser = Symboliser::new(&capture, &originals);
        let joined = Operations { jobs, ..Operations::default() };
        pools(&capture, &joined, &mut symboliser, 200 * MS).remove(0)
    }

    #[test]
    fn a_pool_that_is_too_small_is_told_from_one_that_was_just_started() {
        // Two threads; the third piece of work waits while both are busy.
        let pool = used(vec![
            job(1, 0, 10, Some(50)),
            job(2, 0, 20, Some(60)),
            job(1, 15, 50, Some(70)),
            job(2, 100, 100, None),
        ]);
        assert_eq!((pool.workers, pool.jobs, pool.window_ns), (2, 4, 190 * MS));
        // 20 to 50, and 50 to 60.
        assert_eq!((pool.all_busy_ns, pool.busy_ns), (40 * MS, 200 * MS));
        assert_eq!((pool.queue.count, pool.queue.over_1ms, pool.queue.over_10ms), (4, 3, 2));
        assert_eq!((pool.queue.total_ns, pool.queue.max_ns), (65 * MS, 35 * MS));
        assert_eq!(pool.queue_full_ns, 30 * MS);
        assert!(!pool.is_too_small());
        assert_eq!(pool.busy_per_mille(), 526);
        // All waits are behind work.
        let pool = used(vec![
            job(1, 10, 10, Some(50)),
            job(2, 10, 10, Some(60)),
            job(1, 15, 50, Some(70)),
        ]);
        assert_eq!((pool.queue.over_10ms, pool.queue_full_ns), (1, 35 * MS));
        assert!(pool.is_too_small());
        // A thread that is late itself: one of two was idle.
        let pool = used(vec![job(1, 0, 30, Some(40)), job(2, 50, 50, Some(60))]);
        assert!(pool.queue.over_10ms == 1 && !pool.is_too_small());
    }

    #[test]
    fn work_without_an_end_lasts_until_the_thread_works_again() {
        let pool = used(vec![job(1, 0, 0, None), job(1, 30, 30, Some(40))]);
        assert_eq!((pool.busy_ns, pool.all_busy_ns, pool.window_ns), (40 * MS, 40 * MS, 40 * MS));
    }
}
