//! Where things lie in V8's objects, by version: data, not code paths.
//!
//! Two sources: the `v8dbg_*` constants that V8 exports for debuggers (src: tools/
//! gen-postmortem-metadata.py of the V8 tree), and a small table of what they do not tell. What
//! both tell must agree. All offsets are byte offsets from the start of the object (its tagged
//! pointer minus 1), all types are `InstanceType` numbers. 64-bit V8 without pointer compression.

use std::collections::HashMap;

use super::rows::{CodeStart, ROWS, Row};

/// V8's version, from `v8::internal::Version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// `major_`.
    pub major: u32,
    /// `minor_`.
    pub minor: u32,
    /// `build_`.
    pub build: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.build)
    }
}

/// This V8 cannot be read.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayoutError {
    /// No row of the table is for this version.
    #[error("cannot read the heap of V8 {version}: its object layout is not known")]
    Unknown {
        /// The version found.
        version: Version,
    },
    /// No row is for it, and the layout could not be concluded from the others.
    #[error("cannot read the heap of V8 {version}: its object layout is not known, and {why}")]
    Unverified {
        /// The version found.
        version: Version,
        /// What did not fit, or was not there to be looked at.
        why: String,
    },
    /// Compressed pointers, as in Electron and Chrome.
    #[error("cannot read the heap of V8 {version}: it was built with pointer compression")]
    Compressed {
        /// The version found.
        version: Version,
    },
    /// A constant is missing from the file.
    #[error("cannot read the heap of V8 {version}: constant {name} is missing")]
    Missing {
        /// The version found.
        version: Version,
        /// The constant.
        name: &'static str,
    },
    /// A constant of the file contradicts the table.
    #[error("cannot read the heap of V8 {version}: {name} is {found} where {expected} is known")]
    Contradiction {
        /// The version found.
        version: Version,
        /// The constant.
        name: String,
        /// Its value in the file.
        found: i64,
        /// Its value in the table.
        expected: i64,
    },
}

impl LayoutError {
    /// What helps.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Compressed { .. } => {
                "none yet: programs built like Electron and Chrome cannot be read"
            }
            Self::Unverified { .. } => {
                "try again when the process has done more work, or restart it with --perf-basic-prof"
            }
            Self::Unknown { .. } | Self::Missing { .. } | Self::Contradiction { .. } => {
                "restart it with --perf-basic-prof, and report this version"
            }
        }
    }
}

/// Where a layout is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The table has a row for the version.
    Table,
    /// Concluded from the rows of other versions, and each part confirmed by live objects.
    Objects {
        /// How many were looked at.
        seen: usize,
    },
}

impl std::fmt::Display for Basis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Table => f.write_str("known"),
            Self::Objects { seen } => {
                write!(f, "concluded from other versions and confirmed by {seen} live objects")
            }
        }
    }
}

/// What a file says of its V8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbols {
    /// The version.
    pub version: Version,
    /// Values of the `v8dbg_*` symbols, without that prefix.
    pub constants: HashMap<String, i64>,
    /// See [`Layout::bytecode_sizes`].
    pub bytecode_sizes: Vec<u8>,
}

impl Symbols {
    /// A constant.
    pub fn get(&self, name: &str) -> Option<i64> {
        self.constants.get(name).copied()
    }

    /// Whether pointers are compressed.
    pub fn compressed(&self) -> bool {
        self.get("TaggedSize").is_some_and(|size| size != 8)
    }
}

/// Instance types that objects are recognised by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Types {
    /// First and last type of `JSFunction`.
    pub function: (u16, u16),
    /// `Map`.
    pub map: u16,
    /// `SharedFunctionInfo`.
    pub sfi: u16,
    /// `Script`.
    pub script: u16,
    /// `ScopeInfo`.
    pub scope: u16,
    /// `BytecodeArray`.
    pub bytecode: u16,
    /// `Code`.
    pub code: u16,
    /// `InstructionStream`; the same as `code` where code objects hold their instructions.
    pub stream: u16,
    /// `InterpreterData`.
    pub interpreter: u16,
    /// `BaselineData`, V8 9 only.
    pub baseline: Option<u16>,
    /// `SharedFunctionInfoWrapper`, from V8 13.
    pub wrapper: Option<u16>,
    /// `WeakFixedArray`.
    pub weak_array: Option<u16>,
    /// First type that is no string.
    pub first_nonstring: u16,
}

/// All that is needed to read the heap of one V8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Its version.
    pub version: Version,
    /// Types, from the file's constants.
    pub types: Types,
    /// Offsets.
    pub row: Row,
    /// `Bytecodes::kBytecodeSizes`: three times (single, double, quadruple scale) one byte for each
    /// bytecode. Empty when the file does not tell: then baseline frames have no line.
    pub bytecode_sizes: Vec<u8>,
}

/// Offsets in `Script`, the same in V8 8 to 14.
pub mod script {
    /// Source text.
    pub const SOURCE: u64 = 8;
    /// Name: URL or path.
    pub const NAME: u64 = 16;
    /// Lines before the first, Smi.
    pub const LINE_OFFSET: u64 = 24;
    /// Columns before the first of the first line, Smi.
    pub const COLUMN_OFFSET: u64 = 32;
    /// Id, Smi.
    pub const ID: u64 = 64;
    /// Weak array of the script's functions.
    pub const FUNCTIONS: u64 = 88;
    /// Flags, Smi, in versions whose scripts list lazily compiled functions; in others
    /// `//# sourceURL` is here. What `//# sourceMappingURL` says is in the next word after that.
    pub const FLAGS_OR_SOURCE_URL: u64 = 104;
}

/// Offset of `Map::instance_type`, u16.
pub const MAP_TYPE: u64 = 12;
/// Offset of an array's length, Smi, and of its first element.
pub const ARRAY_LENGTH: u64 = 8;
/// See [`ARRAY_LENGTH`].
pub const ARRAY_DATA: u64 = 16;

impl Layout {
    /// From what a file says and the table's row for its version.
    ///
    /// # Errors
    /// [`LayoutError`]; [`LayoutError::Unknown`] when the table has no row.
    pub fn new(symbols: &Symbols) -> Result<Self, LayoutError> {
        let version = symbols.version;
        if symbols.compressed() {
            return Err(LayoutError::Compressed { version });
        }
        let row = ROWS.iter().find(|row| row.version == (version.major, version.minor));
        Self::with_row(symbols, *row.ok_or(LayoutError::Unknown { version })?)
    }

    /// From what a file says and a row that may not be for its version.
    ///
    /// # Errors
    /// [`LayoutError`] when the two contradict each other, or a constant is missing.
    pub fn with_row(symbols: &Symbols, mut row: Row) -> Result<Self, LayoutError> {
        let version = symbols.version;
        let constants = &symbols.constants;
        let get = |name: &str| symbols.get(name);
        let optional = |name: &'static str| get(name).and_then(|value| u16::try_from(value).ok());
        let needed =
            |name: &'static str| optional(name).ok_or(LayoutError::Missing { version, name });
        let code = needed("type_Code__CODE_TYPE")?;
        let types = Types {
            function: (
                optional("FirstJSFunctionType").unwrap_or(row.function_types.0),
                optional("LastJSFunctionType").unwrap_or(row.function_types.1),
            ),
            map: needed("type_Map__MAP_TYPE")?,
            sfi: needed("type_SharedFunctionInfo__SHARED_FUNCTION_INFO_TYPE")?,
            script: needed("type_Script__SCRIPT_TYPE")?,
            scope: needed("type_ScopeInfo__SCOPE_INFO_TYPE")?,
            bytecode: needed("type_BytecodeArray__BYTECODE_ARRAY_TYPE")?,
            code,
            stream: match row.code_start {
                CodeStart::Inline(_) => code,
                CodeStart::Field(_) => needed("type_InstructionStream__INSTRUCTION_STREAM_TYPE")?,
            },
            interpreter: needed("type_InterpreterData__INTERPRETER_DATA_TYPE")?,
            baseline: optional("type_BaselineData__BASELINE_DATA_TYPE"),
            wrapper: optional("type_SharedFunctionInfoWrapper__SHARED_FUNCTION_INFO_WRAPPER_TYPE"),
            weak_array: optional("type_WeakFixedArray__WEAK_FIXED_ARRAY_TYPE"),
            first_nonstring: needed("FirstNonstringType")?,
        };
        row.function_types = types.function;
        let layout = Self { version, types, row, bytecode_sizes: symbols.bytecode_sizes.clone() };
        layout.compare(constants)?;
        Ok(layout)
    }

    /// Every constant that the file and the table both tell must be the same.
    fn compare(&self, constants: &HashMap<String, i64>) -> Result<(), LayoutError> {
        let row = &self.row;
        let start = match row.code_start {
            CodeStart::Inline(at) | CodeStart::Field(at) => at,
        };
        let known = [
            ("class_JSFunction__shared__SharedFunctionInfo", row.function_shared),
            ("class_SharedFunctionInfo__function_data__Object", row.sfi_data),
            ("class_SharedFunctionInfo__name_or_scope_info__Object", row.sfi_name),
            ("class_SharedFunctionInfo__name_or_scope_info__Tagged_Object_", row.sfi_name),
            (
                "class_SharedFunctionInfo__name_or_scope_info__Tagged_NameOrScopeInfoT_",
                row.sfi_name,
            ),
            ("class_SharedFunctionInfo__script_or_debug_info__HeapObject", row.sfi_script),
            ("class_SharedFunctionInfo__script__Tagged_HeapObject_", row.sfi_script),
            ("class_BytecodeArray__data__uintptr_t", row.bytecode_data),
            ("class_Code__flags__uint32_t", row.code_flags),
            ("class_Code__instruction_size__int", row.code_size),
            ("class_Code__instruction_start__uintptr_t", start),
            ("class_Code__instruction_start__Address", start),
            ("DeoptimizationDataLiteralArrayIndex", row.deopt_literals),
            ("DeoptimizationDataSharedFunctionInfoIndex", row.deopt_function),
            ("DeoptimizationDataWrappedSharedFunctionInfoIndex", row.deopt_function),
            ("DeoptimizationDataInliningPositionsIndex", row.deopt_inlining),
            ("scopeinfo_idx_first_vars", row.scope_first),
            ("CodeKindBaseline", u64::from(row.kind_baseline)),
            ("class_Script__name__Object", script::NAME),
            ("class_Script__source__Object", script::SOURCE),
            ("class_Map__instance_type__uint16_t", MAP_TYPE),
            ("class_FixedArrayBase__length__SMI", ARRAY_LENGTH),
            ("class_FixedArray__data__uintptr_t", ARRAY_DATA),
            ("class_String__length__int32_t", 12),
            ("SmiShiftSize", 31),
            ("SmiTagMask", 1),
        ];
        for (name, expected) in known {
            let expected = expected as i64;
            if let Some(&found) = constants.get(name).filter(|&&found| found != expected) {
                let (version, name) = (self.version, name.to_owned());
                return Err(LayoutError::Contradiction { version, name, found, expected });
            }
        }
        for (name, expected) in
            [("off_fp_context", -8), ("off_fp_function", -16), ("off_fp_bytecode_array", -32)]
        {
            if let Some(&found) = constants.get(name).filter(|&&found| found != expected) {
                let (version, name) = (self.version, name.to_owned());
                return Err(LayoutError::Contradiction { version, name, found, expected });
            }
        }
        Ok(())
    }

    /// Kind of code in the low bits of `Code::flags`.
    pub fn kind(&self, flags: u32) -> CodeKind {
        // V8's src/objects/code-kind.h: BYTECODE_HANDLER is 0 everywhere; INTERPRETED_FUNCTION, a copy
        // of the interpreter's entry, comes just before Sparkplug's.
        let kind = flags & 15;
        let baseline = self.row.kind_baseline;
        match kind {
            0 => CodeKind::Builtin,
            kind if kind == self.row.kind_builtin || kind + 1 == baseline => CodeKind::Builtin,
            kind if kind == baseline => CodeKind::Baseline,
            // V8 9 has no Maglev; its Turboprop and Turbofan are laid out alike.
            kind if kind == baseline + 1 && self.version.major > 9 => CodeKind::Maglev,
            kind if kind > baseline => CodeKind::Turbofan,
            _ => CodeKind::Other,
        }
    }
}

impl Layout {
    /// Whether code is a regular expression's (V8's src/objects/code-kind.h: `REGEXP`).
    pub fn is_regexp(&self, flags: u32) -> bool {
        flags & 15 == self.row.kind_builtin + 1
    }

    /// Whether code is WebAssembly's or a bridge to it: the kinds between `REGEXP` and
    /// `INTERPRETED_FUNCTION`, which comes just before Sparkplug's.
    pub fn is_wasm(&self, flags: u32) -> bool {
        let first = self.row.kind_builtin + 2;
        (first..self.row.kind_baseline.saturating_sub(1)).contains(&(flags & 15))
    }
}

/// What a code object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeKind {
    /// A copy of an embedded builtin or bytecode handler.
    Builtin,
    /// Sparkplug's.
    Baseline,
    /// Maglev's.
    Maglev,
    /// Turbofan's.
    Turbofan,
    /// Regular expressions, WebAssembly, wrappers.
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols(version: Version, constants: HashMap<String, i64>) -> Symbols {
        Symbols { version, constants, bytecode_sizes: Vec::new() }
    }

    fn constants() -> HashMap<String, i64> {
        let table = [
            ("TaggedSize", 8),
            ("type_Code__CODE_TYPE", 245),
            ("type_InstructionStream__INSTRUCTION_STREAM_TYPE", 252),
            ("type_Map__MAP_TYPE", 255),
            ("type_SharedFunctionInfo__SHARED_FUNCTION_INFO_TYPE", 262),
            ("type_Script__SCRIPT_TYPE", 167),
            ("type_ScopeInfo__SCOPE_INFO_TYPE", 261),
            ("type_BytecodeArray__BYTECODE_ARRAY_TYPE", 191),
            ("type_InterpreterData__INTERPRETER_DATA_TYPE", 159),
            ("FirstNonstringType", 128),
            ("class_JSFunction__shared__SharedFunctionInfo", 24),
        ];
        table.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    const NODE_20: Version = Version { major: 11, minor: 3, build: 244 };

    #[test]
    fn known_versions_are_accepted() {
        let layout = Layout::new(&symbols(NODE_20, constants())).unwrap();
        assert_eq!(layout.types.function, (2066, 2081));
        assert_eq!(layout.types.stream, 252);
        let kinds = [2, 3, 11, 12, 13].map(|flags| layout.kind(flags));
        assert!(layout.is_regexp(3) && layout.is_wasm(4) && !layout.is_wasm(10));
        assert_eq!(
            kinds,
            [
                CodeKind::Builtin,
                CodeKind::Other,
                CodeKind::Baseline,
                CodeKind::Maglev,
                CodeKind::Turbofan
            ]
        );
    }

    #[test]
    fn what_is_not_known_is_refused_with_the_reason() {
        let newer = Version { major: 15, minor: 1, build: 3 };
        let error = Layout::new(&symbols(newer, constants())).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read the heap of V8 15.1.3: its object layout is not known"
        );
        let mut missing = constants();
        missing.remove("type_Script__SCRIPT_TYPE");
        let error = Layout::new(&symbols(NODE_20, missing)).unwrap_err();
        assert!(matches!(error, LayoutError::Missing { name: "type_Script__SCRIPT_TYPE", .. }));
        let mut other = constants();
        other.insert("class_JSFunction__shared__SharedFunctionInfo".into(), 32);
        let error = Layout::new(&symbols(NODE_20, other)).unwrap_err();
        assert!(matches!(error, LayoutError::Contradiction { found: 32, expected: 24, .. }));
        let mut small = constants();
        small.insert("TaggedSize".into(), 4);
        let error = Layout::new(&symbols(NODE_20, small)).unwrap_err();
        assert_eq!(error, LayoutError::Compressed { version: NODE_20 });
    }
}
