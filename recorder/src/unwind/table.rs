//! The call frame information of one ELF file, and the rule for each place in its code.
//!
//! `.eh_frame` and `.eh_frame_hdr` as the Linux Standard Base lays them out (core, chapter 10.6).
//! The file is the observed process's: sizes are bounded, a damaged table has no rules. The search
//! in `.eh_frame_hdr` is our own, because gimli's computes with the file's numbers unchecked.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use formats::elf::ElfInfo;
use gimli::{
    BaseAddresses, CieOrFde, EhFrame, EndianSlice, FrameDescriptionEntry, LittleEndian, Section,
    UnwindContext, UnwindSection,
};
use object::elf::{FileHeader64, PT_GNU_EH_FRAME};
use object::read::ReadRef;
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::{LittleEndian as LE, elf};

use super::rule::Rule;

/// Bytes of both sections of one file at most. Node's are 3.4 MB, Chromium's 12 MB.
const MAX_BYTES: u64 = 64 << 20;
/// Bytes of one entry that are gone through for one place; compilers' are below 1 KiB, few above.
const MAX_ENTRY: usize = 64 << 10;
/// Places remembered at most; then it begins anew.
const MAX_PLACES: usize = 1 << 16;
/// Functions of a file without a usable `.eh_frame_hdr`.
const MAX_INDEX: usize = 1 << 20;
/// Encodings of `.eh_frame_hdr` that all linkers write: address of `.eh_frame` relative to its own
/// place, count of 4 bytes, a table of pairs of 4 bytes relative to the section.
const HEADER: [u8; 4] = [1, 0x1b, 0x03, 0x3b];
/// Bytes before the table.
const HEADER_BYTES: usize = 12;
/// For a place that no entry covers.
const NO_RULE: u32 = u32::MAX;

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// Unwind tables of one file.
#[derive(Debug)]
pub(super) struct Table {
    elf: ElfInfo,
    frames: Vec<u8>,
    header: Vec<u8>,
    bases: BaseAddresses,
    frames_svma: u64,
    header_svma: u64,
    /// Start of function and place of its entry; made only without a usable header.
    index: Vec<(u64, u32)>,
    /// Rule by file offset.
    places: HashMap<u64, u32, RandomState>,
    rules: Vec<Rule>,
    numbers: HashMap<Rule, u32, RandomState>,
}

/// A section of the file.
struct Part {
    svma: u64,
    offset: u64,
    size: u64,
}

impl Table {
    /// Reads the tables of a file; `None` when it has none that can be read, or more than `bytes`.
    pub(super) fn read<'data, R: ReadRef<'data>>(data: R, bytes: u64) -> Option<Self> {
        let elf = ElfInfo::parse(data).ok()?;
        let (frames, header) = find(data, &elf)?;
        let header = header.unwrap_or(Part { svma: 0, offset: 0, size: 0 });
        if frames.size.saturating_add(header.size) > bytes.min(MAX_BYTES) {
            return None;
        }
        let load = |part: &Part| {
            let bytes = data.read_bytes_at(part.offset, part.size).ok()?;
            Some(bytes.to_vec())
        };
        let mut table = Self {
            elf,
            frames: load(&frames)?,
            header: load(&header)?,
            bases: BaseAddresses::default().set_eh_frame(frames.svma),
            frames_svma: frames.svma,
            header_svma: header.svma,
            index: Vec::new(),
            places: HashMap::default(),
            rules: Vec::new(),
            numbers: HashMap::default(),
        };
        if !table.header.starts_with(&HEADER) {
            table.header = Vec::new();
            table.make_index();
        }
        Some(table)
    }

    /// Bytes that it takes, nearly.
    pub(super) fn bytes(&self) -> u64 {
        let rules = self.rules.capacity() * size_of::<Rule>();
        let numbers = self.numbers.capacity() * (size_of::<(Rule, u32)>() + 1);
        let places = self.places.capacity() * (size_of::<(u64, u32)>() + 1);
        let index = self.index.capacity() * size_of::<(u64, u32)>();
        (self.frames.len() + self.header.len() + index + rules + numbers + places) as u64
    }

    /// The section that the rules' expressions are in.
    pub(super) fn section(&self) -> &[u8] {
        &self.frames
    }

    /// The rule for the byte at a file offset. Counts `cold` down when it must be looked for; at 0
    /// it is not.
    pub(super) fn rule(
        &mut self,
        offset: u64,
        context: &mut UnwindContext<usize>,
        cold: &mut usize,
    ) -> Option<Rule> {
        let number = match self.places.get(&offset) {
            Some(&number) => number,
            None => {
                *cold = cold.checked_sub(1)?;
                let number = self.look_up(offset, context).map_or(NO_RULE, |rule| self.keep(rule));
                if self.places.len() >= MAX_PLACES {
                    self.places.clear();
                }
                self.places.insert(offset, number);
                number
            }
        };
        self.rules.get(number as usize).copied()
    }

    fn keep(&mut self, rule: Rule) -> u32 {
        if let Some(&number) = self.numbers.get(&rule) {
            return number;
        }
        if self.rules.len() >= MAX_PLACES {
            self.rules.clear();
            self.numbers.clear();
            self.places.clear();
        }
        let number = self.rules.len() as u32;
        self.rules.push(rule);
        self.numbers.insert(rule, number);
        number
    }

    fn look_up(&self, offset: u64, context: &mut UnwindContext<usize>) -> Option<Rule> {
        let svma = self.elf.file_offset_to_svma(offset)?;
        let entry = self.entry_of(svma)?;
        let section = self.eh_frame();
        let fde = self.fde(&section, entry)?;
        let long = fde.entry_len() > MAX_ENTRY || fde.cie().entry_len() > MAX_ENTRY;
        if !fde.contains(svma) || long {
            return None;
        }
        let row = fde.unwind_info_for_address(&section, &self.bases, context, svma).ok()?;
        Rule::new(row, fde.is_signal_trampoline())
    }

    fn eh_frame(&self) -> EhFrame<Bytes<'_>> {
        let mut section = EhFrame::from(EndianSlice::new(&self.frames, LittleEndian));
        section.set_address_size(8);
        section
    }

    fn fde<'a>(
        &self,
        section: &EhFrame<Bytes<'a>>,
        entry: usize,
    ) -> Option<FrameDescriptionEntry<Bytes<'a>>> {
        section.fde_from_offset(&self.bases, entry.into(), EhFrame::cie_from_offset).ok()
    }

    /// Where in `.eh_frame` the entry is that may cover an address.
    fn entry_of(&self, svma: u64) -> Option<usize> {
        if self.header.is_empty() {
            let after = self.index.partition_point(|&(start, _)| start <= svma);
            return Some(self.index.get(after.checked_sub(1)?)?.1 as usize);
        }
        let rows = self.header.get(HEADER_BYTES..)?.as_chunks::<8>().0;
        let wanted = self.header.get(8..HEADER_BYTES)?.try_into().ok()?;
        let rows = rows.get(..u32::from_le_bytes(wanted) as usize).unwrap_or(rows);
        let address = |relative: [u8; 4]| {
            self.header_svma.wrapping_add_signed(i64::from(i32::from_le_bytes(relative)))
        };
        let start = |row: &[u8; 8]| address([row[0], row[1], row[2], row[3]]);
        let after = rows.partition_point(|row| start(row) <= svma);
        let row = rows.get(after.checked_sub(1)?)?;
        let entry = address([row[4], row[5], row[6], row[7]]);
        usize::try_from(entry.checked_sub(self.frames_svma)?).ok()
    }

    /// Lists all entries.
    fn make_index(&mut self) {
        let section = self.eh_frame();
        let mut entries = section.entries(&self.bases);
        let mut index = Vec::new();
        while let Ok(Some(entry)) = entries.next() {
            let CieOrFde::Fde(fde) = entry else { continue };
            let Ok(fde) = fde.parse(EhFrame::cie_from_offset) else { continue };
            let Ok(offset) = u32::try_from(fde.offset()) else { break };
            index.push((fde.initial_address(), offset));
            if index.len() >= MAX_INDEX {
                break;
            }
        }
        index.sort_unstable();
        self.index = index;
    }
}

/// `.eh_frame` and `.eh_frame_hdr`: by the section table, else by the program headers.
fn find<'data, R: ReadRef<'data>>(data: R, elf: &ElfInfo) -> Option<(Part, Option<Part>)> {
    let file = FileHeader64::<LE>::parse(data).ok()?;
    let mut header = None;
    for program in file.program_headers(LE, data).ok()? {
        if program.p_type(LE) == PT_GNU_EH_FRAME {
            let (svma, offset) = (program.p_vaddr(LE), program.p_offset(LE));
            header = Some(Part { svma, offset, size: program.p_filesz(LE) });
        }
    }
    if let Ok(sections) = file.sections(LE, data) {
        for section in sections.iter() {
            let name = sections.section_name(LE, section);
            if name == Ok(EhFrame::<Bytes<'_>>::section_name().as_bytes())
                && section.sh_type(LE) != elf::SHT_NOBITS
                && section.sh_size(LE) > 0
            {
                let (svma, offset) = (section.sh_addr(LE), section.sh_offset(LE));
                return Some((Part { svma, offset, size: section.sh_size(LE) }, header));
            }
        }
    }
    // Without section headers: the header says where `.eh_frame` begins; it ends with a zero word.
    let known = header?;
    let start = data.read_bytes_at(known.offset, HEADER_BYTES as u64).ok()?;
    let (encodings, rest) = start.split_first_chunk::<4>()?;
    if *encodings != HEADER {
        return None;
    }
    let relative = i32::from_le_bytes(*rest.first_chunk::<4>()?);
    let svma = known.svma.wrapping_add(4).wrapping_add_signed(i64::from(relative));
    let offset = elf.svma_to_file_offset(svma)?;
    let segment = elf.segments.iter().find(|segment| {
        offset.checked_sub(segment.file_offset).is_some_and(|at| at < segment.file_size)
    })?;
    let size = segment.file_offset.saturating_add(segment.file_size) - offset;
    Some((Part { svma, offset, size }, Some(known)))
}
