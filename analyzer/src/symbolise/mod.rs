//! From the frames of a capture to names: native code by the capture's symbols, JIT code by the map
//! entry that was true at the sample's time, JavaScript frames by the recorder's tables. It must not
//! know what a sample weighs or what is done with it.
//!
//! Every stack node keeps what it resolved to, with the stretch of time for which that holds. A stack
//! without reused JIT addresses is thus resolved once; the others once for each change on their way.

mod demangle;
pub(crate) mod javascript;
mod jit;
mod native;
mod timeline;
mod v8_name;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use formats::capture::{Capture, Frame, Marker, NoName};

use self::javascript::{Javascript, Place};
use self::jit::{JitMaps, Known};
use self::native::Natives;
use self::timeline::{Span, Timeline};
use crate::profile::{FrameId, Kind, Profile, Reason, ResolvedFrame, ResolvedStackId};
use crate::source_map::Originals;

/// Longest function name that is kept, characters.
pub const FUNCTION_CHARS: usize = 1024;
/// Longest path or URL that is kept, characters: PATH_MAX of include/uapi/linux/limits.h.
pub const FILE_CHARS: usize = 4096;
/// Deeper stacks are shown as damaged: the kernel's own limit is 127 frames, and
/// `formats::limits::Limits::stack_depth` is the same number.
const DEPTH: u32 = 4096;

/// What a node resolved to, and when that holds.
#[derive(Debug, Clone, Copy)]
struct Resolved {
    span: Span,
    stack: ResolvedStackId,
}

/// What is kept of one stack node.
#[derive(Debug, Clone, Copy)]
struct Node {
    depth: u32,
    latest: Option<Resolved>,
}

/// Resolves the stacks of one capture into a [`Profile`].
#[derive(Debug)]
pub struct Symboliser<'c> {
    capture: &'c Capture,
    profile: Profile,
    natives: Natives<'c>,
    javascript: Javascript<'c>,
    jit: JitMaps<'c>,
    frames: Vec<Option<Timeline<FrameId>>>,
    nodes: Vec<Node>,
    /// Of nodes that change with time, what held at other times than the latest, by its start.
    older: HashMap<u32, BTreeMap<u64, Resolved>>,
    entry_frames: HashMap<(u32, bool), FrameId>,
}

impl<'c> Symboliser<'c> {
    /// Prepares the tables. `originals` is what source maps say: nothing unless they were asked for.
    #[must_use]
    pub fn new(capture: &'c Capture, originals: &'c Originals) -> Self {
        let mut nodes: Vec<Node> = Vec::with_capacity(capture.stacks.len());
        for (at, &(parent, _frame)) in capture.stacks.iter().enumerate() {
            let depth = if at == 0 {
                0
            } else {
                // A parent that is not older than its child is damage: the stack ends there.
                nodes.get(parent as usize).map_or(1, |node| node.depth.saturating_add(1))
            };
            nodes.push(Node { depth, latest: None });
        }
        Self {
            capture,
            profile: Profile::default(),
            natives: Natives::new(capture),
            javascript: Javascript::new(capture, originals),
            jit: JitMaps::new(capture),
            frames: vec![None; capture.frames.len()],
            nodes,
            older: HashMap::new(),
            entry_frames: HashMap::new(),
        }
    }

    /// Resolves a stack as it was at a time.
    pub fn resolve(&mut self, stack: u32, time_ns: u64) -> ResolvedStackId {
        // Down to the nearest ancestor that is known for this time, then up again.
        let mut pending = Vec::new();
        let mut at = stack;
        let mut from = Resolved { span: Span::ALWAYS, stack: ResolvedStackId::default() };
        while at != 0 {
            if let Some(known) = self.known(at, time_ns) {
                from = known;
                break;
            }
            let Some(&(parent, _frame)) = self.capture.stacks.get(at as usize) else { break };
            pending.push(at);
            at = if parent < at { parent } else { 0 };
        }
        while let Some(at) = pending.pop() {
            from = self.extend(from, at, time_ns);
            self.keep(at, from);
        }
        from.stack
    }

    /// The profile so far.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Gives up the tables and keeps the profile.
    #[must_use]
    pub fn into_profile(self) -> Profile {
        self.profile
    }

    fn known(&self, at: u32, time: u64) -> Option<Resolved> {
        let latest = self.nodes.get(at as usize)?.latest?;
        if latest.span.holds(time) {
            return Some(latest);
        }
        // The spans of one node do not overlap: each ends where some frame on the way changes.
        let (_from, older) = self.older.get(&at)?.range(..=time).next_back()?;
        older.span.holds(time).then_some(*older)
    }

    fn keep(&mut self, at: u32, resolved: Resolved) {
        let Some(node) = self.nodes.get_mut(at as usize) else { return };
        if let Some(before) = node.latest.replace(resolved) {
            self.older.entry(at).or_default().insert(before.span.from, before);
        }
    }

    /// The stack of `parent` with the frame of node `at` added.
    fn extend(&mut self, parent: Resolved, at: u32, time: u64) -> Resolved {
        let (depth, frame) =
            match (self.nodes.get(at as usize), self.capture.stacks.get(at as usize)) {
                (Some(node), Some(&(_parent, frame))) => (node.depth, frame),
                _ => (0, u32::MAX),
            };
        if depth > DEPTH {
            let damaged = ResolvedFrame::nameless(Kind::Unknown, Reason::Damaged);
            let damaged = self.profile.frame(damaged);
            let stack = self.profile.push(ResolvedStackId::default(), damaged);
            return Resolved { span: Span::ALWAYS, stack };
        }
        if self.capture.frames.get(frame as usize) == Some(&Frame::Marker(Marker::CALLER_INSERTED))
        {
            return Resolved { stack: self.as_inferred(parent.stack), ..parent };
        }
        if self.capture.frames.get(frame as usize) == Some(&Frame::Marker(Marker::READ_LATER)) {
            // The same function goes on there: a stack that was cut is drawn over one that was not.
            return parent;
        }
        let (frame, span) = self.frame(frame, time);
        Resolved { span: parent.span.and(span), stack: self.profile.push(parent.stack, frame) }
    }

    /// The stack with one more frame inside its leaf.
    pub fn with_leaf(&mut self, stack: ResolvedStackId, leaf: ResolvedFrame) -> ResolvedStackId {
        let frame = self.profile.frame(leaf);
        self.profile.push(stack, frame)
    }

    /// The same stack with its leaf marked as inferred.
    fn as_inferred(&mut self, stack: ResolvedStackId) -> ResolvedStackId {
        let Some((parent, frame)) = self.profile.node(stack) else { return stack };
        let Some(frame) = self.profile.get(frame).cloned() else { return stack };
        let frame = self.profile.frame(ResolvedFrame { inferred: true, ..frame });
        self.profile.push(parent, frame)
    }

    fn frame(&mut self, id: u32, time: u64) -> (FrameId, Span) {
        if let Some(Some(timeline)) = self.frames.get(id as usize) {
            return timeline.at(time);
        }
        let timeline = self.name(id);
        let found = timeline.at(time);
        if let Some(slot) = self.frames.get_mut(id as usize) {
            *slot = Some(timeline);
        }
        found
    }

    /// All that a frame of the capture was called, over time.
    fn name(&mut self, id: u32) -> Timeline<FrameId> {
        let frame = match self.capture.frames.get(id as usize).copied() {
            Some(Frame::Jit { .. }) => return self.jit_frame(id),
            Some(Frame::Native { object, offset, call }) => {
                self.natives.file_frame(object, offset, call)
            }
            Some(Frame::Kernel { address, call }) => self.natives.kernel_frame(address, call),
            Some(Frame::Js { function, position, tier, inlined }) => {
                self.javascript.frame(function, Place { position, tier, inlined })
            }
            Some(Frame::Nameless(why)) => ResolvedFrame::nameless(Kind::Js, nameless(why)),
            Some(Frame::Unmapped { .. }) => {
                ResolvedFrame::nameless(Kind::Unknown, Reason::Unmapped)
            }
            Some(Frame::Marker(marker)) => ResolvedFrame::nameless(Kind::Unknown, said_by(marker)),
            None => ResolvedFrame::nameless(Kind::Unknown, Reason::Damaged),
        };
        Timeline::constant(self.profile.frame(frame))
    }

    fn jit_frame(&mut self, id: u32) -> Timeline<FrameId> {
        let (candidates, shared) = match self.jit.known(id) {
            Some(Known::Entries { candidates, shared }) => (candidates.clone(), *shared),
            Some(&Known::Nothing(reason)) => {
                let frame = ResolvedFrame::nameless(Kind::Jit, reason);
                return Timeline::constant(self.profile.frame(frame));
            }
            None => {
                let frame = ResolvedFrame::nameless(Kind::Unknown, Reason::Damaged);
                return Timeline::constant(self.profile.frame(frame));
            }
        };
        let first = candidates.first().map_or((0, 0), |first| (first.from_ns, first.entry));
        let first = self.entry_frame(first.1, shared || first.0 > 0);
        let changes: Vec<_> = candidates
            .into_iter()
            .map(|candidate| (candidate.from_ns, self.entry_frame(candidate.entry, shared)))
            .collect();
        Timeline::new(first, changes)
    }

    fn entry_frame(&mut self, entry: u32, inferred: bool) -> FrameId {
        if let Some(&id) = self.entry_frames.get(&(entry, inferred)) {
            return id;
        }
        let frame = ResolvedFrame { inferred, ..v8_name::parse(self.jit.name(entry)) };
        let id = self.profile.frame(frame);
        self.entry_frames.insert((entry, inferred), id);
        id
    }
}

/// What a remark inside a stack says. One of a later version: something is here that cannot be told.
fn said_by(marker: Marker) -> Reason {
    match marker {
        Marker::TRUNCATED => Reason::Truncated,
        Marker::DROPPED => Reason::StackDropped,
        Marker::CUT => Reason::StackCut,
        Marker::GAP => Reason::FramesMissing,
        Marker::BROKEN => Reason::ChainLost,
        Marker::NOT_TAKEN => Reason::NotTaken,
        _ => Reason::Damaged,
    }
}

/// Why the recorder could not name a JavaScript frame.
fn nameless(why: NoName) -> Reason {
    match why {
        NoName::MOVED => Reason::JsMoved,
        NoName::CONTRADICTION => Reason::JsContradiction,
        NoName::ENDED => Reason::ProcessEnded,
        _ => Reason::Damaged,
    }
}
