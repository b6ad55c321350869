//! What code is that V8 made at run time and that belongs to no JavaScript function: regular
//! expressions, WebAssembly, stubs, and the copies of its builtins.
//!
//! Up to V8 10 the embedded builtins are copied into memory near the code that calls them (V8's
//! `CodeRange::RemapEmbeddedBuiltins`): byte by byte, so that an address in the copy is one in the
//! file, whose symbols name it. Later versions map the file a second time instead.

use std::ops::Range;

use formats::procmaps::parse_maps;

use super::memory::{Memory, PAGE};
use crate::sys::vm::RemoteRead;

/// Bytes of the builtins that a copy must begin with.
const HEAD: usize = 64;
/// Places looked at in one system call.
const BATCH: usize = 64;
/// Places in which a copy is compared with its original, beside the beginning.
const PLACES: u64 = 64;
/// Bytes of memory in which a copy is looked for: V8's code range has at most 128 MiB there.
const MAX_SEARCH: u64 = 128 << 20;

/// Pages not used yet that are skipped at the beginning of a mapping.
const MAX_UNUSED: usize = 64;

/// Code made at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Generated {
    /// A regular expression.
    RegExp,
    /// WebAssembly, or a call into or out of it.
    WebAssembly,
    /// Some other stub of V8's.
    Stub,
    /// A copy of what is at this offset of the file that contains V8.
    BuiltinCopy {
        /// Offset in the file, bytes.
        file_offset: u64,
    },
}

/// What memory holds that is not V8's heap: copies of the builtins, and WebAssembly.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// Where a copy lies.
    found: Vec<Range<u64>>,
    /// Mappings of WebAssembly.
    modules: Vec<(u64, u64)>,
    /// Mappings that were looked through.
    searched: Vec<(u64, u64)>,
}

impl Copies {
    /// The offset in the builtins of an address in a copy.
    pub(super) fn offset(&self, address: u64) -> Option<u64> {
        let copy = self.found.iter().find(|copy| copy.contains(&address))?;
        Some(address - copy.start)
    }

    /// Whether an address is in the code of a WebAssembly module.
    pub(super) fn in_module(&self, address: u64) -> bool {
        self.modules.iter().any(|&(start, end)| (start..end).contains(&address))
    }

    /// Looks through memory that is new since the last call. `original` is where the builtins of the
    /// file are mapped, when there may be copies of them.
    pub(super) fn search<M: Memory>(
        &mut self,
        memory: &mut M,
        maps: &[u8],
        original: Option<&Range<u64>>,
    ) {
        let entries = parse_maps(maps).entries;
        let memory_only = entries.iter().filter(|entry| {
            let named = entry.path.as_deref().is_some_and(|path| !path.starts_with(b"[anon"));
            entry.exec && entry.read && !entry.is_file() && !named
        });
        let ranges: Vec<(u64, u64)> = memory_only.map(|entry| (entry.start, entry.end)).collect();
        self.searched.retain(|known| ranges.contains(known));
        self.found.retain(|copy| {
            ranges.iter().any(|&(start, end)| start <= copy.start && copy.end <= end)
        });
        self.modules.retain(|known| ranges.contains(known));
        let mut head = [0; HEAD];
        let original = original.filter(|original| fill(memory, original.start, &mut head));
        for range in ranges {
            let (start, end) = range;
            if self.searched.contains(&range) || end - start > MAX_SEARCH {
                continue;
            }
            if begins_with_jump_table(memory, start, end) {
                self.modules.push(range);
                self.searched.push(range);
                continue;
            }
            // A module's jump table is written soon after its memory was made: that may be now.
            let Some(original) = original else { continue };
            self.searched.push(range);
            let size = original.end.saturating_sub(original.start);
            let last = end.saturating_sub(size);
            let pages: Vec<u64> =
                (start..).step_by(PAGE).take_while(|&at| at <= last && size > 0).collect();
            for at in begin_with(memory, &pages, &head) {
                let copy = at..at + size;
                if !self.found.contains(&copy) && same(memory, original, at) {
                    self.found.push(copy);
                }
            }
        }
    }
}

/// Whether the first bytes written in a mapping are those of a WebAssembly module's code: a table of
/// jumps to its functions (V8's src/wasm/jump-table-assembler.h: `jmp rel32` and filling), the first
/// of which stays in the mapping. No page of V8's heap begins so.
fn begins_with_jump_table<M: Memory>(memory: &mut M, start: u64, end: u64) -> bool {
    let mut slot = [0u8; 8];
    // Memory for another module may lie before it, not used yet.
    let used = (start..end)
        .step_by(PAGE)
        .take(MAX_UNUSED)
        .find(|&page| fill(memory, page, &mut slot) && slot != [0; 8]);
    let Some(page) = used else { return false };
    let [0xe9, a, b, c, d, filling @ ..] = slot else { return false };
    let target = i64::from(i32::from_le_bytes([a, b, c, d])) + 5;
    let inside = u64::try_from(target).is_ok_and(|target| target >= 8 && target < end - page);
    inside && (filling == [0; 3] || filling == [0xcc; 3])
}

/// The pages that begin with these bytes.
fn begin_with<M: Memory>(memory: &mut M, pages: &[u64], head: &[u8; HEAD]) -> Vec<u64> {
    let mut out = Vec::new();
    for batch in pages.chunks(BATCH) {
        let mut buffers = [[0u8; HEAD]; BATCH];
        let mut places: Vec<RemoteRead<'_>> = batch
            .iter()
            .zip(&mut buffers)
            .map(|(&at, buffer)| RemoteRead::new(at, buffer))
            .collect();
        if memory.read(&mut places).is_err() {
            break;
        }
        let complete: Vec<bool> = places.iter().map(RemoteRead::is_complete).collect();
        let equal = batch.iter().zip(&buffers).zip(complete);
        out.extend(
            equal.filter(|((_, bytes), complete)| *complete && *bytes == head).map(|it| it.0.0),
        );
    }
    out
}

/// Whether memory at `copy` is the same as the original, as far as spread places tell.
fn same<M: Memory>(memory: &mut M, original: &Range<u64>, copy: u64) -> bool {
    let size = original.end - original.start;
    let last = size.saturating_sub(HEAD as u64);
    (0..=PLACES).all(|place| {
        let at = last / PLACES * place;
        let (mut first, mut second) = ([0; HEAD], [0; HEAD]);
        fill(memory, original.start + at, &mut first)
            && fill(memory, copy + at, &mut second)
            && first == second
    })
}

fn fill<M: Memory>(memory: &mut M, at: u64, bytes: &mut [u8]) -> bool {
    let mut places = [RemoteRead::new(at, bytes)];
    memory.read(&mut places).is_ok() && places[0].is_complete()
}

/// Where file offsets of the file that contains V8 are mapped for execution.
pub(super) fn mapped(
    maps: &[u8],
    inode: u64,
    device: (u32, u32),
    of: &Range<u64>,
) -> Option<Range<u64>> {
    parse_maps(maps).entries.iter().find_map(|entry| {
        let same = entry.inode == inode && (entry.dev_major, entry.dev_minor) == device;
        let start = of.start.checked_sub(entry.offset)?.checked_add(entry.start)?;
        let end = start.checked_add(of.end.checked_sub(of.start)?)?;
        (same && entry.exec && end <= entry.end).then_some(start..end)
    })
}

#[cfg(test)]
mod tests {
    use super::super::memory::Image;
    use super::*;

    fn image(flip: Option<usize>) -> Image {
        let mut image = Image::default();
        for page in 0..3u64 {
            let bytes: Vec<u8> = (0..PAGE).map(|at| (at as u64 * 31 + page * 7) as u8).collect();
            image.pages.insert(0x40_0000 + page * PAGE as u64, bytes.clone());
            let mut copy = bytes;
            if let Some(flip) = flip.filter(|_| page == 2) {
                copy[flip] ^= 1;
            }
            image.pages.insert(0x70_1000 + page * PAGE as u64, copy);
        }
        image.pages.insert(0x70_0000, vec![0; PAGE]);
        image
    }

    const MAPS: &[u8] = b"3ff000-403000 r-xp 00010000 fe:01 9     /usr/bin/node\n\
        700000-704000 r-xp 00000000 00:00 0\n";

    #[test]
    fn a_copy_is_found_and_leads_to_the_file() {
        let original = mapped(MAPS, 9, (0xfe, 1), &(0x11000..0x14000)).unwrap();
        assert_eq!(original, 0x40_0000..0x40_3000);
        let mut copies = Copies::default();
        copies.search(&mut image(None), MAPS, Some(&original));
        assert_eq!(copies.offset(0x70_1010), Some(0x10));
        assert_eq!(copies.offset(0x70_3fff), Some(0x2fff));
        assert_eq!((copies.offset(0x70_0fff), copies.offset(0x70_4000)), (None, None));
        // Its memory is gone.
        copies.search(&mut image(None), b"", Some(&original));
        assert_eq!(copies.offset(0x70_1010), None);
    }

    #[test]
    fn a_module_begins_with_jumps_into_itself() {
        let maps = b"700000-701000 rwxp 00000000 00:00 0\n";
        let maps = maps.as_slice();
        let found = |slot: [u8; 8]| {
            let mut page = vec![0; PAGE];
            page[..8].copy_from_slice(&slot);
            let mut image = Image::default();
            image.pages.insert(0x70_0000, page);
            let mut copies = Copies::default();
            copies.search(&mut image, maps, None);
            copies.in_module(0x70_0800)
        };
        assert!(found([0xe9, 0x7b, 7, 0, 0, 0xcc, 0xcc, 0xcc]));
        assert!(found([0xe9, 0xfb, 8, 0, 0, 0, 0, 0]));
        // Out of the mapping, back, other filling, another instruction.
        assert!(!found([0xe9, 0xfb, 0x10, 0, 0, 0, 0, 0]));
        assert!(!found([0xe9, 0xf0, 0xff, 0xff, 0xff, 0, 0, 0]));
        assert!(!found([0xe9, 0x7b, 7, 0, 0, 0xcc, 0, 1]));
        assert!(!found([0xe8, 0x7b, 7, 0, 0, 0xcc, 0xcc, 0xcc]));
    }

    #[test]
    fn what_only_begins_alike_is_no_copy() {
        let original = 0x40_0000..0x40_3000;
        let mut copies = Copies::default();
        copies.search(&mut image(Some(PAGE - 1)), MAPS, Some(&original));
        assert_eq!(copies.offset(0x70_1010), None);
        assert_eq!(mapped(MAPS, 9, (0xfe, 1), &(0x11000..0x15000)), None);
        assert_eq!(mapped(MAPS, 8, (0xfe, 1), &(0x11000..0x14000)), None);
    }
}
