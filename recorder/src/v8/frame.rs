//! What goes into a walk over a stack, and what comes out.
//!
//! Only types: no reading of the target here.

use formats::capture::Tier;

/// User registers of a sample.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Registers {
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer.
    pub bp: u64,
    /// The interpreter's bytecode offset while a bytecode handler runs.
    pub r9: u64,
    /// The interpreter's bytecode array while a bytecode handler runs.
    pub r12: u64,
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
    pub(super) fn word(&self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.registers.sp)?).ok()?;
        let bytes = self.stack.get(at..at.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    /// Whether an address is aligned and its word was copied.
    pub(super) fn holds(&self, address: u64) -> bool {
        address.is_multiple_of(8) && self.word(address).is_some()
    }
}

/// Why a JavaScript frame has no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// The function object has moved or is gone, and nothing else tells.
    Function,
    /// What the stack and the heap say contradicts each other.
    Contradiction,
    /// No code object was found at the pc.
    Code,
    /// The function's name could not be read.
    Name,
}

/// One level of a resolved stack, leaf first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// Code that is named by its address: of a file, or stubs that V8 made.
    Code {
        /// Instruction, or return address.
        address: u64,
        /// Whether it is a return address.
        call: bool,
    },
    /// A JavaScript function that is built into V8.
    Builtin {
        /// Index into the functions.
        function: u32,
        /// Instruction, or return address.
        address: u64,
        /// Whether it is a return address.
        call: bool,
    },
    /// A JavaScript function.
    Js {
        /// Index into the functions.
        function: u32,
        /// Character offset in the function's script.
        position: Option<u32>,
        /// What ran it.
        tier: Tier,
        /// Whether it is part of the code of the next frame outwards.
        inlined: bool,
        /// The last byte executed in it or its caller's code.
        pc: u64,
    },
    /// A JavaScript function that could not be named.
    Unknown {
        /// Instruction, or return address.
        address: u64,
        /// Whether it is a return address.
        call: bool,
        /// Why not.
        why: Why,
    },
    /// Frames are missing here: the frame pointer held something else, and the chain was found again
    /// further out.
    Gap,
}

/// How the chain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ending {
    /// At the thread's start: the frame pointer is 0 or leads nowhere any more in mapped code.
    #[default]
    Complete,
    /// At the end of what the kernel copied.
    Truncated,
    /// At a frame pointer that is none.
    Broken,
}
