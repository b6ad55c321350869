//! Resolved stacks, interned: what every report and output format reads. It must not know where a
//! frame came from, nor what a sample weighs.
//!
//! All text in here is already neutralised (`formats::text`): it holds no control characters and no
//! marks that turn the reading direction. Markup is left to whoever writes SVG or HTML.

use std::collections::HashMap;

pub use crate::reason::{JsNames, Reason};

/// What kind of code a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A JavaScript function, whatever tier ran it.
    Js,
    /// Code of a file: C++, C, Rust.
    Native,
    /// V8's own builtins and bytecode handlers.
    Builtin,
    /// Kernel code.
    Kernel,
    /// Other code made at run time: compiled regular expressions, WebAssembly, unnamed JIT code.
    Jit,
    /// Not known, or not code: see [`ResolvedFrame::unresolved`].
    Unknown,
    /// No code but what it did, a path with its result: the leaf of a flamegraph of operations, and
    /// found nowhere else.
    Operation,
}

impl Kind {
    /// The value of `kind` in JSON.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Js => "js",
            Self::Native => "native",
            Self::Builtin => "builtin",
            Self::Kernel => "kernel",
            Self::Jit => "jit",
            Self::Unknown => "unknown",
            Self::Operation => "operation",
        }
    }
}

/// A place in the text that ran, where a source map gave another one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Generated {
    /// File or URL.
    pub file: String,
    /// Line, counted from 1.
    pub line: u32,
    /// Column, counted from 1.
    pub column: u32,
}

/// One level of a stack. Two frames are the same if all of this is the same; the compiler tier is
/// not part of it, so a function's tiers are one frame. Two call sites of a function are two frames:
/// [`Self::function_frame`] makes them one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResolvedFrame {
    /// What kind of code.
    pub kind: Kind,
    /// Function name, demangled; `(anonymous)` for a JavaScript function without a name; empty
    /// exactly if `unresolved` is set. Of an operation its error; empty if it had none.
    pub function: String,
    /// Source file or URL; of an operation the file that it is about.
    pub file: Option<String>,
    /// Line, counted from 1: where it runs, or where the function is defined if only that is known.
    pub line: Option<u32>,
    /// Column, counted from 1, in UTF-16 units as V8 counts.
    pub column: Option<u32>,
    /// Line where the function is defined, counted from 1.
    pub defined_line: Option<u32>,
    /// Column where the function is defined, counted from 1.
    pub defined_column: Option<u32>,
    /// Whether `line` and `column` are known to be where it runs.
    pub executing: bool,
    /// Where it runs in the text that was loaded, if the place above is from a source map.
    pub generated: Option<Box<Generated>>,
    /// Part of the code of the next frame outwards.
    pub inlined: bool,
    /// Path of the binary or library, for native and kernel code; of an operation what was done.
    pub module: Option<String>,
    /// Why there is no name.
    pub unresolved: Option<Reason>,
    /// Concluded, not seen: a caller put back into the chain, or a name from a later map entry.
    pub inferred: bool,
}

impl ResolvedFrame {
    /// Whether it is one of Node's own JavaScript functions.
    #[must_use]
    pub fn is_node(&self) -> bool {
        let file = self.file.as_deref().unwrap_or_default();
        // Node before 16 wrote its own modules without the scheme.
        file.starts_with("node:") || file.starts_with("internal/")
    }

    /// Whether it is JavaScript with a name.
    #[must_use]
    pub fn is_named_js(&self) -> bool {
        self.kind == Kind::Js && self.unresolved.is_none()
    }

    /// Whether it is JavaScript of the application: neither Node's own nor nameless.
    #[must_use]
    pub fn is_application(&self) -> bool {
        self.is_named_js() && !self.is_node()
    }

    /// A frame with a name and nothing else.
    #[must_use]
    pub fn named(kind: Kind, function: String) -> Self {
        Self {
            kind,
            function,
            file: None,
            line: None,
            column: None,
            defined_line: None,
            defined_column: None,
            executing: false,
            generated: None,
            inlined: false,
            module: None,
            unresolved: None,
            inferred: false,
        }
    }

    /// A frame without a name.
    #[must_use]
    pub fn nameless(kind: Kind, reason: Reason) -> Self {
        Self { unresolved: Some(reason), ..Self::named(kind, String::new()) }
    }

    /// The function alone, by name, file and definition: wherever in it a sample was taken, whether
    /// it was inlined, and whether it was seen or concluded.
    #[must_use]
    pub fn function_frame(&self) -> Self {
        Self {
            line: self.defined_line,
            column: self.defined_column,
            executing: false,
            generated: None,
            inlined: false,
            inferred: false,
            ..self.clone()
        }
    }

    /// The function's name, or the reason why there is none in brackets.
    #[must_use]
    pub fn label(&self) -> &str {
        match self.unresolved {
            Some(reason) if self.function.is_empty() => reason.label(),
            _ => &self.function,
        }
    }

    /// `file:line:column` as far as known.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        let file = self.file.as_deref()?;
        Some(match (self.line, self.column) {
            (Some(line), Some(column)) => format!("{file}:{line}:{column}"),
            (Some(line), None) => format!("{file}:{line}"),
            (None, _) => file.to_owned(),
        })
    }
}

/// An interned frame: index into [`Profile::frames`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameId(pub u32);

/// An interned stack: index of its leaf node. 0 is the empty stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ResolvedStackId(pub u32);

/// Interned frames, and stacks as a tree of (parent, frame) nodes.
#[derive(Debug, Clone)]
pub struct Profile {
    frames: Vec<ResolvedFrame>,
    frame_index: HashMap<ResolvedFrame, FrameId>,
    nodes: Vec<(ResolvedStackId, FrameId)>,
    node_index: HashMap<(ResolvedStackId, FrameId), ResolvedStackId>,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            frames: Vec::new(),
            frame_index: HashMap::new(),
            // Node 0 stands for the empty stack and is never walked.
            nodes: vec![(ResolvedStackId(0), FrameId(0))],
            node_index: HashMap::new(),
        }
    }
}

impl Profile {
    /// Interns a frame.
    pub fn frame(&mut self, frame: ResolvedFrame) -> FrameId {
        if let Some(&id) = self.frame_index.get(&frame) {
            return id;
        }
        let id = FrameId(self.frames.len() as u32);
        self.frames.push(frame.clone());
        self.frame_index.insert(frame, id);
        id
    }

    /// The stack that has `frame` called by `parent`. Stacks are built from the root to the leaf.
    pub fn push(&mut self, parent: ResolvedStackId, frame: FrameId) -> ResolvedStackId {
        let next = ResolvedStackId(self.nodes.len() as u32);
        let id = *self.node_index.entry((parent, frame)).or_insert(next);
        if id == next {
            self.nodes.push((parent, frame));
        }
        id
    }

    /// All frames; the index is the [`FrameId`].
    #[must_use]
    pub fn frames(&self) -> &[ResolvedFrame] {
        &self.frames
    }

    /// A frame that [`Self::frame`] gave out; `None` for an id of another profile.
    #[must_use]
    pub fn get(&self, frame: FrameId) -> Option<&ResolvedFrame> {
        self.frames.get(frame.0 as usize)
    }

    /// Parent and leaf frame of a stack; `None` for the empty one.
    #[must_use]
    pub fn node(&self, stack: ResolvedStackId) -> Option<(ResolvedStackId, FrameId)> {
        self.nodes.get(stack.0 as usize).copied().filter(|_node| stack.0 != 0)
    }

    /// Number of stack nodes, the empty stack included: every [`ResolvedStackId`] is below it.
    #[must_use]
    pub fn stack_count(&self) -> usize {
        self.nodes.len()
    }

    /// The frame ids of a stack, leaf first.
    pub fn ids_leaf_first(&self, stack: ResolvedStackId) -> impl Iterator<Item = FrameId> + '_ {
        let mut at = stack;
        std::iter::from_fn(move || {
            let (parent, frame) = self.node(at)?;
            // A parent is always older than its child, so this ends.
            at = parent;
            Some(frame)
        })
    }

    /// The frames of a stack, leaf first.
    pub fn leaf_first(&self, stack: ResolvedStackId) -> impl Iterator<Item = &ResolvedFrame> + '_ {
        self.ids_leaf_first(stack).filter_map(|id| self.get(id))
    }

    /// The frames of a stack, root first.
    #[must_use]
    pub fn root_first(&self, stack: ResolvedStackId) -> Vec<&ResolvedFrame> {
        let mut frames: Vec<_> = self.leaf_first(stack).collect();
        frames.reverse();
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_interned_and_read_both_ways() {
        let mut profile = Profile::default();
        let main = profile.frame(ResolvedFrame::named(Kind::Native, "main".into()));
        let leaf = profile.frame(ResolvedFrame::nameless(Kind::Js, Reason::JitNoMap));
        assert_eq!(profile.frame(ResolvedFrame::named(Kind::Native, "main".into())), main);
        let root = profile.push(ResolvedStackId::default(), main);
        let stack = profile.push(root, leaf);
        assert_eq!(profile.push(root, leaf), stack);
        assert_eq!(profile.stack_count(), 3);
        let names: Vec<_> = profile.leaf_first(stack).map(ResolvedFrame::label).collect();
        assert_eq!(names, ["[JIT code, no map]", "main"]);
        let names: Vec<_> =
            profile.root_first(stack).into_iter().map(ResolvedFrame::label).collect();
        assert_eq!(names, ["main", "[JIT code, no map]"]);
        assert_eq!(profile.leaf_first(ResolvedStackId(0)).count(), 0);
        assert_eq!(profile.leaf_first(ResolvedStackId(99)).count(), 0);
    }
}
