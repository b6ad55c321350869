//! What live objects say of a layout: each test reads objects as the layout has it and looks whether
//! the result hangs together in a way that it would not by chance.
//!
//! Knows nothing of rows and versions.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::super::census::{Census, Part};
use super::super::code::{Code, Codes};
use super::super::heap::{Heap, Runs, pointer, smi};
use super::super::layout::{CodeKind, script as field};
use super::super::memory::Memory;
use super::super::names::{Names, Scope};
use super::super::positions::{PositionTable, bytecode_starts, unsigned_numbers};
use super::super::strings::Text;
use super::Score;

/// Objects of one kind that are looked at.
const SAMPLE: usize = 400;
/// Functions whose names are looked at: what tells two layouts of names apart is rare.
const MAX_NAMES: usize = 16_000;
/// Code objects that are looked through for those made from JavaScript.
const MAX_CODE: usize = 20_000;
/// Words that may be a field of a function object that are looked at.
const MAX_CLOSURES: usize = 100_000;
/// Instance types beyond the range of functions' that would show that the range is too small.
const BESIDE: u16 = 8;
/// Largest table and bytecode array that are read, bytes.
const MAX_TABLE: u64 = 1 << 20;
/// Largest source that is read, bytes, and sources that are read.
const MAX_SOURCE: usize = 4 << 20;
/// See [`MAX_SOURCE`].
const MAX_SOURCES: usize = 1000;
/// Bytes before and behind a function's start in which its name is looked for.
const NEAR: usize = 120;
/// Builtins that must differ in number.
const MIN_BUILTINS: usize = 10;

/// Live objects and a way to read them.
#[derive(Debug)]
pub(super) struct Evidence<M> {
    pub(super) heap: Heap<M>,
    census: Census,
    /// Places that would be function objects if the words that point to functions were theirs.
    closures: Vec<u64>,
    parts: Vec<Part>,
    sources: HashMap<u64, Option<Rc<Vec<u8>>>>,
}

impl<M: Memory> Evidence<M> {
    pub(super) fn new(heap: Heap<M>, census: Census, closures: Vec<u64>, parts: &[Part]) -> Self {
        let mut parts = parts.to_vec();
        parts.sort_by_key(|part| part.start);
        Self { heap, census, closures, parts, sources: HashMap::new() }
    }

    /// Code of the program file: it is in no memory of the process's own.
    pub(super) fn builtins(&mut self) -> Score {
        let row = self.heap.layout.row;
        let mut score = Score::default();
        for object in self.some_of(self.heap.layout.types.code, MAX_CODE) {
            if score.tried >= SAMPLE {
                break;
            }
            let flags = self.heap.u32_field(object, row.code_flags);
            let start = Codes::start(&mut self.heap, object).filter(|&start| start != 0);
            let (Some(flags), Some(start)) = (flags, start) else { continue };
            let after = self.parts.partition_point(|part| part.start <= start);
            let part = after.checked_sub(1).and_then(|index| self.parts.get(index));
            if part.is_none_or(|part| start >= part.end) {
                score.add(self.heap.layout.kind(flags) == CodeKind::Builtin);
            }
        }
        score
    }

    fn some_of(&self, kind: u16, count: usize) -> Vec<u64> {
        self.census.some_of(kind, count).collect()
    }

    /// SharedFunctionInfo: its script lists it, its name is one, builtins have numbers.
    pub(super) fn functions(&mut self) -> Score {
        let (row, types) = (self.heap.layout.row, self.heap.layout.types);
        let mut score = Score::default();
        let mut builtins = Vec::new();
        let mut bytecodes = 0;
        for shared in self.some_of(types.sfi, SAMPLE) {
            let script = self.heap.pointer_field(shared, row.sfi_script);
            let Some(name) = self.heap.field(shared, row.sfi_name) else { continue };
            let is_name = pointer(name).is_none_or(|name| {
                self.heap.is_string(name) || self.heap.type_of(name) == Some(types.scope)
            });
            let listed = script.filter(|&it| self.heap.type_of(it) == Some(types.script));
            let runs = self.heap.runs(shared);
            bytecodes += usize::from(matches!(runs, Runs::Bytecode(_)));
            if let Some(script) = listed {
                let lists = self.lists(script, shared);
                score.add(is_name && lists && runs != Runs::Builtin);
            } else if runs == Runs::Builtin {
                let number = self.heap.field(shared, row.sfi_untrusted.unwrap_or(row.sfi_data));
                builtins.push(number.and_then(smi));
                score.add(is_name);
            } else if let Some(at) = row.sfi_untrusted {
                // A template's function has something else there, but no name.
                let other = self.heap.pointer_field(shared, at);
                score.add(other.is_none_or(|other| {
                    !self.heap.is_string(other) && self.heap.type_of(other) != Some(types.scope)
                }));
            }
        }
        let distinct: HashSet<i32> = builtins.iter().flatten().copied().collect();
        if distinct.len() < MIN_BUILTINS || bytecodes == 0 {
            score.held = 0;
        }
        score
    }

    /// Whether a script's list contains a function.
    fn lists(&mut self, script: u64, shared: u64) -> bool {
        let list = self.heap.pointer_field(script, field::FUNCTIONS);
        let Some(list) = list.filter(|&list| self.heap.type_of(list).is_some()) else {
            return false;
        };
        let bytes = self.heap.words(list).unwrap_or_default();
        let mut words = bytes.chunks_exact(8);
        words.any(|word| {
            word.try_into().ok().map(u64::from_le_bytes).and_then(pointer) == Some(shared)
        })
    }

    /// JSFunction: objects with a function where JSFunctions have it are of their types.
    pub(super) fn closures(&mut self) -> Score {
        let (first, last) = self.heap.layout.types.function;
        let mut score = Score::default();
        for index in 0..self.closures.len().min(MAX_CLOSURES) {
            if score.tried >= SAMPLE * 4 {
                break;
            }
            let Some(&object) = self.closures.get(index) else { break };
            let Some(kind) = self.heap.type_of(object) else { continue };
            if kind >= first.saturating_sub(BESIDE) && kind <= last.saturating_add(BESIDE) {
                score.add(self.heap.shared_of(object).is_some());
            }
        }
        score
    }

    /// BytecodeArray: the bytecodes fill it, and source positions are at bytecodes.
    pub(super) fn bytecodes(&mut self) -> Score {
        let mut score = Score::default();
        for array in self.some_of(self.heap.layout.types.bytecode, SAMPLE) {
            let Some(holds) = self.bytecode_holds(array) else { continue };
            score.add(holds);
        }
        score
    }

    fn bytecode_holds(&mut self, array: u64) -> Option<bool> {
        let row = self.heap.layout.row;
        let bytes = self.bytecode_bytes(array)?;
        let Some(starts) = bytecode_starts(&bytes, &self.heap.layout.bytecode_sizes) else {
            return Some(false);
        };
        // Absent until somebody asks for it, or an array.
        let table = pointer(self.heap.field(array, row.bytecode_positions)?)?;
        self.heap.type_of(table)?;
        let bytes = self.heap.byte_array(table, MAX_TABLE).unwrap_or_default();
        let table = PositionTable::decode(&bytes, row.position_bits);
        let at_starts = |&(code, position): &(i32, super::super::positions::SourcePosition)| {
            let place = position.offset().is_some() && position.inlining().is_none();
            place
                && (code == -1
                    || u32::try_from(code).is_ok_and(|at| starts.binary_search(&at).is_ok()))
        };
        Some(!table.is_empty() && table.entries().iter().all(at_starts))
    }

    fn bytecode_bytes(&mut self, array: u64) -> Option<Vec<u8>> {
        let length = self.heap.array_length(array).filter(|&length| length <= MAX_TABLE)?;
        let start = (array - 1).checked_add(self.heap.layout.row.bytecode_data)?;
        self.heap.pages.bytes(start, usize::try_from(length).ok()?)
    }

    /// ScopeInfo: a function's name stands before its start in the source.
    pub(super) fn names(&mut self) -> Score {
        let (row, types) = (self.heap.layout.row, self.heap.layout.types);
        let mut score = Score::default();
        for shared in self.some_of(types.sfi, MAX_NAMES) {
            let scope = self.heap.pointer_field(shared, row.sfi_name);
            let scope = scope.filter(|&scope| self.heap.type_of(scope) == Some(types.scope));
            let script = self.heap.pointer_field(shared, row.sfi_script);
            let script = script.filter(|&it| self.heap.type_of(it) == Some(types.script));
            let (Some(scope), Some(script)) = (scope, script) else { continue };
            let Some(source) = self.source(script) else { continue };
            score.add(self.heap.scope(scope).is_some_and(|scope| fits(&scope, &source)));
        }
        score
    }

    fn source(&mut self, script: u64) -> Option<Rc<Vec<u8>>> {
        if let Some(known) = self.sources.get(&script) {
            return known.clone();
        }
        if self.sources.len() >= MAX_SOURCES {
            return None;
        }
        let text = self.heap.pointer_field(script, field::SOURCE);
        let text = text.and_then(|source| self.heap.flat_text(source, MAX_SOURCE));
        let text = match text {
            Some(Text::OneByte(text)) => Some(Rc::new(text)),
            _ => None,
        };
        self.sources.insert(script, text.clone());
        text
    }

    /// Baseline code: found from a pc in it, made of bytecode, its table has an entry a bytecode.
    pub(super) fn baseline(&mut self) -> Score {
        self.codes(&[CodeKind::Baseline], |evidence, _, _, code| {
            let heap = &mut evidence.heap;
            let bytecode = pointer(code.deopt).and_then(|deopt| heap.bytecode_behind(deopt, 0));
            let Some(bytes) = bytecode.and_then(|array| evidence.bytecode_bytes(array)) else {
                return false;
            };
            let heap = &mut evidence.heap;
            let table = pointer(code.positions).and_then(|table| heap.byte_array(table, MAX_TABLE));
            let starts = bytecode_starts(&bytes, &heap.layout.bytecode_sizes);
            let numbers = table.and_then(|table| unsigned_numbers(&table));
            let (Some(numbers), Some(starts)) = (numbers, starts) else { return false };
            let covered = numbers.iter().fold(0u64, |sum, number| sum.saturating_add(*number));
            numbers.len() == starts.len() + 1 && covered <= code.end - code.start
        })
    }

    /// Optimised code: found from a pc in it, its function and what is inlined are functions, its
    /// places are in it.
    pub(super) fn optimised(&mut self) -> Score {
        self.codes(&[CodeKind::Maglev, CodeKind::Turbofan], |evidence, codes, names, code| {
            let details = codes.details(&mut evidence.heap, names, code, 1);
            let size = code.end - code.start;
            let inside = details.table.entries().iter().all(|&(at, position)| {
                let inlined = position.inlining().is_none_or(|id| id < details.inlined.len());
                inlined && (at == -1 || u64::try_from(at).is_ok_and(|at| at <= size))
            });
            let named = details.inlined.iter().all(|(_, function)| function.is_some());
            code.function.is_some() && !details.table.is_empty() && inside && named
        })
    }

    fn codes(
        &mut self,
        kinds: &[CodeKind],
        mut holds: impl FnMut(&mut Self, &mut Codes, &mut Names, &Code) -> bool,
    ) -> Score {
        let row = self.heap.layout.row;
        let mut score = Score::default();
        let (mut codes, mut names) = (Codes::default(), Names::default());
        let all: Vec<u64> = self.census.some_of(self.heap.layout.types.code, MAX_CODE).collect();
        for (index, object) in all.into_iter().enumerate() {
            if score.tried >= SAMPLE {
                break;
            }
            let Some(flags) = self.heap.u32_field(object, row.code_flags) else { continue };
            if !kinds.contains(&self.heap.layout.kind(flags)) {
                continue;
            }
            let Some(start) = Codes::start(&mut self.heap, object) else { continue };
            let size = self.heap.u32_field(object, row.code_size).unwrap_or(0);
            // In the middle, as a sample would be.
            let pc = start.saturating_add(u64::from(size / 2));
            // Every search has a drain of its own, for its budget.
            let found = codes.find(&mut self.heap, &mut names, pc, index as u64 + 1);
            // Another one there: this one is dead.
            let Some(code) = found.filter(|code| code.object == object) else {
                score.add(false);
                continue;
            };
            let holds = holds(self, &mut codes, &mut names, &code);
            score.add(holds);
        }
        score
    }
}

/// Whether a scope's function is where it says in the source.
fn fits(scope: &Scope, source: &[u8]) -> bool {
    let (Some(start), Some(end)) = (scope.start, scope.end) else { return false };
    let (start, end) = (start as usize, end as usize);
    if !scope.sound || start > end || end > source.len() {
        return false;
    }
    // The name of a class may stand far before its constructor; a script has none before it.
    let before = &source[start.saturating_sub(NEAR)..start];
    if scope.name.is_empty() || start == 0 || before.ends_with(b"constructor") {
        return true;
    }
    // `function name(`, `name(`, `name = async (`, `class name {`: within a line's length.
    let behind = source.get(start..).unwrap_or_default();
    let behind = behind.get(..NEAR).unwrap_or(behind);
    let name = scope.name.strip_prefix(b"get ").or(scope.name.strip_prefix(b"set "));
    let name = name.unwrap_or(&scope.name);
    let holds = |text: &[u8]| text.windows(name.len().max(1)).any(|window| window == name);
    holds(before) || holds(behind)
}
