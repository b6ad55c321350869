//! The section on libuv's thread pool: how busy it was, what waited for it, and what to do. It must
//! not compute anything but layout.

use std::io;

use super::Page;
use super::files::words;
use crate::aggregate::pool::{Load, PoolUse, Waits};
use crate::asked;
use crate::join::pool::JobKind;
use crate::report::stacks;
use crate::report::units::{counted, duration, percent};

/// Part of the threads' time that makes it worth telling what they did, of a thousand.
const USED_PER_MILLE: u64 = 50;
/// Part of the threads' time below which they had next to nothing to do, of a thousand.
const IDLE_PER_MILLE: u64 = 10;
/// Loads that are shown.
const LOADS: usize = 3;
/// Threads of the pool unless `UV_THREADPOOL_SIZE` says otherwise, and at most (libuv's
/// src/threadpool.c: `default_threads`, `MAX_THREADPOOL_SIZE`).
const DEFAULT_THREADS: u64 = 4;
const MAX_THREADS: u64 = 1024;

impl Page<'_, '_, '_> {
    pub(super) fn pools(&mut self) -> io::Result<()> {
        let pools: Vec<&PoolUse> = self.report.pools.iter().filter(|pool| pool.jobs > 0).collect();
        // Where records were lost, the pool's may be among them.
        let is_whole = self.report.events.iter().all(|event| event.lost == 0);
        let without_pool = if is_whole { self.report.without_pool } else { 0 };
        if pools.is_empty() && without_pool == 0 {
            return Ok(());
        }
        writeln!(self.out, "\n{}", self.style.heading("THREAD POOL"))?;
        let several = pools.len() > 1;
        for pool in pools.iter().take(self.top) {
            if several {
                writeln!(self.out, "  pid {}", pool.pid)?;
            }
            self.pool(pool)?;
        }
        self.more(pools.len(), self.top, "process", "processes")?;
        match without_pool {
            0 => Ok(()),
            count => {
                let count = counted(count, "operation was", "operations were");
                writeln!(
                    self.out,
                    "  {count} done by the kernel itself (io_uring), not by the pool"
                )
            }
        }
    }

    fn pool(&mut self, pool: &PoolUse) -> io::Result<()> {
        let threads = counted(pool.workers, "thread", "threads");
        let jobs = counted(pool.jobs, "piece", "pieces");
        let window = duration(pool.window_ns);
        let busy = percent(pool.busy_per_mille(), 1000);
        let all = match pool.workers {
            1 => "it was busy".to_owned(),
            2 => "both were busy".to_owned(),
            workers => format!("all {workers} were busy"),
        };
        let how_busy = if pool.busy_per_mille() < IDLE_PER_MILLE && pool.all_busy_ns == 0 {
            "hardly busy".to_owned()
        } else {
            let of_time = percent(pool.all_busy_ns, pool.window_ns);
            format!("{all} {of_time} of the time, {busy} of them on average")
        };
        writeln!(self.out, "  {threads} did {jobs} of work in {window}: {how_busy}")?;
        self.waits("a pool thread", pool.queue)?;
        if pool.is_too_small() {
            let size = pool.workers;
            let is_default = if size == DEFAULT_THREADS { ", libuv's default" } else { "" };
            let advice = format!(
                "  the pool was too small: all its threads were busy in {} of this waiting. More threads: \
                 UV_THREADPOOL_SIZE\n  (here {size}{is_default}; at most {MAX_THREADS}) in the environment before the \
                 start, so this needs a restart; or give it less work:",
                percent(pool.queue_full_ns, pool.queue.total_ns)
            );
            writeln!(self.out, "{}", self.style.bad(&advice))?;
        }
        // What hardly works needs no explanation.
        let is_used = pool.busy_per_mille() >= USED_PER_MILLE || pool.is_too_small();
        let loads = if is_used { pool.loads.as_slice() } else { &[] };
        for load in loads.iter().take(LOADS) {
            let what = self.load(load);
            writeln!(self.out, "{:>12}  {what}", duration(load.busy_ns))?;
        }
        let more = loads.len().saturating_sub(LOADS);
        if more > 0 {
            let text =
                format!("{:14}… {}", "", counted(more as u64, "more caller", "more callers"));
            writeln!(self.out, "{}", self.style.dim(&text))?;
        }
        self.waits("the event loop to take their result up", pool.event_loop)?;
        if pool.event_loop.over_10ms > 0 {
            let what = match &self.report.cpu {
                Some(cpu) if cpu.samples > 0 => "CPU, below, says with what",
                _ => "nrec record -e cpu says with what",
            };
            let text = format!("  the event loop was busy with something else meanwhile: {what}");
            writeln!(self.out, "{text}")?;
        }
        Ok(())
    }

    fn waits(&mut self, what: &str, waits: Waits) -> io::Result<()> {
        let Waits { count, over_1ms, over_10ms, total_ns, max_ns } = waits;
        if count == 0 {
            return Ok(());
        }
        let text = match (over_1ms, over_10ms) {
            (0, _) => format!("none of {count} waited more than 1 ms for {what}"),
            (over, 0) => format!("{over} of {count} waited more than 1 ms for {what}"),
            (over, long) if over == long => {
                format!("{over} of {count} waited more than 10 ms for {what}")
            }
            (over, long) => {
                format!(
                    "{over} of {count} waited more than 1 ms for {what}, {long} more than 10 ms"
                )
            }
        };
        let sum =
            format!("{} of waiting together, at most {}", duration(total_ns), duration(max_ns));
        writeln!(self.out, "  {text}; {sum}")
    }

    fn load(&self, load: &Load) -> String {
        let (one, many) = match load.kind {
            JobKind::File => ("file operation", "file operations"),
            JobKind::Queued => ("job", "jobs"),
            JobKind::Lookup => ("host name look-up", "host name look-ups"),
        };
        let what = counted(load.jobs, one, many);
        let profile = &self.report.profile;
        let call = asked::call(profile, load.stack);
        let line = asked::line(profile, load.stack).and_then(|line| profile.get(line));
        match (call, line.map(|line| words(stacks::full(line)))) {
            (Some(call), Some(line)) => format!("{what}: {call} at {line}"),
            (None, Some(line)) => format!("{what} by {line}"),
            (Some(call), None) => format!("{what}: {call}"),
            (None, None) => what,
        }
    }
}
