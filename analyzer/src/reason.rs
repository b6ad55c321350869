//! Why a frame has no name, and what would give it one. Knows nothing of captures: a reason is a
//! key, a sentence and a remedy, which depends on how JavaScript was named.

/// How JavaScript frames got their names, and what stands in the way of more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JsNames {
    /// Not by `nrec`, or not said.
    #[default]
    Unknown,
    /// From V8's heap, frame by frame.
    Heap,
    /// From V8's heap, but there is a process whose heap could not be read: a remark says why.
    HeapRefused,
    /// From V8's perf map.
    Map,
    /// Not at all, as was asked for.
    Off,
}

impl JsNames {
    /// Where the names came from, to stand behind their number; `None` where nothing is to be said.
    #[must_use]
    pub fn origin(self) -> Option<&'static str> {
        match self {
            Self::Unknown => None,
            Self::Heap | Self::HeapRefused => Some("read from V8's heap"),
            Self::Map => Some("from V8's perf map: lines are those of the definition"),
            Self::Off => Some("naming was off (--js=off)"),
        }
    }
}

/// Why a frame could not be resolved. The key is part of `report --json`; reasons are only added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// Code made at run time by a process that writes no JIT map.
    JitNoMap,
    /// The process has a JIT map, but no entry covers the address.
    JitNotInMap,
    /// An interpreted JavaScript frame: the address is the interpreter's own.
    InterpretedWithoutName,
    /// The file has no symbol table, and its exported symbols do not cover the address.
    Stripped,
    /// The file was replaced or removed before its symbols could be read.
    ObjectReplaced,
    /// The file could not be read.
    ObjectUnreadable,
    /// The file's symbol table has a gap at the address.
    NoSymbol,
    /// The address lies in no mapping.
    Unmapped,
    /// Kernel code whose symbols the recorder was not allowed to see.
    KernelHidden,
    /// The kernel's limit on the length of a stack was reached.
    Truncated,
    /// The recorder's tables were full.
    StackDropped,
    /// The part of the capture that told what this frame is cannot be read.
    Damaged,
    /// The objects of a JavaScript function had been moved or freed when they were read.
    JsMoved,
    /// The stack and V8's heap contradicted each other.
    JsContradiction,
    /// The process had ended before its heap was read.
    ProcessEnded,
    /// The stack is longer than the part of it that the kernel copied.
    StackCut,
    /// Frames are missing inside the stack.
    FramesMissing,
    /// The chain was lost, so the outer frames are missing.
    ChainLost,
    /// The probe was hit so often that no stack was taken of this hit.
    NotTaken,
    /// Code made at run time, of which V8's heap tells nothing.
    JitUnknown,
}

impl Reason {
    /// All reasons, in the order of [`Reason`].
    pub const ALL: [Self; 20] = [
        Self::JitNoMap,
        Self::JitNotInMap,
        Self::InterpretedWithoutName,
        Self::Stripped,
        Self::ObjectReplaced,
        Self::ObjectUnreadable,
        Self::NoSymbol,
        Self::Unmapped,
        Self::KernelHidden,
        Self::Truncated,
        Self::StackDropped,
        Self::Damaged,
        Self::JsMoved,
        Self::JsContradiction,
        Self::ProcessEnded,
        Self::StackCut,
        Self::FramesMissing,
        Self::ChainLost,
        Self::NotTaken,
        Self::JitUnknown,
    ];

    /// Stable key for programs.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::JitNoMap => "jit-no-map",
            Self::JitNotInMap => "jit-not-in-map",
            Self::InterpretedWithoutName => "interpreted-without-name",
            Self::Stripped => "stripped",
            Self::ObjectReplaced => "object-replaced",
            Self::ObjectUnreadable => "object-unreadable",
            Self::NoSymbol => "no-symbol",
            Self::Unmapped => "unmapped",
            Self::KernelHidden => "kernel-hidden",
            Self::Truncated => "truncated",
            Self::StackDropped => "stack-dropped",
            Self::Damaged => "damaged",
            Self::JsMoved => "js-moved",
            Self::JsContradiction => "js-contradiction",
            Self::ProcessEnded => "process-ended",
            Self::StackCut => "stack-cut",
            Self::FramesMissing => "frames-missing",
            Self::ChainLost => "chain-lost",
            Self::NotTaken => "stack-not-taken",
            Self::JitUnknown => "jit-unknown",
        }
    }

    /// A few words that stand where the frame's name would.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::JitNoMap => "[JIT code, no map]",
            Self::JitNotInMap => "[JIT code, not in the map]",
            Self::InterpretedWithoutName => "[interpreted, no name]",
            Self::Stripped => "[stripped]",
            Self::ObjectReplaced => "[file replaced]",
            Self::ObjectUnreadable => "[file not readable]",
            Self::NoSymbol => "[no symbol]",
            Self::Unmapped => "[chain broken]",
            Self::KernelHidden => "[kernel, hidden]",
            Self::Truncated => "[stack cut at the kernel's limit]",
            Self::StackDropped => "[stack not kept]",
            Self::Damaged => "[damaged capture]",
            Self::JsMoved => "[JavaScript, moved]",
            Self::JsContradiction => "[JavaScript, contradictory]",
            Self::ProcessEnded => "[JavaScript, process ended]",
            Self::StackCut => "[stack cut at --stack-size]",
            Self::FramesMissing => "[frames missing]",
            Self::ChainLost => "[chain lost]",
            Self::NotTaken => "[no stack taken]",
            Self::JitUnknown => "[JIT code, unknown]",
        }
    }

    /// What happened, as one sentence.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::JitNoMap => "the process writes no JIT map, so compiled code has no names",
            Self::JitNotInMap => "no entry of the JIT map covers the address",
            Self::InterpretedWithoutName => {
                "an interpreted function runs inside the interpreter and has no address of its own"
            }
            Self::Stripped => "the file has no symbol table",
            Self::ObjectReplaced => "the file was replaced or removed since the process started",
            Self::ObjectUnreadable => "the file could not be read while recording",
            Self::NoSymbol => "the file's symbol table has no entry for the address",
            Self::Unmapped => "the chain ends in a function without frame pointers",
            Self::KernelHidden => "the kernel hides its symbols from the recorder",
            Self::Truncated => "the stack is deeper than the kernel records",
            Self::StackDropped => "the recorder's tables were full",
            Self::Damaged => "a part of the capture is damaged or missing",
            Self::JsMoved => {
                "the function's memory was given back before it was read, by the garbage collector or \
                 by a process about to end"
            }
            Self::JsContradiction => "the stack and V8's heap contradicted each other",
            Self::ProcessEnded => "the process ended before its heap could be read",
            Self::StackCut => "the stack is longer than the part of it that was copied",
            Self::FramesMissing => "the chain was lost and found again further out",
            Self::ChainLost => "the chain was lost here, so outer frames are missing",
            Self::NotTaken => "the probe was hit so often that a stack was taken of some hits only",
            Self::JitUnknown => "V8's heap tells of no function there, and there is no JIT map",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(self, names: JsNames) -> &'static str {
        match self {
            Self::JitNoMap | Self::JitUnknown => Self::names_missing(names),
            Self::JitNotInMap => match names {
                JsNames::Map | JsNames::Off => {
                    "record with --js=heap; or from the target's start, with its perf map left in \
                     place until the end"
                }
                JsNames::Unknown | JsNames::Heap | JsNames::HeapRefused => {
                    "record from the target's start, and leave its perf map in place until the end"
                }
            },
            Self::InterpretedWithoutName => match names {
                // V8 gives a function its own address when it compiles it; those of the snapshot
                // were compiled when node was built.
                JsNames::Unknown => {
                    "start the target with --perf-basic-prof --interpreted-frames-native-stack; \
                     those that remain are in Node's snapshot: --no-node-snapshot"
                }
                JsNames::Heap => "none is needed for a few: V8 was entering or leaving a function",
                JsNames::HeapRefused | JsNames::Map | JsNames::Off => Self::names_missing(names),
            },
            Self::JsMoved => {
                "none is needed for a few, or at a process's end; else record at a lower rate (-F)"
            }
            Self::JsContradiction => "none is needed for a few; else record at a lower rate (-F)",
            Self::ProcessEnded => {
                "none is needed for the last moment of a process; for its very end start it with \
                 --perf-basic-prof --interpreted-frames-native-stack and record with --js=map"
            }
            Self::StackCut => "record with a larger --stack-size",
            Self::FramesMissing | Self::ChainLost => {
                "none is needed for a few; else use libraries with unwind tables or frame pointers"
            }
            Self::NotTaken => {
                "none is needed: every hit is counted, and those with a stack stand for the others"
            }
            Self::Stripped => "use a build with a symbol table, or install its debug symbols",
            Self::ObjectReplaced => "restart the target so that it runs the file that is installed",
            Self::ObjectUnreadable => "record as a user who may read the file",
            Self::NoSymbol => "none is needed for generated stubs; else install debug symbols",
            Self::Unmapped => {
                "use libraries built with -fno-omit-frame-pointer where the callers matter"
            }
            Self::KernelHidden => "record as root, or set sysctl kernel.kptr_restrict=0",
            Self::Truncated => "raise sysctl kernel.perf_event_max_stack and record again",
            Self::StackDropped => "record for a shorter time or fewer events at once",
            Self::Damaged => "keep the disk from filling up and let the recorder finish",
        }
    }

    /// What names JavaScript, by what the capture did without it.
    fn names_missing(names: JsNames) -> &'static str {
        match names {
            JsNames::Map | JsNames::Off => "record with --js=heap, which needs no flag",
            JsNames::Heap => {
                "none is needed for a few; else let the program's runtime write a perf map \
                 (/tmp/perf-PID.map)"
            }
            JsNames::HeapRefused => {
                "the remarks say why V8's heap could not be read; without it, start the target with \
                 --perf-basic-prof --interpreted-frames-native-stack"
            }
            JsNames::Unknown => {
                "start the target with --perf-basic-prof --interpreted-frames-native-stack"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_distinct_and_everything_is_said() {
        let mut keys: Vec<_> = Reason::ALL.iter().map(|r| r.key()).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), Reason::ALL.len());
        for (at, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
            assert!(!reason.sentence().is_empty() && reason.label().starts_with('['));
            for names in
                [JsNames::Unknown, JsNames::Heap, JsNames::HeapRefused, JsNames::Map, JsNames::Off]
            {
                assert!(!reason.remedy(names).is_empty());
            }
        }
    }

    #[test]
    fn the_schema_names_every_reason() {
        let schema = include_str!("../../docs/report-json.schema.json");
        let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
        let keys = schema["$defs"]["reason"]["enum"].as_array().unwrap();
        let known: Vec<_> = keys.iter().map(|key| key.as_str().unwrap()).collect();
        assert_eq!(known, Reason::ALL.map(Reason::key));
    }

    #[test]
    fn remedies_know_how_javascript_was_named() {
        for reason in [Reason::JitNoMap, Reason::InterpretedWithoutName] {
            assert!(reason.remedy(JsNames::Heap).starts_with("none is needed for a few"));
            for (names, heap, flags) in [
                (JsNames::Map, true, false),
                (JsNames::Off, true, false),
                (JsNames::HeapRefused, false, true),
                (JsNames::Unknown, false, true),
            ] {
                let remedy = reason.remedy(names);
                assert_eq!(remedy.contains("--js=heap"), heap, "{remedy}");
                assert_eq!(remedy.contains("--perf-basic-prof"), flags, "{remedy}");
            }
        }
    }
}
