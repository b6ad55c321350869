//! Why a frame has no name, and what would give it one. Knows nothing of captures: a reason is a
//! key, a sentence and a remedy.

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
}

impl Reason {
    /// All reasons, in the order of [`Reason`].
    pub const ALL: [Self; 12] = [
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
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::JitNoMap => {
                "start the target with --perf-basic-prof --interpreted-frames-native-stack"
            }
            Self::JitNotInMap => {
                "record from the target's start, and leave its perf map in place until the end"
            }
            Self::InterpretedWithoutName => {
                // V8 gives a function its own address when it compiles it; those of the snapshot
                // were compiled when node was built.
                "start the target with --perf-basic-prof --interpreted-frames-native-stack; those \
                 that remain are in Node's snapshot: --no-node-snapshot"
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
            assert!(!reason.remedy().is_empty() && reason.label().starts_with('['));
        }
    }
}
