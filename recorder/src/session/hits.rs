//! What several perf events say of one hit of a hot probe, brought together: the hit itself from
//! one, its stack, if one was taken, from another, both in one thread within microseconds.
//!
//! Pure. While a probe is switched between all stacks and few, a hit can come from both sides; it
//! is recorded once.

use std::collections::HashMap;

use formats::capture::StackId;

use super::decoder::Role;

/// Records of one hit are written one after the other, without a switch of the task.
const SAME_HIT_NS: u64 = 100_000;
/// Threads remembered at most.
const MAX_THREADS: usize = 1 << 14;

/// One record of a hit.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Thread.
    pub tid: u32,
    /// Event in the capture.
    pub event: u32,
    /// When.
    pub time_ns: u64,
    /// The raw part.
    pub raw: &'a [u8],
    /// The epoch of the capture's tables now.
    pub epoch: u32,
}

/// The newest hit of a thread.
#[derive(Debug, Default)]
struct Newest {
    event: u32,
    time_ns: u64,
    raw: Vec<u8>,
    epoch: u32,
    stack: StackId,
    written: bool,
    /// Its record without a stack has come: the next one is another hit's.
    told: bool,
}

/// The newest hit of each thread.
#[derive(Debug, Default)]
pub struct Hits {
    newest: HashMap<u32, Newest>,
}

/// What to do with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Write a hit with this stack.
    Write(StackId),
    /// Write a hit of which no stack was taken.
    WriteWithout,
    /// Nothing: the hit follows, or is written already.
    Nothing,
}

impl Hits {
    /// Takes a record; `stack` is what it brought along.
    pub fn take(&mut self, record: Record<'_>, role: Role, stack: StackId) -> Answer {
        if self.newest.len() > MAX_THREADS {
            self.newest.clear();
        }
        let newest = self.newest.entry(record.tid).or_default();
        let same = newest.event == record.event
            && newest.epoch == record.epoch
            && record.time_ns.saturating_sub(newest.time_ns) < SAME_HIT_NS
            && newest.raw == record.raw;
        match role {
            Role::HotHit if same && !newest.told => {
                newest.told = true;
                let written = std::mem::replace(&mut newest.written, true);
                return if written { Answer::Nothing } else { Answer::Write(newest.stack) };
            }
            Role::HotHit => return Answer::WriteWithout,
            Role::HotStack if same && newest.written && !newest.told => return Answer::Nothing,
            Role::HotStack | Role::Each => {}
        }
        newest.raw.clear();
        newest.raw.extend_from_slice(record.raw);
        let Record { event, time_ns, epoch, .. } = record;
        let (raw, written) = (std::mem::take(&mut newest.raw), role == Role::Each);
        *newest = Newest { event, time_ns, raw, epoch, stack, written, told: false };
        if written { Answer::Write(stack) } else { Answer::Nothing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(tid: u32, time_ns: u64, raw: &'static [u8]) -> Record<'static> {
        Record { tid, event: 2, time_ns, raw, epoch: 0 }
    }

    #[test]
    fn a_hit_and_its_stack_come_together() {
        let mut hits = Hits::default();
        let (stack, none) = (StackId(7), StackId::default());
        assert_eq!(hits.take(record(1, 100, b"a"), Role::HotStack, stack), Answer::Nothing);
        // Another thread's hit comes in between.
        assert_eq!(hits.take(record(2, 101, b"a"), Role::HotHit, none), Answer::WriteWithout);
        assert_eq!(hits.take(record(1, 102, b"a"), Role::HotHit, none), Answer::Write(stack));
        // The next hits, with equal arguments too, have no stacks of their own.
        assert_eq!(hits.take(record(1, 103, b"a"), Role::HotHit, none), Answer::WriteWithout);
        assert_eq!(hits.take(record(1, 104, b"b"), Role::HotHit, none), Answer::WriteWithout);
        assert_eq!(hits.take(record(1, 105, b"a"), Role::HotStack, stack), Answer::Nothing);
        assert_eq!(hits.take(record(1, 300_000, b"a"), Role::HotHit, none), Answer::WriteWithout);
    }

    #[test]
    fn a_hit_that_comes_twice_is_written_once() {
        let mut hits = Hits::default();
        let (stack, none) = (StackId(7), StackId::default());
        assert_eq!(hits.take(record(1, 100, b"a"), Role::Each, stack), Answer::Write(stack));
        assert_eq!(hits.take(record(1, 101, b"a"), Role::HotStack, stack), Answer::Nothing);
        assert_eq!(hits.take(record(1, 102, b"a"), Role::HotHit, none), Answer::Nothing);
        assert_eq!(hits.take(record(1, 103, b"a"), Role::HotHit, none), Answer::WriteWithout);
    }

    #[test]
    fn a_stack_of_older_tables_is_not_taken() {
        let mut hits = Hits::default();
        let old = record(1, 100, b"a");
        assert_eq!(hits.take(old, Role::HotStack, StackId(7)), Answer::Nothing);
        let new = Record { epoch: 1, ..record(1, 101, b"a") };
        assert_eq!(hits.take(new, Role::HotHit, StackId::default()), Answer::WriteWithout);
    }
}
