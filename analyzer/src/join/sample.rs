//! One sample that is a part of an operation, with its arguments by what they mean.

use formats::capture::Capture;
use formats::catalogue::Role;

use super::part::Part;

/// One sample that is a part of an operation.
pub(super) struct Sample<'c, 'p> {
    pub(super) capture: &'c Capture,
    pub(super) part: &'p Part<'c>,
    pub(super) row: usize,
    pub(super) time_ns: u64,
    /// Index of the process in the capture.
    pub(super) process: u32,
    pub(super) tid: u32,
}

impl Sample<'_, '_> {
    pub(super) fn value(&self, role: Role) -> Option<u64> {
        self.part.value(role, self.row)
    }

    pub(super) fn number(&self, role: Role) -> Option<i64> {
        self.value(role).map(|value| value as i64)
    }

    /// A text, as the index of a string of the capture; 0 where it could not be read.
    pub(super) fn text(&self, role: Role) -> u32 {
        self.value(role).and_then(|index| u32::try_from(index).ok()).unwrap_or(0)
    }

    /// The stack, an index into the capture's.
    pub(super) fn stack(&self) -> u32 {
        self.part.samples.stack.get(self.row).copied().unwrap_or(0)
    }
}
