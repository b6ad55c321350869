//! Which perf events a time sample or a probe is made of. Pure: opens nothing.

use super::decoder::Role;
use super::pace::ONE_IN;
use crate::sys::attr::{EventAttr, EventSource, SampleRate};
use crate::unwind::REGISTERS;

/// How user stacks are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserStacks {
    /// The kernel follows frame pointers.
    Callchain,
    /// The kernel copies registers and a piece of the stack.
    Copy {
        /// Bytes with a time sample.
        cpu_bytes: u32,
        /// Bytes at a probe.
        probe_bytes: u32,
    },
}

impl UserStacks {
    /// `attr` with the user part of its stacks taken in this way; `bytes` are a copy's.
    pub fn taken_by(self, attr: EventAttr, bytes: impl FnOnce(u32, u32) -> u32) -> EventAttr {
        match self {
            Self::Callchain => attr,
            Self::Copy { cpu_bytes, probe_bytes } => EventAttr {
                // What is left of the callchain is the kernel's part.
                callchain: attr.callchain && !attr.exclude_callchain_kernel,
                exclude_callchain_user: true,
                user_regs: REGISTERS,
                user_stack_bytes: bytes(cpu_bytes, probe_bytes),
                ..attr
            },
        }
    }

    /// Bytes that are copied at a hit, 0 where none are.
    #[must_use]
    pub fn probe_bytes(self) -> u32 {
        match self {
            Self::Callchain => 0,
            Self::Copy { probe_bytes, .. } => probe_bytes,
        }
    }
}

/// The perf events of one probe, each with the part that it plays. Where stacks are copied there are
/// two more, which are off until the probe is hot, see [`super::pace`].
///
/// The order matters: an event that is opened later writes its record of the same hit earlier
/// (kernel/trace/trace_event_perf.c, `perf_trace_add` puts it at the list's head), and a hit's
/// stack must be known when the hit itself comes.
#[must_use]
pub fn of_probe(base: EventAttr, stacks: UserStacks, wants_stack: bool) -> Vec<(EventAttr, Role)> {
    let plain = EventAttr {
        rate: SampleRate::Period(1),
        callchain: false,
        exclude_callchain_kernel: true,
        raw: true,
        // Not on exec: measured on 6.18, children that inherit a uprobe event which waits for
        // an exec lose its hits. The command waits before its exec, so nothing fires early.
        disabled: false,
        enable_on_exec: false,
        ..base
    };
    if !wants_stack {
        return vec![(plain, Role::Each)];
    }
    let with_stack = EventAttr { callchain: true, ..plain };
    let with_stack = stacks.taken_by(with_stack, |_cpu, probe_bytes| probe_bytes);
    if stacks == UserStacks::Callchain {
        return vec![(with_stack, Role::Each)];
    }
    let one_in = EventAttr { rate: SampleRate::Period(ONE_IN), disabled: true, ..with_stack };
    let hit = EventAttr { disabled: true, ..plain };
    vec![(hit, Role::HotHit), (one_in, Role::HotStack), (with_stack, Role::Each)]
}

/// Number of perf events that [`of_probe`] gives.
#[must_use]
pub fn count(stacks: UserStacks, wants_stack: bool) -> usize {
    let base = EventAttr::new(EventSource::Dummy);
    of_probe(base, stacks, wants_stack).len()
}
