//! The samples of one event of the catalogue, with their arguments by what they mean.

use formats::capture::{Capture, EventDef, Samples};
use formats::catalogue::{self, Argument, CLEANUP, Entry, Role};

/// Whether the samples of this event are parts of operations, or of the work of the thread pool.
#[must_use]
pub fn is_part(event: &EventDef) -> bool {
    let has = |name: &str| event.fields.iter().any(|field| field.name == name);
    match catalogue::entry(&event.name) {
        Some(entry) if entry.event == CLEANUP => has("req") && has("result"),
        Some(entry) => entry.arguments.iter().all(|a| has(a.name) || !is_needed(a.role)),
        None => false,
    }
}

/// Whether the samples of this event begin operations.
#[must_use]
pub fn is_beginning(event: &EventDef) -> bool {
    is_part(event) && catalogue::entry(&event.name).is_some_and(|entry| entry.operation.is_some())
}

/// Arguments without which a sample cannot be joined.
fn is_needed(role: Role) -> bool {
    use Role::{Descriptor, Handle, Loop, NewPath, Path, Request, StackTop, Work};
    matches!(role, Request | Path | NewPath | Descriptor | Work | Loop | Handle | StackTop)
}

/// The samples of one event, with the places of the arguments.
pub(super) struct Part<'c> {
    pub(super) samples: &'c Samples,
    pub(super) entry: &'static Entry,
    places: Vec<(Role, usize)>,
}

impl<'c> Part<'c> {
    /// `None` where the samples are no part of an operation.
    pub(super) fn new(capture: &'c Capture, samples: &'c Samples) -> Option<Self> {
        let event = capture.event(samples.event).filter(|event| is_part(event))?;
        let entry = catalogue::entry(&event.name)?;
        let place = |argument: &Argument| {
            let place = event.fields.iter().position(|field| field.name == argument.name)?;
            Some((argument.role, place))
        };
        Some(Self { samples, entry, places: entry.arguments.iter().filter_map(place).collect() })
    }

    /// The argument that has this meaning, as it is in the capture.
    pub(super) fn value(&self, role: Role, row: usize) -> Option<u64> {
        let (_, place) = self.places.iter().find(|(known, _)| *known == role)?;
        self.samples.fields.get(*place)?.get(row).copied()
    }
}
