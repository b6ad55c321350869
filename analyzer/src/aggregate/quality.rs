//! How good the stacks are: how many frames have a name, and why the others have none. Frames are
//! counted as often as they occur in samples.

use std::collections::BTreeMap;

use formats::capture::{Capture, Frame, Marker};

use crate::profile::{JsNames, Kind, Profile, Reason, ResolvedFrame, ResolvedStackId};

/// Code of the remarks that say why V8's heap could not be read.
const HEAP_REFUSED: &str = "js-not-readable";

/// How the capture's JavaScript frames got their names.
#[must_use]
pub fn js_names(capture: &Capture) -> JsNames {
    let refused = || capture.remarks.iter().any(|remark| remark.code == HEAP_REFUSED);
    match capture.meta.js.as_str() {
        "heap" if refused() => JsNames::HeapRefused,
        "heap" => JsNames::Heap,
        "map" => JsNames::Map,
        "off" => JsNames::Off,
        _ => JsNames::Unknown,
    }
}

/// Frames of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Named {
    /// All.
    pub total: u64,
    /// Those with a name.
    pub named: u64,
}

impl Named {
    fn add(&mut self, named: bool, count: u64) {
        self.total = self.total.saturating_add(count);
        self.named = self.named.saturating_add(if named { count } else { 0 });
    }
}

/// The account of all stacks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StackQuality {
    /// JavaScript frames, and unnamed JIT frames: they are as good as always JavaScript. One is
    /// named if its function is known (an anonymous function is known by its place).
    pub js: Named,
    /// Frames of files: C++, C, Rust, V8's builtins.
    pub native: Named,
    /// Kernel frames.
    pub kernel: Named,
    /// Named frames of other code made at run time: regular expressions, WebAssembly.
    pub jit: u64,
    /// Frames that are concluded, not seen.
    pub inferred: u64,
    /// Stacks whose outer frames were read some milliseconds after the sample.
    pub read_later: u64,
    /// Frames without a name by reason, the most frequent first.
    pub unresolved: Vec<(Reason, u64)>,
}

/// Samples with a stack of which the outer frames were read later.
#[must_use]
pub fn read_later(capture: &Capture) -> u64 {
    let later = Frame::Marker(Marker::READ_LATER);
    let mut nodes = vec![false; capture.stacks.len()];
    for at in 1..nodes.len() {
        let Some(&(parent, frame)) = capture.stacks.get(at) else { continue };
        // A parent's index is smaller than its child's.
        let inherited = nodes.get(parent as usize).copied().unwrap_or(false);
        let own = capture.frames.get(frame as usize) == Some(&later);
        if let Some(node) = nodes.get_mut(at) {
            *node = own || inherited;
        }
    }
    let stacks = capture.samples.iter().flat_map(|samples| &samples.stack);
    stacks.filter(|&&stack| nodes.get(stack as usize) == Some(&true)).count() as u64
}

impl StackQuality {
    /// Counts the frames of stacks, each as often as the stack occurs.
    pub fn of(profile: &Profile, rows: impl IntoIterator<Item = (ResolvedStackId, u64)>) -> Self {
        // Each node's own occurrences first: then every frame is classified only once.
        let mut nodes: Vec<u64> = vec![0; profile.stack_count()];
        for (stack, count) in rows {
            if let Some(slot) = nodes.get_mut(stack.0 as usize) {
                *slot = slot.saturating_add(count);
            }
        }
        let mut frames: Vec<u64> = vec![0; profile.frames().len()];
        // A parent's index is smaller than its child's: going down, each node is complete when met.
        for at in (1..nodes.len()).rev() {
            let count = nodes.get(at).copied().unwrap_or(0);
            if count == 0 {
                continue;
            }
            let Some((parent, frame)) = profile.node(ResolvedStackId(at as u32)) else { continue };
            if let Some(slot) = frames.get_mut(frame.0 as usize) {
                *slot = slot.saturating_add(count);
            }
            if let Some(slot) = nodes.get_mut(parent.0 as usize) {
                *slot = slot.saturating_add(count);
            }
        }
        let mut quality = Self::default();
        let mut unresolved: BTreeMap<Reason, u64> = BTreeMap::new();
        for (frame, count) in profile.frames().iter().zip(frames).filter(|(_f, count)| *count > 0) {
            quality.add(frame, count);
            if let Some(reason) = frame.unresolved {
                let slot = unresolved.entry(reason).or_default();
                *slot = slot.saturating_add(count);
            }
        }
        quality.unresolved = unresolved.into_iter().collect();
        quality.unresolved.sort_by_key(|&(reason, count)| (std::cmp::Reverse(count), reason));
        quality
    }

    fn add(&mut self, frame: &ResolvedFrame, count: u64) {
        let named = frame.unresolved.is_none();
        match frame.kind {
            Kind::Js => self.js.add(named, count),
            Kind::Jit if !named => self.js.add(false, count),
            Kind::Jit => self.jit = self.jit.saturating_add(count),
            Kind::Native | Kind::Builtin => self.native.add(named, count),
            Kind::Kernel => self.kernel.add(named, count),
            // Broken chains and markers are no frames; they are in `unresolved`.
            Kind::Unknown | Kind::Operation => {}
        }
        if frame.inferred {
            self.inferred = self.inferred.saturating_add(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use formats::capture::{Remark, Samples};

    use super::*;

    #[test]
    fn the_capture_says_how_javascript_was_named() {
        let mut capture = Capture::default();
        for (js, refused, want) in [
            ("", false, JsNames::Unknown),
            ("heap", false, JsNames::Heap),
            ("heap", true, JsNames::HeapRefused),
            ("map", false, JsNames::Map),
            ("map", true, JsNames::Map),
            ("off", false, JsNames::Off),
            ("later", false, JsNames::Unknown),
        ] {
            capture.meta.js = js.into();
            let code = if refused { HEAP_REFUSED } else { "kernel-hidden" };
            capture.remarks = vec![Remark { code: code.into(), text: "why".into(), count: 1 }];
            assert_eq!(js_names(&capture), want, "{js}");
        }
    }

    #[test]
    fn stacks_with_a_tail_that_was_read_later_are_counted() {
        let mut capture = Capture {
            frames: vec![Frame::Unmapped { address: 1 }, Frame::Marker(Marker::READ_LATER)],
            // Node 2 is the marker upon node 1; 3 and 4 are upon it, 5 is not.
            stacks: vec![(0, 0), (0, 0), (1, 1), (2, 0), (3, 0), (1, 0)],
            ..Capture::default()
        };
        let stack = vec![4, 3, 5, 1, 4, 0, 99];
        capture.samples.push(Samples { stack, ..Samples::default() });
        assert_eq!(read_later(&capture), 3);
    }

    #[test]
    fn frames_count_as_often_as_they_occur() {
        let mut profile = Profile::default();
        let mut stack = ResolvedStackId::default();
        let mut stacks = Vec::new();
        for frame in [
            ResolvedFrame::nameless(Kind::Unknown, Reason::Unmapped),
            ResolvedFrame::named(Kind::Native, "main".into()),
            ResolvedFrame::named(Kind::Js, "f".into()),
            ResolvedFrame::nameless(Kind::Js, Reason::InterpretedWithoutName),
            ResolvedFrame::nameless(Kind::Jit, Reason::JitNoMap),
            ResolvedFrame { inferred: true, ..ResolvedFrame::named(Kind::Builtin, "b".into()) },
            ResolvedFrame::named(Kind::Jit, "RegExp:a".into()),
            ResolvedFrame::nameless(Kind::Kernel, Reason::KernelHidden),
        ] {
            let frame = profile.frame(frame);
            stack = profile.push(stack, frame);
            stacks.push(stack);
        }
        let quality = StackQuality::of(&profile, [(stacks[7], 10), (stacks[2], 5), (stacks[2], 1)]);
        assert_eq!(quality.js, Named { total: 36, named: 16 });
        assert_eq!(quality.native, Named { total: 26, named: 26 });
        assert_eq!(quality.kernel, Named { total: 10, named: 0 });
        assert_eq!((quality.jit, quality.inferred), (10, 10));
        assert_eq!(
            quality.unresolved,
            [
                (Reason::Unmapped, 16),
                (Reason::JitNoMap, 10),
                (Reason::InterpretedWithoutName, 10),
                (Reason::KernelHidden, 10),
            ]
        );
    }
}
