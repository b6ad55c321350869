//! All objects of some types in a process's heap, found by looking through its memory once.
//!
//! Nothing says where V8's heap begins, but the map of all maps points to itself, lies in read-only
//! memory, and the maps of V8's own objects are beside it. Dead objects that nothing has overwritten
//! yet are found, too: what is read of them must be checked. Knows no names.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use foldhash::fast::RandomState;
use formats::procmaps::{MapsEntry, parse_maps};

use super::layout::MAP_TYPE;
use super::memory::{Memory, PAGE};
use crate::sys::vm::RemoteRead;

/// Bytes looked through at most when everything depends on it.
pub const MAX_BYTES: u64 = 512 << 20;
/// Bytes read at a time.
const PART: usize = 1 << 20;
/// Read-only memory larger than this is not V8's: its read-only heap has a few 100 KiB.
const MAX_READ_ONLY: u64 = 16 << 20;
/// Maps beside the map of maps at least; V8 9 has 154.
const MIN_MAPS: usize = 64;
/// Objects of one type at most.
const MAX_OBJECTS: usize = 1 << 18;
/// V8's heap pages are aligned to this (kPageSize, src/common/globals.h).
const HEAP_PAGE: u64 = 256 << 10;

/// A part of the process's memory that may hold heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// First byte.
    pub start: u64,
    /// Behind the last.
    pub end: u64,
    /// Never written to.
    pub read_only: bool,
}

/// Parts of a process's memory that belong to no file and are in use, heap pages first.
pub fn parts(pid: u32, maps: &[u8]) -> Vec<Part> {
    let pagemap = File::open(format!("/proc/{pid}/pagemap")).ok();
    let mut mappings: Vec<Part> =
        parse_maps(maps).entries.iter().filter(|entry| is_memory(entry)).map(part).collect();
    mappings.sort_by_key(|part| !part.start.is_multiple_of(HEAP_PAGE));
    let mut out = Vec::new();
    for mapping in mappings {
        match pagemap.as_ref().and_then(|file| in_use(file, mapping)) {
            Some(parts) => out.extend(parts),
            None => out.push(mapping),
        }
    }
    out
}

fn is_memory(entry: &MapsEntry<'_>) -> bool {
    // `[heap]`, `[stack]` and the kernel's own are not V8's; `[anon:NAME]` is memory with a label.
    let labelled = entry.path.as_deref().is_none_or(|path| path.starts_with(b"[anon"));
    entry.read && !entry.is_file() && labelled
}

fn part(entry: &MapsEntry<'_>) -> Part {
    Part { start: entry.start, end: entry.end, read_only: !entry.write && !entry.exec }
}

/// The stretches of a mapping that were ever touched: reading the others would make page tables
/// in the target (Documentation/admin-guide/mm/pagemap.rst: bit 63 present, bit 62 swapped).
fn in_use(pagemap: &File, mapping: Part) -> Option<Vec<Part>> {
    let mut out: Vec<Part> = Vec::new();
    let mut at = mapping.start;
    let mut bytes = vec![0u8; 64 << 10];
    while at < mapping.end {
        let wanted = ((mapping.end - at) / PAGE as u64 * 8).min(bytes.len() as u64) as usize;
        let words = bytes.get_mut(..wanted)?;
        pagemap.read_exact_at(words, at / PAGE as u64 * 8).ok()?;
        for word in words.chunks_exact(8) {
            let word = u64::from_le_bytes(word.try_into().ok()?);
            let next = at + PAGE as u64;
            if word >> 62 != 0 {
                match out.last_mut().filter(|last| last.end == at) {
                    Some(last) => last.end = next,
                    None => out.push(Part { start: at, end: next, ..mapping }),
                }
            }
            at = next;
        }
    }
    Some(out)
}

/// Objects by type.
#[derive(Debug, Default)]
pub struct Census {
    /// Tagged addresses by instance type, by address.
    pub objects: HashMap<u16, Vec<u64>>,
    /// Bytes looked through.
    pub bytes: u64,
}

impl Census {
    /// Looks for all objects of `types`. `map_type` is the instance type of maps.
    ///
    /// Looks at no more than `limit` bytes.
    pub fn take<M: Memory>(
        memory: &mut M,
        parts: &[Part],
        limit: u64,
        map_type: u16,
        types: &[u16],
    ) -> Self {
        let mut census = Self::default();
        let mut maps: HashMap<u64, u16, RandomState> = HashMap::default();
        let small = |part: &&Part| part.read_only && part.end - part.start <= MAX_READ_ONLY;
        for part in parts.iter().filter(small) {
            maps_in(memory, *part, map_type, &mut maps);
        }
        maps.retain(|_, kind| types.contains(kind));
        let Some(low) = maps.keys().min().copied() else { return census };
        let high = maps.keys().max().copied().unwrap_or(low);
        each_word(memory, parts, limit, &mut census.bytes, |at, word| {
            if word < low || word > high {
                return;
            }
            if let Some(&kind) = maps.get(&word) {
                let objects = census.objects.entry(kind).or_default();
                if objects.len() < MAX_OBJECTS {
                    objects.push(at + 1);
                }
            }
        });
        census
    }

    /// The objects of a type.
    pub fn of(&self, kind: u16) -> &[u64] {
        self.objects.get(&kind).map(Vec::as_slice).unwrap_or_default()
    }

    /// At most `count` objects of a type, evenly spread.
    pub fn some_of(&self, kind: u16, count: usize) -> impl Iterator<Item = u64> + '_ {
        let all = self.of(kind);
        all.iter().step_by((all.len() / count.max(1)).max(1)).copied()
    }
}

/// Calls `each` with every aligned word of the parts and its address.
pub fn each_word<M: Memory>(
    memory: &mut M,
    parts: &[Part],
    limit: u64,
    bytes: &mut u64,
    mut each: impl FnMut(u64, u64),
) {
    let mut buffer = vec![0u8; PART];
    for part in parts {
        let mut at = part.start;
        while at < part.end && *bytes < limit {
            let wanted = (part.end - at).min(PART as u64) as usize;
            let Some(filled) = read(memory, at, &mut buffer[..wanted]) else { return };
            for (index, word) in buffer[..filled].chunks_exact(8).enumerate() {
                let mut eight = [0; 8];
                eight.copy_from_slice(word);
                each(at + index as u64 * 8, u64::from_le_bytes(eight));
            }
            *bytes += wanted as u64;
            at += wanted as u64;
        }
    }
}

/// Number of bytes that could be read; `None` when nothing can be read any more.
fn read<M: Memory>(memory: &mut M, at: u64, buffer: &mut [u8]) -> Option<usize> {
    let mut places = [RemoteRead::new(at, buffer)];
    memory.read(&mut places).ok()?;
    Some(places[0].filled)
}

/// Adds the maps of read-only memory with their types, if the map of maps is there.
fn maps_in<M: Memory>(
    memory: &mut M,
    part: Part,
    map_type: u16,
    maps: &mut HashMap<u64, u16, RandomState>,
) {
    let mut bytes = vec![0u8; (part.end - part.start) as usize];
    for (index, piece) in bytes.chunks_mut(PART).enumerate() {
        let at = part.start + (index * PART) as u64;
        if read(memory, at, piece).is_none() {
            return;
        }
    }
    let word = |at: usize| {
        let bytes = bytes.get(at..at + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    let kind = |at: usize| {
        let at = at + MAP_TYPE as usize;
        let bytes = bytes.get(at..at + 2)?;
        Some(u16::from_le_bytes(bytes.try_into().ok()?))
    };
    let all = || (0..bytes.len()).step_by(8);
    let tagged = |at: usize| part.start + at as u64 + 1;
    let is_meta = |at: &usize| word(*at) == Some(tagged(*at)) && kind(*at) == Some(map_type);
    let Some(meta) = all().find(is_meta).map(tagged) else { return };
    let found: Vec<(u64, u16)> = all()
        .filter(|&at| word(at) == Some(meta))
        .filter_map(|at| Some((tagged(at), kind(at)?)))
        .collect();
    if found.len() >= MIN_MAPS {
        maps.extend(found);
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::Image;
    use super::*;

    /// A read-only page with `maps` maps, and a page with objects.
    fn memory(maps: u64) -> (Image, [Part; 2]) {
        let mut image = Image::default();
        let mut words = vec![0u64; PAGE / 8];
        for index in 0..maps {
            let kind = if index == 0 { 255 } else { 1000 + index };
            (words[index as usize * 2], words[index as usize * 2 + 1]) = (0x10001, kind << 32);
        }
        let bytes = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
        image.pages.insert(0x10000, bytes(&words));
        let mut words = vec![0u64; PAGE / 8];
        // The second and the third map.
        (words[7], words[100], words[300]) = (0x10011, 0x10021, 0x10011);
        image.pages.insert(0x20000, bytes(&words));
        let parts = [
            Part { start: 0x20000, end: 0x21000, read_only: false },
            Part { start: 0x10000, end: 0x11000, read_only: true },
        ];
        (image, parts)
    }

    #[test]
    fn objects_are_found_by_their_maps() {
        let (mut image, parts) = memory(100);
        let census = Census::take(&mut image, &parts, MAX_BYTES, 255, &[1001]);
        assert_eq!(census.of(1001), [0x20039, 0x20961]);
        assert!(census.of(1002).is_empty());
        assert_eq!(census.some_of(1001, 1).count(), 1);
        assert_eq!(census.bytes, 2 * PAGE as u64);
    }

    #[test]
    fn a_word_that_points_to_itself_is_not_enough() {
        let (mut image, parts) = memory(20);
        assert!(Census::take(&mut image, &parts, MAX_BYTES, 255, &[1001]).objects.is_empty());
        let (mut image, parts) = memory(100);
        assert!(Census::take(&mut image, &parts, MAX_BYTES, 254, &[1001]).objects.is_empty());
        let mut none = Image::default();
        assert!(Census::take(&mut none, &parts, MAX_BYTES, 255, &[1001]).objects.is_empty());
    }
}
