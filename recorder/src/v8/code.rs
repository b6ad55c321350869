//! From a pc in compiled code to its code object, by looking backwards through the code page for
//! the object's map. Works without V8's own tables, in every version.
//!
//! What was found is kept by range and compared with the heap once a drain before it is used
//! again; what was not found is not looked for at every sample.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Instant;

use foldhash::fast::RandomState;

use super::exits::Exits;
use super::heap::{Heap, pointer};
use super::layout::CodeKind;
use super::memory::{Memory, PAGE, STALE};
use super::names::Names;
use super::positions::{PositionTable, SourcePosition};
use super::rows::CodeStart;

/// Bytes of a heap page (V8's kPageSize, src/common/globals.h).
const CODE_PAGE: u64 = 256 << 10;
/// Code larger than a page has pages of its own: so many are looked back.
const LARGE_PAGES: u64 = 16;
/// Pages read at a time when scanning.
const STEP: u64 = 4;
/// Code objects remembered at most.
const MAX_CODE: usize = 1 << 14;
/// Pages scanned in one drain at most: 8 MiB, a few milliseconds.
const SCAN_BUDGET: usize = 2048;
/// Places without code remembered at most.
const MAX_MISSING: usize = 1 << 14;
/// Longest wait, in drains, before a place without code is looked at again.
const MAX_PATIENCE: u32 = 64;
/// Largest table of positions that is read, bytes.
const MAX_TABLE: u64 = 4 << 20;
/// Inlined functions of one code object at most (the inlining id has 16 bits).
const MAX_INLINED: u64 = 1 << 16;

/// An inlined function: where it was called, and which it is.
pub type Inlined = (SourcePosition, Option<u32>);

/// A code object.
#[derive(Debug, Clone)]
pub struct Code {
    /// Tagged address of the object that the scan finds.
    stream: u64,
    /// Tagged address of the `Code`.
    pub object: u64,
    /// First instruction byte.
    pub start: u64,
    /// Behind the last.
    pub end: u64,
    /// What it is.
    pub kind: CodeKind,
    /// The same as V8 has it.
    pub flags: u32,
    /// When it was last compared.
    seen: Instant,
    /// Deoptimisation data or bytecode, as read.
    pub deopt: u64,
    /// Source positions or bytecode offsets, as read.
    pub(super) positions: u64,
    /// Drain in which it was found.
    pub since: u64,
    /// Drain in which it was last compared.
    checked: u64,
    /// The function it was made from: as optimised code says, or as was learnt.
    pub function: Option<u32>,
    details: Option<Rc<Details>>,
}

/// What optimised and baseline code know beyond their range; read when first needed.
#[derive(Debug, Default)]
pub struct Details {
    /// Source positions of optimised code.
    pub table: PositionTable,
    /// Functions inlined, by inlining id.
    pub inlined: Vec<Inlined>,
    /// Bytecode offset table of baseline code.
    pub offsets: Vec<u8>,
    /// Where optimised code is left for good.
    pub(super) exits: Exits,
}

#[derive(Debug, Clone, Copy)]
struct Missing {
    retry: u64,
    patience: u32,
}

/// Code objects by range.
#[derive(Debug, Default)]
pub struct Codes {
    by_start: BTreeMap<u64, Code>,
    missing: HashMap<u64, Missing, RandomState>,
    maps: Vec<u64>,
    drain: u64,
    left: usize,
    /// Pages scanned so far.
    pub scanned: u64,
    /// Known code objects that were not there any more.
    pub invalidated: u64,
}

impl Codes {
    /// Number of code objects known.
    pub fn len(&self) -> usize {
        self.by_start.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.by_start.is_empty()
    }

    /// The code object that contains the byte at `pc`.
    pub fn find<M: Memory>(
        &mut self,
        heap: &mut Heap<M>,
        names: &mut Names,
        pc: u64,
        drain: u64,
    ) -> Option<Code> {
        let known = self.by_start.range(..=pc).next_back().map(|(_, code)| code);
        if let Some(code) = known.filter(|code| pc < code.end) {
            let start = code.start;
            if code.checked == drain {
                return Some(code.clone());
            }
            if still_there(heap, code) && !heap.pages.is_gone() {
                let code = self.by_start.get_mut(&start)?;
                (code.checked, code.seen) = (drain, Instant::now());
                return Some(code.clone());
            }
            if heap.pages.is_gone() {
                // Nothing can be compared any more.
                return Some(code.clone()).filter(|code| code.seen.elapsed() <= STALE);
            }
            self.by_start.remove(&start);
            self.invalidated += 1;
        }
        // A code page that holds no code object at all is WebAssembly's or somebody else's.
        let page = pc & !(CODE_PAGE - 1);
        let waits = |key| self.missing.get(&key).is_some_and(|missing| drain < missing.retry);
        if waits(pc) || waits(page) {
            return None;
        }
        if self.drain != drain {
            (self.drain, self.left) = (drain, SCAN_BUDGET);
        }
        let Some(mut code) = self.scan(heap, pc, drain) else {
            // Not looked at for want of budget is not the same as not there.
            if self.left > 0 {
                self.miss(pc, drain);
            }
            return None;
        };
        self.missing.remove(&pc);
        self.missing.remove(&page);
        if matches!(code.kind, CodeKind::Maglev | CodeKind::Turbofan) {
            code.function = optimised_function(heap, names, code.deopt, drain);
        }
        if self.by_start.len() >= MAX_CODE {
            self.by_start.clear();
        }
        // What lay here before is gone.
        let overlapped: Vec<u64> =
            self.by_start.range(code.start..code.end).map(|(&start, _)| start).collect();
        for start in overlapped {
            self.by_start.remove(&start);
        }
        self.by_start.insert(code.start, code.clone());
        Some(code)
    }

    /// Where the instructions of the `Code` at tagged `object` begin.
    pub(super) fn start<M: Memory>(heap: &mut Heap<M>, object: u64) -> Option<u64> {
        match heap.layout.row.code_start {
            CodeStart::Inline(offset) => (object - 1).checked_add(offset),
            CodeStart::Field(offset) => heap.field(object, offset),
        }
    }

    /// Notes which function a code object was made from.
    pub fn learn(&mut self, start: u64, function: u32) {
        if let Some(code) = self.by_start.get_mut(&start) {
            code.function = Some(function);
        }
    }

    /// Forgets the code object that begins at `start`: it contradicts what the stack says.
    pub fn forget(&mut self, start: u64) {
        self.by_start.remove(&start);
    }

    fn miss(&mut self, pc: u64, drain: u64) {
        if self.missing.len() >= MAX_MISSING {
            self.missing.clear();
        }
        let missing = self.missing.entry(pc).or_insert(Missing { retry: drain, patience: 1 });
        missing.retry = drain + u64::from(missing.patience);
        missing.patience = (missing.patience * 2).min(MAX_PATIENCE);
    }

    fn scan<M: Memory>(&mut self, heap: &mut Heap<M>, pc: u64, drain: u64) -> Option<Code> {
        let base = pc & !(CODE_PAGE - 1);
        let mut page = pc & !(PAGE as u64 - 1);
        let mut ready = u64::MAX;
        loop {
            if page < ready {
                ready = page.saturating_sub((STEP - 1) * PAGE as u64).max(base);
                heap.pages.prefetch((ready..=page).step_by(PAGE));
            }
            match self.scan_page(heap, page, pc, drain) {
                Scanned::Found(code) => return Some(*code),
                Scanned::Outside => return None,
                Scanned::Nothing => {}
            }
            if page <= base {
                break;
            }
            page -= PAGE as u64;
        }
        if self.left > 0 {
            self.miss(base, drain);
        }
        // A large object begins at the start of its own first page.
        for back in 1..=LARGE_PAGES {
            let page = base.checked_sub(back * CODE_PAGE)?;
            match self.scan_page(heap, page, pc, drain) {
                Scanned::Found(code) => return Some(*code),
                // Some other object, or no memory: this is where our page's neighbours begin.
                Scanned::Outside => return None,
                Scanned::Nothing => {}
            }
        }
        None
    }

    fn scan_page<M: Memory>(
        &mut self,
        heap: &mut Heap<M>,
        page: u64,
        pc: u64,
        drain: u64,
    ) -> Scanned {
        if self.left == 0 {
            return Scanned::Outside;
        }
        self.left -= 1;
        let mut bytes = [0u8; PAGE];
        self.scanned += 1;
        if !heap.pages.copy(page, &mut bytes) {
            return Scanned::Outside;
        }
        for (index, word) in bytes.chunks_exact(8).enumerate().rev() {
            let mut eight = [0; 8];
            eight.copy_from_slice(word);
            let word = u64::from_le_bytes(eight);
            let at = page + index as u64 * 8;
            if at > pc || word & 3 != 1 || !self.is_code_map(heap, word) {
                continue;
            }
            // An instruction may hold the map's address as a constant; only an object whose own
            // fields agree is one.
            let Some(code) = read_code(heap, at + 1, drain) else { continue };
            if pc >= code.start && pc < code.end {
                return Scanned::Found(Box::new(code));
            }
            return Scanned::Outside;
        }
        Scanned::Nothing
    }

    /// Whether `word` is the map of code objects. It lives for ever, in read-only memory.
    fn is_code_map<M: Memory>(&mut self, heap: &mut Heap<M>, word: u64) -> bool {
        if self.maps.contains(&word) {
            return true;
        }
        if !self.maps.is_empty() || heap.type_of_map(word) != Some(heap.layout.types.stream) {
            return false;
        }
        self.maps.push(word);
        true
    }

    /// Tables of a code object, read when first needed.
    pub fn details<M: Memory>(
        &mut self,
        heap: &mut Heap<M>,
        names: &mut Names,
        code: &Code,
        drain: u64,
    ) -> Rc<Details> {
        if let Some(details) = &code.details {
            return Rc::clone(details);
        }
        let bytes = pointer(code.positions)
            .and_then(|table| heap.byte_array(table, MAX_TABLE))
            .unwrap_or_default();
        let details = Rc::new(if code.kind == CodeKind::Baseline {
            Details { offsets: bytes, ..Details::default() }
        } else {
            Details {
                table: PositionTable::decode(&bytes, heap.layout.row.position_bits),
                inlined: inlined(heap, names, code.deopt, drain).unwrap_or_default(),
                offsets: Vec::new(),
                exits: Exits::read(heap, code.deopt, code.kind == CodeKind::Maglev)
                    .unwrap_or_default(),
            }
        });
        if let Some(known) = self.by_start.get_mut(&code.start).filter(|k| k.object == code.object)
        {
            known.details = Some(Rc::clone(&details));
        }
        details
    }
}

enum Scanned {
    Found(Box<Code>),
    /// The page ends the search.
    Outside,
    Nothing,
}

/// Reads the code object whose map is at tagged `stream` and checks that it hangs together.
fn read_code<M: Memory>(heap: &mut Heap<M>, stream: u64, drain: u64) -> Option<Code> {
    let row = heap.layout.row;
    let (object, start) = match row.code_start {
        CodeStart::Inline(offset) => (stream, (stream - 1).checked_add(offset)?),
        CodeStart::Field(offset) => {
            let object = heap.pointer_field(stream, 8)?;
            if heap.type_of(object)? != heap.layout.types.code {
                return None;
            }
            let start = heap.field(object, offset)?;
            // The header of an InstructionStream is 32 or 64 bytes in all versions.
            if start.checked_sub(stream).is_none_or(|header| header > 128) {
                return None;
            }
            (object, start)
        }
    };
    let size = heap.u32_field(object, row.code_size)?;
    let flags = heap.u32_field(object, row.code_flags)?;
    Some(Code {
        stream,
        object,
        start,
        end: start.checked_add(size.into())?,
        kind: heap.layout.kind(flags),
        flags,
        seen: Instant::now(),
        deopt: heap.field(object, row.code_deopt)?,
        positions: heap.field(object, row.code_positions)?,
        since: drain,
        checked: drain,
        function: None,
        details: None,
    })
}

/// Whether a code object is still what it was.
fn still_there<M: Memory>(heap: &mut Heap<M>, code: &Code) -> bool {
    let Some(now) = heap
        .type_of(code.stream)
        .filter(|&kind| kind == heap.layout.types.stream)
        .and_then(|_| read_code(heap, code.stream, 0))
    else {
        return false;
    };
    // A compaction may move the tables; they say the same as before then, yet that cannot be seen.
    (now.object, now.start, now.end, now.kind, now.deopt, now.positions)
        == (code.object, code.start, code.end, code.kind, code.deopt, code.positions)
}

/// A literal that stands for a function: weak or not, wrapped or not.
fn function_literal<M: Memory>(
    heap: &mut Heap<M>,
    names: &mut Names,
    word: u64,
    drain: u64,
) -> Option<u32> {
    let object = pointer(word)?;
    let types = heap.layout.types;
    let kind = heap.type_of(object)?;
    let shared = if Some(kind) == types.wrapper { heap.pointer_field(object, 8)? } else { object };
    (heap.type_of(shared)? == types.sfi).then_some(())?;
    names.function(heap, shared, drain)
}

fn optimised_function<M: Memory>(
    heap: &mut Heap<M>,
    names: &mut Names,
    deopt: u64,
    drain: u64,
) -> Option<u32> {
    let word = heap.element(pointer(deopt)?, heap.layout.row.deopt_function)?;
    function_literal(heap, names, word, drain)
}

/// `InliningPosition` (V8's src/codegen/source-position.h): position u64, function id i32, padding.
fn inlined<M: Memory>(
    heap: &mut Heap<M>,
    names: &mut Names,
    deopt: u64,
    drain: u64,
) -> Option<Vec<Inlined>> {
    let row = heap.layout.row;
    let deopt = pointer(deopt)?;
    let literals = pointer(heap.element(deopt, row.deopt_literals)?)?;
    let table = pointer(heap.element(deopt, row.deopt_inlining)?)?;
    let bytes = heap.byte_array(table, MAX_INLINED * 16)?;
    let mut out = Vec::with_capacity(bytes.len() / 16);
    for entry in bytes.chunks_exact(16) {
        let (position, rest) = entry.split_at(8);
        let position = SourcePosition(u64::from_le_bytes(position.try_into().ok()?));
        let id = i32::from_le_bytes(rest.get(..4)?.try_into().ok()?);
        let function = match u64::try_from(id) {
            Ok(id) => heap
                .element(literals, id)
                .and_then(|word| function_literal(heap, names, word, drain)),
            Err(_) => None,
        };
        out.push((position, function));
    }
    Some(out)
}
