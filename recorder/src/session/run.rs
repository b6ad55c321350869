//! The loop of a recording: waits, drains the rings, looks at JIT maps, flushes, and ends.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, PipeWriter};
use std::os::fd::AsFd;
use std::time::Duration;

use formats::capture::{End, Remark};
use formats::catalogue;
use formats::text::clean_string;

use super::arm::{Arms, CPU_EVENT};
use super::drain::Drain;
use super::error::RecordError;
use super::ingest::{Ingest, NewMapping, ThreadSeen};
use super::life::Life;
use super::pace::{ONE_IN, STEADY};
use super::sink::Sink;
use super::status::{Console, Progress};
use super::summary::{StopReason, Summary};
use super::syscalls::Tracepoint;
use crate::plan::RecordPlan;
use crate::probe::locate;
use crate::probe::wanted::Wanted;
use crate::process::objects::MappedFile;
use crate::process::procfs;
use crate::sys::clock;
use crate::sys::perf_error::PerfError;
use crate::sys::poll::Poller;
use crate::sys::signals::Signals;
use crate::sys::spawn::ChildExit;

/// Longest wait. A process can be looked at only while it lives: one that lives for less than this
/// may leave no command line. Fifty wake-ups a second cost about a thousandth of a CPU.
const TICK: Duration = Duration::from_millis(20);
/// The same where names are read from the heap: objects move, and what a process did last has names
/// only if it is read before the process has ended.
const TICK_OF_HEAPS: Duration = Duration::from_millis(5);
/// Wait when a ring cannot announce its data any more because its first thread has ended.
const TICK_WITHOUT_WAKEUP: Duration = Duration::from_millis(10);
/// How long whoever reads along may take nothing before the end of a recording does without it.
const READERS_PATIENCE: Duration = Duration::from_secs(2);
/// The problem that follows.
pub const NOT_READ: &str = "the end was not printed: whoever prints takes nothing any more";
/// Longest path in a message, characters.
const LONGEST_PATH: usize = 200;
const SIGNALS: u64 = u64::MAX;
const TARGETS: u64 = u64::MAX - 1;
const READER: u64 = u64::MAX - 2;

/// A recording that runs.
#[derive(Debug)]
pub struct Session<'p> {
    plan: &'p RecordPlan,
    ingest: Ingest<Sink>,
    arms: Arms,
    signals: Signals,
    life: Life,
    poller: Poller,
    /// Keeps the pipe known to the poller until the end.
    _reader: Option<PipeWriter>,
    wanted: Vec<Wanted>,
    probed: HashSet<(u64, u64)>,
    missing: Vec<String>,
    names: BTreeMap<u32, String>,
    next_event: u32,
    start_ns: u64,
    exit: Option<ChildExit>,
    tick: Duration,
    lost: u64,
    problems: Vec<String>,
}

impl<'p> Session<'p> {
    /// Everything is open; `probed` are the files whose probes are armed, `missing` the probes that
    /// were found in no file so far.
    #[expect(clippy::too_many_arguments, reason = "one call, each argument a part of the session")]
    pub fn new(
        plan: &'p RecordPlan,
        ingest: Ingest<Sink>,
        arms: Arms,
        signals: Signals,
        life: Life,
        wanted: Vec<Wanted>,
        tracepoints: &[Tracepoint],
        probed: HashSet<(u64, u64)>,
        missing: Vec<String>,
        reader: Option<PipeWriter>,
    ) -> Result<Self, RecordError> {
        let poller = Poller::new()?;
        poller.add(signals.as_fd(), SIGNALS)?;
        for (index, owner) in arms.ring_owners().enumerate() {
            poller.add(owner.as_fd(), index as u64)?;
        }
        for target in life.targets() {
            poller.add(target.as_fd(), TARGETS)?;
        }
        if let Some(pipe) = &reader {
            poller.add_hang_up(pipe, READER)?;
        }
        let tick = if ingest.reads_heaps() { TICK_OF_HEAPS } else { TICK };
        let next = wanted.iter().map(Wanted::next_event);
        let next = next.chain(tracepoints.iter().map(|tracepoint| tracepoint.event + 1));
        let next_event = next.max().unwrap_or(CPU_EVENT + 1);
        let mut names: BTreeMap<u32, String> = wanted.iter().flat_map(Wanted::names).collect();
        if plan.frequency.is_some() {
            names.insert(CPU_EVENT, "cpu".into());
        }
        if plan.syscalls {
            names.extend(tracepoints.iter().map(|t| (t.event, t.name.to_owned())));
        }
        Ok(Self {
            plan,
            ingest,
            arms,
            signals,
            life,
            poller,
            _reader: reader,
            wanted,
            probed,
            missing,
            names,
            next_event,
            start_ns: clock::monotonic_ns()?,
            exit: None,
            tick,
            lost: 0,
            problems: Vec::new(),
        })
    }

    /// Records until something ends it.
    pub fn run(mut self, console: &mut Console) -> Summary {
        let mut drain = Drain::default();
        let deadline =
            self.plan.duration.map(|d| self.start_ns.saturating_add(d.as_nanos() as u64));
        let flush_ns = self.plan.flush.as_nanos() as u64;
        let mut flushed_ns = self.start_ns;
        let mut shown = (self.start_ns, 0u64);
        let reason = loop {
            let now = self.now();
            let wait = deadline.map_or(self.tick, |deadline| {
                self.tick.min(Duration::from_nanos(deadline.saturating_sub(now)))
            });
            let stop = self.wait(wait);
            let now = self.now();
            self.relieve(now);
            // Where a reader is behind, what is new stays in the rings.
            if self.ingest.writer.output().push() {
                if let Err(reason) = self.drain(&mut drain, now) {
                    break reason;
                }
                self.ingest.look_at_jit_maps(now);
                self.keep_pace(now);
                self.arm_new_mappings(console);
                self.arm_threads();
                if now - flushed_ns >= flush_ns || self.ingest.writer.wants_flush() {
                    flushed_ns = now;
                    if let Err(reason) = self.flush(now) {
                        break reason;
                    }
                }
            }
            if now - shown.0 >= 1_000_000_000 {
                shown = self.show(console, now, shown);
            }
            if let Some(reason) = stop {
                break reason;
            }
            if deadline.is_some_and(|deadline| now >= deadline) {
                break StopReason::Duration;
            }
        };
        self.finish(&mut drain, reason)
    }

    fn now(&self) -> u64 {
        // CLOCK_MONOTONIC cannot fail on Linux; standing still would only delay a flush.
        clock::monotonic_ns().unwrap_or(self.start_ns)
    }

    /// Waits for data, signals, ends and time.
    fn wait(&mut self, wait: Duration) -> Option<StopReason> {
        let (mut signals, mut targets, mut reader_gone) = (false, false, false);
        let mut silent = Vec::new();
        match self.poller.wait(Some(wait)) {
            Ok(ready) => {
                for ready in ready {
                    match ready.token {
                        SIGNALS => signals = true,
                        TARGETS => targets = true,
                        READER => reader_gone |= ready.hung_up,
                        ring if ready.hung_up => silent.push(ring),
                        _ => {}
                    }
                }
            }
            Err(error) => {
                self.problems.push(error.to_string());
                return Some(StopReason::ReadFailed);
            }
        }
        for ring in silent {
            // Its thread has ended: the descriptor would report that for ever.
            if let Some(owner) = self.arms.ring_owners().nth(ring as usize) {
                let _gone = self.poller.remove(owner.as_fd());
            }
            self.tick = self.tick.min(TICK_WITHOUT_WAKEUP);
        }
        if signals && let Some(reason) = self.signals() {
            return Some(reason);
        }
        if targets && self.all_targets_ended() {
            return Some(StopReason::TargetEnded);
        }
        reader_gone.then_some(StopReason::ReaderGone)
    }

    fn signals(&mut self) -> Option<StopReason> {
        use crate::sys::signals::Received;
        while let Ok(Some(signal)) = self.signals.next() {
            match signal {
                Received::Interrupt => return Some(StopReason::Interrupt),
                signal if signal.asks_to_stop() => return Some(StopReason::Terminated),
                _child_ended => {}
            }
        }
        let (exit, reason) = self.life.look_at_command();
        self.exit = exit;
        exit.map(|_exit| reason)
    }

    fn all_targets_ended(&mut self) -> bool {
        let poller = &self.poller;
        self.life.all_targets_ended(|ended| {
            let _gone = poller.remove(ended.as_fd());
        })
    }

    fn drain(&mut self, drain: &mut Drain, until_ns: u64) -> Result<(), StopReason> {
        let ingest = &mut self.ingest;
        ingest.begin_drain();
        let drained = drain.round(&mut self.arms.rings, until_ns, |record, time_ns, id| {
            ingest.record(record, time_ns, id);
        });
        ingest.end_drain();
        drained.map(|_records| ()).map_err(|error| {
            self.problems.push(format!("cannot read the rings any further: {error}"));
            StopReason::ReadFailed
        })
    }

    /// Takes fewer stacks at probes that are hit too often, all where they are not any more.
    fn keep_pace(&mut self, now: u64) {
        let counts = &self.ingest.counts.samples;
        let hits = |event| counts.get(&event).copied().unwrap_or(0);
        let kept = self.arms.keep_pace(now, hits);
        self.tell_pace(kept);
    }

    /// Takes fewer stacks at once where a ring fills faster than it is emptied.
    fn relieve(&mut self, now: u64) {
        let counts = &self.ingest.counts.samples;
        let relieved = self.arms.relieve(now, |event| counts.get(&event).copied().unwrap_or(0));
        self.tell_pace(relieved);
    }

    fn tell_pace(&mut self, done: Result<(), PerfError>) {
        if let Err(error) = done {
            let text = format!("cannot change how often stacks are taken: {error}");
            self.ingest.remark(Remark { code: "pace-failed".into(), text, count: 1 });
        }
    }

    fn flush(&mut self, now: u64) -> Result<(), StopReason> {
        for loss in self.arms.losses(now) {
            self.lost += loss.lost;
            self.ingest.loss(loss);
        }
        self.ingest.flush().map_err(|error| {
            self.problems.push(self.write_problem(&error));
            StopReason::WriteFailed
        })
    }

    fn write_problem(&self, error: &io::Error) -> String {
        let readable = self.ingest.writer.stats().bytes;
        let file = self
            .plan
            .output
            .as_deref()
            .map_or("the capture".into(), |file| file.display().to_string());
        let readable = super::status::size(readable);
        format!("cannot write {file}: {error}; the {readable} before remain readable")
    }

    /// Arms probes in files that were mapped just now and had not been seen.
    fn arm_new_mappings(&mut self, console: &mut Console) {
        for NewMapping { pid, object } in std::mem::take(&mut self.ingest.new_mappings) {
            let file = self.ingest.world.objects.get(object);
            let Some(identity) = file.and_then(MappedFile::device_and_inode) else { continue };
            if !self.probed.insert(identity) {
                continue;
            }
            if let Err(error) = self.arm_object(pid, object) {
                console.say(&format!("cannot arm a probe in a new mapping of {pid}: {error}"));
                let text = error.to_string();
                self.ingest.remark(Remark { code: "late-probe-failed".into(), text, count: 1 });
            }
        }
    }

    /// Opens what each thread has for itself, and closes it for those that have ended.
    fn arm_threads(&mut self) {
        for thread in std::mem::take(&mut self.ingest.threads) {
            match thread {
                ThreadSeen::Ended(tid) => self.arms.close_single(&mut self.ingest, tid),
                ThreadSeen::Begun(tid) => {
                    let why = match self.arms.open_single(&mut self.ingest, tid) {
                        Ok(true) => continue,
                        Ok(false) => "there are too many threads",
                        Err(error) => error.errno().map_or("", |errno| errno.desc()),
                    };
                    // Without the thread's id, which would make each remark another one.
                    let text = format!("system calls of a new thread were not recorded: {why}");
                    let remark = Remark { code: "thread-not-armed".into(), text, count: 1 };
                    self.ingest.remark(remark);
                }
            }
        }
    }

    fn arm_object(&mut self, pid: u32, object: u32) -> Result<(), RecordError> {
        let first = self.arms.events();
        for at in 0..self.wanted.len() {
            let Some(wanted) = self.wanted.get(at) else { continue };
            let objects = &self.ingest.world.objects;
            let sites = locate::sites(wanted, objects, &[object], self.plan.allow_unsafe)?;
            if sites.is_empty() {
                continue;
            }
            let wanted = wanted.numbered(self.next_event);
            self.next_event = wanted.next_event();
            self.names.extend(wanted.names());
            self.missing.retain(|name| *name != wanted.name);
            self.arms.probe(&mut self.ingest, &wanted, &sites)?;
        }
        if self.arms.events() > first {
            let file = self.ingest.world.objects.get(object);
            let file = file.map(|file| clean_string(&file.path, LONGEST_PATH));
            let text = format!(
                "{}: not known before it was run, so what was done in its first milliseconds is missing",
                file.unwrap_or_default()
            );
            self.ingest.remark(Remark { code: "late-probe".into(), text, count: 1 });
            // Where children are followed, every process that is known: a sibling may map the same
            // file next.
            let followed = |&other: &u32| self.plan.inherit || other == pid;
            let pids: Vec<u32> = self.ingest.world.pids().filter(followed).collect();
            for tid in pids.into_iter().flat_map(procfs::threads) {
                self.arms.open_thread(&mut self.ingest, tid, first)?;
            }
        }
        Ok(())
    }

    fn show(&mut self, console: &mut Console, now: u64, before: (u64, u64)) -> (u64, u64) {
        let stats = self.ingest.writer.stats();
        let seconds = (now - before.0) as f64 / 1e9;
        console.progress(Progress {
            seconds: (now - self.start_ns) as f64 / 1e9,
            samples: stats.samples,
            rate: (stats.samples - before.1) as f64 / seconds,
            lost: self.ingest.counts.lost,
            bytes: stats.bytes,
        });
        (now, stats.samples)
    }

    /// Takes what is left in the rings, writes the last chunks and removes the dynamic events.
    fn finish(mut self, drain: &mut Drain, reason: StopReason) -> Summary {
        self.arms.stop();
        let end_ns = self.now();
        if reason != StopReason::ReadFailed {
            // A problem is in the list already, and there is nothing left to stop.
            let _told = self.drain(drain, u64::MAX);
        }
        while self.ingest.look_at_jit_maps(end_ns) && reason != StopReason::WriteFailed {
            // What keeps this from being written keeps the end from being written, which is said.
            let _said_later = self.ingest.flush();
        }
        for loss in self.arms.losses(end_ns) {
            self.lost += loss.lost;
            self.ingest.loss(loss);
        }
        if self.ingest.counts.lost > self.lost {
            let count = self.ingest.counts.lost - self.lost;
            let text =
                "records about mappings and processes were lost: names may be missing".into();
            self.ingest.remark(Remark { code: "lost-sideband".into(), text, count });
        }
        if self.exit.is_none() {
            self.exit = self.life.end_command();
        }
        let ring_bytes = self.arms.smallest_ring();
        let mut problems = std::mem::take(&mut self.problems);
        problems.extend(self.arms.disarm().iter().map(ToString::to_string));
        for (event, &count) in &self.ingest.without_stack.clone() {
            let name = self.names.get(event).cloned().unwrap_or_default();
            let text = format!(
                "{name} was hit more than {STEADY} times a second: each hit is recorded, a stack was \
                 taken of one in {ONE_IN}"
            );
            self.ingest.remark(Remark { code: "hot-probe".into(), text, count });
        }
        let optional = |name: &&String| {
            catalogue::armed_as(name).next().is_some() && !catalogue::is_needed(name)
        };
        for name in self.missing.iter().filter(|name| !optional(name)) {
            let text = format!("{name}: no file that the target mapped has this function");
            self.ingest.remark(Remark { code: "function-not-found".into(), text, count: 1 });
        }
        let exit_status = self.exit.map(ChildExit::shell_status);
        let end = End { reason: reason.key().into(), end_ns, exit_status };
        let counts = self.ingest.counts.clone();
        let before = self.ingest.writer.stats();
        let warnings = self.ingest.warnings();
        let mut samples = BTreeMap::new();
        for (event, name) in &self.names {
            let count = counts.samples.get(event).copied().unwrap_or(0);
            *samples.entry(name.clone()).or_default() += count;
        }
        let written = if reason == StopReason::WriteFailed {
            before
        } else {
            match self.ingest.finish(&end) {
                Ok((mut sink, stats)) => {
                    if !sink.push_all(READERS_PATIENCE) {
                        problems.push(NOT_READ.into());
                    }
                    stats
                }
                Err(error) => {
                    problems.push(format!("cannot write the end of the capture: {error}"));
                    before
                }
            }
        };
        Summary {
            reason,
            duration_ns: end_ns.saturating_sub(self.start_ns),
            samples,
            // The kernel announces a loss with the next record that fits; the last one may have none.
            lost: counts.lost.max(self.lost),
            ring_bytes,
            written,
            exit_status,
            problems,
            warnings,
            missing: self.missing,
        }
    }
}
