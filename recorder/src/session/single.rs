//! Events that are opened on single threads and inherited by none. Their thread's descriptors are
//! closed when it ends: a program may start any number of threads.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write;

use formats::capture::Loss;

use super::decoder::Decoder;
use super::ingest::Ingest;
use crate::sys::attr::EventAttr;
use crate::sys::perf::PerfFd;
use crate::sys::perf_error::PerfError;

/// Threads that have such events at once, at most, however many descriptors are allowed.
const MAX_THREADS: usize = 1024;

/// One event that each of the threads gets.
#[derive(Debug)]
struct Single {
    attr: EventAttr,
    filter: Option<Cow<'static, str>>,
    decoder: Decoder,
    /// Losses of descriptors that are closed.
    lost_before: u64,
    /// Losses that have been told.
    told: u64,
}

/// A descriptor, the event it is of, and the kernel's identifier.
#[derive(Debug)]
struct Opened {
    event: usize,
    fd: PerfFd,
    id: u64,
}

/// The events, and the threads that have them.
#[derive(Debug, Default)]
pub(super) struct Singles {
    events: Vec<Single>,
    threads: HashMap<u32, Vec<Opened>>,
    /// Descriptors at once, at most: the recorder needs others for files that are mapped later.
    most: usize,
}

impl Singles {
    /// Adds an event; threads that are opened from now on get it.
    pub(super) fn add(
        &mut self,
        attr: EventAttr,
        filter: Option<Cow<'static, str>>,
        decoder: Decoder,
    ) {
        self.events.push(Single { attr, filter, decoder, lost_before: 0, told: 0 });
    }

    /// Allows so many descriptors at once; none were allowed before.
    pub(super) fn allow(&mut self, descriptors: u64) {
        self.most = usize::try_from(descriptors).unwrap_or(usize::MAX);
    }

    /// Whether there is nothing to open.
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Opens all events for a thread; `rings` are each CPU's number and the owner of its ring. A thread
    /// that has them, or has ended, is no error; `false` says that too many have them.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn open<'r, W: Write>(
        &mut self,
        ingest: &mut Ingest<W>,
        tid: u32,
        rings: impl Iterator<Item = (u32, &'r PerfFd)>,
    ) -> Result<bool, PerfError> {
        if self.threads.contains_key(&tid) {
            return Ok(true);
        }
        let rings: Vec<(u32, &PerfFd)> = rings.collect();
        let now: usize = self.threads.values().map(Vec::len).sum();
        let then = now + self.events.len() * rings.len();
        if then > self.most || self.threads.len() >= MAX_THREADS {
            return Ok(false);
        }
        let mut opened = Vec::new();
        for (cpu, owner) in rings {
            for (event, single) in self.events.iter().enumerate() {
                let fd = match PerfFd::open(&single.attr, tid as i32, cpu as i32) {
                    Err(error) if error.task_is_gone() => return Ok(true),
                    other => other?,
                };
                fd.set_output(owner)?;
                if let Some(filter) = &single.filter {
                    fd.set_filter(filter)?;
                }
                let id = fd.id()?;
                ingest.decode_by(id, single.decoder.clone());
                opened.push(Opened { event, fd, id });
            }
        }
        self.threads.insert(tid, opened);
        Ok(true)
    }

    /// Closes the events of a thread that has ended, when all its records are read.
    pub(super) fn close<W: Write>(&mut self, ingest: &mut Ingest<W>, tid: u32) {
        for Opened { event, fd, id } in self.threads.remove(&tid).unwrap_or_default() {
            if let Some(single) = self.events.get_mut(event) {
                single.lost_before += lost(&fd);
            }
            ingest.forget(id);
        }
    }

    /// Samples that the kernel lost since the last call, by event.
    pub(super) fn losses(&mut self, now: u64) -> Vec<Loss> {
        let mut all: Vec<u64> = self.events.iter().map(|single| single.lost_before).collect();
        for Opened { event, fd, .. } in self.threads.values().flatten() {
            if let Some(sum) = all.get_mut(*event) {
                *sum += lost(fd);
            }
        }
        let mut losses = Vec::new();
        for (single, all) in self.events.iter_mut().zip(all) {
            if all > single.told {
                let lost = all - single.told;
                single.told = all;
                losses.push(Loss { event: single.decoder.event, time_ns: now, lost, dropped: 0 });
            }
        }
        losses
    }

    /// Stops counting.
    pub(super) fn stop(&self) {
        for opened in self.threads.values().flatten() {
            // A task that has ended needs no stopping.
            let _ended = opened.fd.disable();
        }
    }
}

/// Samples of a descriptor that found no place in the ring.
fn lost(fd: &PerfFd) -> u64 {
    fd.read_counts().ok().and_then(|counts| counts.lost).unwrap_or(0)
}
