//! Which entry of a JIT map was true at an address when a sample was taken. It must not interpret
//! names, and it never looks at a map file: the capture holds the map as it grew.
//!
//! Rules:
//! - A sample takes the newest entry that covers its address and that may have been true by then.
//! - A newer entry replaces older ones where it overlaps them, from its time on.
//! - If only a later entry covers the address, that is taken and marked as inferred: the map is read
//!   a moment after it was written.
//! - A forked child that writes no map of its own shows its parent's code as it was at the fork.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};

use formats::capture::{Capture, Frame, JitEntry};

use crate::profile::Reason;

/// Entries that are kept for one address. Real maps reuse an address a few dozen times; a forged
/// one must not make the work quadratic.
const CANDIDATES: usize = 256;

/// What may lie at an address, with the time from which on it does, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) from_ns: u64,
    /// Index into [`JitMaps::names`].
    pub(super) entry: u32,
}

/// What is known of one JIT frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    /// Entries cover it. `shared`: they are the parent's.
    Entries { candidates: Vec<Candidate>, shared: bool },
    /// None does.
    Nothing(Reason),
}

/// The JIT maps of all processes, looked up for the frames of the capture.
#[derive(Debug)]
pub(super) struct JitMaps<'c> {
    entries: Vec<(u64, &'c JitEntry)>,
    known: HashMap<u32, Known>,
}

impl<'c> JitMaps<'c> {
    pub(super) fn new(capture: &'c Capture) -> Self {
        let mut maps = Self { entries: Vec::new(), known: HashMap::new() };
        let mut queries: HashMap<u32, Vec<(u64, u32)>> = HashMap::new();
        for (id, frame) in capture.frames.iter().enumerate() {
            if let Frame::Jit { process, address, call } = *frame {
                let address = address.saturating_sub(u64::from(call));
                queries.entry(process).or_default().push((address, id as u32));
            }
        }
        let mut batches: HashMap<u32, Vec<usize>> = HashMap::new();
        for (at, batch) in capture.jit.iter().enumerate().filter(|(_at, b)| !b.entries.is_empty()) {
            batches.entry(batch.process).or_default().push(at);
        }
        // A fixed order, so that one capture always gives one result.
        let mut processes: Vec<_> = queries.into_iter().collect();
        processes.sort_unstable_by_key(|(process, _queries)| *process);
        for (process, mut queries) in processes {
            queries.sort_unstable();
            let own = batches.get(&process);
            let parent = if own.is_none() { fork_parent(capture, process) } else { None };
            let shared = parent.and_then(|(parent, at)| Some((batches.get(&parent)?, at)));
            match (own, shared) {
                (Some(own), _) => maps.look_up(capture, own, u64::MAX, false, &queries),
                (None, Some((batches, fork_ns))) => {
                    maps.look_up(capture, batches, fork_ns, true, &queries);
                }
                (None, None) => {
                    let had_map = capture.jit.iter().any(|batch| batch.process == process)
                        || asked_for_map(capture, process);
                    let reason = match had_map {
                        true => Reason::JitNotInMap,
                        // What the recorder could not name in a heap was not looked for in a map.
                        false if capture.meta.js == "heap" => Reason::JitUnknown,
                        false => Reason::JitNoMap,
                    };
                    maps.known.extend(
                        queries.iter().map(|&(_address, frame)| (frame, Known::Nothing(reason))),
                    );
                }
            }
        }
        maps
    }

    /// What is known of the JIT frame with this index in the capture.
    pub(super) fn known(&self, frame: u32) -> Option<&Known> {
        self.known.get(&frame)
    }

    /// The name of an entry.
    pub(super) fn name(&self, entry: u32) -> &'c [u8] {
        self.entries.get(entry as usize).map_or(&[], |(_from, entry)| &entry.name)
    }

    /// Sweeps over the sorted addresses, with the entries that cover the current one at hand.
    fn look_up(
        &mut self,
        capture: &'c Capture,
        batches: &[usize],
        until_ns: u64,
        shared: bool,
        queries: &[(u64, u32)],
    ) {
        let first = self.entries.len() as u32;
        let batches = batches.iter().filter_map(|&at| capture.jit.get(at));
        for batch in batches.filter(|batch| batch.after_ns <= until_ns) {
            let entries = batch.entries.iter().filter(|entry| entry.size > 0);
            self.entries.extend(entries.map(|entry| (batch.after_ns, entry)));
        }
        let mut starts: Vec<u32> = (first..self.entries.len() as u32).collect();
        let start = |id: u32| self.entries.get(id as usize).map_or(0, |(_from, e)| e.start);
        starts.sort_by_key(|&id| start(id));
        let mut starts = starts.into_iter().peekable();
        // Entries by age (their number), and by where they end.
        let mut active: BTreeSet<u32> = BTreeSet::new();
        let mut ends: BinaryHeap<Reverse<(u64, u32)>> = BinaryHeap::new();
        for &(address, frame) in queries {
            while let Some(id) = starts.next_if(|&id| start(id) <= address) {
                let Some((_from, entry)) = self.entries.get(id as usize) else { continue };
                let end = entry.start.saturating_add(entry.size);
                if end > address {
                    active.insert(id);
                    ends.push(Reverse((end, id)));
                }
            }
            while let Some(&Reverse((end, id))) = ends.peek() {
                if end > address {
                    break;
                }
                ends.pop();
                active.remove(&id);
            }
            let mut candidates: Vec<Candidate> = active
                .iter()
                .rev()
                .take(CANDIDATES)
                .filter_map(|&entry| {
                    let &(from_ns, _entry) = self.entries.get(entry as usize)?;
                    Some(Candidate { from_ns, entry })
                })
                .collect();
            candidates.sort_by_key(|c| (c.from_ns, c.entry));
            let known = if candidates.is_empty() {
                Known::Nothing(Reason::JitNotInMap)
            } else {
                Known::Entries { candidates, shared }
            };
            self.known.insert(frame, known);
        }
    }
}

/// Whether the process was started with a flag that makes V8 write a map: then it is the map that is
/// missing, not the flag.
fn asked_for_map(capture: &Capture, process: u32) -> bool {
    let Some(known) = capture.processes.get(process as usize) else { return false };
    let options = known.node_options.split(|&b| b == b' ');
    known.cmdline.split(|&b| b == 0).chain(options).any(|word| {
        // V8 takes `-` and `_` alike; `--perf-basic-prof-only-functions` writes a map too.
        let word: Vec<u8> = word.iter().map(|&b| if b == b'_' { b'-' } else { b }).collect();
        word.starts_with(b"--perf-basic-prof") || word == b"--perf-prof"
    })
}

/// The process image whose memory this one began with, and when: only where the recorder saw the
/// fork and no exec followed. An exec would be an image of its own with the same process id.
fn fork_parent(capture: &Capture, process: u32) -> Option<(u32, u64)> {
    let child = capture.processes.get(process as usize)?;
    if child.start_ns <= capture.meta.start_ns || child.parent == child.pid {
        return None;
    }
    let (before, _rest) = capture.processes.split_at_checked(process as usize)?;
    if before.iter().any(|known| known.pid == child.pid) {
        return None;
    }
    let (at, parent) = before
        .iter()
        .enumerate()
        .rfind(|(_at, known)| known.pid == child.parent && known.start_ns <= child.start_ns)?;
    let same = child.cmdline.is_empty() || child.cmdline == parent.cmdline;
    same.then_some((at as u32, child.start_ns))
}
