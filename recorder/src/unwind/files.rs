//! Unwind tables of all mapped files, each read once: when the first address in it is met.
//!
//! Shared by all processes, because a table belongs to a file and its rules to places in the file:
//! they outlive mappings and processes. Must not know stacks.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use gimli::UnwindContext;
use object::read::ReadCache;

use super::mappings::{Mapping, Mappings, Source};
use super::rule::Rule;
use super::table::Table;
use crate::process::objects::open_mapped;
use crate::sys::vdso::vdso_image;

/// Bytes of all tables at most.
const MAX_BYTES: u64 = 256 << 20;
/// How often a file is tried to be opened: the first process that maps it may be gone.
const MAX_TRIES: u8 = 4;
/// Files remembered at most.
const MAX_FILES: usize = 4096;

/// What is known of one file.
#[derive(Debug)]
enum Slot {
    Unread { tries: u8 },
    Nothing,
    Table(Box<Table>),
}

/// Device and inode; all 0 for the vDSO.
type Key = ((u32, u32), u64);

/// All tables.
#[derive(Debug)]
pub(super) struct Files {
    numbers: HashMap<Key, usize, RandomState>,
    slots: Vec<Slot>,
    /// The file that was asked for last.
    last: Option<(Key, usize)>,
    read: u64,
    context: UnwindContext<usize>,
}

impl Files {
    pub(super) fn new() -> Self {
        Self {
            numbers: HashMap::default(),
            slots: Vec::new(),
            last: None,
            read: 0,
            context: UnwindContext::new(),
        }
    }

    /// The rule for the byte at `pc` in `mapping`, and the section of its expressions.
    pub(super) fn rule(
        &mut self,
        mappings: &Mappings,
        mapping: &Mapping,
        pc: u64,
        cold: &mut usize,
    ) -> Option<(Rule, &[u8])> {
        let key = match &mapping.source {
            Source::Memory | Source::Uprobes => return None,
            Source::Vdso => ((0, 0), 0),
            Source::File(identity) => (identity.device, identity.inode),
        };
        let number = match self.last {
            Some((last, number)) if last == key => number,
            _ => self.number(key)?,
        };
        self.last = Some((key, number));
        let slot = self.slots.get_mut(number)?;
        if let Slot::Unread { tries } = slot {
            let left = tries.saturating_sub(1);
            let budget = MAX_BYTES.saturating_sub(self.read);
            *slot = match load(mappings, mapping, budget) {
                Some(Some(table)) => {
                    self.read += table.bytes();
                    Slot::Table(Box::new(table))
                }
                Some(None) => Slot::Nothing,
                None if left == 0 => Slot::Nothing,
                None => Slot::Unread { tries: left },
            };
        }
        let Slot::Table(table) = slot else { return None };
        let offset = (pc - mapping.start).checked_add(mapping.offset)?;
        let rule = table.rule(offset, &mut self.context, cold)?;
        Some((rule, table.section()))
    }

    fn number(&mut self, key: Key) -> Option<usize> {
        if let Some(&number) = self.numbers.get(&key) {
            return Some(number);
        }
        let number = self.slots.len();
        if number >= MAX_FILES {
            return None;
        }
        self.slots.push(Slot::Unread { tries: MAX_TRIES });
        self.numbers.insert(key, number);
        Some(number)
    }

    /// Files with tables, and the bytes that they take.
    pub(super) fn size(&self) -> (usize, u64) {
        let tables = self.slots.iter().filter_map(|slot| match slot {
            Slot::Table(table) => Some(table.bytes()),
            _ => None,
        });
        tables.fold((0, 0), |(files, bytes), table| (files + 1, bytes + table))
    }
}

/// `None` when the file cannot be opened, `Some(None)` when it has no tables.
fn load(mappings: &Mappings, mapping: &Mapping, budget: u64) -> Option<Option<Table>> {
    match &mapping.source {
        Source::Memory | Source::Uprobes => Some(None),
        Source::Vdso => {
            let image = vdso_image().ok()?;
            Some(Table::read(image.as_slice(), budget))
        }
        Source::File(identity) => {
            let file = open_mapped(identity, &identity.path, mappings.sighting(mapping))?;
            Some(Table::read(&ReadCache::new(&file), budget))
        }
    }
}
