//! Samples and operations counted: by path, by function, by reason. It must not know how a result is
//! shown, nor where a name came from.

pub mod calls;
pub mod cpu;
pub mod glob;
pub mod losses;
pub mod operations;
pub mod pool;
pub mod quality;
pub mod syscalls;

use formats::capture::{Capture, EventDef};

use crate::profile::ResolvedStackId;
use crate::symbolise::Symboliser;

/// Counts by stack; a stack's id is its index, because ids are dense.
#[derive(Debug, Clone, Default)]
pub struct StackCounts(Vec<u64>);

impl StackCounts {
    /// Adds to a stack's count.
    pub fn add(&mut self, stack: ResolvedStackId, count: u64) {
        let at = stack.0 as usize;
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        if let Some(slot) = self.0.get_mut(at) {
            *slot = slot.saturating_add(count);
        }
    }

    /// The stacks that occur, by their id. The empty stack is one of them.
    pub fn iter(&self) -> impl Iterator<Item = (ResolvedStackId, u64)> + '_ {
        let rows = self.0.iter().enumerate().filter(|(_at, count)| **count > 0);
        rows.map(|(at, &count)| (ResolvedStackId(at as u32), count))
    }

    /// All counts together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, &count| sum.saturating_add(count))
    }

    /// As rows for an output format.
    #[must_use]
    pub fn rows(&self) -> Vec<(ResolvedStackId, u64)> {
        self.iter().collect()
    }
}

/// Counts the stacks of all samples whose event is chosen.
pub fn count_stacks(
    capture: &Capture,
    symboliser: &mut Symboliser<'_>,
    choose: impl Fn(&EventDef) -> bool,
) -> StackCounts {
    let mut counts = StackCounts::default();
    for samples in &capture.samples {
        if !capture.event(samples.event).is_some_and(&choose) {
            continue;
        }
        for (&stack, &time) in samples.stack.iter().zip(&samples.time_ns) {
            counts.add(symboliser.resolve(stack, time), 1);
        }
    }
    counts
}
