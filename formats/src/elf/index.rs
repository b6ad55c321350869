//! From an address to the function that contains it: a compact, sorted index whose names stay in
//! the file. It must not guess: an address past the end of a sized symbol has no name.

use std::cmp::Ordering;

use object::LittleEndian as LE;
use object::elf;
use object::read::ReadRef;
use object::read::elf::{SectionHeader, Sym};

use super::{
    ElfError, Role, Section, Symbol, SymbolTableKind, Table, header, marks_code, name_at, role,
    sections, tables,
};

/// Entries that share one pair of end marks, see [`SymbolIndex::lookup`].
const BLOCK: usize = 64;
/// Bit of [`NamePos`] that says the name is in the strings of `.dynsym`.
const DYNSYM_BIT: u32 = 1 << 31;

/// Where a name stands: an offset into the strings of one of the two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamePos(u32);

impl NamePos {
    /// `None` for string tables of 2 GiB and more.
    fn new(kind: SymbolTableKind, offset: u32) -> Option<Self> {
        let bit = if kind == SymbolTableKind::Dynsym { DYNSYM_BIT } else { 0 };
        (offset < DYNSYM_BIT).then_some(Self(offset | bit))
    }

    fn kind(self) -> SymbolTableKind {
        if self.0 & DYNSYM_BIT == 0 { SymbolTableKind::Symtab } else { SymbolTableKind::Dynsym }
    }

    fn offset(self) -> u32 {
        self.0 & !DYNSYM_BIT
    }
}

/// The symbol that contains an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SymbolHit {
    /// First address of the symbol.
    pub svma: u64,
    /// Bytes it covers; for a symbol that states none, up to the next symbol or its section's end.
    pub size: u64,
    /// Where its name stands, for [`SymbolIndex::read_name`].
    pub name: NamePos,
}

#[derive(Clone, Copy)]
struct Entry {
    svma: u64,
    /// Saturates at 4 GiB.
    size: u32,
    name: NamePos,
}

impl Entry {
    fn end(&self) -> u64 {
        self.svma.saturating_add(u64::from(self.size))
    }
}

/// A sorted index of function symbols, 16 bytes a symbol.
///
/// Of several symbols at one address one is kept. The rule is that of `perf` (`choose_best_symbol`
/// in the kernel's tools/perf/util/symbol.c), so that names can be compared: a sized symbol before
/// one without size, a function before an assembly label, not weak before weak, global before
/// local; then `.symtab` before `.dynsym`, fewer leading underscores, the longer name, and the one
/// that comes first in the file.
#[derive(Clone)]
pub struct SymbolIndex {
    entries: Vec<Entry>,
    /// Largest end address within each block of entries.
    block_end: Vec<u64>,
    /// Largest end address within each block and all blocks before it.
    prefix_end: Vec<u64>,
    /// File ranges of the strings of `.symtab` and `.dynsym`.
    strings: [Option<(u64, u64)>; 2],
}

impl std::fmt::Debug for SymbolIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SymbolIndex")
            .field("symbols", &self.entries.len())
            .field("strings", &self.strings)
            .finish_non_exhaustive()
    }
}

/// A symbol while the index is being built; `rank` is higher for the better of two aliases.
#[derive(Clone, Copy)]
struct Candidate {
    entry: Entry,
    rank: u8,
}

impl SymbolIndex {
    /// Builds the index of `.symtab` and `.dynsym` together.
    ///
    /// A file without symbols gives an empty index. Names are not read, except of aliases that
    /// nothing else tells apart. A cached reader keeps both tables, and perhaps the strings, in
    /// memory until it is dropped.
    ///
    /// # Errors
    /// As [`super::ElfInfo::parse`], and [`ElfError::TooMany`] or [`ElfError::Malformed`] for a
    /// symbol table that is too large or lies outside the file.
    pub fn build<'data, R: ReadRef<'data>>(data: R) -> Result<Self, ElfError> {
        let header = header(data)?;
        let sections = sections(data, header)?;
        let tables = tables(data, sections)?;
        let marks = marks_code(header);
        let mut found = Vec::with_capacity(tables.iter().map(|t| t.symbols.len()).sum());
        let mut strings = [None; 2];
        for table in &tables {
            strings[table.kind as usize] = Some((table.strings_start, table.strings_end));
            found.extend(table.symbols.iter().filter_map(|s| candidate(s, table, sections, marks)));
        }
        // Stable: among equals the order of the file decides.
        found.sort_by(|a, b| {
            let by_table = |c: &Candidate| c.entry.name.kind();
            (a.entry.svma.cmp(&b.entry.svma))
                .then(b.rank.cmp(&a.rank))
                .then(by_table(a).cmp(&by_table(b)))
        });
        let mut entries = keep_best(data, &tables, &found)?;
        drop_inner_labels(&mut entries);
        close_open_ends(&mut entries, &section_ends(sections));
        let block_end: Vec<u64> =
            entries.chunks(BLOCK).map(|b| b.iter().map(Entry::end).max().unwrap_or(0)).collect();
        let prefix_end = block_end
            .iter()
            .scan(0, |max, end| {
                *max = (*max).max(*end);
                Some(*max)
            })
            .collect();
        Ok(Self { entries, block_end, prefix_end, strings })
    }

    /// Number of symbols.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the file had no function symbol at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of memory that the index holds.
    pub fn memory_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
            + (self.block_end.capacity() + self.prefix_end.capacity()) * size_of::<u64>()
    }

    /// The symbol that contains `svma`; of nested symbols the innermost.
    pub fn lookup(&self, svma: u64) -> Option<SymbolHit> {
        let mut upto = self.entries.partition_point(|e| e.svma <= svma);
        // Mostly the first entry looked at is the answer. Where symbols overlap, an earlier and
        // larger one may be: walk back, over whole blocks by their largest end, until none can
        // reach.
        while upto > 0 {
            let block = (upto - 1) / BLOCK;
            if self.prefix_end.get(block).is_none_or(|end| *end <= svma) {
                return None;
            }
            let from = block * BLOCK;
            if self.block_end.get(block).is_some_and(|end| *end > svma) {
                let hit = self.entries.get(from..upto)?.iter().rev().find(|e| e.end() > svma);
                if let Some(e) = hit {
                    return Some(SymbolHit { svma: e.svma, size: u64::from(e.size), name: e.name });
                }
            }
            upto = from;
        }
        None
    }

    /// Reads a name that [`lookup`](Self::lookup) gave, from the same file. A name longer than
    /// `max_len` bytes is cut to `max_len`. Names are as in the file: not demangled and not always
    /// UTF-8.
    ///
    /// # Errors
    /// [`ElfError::Malformed`] when the name lies outside the string table or cannot be read.
    pub fn read_name<'data, R: ReadRef<'data>>(
        &self,
        data: R,
        name: NamePos,
        max_len: usize,
    ) -> Result<Vec<u8>, ElfError> {
        let fail = |reason| ElfError::malformed("symbol name", reason);
        let (start, end) = self.strings[name.kind() as usize]
            .ok_or_else(|| fail("its string table is missing"))?;
        let from = start
            .checked_add(u64::from(name.offset()))
            .filter(|from| *from < end)
            .ok_or_else(|| fail("it lies outside the string table"))?;
        let max_len = u64::try_from(max_len).unwrap_or(u64::MAX);
        let to = end.min(from.saturating_add(max_len.saturating_add(1)));
        if let Ok(bytes) = data.read_bytes_at_until(from..to, 0) {
            return Ok(bytes.to_vec());
        }
        // No NUL within reach (a cached reader looks 4096 bytes far): take what is there.
        let size = (end - from).min(max_len);
        let bytes = data.read_bytes_at(from, size).map_err(|()| fail("it cannot be read"))?;
        Ok(bytes.split(|b| *b == 0).next().unwrap_or_default().to_vec())
    }
}

fn candidate(
    symbol: &Symbol,
    table: &Table<'_>,
    sections: &[Section],
    marks: bool,
) -> Option<Candidate> {
    let role = role(symbol, sections, marks)?;
    let size = symbol.st_size(LE);
    let bind = symbol.st_bind();
    let rank = u8::from(size != 0) << 3
        | u8::from(role != Role::Label) << 2
        | u8::from(bind != elf::STB_WEAK) << 1
        | u8::from(bind == elf::STB_GLOBAL);
    let entry = Entry {
        svma: symbol.st_value(LE),
        size: u32::try_from(size).unwrap_or(u32::MAX),
        name: NamePos::new(table.kind, symbol.st_name(LE))?,
    };
    Some(Candidate { entry, rank })
}

/// Keeps one symbol an address. `found` is sorted by address, rank and table.
fn keep_best<'data, R: ReadRef<'data>>(
    data: R,
    tables: &[Table<'data>],
    found: &[Candidate],
) -> Result<Vec<Entry>, ElfError> {
    // Read only when there is a pair that needs it.
    let mut strings: [Option<&[u8]>; 2] = [None; 2];
    let mut entries: Vec<Entry> = Vec::with_capacity(found.len());
    for same in found.chunk_by(|a, b| a.entry.svma == b.entry.svma) {
        let Some(mut best) = same.first() else { continue };
        for other in same.get(1..).unwrap_or_default() {
            let kind = best.entry.name.kind();
            if other.rank != best.rank || other.entry.name.kind() != kind {
                break;
            }
            if strings[kind as usize].is_none() {
                let table = tables.iter().find(|t| t.kind == kind);
                strings[kind as usize] = table.map(|t| t.strings(data)).transpose()?;
            }
            let table = strings[kind as usize].unwrap_or_default();
            let name = |c: &Candidate| name_at(table, c.entry.name.offset()).unwrap_or_default();
            if compare_names(name(other), name(best)) == Ordering::Greater {
                best = other;
            }
        }
        entries.push(best.entry);
    }
    entries.shrink_to_fit();
    Ok(entries)
}

/// Which of two names is better: fewer leading underscores, then the longer.
fn compare_names(a: &[u8], b: &[u8]) -> Ordering {
    let underscores = |n: &[u8]| n.iter().take_while(|c| **c == b'_').count();
    underscores(b).cmp(&underscores(a)).then(a.len().cmp(&b.len()))
}

/// Address ranges of the executable sections, sorted.
fn section_ends(sections: &[Section]) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = sections
        .iter()
        .filter(|s| s.sh_flags(LE) & elf::SHF_EXECINSTR != elf::SectionFlags(0))
        .map(|s| (s.sh_addr(LE), s.sh_addr(LE).saturating_add(s.sh_size(LE))))
        .collect();
    ranges.sort_unstable();
    ranges
}

/// Drops labels without a size inside a sized symbol: they mark a place in it, not another function.
fn drop_inner_labels(entries: &mut Vec<Entry>) {
    let mut covered = 0;
    entries.retain(|entry| {
        covered = covered.max(entry.end());
        entry.size != 0 || entry.svma >= covered
    });
}

/// Gives symbols without a size the room up to the next symbol, never past their section.
fn close_open_ends(entries: &mut [Entry], sections: &[(u64, u64)]) {
    let mut next = u64::MAX;
    for entry in entries.iter_mut().rev() {
        if entry.size == 0 {
            let section = sections.partition_point(|(start, _)| *start <= entry.svma);
            let end = section.checked_sub(1).and_then(|i| sections.get(i)).map_or(0, |s| s.1);
            let size = end.min(next).saturating_sub(entry.svma);
            entry.size = u32::try_from(size).unwrap_or(u32::MAX);
        }
        next = entry.svma;
    }
}
