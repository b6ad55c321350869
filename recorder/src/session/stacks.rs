//! From the kernel's callchain to an interned stack.
//!
//! The same chains come again and again: a chain that has been seen is recognised by a seeded hash
//! and costs no look-up of its addresses. The cache forgets when a process's mappings or the
//! capture's tables change.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::io::Write;

use foldhash::quality::RandomState;
use formats::capture::{CaptureWriter, Frame, Marker, StackId};

use super::naming::Naming;
use super::world::{Running, World};

/// Chains remembered; about 24 bytes each.
const MAX_CACHED: usize = 1 << 17;
/// `PERF_CONTEXT_MAX` (include/uapi/linux/perf_event.h): words from here on are no addresses but say
/// whose addresses follow.
pub const CONTEXT_MAX: u64 = -4095i64 as u64;

/// In place of a caller's address: the callchain is right as it is.
pub const KEEP_CALLER: u64 = 0;
/// In place of a caller's address: the kernel's first caller is none.
pub const DROP_CALLER: u64 = 1;

/// Turns callchains into stacks.
#[derive(Debug)]
pub struct Stacks {
    cache: HashMap<u64, StackId, RandomState>,
    hasher: RandomState,
    epoch: u32,
    max_depth: usize,
    frames: Vec<Frame>,
}

impl Stacks {
    /// `max_depth` is the kernel's limit on a chain (`kernel.perf_event_max_stack`).
    #[must_use]
    pub fn new(max_depth: usize) -> Self {
        Self {
            cache: HashMap::default(),
            hasher: RandomState::default(),
            epoch: 0,
            max_depth,
            frames: Vec::new(),
        }
    }

    /// The stack of a chain, leaf first, of `running`. `caller` is the word on top of the user
    /// stack at a function's first instruction, where the frame-pointer chain lacks the caller.
    pub fn intern<W: Write>(
        &mut self,
        to: &mut CaptureWriter<W>,
        world: &World,
        naming: &mut Naming,
        running: &Running,
        chain: &[u64],
        caller: Option<u64>,
    ) -> StackId {
        if to.epoch() != self.epoch || self.cache.len() > MAX_CACHED {
            self.cache.clear();
            self.epoch = to.epoch();
        }
        let mut hash = self.hasher.build_hasher();
        hash.write_u32(running.index);
        hash.write_u64(running.space.generation());
        hash.write_u64(caller.unwrap_or(0));
        for &word in chain {
            hash.write_u64(word);
        }
        let key = hash.finish();
        if let Some(&stack) = self.cache.get(&key) {
            return stack;
        }
        self.frames.clear();
        chain_to_frames(world, running, chain, caller, self.max_depth, &mut self.frames);
        let mut stack = StackId::default();
        for &frame in self.frames.iter().rev() {
            stack = to.stack(stack, frame);
            naming.occurs(frame);
        }
        self.cache.insert(key, stack);
        stack
    }
}

fn chain_to_frames(
    world: &World,
    running: &Running,
    chain: &[u64],
    caller: Option<u64>,
    max_depth: usize,
    frames: &mut Vec<Frame>,
) {
    // The first address of each context is where it ran; the others are return addresses.
    let mut first_of_context = true;
    let mut addresses = 0;
    let mut words = chain.iter().copied().peekable();
    while let Some(word) = words.next() {
        if word >= CONTEXT_MAX {
            // The user part below kernel frames begins at an instruction, too.
            first_of_context = true;
            continue;
        }
        addresses += 1;
        if first_of_context && caller == Some(DROP_CALLER) {
            let _false_caller = words.next_if(|&next| next < CONTEXT_MAX);
        }
        let frame = world.frame(running, word, !first_of_context);
        frames.push(frame);
        if let (true, Some(caller)) = (first_of_context, caller)
            && !matches!(frame, Frame::Kernel { .. })
            && words.peek() != Some(&caller)
            && ![KEEP_CALLER, DROP_CALLER].contains(&caller)
        {
            frames.push(Frame::Marker(Marker::CALLER_INSERTED));
            frames.push(world.frame(running, caller, true));
        }
        first_of_context = false;
    }
    if addresses >= max_depth {
        frames.push(Frame::Marker(Marker::TRUNCATED));
    }
}
