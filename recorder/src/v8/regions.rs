//! What kind of code an address of the target is in: V8's builtins, code made at run time, or a
//! file's.
//!
//! Pure: made from the text of `/proc/PID/maps` and what is known of the file that contains V8.

use std::ops::Range;

use formats::procmaps::{MapsEntry, parse_maps};

use crate::unwind::Mappings;

/// What an executable address belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// V8's embedded builtins and bytecode handlers.
    Builtins,
    /// The file that contains V8, where it is not known which part of it are the builtins.
    PerhapsBuiltins,
    /// A file's code.
    File,
    /// Memory that belongs to no file: code made at run time.
    Jit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Region {
    start: u64,
    end: u64,
    kind: Kind,
}

/// The file that contains V8, as mappings name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V8File {
    /// Device and inode.
    pub device: (u32, u32),
    /// Inode number.
    pub inode: u64,
    /// File offsets of the builtins.
    pub builtins: Option<Range<u64>>,
}

/// The executable mappings of a process, by address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Regions {
    list: Vec<Region>,
    mappings: Mappings,
}

impl Regions {
    /// From the text of `/proc/PID/maps`.
    pub fn new(pid: u32, maps: &[u8], file: &V8File) -> Self {
        let mut regions = Vec::new();
        for entry in parse_maps(maps).entries.iter().filter(|entry| entry.exec) {
            add(&mut regions, entry, file);
        }
        Self { list: regions, mappings: Mappings::new(pid, maps) }
    }

    /// What the byte at `address` belongs to.
    pub fn kind(&self, address: u64) -> Option<Kind> {
        let after = self.list.partition_point(|region| region.start <= address);
        let region = self.list.get(after.checked_sub(1)?)?;
        (address < region.end).then_some(region.kind)
    }

    /// The same for the unwinder.
    pub fn mappings(&self) -> &Mappings {
        &self.mappings
    }
}

fn add(regions: &mut Vec<Region>, entry: &MapsEntry<'_>, file: &V8File) {
    let (start, end) = (entry.start, entry.end);
    let whole = |kind| Region { start, end, kind };
    if !entry.is_file() {
        // `[vdso]` and `[vsyscall]` are the kernel's; `[anon:NAME]` is memory with a label.
        let kernel = entry
            .path
            .as_deref()
            .is_some_and(|path| path.starts_with(b"[v") || path.starts_with(b"[uprobes"));
        regions.push(whole(if kernel { Kind::File } else { Kind::Jit }));
        return;
    }
    if (entry.dev_major, entry.dev_minor) != file.device || entry.inode != file.inode {
        regions.push(whole(Kind::File));
        return;
    }
    let Some(builtins) = &file.builtins else {
        regions.push(whole(Kind::PerhapsBuiltins));
        return;
    };
    // Node 20 and later map the builtins a second time near the code they call.
    let address =
        |offset: u64| offset.saturating_sub(entry.offset).saturating_add(start).clamp(start, end);
    let (from, to) = (address(builtins.start), address(builtins.end));
    for region in [
        Region { start, end: from, kind: Kind::File },
        Region { start: from, end: to, kind: Kind::Builtins },
        Region { start: to, end, kind: Kind::File },
    ] {
        if region.start < region.end {
            regions.push(region);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_code() {
        let maps = b"400000-500000 r-xp 00000000 fe:01 9     /usr/bin/node\n\
            600000-610000 r-xp 00040000 fe:01 9     /usr/bin/node\n\
            700000-710000 rw-p 00000000 00:00 0\n\
            710000-720000 rwxp 00000000 00:00 0     [anon:v8]\n\
            800000-810000 r-xp 00000000 fe:01 10    /usr/lib/libc.so.6\n\
            900000-901000 r-xp 00000000 00:00 0     [vdso]\n";
        let mut file = V8File { device: (0xfe, 1), inode: 9, builtins: Some(0x40000..0x48000) };
        let regions = Regions::new(1, maps, &file);
        let kinds = [
            (0x400000, Some(Kind::File)),
            (0x440000, Some(Kind::Builtins)),
            (0x447fff, Some(Kind::Builtins)),
            (0x448000, Some(Kind::File)),
            (0x600000, Some(Kind::Builtins)),
            (0x608000, Some(Kind::File)),
            (0x700000, None),
            (0x710000, Some(Kind::Jit)),
            (0x80ffff, Some(Kind::File)),
            (0x900000, Some(Kind::File)),
            (0x100, None),
        ];
        for (address, kind) in kinds {
            assert_eq!(regions.kind(address), kind, "{address:#x}");
        }
        file.builtins = None;
        assert_eq!(Regions::new(1, maps, &file).kind(0x400000), Some(Kind::PerhapsBuiltins));
    }
}
