//! The perf events of a recording while they are open: one descriptor an event, thread and CPU, all events
//! of a CPU in that CPU's ring; dynamic events are made first and removed last. What they are is in
//! `events`.

mod events;
mod tracepoint;

use std::collections::HashSet;
use std::io::Write;

use formats::capture::{Loss, Remark};

pub use self::events::Sampling;
use super::armed::{self, Armed, Paced};
use super::attrs::UserStacks;
use super::budget::{Budget, map_ring, shortage};
use super::decoder::{Decoder, Role};
use super::error::RecordError;
use super::ingest::Ingest;
use super::pace::{self, Pace};
use super::single::Singles;
use crate::process::procfs;
use crate::sys::attr::Inherit;
use crate::sys::perf::PerfFd;
use crate::sys::perf_error::PerfError;
use crate::sys::ring::{Ring, page_bytes};
use crate::tracefs::{self, DynamicEvents};

/// Event id of the time samples.
pub const CPU_EVENT: u32 = 1;

/// How the targets' events are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenMode {
    /// Whom the events follow.
    pub inherit: Inherit,
    /// Time samples begin at the exec that the target will do.
    pub on_exec: bool,
    /// How user stacks are taken.
    pub stacks: UserStacks,
}

/// All open events and their rings.
#[derive(Debug)]
pub struct Arms {
    /// One ring a CPU.
    pub rings: Vec<Ring>,
    /// For each ring the event and the descriptor that it belongs to.
    owners: Vec<(usize, usize)>,
    cpus: Vec<u32>,
    mode: OpenMode,
    ring_pages: usize,
    armed: Vec<Armed>,
    dynamic: Option<DynamicEvents>,
    paced: Vec<Paced>,
    singles: Singles,
    opened: HashSet<u32>,
    names: u32,
}

impl Arms {
    /// Nothing armed yet. `dynamic` is needed for probes only.
    #[must_use]
    pub fn new(
        cpus: Vec<u32>,
        mode: OpenMode,
        budget: &Budget,
        dynamic: Option<DynamicEvents>,
    ) -> Self {
        let ring_pages = (budget.ring_bytes as usize / page_bytes()).max(1);
        let rings = Vec::new();
        let (armed, opened, owners) = (Vec::new(), HashSet::new(), Vec::new());
        let (paced, singles, names) = (Vec::new(), Singles::default(), 0);
        Self {
            rings,
            owners,
            cpus,
            mode,
            ring_pages,
            armed,
            dynamic,
            paced,
            singles,
            opened,
            names,
        }
    }

    /// Opens the events that single threads have for a thread. `false`: too many threads have them.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn open_single<W: Write>(
        &mut self,
        ingest: &mut Ingest<W>,
        tid: u32,
    ) -> Result<bool, PerfError> {
        if self.singles.is_empty() {
            return Ok(true);
        }
        let Self { singles, owners, armed, cpus, .. } = self;
        let owner = |&(event, fd): &(usize, usize)| armed.get(event)?.fds.get(fd);
        let rings = cpus.iter().zip(owners.iter());
        singles.open(ingest, tid, rings.filter_map(|(&cpu, at)| Some((cpu, owner(at)?))))
    }

    /// Allows so many descriptors for what single threads have.
    pub fn allow_singles(&mut self, descriptors: u64) {
        self.singles.allow(descriptors);
    }

    /// Closes what a thread had for itself.
    pub fn close_single<W: Write>(&mut self, ingest: &mut Ingest<W>, tid: u32) {
        self.singles.close(ingest, tid);
    }

    /// Looks how often each probe was hit, by event, and takes stacks accordingly.
    ///
    /// # Errors
    /// The kernel refuses to switch an event on or off; all others are switched. The first refusal
    /// is returned.
    pub fn keep_pace(&mut self, now_ns: u64, hits: impl Fn(u32) -> u64) -> Result<(), PerfError> {
        let burst = pace::burst(self.smallest_ring(), self.mode.stacks.probe_bytes());
        armed::every(&mut self.paced, |paced| {
            let pace = paced.pace.get_or_insert_with(|| Pace::new(burst));
            let Some(hot) = pace.update(now_ns, hits(paced.event)) else { return Ok(()) };
            armed::take_stacks(self.armed.get_mut(paced.armed.clone()).unwrap_or_default(), hot)
        })
    }

    /// Takes few stacks at all probes while a ring is half full, before what is in it is read: reading
    /// takes longer than filling.
    ///
    /// # Errors
    /// As [`Self::keep_pace`].
    pub fn relieve(&mut self, now_ns: u64, hits: impl Fn(u32) -> u64) -> Result<(), PerfError> {
        let fills = |ring: &mut Ring| {
            // What is wrong with a ring is told by who reads it.
            let half = ring.capacity() as u64 / 2;
            ring.refresh().is_ok_and(|head| head.saturating_sub(ring.tail()) >= half)
        };
        if self.paced.is_empty() || !self.rings.iter_mut().any(fills) {
            return Ok(());
        }
        armed::every(&mut self.paced, |paced| {
            let Some(pace) = &mut paced.pace else { return Ok(()) };
            if !pace.press(now_ns, hits(paced.event)) {
                return Ok(());
            }
            armed::take_stacks(self.armed.get_mut(paced.armed.clone()).unwrap_or_default(), true)
        })
    }

    /// Bytes of the smallest ring that is mapped, 0 before any is: the kernel may allow less than was
    /// asked for.
    #[must_use]
    pub fn smallest_ring(&self) -> u64 {
        self.rings.iter().map(Ring::capacity).min().unwrap_or(0) as u64
    }

    /// Says that the kernel allowed less ring memory than was asked for, if it did.
    #[must_use]
    pub fn small_rings(&self) -> Option<String> {
        let asked = self.ring_pages * page_bytes() * self.rings.len();
        let mapped: usize = self.rings.iter().map(Ring::capacity).sum();
        shortage(asked as u64, mapped as u64)
    }

    /// Number of events that are opened for each thread and CPU.
    #[must_use]
    pub fn events(&self) -> usize {
        self.armed.len()
    }

    /// Opens all events from number `first_event` on for a thread. A thread that has ended
    /// meanwhile is no error; `false` says so.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn open_thread<W: Write>(
        &mut self,
        ingest: &mut Ingest<W>,
        tid: u32,
        first_event: usize,
    ) -> Result<bool, RecordError> {
        for cpu in 0..self.cpus.len() {
            for event in first_event..self.armed.len() {
                match self.open_one(ingest, tid, cpu, event) {
                    Err(error) if error.task_is_gone() => return Ok(false),
                    other => other?,
                }
            }
        }
        self.opened.insert(tid);
        if !self.singles.is_empty() && procfs::thread_group(tid).is_some_and(|pid| pid != tid) {
            let opened = self.open_single(ingest, tid)?;
            if !opened {
                let text = "system calls of a thread are not recorded: there are too many threads";
                let code = "thread-not-armed".into();
                ingest.remark(Remark { code, text: text.into(), count: 1 });
            }
        }
        Ok(true)
    }

    /// Whether events were opened for this thread (not inherited by it).
    #[must_use]
    pub fn is_open(&self, tid: u32) -> bool {
        self.opened.contains(&tid)
    }

    fn open_one<W: Write>(
        &mut self,
        ingest: &mut Ingest<W>,
        tid: u32,
        cpu: usize,
        event: usize,
    ) -> Result<(), PerfError> {
        let number = self.cpus.get(cpu).copied().unwrap_or_default();
        let Some(armed) = self.armed.get(event) else { return Ok(()) };
        let fd = PerfFd::open(&armed.attr, tid as i32, number as i32)?;
        if self.rings.len() <= cpu {
            let ring = map_ring(&fd, self.ring_pages)?;
            self.rings.push(ring);
            self.owners.push((event, armed.fds.len()));
        } else if let Some(owner) = self.ring_owner(cpu) {
            fd.set_output(owner)?;
        }
        if let Some(filter) = &armed.filter {
            fd.set_filter(filter)?;
        }
        // A thread that is found while its probe is hot.
        if armed.enabled != (!armed.attr.disabled || armed.attr.enable_on_exec) {
            fd.switch(armed.enabled)?;
        }
        if let Some(decoder) = &armed.decoder {
            ingest.decode_by(fd.id()?, decoder.clone());
        }
        if let Some(armed) = self.armed.get_mut(event) {
            armed.fds.push(fd);
        }
        Ok(())
    }

    /// The descriptors by which rings announce data, in the order of the rings.
    pub fn ring_owners(&self) -> impl Iterator<Item = &PerfFd> {
        (0..self.rings.len()).filter_map(|ring| self.ring_owner(ring))
    }

    fn ring_owner(&self, ring: usize) -> Option<&PerfFd> {
        let &(event, fd) = self.owners.get(ring)?;
        self.armed.get(event)?.fds.get(fd)
    }

    /// Samples that the kernel lost since the last call, by event.
    pub fn losses(&mut self, now: u64) -> Vec<Loss> {
        let mut losses = Vec::new();
        for armed in &mut self.armed {
            // A stack that is lost is no hit that is lost.
            let is_hit = |decoder: &&Decoder| decoder.role != Role::HotStack;
            let Some(decoder) = armed.decoder.as_ref().filter(is_hit) else { continue };
            let counts = armed.fds.iter().filter_map(|fd| fd.read_counts().ok()?.lost);
            let lost: u64 = counts.sum();
            if lost > armed.lost {
                let new = lost - armed.lost;
                armed.lost = lost;
                losses.push(Loss { event: decoder.event, time_ns: now, lost: new, dropped: 0 });
            }
        }
        losses.extend(self.singles.losses(now));
        losses
    }

    /// Stops counting, so that the last drain finds an end. Requests stop before their results.
    pub fn stop(&self) {
        self.singles.stop();
        for armed in self.armed.iter().rev() {
            for fd in &armed.fds {
                // A task that has ended needs no stopping.
                let _ended = fd.disable();
            }
        }
    }

    /// Closes all events and removes the dynamic ones. Returns what could not be removed.
    pub fn disarm(mut self) -> Vec<tracefs::TracefsError> {
        let mut problems = Vec::new();
        let dynamic: Vec<_> =
            self.armed.iter_mut().filter_map(|armed| armed.dynamic.take()).collect();
        self.rings.clear();
        self.singles = Singles::default();
        self.armed.clear();
        for mut event in dynamic {
            problems.extend(event.remove().err());
        }
        problems
    }
}
