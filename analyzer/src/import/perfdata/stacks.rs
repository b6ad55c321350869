//! Callchains of the kernel, turned into interned frames and stacks. Knows no names and no records.

use std::collections::HashMap;

use formats::capture::{Frame, Marker};
use formats::limits::Limits;
use formats::space::{AddressSpace, Place};

/// Entries from here on are context markers (`PERF_CONTEXT_MAX` of include/uapi/linux/perf_event.h).
const CONTEXT_MAX: u64 = -4095_i64 as u64;
/// What follows are kernel addresses.
const CONTEXT_KERNEL: u64 = -128_i64 as u64;
/// What follows are user addresses.
const CONTEXT_USER: u64 = -512_i64 as u64;
/// The kernel's own limit on the addresses of one callchain (`PERF_MAX_STACK_DEPTH`).
const DEFAULT_MAX_STACK: usize = 127;

/// Whose addresses they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Context {
    Kernel,
    User,
    /// A virtual machine's: of no use here.
    Other,
}

/// The process a chain belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    /// Index of the process image.
    pub(super) process: u32,
    /// Its mappings at this moment.
    pub(super) space: &'a AddressSpace,
}

/// Strings, frames and stacks, each kept once.
#[derive(Debug)]
pub(super) struct Interner {
    pub(super) strings: Vec<Box<[u8]>>,
    pub(super) frames: Vec<Frame>,
    pub(super) stacks: Vec<(u32, u32)>,
    string_index: HashMap<Box<[u8]>, u32>,
    frame_index: HashMap<Frame, u32>,
    stack_index: HashMap<(u32, u32), u32>,
    /// Frames of addresses, valid for one generation of one address space.
    seen: HashMap<(u32, u64, u64, bool), u32>,
    scratch: Vec<u32>,
    max_entries: usize,
    max_string: usize,
    max_depth: usize,
    /// Strings and stacks that were not kept because a table was full.
    pub(super) dropped: u64,
}

impl Interner {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            strings: vec![Box::default()],
            frames: Vec::new(),
            stacks: vec![(0, 0)],
            string_index: HashMap::new(),
            frame_index: HashMap::new(),
            stack_index: HashMap::new(),
            seen: HashMap::new(),
            scratch: Vec::new(),
            max_entries: limits.table_entries,
            max_string: limits.string_bytes,
            max_depth: limits.stack_depth,
            dropped: 0,
        }
    }

    /// Index of a string, which is cut at the limit; 0, "no value", when the table is full.
    pub(super) fn string(&mut self, bytes: &[u8]) -> u32 {
        let bytes = bytes.get(..self.max_string).unwrap_or(bytes);
        if let Some(&index) = self.string_index.get(bytes) {
            return index;
        }
        if self.strings.len() >= self.max_entries {
            self.dropped += 1;
            return 0;
        }
        let index = self.strings.len() as u32;
        self.strings.push(bytes.into());
        self.string_index.insert(bytes.into(), index);
        index
    }

    fn frame(&mut self, frame: Frame) -> u32 {
        if let Some(&index) = self.frame_index.get(&frame) {
            return index;
        }
        let full = self.frames.len() >= self.max_entries;
        let frame = if full { Frame::Marker(Marker::DROPPED) } else { frame };
        let index = self.frames.len() as u32;
        // The marker takes one place more than the table has, once.
        let known = self.frame_index.entry(frame).or_insert(index);
        if *known == index {
            self.frames.push(frame);
        }
        *known
    }

    fn push(&mut self, parent: u32, frame: u32) -> Option<u32> {
        if let Some(&index) = self.stack_index.get(&(parent, frame)) {
            return Some(index);
        }
        if self.stacks.len() >= self.max_entries {
            return None;
        }
        let index = self.stacks.len() as u32;
        self.stacks.push((parent, frame));
        self.stack_index.insert((parent, frame), index);
        Some(index)
    }

    /// The stack of a callchain. `max_stack` is the event's own limit on its length, 0 for the
    /// kernel's; a chain of that length is marked as cut.
    pub(super) fn chain(
        &mut self,
        owner: Owner<'_>,
        chain: impl Iterator<Item = u64>,
        start: Context,
        max_stack: u16,
    ) -> u32 {
        let mut context = start;
        // The first address of a context is where it was interrupted, all others are return addresses.
        let mut call = false;
        let mut ids = std::mem::take(&mut self.scratch);
        ids.clear();
        for address in chain.take(self.max_depth) {
            if address >= CONTEXT_MAX {
                context = match address {
                    CONTEXT_KERNEL => Context::Kernel,
                    CONTEXT_USER => Context::User,
                    _ => Context::Other,
                };
                call = false;
                continue;
            }
            match context {
                Context::Kernel => ids.push(self.frame(Frame::Kernel { address, call })),
                Context::User => ids.push(self.user_frame(owner, address, call)),
                Context::Other => continue,
            }
            call = true;
        }
        let limit = if max_stack == 0 { DEFAULT_MAX_STACK } else { usize::from(max_stack) };
        if ids.len() >= limit {
            ids.push(self.frame(Frame::Marker(Marker::TRUNCATED)));
        }
        let mut stack = Some(0);
        for &id in ids.iter().rev() {
            stack = stack.and_then(|parent| self.push(parent, id));
        }
        self.scratch = ids;
        stack.unwrap_or_else(|| {
            self.dropped += 1;
            0
        })
    }

    fn user_frame(&mut self, owner: Owner<'_>, address: u64, call: bool) -> u32 {
        let key = (owner.process, owner.space.generation(), address, call);
        if let Some(&id) = self.seen.get(&key) {
            return id;
        }
        // A call that never returns may be the last instruction of its mapping.
        let place = owner.space.locate(address.wrapping_sub(u64::from(call)));
        let id = self.frame(match place {
            Some(Place::File { object, offset }) => {
                Frame::Native { object, offset: offset.wrapping_add(u64::from(call)), call }
            }
            Some(Place::Anonymous) => Frame::Jit { process: owner.process, address, call },
            None => Frame::Unmapped { address },
        });
        if self.seen.len() >= self.max_entries {
            self.seen.clear();
        }
        self.seen.insert(key, id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::space::Backing;

    #[test]
    fn contexts_and_return_addresses_are_told_apart() {
        let mut space = AddressSpace::default();
        space.map(0x1000, 0x2000, 0x500, Backing::Object(3));
        space.map(0x8000, 0x9000, 0, Backing::Anonymous);
        let owner = Owner { process: 1, space: &space };
        let chain =
            [CONTEXT_KERNEL, 1 << 63, (1 << 63) + 8, CONTEXT_USER, 0x1010, 0x2000, 0x8004, 9];
        let mut interner = Interner::new(&Limits::default());
        let stack = interner.chain(owner, chain.into_iter(), Context::Other, 0);
        let mut leaf_first = Vec::new();
        let mut at = stack;
        while at != 0 {
            let (parent, frame) = interner.stacks[at as usize];
            leaf_first.push(interner.frames[frame as usize]);
            at = parent;
        }
        assert_eq!(
            leaf_first,
            [
                Frame::Kernel { address: 1 << 63, call: false },
                Frame::Kernel { address: (1 << 63) + 8, call: true },
                Frame::Native { object: 3, offset: 0x510, call: false },
                Frame::Native { object: 3, offset: 0x1500, call: true },
                Frame::Jit { process: 1, address: 0x8004, call: true },
                Frame::Unmapped { address: 9 },
            ]
        );
        assert_eq!(interner.chain(owner, chain.into_iter(), Context::Other, 0), stack);
    }

    #[test]
    fn a_chain_at_the_limit_is_marked_and_full_tables_are_counted() {
        let space = AddressSpace::default();
        let owner = Owner { process: 0, space: &space };
        let mut interner = Interner::new(&Limits::default());
        let stack = interner.chain(owner, [5, 6, 7].into_iter(), Context::User, 3);
        let mut root = stack;
        while interner.stacks[root as usize].0 != 0 {
            root = interner.stacks[root as usize].0;
        }
        let frame = interner.frames[interner.stacks[root as usize].1 as usize];
        assert_eq!(frame, Frame::Marker(Marker::TRUNCATED));

        let mut limits = Limits::default();
        limits.table_entries = 4;
        let mut interner = Interner::new(&limits);
        assert_eq!(interner.chain(owner, 1..20, Context::User, 0), 0);
        assert_eq!(interner.dropped, 1);
        assert!(interner.frames.len() <= 5 && interner.stacks.len() <= 4);
    }
}
