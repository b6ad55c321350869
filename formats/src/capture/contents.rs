//! A capture in memory, as the analyzer uses it: tables by index, samples in columns.

use super::model::{
    End, EventDef, Frame, Function, Holding, JitBatch, LineEnds, Loss, Mapping, Marker, Meta,
    Object, Process, ProcessEnd, Remark, Script, Symbol, Thread,
};

/// The samples of one event, in columns of equal length.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Samples {
    /// Event id, see [`EventDef::id`].
    pub event: u32,
    /// CLOCK_MONOTONIC in nanoseconds; nearly, but not strictly, ascending.
    pub time_ns: Vec<u64>,
    /// Index into the threads.
    pub thread: Vec<u32>,
    /// Index of the stack's leaf node; 0 is the empty stack.
    pub stack: Vec<u32>,
    /// One column an argument: the integer, or for strings and bytes the index of the string
    /// (0: the kernel could not read it).
    pub fields: Vec<Vec<u64>>,
}

impl Samples {
    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.time_ns.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.time_ns.is_empty()
    }
}

/// What the reader met. Problems are data: a damaged capture still gives its report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadReport {
    /// The recording's last chunk was found.
    pub ended: bool,
    /// Chunks whose checksum or contents were wrong.
    pub damaged_chunks: u64,
    /// Bytes that belong to no readable chunk.
    pub damaged_bytes: u64,
    /// Chunks that are missing by their sequence numbers.
    pub missing_chunks: u64,
    /// The file ends inside a chunk.
    pub torn_tail: bool,
    /// Chunks of a kind that this version does not know.
    pub unknown_chunks: u64,
    /// Sections of a tag that this version does not know.
    pub unknown_sections: u64,
    /// Sections that were cut short or said something impossible.
    pub damaged_sections: u64,
}

impl ReadReport {
    /// Whether all that was recorded was read.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.ended
            && !self.torn_tail
            && self.damaged_chunks == 0
            && self.damaged_bytes == 0
            && self.missing_chunks == 0
            && self.damaged_sections == 0
    }
}

/// Everything in a capture.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capture {
    /// What was recorded, where and how.
    pub meta: Meta,
    /// How it ended; absent when the recorder was killed.
    pub end: Option<End>,
    /// Events by id.
    pub events: Vec<EventDef>,
    /// Objects by index.
    pub objects: Vec<Object>,
    /// Process images by index.
    pub processes: Vec<Process>,
    /// Threads by index.
    pub threads: Vec<Thread>,
    /// Ends of process images.
    pub ends: Vec<ProcessEnd>,
    /// What processes had before their operations were recorded.
    pub holdings: Vec<Holding>,
    /// Executable file mappings.
    pub mappings: Vec<Mapping>,
    /// Symbols of the addresses that occur.
    pub symbols: Vec<Symbol>,
    /// JavaScript functions by index.
    pub functions: Vec<Function>,
    /// JavaScript sources by index.
    pub scripts: Vec<Script>,
    /// Where the lines of scripts end, at most one entry a script.
    pub line_ends: Vec<LineEnds>,
    /// What the JIT maps gained, in time order.
    pub jit: Vec<JitBatch>,
    /// Losses.
    pub losses: Vec<Loss>,
    /// Remarks of the recorder.
    pub remarks: Vec<Remark>,
    /// Strings by index; index 0 is the empty "no value".
    pub strings: Vec<Box<[u8]>>,
    /// Frames by index.
    pub frames: Vec<Frame>,
    /// Stack nodes (parent, frame) by index; index 0 is the empty stack. A parent's index is always
    /// smaller than its child's.
    pub stacks: Vec<(u32, u32)>,
    /// Samples, one entry an event.
    pub samples: Vec<Samples>,
    /// What the reader met.
    pub read: ReadReport,
}

impl Capture {
    /// The frames of a stack, leaf first.
    pub fn stack_frames(&self, stack: u32) -> impl Iterator<Item = Frame> + '_ {
        self.stack_frame_ids(stack).map(|id| {
            self.frames.get(id as usize).copied().unwrap_or(Frame::Marker(Marker::DAMAGED))
        })
    }

    /// The frame indexes of a stack, leaf first.
    pub fn stack_frame_ids(&self, stack: u32) -> impl Iterator<Item = u32> + '_ {
        let mut at = stack;
        std::iter::from_fn(move || {
            let &(parent, frame) = self.stacks.get(at as usize).filter(|_node| at != 0)?;
            at = parent;
            Some(frame)
        })
    }

    /// The definition of an event.
    #[must_use]
    pub fn event(&self, id: u32) -> Option<&EventDef> {
        self.events.iter().find(|event| event.id == id)
    }

    /// A string by index; `None` for index 0 and for one that was lost.
    #[must_use]
    pub fn string(&self, index: u64) -> Option<&[u8]> {
        let index = usize::try_from(index).ok().filter(|&index| index != 0)?;
        self.strings.get(index).map(AsRef::as_ref)
    }

    /// When the recording ended, or the last time seen in it.
    #[must_use]
    pub fn end_ns(&self) -> u64 {
        let newest = self.samples.iter().flat_map(|s| s.time_ns.iter().copied()).max().unwrap_or(0);
        let newest = newest.max(self.meta.start_ns);
        self.end.as_ref().map_or(newest, |end| end.end_ns.max(self.meta.start_ns))
    }
}
