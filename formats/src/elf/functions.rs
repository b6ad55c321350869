//! From names to functions: where a probe can be put. It must not choose sites, only say where
//! functions begin; what is safe to probe is decided elsewhere.

use object::LittleEndian as LE;
use object::read::ReadRef;
use object::read::elf::Sym;

pub use super::SymbolTableKind as SymbolSource;
use super::info::{Segment, load_segments, program_headers, svma_to_offset};
use super::{
    ElfError, Header, Role, Section, Symbol, Table, header, marks_code, name_at, role, sections,
    tables,
};

/// One function of a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct FunctionSymbol {
    /// As in the file: mangled. Bytes that are not UTF-8 are replaced.
    pub name: String,
    /// Address the linker gave to its first byte.
    pub svma: u64,
    /// Bytes; 0 when the symbol does not say.
    pub size: u64,
    /// Where its first byte is in this file.
    pub file_offset: u64,
    /// The table it was found in; `.symtab` where both have it.
    pub table: SymbolSource,
    /// `STT_GNU_IFUNC`: the code here runs once and only chooses the function that is then called,
    /// so a probe here sees no calls.
    pub indirect: bool,
}

/// An opened file: both tables and what is needed to judge their symbols.
struct Functions<'data> {
    tables: Vec<Table<'data>>,
    sections: &'data [Section],
    segments: Vec<Segment>,
    marks: bool,
}

/// A symbol that is a function, before its name is copied.
struct Found<'data> {
    name: &'data [u8],
    svma: u64,
    size: u64,
    table: SymbolSource,
    indirect: bool,
}

impl<'data> Functions<'data> {
    fn open<R: ReadRef<'data>>(data: R) -> Result<Self, ElfError> {
        let header: &Header = header(data)?;
        let sections = sections(data, header)?;
        Ok(Self {
            tables: tables(data, sections)?,
            sections,
            segments: load_segments(program_headers(data, header)?),
            marks: marks_code(header),
        })
    }

    /// Calls `f` with every function whose name passes `wanted`; aliases at one address are all
    /// given. A function that both tables have may be given twice.
    fn visit<R: ReadRef<'data>>(
        &self,
        data: R,
        mut wanted: impl FnMut(&[u8], u32) -> bool,
        mut f: impl FnMut(Found<'data>),
    ) -> Result<(), ElfError> {
        for table in &self.tables {
            let strings = table.strings(data)?;
            for symbol in table.symbols {
                if !wanted(strings, symbol.st_name(LE)) {
                    continue;
                }
                if let Some(found) = self.judge(symbol, strings, table.kind) {
                    f(found);
                }
            }
        }
        Ok(())
    }

    fn judge(
        &self,
        symbol: &Symbol,
        strings: &'data [u8],
        table: SymbolSource,
    ) -> Option<Found<'data>> {
        let role = role(symbol, self.sections, self.marks)?;
        Some(Found {
            name: name_at(strings, symbol.st_name(LE))?,
            svma: symbol.st_value(LE),
            size: symbol.st_size(LE),
            table,
            indirect: role == Role::Indirect,
        })
    }

    /// `None` when no byte of the file stands behind the function (a detached debug file).
    fn place(&self, found: &Found<'data>) -> Option<FunctionSymbol> {
        Some(FunctionSymbol {
            name: String::from_utf8_lossy(found.name).into_owned(),
            svma: found.svma,
            size: found.size,
            file_offset: svma_to_offset(&self.segments, found.svma)?,
            table: found.table,
            indirect: found.indirect,
        })
    }
}

/// Finds functions by exact name, in one pass over both tables.
///
/// The answer follows the order of `names`, then addresses: a static name may stand for several
/// functions. A name that both tables give the same address comes once. What has no byte in the
/// file is left out.
///
/// # Errors
/// As [`super::SymbolIndex::build`]. A name that is not found is not an error.
pub fn find_functions<'data, R: ReadRef<'data>>(
    data: R,
    names: &[&str],
) -> Result<Vec<FunctionSymbol>, ElfError> {
    let functions = Functions::open(data)?;
    // Most symbols are refused by their first eight bytes, without looking for the end of the name.
    let mut keys: Vec<u64> = names.iter().map(|n| first_eight(n.as_bytes(), 0)).collect();
    keys.sort_unstable();
    keys.dedup();
    let wanted = |strings: &[u8], at: u32| keys.binary_search(&first_eight(strings, at)).is_ok();
    let mut hits: Vec<(usize, Found<'data>)> = Vec::new();
    functions.visit(data, wanted, |found| {
        if let Some(i) = names.iter().position(|n| n.as_bytes() == found.name) {
            hits.push((i, found));
        }
    })?;
    hits.sort_by_key(|(i, f)| (*i, f.svma, f.table));
    hits.dedup_by_key(|(i, f)| (*i, f.svma));
    Ok(hits.iter().filter_map(|(_, f)| functions.place(f)).collect())
}

/// Calls `f` with the name, the SVMA and the size in bytes of every symbol, function or data, whose
/// name begins with one of `prefixes`. A symbol that both tables have is given twice.
///
/// # Errors
/// As [`find_functions`].
pub fn for_each_symbol_with_prefix<'data, R: ReadRef<'data>>(
    data: R,
    prefixes: &[&[u8]],
    mut f: impl FnMut(&'data [u8], u64, u64),
) -> Result<(), ElfError> {
    let header: &Header = header(data)?;
    for table in tables(data, sections(data, header)?)? {
        let strings = table.strings(data)?;
        for symbol in table.symbols {
            let at = symbol.st_name(LE);
            let tail =
                usize::try_from(at).ok().and_then(|at| strings.get(at..)).unwrap_or_default();
            // The end of a name is looked for only where its beginning fits.
            if prefixes.iter().any(|prefix| tail.starts_with(prefix))
                && let Some(name) = name_at(strings, at)
            {
                f(name, symbol.st_value(LE), symbol.st_size(LE));
            }
        }
    }
    Ok(())
}

/// Calls `f` with every function of the file: those of `.symtab` in its order, then those that only
/// `.dynsym` has. Aliases all appear. What has no byte in the file is left out.
///
/// # Errors
/// As [`find_functions`].
pub fn for_each_function<'data, R: ReadRef<'data>>(
    data: R,
    mut f: impl FnMut(FunctionSymbol),
) -> Result<(), ElfError> {
    let functions = Functions::open(data)?;
    let both = functions.tables.len() > 1;
    let mut seen: Vec<(u64, &[u8])> = Vec::new();
    let mut sorted = false;
    functions.visit(
        data,
        |_, _| true,
        |found| {
            if both && found.table == SymbolSource::Symtab {
                seen.push((found.svma, found.name));
            } else if both {
                if !sorted {
                    seen.sort_unstable();
                    sorted = true;
                }
                if seen.binary_search(&(found.svma, found.name)).is_ok() {
                    return;
                }
            }
            if let Some(symbol) = functions.place(&found) {
                f(symbol);
            }
        },
    )
}

/// The first eight bytes of the name at `at`, filled with zeros behind its end.
fn first_eight(strings: &[u8], at: u32) -> u64 {
    let tail = usize::try_from(at).ok().and_then(|at| strings.get(at..)).unwrap_or_default();
    let mut key = [0u8; 8];
    for (to, from) in key.iter_mut().zip(tail.iter().take_while(|b| **b != 0)) {
        *to = *from;
    }
    u64::from_le_bytes(key)
}
