//! Functions and scripts by name: each is read once and keeps its number for the whole recording.
//!
//! The objects behind them move and die; what was read stays true. An address is trusted again in
//! a later drain only after its words were compared. Names come first, line ends last: they need
//! the source text, which is large, and the process may end at any time.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::heap::{Heap, pointer, smi};
use super::layout::{ARRAY_DATA, script as field};
use super::memory::Memory;
use super::positions::{line_ends_one_byte, line_ends_two_byte};
use super::strings::Text;

/// Longest name or URL that is kept, characters.
const MAX_NAME: u32 = 4096;
/// Scheme of URLs that hold what they stand for (RFC 2397).
const DATA: &[u8] = b"data:";
/// Largest source whose lines are counted, bytes.
const MAX_SOURCE: usize = 48 << 20;
/// Functions and scripts that are kept at most.
const MAX_FUNCTIONS: usize = 1 << 20;
/// Addresses remembered at most; when full all are compared anew.
const MAX_ADDRESSES: usize = 1 << 18;
/// Functions listed by scripts that are looked at in one go. The TypeScript compiler has 30 000.
const MAX_LISTED: u64 = 1 << 17;
/// Drains between two looks at the scripts that were not met yet.
const AHEAD_WAIT: u64 = 32;
/// Attempts to read a source before its lines are given up.
const MAX_ATTEMPTS: u8 = 12;
/// Local names stored in line in a ScopeInfo (V8's kScopeInfoMaxInlinedLocalNamesSize).
const MAX_INLINE_LOCALS: u64 = 75;

/// A JavaScript function.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Function {
    /// Index into the scripts; absent for builtins.
    pub script: Option<u32>,
    /// Its name, or the one V8 inferred from an assignment; empty when it has neither.
    pub name: Vec<u8>,
    /// Whether the name is inferred.
    pub inferred: bool,
    /// Character offset of its definition in the script.
    pub start: Option<u32>,
}

/// A JavaScript source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// URL or path; empty for `eval` and the like.
    pub name: Vec<u8>,
    /// What `//# sourceURL` says; empty without it.
    pub source_url: Vec<u8>,
    /// What `//# sourceMappingURL` says; empty without it, or where it is longer than a name may be
    /// (a map within the source).
    pub source_map_url: Vec<u8>,
    /// Lines and columns that lie before the source in its file.
    pub line_offset: u32,
    /// See `line_offset`; counts for the first line only.
    pub column_offset: u32,
    /// Character offset of every line end; absent until the source was read, or for ever.
    pub line_ends: Option<Vec<u32>>,
}

impl Script {
    /// Line and column of a character offset, both counted from 1.
    pub fn place(&self, offset: u32) -> Option<(u32, u32)> {
        let ends = self.line_ends.as_ref()?;
        let (line, column) = super::positions::line_and_column(ends, offset)?;
        let column = if line == 0 { column.saturating_add(self.column_offset) } else { column };
        Some((line.saturating_add(self.line_offset).saturating_add(1), column.saturating_add(1)))
    }
}

#[derive(Debug, Clone, Copy)]
struct KnownFunction {
    function: u32,
    name: u64,
    script: u64,
    drain: u64,
}

#[derive(Debug, Clone, Copy)]
struct KnownScript {
    script: u32,
    source: u64,
    name: u64,
    id: u64,
    drain: u64,
}

#[derive(Debug)]
struct Waiting {
    script: u32,
    address: u64,
    attempts: u8,
}

/// Identity of a script: ids are unique in an isolate only, so name and length belong to it.
type ScriptKey = (i32, Vec<u8>, u32);

/// All functions and scripts seen.
#[derive(Debug, Default)]
pub struct Names {
    functions: Vec<Function>,
    by_function: HashMap<Function, u32>,
    by_shared: HashMap<u64, KnownFunction, RandomState>,
    scripts: Vec<Script>,
    by_script: HashMap<ScriptKey, u32>,
    by_address: HashMap<u64, KnownScript, RandomState>,
    /// Scripts of which no function was met yet.
    ahead: Vec<u64>,
    ahead_again: u64,
    waiting: Vec<Waiting>,
    /// Bytes of names and line ends that were kept, roughly.
    size: usize,
}

/// What a ScopeInfo says of its function.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) name: Vec<u8>,
    pub(super) inferred: Vec<u8>,
    pub(super) start: Option<u32>,
    pub(super) end: Option<u32>,
    /// Where a name should be there was one.
    pub(super) sound: bool,
}

impl Names {
    /// The functions, by index.
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// Bytes that are kept, roughly.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Gives up the line ends of a script: they have been told.
    pub fn take_line_ends(&mut self, script: u32) -> Option<Vec<u32>> {
        self.scripts.get_mut(script as usize)?.line_ends.take()
    }

    /// The scripts, by index.
    pub fn scripts(&self) -> &[Script] {
        &self.scripts
    }

    /// The function of the SharedFunctionInfo at `shared`, whose type has been checked.
    pub fn function<M: Memory>(
        &mut self,
        heap: &mut Heap<M>,
        shared: u64,
        drain: u64,
    ) -> Option<u32> {
        if let Some(known) = self.by_shared.get(&shared)
            && known.drain == drain
        {
            return Some(known.function);
        }
        let row = heap.layout.row;
        let name = heap.field(shared, row.sfi_name)?;
        let script = heap.field(shared, row.sfi_script)?;
        let complete =
            self.by_shared.get(&shared).is_some_and(|known| self.is_complete(known.function));
        if let Some(known) = self.by_shared.get_mut(&shared)
            && (known.name, known.script) == (name, script)
            && pointer(name).is_some()
            && complete
        {
            known.drain = drain;
            return Some(known.function);
        }
        let read = self.read_function(heap, name, script, drain)?;
        let function = self.intern(read)?;
        if self.by_shared.len() >= MAX_ADDRESSES {
            self.by_shared.clear();
        }
        self.by_shared.insert(shared, KnownFunction { function, name, script, drain });
        Some(function)
    }

    /// Whether all is known of a function. V8 names a script after it has made its functions, so one
    /// whose script has no name may get one: it is looked at again in each drain.
    fn is_complete(&self, function: u32) -> bool {
        let script = self.functions.get(function as usize).and_then(|function| function.script);
        script.is_none_or(|script| {
            let script = self.scripts.get(script as usize);
            script.is_some_and(|it| !it.name.is_empty() || !it.source_url.is_empty())
        })
    }

    fn intern(&mut self, function: Function) -> Option<u32> {
        if let Some(&known) = self.by_function.get(&function) {
            return Some(known);
        }
        if self.functions.len() >= MAX_FUNCTIONS {
            return None;
        }
        let index = self.functions.len() as u32;
        // Each is kept twice, with about as much again for the tables.
        self.size += 2 * function.name.len() + 200;
        self.functions.push(function.clone());
        self.by_function.insert(function, index);
        Some(index)
    }

    fn read_function<M: Memory>(
        &mut self,
        heap: &mut Heap<M>,
        name: u64,
        script: u64,
        drain: u64,
    ) -> Option<Function> {
        let scope = match pointer(name) {
            None => Scope::default(),
            Some(object) if heap.is_string(object) => {
                Scope { name: heap.string(object, MAX_NAME)?, ..Scope::default() }
            }
            Some(object) if heap.type_of(object)? == heap.layout.types.scope => {
                heap.scope(object)?
            }
            Some(_) => return None,
        };
        let script = match pointer(script) {
            // Not readable is not the same as none.
            Some(object) if heap.type_of(object)? == heap.layout.types.script => {
                Some(self.script(heap, object, drain)?)
            }
            // Builtins have none; DebugInfo stands before it while a debugger is attached.
            _ => None,
        };
        let inferred = scope.name.is_empty() && !scope.inferred.is_empty();
        let name = if inferred { scope.inferred } else { scope.name };
        // Neither name nor script: V8 is only making it, and says more a moment later.
        (script.is_some() || !name.is_empty()).then_some(())?;
        Some(Function { script, name, inferred, start: scope.start })
    }

    fn script<M: Memory>(&mut self, heap: &mut Heap<M>, address: u64, drain: u64) -> Option<u32> {
        if let Some(known) = self.by_address.get(&address)
            && known.drain == drain
        {
            return Some(known.script);
        }
        let source = heap.field(address, field::SOURCE)?;
        let name = heap.field(address, field::NAME)?;
        let id = heap.field(address, field::ID)?;
        if let Some(known) = self.by_address.get_mut(&address)
            && (known.source, known.name, known.id) == (source, name, id)
        {
            known.drain = drain;
            return Some(known.script);
        }
        let text = |heap: &mut Heap<M>, word: u64| {
            let object = pointer(word).filter(|&object| heap.is_string(object))?;
            heap.string(object, MAX_NAME)
        };
        let mut read_name = text(heap, name).unwrap_or_default();
        if read_name.starts_with(DATA) {
            // A module that is its own address: what comes behind the comma is its text.
            let head = read_name.iter().position(|&byte| byte == b',');
            read_name.truncate(head.unwrap_or(DATA.len()));
        }
        let length = pointer(source).and_then(|source| heap.u32_field(source, 12)).unwrap_or(0);
        let key = (smi(id)?, read_name, length);
        let script = match self.by_script.get(&key) {
            Some(&script) => {
                // It has moved; its text is looked for where it is now.
                if let Some(waiting) = self.waiting.iter_mut().find(|it| it.script == script) {
                    waiting.address = address;
                }
                script
            }
            None if self.scripts.len() >= MAX_FUNCTIONS => return None,
            None => {
                let flags_or_url = heap.field(address, field::FLAGS_OR_SOURCE_URL);
                let is_flags = flags_or_url.is_some_and(|word| smi(word).is_some());
                let at = field::FLAGS_OR_SOURCE_URL + if is_flags { 8 } else { 0 };
                // A URL that holds its data, or is too long, is none that could be looked up, and what it
                // holds is source text.
                let url = |heap: &mut Heap<M>, at| {
                    let word = heap.field(address, at)?;
                    let length = heap.u32_field(pointer(word)?, 12)?;
                    text(heap, word).filter(|url| length <= MAX_NAME && !url.starts_with(DATA))
                };
                let source_url = url(heap, at).unwrap_or_default();
                let source_map_url = url(heap, at + 8).unwrap_or_default();
                let number = |heap: &mut Heap<M>, at| {
                    heap.smi_field(address, at).and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
                };
                let script = self.scripts.len() as u32;
                self.size += 2 * key.1.len() + source_url.len() + source_map_url.len() + 300;
                self.scripts.push(Script {
                    name: key.1.clone(),
                    source_url,
                    source_map_url,
                    line_offset: number(heap, field::LINE_OFFSET),
                    column_offset: number(heap, field::COLUMN_OFFSET),
                    line_ends: None,
                });
                self.by_script.insert(key, script);
                self.waiting.push(Waiting { script, address, attempts: 0 });
                script
            }
        };
        if self.by_address.len() >= MAX_ADDRESSES {
            self.by_address.clear();
        }
        self.by_address.insert(address, KnownScript { script, source, name, id, drain });
        Some(script)
    }

    /// Notes where scripts are before any of their functions is met: their lists of functions tell
    /// what a stack runs whose function objects have moved.
    pub fn expect_scripts(&mut self, addresses: &[u64]) {
        self.ahead = addresses.to_vec();
    }

    /// Whether it is time to go through the lists of scripts that were not met yet. They are long.
    pub fn expects(&mut self, drain: u64) -> bool {
        if self.ahead.is_empty() || drain < self.ahead_again {
            return false;
        }
        self.ahead_again = drain + AHEAD_WAIT;
        true
    }

    /// Calls `each` with the functions that scripts list: those that were met, or those that are
    /// expected.
    pub fn list_functions<M: Memory>(
        &self,
        heap: &mut Heap<M>,
        ahead: bool,
        mut each: impl FnMut(&mut Heap<M>, u64),
    ) {
        let types = heap.layout.types;
        let mut left = MAX_LISTED;
        let met: Vec<u64> = self.by_address.keys().copied().collect();
        for &script in if ahead { &self.ahead } else { &met } {
            if heap.type_of(script) != Some(types.script) {
                continue;
            }
            let Some(list) = heap.pointer_field(script, field::FUNCTIONS) else { continue };
            let length = heap.array_length(list).unwrap_or(0).min(left);
            let is_list = heap.type_of(list).is_some_and(|kind| Some(kind) == types.weak_array);
            if !is_list || length == 0 {
                continue;
            }
            left -= length;
            let at = (list - 1).saturating_add(ARRAY_DATA);
            let Some(words) = heap.pages.bytes(at, length as usize * 8) else { continue };
            let functions: Vec<u64> = words
                .chunks_exact(8)
                .filter_map(|word| pointer(u64::from_le_bytes(word.try_into().ok()?)))
                .collect();
            heap.pages.prefetch(functions.iter().map(|function| function - 1));
            for function in functions {
                if heap.type_of(function) == Some(types.sfi) {
                    each(heap, function);
                }
            }
        }
    }

    /// Counts the lines of scripts that were met, as many as fit into `bytes` of source. Returns
    /// the scripts that have lines now.
    pub fn count_lines<M: Memory>(&mut self, heap: &mut Heap<M>, bytes: usize) -> Vec<u32> {
        let mut done = Vec::new();
        let mut left = bytes;
        let mut later = Vec::new();
        for mut waiting in std::mem::take(&mut self.waiting) {
            if left == 0 {
                later.push(waiting);
                continue;
            }
            // The address must still be this script's, or lead to where it has moved.
            let id = self.by_address.get(&waiting.address).map(|known| known.id);
            let at = heap.follow(waiting.address).unwrap_or(waiting.address);
            let is_script = heap.type_of(at) == Some(heap.layout.types.script);
            let same = is_script && id.is_some() && heap.field(at, field::ID) == id;
            let text = heap
                .pointer_field(at, field::SOURCE)
                .filter(|_| same)
                .and_then(|source| heap.flat_text(source, MAX_SOURCE));
            let Some(text) = text else {
                waiting.attempts += 1;
                if waiting.attempts < MAX_ATTEMPTS {
                    later.push(waiting);
                }
                continue;
            };
            let (size, ends) = match &text {
                Text::OneByte(text) => (text.len(), line_ends_one_byte(text)),
                Text::TwoByte(text) => (text.len(), line_ends_two_byte(text)),
            };
            left = left.saturating_sub(size.max(1));
            if let Some(script) = self.scripts.get_mut(waiting.script as usize) {
                script.line_ends = Some(ends);
                done.push(waiting.script);
            }
        }
        self.waiting = later;
        done
    }
}

impl<M: Memory> Heap<M> {
    /// Decodes a ScopeInfo (V8's src/objects/scope-info.{h,tq}).
    pub(super) fn scope(&mut self, scope: u64) -> Option<Scope> {
        let row = self.layout.row;
        let slot = |index: u64| 8 + 8 * index;
        let flags = if row.scope_modern {
            self.u32_field(scope, slot(0))?
        } else {
            smi(self.field(scope, slot(0))?)? as u32
        };
        let locals = u64::try_from(self.smi_field(scope, slot(2))?).ok()?;
        let mut at = row.scope_first;
        let mut bounds = row.scope_modern.then_some(3);
        let module = if row.scope_modern { 5 } else { 3 };
        at += u64::from(flags & 15 == module);
        at += if locals < MAX_INLINE_LOCALS { 2 * locals } else { 1 + locals };
        at += u64::from(row.scope_receiver && matches!((flags >> 7) & 3, 1 | 2));
        at += u64::from(flags & (1 << 10) != 0);
        let mut out = Scope::default();
        let name = |heap: &mut Self, at: u64| {
            let word = heap.field(scope, slot(at))?;
            match pointer(word).filter(|&object| heap.is_string(object)) {
                Some(string) => heap.string(string, MAX_NAME),
                None => Some(Vec::new()),
            }
        };
        out.sound = true;
        if (flags >> 12) & 3 != 0 {
            let word = self.field(scope, slot(at))?;
            // Smi 0 stands for no name (`SharedFunctionInfo::kNoSharedNameSentinel`).
            out.sound = match pointer(word) {
                Some(object) => self.is_string(object),
                None => word == 0,
            };
            out.name = name(self, at)?;
            at += 2;
        }
        if flags & (1 << 14) != 0 {
            out.inferred = name(self, at)?;
            at += 1;
        }
        let bounds = *bounds.get_or_insert(at);
        let mut bound = |at| self.smi_field(scope, slot(at)).and_then(|at| u32::try_from(at).ok());
        (out.start, out.end) = (bound(bounds), bound(bounds + 1));
        Some(out)
    }
}
