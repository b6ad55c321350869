//! Frames whose pc is in code that was compiled from JavaScript: Sparkplug, Maglev, Turbofan.
//!
//! What runs is what the code object at the pc says, not the function's current code: that differs
//! in up to a fifth of the frames (tier-up, on-stack replacement).

use formats::capture::Tier;

use super::code::Code;
use super::exits::EXIT_BYTES;
use super::frame::{Frame, StackDump, Why};
use super::heap::{Runs, pointer};
use super::interpreted::MAX_BYTES;
use super::layout::CodeKind;
use super::memory::Memory;
use super::positions::{SourcePosition, baseline_offset};
use super::regions::{Kind, Regions};
use super::walk::{Place, Walker};

/// Inlining ids have 16 bits (V8's src/codegen/source-position.h).
const MAX_INLINED: usize = 1 << 16;
/// Words looked through for a return address below an innermost frame.
pub(super) const MAX_SEARCH: usize = 64;

impl<M: Memory> Walker<M> {
    /// Innermost in a stub without a frame: the return address into compiled code is near the top
    /// of the stack. False when there is none that fits.
    pub(super) fn called_stub(
        &mut self,
        dump: &StackDump<'_>,
        regions: &Regions,
        place: Place,
        frames: &mut Vec<Frame>,
    ) -> bool {
        let sp = dump.registers.sp;
        for index in 0..MAX_SEARCH as u64 {
            let at = sp.saturating_add(index * 8);
            if at >= place.bp {
                break;
            }
            let Some(word) = dump.word(at) else { break };
            if regions.kind(word.wrapping_sub(1)) != Some(Kind::Jit) {
                continue;
            }
            let caller = Place { ip: word, call: true, innermost: false, ..place };
            let code = self.codes.find(&mut self.heap, &mut self.names, caller.pc(), self.drain);
            let Some(code) = code else { continue };
            if !matches!(code.kind, CodeKind::Baseline | CodeKind::Maglev | CodeKind::Turbofan) {
                continue;
            }
            let before = frames.len();
            frames.push(Frame::Code { address: place.ip, call: place.call });
            let unset = self.compiled(dump, regions, caller, &code, frames);
            let named = frames.get(before + 1..).is_some_and(|new| {
                !new.is_empty() && new.iter().all(|frame| matches!(frame, Frame::Js { .. }))
            });
            if named && unset.is_none() {
                return true;
            }
            frames.truncate(before);
        }
        false
    }

    /// A frame whose pc is in code that was compiled from JavaScript.
    pub(super) fn compiled(
        &mut self,
        dump: &StackDump<'_>,
        regions: &Regions,
        place: Place,
        code: &Code,
        frames: &mut Vec<Frame>,
    ) -> Option<u64> {
        let slot = |offset: u64| place.bp.checked_sub(offset).and_then(|at| dump.word(at));
        let function = self.is_js(dump, place.bp);
        let shared = function.and_then(|function| self.heap.shared_of(function));
        if code.kind == CodeKind::Baseline {
            let in_slot = slot(32).and_then(pointer);
            let own = if let Some(kind) = self.heap.layout.types.baseline {
                // V8 9: the code does not know its bytecode. The function knows its baseline code
                // (BaselineData), the stack its bytecode.
                let data = self.heap.layout.row.sfi_data;
                let data = shared.and_then(|shared| self.heap.pointer_field(shared, data));
                let proven = data.is_some_and(|data| {
                    self.heap.type_of(data) == Some(kind)
                        && self.heap.pointer_field(data, 8) == Some(code.object)
                });
                let function = shared
                    .filter(|_| proven)
                    .and_then(|it| self.names.function(&mut self.heap, it, self.drain));
                if let Some(function) = function {
                    self.codes.learn(code.start, function);
                } else if let Some(function) = code.function {
                    let (tier, pc) = (Tier::BASELINE, place.pc());
                    frames.push(Frame::Js { function, position: None, tier, inlined: false, pc });
                    return None;
                } else {
                    frames.push(self.unknown(place, Why::Function));
                    return None;
                }
                in_slot.and_then(|array| self.heap.follow(array))
            } else {
                pointer(code.deopt)
            };
            let Some(bytecode) = own.and_then(|own| self.heap.bytecode_behind(own, 0)) else {
                frames.push(self.unknown(place, Why::Code));
                return None;
            };
            let runs = shared.map(|shared| self.heap.runs(shared));
            let here = in_slot == Some(bytecode);
            let named = self.by_bytecode(bytecode, shared, runs);
            let unset =
                (!here && place.innermost).then(|| caller_of_unset(dump, regions, place)).flatten();
            if !here && unset.is_none() && !place.innermost {
                frames.push(self.unknown(place, Why::Contradiction));
                return None;
            }
            match named {
                Err(why) => frames.push(self.unknown(place, why)),
                Ok(function) => {
                    let position = self.baseline_place(code, bytecode, place);
                    let tier = Tier::BASELINE;
                    frames.push(Frame::Js {
                        function,
                        position,
                        tier,
                        inlined: false,
                        pc: place.pc(),
                    });
                }
            }
            return unset;
        }
        let details = self.codes.details(&mut self.heap, &mut self.names, code, self.drain);
        let offset = place.ip.wrapping_sub(code.start);
        let exit = place.call && details.exits.contain(offset);
        let replaced = exit.then(|| self.bytes(place.ip)).flatten();
        let replaced = replaced.and_then(|bytes| details.exits.replaced(offset, &bytes));
        let place = match replaced {
            Some(offset) => Place { ip: code.start.wrapping_add(offset), ..place },
            None => place,
        };
        let nowhere = exit && replaced.is_none();
        let is_return = nowhere || details.exits.replace(place.ip.wrapping_sub(code.start));
        let from_slot =
            shared.and_then(|shared| self.names.function(&mut self.heap, shared, self.drain));
        let agrees = code.function.is_some() && from_slot == code.function;
        if place.call
            && !is_return
            && code.since == self.drain
            && !self.follows_call(place.ip, agrees)
        {
            // Found only now, and no call ends here: other code has taken the place since.
            self.codes.forget(code.start);
            frames.push(self.unknown(place, Why::Code));
            return None;
        }
        let unset =
            (!agrees && place.innermost).then(|| caller_of_unset(dump, regions, place)).flatten();
        if !agrees && unset.is_none() && code.since == self.drain && from_slot.is_some() {
            // Two witnesses disagree and neither was known before the sample.
            self.codes.forget(code.start);
            frames.push(self.unknown(place, Why::Contradiction));
            return None;
        }
        let Some(function) = code.function else {
            frames.push(self.unknown(place, Why::Code));
            return unset;
        };
        let tier = if code.kind == CodeKind::Maglev { Tier::MAGLEV } else { Tier::TURBOFAN };
        if nowhere {
            let bytecode = details.exits.bytecode(offset);
            let own = shared.filter(|_| agrees).map(|shared| self.heap.runs(shared));
            let position = match (own, bytecode) {
                (Some(Runs::Bytecode(own)), Some(at)) => self.place_within(own, at),
                _ => None,
            };
            // Which of the functions inlined here it was in cannot be told.
            let is_known = details.inlined.is_empty();
            let (inlined, pc) = (false, place.pc());
            let frame = Frame::Js { function, position, tier, inlined, pc };
            frames.push(if is_known { frame } else { self.unknown(place, Why::Code) });
            return unset;
        }
        let offset = i32::try_from(place.pc().wrapping_sub(code.start)).unwrap_or(-1);
        let mut position = details.table.lookup(offset);
        // A function is numbered before those that are inlined into it.
        let mut below = MAX_INLINED;
        while let Some(inlined) = position.and_then(SourcePosition::inlining) {
            let entry = details.inlined.get(inlined).filter(|_| inlined < below);
            let Some(&(outer, function)) = entry else {
                // The table does not hang together: say so rather than name a wrong function.
                frames.push(self.unknown(place, Why::Code));
                position = None;
                break;
            };
            frames.push(match function {
                Some(function) => Frame::Js {
                    function,
                    position: position.and_then(SourcePosition::offset),
                    tier,
                    inlined: true,
                    pc: place.pc(),
                },
                None => self.unknown(place, Why::Name),
            });
            position = Some(outer);
            below = inlined;
        }
        let position = position.and_then(SourcePosition::offset);
        frames.push(Frame::Js { function, position, tier, inlined: false, pc: place.pc() });
        unset
    }

    /// Character offset of a bytecode offset that may lie outside.
    fn place_within(&mut self, bytecode: u64, offset: i32) -> Option<u32> {
        let length = self.heap.array_length(bytecode)?;
        u64::try_from(offset).is_ok_and(|at| at < length).then_some(())?;
        self.bytecode_place(bytecode, offset)
    }

    /// What lies at `address`; `None` when it cannot be read.
    fn bytes(&mut self, address: u64) -> Option<[u8; EXIT_BYTES]> {
        let mut bytes = [0; EXIT_BYTES];
        self.heap.pages.copy(address, &mut bytes).then_some(bytes)
    }

    /// Whether the instruction before a return address is a call; or was, when the function on the
    /// stack `agrees` with the code's and V8 has overwritten that with INT3 (from V8 14.6 on).
    fn follows_call(&mut self, address: u64, agrees: bool) -> bool {
        let mut before = [0u8; 7];
        let start = address.wrapping_sub(before.len() as u64);
        // Not readable is no contradiction.
        !self.heap.pages.copy(start, &mut before)
            || ends_with_call(&before)
            || agrees && before == [0xcc; 7]
    }

    fn baseline_place(&mut self, code: &Code, bytecode: u64, place: Place) -> Option<u32> {
        let details = self.codes.details(&mut self.heap, &mut self.names, code, self.drain);
        let length = self.heap.array_length(bytecode)?.min(MAX_BYTES);
        let start = (bytecode - 1).checked_add(self.heap.layout.row.bytecode_data)?;
        let bytes = self.heap.pages.bytes(start, usize::try_from(length).ok()?)?;
        // The table counts up to return addresses; any other pc is inside the instruction.
        let offset = place.pc().wrapping_sub(code.start).wrapping_add(1);
        let sizes = &self.heap.layout.bytecode_sizes;
        let at = baseline_offset(&details.offsets, &bytes, sizes, offset)?;
        self.bytecode_place(bytecode, at)
    }
}

/// The return address when the code at `place` has not set up its frame yet, or has left it.
fn caller_of_unset(dump: &StackDump<'_>, regions: &Regions, place: Place) -> Option<u64> {
    let sp = dump.registers.sp;
    let is_code = |word: &u64| {
        matches!(
            regions.kind(word.wrapping_sub(1)),
            Some(Kind::Jit | Kind::Builtins | Kind::PerhapsBuiltins)
        )
    };
    if place.bp <= sp {
        return None;
    }
    // Before `push rbp` and after `pop rbp` the return address is on top; behind `push rbp` it is
    // below the caller's frame pointer.
    let top = dump.word(sp)?;
    if top == place.bp {
        return dump.word(sp.checked_add(8)?).filter(is_code);
    }
    Some(top).filter(is_code)
}

/// Whether machine code ends with a call: E8 rel32, or FF /2 in any form of its operand (Intel SDM,
/// volume 2, CALL). Some other instructions end so, too.
fn ends_with_call(code: &[u8; 7]) -> bool {
    let [b7, b6, b5, b4, b3, b2, b1] = *code;
    let plain = |modrm: u8, mode: u8| modrm >> 6 == mode && (mode == 3 || modrm & 7 != 4);
    b5 == 0xe8
        || b2 == 0xff && (b1 >> 3) & 7 == 2 && (plain(b1, 3) || plain(b1, 0) && b1 & 7 != 5)
        || b3 == 0xff && (b2 >> 3) & 7 == 2 && (plain(b2, 1) || b2 & 0xc7 == 4)
        || b4 == 0xff && b3 == 0x54
        || b6 == 0xff && (b5 >> 3) & 7 == 2 && (plain(b5, 2) || b5 & 0xc7 == 5)
        || b7 == 0xff && b6 == 0x94
}

#[cfg(test)]
mod tests {
    use super::ends_with_call;

    #[test]
    fn calls_are_told_from_other_instructions() {
        let calls: [&[u8]; 9] = [
            &[0xe8, 1, 2, 3, 4],
            &[0xff, 0xd0],
            &[0x41, 0xff, 0xd2],
            &[0xff, 0x13],
            &[0xff, 0x14, 0xc3],
            &[0x41, 0xff, 0x55, 0x10],
            &[0xff, 0x54, 0x24, 0x08],
            &[0xff, 0x15, 1, 2, 3, 4],
            &[0xff, 0x94, 0x24, 1, 2, 3, 4],
        ];
        for call in calls {
            let mut code = [0x90; 7];
            code[7 - call.len()..].copy_from_slice(call);
            assert!(ends_with_call(&code), "{call:x?}");
        }
        for other in [[0x90; 7], [0, 0, 0, 0, 0, 0x8b, 0xc3], [0, 0, 0xe9, 1, 2, 3, 4]] {
            assert!(!ends_with_call(&other), "{other:x?}");
        }
    }
}
