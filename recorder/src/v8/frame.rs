//! What goes into a walk over a stack, and what comes out.
//!
//! Only types: no reading of the target here.

use formats::capture::Tier;

pub use crate::unwind::{Ending, Registers, StackDump};

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
    /// The process had ended before it could be read.
    Gone,
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
    /// Frames are missing here: the chain was lost and found again further out.
    Gap,
    /// The frames outwards were not copied with the sample but read when it was resolved.
    Later,
}
