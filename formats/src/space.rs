//! Which file, or which made-at-run-time code, an address of a process belongs to.
//!
//! Pure: fed with mappings in time order by whoever saw them (records of the kernel, /proc, a
//! perf.data file). Knows no symbols.

use std::collections::BTreeMap;

/// First address of the kernel's half on 64-bit machines (x86-64 and arm64).
pub const KERNEL_START: u64 = 1 << 63;

/// What lies behind a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// A file, by the caller's index.
    Object(u32),
    /// Anonymous memory: code that was made at run time.
    Anonymous,
}

/// Where an address lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a file, at this file offset.
    File {
        /// The caller's index of the object.
        object: u32,
        /// File offset in bytes.
        offset: u64,
    },
    /// In code made at run time.
    Anonymous,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Region {
    end: u64,
    offset: u64,
    backing: Backing,
}

/// The executable mappings of one process at one moment.
#[derive(Debug, Clone, Default)]
pub struct AddressSpace {
    regions: BTreeMap<u64, Region>,
    generation: u64,
}

impl AddressSpace {
    /// Adds a mapping of `[start, end)` whose first byte is at `offset` of its file. What lay there
    /// before is replaced, as mmap(2) does.
    pub fn map(&mut self, start: u64, end: u64, offset: u64, backing: Backing) {
        if start >= end {
            return;
        }
        let new = Region { end, offset, backing };
        if self.regions.get(&start) == Some(&new) {
            return;
        }
        self.generation += 1;
        // A region that reaches in from the left keeps its head, and its tail if it is longer.
        if let Some((&left, &region)) = self.regions.range(..start).next_back()
            && region.end > start
        {
            self.regions.insert(left, Region { end: start, ..region });
            self.keep_tail(left, region, end);
        }
        let covered: Vec<_> = self.regions.range(start..end).map(|(&at, &r)| (at, r)).collect();
        for (at, region) in covered {
            self.regions.remove(&at);
            self.keep_tail(at, region, end);
        }
        self.regions.insert(start, new);
    }

    fn keep_tail(&mut self, start: u64, region: Region, from: u64) {
        if region.end > from {
            let offset = region.offset.wrapping_add(from.wrapping_sub(start));
            self.regions.insert(from, Region { offset, ..region });
        }
    }

    /// Forgets all mappings: the process called exec.
    pub fn clear(&mut self) {
        self.regions.clear();
        self.generation += 1;
    }

    /// Grows with every change: what was derived from an older generation may be stale.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Where `address` lies, or `None` where nothing executable is known to be mapped.
    #[must_use]
    pub fn locate(&self, address: u64) -> Option<Place> {
        let (&start, region) = self.regions.range(..=address).next_back()?;
        if address >= region.end {
            return None;
        }
        Some(match region.backing {
            Backing::Object(object) => {
                Place::File { object, offset: region.offset.wrapping_add(address - start) }
            }
            Backing::Anonymous => Place::Anonymous,
        })
    }

    /// The mappings of files: (start, end, file offset, object).
    pub fn files(&self) -> impl Iterator<Item = (u64, u64, u64, u32)> + '_ {
        self.regions.iter().filter_map(|(&start, region)| match region.backing {
            Backing::Object(object) => Some((start, region.end, region.offset, object)),
            Backing::Anonymous => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against the naive model: an array with one cell an address.
        #[test]
        fn equals_the_naive_model(maps in prop::collection::vec((0u64..200, 1u64..60, any::<bool>()), 0..40)) {
            let mut space = AddressSpace::default();
            let mut naive: Vec<Option<Place>> = vec![None; 300];
            for (i, &(start, length, file)) in maps.iter().enumerate() {
                let base = i as u64 * 0x10_000;
                let backing = if file { Backing::Object(i as u32) } else { Backing::Anonymous };
                space.map(start, start + length, base, backing);
                for address in start..start + length {
                    naive[address as usize] = Some(match backing {
                        Backing::Object(object) => Place::File { object, offset: base + address - start },
                        Backing::Anonymous => Place::Anonymous,
                    });
                }
            }
            for address in 0..300u64 {
                prop_assert_eq!(space.locate(address), naive[address as usize]);
            }
        }

        #[test]
        fn any_numbers_are_survived(maps: Vec<(u64, u64, u64)>, probe: u64) {
            let mut space = AddressSpace::default();
            for (start, end, offset) in maps { space.map(start, end, offset, Backing::Anonymous); }
            let _place = space.locate(probe);
        }
    }
}
