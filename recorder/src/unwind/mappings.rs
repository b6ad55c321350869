//! Where code is mapped in a process, and from which file.
//!
//! Pure: made from the text of `/proc/PID/maps`. Must not open the files.

use std::rc::Rc;

use formats::procmaps::parse_maps;

use crate::process::objects::{Identity, Sighting};

/// What the code of a mapping comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A file.
    File(Rc<Identity>),
    /// The kernel's vDSO.
    Vdso,
    /// The kernel's code for return probes.
    Uprobes,
    /// No file: code made at run time.
    Memory,
}

/// One executable mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Offset in the file of the first byte.
    pub(super) offset: u64,
    pub(super) source: Source,
}

/// The executable mappings of a process, by address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mappings {
    pid: u32,
    list: Vec<Mapping>,
}

impl Mappings {
    /// From the text of `/proc/PID/maps`.
    pub fn new(pid: u32, maps: &[u8]) -> Self {
        let mut list: Vec<Mapping> = Vec::new();
        for entry in parse_maps(maps).entries.iter().filter(|entry| entry.exec) {
            let source = match &entry.path {
                Some(path) if entry.is_file() => {
                    let device = (entry.dev_major, entry.dev_minor);
                    let identity = Identity { device, inode: entry.inode, path: path.to_vec() };
                    Source::File(Rc::new(identity))
                }
                _ if entry.is_vdso() => Source::Vdso,
                _ if entry.is_uprobes() => Source::Uprobes,
                _ => Source::Memory,
            };
            let (start, end, offset) = (entry.start, entry.end, entry.offset);
            // The kernel's list is in order and does not overlap; else the search is not defined.
            if list.last().is_none_or(|last| last.end <= start) {
                list.push(Mapping { start, end, offset, source });
            }
        }
        Self { pid, list }
    }

    /// Which mapping holds `address`. Asks `near` first: callers are often in the same.
    pub(super) fn find(&self, address: u64, near: usize) -> Option<usize> {
        let holds = |index: usize| {
            let mapping = self.list.get(index)?;
            (mapping.start <= address && address < mapping.end).then_some(index)
        };
        holds(near).or_else(|| {
            let after = self.list.partition_point(|mapping| mapping.start <= address);
            holds(after.checked_sub(1)?)
        })
    }

    /// Whether a function that returns to `address` has a return probe: the kernel has put its own
    /// address where the caller's was.
    pub(super) fn is_return_probe(&self, address: u64) -> bool {
        let mapping = self.find(address, 0).and_then(|index| self.list.get(index));
        mapping.is_some_and(|it| it.source == Source::Uprobes && it.start == address)
    }

    /// A mapping by index.
    pub(super) fn get(&self, index: usize) -> Option<&Mapping> {
        self.list.get(index)
    }

    /// Where to look for a mapping's file.
    pub(super) fn sighting(&self, mapping: &Mapping) -> Sighting {
        Sighting { pid: self.pid, start: mapping.start, end: mapping.end }
    }
}
