//! Identity and layout of an ELF file. It must not read symbol tables, only say that they exist.

use object::LittleEndian as LE;
use object::elf::{self, Dyn64, ProgramHeader64};
use object::read::ReadRef;
use object::read::elf::{Dyn, FileHeader, NoteIterator, ProgramHeader, SectionHeader};

use super::{ElfError, Header, header, sections};

/// Bytes of one note segment or section that are read at most; build-ids live in some 100 bytes.
const MAX_NOTE_BYTES: u64 = 1 << 20;
/// Bytes of the dynamic segment that are read at most (16 bytes an entry).
const MAX_DYNAMIC_BYTES: u64 = 1 << 20;
/// Bytes of one library name or run path that are read at most.
const MAX_STRING: u64 = 4096;
/// Longest build-id that is believed, bytes. Linkers write 8, 16 or 20.
const MAX_BUILD_ID: usize = 64;

/// One `PT_LOAD` segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where the segment begins in the file, bytes.
    pub file_offset: u64,
    /// Bytes of the segment that are in the file.
    pub file_size: u64,
    /// Address the linker gave to its first byte.
    pub svma: u64,
    /// Bytes of the segment in memory; what is beyond `file_size` is zero.
    pub mem_size: u64,
    /// Whether it is mapped executable.
    pub executable: bool,
}

/// Identity and layout of one ELF file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ElfInfo {
    /// The `NT_GNU_BUILD_ID` note, absent when the linker wrote none.
    pub build_id: Option<Vec<u8>>,
    /// `PT_LOAD` segments in file order.
    pub segments: Vec<Segment>,
    /// `ET_DYN`: a shared library or position-independent program.
    pub is_dyn: bool,
    /// Whether `.symtab` is there (not stripped).
    pub has_symtab: bool,
    /// Whether `.dynsym` is there.
    pub has_dynsym: bool,
    /// `DT_SONAME`.
    pub soname: Option<String>,
    /// `DT_NEEDED` in order. Bytes that are not UTF-8 are replaced.
    pub needed: Vec<String>,
    /// `DT_RUNPATH`, else `DT_RPATH`.
    pub runpath: Option<String>,
}

impl ElfInfo {
    /// Reads header, segments, notes and the dynamic table.
    ///
    /// A damaged note or dynamic table is treated as absent: the segments alone are useful.
    ///
    /// # Errors
    /// [`ElfError::NotElf`], [`ElfError::Unsupported`], or [`ElfError::Malformed`] when program or
    /// section headers lie outside the file.
    pub fn parse<'data, R: ReadRef<'data>>(data: R) -> Result<Self, ElfError> {
        let header = header(data)?;
        let programs = program_headers(data, header)?;
        let sections = sections(data, header)?;
        let segments = load_segments(programs);
        let has = |kind| sections.iter().any(|s| s.sh_type(LE) == kind);
        let mut info = Self {
            build_id: build_id(data, programs, sections),
            segments,
            is_dyn: header.e_type(LE) == elf::ET_DYN,
            has_symtab: has(elf::SHT_SYMTAB),
            has_dynsym: has(elf::SHT_DYNSYM),
            soname: None,
            needed: Vec::new(),
            runpath: None,
        };
        info.read_dynamic(data, programs);
        Ok(info)
    }

    /// SVMA of a byte of the file, through the segment that holds it; executable ones are asked
    /// first.
    pub fn file_offset_to_svma(&self, offset: u64) -> Option<u64> {
        offset_to_svma(&self.segments, offset)
    }

    /// File offset of an SVMA; `None` where no byte of the file stands behind the address.
    pub fn svma_to_file_offset(&self, svma: u64) -> Option<u64> {
        svma_to_offset(&self.segments, svma)
    }

    fn read_dynamic<'data, R: ReadRef<'data>>(
        &mut self,
        data: R,
        programs: &'data [ProgramHeader64<LE>],
    ) {
        let Some(program) = programs
            .iter()
            .find(|p| p.p_type(LE) == elf::PT_DYNAMIC && p.p_filesz(LE) <= MAX_DYNAMIC_BYTES)
        else {
            return;
        };
        let Ok(entries) = program.data_as_array::<Dyn64<LE>, R>(LE, data) else { return };
        let end = entries.iter().position(|d| d.tag(LE) == elf::DT_NULL);
        let entries = entries.get(..end.unwrap_or(entries.len())).unwrap_or(entries);
        let value = |tag| entries.iter().find(|d| d.tag(LE) == tag).map(|d| d.val(LE));
        let (Some(table), Some(size)) = (value(elf::DT_STRTAB), value(elf::DT_STRSZ)) else {
            return;
        };
        let Some(start) = self.svma_to_file_offset(table) else { return };
        let end = start.saturating_add(size).min(data.len().unwrap_or(0));
        let string = |offset: u64| {
            let from = start.checked_add(offset).filter(|from| *from < end)?;
            let to = end.min(from.saturating_add(MAX_STRING));
            let bytes = data.read_bytes_at_until(from..to, 0).ok()?;
            Some(String::from_utf8_lossy(bytes).into_owned())
        };
        self.soname = value(elf::DT_SONAME).and_then(string);
        self.runpath = value(elf::DT_RUNPATH).or_else(|| value(elf::DT_RPATH)).and_then(string);
        // 4096 libraries are far beyond what a loader can take; the cap bounds hostile tables.
        self.needed = entries
            .iter()
            .filter(|d| d.tag(LE) == elf::DT_NEEDED)
            .take(4096)
            .filter_map(|d| string(d.val(LE)))
            .collect();
    }
}

/// The program headers of the file.
pub(super) fn program_headers<'data, R: ReadRef<'data>>(
    data: R,
    header: &Header,
) -> Result<&'data [ProgramHeader64<LE>], ElfError> {
    header
        .program_headers(LE, data)
        .map_err(|e| ElfError::malformed("program headers", e.to_string()))
}

/// The `PT_LOAD` segments in file order.
pub(super) fn load_segments(programs: &[ProgramHeader64<LE>]) -> Vec<Segment> {
    programs
        .iter()
        .filter(|p| p.p_type(LE) == elf::PT_LOAD)
        .map(|p| Segment {
            file_offset: p.p_offset(LE),
            file_size: p.p_filesz(LE),
            svma: p.p_vaddr(LE),
            mem_size: p.p_memsz(LE),
            executable: p.p_flags(LE) & elf::PF_X != elf::ProgramFlags(0),
        })
        .collect()
}

fn offset_to_svma(segments: &[Segment], offset: u64) -> Option<u64> {
    let through = |s: &Segment| {
        let delta = offset.checked_sub(s.file_offset)?;
        if delta < s.file_size { s.svma.checked_add(delta) } else { None }
    };
    let (code, other) = (segments.iter().filter(|s| s.executable), segments.iter());
    code.chain(other).find_map(through)
}

/// See [`ElfInfo::svma_to_file_offset`].
pub(super) fn svma_to_offset(segments: &[Segment], svma: u64) -> Option<u64> {
    segments.iter().find_map(|s| {
        let delta = svma.checked_sub(s.svma)?;
        if delta < s.file_size { s.file_offset.checked_add(delta) } else { None }
    })
}

fn build_id<'data, R: ReadRef<'data>>(
    data: R,
    programs: &'data [ProgramHeader64<LE>],
    sections: &'data [super::Section],
) -> Option<Vec<u8>> {
    let from_segments = programs
        .iter()
        .filter(|p| p.p_type(LE) == elf::PT_NOTE && p.p_filesz(LE) <= MAX_NOTE_BYTES)
        .filter_map(|p| p.notes(LE, data).ok().flatten());
    // Files without program headers (kernel modules, detached debug files of some tools).
    let from_sections = sections
        .iter()
        .filter(|s| s.sh_type(LE) == elf::SHT_NOTE && s.sh_size(LE) <= MAX_NOTE_BYTES)
        .filter_map(|s| s.notes(LE, data).ok().flatten());
    from_segments.chain(from_sections).find_map(build_id_of)
}

fn build_id_of(notes: NoteIterator<'_, Header>) -> Option<Vec<u8>> {
    notes
        .map_while(Result::ok)
        .find(|n| n.name() == elf::ELF_NOTE_GNU && n.n_type(LE) == elf::NT_GNU_BUILD_ID)
        .map(|n| n.desc().to_vec())
        .filter(|id| !id.is_empty() && id.len() <= MAX_BUILD_ID)
}
