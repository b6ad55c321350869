//! What goes into unwinding, and what comes out: registers, a piece of a stack, machine frames.
//!
//! Only types: no tables and no mappings here.

/// Numbers of the registers that are read, in perf_event_attr.sample_regs_user
/// (arch/x86/include/uapi/asm/perf_regs.h): AX 0, BX 1, SI 4, DI 5, BP 6, SP 7, IP 8, R9 17, R10 18,
/// R11 19, R12 20, R13 21, R14 22, R15 23.
///
/// Compiled code says where its frame is by SP or BP, which alone serve for nearly all of it. BX and
/// R12 to R15 belong to the caller and must be followed for the few functions that go by them. AX,
/// SI, DI and R9 to R11 are what OpenSSL's assembly and realigned stacks go by in a leaf.
pub const REGISTERS: u64 = {
    let numbers = [0, 1, 4, 5, 6, 7, 8, 17, 18, 19, 20, 21, 22, 23];
    let (mut mask, mut index) = (0, 0);
    while index < numbers.len() {
        mask |= 1 << numbers[index];
        index += 1;
    }
    mask
};

/// User registers of a sample. One that was not sampled is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Registers {
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer.
    pub bp: u64,
    /// RAX.
    pub ax: u64,
    /// RBX.
    pub bx: u64,
    /// RSI.
    pub si: u64,
    /// RDI.
    pub di: u64,
    /// In V8's interpreter the bytecode offset while a bytecode handler runs.
    pub r9: u64,
    /// R10.
    pub r10: u64,
    /// R11.
    pub r11: u64,
    /// In V8's interpreter the bytecode array while a bytecode handler runs.
    pub r12: u64,
    /// R13.
    pub r13: u64,
    /// R14.
    pub r14: u64,
    /// R15.
    pub r15: u64,
}

impl Registers {
    /// From the registers of a sample, by their perf number ([`REGISTERS`]).
    pub fn of_sample(mut register: impl FnMut(u64) -> Option<u64>) -> Self {
        let mut get = |number| register(number).unwrap_or(0);
        Self {
            ip: get(8),
            sp: get(7),
            bp: get(6),
            ax: get(0),
            bx: get(1),
            si: get(4),
            di: get(5),
            r9: get(17),
            r10: get(18),
            r11: get(19),
            r12: get(20),
            r13: get(21),
            r14: get(22),
            r15: get(23),
        }
    }
}

/// A sample's registers and the part of its stack that the kernel copied.
#[derive(Debug, Clone, Copy)]
pub struct StackDump<'a> {
    /// Registers.
    pub registers: Registers,
    /// Bytes from the stack pointer upwards.
    pub stack: &'a [u8],
    /// The sample was taken on a function's first instruction: the word on top of the stack is the
    /// return address, and the frame pointer is still the caller's.
    pub at_entry: bool,
}

impl StackDump<'_> {
    /// The word at an address, if it was copied.
    pub(crate) fn word(&self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.registers.sp)?).ok()?;
        let bytes = self.stack.get(at..at.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    /// The address behind the last byte that was copied.
    pub(super) fn end(&self) -> u64 {
        self.registers.sp.saturating_add(self.stack.len() as u64)
    }
}

/// One machine frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineFrame {
    /// Instruction, or return address.
    pub ip: u64,
    /// Stack pointer when this frame runs on.
    pub sp: u64,
    /// Frame pointer register when this frame runs on; 0 when it could not be restored.
    pub bp: u64,
    /// Whether `ip` is a return address.
    pub call: bool,
    /// Frames are missing below this one: the chain was lost and found again.
    pub after_gap: bool,
}

impl MachineFrame {
    /// The byte that was executed last.
    pub fn pc(&self) -> u64 {
        self.ip.wrapping_sub(u64::from(self.call))
    }
}

/// How a chain of frames ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Ending {
    /// At the thread's start.
    #[default]
    Complete,
    /// At the end of what the kernel copied.
    Truncated,
    /// Lost: what should lead to the caller does not.
    Broken,
}
