//! Writes small ELF files, so that every rule of the readers can be tried on one made for it.

use object::elf;

pub(super) const GLOBAL_FUNC: u8 = 0x12;
pub(super) const WEAK_FUNC: u8 = 0x22;
pub(super) const LOCAL_FUNC: u8 = 0x02;
pub(super) const GLOBAL_IFUNC: u8 = 0x1a;
pub(super) const LOCAL_LABEL: u8 = 0x00;
pub(super) const GLOBAL_DATA: u8 = 0x11;
/// Section numbers of [`Linker::link`].
pub(super) const TEXT: u16 = 1;
pub(super) const DATA: u16 = 2;
pub(super) const TEXT2: u16 = 3;
/// Where the sections are: file offset + this.
pub(super) const BIAS: u64 = 0x40_0000;
pub(super) const TEXT_OFFSET: u64 = 0x1000;

/// name, info, section, svma, size
pub(super) type TestSymbol = (&'static str, u8, u16, u64, u64);

/// What goes into the file.
#[derive(Default)]
pub(super) struct Linker {
    pub(super) symtab: Option<Vec<TestSymbol>>,
    pub(super) dynsym: Option<Vec<TestSymbol>>,
    pub(super) build_id: Vec<u8>,
    pub(super) note_in_section_only: bool,
}

impl Linker {
    /// `.text` is 0x1000 bytes at [`TEXT_OFFSET`], `.text2` 0x100 bytes directly behind it.
    pub(super) fn link(&self) -> Vec<u8> {
        let mut file = vec![0u8; 0x1100];
        let mut sections: Vec<(u32, u64, u64, u64, u64, u32)> = vec![
            (0, 0, 0, 0, 0, 0),
            (1, 6, TEXT_OFFSET + BIAS, TEXT_OFFSET, 0x1000, 0),
            (1, 3, 0x60_0000, TEXT_OFFSET, 0x10, 0),
            (1, 6, TEXT_OFFSET + BIAS + 0x1000, TEXT_OFFSET + 0x1000, 0x100, 0),
        ];
        file.resize(0x2100, 0x90);

        let dynstr_at = file.len() as u64;
        let strings = b"\0libme.so.1\0liba.so\0libb.so\0/opt/lib\0";
        file.extend(strings);
        pad(&mut file);
        let dynamic_at = file.len() as u64;
        let dynamic = [
            (elf::DT_NEEDED, 12),
            (elf::DT_NEEDED, 20),
            (elf::DT_SONAME, 1),
            (elf::DT_RUNPATH, 28),
            (elf::DT_STRTAB, dynstr_at + BIAS),
            (elf::DT_STRSZ, strings.len() as u64),
            (elf::DT_NULL, 0),
            (elf::DT_NEEDED, 12),
        ];
        for (tag, value) in dynamic {
            file.extend(tag.0.to_le_bytes());
            file.extend(value.to_le_bytes());
        }
        let dynamic_size = file.len() as u64 - dynamic_at;

        let note_at = file.len() as u64;
        if !self.build_id.is_empty() {
            file.extend([4u32, self.build_id.len() as u32, 3].map(u32::to_le_bytes).concat());
            file.extend(b"GNU\0");
            file.extend(&self.build_id);
            pad(&mut file);
        }
        let note_size = file.len() as u64 - note_at;
        sections.push((7, 0, 0, note_at, note_size, 0));

        for (kind, symbols) in [(2, &self.symtab), (11, &self.dynsym)] {
            let Some(symbols) = symbols else { continue };
            let mut names = vec![0u8];
            pad(&mut file);
            let at = file.len() as u64;
            file.extend([0; 24]);
            for (name, info, section, svma, size) in symbols {
                file.extend((names.len() as u32).to_le_bytes());
                file.extend([*info, 0]);
                file.extend(section.to_le_bytes());
                file.extend(svma.to_le_bytes());
                file.extend(size.to_le_bytes());
                names.extend(name.as_bytes());
                names.push(0);
            }
            let end = file.len() as u64;
            file.extend(&names);
            sections.push((kind, 0, 0, at, end - at, sections.len() as u32 + 1));
            sections.push((3, 0, 0, end, names.len() as u64, 0));
        }
        pad(&mut file);
        let sections_at = file.len() as u64;
        for (kind, flags, addr, offset, size, link) in &sections {
            file.extend(0u32.to_le_bytes());
            file.extend(kind.to_le_bytes());
            file.extend([*flags, *addr, *offset, *size].map(u64::to_le_bytes).concat());
            file.extend([*link, 0].map(u32::to_le_bytes).concat());
            file.extend([4u64, 0].map(u64::to_le_bytes).concat());
        }

        // type, flags, offset, vaddr, filesz, memsz
        let note_type = if self.note_in_section_only { 0 } else { 4 };
        let programs: [(u32, u32, u64, u64, u64, u64); 4] = [
            (1, 6, TEXT_OFFSET, 0x60_0000, 0x10, 0x1000),
            (1, 5, 0, BIAS, sections_at, sections_at),
            (2, 4, dynamic_at, dynamic_at + BIAS, dynamic_size, dynamic_size),
            (note_type, 4, note_at, note_at + BIAS, note_size, note_size),
        ];
        let mut head = b"\x7fELF\x02\x01\x01".to_vec();
        head.resize(16, 0);
        head.extend([3u16, 62].map(u16::to_le_bytes).concat());
        head.extend(1u32.to_le_bytes());
        head.extend([0u64, 64, sections_at].map(u64::to_le_bytes).concat());
        head.extend(0u32.to_le_bytes());
        head.extend(
            [64u16, 56, programs.len() as u16, 64, sections.len() as u16, 0]
                .map(u16::to_le_bytes)
                .concat(),
        );
        for (kind, flags, offset, vaddr, filesz, memsz) in programs {
            head.extend([kind, flags].map(u32::to_le_bytes).concat());
            head.extend([offset, vaddr, vaddr, filesz, memsz, 8].map(u64::to_le_bytes).concat());
        }
        file[..head.len()].copy_from_slice(&head);
        file
    }
}

fn pad(file: &mut Vec<u8>) {
    file.resize(file.len().next_multiple_of(8), 0);
}
