//! The object layout of a V8 that the table has no row for: concluded from the rows of other
//! versions and what the file's constants say, and believed only when live objects confirm it.
//!
//! The fields of a row fall into groups that are confirmed one after the other. Of each group all
//! values that any version has are tried; exactly one must fit. Nothing is a guess: what cannot be
//! confirmed is refused, with the reason.

use std::collections::HashSet;

use super::census::{Census, MAX_BYTES, Part, each_word};
use super::heap::Heap;
use super::layout::{Basis, Layout, LayoutError, Symbols, Version};
use super::memory::Memory;
use super::rows::{CodeStart, Row};
use evidence::Evidence;

#[path = "evidence.rs"]
mod evidence;

/// Of a hundred objects of a kind so many must fit: some are dead, or change while we look.
const ENOUGH: usize = 90;
/// So many objects more must contradict the second best layout than the best.
const LEAD: usize = 10;

/// How often something that was looked at was as expected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Score {
    tried: usize,
    held: usize,
}

impl Score {
    fn add(&mut self, holds: bool) {
        self.tried += 1;
        self.held += usize::from(holds);
    }

    fn percent(self) -> usize {
        self.held * 100 / self.tried.max(1)
    }
}

/// A group of fields that are confirmed together.
#[derive(Debug)]
struct Group<M> {
    /// What is looked at, for people.
    what: &'static str,
    /// Takes over the group's fields from another row.
    take: fn(&mut Row, &Row),
    /// How well live objects fit.
    score: fn(&mut Evidence<M>) -> Score,
    /// Objects that must have been looked at.
    least: usize,
    /// Of a hundred, how many must fit.
    enough: usize,
}

/// In this order: each needs those before it.
fn groups<M: Memory>() -> [Group<M>; 7] {
    [
        Group {
            what: "functions and their scripts",
            take: |row, from| {
                (row.sfi_data, row.sfi_untrusted) = (from.sfi_data, from.sfi_untrusted);
                (row.sfi_name, row.sfi_script) = (from.sfi_name, from.sfi_script);
            },
            score: Evidence::functions,
            least: 100,
            enough: ENOUGH,
        },
        Group {
            what: "function objects",
            take: |row, from| row.function_shared = from.function_shared,
            score: Evidence::closures,
            least: 100,
            enough: ENOUGH,
        },
        Group {
            what: "bytecodes and their places in the source",
            take: |row, from| {
                row.bytecode_data = from.bytecode_data;
                row.bytecode_positions = from.bytecode_positions;
                row.position_bits = from.position_bits;
            },
            score: Evidence::bytecodes,
            least: 50,
            enough: ENOUGH,
        },
        Group {
            what: "names and bounds of functions",
            take: |row, from| {
                row.scope_first = from.scope_first;
                row.scope_modern = from.scope_modern;
                row.scope_receiver = from.scope_receiver;
            },
            score: Evidence::names,
            least: 50,
            enough: 90,
        },
        Group {
            what: "baseline code",
            take: |row, from| {
                row.code_deopt = from.code_deopt;
                row.code_positions = from.code_positions;
                row.code_start = from.code_start;
                row.code_flags = from.code_flags;
                row.code_size = from.code_size;
                row.kind_baseline = from.kind_baseline;
            },
            score: Evidence::baseline,
            least: 10,
            enough: ENOUGH,
        },
        Group {
            what: "builtins",
            take: |row, from| row.kind_builtin = from.kind_builtin,
            score: Evidence::builtins,
            least: 100,
            enough: ENOUGH,
        },
        Group {
            what: "optimised code",
            take: |row, from| {
                row.deopt_literals = from.deopt_literals;
                row.deopt_function = from.deopt_function;
                row.deopt_inlining = from.deopt_inlining;
            },
            score: Evidence::optimised,
            least: 10,
            enough: ENOUGH,
        },
    ]
}

/// Constants that a V8 must export to be read without a row: registers and stack frames cannot be
/// confirmed by objects.
const NEEDED: [(&str, i64); 9] = [
    ("off_fp_context", -8),
    ("off_fp_function", -16),
    ("off_fp_bytecode_array", -32),
    ("off_fp_bytecode_offset", -40),
    ("InterpreterBytecodeArrayRegister", 12),
    ("InterpreterBytecodeOffsetRegister", 9),
    ("TaggedSize", 8),
    ("SmiShiftSize", 31),
    ("SmiTagMask", 1),
];

/// Concludes the layout of the V8 with these symbols from `rows`, none of which is its own.
pub(super) fn layout<M: Memory>(
    mut memory: M,
    symbols: &Symbols,
    rows: &[Row],
    parts: &[Part],
) -> Result<(Layout, Basis), LayoutError> {
    let version = symbols.version;
    needed(symbols)?;
    let Some(near) = nearest(rows, version) else {
        return Err(LayoutError::Unknown { version });
    };
    let mut row = told(symbols, near);
    row.version = (version.major, version.minor);
    let first = Layout::with_row(symbols, row)?;
    // The kinds of code are few: values that no known version has are tried, too.
    let kinds = (1..row.kind_baseline).map(|kind_builtin| Row { kind_builtin, ..row });
    let rows: Vec<Row> = rows.iter().copied().chain(kinds).collect();
    let refused = |why: String| LayoutError::Unverified { version, why };
    let types = first.types;
    let wanted = [types.sfi, types.script, types.scope, types.bytecode, types.code];
    let census = Census::take(&mut memory, parts, MAX_BYTES, types.map, &wanted);
    let known: HashSet<u64> = census.of(types.sfi).iter().copied().collect();
    if known.is_empty() {
        return Err(refused("no objects of V8 were found in its memory".into()));
    }
    let mut closures = Vec::new();
    let shared = row.function_shared;
    each_word(&mut memory, parts, MAX_BYTES, &mut 0, |at, word| {
        if word & 3 == 1 && known.contains(&word) {
            closures.push((at + 1).wrapping_sub(shared));
        }
    });
    let mut evidence = Evidence::new(Heap::new(memory, first), census, closures, parts);
    let mut seen = 0;
    for group in groups() {
        let mut fitting: Vec<(Row, Score)> = Vec::new();
        for candidate in candidates(symbols, row, &rows, group.take) {
            let Ok(layout) = Layout::with_row(symbols, candidate) else { continue };
            evidence.heap.layout = layout;
            evidence.heap.begin();
            fitting.push((candidate, (group.score)(&mut evidence)));
        }
        fitting.sort_by_key(|(_, score)| std::cmp::Reverse((score.percent(), score.tried)));
        let Some(&(best, score)) = fitting.first() else {
            return Err(refused(format!("its {} contradict its constants", group.what)));
        };
        if score.percent() < group.enough && score.tried >= group.least {
            return Err(refused(format!(
                "no known layout of {} fits: {} of {} do",
                group.what, score.held, score.tried
            )));
        }
        if score.tried < group.least {
            return Err(refused(format!(
                "too few objects are there to confirm it: {} of {} for {}",
                score.tried, group.least, group.what
            )));
        }
        // Dead objects fit no layout: only what fits one and not the other tells them apart.
        let misses = |score: Score| score.tried - score.held;
        let rival = fitting
            .get(1)
            .filter(|(_, second)| second.tried > 0 && misses(*second) < misses(score) + LEAD);
        if let Some((_, second)) = rival {
            return Err(refused(format!(
                "two layouts of {} fit: {} of {} and {} of {}",
                group.what, score.held, score.tried, second.held, second.tried
            )));
        }
        seen += score.tried;
        row = best;
    }
    Ok((Layout::with_row(symbols, row)?, Basis::Objects { seen }))
}

fn needed(symbols: &Symbols) -> Result<(), LayoutError> {
    let version = symbols.version;
    if symbols.compressed() {
        return Err(LayoutError::Compressed { version });
    }
    for (name, expected) in NEEDED {
        let found = symbols.get(name).ok_or(LayoutError::Missing { version, name })?;
        if found != expected {
            let name = name.to_owned();
            return Err(LayoutError::Contradiction { version, name, found, expected });
        }
    }
    for name in ["FirstJSFunctionType", "LastJSFunctionType"] {
        symbols.get(name).ok_or(LayoutError::Missing { version, name })?;
    }
    if symbols.bytecode_sizes.is_empty() {
        return Err(LayoutError::Missing { version, name: "kBytecodeSizes" });
    }
    Ok(())
}

/// The row of the version just before, or else of the one just behind.
fn nearest(rows: &[Row], version: Version) -> Option<Row> {
    let version = (version.major, version.minor);
    let before = rows.iter().filter(|row| row.version < version).max_by_key(|row| row.version);
    before.or_else(|| rows.iter().min_by_key(|row| row.version)).copied()
}

/// The distinct rows that other versions' values of a group make of `row`.
fn candidates(symbols: &Symbols, row: Row, rows: &[Row], take: fn(&mut Row, &Row)) -> Vec<Row> {
    let mut out = vec![row];
    for other in rows {
        let mut candidate = row;
        take(&mut candidate, other);
        let candidate = told(symbols, candidate);
        if !out.contains(&candidate) {
            out.push(candidate);
        }
    }
    out
}

/// A row with what the constants say in place of what it said.
fn told(symbols: &Symbols, mut row: Row) -> Row {
    let get = |names: &[&str]| {
        names.iter().find_map(|name| symbols.get(name)).and_then(|value| u64::try_from(value).ok())
    };
    let set = |field: &mut u64, names: &[&str]| {
        if let Some(value) = get(names) {
            *field = value;
        }
    };
    set(&mut row.function_shared, &["class_JSFunction__shared__SharedFunctionInfo"]);
    set(&mut row.sfi_data, &["class_SharedFunctionInfo__function_data__Object"]);
    set(
        &mut row.sfi_name,
        &[
            "class_SharedFunctionInfo__name_or_scope_info__Object",
            "class_SharedFunctionInfo__name_or_scope_info__Tagged_Object_",
            "class_SharedFunctionInfo__name_or_scope_info__Tagged_NameOrScopeInfoT_",
        ],
    );
    set(
        &mut row.sfi_script,
        &[
            "class_SharedFunctionInfo__script_or_debug_info__HeapObject",
            "class_SharedFunctionInfo__script__Tagged_HeapObject_",
        ],
    );
    set(&mut row.bytecode_data, &["class_BytecodeArray__data__uintptr_t"]);
    set(&mut row.code_flags, &["class_Code__flags__uint32_t"]);
    set(&mut row.code_size, &["class_Code__instruction_size__int"]);
    set(&mut row.deopt_literals, &["DeoptimizationDataLiteralArrayIndex"]);
    set(
        &mut row.deopt_function,
        &[
            "DeoptimizationDataWrappedSharedFunctionInfoIndex",
            "DeoptimizationDataSharedFunctionInfoIndex",
        ],
    );
    set(&mut row.deopt_inlining, &["DeoptimizationDataInliningPositionsIndex"]);
    set(&mut row.scope_first, &["scopeinfo_idx_first_vars"]);
    if let Some(kind) = get(&["CodeKindBaseline"]) {
        row.kind_baseline = kind as u32;
    }
    let start =
        ["class_Code__instruction_start__Address", "class_Code__instruction_start__uintptr_t"];
    if let (Some(at), CodeStart::Field(_)) = (get(&start), row.code_start) {
        row.code_start = CodeStart::Field(at);
    }
    row
}
