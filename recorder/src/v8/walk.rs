//! From a dumped user stack to frames: the unwinder gives the machine frames; here each that is
//! JavaScript's gets its function, tier and place in the source.
//!
//! Never a guess. A JSFunction may have moved since the sample and something else may lie in its
//! place: a name counts when two things on the stack or in the heap agree on it (the function's
//! bytecode and the frame's; the function's identity and the code's), or when one of them was known
//! before the sample and still holds. Else the frame is unknown, with the reason.
//! Frame layout: V8's src/execution/frame-constants.h.

use std::collections::HashMap;
use std::rc::Rc;

use foldhash::fast::RandomState;

use super::code::Codes;
use super::frame::{Ending, Frame, StackDump, Why};
use super::heap::{Heap, pointer};
use super::layout::CodeKind;
use super::memory::Memory;
use super::names::Names;
use super::positions::PositionTable;
use super::regions::{Kind, Regions};
use super::stacks::Stacks;
use super::tail::Tails;
use crate::unwind::{MachineFrame, Unwinder};

#[derive(Debug, Clone)]
pub(super) struct Bytecode {
    pub(super) function: u32,
    /// Words behind the map, which differ in another array at the same address.
    pub(super) words: [u64; 2],
}

/// Position tables of bytecode arrays by address, with the words that prove the array.
pub(super) type Tables = HashMap<u64, ([u64; 2], Rc<PositionTable>), RandomState>;

/// Resolves stacks of one process.
#[derive(Debug)]
pub struct Walker<M> {
    /// The target's heap.
    pub heap: Heap<M>,
    /// Functions and scripts.
    pub names: Names,
    /// Code objects.
    pub codes: Codes,
    pub(super) bytecodes: HashMap<u64, Bytecode, RandomState>,
    pub(super) tables: Tables,
    /// Functions by bytecode array, from the scripts' own lists, and when to make it again.
    pub(super) owners: HashMap<u64, u64, RandomState>,
    pub(super) list_again: u64,
    pub(super) list_wait: u64,
    pub(super) drain: u64,
    /// Finds the machine frames.
    pub unwinder: Unwinder,
    machine: Vec<MachineFrame>,
    /// Stacks that this drain has resolved.
    pub(super) stacks: Stacks,
    pub(super) tails: Tails,
    /// A return address of the last stack was in no known mapping: there may be new ones.
    pub strayed: bool,
}

/// How a stack was resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    /// How the chain ended.
    pub ending: Ending,
    /// Equal for equal stacks of one drain, and for no others.
    pub key: u64,
    /// The stack had been resolved in this drain before.
    pub known: bool,
}

/// Where a machine frame is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) ip: u64,
    pub(super) bp: u64,
    pub(super) call: bool,
    pub(super) innermost: bool,
}

impl Place {
    /// The byte that was executed last.
    pub(super) fn pc(&self) -> u64 {
        self.ip.wrapping_sub(u64::from(self.call))
    }
}

impl<M: Memory> Walker<M> {
    /// A resolver over `heap`.
    pub fn new(heap: Heap<M>) -> Self {
        Self {
            heap,
            names: Names::default(),
            codes: Codes::default(),
            bytecodes: HashMap::default(),
            tables: HashMap::default(),
            owners: HashMap::default(),
            list_again: 0,
            list_wait: 0,
            drain: 0,
            unwinder: Unwinder::new(),
            machine: Vec::new(),
            stacks: Stacks::default(),
            tails: Tails::default(),
            strayed: false,
        }
    }

    /// A new drain begins: memory is read afresh.
    pub fn begin(&mut self) {
        self.drain += 1;
        self.heap.begin();
        self.stacks.begin();
        self.tails.clear();
    }

    /// What is mapped has changed: resolved stacks may look different.
    pub fn forget_stacks(&mut self) {
        self.stacks.begin();
    }

    /// Resolves one stack into `frames`, leaf first.
    pub fn walk(
        &mut self,
        dump: &StackDump<'_>,
        regions: &Regions,
        frames: &mut Vec<Frame>,
    ) -> Walked {
        frames.clear();
        let mut machine = std::mem::take(&mut self.machine);
        let unwound = self.unwinder.unwind(dump, regions.mappings(), &mut machine);
        let mut ending = unwound.ending;
        self.strayed = unwound.strayed;
        let mut key = self.stacks.key(dump, regions, &machine);
        let known = self.stacks.find(key, frames);
        if !known {
            self.prefetch(dump, &machine);
            for (index, frame) in machine.iter().enumerate() {
                self.machine_frame(dump, regions, frame, index == 0, frames);
            }
            // What code the frames are in is known better now.
            key = self.stacks.key(dump, regions, &machine);
            if !self.strayed {
                self.stacks.insert(key, frames);
            }
        }
        if ending == Ending::Truncated
            && let Some(last) = machine.last()
        {
            // Two stacks of equal frames may end differently behind what was copied.
            key = key.rotate_left(1) ^ last.bp;
            if ends_in(frames, dump, regions, last) {
                // Nothing tells whose frame it is; that outer frames are missing is told anyway.
                frames.pop();
            } else if let Some(tail) = self.tail(dump, regions, last) {
                frames.push(Frame::Later);
                frames.extend_from_slice(&tail);
                ending = Ending::Complete;
            }
        }
        self.machine = machine;
        Walked { ending, key, known }
    }

    /// Adds what runs at one machine frame.
    fn machine_frame(
        &mut self,
        dump: &StackDump<'_>,
        regions: &Regions,
        frame: &MachineFrame,
        first: bool,
        frames: &mut Vec<Frame>,
    ) {
        if frame.after_gap {
            frames.push(Frame::Gap);
        }
        let MachineFrame { ip, bp, call, .. } = *frame;
        if first && dump.at_entry {
            frames.push(Frame::Code { address: ip, call });
            return;
        }
        let place = Place { ip, bp, call, innermost: first };
        let unset = self.frame(dump, regions, regions.kind(place.pc()), place, frames);
        if let Some(caller) = unset {
            // The innermost frame is not set up yet: the frame pointer is the caller's, whose
            // return address the chain has missed.
            let place = Place { ip: caller, call: true, innermost: false, ..place };
            self.frame(dump, regions, regions.kind(place.pc()), place, frames);
        }
    }

    /// Reads the pages of all function and bytecode slots of the chain in one call.
    fn prefetch(&mut self, dump: &StackDump<'_>, machine: &[MachineFrame]) {
        let mut wanted = Vec::new();
        for frame in machine {
            for slot in [16, 32] {
                let word = frame.bp.checked_sub(slot).and_then(|at| dump.word(at));
                wanted.extend(word.and_then(pointer).map(|object| object - 1));
            }
        }
        self.heap.pages.prefetch(wanted);
    }

    /// Adds what runs at one place. `Some` when the frame there is not set up yet: the return
    /// address of it.
    fn frame(
        &mut self,
        dump: &StackDump<'_>,
        regions: &Regions,
        kind: Option<Kind>,
        place: Place,
        frames: &mut Vec<Frame>,
    ) -> Option<u64> {
        let native = Frame::Code { address: place.ip, call: place.call };
        match kind {
            Some(Kind::Jit) => {
                let code = self.codes.find(&mut self.heap, &mut self.names, place.pc(), self.drain);
                let Some(code) = code else {
                    // V8 up to 10 copies its builtins into memory near the code they call.
                    self.in_builtins(dump, regions, place, frames);
                    return None;
                };
                match code.kind {
                    CodeKind::Baseline | CodeKind::Maglev | CodeKind::Turbofan => {
                        if code.kind != CodeKind::Baseline {
                            self.stacks.optimised(place.pc());
                        }
                        return self.compiled(dump, regions, place, &code, frames);
                    }
                    CodeKind::Builtin => self.in_builtins(dump, regions, place, frames),
                    CodeKind::Other => frames.push(native),
                }
            }
            Some(Kind::Builtins | Kind::PerhapsBuiltins) => {
                self.in_builtins(dump, regions, place, frames);
            }
            Some(Kind::File) | None => frames.push(native),
        }
        None
    }

    pub(super) fn unknown(&self, place: Place, why: Why) -> Frame {
        Frame::Unknown { address: place.ip, call: place.call, why }
    }
}

/// Whether the copy ends before the slots of the outermost frame, and without them it has no name.
fn ends_in(frames: &[Frame], dump: &StackDump<'_>, regions: &Regions, last: &MachineFrame) -> bool {
    let copied = |slot| last.bp.checked_sub(slot).is_some_and(|slot| dump.word(slot).is_some());
    let kind = regions.kind(last.pc());
    let nameless = match frames {
        [_, .., Frame::Unknown { .. }] => true,
        [_, .., Frame::Code { .. }] => matches!(kind, Some(Kind::Jit | Kind::Builtins)),
        _ => false,
    };
    nameless && ![8, 16, 32, 40].into_iter().all(copied)
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
