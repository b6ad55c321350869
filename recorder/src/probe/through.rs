//! Functions that a stripped file does not name, found through an exported one that hands out their
//! address: in libuv each asynchronous file function ends in
//! `uv__work_submit(loop, work, kind, uv__fs_work, uv__fs_done)`, and this code stays when the symbols go.
//!
//! Pure: must not know files. Only x86-64 (System V calling convention).

use formats::catalogue::CodeArgument;
use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register,
};

/// Longest function that is read for what it hands out, bytes.
pub const MOST_CODE: u64 = 4096;
/// Longest beginning of a function that is looked at for being a trampoline, bytes.
pub const TRAMPOLINE_BYTES: u64 = 32;
/// Where a trampoline finds what it goes on to, from its argument: `uv_work_t` has `work_cb` at 72 and
/// `work_req`, which the argument points to, at 88 (include/uv.h).
const TRAMPOLINE_SLOT: u64 = 72_u64.wrapping_sub(88);

/// The address that the code at `svma` hands out as `argument`; `None` where it does not, or hands out
/// different ones. `function_at` gives the code at an address, `None` where there is none.
pub fn handed_out(
    code: &[u8],
    svma: u64,
    argument: CodeArgument,
    function_at: impl Fn(u64) -> Option<Vec<u8>>,
) -> Option<u64> {
    let mut found = match argument {
        CodeArgument::Fourth => calls(code, svma, &function_at).map(|pair| pair.0).collect(),
        CodeArgument::Fifth => calls(code, svma, &function_at).map(|pair| pair.1).collect(),
        CodeArgument::Trampoline => {
            let mut all: Vec<u64> = decode(code, svma).filter_map(|i| constant(&i)).collect();
            all.retain(|&at| function_at(at).is_some_and(|code| is_trampoline(&code, at)));
            all
        }
    };
    found.dedup();
    match found.as_slice() {
        &[one] => Some(one),
        _ => None,
    }
}

fn decode(code: &[u8], svma: u64) -> impl Iterator<Item = Instruction> {
    let mut decoder = Decoder::with_ip(64, code, svma, DecoderOptions::NONE);
    std::iter::from_fn(move || decoder.can_decode().then(|| decoder.decode()))
        .take_while(|instruction| !instruction.is_invalid())
}

/// The address or number that an instruction brings into a register or to memory.
fn constant(instruction: &Instruction) -> Option<u64> {
    match (instruction.mnemonic(), instruction.op1_kind()) {
        (Mnemonic::Lea, _) if instruction.is_ip_rel_memory_operand() => {
            Some(instruction.ip_rel_memory_address())
        }
        (Mnemonic::Mov, OpKind::Immediate32 | OpKind::Immediate64 | OpKind::Immediate32to64) => {
            Some(instruction.immediate(1))
        }
        _ => None,
    }
}

/// The fourth and fifth arguments of calls where both are addresses of code.
fn calls(
    code: &[u8],
    svma: u64,
    function_at: &impl Fn(u64) -> Option<Vec<u8>>,
) -> impl Iterator<Item = (u64, u64)> {
    let mut facts = InstructionInfoFactory::new();
    let mut held = [(Register::RCX, None), (Register::R8, None)];
    decode(code, svma).filter_map(move |instruction| {
        match instruction.flow_control() {
            FlowControl::Next | FlowControl::ConditionalBranch => {}
            // A call, or a jump that takes its place, and then other values.
            _ => {
                let pair = (held[0].1.take()?, held[1].1.take()?);
                let is_code = |at| function_at(at).is_some();
                return (is_code(pair.0) && is_code(pair.1)).then_some(pair);
            }
        }
        for used in facts.info(&instruction).used_registers() {
            let register = used.register().full_register();
            let reads_only = matches!(used.access(), OpAccess::Read | OpAccess::CondRead);
            if let Some((_, value)) = held.iter_mut().find(|(of, _)| *of == register && !reads_only)
            {
                *value = constant(&instruction).filter(|_| {
                    instruction.op0_kind() == OpKind::Register
                        && instruction.op0_register().full_register() == register
                });
            }
        }
        None
    })
}

/// Whether a function does nothing but go on to what [`TRAMPOLINE_SLOT`] points to.
fn is_trampoline(code: &[u8], svma: u64) -> bool {
    let mut loaded = Register::None;
    for instruction in decode(code, svma) {
        let is_slot = instruction.memory_displacement64() == TRAMPOLINE_SLOT
            && instruction.memory_index() == Register::None;
        match instruction.flow_control() {
            FlowControl::Next => {}
            FlowControl::IndirectBranch if instruction.op0_kind() == OpKind::Memory => {
                return is_slot;
            }
            FlowControl::IndirectBranch => return instruction.op0_register() == loaded,
            _ => return false,
        }
        if instruction.mnemonic() == Mnemonic::Mov
            && instruction.op1_kind() == OpKind::Memory
            && is_slot
        {
            loaded = instruction.op0_register();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything between these addresses is code.
    fn within(from: u64, to: u64) -> impl Fn(u64) -> Option<Vec<u8>> {
        move |at| (from..to).contains(&at).then(Vec::new)
    }

    #[test]
    fn addresses_of_a_call_are_found() {
        // uv_fs_fsync of Debian's libuv 1.44.2, from 0x14174 on: relative addresses.
        let code = [
            0x83, 0x47, 0x20, 0x01, 0x4c, 0x8d, 0x05, 0xb1, 0xd9, 0xff, 0xff, 0xba, 1, 0, 0, 0,
            0x48, 0x8d, 0x0d, 0xd5, 0xe4, 0xff, 0xff, 0xe8, 0x80, 0x71, 0xff, 0xff, 0x31, 0xc0,
            0x5b, 0xc3,
        ];
        let text = || within(0xb000, 0x20000);
        let find = |argument| handed_out(&code, 0x14174, argument, text());
        assert_eq!(find(CodeArgument::Fourth), Some(0x12660));
        assert_eq!(find(CodeArgument::Fifth), Some(0x11b30));
        assert_eq!(find(CodeArgument::Trampoline), None);
        assert_eq!(handed_out(&code, 0x14174, CodeArgument::Fifth, within(0x12000, 0x20000)), None);
        // uv_fs_fsync of Node 26: absolute addresses.
        let code = [
            0xb9, 0xf0, 0x28, 0xa1, 0x01, 0x41, 0xb8, 0x10, 0x42, 0xa1, 0x01, 0xba, 1, 0, 0, 0,
            0xe8, 0x0e, 0x78, 0xff, 0xff,
        ];
        let find =
            |argument| handed_out(&code, 0x01a1_4a9d, argument, within(0x1a0_0000, 0x1b0_0000));
        assert_eq!(find(CodeArgument::Fourth), Some(0x1a1_28f0));
        assert_eq!(find(CodeArgument::Fifth), Some(0x1a1_4210));
        // Overwritten before the call: xor ecx, ecx.
        let code = [&code[..16], &[0x31, 0xc9], &code[16..]].concat();
        assert_eq!(handed_out(&code, 0, CodeArgument::Fifth, |_| Some(Vec::new())), None);
    }

    #[test]
    fn trampolines_are_known_by_what_they_do() {
        let first = [0x48, 0x89, 0xf8, 0x48, 0x8d, 0x7f, 0xa8, 0xff, 0x60, 0xf0]; // Node 16
        let second = [0x48, 0x8d, 0x57, 0xa8, 0x48, 0x8b, 0x47, 0xf0, 0x48, 0x89, 0xd7, 0xff, 0xe0];
        let third = [0x55, 0x48, 0x89, 0xe5, 0x48, 0x89, 0xf8, 0x5d, 0xff, 0x60, 0xf0];
        let other = [0x48, 0x89, 0xf8, 0xff, 0x60, 0xf8];
        assert!(is_trampoline(&first, 0) && is_trampoline(&second, 0) && is_trampoline(&third, 0));
        assert!(!is_trampoline(&other, 0) && !is_trampoline(&first[..7], 0));
        // movq $0x1000, 0x58(%r14); movq $0x2000, 0x60(%r14)
        let code = [0x49, 0xc7, 0x46, 0x58, 0, 0x10, 0, 0, 0x49, 0xc7, 0x46, 0x60, 0, 0x20, 0, 0];
        let at = |address| match address {
            0x1000 => Some(second.to_vec()),
            0x2000 => Some(other.to_vec()),
            _ => None,
        };
        assert_eq!(handed_out(&code, 0x9000, CodeArgument::Trampoline, at), Some(0x1000));
    }
}
