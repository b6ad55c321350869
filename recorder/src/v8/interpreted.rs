//! Frames whose pc is in V8's builtins: interpreted functions, and functions that are built in.
//!
//! A name counts only when the function's bytecode is the one on the stack, or when that bytecode
//! was seen with its function before. Frame layout: V8's src/execution/frame-constants.h.

use std::rc::Rc;

use formats::capture::Tier;

use super::frame::{Frame, StackDump, Why};
use super::heap::{Runs, pointer, smi};
use super::memory::Memory;
use super::positions::PositionTable;
use super::regions::{Kind, Regions};
use super::walk::{Bytecode, Place, Walker};

/// Bytecode arrays remembered at most.
const MAX_BYTECODES: usize = 1 << 16;
/// Longest wait, in drains, before the scripts' lists of functions are gone through again.
const MAX_LIST_WAIT: u64 = 32;
/// Functions in the scripts' lists for which one drain is waited.
const FUNCTIONS_PER_DRAIN: u64 = 1000;
/// Largest bytecode array and position table that are read, bytes.
pub(super) const MAX_BYTES: u64 = 1 << 20;

impl<M: Memory> Walker<M> {
    /// The function slot of a JavaScript frame: its context slot is tagged.
    pub(super) fn is_js(&mut self, dump: &StackDump<'_>, bp: u64) -> Option<u64> {
        let context = dump.word(bp.checked_sub(8)?)?;
        let function = dump.word(bp.checked_sub(16)?)?;
        pointer(context)?;
        pointer(function)
    }

    /// A frame whose pc is in a builtin: a frame of the builtin's own, an interpreted function, or,
    /// innermost, a stub without a frame that was called from compiled code.
    pub(super) fn in_builtins(
        &mut self,
        dump: &StackDump<'_>,
        regions: &Regions,
        place: Place,
        frames: &mut Vec<Frame>,
    ) {
        let native = Frame::Code { address: place.ip, call: place.call };
        let strict = regions.kind(place.pc()) == Some(Kind::PerhapsBuiltins);
        let Some(function) = self.is_js(dump, place.bp) else {
            frames.push(native);
            return;
        };
        let slot = |offset: u64| place.bp.checked_sub(offset).and_then(|at| dump.word(at));
        let shared = self.heap.shared_of(function);
        let runs = shared.map(|shared| (shared, self.heap.runs(shared)));
        if let Some((shared, Runs::Builtin)) = runs {
            let named = self.names.function(&mut self.heap, shared, self.drain);
            frames.push(match named {
                Some(function) => Frame::Builtin { function, address: place.ip, call: place.call },
                None => native,
            });
            return;
        }
        let bytecode = slot(32).and_then(pointer).and_then(|array| self.heap.follow(array));
        let bytecode = bytecode.filter(|&array| self.heap.is_bytecode(array));
        let Some(bytecode) = bytecode else {
            // No interpreter frame. Innermost, it may be a stub called from optimised code.
            if place.innermost && self.called_stub(dump, regions, place, frames) {
                return;
            }
            // An interpreter frame has an offset beside its bytecode, whatever became of the latter.
            let offset = slot(40).and_then(smi).unwrap_or(0);
            let has_offset = i64::from(offset) >= self.heap.layout.row.bytecode_data as i64 - 1;
            let array = slot(32).and_then(pointer);
            let readable = array.is_none_or(|it| self.heap.type_of(it).is_some()) || !has_offset;
            frames.push(match runs {
                // Without the builtins' range a C++ frame looks like this, too.
                _ if strict => native,
                Some((_, Runs::Bytecode(_))) => self.unknown(place, Why::Contradiction),
                // No bytecode where an interpreter frame has it: one of V8's own functions, whose
                // object may be gone (those behind `await` live for one call). Its address names it.
                _ if readable => native,
                _ => self.unknown(place, Why::Function),
            });
            return;
        };
        let named = self.by_bytecode(bytecode, shared, runs.map(|(_, runs)| runs));
        let function = match named {
            Ok(function) => function,
            Err(why) => {
                frames.push(self.unknown(place, why));
                return;
            }
        };
        let offset_slot = slot(40);
        let Some(offset) = offset_slot.and_then(smi) else {
            // A feedback vector: baseline code has called a stub.
            if !(place.innermost && self.called_stub(dump, regions, place, frames)) {
                let tier = Tier::BASELINE;
                frames.push(Frame::Js {
                    function,
                    position: None,
                    tier,
                    inlined: false,
                    pc: place.pc(),
                });
            }
            return;
        };
        let base = (self.heap.layout.row.bytecode_data - 1) as i64;
        let mut offset = i64::from(offset) - base;
        let registers = dump.registers;
        if place.innermost && pointer(registers.r12) == Some(bytecode) {
            // In a bytecode handler: the slot is only refreshed at calls.
            let live = (registers.r9 as i64).wrapping_sub(base);
            let length = self.heap.array_length(bytecode).unwrap_or(0);
            if live >= 0 && (live as u64) < length {
                offset = live;
            }
        }
        let position = i32::try_from(offset).ok().and_then(|at| self.bytecode_place(bytecode, at));
        frames.push(Frame::Js {
            function,
            position,
            tier: Tier::INTERPRETER,
            inlined: false,
            pc: place.pc(),
        });
    }

    /// The function of a bytecode array that is on the stack.
    pub(super) fn by_bytecode(
        &mut self,
        bytecode: u64,
        shared: Option<u64>,
        runs: Option<Runs>,
    ) -> Result<u32, Why> {
        let words = self.bytecode_words(bytecode).ok_or(Why::Function)?;
        if let (Some(shared), Some(Runs::Bytecode(own))) = (shared, runs)
            && own == bytecode
        {
            let function =
                self.names.function(&mut self.heap, shared, self.drain).ok_or(Why::Name)?;
            self.remember(bytecode, Bytecode { function, words });
            return Ok(function);
        }
        if let Some(known) = self.bytecodes.get(&bytecode)
            && known.words == words
        {
            return Ok(known.function);
        }
        if let Some(shared) = self.owner(bytecode) {
            let function = self.names.function(&mut self.heap, shared, self.drain);
            let function = function.ok_or(Why::Name)?;
            self.remember(bytecode, Bytecode { function, words });
            return Ok(function);
        }
        Err(if shared.is_some() { Why::Contradiction } else { Why::Function })
    }

    /// The SharedFunctionInfo that runs a bytecode array, from the lists of the known scripts.
    fn owner(&mut self, bytecode: u64) -> Option<u64> {
        if !self.owners.contains_key(&bytecode) && self.drain >= self.list_again {
            // Every drain while the lists are short, else more rarely: a millisecond a thousand.
            let listed = self.list(false);
            self.list_wait = (listed as u64 / FUNCTIONS_PER_DRAIN).clamp(1, MAX_LIST_WAIT);
            self.list_again = self.drain + self.list_wait;
        }
        if !self.owners.contains_key(&bytecode) && self.names.expects(self.drain) {
            self.list(true);
        }
        let shared = *self.owners.get(&bytecode)?;
        let is_shared = self.heap.type_of(shared) == Some(self.heap.layout.types.sfi);
        (is_shared && self.heap.runs(shared) == Runs::Bytecode(bytecode)).then_some(shared)
    }

    /// Goes through the lists of scripts that were met, or of those that were not yet.
    fn list(&mut self, ahead: bool) -> usize {
        let owners = &mut self.owners;
        if owners.len() >= MAX_BYTECODES {
            owners.clear();
        }
        let mut listed = 0;
        self.names.list_functions(&mut self.heap, ahead, |heap, shared| {
            listed += 1;
            if let Runs::Bytecode(bytecode) = heap.runs(shared) {
                owners.insert(bytecode, shared);
            }
        });
        listed
    }

    fn remember(&mut self, bytecode: u64, known: Bytecode) {
        if self.bytecodes.len() >= MAX_BYTECODES {
            self.bytecodes.clear();
        }
        self.bytecodes.insert(bytecode, known);
    }

    /// Two words that tell bytecode arrays at one address apart.
    fn bytecode_words(&mut self, bytecode: u64) -> Option<[u64; 2]> {
        let table = self.heap.layout.row.bytecode_positions;
        Some([self.heap.field(bytecode, 8)?, self.heap.field(bytecode, table)?])
    }

    /// Character offset of a bytecode offset.
    pub(super) fn bytecode_place(&mut self, bytecode: u64, offset: i32) -> Option<u32> {
        let words = self.bytecode_words(bytecode)?;
        let table = match self.tables.get(&bytecode) {
            Some((known, table)) if *known == words => Rc::clone(table),
            _ => {
                let bytes = self.heap.byte_array(pointer(words[1])?, MAX_BYTES)?;
                let bits = self.heap.layout.row.position_bits;
                let table = Rc::new(PositionTable::decode(&bytes, bits));
                if self.tables.len() >= MAX_BYTECODES {
                    self.tables.clear();
                }
                self.tables.insert(bytecode, (words, Rc::clone(&table)));
                table
            }
        };
        table.lookup(offset)?.offset()
    }
}
