//! From a dumped user stack to frames: the frame-pointer chain, and at each JavaScript frame the
//! function, its tier and the place in its source.
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
use super::frame::{Ending, Frame, Registers, StackDump, Why};
use super::heap::{Heap, pointer};
use super::layout::CodeKind;
use super::memory::Memory;
use super::names::Names;
use super::positions::PositionTable;
use super::regions::{Kind, Regions};

/// Machine frames of one stack at most: a 64 KiB dump has room for 4096 of 16 bytes.
const MAX_FRAMES: usize = 4096;
/// Nothing is mapped below (vm.mmap_min_addr is at least a page).
const NO_ADDRESS: u64 = 4096;

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
    /// A return address of the last stack was in no known mapping: there may be new ones.
    pub strayed: bool,
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
            strayed: false,
        }
    }

    /// A new drain begins: memory is read afresh.
    pub fn begin(&mut self) {
        self.drain += 1;
        self.heap.begin();
    }

    /// Resolves one stack into `frames`, leaf first.
    pub fn walk(
        &mut self,
        dump: &StackDump<'_>,
        regions: &Regions,
        frames: &mut Vec<Frame>,
    ) -> Ending {
        frames.clear();
        let Registers { ip, sp, bp, .. } = dump.registers;
        self.strayed = regions.kind(ip).is_none();
        self.prefetch(dump);
        let mut place = Place { ip, bp, call: false, innermost: true };
        if dump.at_entry
            && let Some(caller) = dump.word(sp)
        {
            frames.push(Frame::Code { address: ip, call: false });
            place = Place { ip: caller, bp, call: true, innermost: false };
        }
        let mut below = sp;
        for _ in 0..MAX_FRAMES {
            let kind = regions.kind(place.pc());
            let unset = self.frame(dump, regions, kind, place, frames);
            if let Some(caller) = unset {
                // The innermost frame is not set up yet: the frame pointer is the caller's.
                place = Place { ip: caller, call: true, innermost: false, ..place };
                continue;
            }
            if place.bp == 0 {
                return Ending::Complete;
            }
            let next = chain_step(dump, place.bp, below).filter(|&(_, caller)| {
                // Outside of all code there is no frame; at the thread's start there is none either.
                let known = regions.kind(caller.wrapping_sub(1)).is_some();
                self.strayed |= !known;
                known
            });
            let Some((saved, caller)) = next else {
                if place.bp > below && place.bp.is_multiple_of(8) {
                    let end = sp.saturating_add(dump.stack.len() as u64);
                    if place.bp.saturating_add(16) > end {
                        // Stacks are below 64 MiB (ulimit, worker sizes).
                        let near = place.bp - end.min(place.bp) < 64 << 20;
                        return if near {
                            Ending::Truncated
                        } else {
                            self.recover_or(dump, regions, below, frames)
                        };
                    }
                    // The thread's start code leaves no frame pointer there, but 0 or 1.
                    if dump.word(place.bp).is_some_and(|saved| saved < NO_ADDRESS) {
                        let caller = dump
                            .word(place.bp.saturating_add(8))
                            .filter(|&caller| regions.kind(caller.wrapping_sub(1)).is_some());
                        frames.extend(caller.map(|address| Frame::Code { address, call: true }));
                        return Ending::Complete;
                    }
                }
                return self.recover_or(dump, regions, below, frames);
            };
            below = place.bp;
            place = Place { ip: caller, bp: saved, call: true, innermost: false };
        }
        Ending::Broken
    }

    /// The frame pointer held something else: looks for the next place where two saved frame
    /// pointers and return addresses hang together, once.
    fn recover_or(
        &mut self,
        dump: &StackDump<'_>,
        regions: &Regions,
        below: u64,
        frames: &mut Vec<Frame>,
    ) -> Ending {
        if frames.contains(&Frame::Gap) {
            return Ending::Broken;
        }
        let is_code = |word: u64| regions.kind(word.wrapping_sub(1)).is_some();
        let mut at = below;
        while dump.holds(at.saturating_add(8)) {
            let step = chain_step(dump, at, below.saturating_sub(1));
            if let Some((saved, caller)) = step.filter(|&(_, caller)| is_code(caller))
                && let Some((_, outer)) = chain_step(dump, saved, at)
                && is_code(outer)
            {
                frames.push(Frame::Gap);
                let mut place = Place { ip: caller, bp: saved, call: true, innermost: false };
                let mut below = at;
                for _ in 0..MAX_FRAMES {
                    let kind = regions.kind(place.pc());
                    self.frame(dump, regions, kind, place, frames);
                    let Some((saved, caller)) =
                        chain_step(dump, place.bp, below).filter(|&(_, caller)| is_code(caller))
                    else {
                        return Ending::Broken;
                    };
                    below = place.bp;
                    place = Place { ip: caller, bp: saved, call: true, innermost: false };
                }
                return Ending::Broken;
            }
            at += 8;
        }
        Ending::Broken
    }

    /// Reads the pages of all function and bytecode slots of the chain in one call.
    fn prefetch(&mut self, dump: &StackDump<'_>) {
        let mut wanted = Vec::new();
        let (mut bp, mut below) = (dump.registers.bp, dump.registers.sp);
        for _ in 0..MAX_FRAMES {
            for slot in [16, 32] {
                let word = bp.checked_sub(slot).and_then(|at| dump.word(at));
                wanted.extend(word.and_then(pointer).map(|object| object - 1));
            }
            let Some((saved, _)) = chain_step(dump, bp, below) else { break };
            (below, bp) = (bp, saved);
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

/// One step of the frame-pointer chain: saved frame pointer and return address at `bp`.
fn chain_step(dump: &StackDump<'_>, bp: u64, below: u64) -> Option<(u64, u64)> {
    if bp <= below && bp != dump.registers.sp || !dump.holds(bp) {
        return None;
    }
    let saved = dump.word(bp)?;
    let caller = dump.word(bp.checked_add(8)?)?;
    // Frames only go upwards: no chain is endless.
    (saved > bp).then_some((saved, caller))
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
