//! The table of what V8's exported constants do not tell, one row a version.
//!
//! To support one more version is to add one row. Offsets are from V8's src/objects/*.{h,tq} of
//! each version, checked on live objects.

/// Where the instructions of a code object begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeStart {
    /// Inside the object itself, at this offset (`Code` up to V8 10).
    Inline(u64),
    /// At the address in this field of `Code`; the bytes are in an `InstructionStream`, whose
    /// second word points back to the `Code`.
    Field(u64),
}

/// What a version's table row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Major and minor version it is for.
    pub version: (u32, u32),
    /// First and last type of `JSFunction` where no symbol tells.
    pub function_types: (u16, u16),
    /// `JSFunction::shared_function_info`.
    pub function_shared: u64,
    /// `SharedFunctionInfo`: function data, and from V8 13 the untrusted data behind it.
    pub sfi_data: u64,
    /// `SharedFunctionInfo::untrusted_function_data`, from V8 13.
    pub sfi_untrusted: Option<u64>,
    /// `SharedFunctionInfo::name_or_scope_info`.
    pub sfi_name: u64,
    /// `SharedFunctionInfo::script`.
    pub sfi_script: u64,
    /// `BytecodeArray::source_position_table`.
    pub bytecode_positions: u64,
    /// First byte of the bytecodes.
    pub bytecode_data: u64,
    /// `Code`: deoptimisation data, or bytecode for baseline code.
    pub code_deopt: u64,
    /// `Code`: source positions, or the bytecode offset table for baseline code.
    pub code_positions: u64,
    /// Where its instructions are.
    pub code_start: CodeStart,
    /// `Code::flags`, u32.
    pub code_flags: u64,
    /// `Code::instruction_size`, u32.
    pub code_size: u64,
    /// `CodeKind` of builtins; regular expressions are the next. `FOR_TESTING_JS` has moved them in
    /// V8 14.6.
    pub kind_builtin: u32,
    /// `CodeKind` of Sparkplug; Maglev and Turbofan are the next two.
    pub kind_baseline: u32,
    /// Index in the deoptimisation data: literals.
    pub deopt_literals: u64,
    /// Index in the deoptimisation data: the function, from V8 13 in a wrapper.
    pub deopt_function: u64,
    /// Index in the deoptimisation data: inlining positions.
    pub deopt_inlining: u64,
    /// `ScopeInfo`: index of the first variable.
    pub scope_first: u64,
    /// `ScopeInfo::flags` is a u32 and the function's bounds come before the variables (V8 13).
    pub scope_modern: bool,
    /// `ScopeInfo` has a slot for a receiver that is on the stack or in the context (V8 9).
    pub scope_receiver: bool,
    /// Bits below the pc delta of a source position entry: "breakable", from V8 14.
    pub position_bits: u32,
}

/// Offsets from V8's src/objects/*.{h,tq} of each version, checked on live objects.
pub(super) const ROWS: [Row; 7] = [
    // Node 16
    Row {
        version: (9, 4),
        function_types: (1059, 1072),
        function_shared: 24,
        sfi_data: 8,
        sfi_untrusted: None,
        sfi_name: 16,
        sfi_script: 32,
        bytecode_positions: 32,
        bytecode_data: 54,
        code_deopt: 16,
        code_positions: 24,
        code_start: CodeStart::Inline(96),
        code_flags: 48,
        code_size: 40,
        kind_builtin: 2,
        kind_baseline: 11,
        deopt_literals: 2,
        deopt_function: 6,
        deopt_inlining: 7,
        scope_first: 3,
        scope_modern: false,
        scope_receiver: true,
        position_bits: 0,
    },
    // Node 18
    Row {
        version: (10, 2),
        function_types: (2065, 2080),
        bytecode_data: 56,
        code_start: CodeStart::Inline(128),
        code_size: 40,
        ..BASE
    },
    // Node 20
    BASE,
    // Node 22
    Row { version: (12, 4), ..MODERN },
    // Node 24
    Row { version: (13, 6), kind_builtin: 2, kind_baseline: 10, position_bits: 0, ..TRUSTED },
    // Node 25
    Row { version: (14, 1), kind_builtin: 2, kind_baseline: 10, ..TRUSTED },
    // Node 26
    TRUSTED,
];

/// Versions that have a row.
pub fn versions() -> impl Iterator<Item = (u32, u32)> {
    ROWS.iter().map(|row| row.version)
}

const BASE: Row = Row {
    version: (11, 3),
    function_types: (2066, 2081),
    function_shared: 24,
    sfi_data: 8,
    sfi_untrusted: None,
    sfi_name: 16,
    sfi_script: 32,
    bytecode_positions: 32,
    bytecode_data: 54,
    code_deopt: 16,
    code_positions: 24,
    code_start: CodeStart::Field(40),
    code_flags: 48,
    code_size: 56,
    kind_builtin: 2,
    kind_baseline: 11,
    deopt_literals: 2,
    deopt_function: 6,
    deopt_inlining: 7,
    scope_first: 3,
    scope_modern: false,
    scope_receiver: false,
    position_bits: 0,
};

const MODERN: Row = Row {
    version: (12, 4),
    function_types: (2066, 2082),
    function_shared: 32,
    bytecode_positions: 24,
    bytecode_data: 64,
    code_deopt: 8,
    code_positions: 16,
    code_flags: 48,
    code_size: 52,
    kind_baseline: 10,
    ..BASE
};

const TRUSTED: Row = Row {
    version: (14, 6),
    sfi_untrusted: Some(16),
    sfi_name: 24,
    sfi_script: 40,
    code_flags: 52,
    code_size: 56,
    kind_builtin: 3,
    kind_baseline: 11,
    deopt_literals: 3,
    deopt_function: 7,
    deopt_inlining: 8,
    scope_first: 5,
    scope_modern: true,
    position_bits: 1,
    ..MODERN
};
