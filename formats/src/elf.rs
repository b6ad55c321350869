//! What an ELF file says about itself: build-id, segments, needed libraries, function symbols.
//!
//! Works over any [`object::ReadRef`], so over a mapped file, a slice or a cached reader. It must
//! not know where the bytes come from, and it knows nothing of processes or load addresses: every
//! address here is an SVMA (the address as the linker wrote it), every offset a byte offset in the
//! file. Only 64-bit little-endian files are read. Tests: `elf/tests.rs`.

mod functions;
mod index;
mod info;
#[cfg(test)]
mod tests;

use object::LittleEndian as LE;
use object::elf::{self, FileHeader64, SectionHeader64, Sym64};
use object::read::ReadRef;
use object::read::elf::{FileHeader, SectionHeader, Sym};

pub use functions::{
    FunctionSymbol, SymbolSource, find_functions, for_each_function, for_each_symbol_with_prefix,
};
pub use index::{NamePos, SymbolHit, SymbolIndex};
pub use info::{ElfInfo, Segment};

/// Section headers that are read at most. A linked program has some dozens; the cap only stops a
/// hostile file from making us allocate.
const MAX_SECTIONS: u64 = 1 << 20;
/// Symbols that are read at most from one table. An unstripped node 20 has 110 000, chrome 1.5
/// million.
const MAX_SYMBOLS: u64 = 1 << 23;
/// Longest symbol name that is compared or listed, bytes. A longer one is skipped.
const MAX_NAME: usize = 16 << 10;
/// Size of one ELF64 symbol in the file, bytes (`Elf64_Sym`, elf(5)).
const SYMBOL_BYTES: u64 = 24;

/// Why an ELF file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ElfError {
    /// The file does not begin with the ELF magic number.
    #[error("cannot read elf header: not an elf file")]
    NotElf,
    /// 32-bit or big-endian.
    #[error("cannot read elf file: only 64-bit little-endian is supported, this is {0}")]
    Unsupported(&'static str),
    /// A part of the file points outside of it, or contradicts itself.
    #[error("cannot read {part} of elf file: {reason}")]
    Malformed {
        /// The part that was being read.
        part: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A count in the file is above what we are willing to read.
    #[error("cannot read {part} of elf file: {count} entries are more than the {limit} allowed")]
    TooMany {
        /// The part that was being read.
        part: &'static str,
        /// Entries that the file claims.
        count: u64,
        /// Entries that are allowed.
        limit: u64,
    },
}

impl ElfError {
    fn malformed(part: &'static str, reason: impl Into<String>) -> Self {
        Self::Malformed { part, reason: reason.into() }
    }
}

type Header = FileHeader64<LE>;
type Section = SectionHeader64<LE>;
type Symbol = Sym64<LE>;

/// Which of the two symbol tables. The order is the order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SymbolTableKind {
    /// `.symtab`: everything, but gone after `strip`.
    Symtab,
    /// `.dynsym`: what is exported, and survives `strip`.
    Dynsym,
}

/// Checks magic, class and byte order, and returns the header.
fn header<'data, R: ReadRef<'data>>(data: R) -> Result<&'data Header, ElfError> {
    // The class must be looked at first: a 32-bit header is shorter than the one read below.
    let ident = data.read_bytes_at(0, 16).map_err(|()| ElfError::NotElf)?;
    if ident.get(..4) != Some(&elf::ELFMAG[..]) {
        return Err(ElfError::NotElf);
    }
    match (ident.get(4), ident.get(5)) {
        // EI_CLASS 2 = ELFCLASS64, EI_DATA 1 = ELFDATA2LSB (elf(5)).
        (Some(2), Some(1)) => {}
        (Some(1), _) => return Err(ElfError::Unsupported("32-bit")),
        (Some(2), Some(2)) => return Err(ElfError::Unsupported("big-endian")),
        _ => return Err(ElfError::Unsupported("of an unknown class")),
    }
    Header::parse(data).map_err(|e| ElfError::malformed("header", e.to_string()))
}

/// The section headers; an absent table is an empty one (`sstrip`, or memory images).
fn sections<'data, R: ReadRef<'data>>(
    data: R,
    header: &Header,
) -> Result<&'data [Section], ElfError> {
    let fail = |e: object::read::Error| ElfError::malformed("section headers", e.to_string());
    let count = u64::from(header.shnum(LE, data).map_err(fail)?);
    if count > MAX_SECTIONS {
        return Err(ElfError::TooMany { part: "section headers", count, limit: MAX_SECTIONS });
    }
    header.section_headers(LE, data).map_err(fail)
}

/// One symbol table with the place of its strings.
#[derive(Clone, Copy)]
struct Table<'data> {
    kind: SymbolTableKind,
    symbols: &'data [Symbol],
    /// File offset of the string table.
    strings_start: u64,
    /// File offset behind the string table, inside the file.
    strings_end: u64,
}

impl<'data> Table<'data> {
    /// Reads the whole string table at once: a cached reader would otherwise seek for every name.
    fn strings<R: ReadRef<'data>>(&self, data: R) -> Result<&'data [u8], ElfError> {
        let size = self.strings_end.saturating_sub(self.strings_start);
        data.read_bytes_at(self.strings_start, size)
            .map_err(|()| ElfError::malformed("string table", "it lies outside the file"))
    }
}

/// The name at `offset` of a string table; `None` when it is empty, too long or not ended.
fn name_at(strings: &[u8], offset: u32) -> Option<&[u8]> {
    let tail = strings.get(usize::try_from(offset).ok()?..)?;
    let tail = tail.get(..MAX_NAME + 1).unwrap_or(tail);
    let name = std::ffi::CStr::from_bytes_until_nul(tail).ok()?.to_bytes();
    (!name.is_empty()).then_some(name)
}

/// The first table of one kind, if the file has one.
fn table<'data, R: ReadRef<'data>>(
    data: R,
    sections: &'data [Section],
    kind: SymbolTableKind,
) -> Result<Option<Table<'data>>, ElfError> {
    let (wanted, part) = match kind {
        SymbolTableKind::Symtab => (elf::SHT_SYMTAB, ".symtab"),
        SymbolTableKind::Dynsym => (elf::SHT_DYNSYM, ".dynsym"),
    };
    let Some(section) = sections.iter().find(|s| s.sh_type(LE) == wanted) else { return Ok(None) };
    let count = section.sh_size(LE) / SYMBOL_BYTES;
    if count > MAX_SYMBOLS {
        return Err(ElfError::TooMany { part, count, limit: MAX_SYMBOLS });
    }
    let symbols: &[Symbol] =
        section.data_as_array(LE, data).map_err(|e| ElfError::malformed(part, e.to_string()))?;
    let strings = sections
        .get(section.sh_link(LE) as usize)
        .filter(|s| s.sh_type(LE) == elf::SHT_STRTAB)
        .ok_or_else(|| ElfError::malformed(part, "its string table is missing"))?;
    let strings_start = strings.sh_offset(LE);
    let file_len = data.len().map_err(|()| ElfError::malformed(part, "file size is unknown"))?;
    let strings_end = strings_start
        .checked_add(strings.sh_size(LE))
        .filter(|end| *end <= file_len)
        .ok_or_else(|| ElfError::malformed(part, "its string table lies outside the file"))?;
    Ok(Some(Table { kind, symbols, strings_start, strings_end }))
}

/// Both tables, `.symtab` first. A file without any gives an empty list.
fn tables<'data, R: ReadRef<'data>>(
    data: R,
    sections: &'data [Section],
) -> Result<Vec<Table<'data>>, ElfError> {
    let mut found = Vec::with_capacity(2);
    for kind in [SymbolTableKind::Symtab, SymbolTableKind::Dynsym] {
        found.extend(table(data, sections, kind)?);
    }
    Ok(found)
}

/// What a symbol may be for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// `STT_FUNC`.
    Function,
    /// `STT_GNU_IFUNC`: the code there only chooses the real function.
    Indirect,
    /// `STT_NOTYPE` in executable code: hand-written assembly.
    Label,
}

/// Decides from type and section alone, without reading the name.
fn role(symbol: &Symbol, sections: &[Section], marks_code: bool) -> Option<Role> {
    let shndx = symbol.st_shndx(LE);
    // SHN_XINDEX means "more than 65279 sections", the symbol itself is an ordinary one.
    if shndx == elf::SHN_UNDEF || (shndx.is_special() && shndx != elf::SHN_XINDEX) {
        return None;
    }
    if symbol.st_name(LE) == 0 {
        return None;
    }
    match symbol.st_type() {
        elf::STT_FUNC => Some(Role::Function),
        elf::STT_GNU_IFUNC => Some(Role::Indirect),
        elf::STT_NOTYPE => {
            // Arm and RISC-V assemblers put local marks ($x, $d) at every change of code and data.
            if marks_code && symbol.st_bind() == elf::STB_LOCAL {
                return None;
            }
            let section = sections.get(usize::from(shndx.index()?))?;
            (section.sh_flags(LE) & elf::SHF_EXECINSTR != elf::SectionFlags(0))
                .then_some(Role::Label)
        }
        _ => None,
    }
}

/// Whether local `NOTYPE` symbols of this machine are marks rather than names.
fn marks_code(header: &Header) -> bool {
    matches!(header.e_machine(LE), elf::EM_AARCH64 | elf::EM_ARM | elf::EM_RISCV)
}
