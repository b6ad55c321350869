//! The writer's interned tables: each string, frame and stack is stored once.
//!
//! A stack is a path in a tree of (parent, frame) nodes. The tables are bounded: when one is full,
//! the writer starts a new *epoch* with empty tables, so that a recorder's memory does not grow
//! with the length of a recording. Keys come from the target, hence the seeded hasher.

use foldhash::quality::RandomState;
use std::collections::HashMap;

use super::model::Frame;

/// An interned stack of one epoch: the index of its leaf node. 0 is the empty stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct StackId(pub u32);

/// How much the tables may hold before a new epoch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableLimits {
    /// Distinct strings.
    pub strings: usize,
    /// Bytes of all strings together.
    pub string_bytes: usize,
    /// Distinct frames.
    pub frames: usize,
    /// Nodes of the stack tree.
    pub stacks: usize,
}

impl Default for TableLimits {
    /// About 24 MiB at the most: 28 bytes a frame, 14 a node, both doubled while a table grows.
    fn default() -> Self {
        Self { strings: 1 << 16, string_bytes: 4 << 20, frames: 1 << 17, stacks: 1 << 19 }
    }
}

/// The tables of one epoch, and what has been added since the last flush.
#[derive(Debug, Default)]
pub(super) struct Tables {
    strings: HashMap<Box<[u8]>, u32, RandomState>,
    string_bytes: usize,
    frames: HashMap<Frame, u32, RandomState>,
    stacks: HashMap<(u32, u32), u32, RandomState>,
    pub(super) new_strings: Vec<Box<[u8]>>,
    pub(super) new_frames: Vec<Frame>,
    pub(super) new_stacks: Vec<(u32, u32)>,
}

impl Tables {
    /// Index of a string, counted from 1: 0 means "no value" (the kernel could not read it).
    pub(super) fn string(&mut self, bytes: &[u8]) -> u32 {
        if let Some(&index) = self.strings.get(bytes) {
            return index;
        }
        let index = self.strings.len() as u32 + 1;
        self.string_bytes += bytes.len();
        self.strings.insert(bytes.into(), index);
        self.new_strings.push(bytes.into());
        index
    }

    pub(super) fn frame(&mut self, frame: Frame) -> u32 {
        let next = self.frames.len() as u32;
        *self.frames.entry(frame).or_insert_with(|| {
            self.new_frames.push(frame);
            next
        })
    }

    /// The stack that has `frame` called by `parent`.
    pub(super) fn push(&mut self, parent: StackId, frame: Frame) -> StackId {
        let frame = self.frame(frame);
        let next = self.stacks.len() as u32 + 1;
        StackId(*self.stacks.entry((parent.0, frame)).or_insert_with(|| {
            self.new_stacks.push((parent.0, frame));
            next
        }))
    }

    pub(super) fn over(&self, limits: &TableLimits) -> bool {
        self.strings.len() > limits.strings
            || self.string_bytes > limits.string_bytes
            || self.frames.len() > limits.frames
            || self.stacks.len() > limits.stacks
    }

    /// Table indexes at which the unflushed entries start: (strings, frames, stacks).
    pub(super) fn bases(&self) -> (u64, u64, u64) {
        let base = |all: usize, new: usize| (all - new) as u64;
        (
            base(self.strings.len(), self.new_strings.len()),
            base(self.frames.len(), self.new_frames.len()),
            base(self.stacks.len(), self.new_stacks.len()),
        )
    }

    pub(super) fn flushed(&mut self) {
        self.new_strings.clear();
        self.new_frames.clear();
        self.new_stacks.clear();
    }

    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}
