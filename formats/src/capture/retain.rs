//! What is kept of a capture that is read while it is written, for as long as a recording may last:
//! samples are handed over, and of the tables what later chunks or the caller may still ask for.
//!
//! Strings, frames and stacks are forgotten with the writer's epoch. Other tables have few rows, are
//! summed up or, where they grow with the target's work, bounded here. What does grow is one row of
//! some 100 bytes for each process that was ever started, and 32 for each function that was ever seen.

use std::collections::{HashMap, HashSet};

use super::contents::Samples;
use super::model::{LineEnds, Loss};
use super::reader::CaptureReader;

/// Bytes of names and line ends of JavaScript. A recorder gives up the names of one process at 64 MiB,
/// and then tells anew what still occurs; so what is older than four times that is not missed.
const NAMES_BYTES: usize = 256 << 20;
/// Symbols that may gather before repeated ones are looked for: a recorder repeats some after it has
/// forgotten which it told.
const SYMBOLS: usize = 1 << 16;
/// In place of a name that was given up.
const FORGOTTEN: &[u8] = b"(forgotten)";

/// Where strings and stacks have gone that were still in use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moved {
    strings: HashMap<u32, u32>,
    stacks: HashMap<u32, u32>,
}

impl Moved {
    /// The new index of a string; 0, no value, for one that was not in use.
    #[must_use]
    pub fn string(&self, index: u32) -> u32 {
        self.strings.get(&index).copied().unwrap_or(0)
    }

    /// The new index of a stack; 0, the empty one, for one that was not in use.
    #[must_use]
    pub fn stack(&self, index: u32) -> u32 {
        self.stacks.get(&index).copied().unwrap_or(0)
    }
}

/// What a follower has given up, beside the rows.
#[derive(Debug, Default)]
pub(super) struct Retained {
    /// Process images whose end was told before the last look.
    ended: HashSet<u32>,
    /// Symbols that were left when repeated ones were looked for.
    symbols: usize,
    /// Functions, scripts and line ends when they were last looked at.
    names: (usize, usize, usize),
    /// Functions and scripts below these are given up.
    forgotten: (usize, usize),
}

impl CaptureReader {
    /// Hands over the samples that have been read since the last time; the capture has none then.
    pub fn take_samples(&mut self) -> Vec<Samples> {
        self.assembly.samples = 0;
        std::mem::take(&mut self.assembly.capture.samples)
    }

    /// Whether the tables hold what only an epoch that is over refers to: time to [`Self::forget`].
    #[must_use]
    pub fn has_outlived(&self) -> bool {
        self.assembly.outlived
    }

    /// Forgets the strings, frames and stacks that neither the current epoch nor the caller refers to.
    /// Indexes change: `strings` and `stacks` are those that the caller holds.
    pub fn forget(
        &mut self,
        strings: impl IntoIterator<Item = u32>,
        stacks: impl IntoIterator<Item = u32>,
    ) -> Moved {
        let assembly = &mut self.assembly;
        let (capture, epoch) = (&mut assembly.capture, &mut assembly.epoch);
        let mut moved = Moved::default();

        let mut kept = Kept::new(capture.strings.len());
        kept.mark(0);
        epoch.strings.iter().copied().chain(strings).for_each(|index| kept.mark(index));
        kept.apply(&mut capture.strings, |_index, string| string);
        epoch.strings.iter_mut().for_each(|index| *index = kept.now(*index));
        moved.strings = kept.moved();

        let mut nodes = Kept::new(capture.stacks.len());
        nodes.mark(0);
        for leaf in epoch.stacks.iter().copied().chain(stacks) {
            let mut at = leaf;
            // A parent is older than its child, so this ends.
            while !nodes.is_marked(at)
                && let Some(&(parent, _frame)) = capture.stacks.get(at as usize)
            {
                nodes.mark(at);
                at = parent;
            }
        }
        let mut frames = Kept::new(capture.frames.len());
        epoch.frames.iter().for_each(|&index| frames.mark(index));
        for (at, &(_parent, frame)) in capture.stacks.iter().enumerate().skip(1) {
            if nodes.is_marked(at as u32) {
                frames.mark(frame);
            }
        }
        frames.apply(&mut capture.frames, |_index, frame| frame);
        nodes.apply(&mut capture.stacks, |nodes, (parent, frame)| {
            (nodes.now(parent), frames.now(frame))
        });
        epoch.frames.iter_mut().for_each(|index| *index = frames.now(*index));
        epoch.stacks.iter_mut().for_each(|index| *index = nodes.now(*index));
        moved.stacks = nodes.moved();

        let numbered = |at: usize| at as u32;
        assembly.strings =
            capture.strings.iter().cloned().zip((0..).map(numbered)).skip(1).collect();
        assembly.frames = capture.frames.iter().copied().zip((0..).map(numbered)).collect();
        assembly.stacks = capture.stacks.iter().copied().zip((0..).map(numbered)).skip(1).collect();
        assembly.outlived = false;
        moved
    }

    /// Gives up rows that nobody asks for while a recording runs: mappings, ends, symbols that were
    /// told twice, the names of processes that have ended, the oldest names where they are too many;
    /// losses are summed up by event.
    pub fn settle(&mut self) {
        self.settle_within(NAMES_BYTES);
    }

    pub(super) fn settle_within(&mut self, names_bytes: usize) {
        let assembly = &mut self.assembly;
        let (capture, gone) = (&mut assembly.capture, &mut assembly.gone);
        gone.mappings += capture.mappings.len();
        capture.mappings = Vec::new();
        gone.losses += sum_up(&mut capture.losses);
        if capture.symbols.len() > self.retained.symbols * 2 + SYMBOLS {
            let before = capture.symbols.len();
            capture.symbols.sort_unstable_by(|a, b| {
                (a.object, a.start, a.size, &a.name).cmp(&(b.object, b.start, b.size, &b.name))
            });
            capture.symbols.dedup();
            capture.symbols.shrink_to_fit();
            gone.symbols += before - capture.symbols.len();
            self.retained.symbols = capture.symbols.len();
        }
        // Threads of a process that has ended may be told of a little later: names go one look after.
        let ended = std::mem::take(&mut self.retained.ended);
        self.retained.ended.extend(capture.ends.iter().map(|end| end.process));
        gone.ends += capture.ends.len();
        capture.ends = Vec::new();
        if !ended.is_empty() {
            self.forget_processes(&ended);
        }
        self.forget_oldest_names(names_bytes);
    }

    fn forget_processes(&mut self, ended: &HashSet<u32>) {
        let capture = &mut self.assembly.capture;
        for &process in ended {
            if let Some(process) = capture.processes.get_mut(process as usize) {
                process.comm = Vec::new();
                process.cmdline = Vec::new();
                process.node_options = Vec::new();
            }
        }
        capture.jit.retain(|batch| !ended.contains(&batch.process));
        let mut scripts = HashSet::new();
        for (at, script) in capture.scripts.iter_mut().enumerate() {
            if ended.contains(&script.process) {
                scripts.insert(at as u32);
                script.name = Vec::new();
                script.source_url = Vec::new();
                script.source_map_url = Vec::new();
            }
        }
        if scripts.is_empty() {
            return;
        }
        for function in &mut capture.functions {
            if function.script.checked_sub(1).is_some_and(|script| scripts.contains(&script)) {
                function.name = Vec::new();
            }
        }
        self.forget_lines(|lines| scripts.contains(&lines.script));
    }

    fn forget_lines(&mut self, over: impl Fn(&LineEnds) -> bool) {
        let lines = &mut self.assembly.capture.line_ends;
        let before = lines.len();
        lines.retain(|lines| !over(lines));
        self.assembly.gone.line_ends += before - lines.len();
    }

    /// Gives up the older half of all names if they are more than `limit` bytes.
    fn forget_oldest_names(&mut self, limit: usize) {
        let capture = &self.assembly.capture;
        let names = (capture.functions.len(), capture.scripts.len(), capture.line_ends.len());
        if std::mem::replace(&mut self.retained.names, names) == names {
            return;
        }
        let functions: usize = capture.functions.iter().map(|function| function.name.len()).sum();
        let scripts = capture.scripts.iter();
        let scripts: usize =
            scripts.map(|s| s.name.len() + s.source_url.len() + s.source_map_url.len()).sum();
        let lines: usize = capture.line_ends.iter().map(|lines| lines.ends.len() * 4).sum();
        if functions + scripts + lines <= limit {
            return;
        }
        let (first_function, first_script) = self.retained.forgotten;
        let half = |first: usize, all: usize| first + (all - first).div_ceil(2);
        let upto = (half(first_function, names.0), half(first_script, names.1));
        let capture = &mut self.assembly.capture;
        for function in capture.functions.iter_mut().take(upto.0).skip(first_function) {
            function.name = FORGOTTEN.to_vec();
            function.script = 0;
        }
        for script in capture.scripts.iter_mut().take(upto.1).skip(first_script) {
            script.name = FORGOTTEN.to_vec();
            script.source_url = Vec::new();
            script.source_map_url = Vec::new();
        }
        self.forget_lines(|lines| (lines.script as usize) < upto.1);
        self.retained.forgotten = upto;
        self.retained.names = (0, 0, 0);
    }
}

/// One loss an event; gives how many rows are fewer.
fn sum_up(losses: &mut Vec<Loss>) -> usize {
    let before = losses.len();
    let mut sums: Vec<Loss> = Vec::new();
    for loss in losses.drain(..) {
        match sums.iter_mut().find(|sum| sum.event == loss.event) {
            Some(sum) => {
                sum.time_ns = sum.time_ns.max(loss.time_ns);
                sum.lost = sum.lost.saturating_add(loss.lost);
                sum.dropped = sum.dropped.saturating_add(loss.dropped);
            }
            None => sums.push(loss),
        }
    }
    *losses = sums;
    before - losses.len()
}

/// Which rows of a table are kept, and where they go.
struct Kept {
    /// The new index of each old one; `NOT_KEPT` for a row that goes.
    now: Vec<u32>,
}

const NOT_KEPT: u32 = u32::MAX;

impl Kept {
    fn new(rows: usize) -> Self {
        Self { now: vec![NOT_KEPT; rows] }
    }

    fn mark(&mut self, index: u32) {
        if let Some(slot) = self.now.get_mut(index as usize) {
            *slot = 0;
        }
    }

    fn is_marked(&self, index: u32) -> bool {
        self.now.get(index as usize).is_some_and(|&now| now != NOT_KEPT)
    }

    /// Gives the rows that are marked their new indexes, in their old order.
    fn number(&mut self) {
        let marked = self.now.iter_mut().filter(|slot| **slot != NOT_KEPT);
        for (next, slot) in marked.enumerate() {
            *slot = next as u32;
        }
    }

    fn apply<R>(&mut self, table: &mut Vec<R>, change: impl Fn(&Self, R) -> R) {
        self.number();
        let mut kept = Vec::new();
        for (at, row) in std::mem::take(table).into_iter().enumerate() {
            if self.is_marked(at as u32) {
                kept.push(change(self, row));
            }
        }
        *table = kept;
    }

    fn now(&self, index: u32) -> u32 {
        self.now.get(index as usize).copied().filter(|&now| now != NOT_KEPT).unwrap_or(0)
    }

    fn moved(&self) -> HashMap<u32, u32> {
        let pairs = (0..).zip(self.now.iter().copied());
        pairs.filter(|&(_old, now)| now != NOT_KEPT).collect()
    }
}
