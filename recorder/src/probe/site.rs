//! Where exactly in a function a probe may sit, decided from its machine code (x86-64).
//!
//! The kernel accepts any offset; one inside an instruction crashes the target or silently
//! changes what it computes. So a site is always an instruction found by decoding from the
//! symbol's start. The same decoding tells what the kernel will do with the instruction
//! (arch/x86/kernel/uprobes.c: pushes, jumps, calls and nops are emulated, all else is executed
//! out of line under single-step, five times dearer) and whether callchains will hold the caller.
//! Pure: must not know files, processes or tracefs.

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, OpKind, Register,
};

/// How far from the symbol's start a probe may slide, in bytes.
const SLIDE_LIMIT: usize = 32;

/// Longest function decoded for an exact offset, in bytes: bounds the work, far above any real
/// function before the offset of interest.
const DECODE_LIMIT: usize = 1 << 20;

/// The one-byte `push %rbp`, the only push the kernel takes for a function's entry
/// (arch/x86/events/core.c, is_uprobe_at_func_entry).
const PUSH_RBP: u8 = 0x55;

/// Where the user wants the probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SitePolicy {
    /// Exactly this many bytes after the symbol.
    Exact(u64),
    /// At the entry, moved on to the first `push %rbp` where that changes no argument.
    Slide,
}

/// How the kernel executes the probed instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteClass {
    /// `push %rbp` (0x55): emulated.
    Push55,
    /// Any other push of a register: emulated.
    OtherPush,
    /// `endbr64`.
    Endbr64,
    /// A nop of any length: emulated, or rewritten to a call where it has five bytes.
    Nop,
    /// A relative jump or call: emulated.
    EmulatedJump,
    /// Anything else: executed out of line under single-step.
    SingleStepped,
}

/// A verified site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SiteChoice {
    /// Bytes after the symbol.
    pub offset_from_symbol: u64,
    /// What the probed instruction is to the kernel.
    pub first_byte_class: ByteClass,
    /// The callchain names the direct caller. If not, fetch `$stack0` and insert it, provided
    /// `return_address_on_stack`.
    pub caller_in_callchain: bool,
    /// `$stack0` is the return address at this site: nothing was pushed yet.
    pub return_address_on_stack: bool,
    /// The kernel will take the top of the stack for a return address though it is none: the
    /// first caller in the callchain is to be ignored.
    pub false_caller: bool,
    /// A conditional jump lies between the symbol and the site: calls that take it are not seen.
    pub slid_over_branch: bool,
}

/// Why there is no site.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SiteError {
    /// Nothing to decode.
    #[error("cannot probe an empty function")]
    Empty,
    /// The offset lies behind the function's end.
    #[error("cannot probe offset {offset:#x}: the function has {length:#x} bytes")]
    OutOfRange {
        /// Offset asked for.
        offset: u64,
        /// Bytes of the function.
        length: u64,
    },
    /// The offset lies inside an instruction.
    #[error(
        "cannot probe offset {offset:#x}: it is inside an instruction; the nearest begin at \
         {previous:#x} and {next:#x}"
    )]
    InsideInstruction {
        /// Offset asked for.
        offset: u64,
        /// Start of the instruction it is inside of.
        previous: u64,
        /// Start of the one after.
        next: u64,
    },
    /// The bytes are no code, so nothing behind them is certain.
    #[error("cannot probe offset {offset:#x}: the bytes at {at:#x} are no instruction")]
    NotCode {
        /// Offset asked for.
        offset: u64,
        /// First byte that could not be decoded.
        at: u64,
    },
    /// A breakpoint instruction, or one the kernel refuses to probe.
    #[error("cannot probe offset {offset:#x}: the kernel refuses to probe '{instruction}'")]
    Unprobeable {
        /// Offset asked for.
        offset: u64,
        /// The instruction.
        instruction: String,
    },
}

/// Chooses the site in a function whose code begins at `code[0]` and, linked, at `symbol_svma`.
/// `code` should end where the function does.
///
/// # Errors
/// See [`SiteError`].
pub fn choose(code: &[u8], symbol_svma: u64, policy: SitePolicy) -> Result<SiteChoice, SiteError> {
    match policy {
        SitePolicy::Exact(offset) => exact(code, symbol_svma, offset),
        SitePolicy::Slide => match slide_target(code, symbol_svma) {
            Some((offset, slid_over_branch)) => {
                let choice = exact(code, symbol_svma, offset)?;
                Ok(SiteChoice { slid_over_branch, ..choice })
            }
            None => exact(code, symbol_svma, 0),
        },
    }
}

/// Offset of the first `push %rbp`, and whether a jump lies before it; `None` when anything that
/// could change an argument comes first.
fn slide_target(code: &[u8], symbol_svma: u64) -> Option<(u64, bool)> {
    let mut decoder = Decoder::with_ip(64, code, symbol_svma, DecoderOptions::NONE);
    let mut over_branch = false;
    let mut instruction = Instruction::default();
    while decoder.can_decode() && decoder.position() <= SLIDE_LIMIT {
        let at = decoder.position();
        decoder.decode_out(&mut instruction);
        if instruction.code() == Code::Push_r64 || instruction.mnemonic() == Mnemonic::Push {
            let is_rbp = code.get(at) == Some(&PUSH_RBP);
            return is_rbp.then_some((at as u64, over_branch));
        }
        match instruction.mnemonic() {
            // They write flags only, or nothing; reading memory is harmless.
            Mnemonic::Endbr64 | Mnemonic::Test | Mnemonic::Cmp | Mnemonic::Nop => {}
            _ if instruction.flow_control() == FlowControl::ConditionalBranch
                && instruction.is_jcc_short_or_near()
                && instruction.near_branch_target() > instruction.ip() =>
            {
                over_branch = true;
            }
            _ => return None,
        }
    }
    None
}

fn exact(code: &[u8], symbol_svma: u64, offset: u64) -> Result<SiteChoice, SiteError> {
    let length = code.len() as u64;
    if code.is_empty() {
        return Err(SiteError::Empty);
    }
    if offset >= length || offset >= DECODE_LIMIT as u64 {
        return Err(SiteError::OutOfRange { offset, length });
    }
    let mut decoder = Decoder::with_ip(64, code, symbol_svma, DecoderOptions::NONE);
    let mut stack = StackState::default();
    let mut instruction = Instruction::default();
    loop {
        let at = decoder.position() as u64;
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            return Err(SiteError::NotCode { offset, at });
        }
        let next = decoder.position() as u64;
        if offset == at {
            return describe(code, offset, &instruction, &stack);
        }
        if offset < next {
            return Err(SiteError::InsideInstruction { offset, previous: at, next });
        }
        stack.step(&instruction);
    }
}

fn describe(
    code: &[u8],
    offset: u64,
    instruction: &Instruction,
    stack: &StackState,
) -> Result<SiteChoice, SiteError> {
    if is_unprobeable(instruction) {
        let instruction = instruction.to_string();
        return Err(SiteError::Unprobeable { offset, instruction });
    }
    let first = usize::try_from(offset).ok().and_then(|at| code.get(at)).copied();
    let class = classify(instruction, first);
    // is_uprobe_at_func_entry looks at the instruction alone; the address it then adds is the
    // top of the stack, whatever lies there.
    let kernel_adds_top = matches!(class, ByteClass::Push55 | ByteClass::Endbr64);
    Ok(SiteChoice {
        offset_from_symbol: offset,
        first_byte_class: class,
        caller_in_callchain: (kernel_adds_top && stack.untouched) || stack.frame_is_set_up,
        return_address_on_stack: stack.untouched,
        false_caller: kernel_adds_top && !stack.untouched,
        slid_over_branch: false,
    })
}

/// What the code since the symbol's start did to the stack, read in order of addresses. Behind a
/// jump this is what the fall-through path did.
#[derive(Debug)]
struct StackState {
    /// The top of the stack is still the return address.
    untouched: bool,
    rbp_is_saved: bool,
    /// %rbp points to the saved %rbp, so that the chain of frames includes the caller.
    frame_is_set_up: bool,
    info: InstructionInfoFactory,
}

impl Default for StackState {
    fn default() -> Self {
        Self {
            untouched: true,
            rbp_is_saved: false,
            frame_is_set_up: false,
            info: InstructionInfoFactory::new(),
        }
    }
}

impl StackState {
    fn step(&mut self, instruction: &Instruction) {
        let is_move = instruction.mnemonic() == Mnemonic::Mov
            && instruction.op0_kind() == OpKind::Register
            && instruction.op0_register() == Register::RBP
            && instruction.op1_kind() == OpKind::Register
            && instruction.op1_register() == Register::RSP;
        // Only directly on the saved %rbp does the move complete a frame.
        if is_move && self.rbp_is_saved {
            self.frame_is_set_up = true;
        }
        let is_push_rbp =
            instruction.code() == Code::Push_r64 && instruction.op0_register() == Register::RBP;
        let info = self.info.info(instruction);
        let writes = |register: Register| {
            info.used_registers().iter().any(|used| {
                used.register().full_register() == register
                    && matches!(
                        used.access(),
                        OpAccess::Write
                            | OpAccess::CondWrite
                            | OpAccess::ReadWrite
                            | OpAccess::ReadCondWrite
                    )
            })
        };
        let is_call =
            matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall);
        if self.frame_is_set_up && !is_move && !is_call && writes(Register::RBP) {
            // `pop %rbp` or `leave`: the epilogue, or %rbp used as an ordinary register.
            self.frame_is_set_up = false;
        }
        if writes(Register::RSP) && !is_call {
            self.rbp_is_saved = is_push_rbp && self.untouched;
            self.untouched = false;
        }
        // After a return the next instruction belongs to another path, on which the stack is
        // what it was before the epilogue: not known, so claim nothing.
        if instruction.flow_control() == FlowControl::Return {
            self.untouched = false;
        }
    }
}

fn classify(instruction: &Instruction, first: Option<u8>) -> ByteClass {
    match instruction.mnemonic() {
        Mnemonic::Endbr64 => ByteClass::Endbr64,
        Mnemonic::Nop => ByteClass::Nop,
        Mnemonic::Push if first == Some(PUSH_RBP) => ByteClass::Push55,
        Mnemonic::Push if instruction.op0_kind() == OpKind::Register => ByteClass::OtherPush,
        _ if instruction.is_jcc_short_or_near()
            || instruction.is_jmp_short_or_near()
            || instruction.is_call_near() =>
        {
            ByteClass::EmulatedJump
        }
        _ => ByteClass::SingleStepped,
    }
}

/// arch/x86/kernel/uprobes.c, good_insns_64 and is_prefix_bad: breakpoints, interrupts, port and
/// privileged instructions are refused, and so are lock and the segment prefixes but fs and gs.
fn is_unprobeable(instruction: &Instruction) -> bool {
    instruction.has_lock_prefix()
        || matches!(
            instruction.segment_prefix(),
            Register::ES | Register::CS | Register::SS | Register::DS
        )
        || instruction.is_privileged()
        || matches!(
            instruction.mnemonic(),
            Mnemonic::Int3 | Mnemonic::Int | Mnemonic::Int1 | Mnemonic::Ud2 | Mnemonic::Iretq
        )
}

/// Why a return probe on this function would crash the target or rot its heap; `None` if no rule
/// is known against it. Takes mangled and demangled names.
///
/// V8 reads the return address of the frame below JIT and builtin code; a return probe replaces
/// it by a trampoline that is no code object, and the next collection, throw or stack trace
/// fails a check. Seen on Node 16 to 26 with `node::fs::Open`, `Runtime_*` and `Builtins_*`.
pub fn uretprobe_refusal(symbol_name: &str) -> Option<&'static str> {
    const CALLED_BY_JIT: &str =
        "JIT code calls it directly, and V8 cannot walk a stack with a replaced return address";
    let (v8_internal, node) =
        (in_namespace(symbol_name, &V8_INTERNAL), in_namespace(symbol_name, &NODE));
    if symbol_name.starts_with("Builtins_") {
        return Some("it is a V8 builtin, which V8 unwinds: the target crashes");
    }
    if v8_internal.is_some_and(|name| name.starts_with("Runtime_")) {
        return Some("it is a V8 runtime function, called by JIT code: the target crashes");
    }
    if v8_internal.is_some_and(|name| name.starts_with("Builtin_")) {
        return Some("it is a V8 C++ builtin, called by JIT code: the target crashes");
    }
    if ["dlopen", "dlmopen", "dlsym", "dlvsym"].contains(&symbol_name) {
        return Some(
            "it looks at its return address for who called, which a return probe replaces",
        );
    }
    let takes = |type_name| symbol_name.contains(type_name);
    if takes("FunctionCallbackInfo") || takes("PropertyCallbackInfo") {
        return Some(CALLED_BY_JIT);
    }
    if takes("FastApiCallbackOptions") {
        return Some("it is a fast API callback, called by optimised code: the target crashes");
    }
    // Fast callbacks without the options argument: node::...::FastNow and its like.
    let is_fast = |name: &str| {
        name.strip_prefix("Fast").is_some_and(|rest| rest.starts_with(|c: char| c.is_uppercase()))
    };
    if node.is_some() && last_name(symbol_name).is_some_and(is_fast) {
        return Some("it is a fast API callback, called by optimised code: the target crashes");
    }
    None
}

/// A C++ namespace, demangled and mangled (Itanium C++ ABI 5.1.2, nested names).
struct Namespace {
    plain: &'static str,
    mangled: &'static str,
}

const V8_INTERNAL: Namespace = Namespace { plain: "v8::internal::", mangled: "_ZN2v88internal" };
const NODE: Namespace = Namespace { plain: "node::", mangled: "_ZN4node" };

/// The name directly inside `namespace`, with whatever follows it.
fn in_namespace<'a>(symbol: &'a str, namespace: &Namespace) -> Option<&'a str> {
    if let Some(rest) = symbol.strip_prefix(namespace.plain) {
        return Some(rest);
    }
    // `L` marks internal linkage; then comes the length of the name and the name.
    let rest = symbol.strip_prefix(namespace.mangled)?;
    let rest = rest.strip_prefix('L').unwrap_or(rest);
    Some(rest.trim_start_matches(|c: char| c.is_ascii_digit()))
}

/// The function's own name: the last part of a nested name, without arguments.
fn last_name(symbol: &str) -> Option<&str> {
    let Some(mut rest) = symbol.strip_prefix("_ZN") else {
        return symbol.split('(').next()?.rsplit("::").next();
    };
    let mut last = None;
    loop {
        rest = rest.strip_prefix('L').unwrap_or(rest);
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let Ok(length) = rest.get(..digits)?.parse::<usize>() else { return last };
        last = Some(rest.get(digits..digits.checked_add(length)?)?);
        rest = rest.get(digits + length..)?;
    }
}

#[cfg(test)]
#[path = "site_tests.rs"]
mod tests;
