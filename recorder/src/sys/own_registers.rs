//! This thread's own registers, for tests that unwind their own stack (x86-64).

/// Instruction, stack and frame pointer, and the registers that belong to the caller: rbx, r12, r13,
/// r14, r15.
#[derive(Debug, Clone, Copy)]
pub struct OwnRegisters {
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer.
    pub bp: u64,
    /// RBX.
    pub bx: u64,
    /// R12 to R15.
    pub r12_to_r15: [u64; 4],
}

/// Reads them. Becomes part of the caller, whose registers they therefore are.
#[inline(always)]
#[must_use]
pub fn own_registers() -> OwnRegisters {
    let (ip, sp, bp, bx): (u64, u64, u64, u64);
    let (r12, r13, r14, r15): (u64, u64, u64, u64);
    // SAFETY: copies registers into registers, and touches neither memory, stack nor flags.
    unsafe {
        std::arch::asm!(
            "lea {ip}, [rip]", "mov {sp}, rsp", "mov {bp}, rbp", "mov {bx}, rbx",
            "mov {r12}, r12", "mov {r13}, r13", "mov {r14}, r14", "mov {r15}, r15",
            ip = out(reg) ip, sp = out(reg) sp, bp = out(reg) bp, bx = out(reg) bx,
            r12 = out(reg) r12, r13 = out(reg) r13, r14 = out(reg) r14, r15 = out(reg) r15,
            options(nomem, nostack, preserves_flags),
        );
    }
    OwnRegisters { ip, sp, bp, bx, r12_to_r15: [r12, r13, r14, r15] }
}
