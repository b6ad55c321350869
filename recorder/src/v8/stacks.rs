//! Stacks that this drain has resolved: at a hot probe most are equal.
//!
//! Equal means: the same machine frames, and in those that may be JavaScript's the same words in the
//! slots that name a function. Then the answer is the same, because a drain reads each page of the
//! target once. Must not know how a stack is resolved.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher};
use std::ops::Range;

use foldhash::fast::RandomState;
use foldhash::quality;

use super::compiled::MAX_SEARCH;
use super::frame::{Frame, StackDump};
use super::heap::pointer;
use super::regions::{Kind, Regions};
use crate::unwind::MachineFrame;

/// Frames remembered at most, 40 bytes each.
const MAX_FRAMES: usize = 1 << 16;

/// The resolved stacks of one drain.
#[derive(Debug, Default)]
pub(super) struct Stacks {
    /// Seeded at random: a target cannot make two stacks with one key.
    seed: quality::RandomState,
    epoch: u64,
    known: HashMap<u64, Range<usize>, RandomState>,
    frames: Vec<Frame>,
    /// Places in code whose frames have no bytecode slots.
    optimised: HashSet<u64, RandomState>,
}

impl Stacks {
    /// Forgets all stacks.
    pub(super) fn begin(&mut self) {
        self.epoch += 1;
        self.known.clear();
        self.frames.clear();
        self.optimised.clear();
    }

    /// The code at `pc` was compiled by Maglev or Turbofan.
    pub(super) fn optimised(&mut self, pc: u64) {
        self.optimised.insert(pc);
    }

    /// A stack's key: all that its frames are made from, as one number.
    pub(super) fn key(
        &self,
        dump: &StackDump<'_>,
        regions: &Regions,
        machine: &[MachineFrame],
    ) -> u64 {
        let mut hash = self.seed.build_hasher();
        hash.write_u64(self.epoch);
        hash.write_u8(u8::from(dump.at_entry));
        for (index, frame) in machine.iter().enumerate() {
            hash.write_u64(frame.ip);
            hash.write_u8(u8::from(frame.call) | u8::from(frame.after_gap) << 1);
            let kind = regions.kind(frame.pc());
            if matches!(kind, Some(Kind::Jit | Kind::Builtins | Kind::PerhapsBuiltins)) {
                self.slots(dump, frame, kind, &mut hash);
                if index == 0 && !dump.at_entry {
                    innermost(dump, &mut hash);
                }
            }
        }
        hash.finish()
    }

    fn slots(
        &self,
        dump: &StackDump<'_>,
        frame: &MachineFrame,
        kind: Option<Kind>,
        hash: &mut impl Hasher,
    ) {
        let slot = |offset: u64| frame.bp.checked_sub(offset).and_then(|at| dump.word(at));
        // Contexts come and go with each call; only whether it is one counts.
        let function = slot(8).and_then(pointer).and_then(|_| slot(16)).and_then(pointer);
        hash.write_u64(function.unwrap_or(0));
        let all = if kind == Some(Kind::Jit) {
            !self.optimised.contains(&frame.pc())
        } else {
            function.is_some()
        };
        if all {
            for offset in [32, 40] {
                let word = slot(offset);
                hash.write_u8(u8::from(word.is_some()));
                hash.write_u64(word.unwrap_or(0));
            }
        }
    }

    /// Puts a known stack into `frames`.
    pub(super) fn find(&self, key: u64, frames: &mut Vec<Frame>) -> bool {
        let found = self.known.get(&key).and_then(|range| self.frames.get(range.clone()));
        frames.extend_from_slice(found.unwrap_or_default());
        found.is_some()
    }

    /// Remembers a stack, if there is room.
    pub(super) fn insert(&mut self, key: u64, frames: &[Frame]) {
        let start = self.frames.len();
        if start + frames.len() <= MAX_FRAMES {
            self.frames.extend_from_slice(frames);
            self.known.insert(key, start..self.frames.len());
        }
    }
}

/// What an innermost frame in generated code may be looked for in: registers of the interpreter and
/// return addresses on top of the stack.
fn innermost(dump: &StackDump<'_>, hash: &mut impl Hasher) {
    let registers = dump.registers;
    hash.write_u64(registers.r9);
    hash.write_u64(registers.r12);
    // One more than the search: a return address may be under a saved frame pointer.
    for index in 0..=MAX_SEARCH as u64 {
        let at = registers.sp.saturating_add(index * 8);
        if at > registers.bp {
            break;
        }
        let Some(word) = dump.word(at) else { break };
        hash.write_u64(word);
    }
}
