//! File operations as stacks with weights: how many, how long, how many bytes. What an operation was
//! about is the leaf. It must not know how a graph is drawn.

use formats::capture::Capture;
use formats::text::clean_string;

use super::PATH_CHARS;
use crate::aggregate::StackCounts;
use crate::asked::Askers;
use crate::join::errno;
use crate::join::operations::{self, Operation};
use crate::plan::Weight;
use crate::profile::{Kind, ResolvedFrame};
use crate::report::units::{counted, duration};
use crate::symbolise::Symboliser;

/// Nanoseconds of one unit of time in a graph: below it, an operation has no width.
const UNIT_NS: u64 = 1_000;

/// What a weight counts, in the plural, as a tooltip has it.
pub(super) fn unit(weight: Weight) -> &'static str {
    match weight {
        Weight::Count => "operations",
        Weight::Time => "µs",
        Weight::Bytes => "bytes",
    }
}

/// A weight without what it is of.
pub(super) fn amount(weight: Weight, total: u64) -> String {
    match weight {
        Weight::Count | Weight::Bytes => total.to_string(),
        Weight::Time => duration(total.saturating_mul(UNIT_NS)),
    }
}

/// A weight in words.
pub(super) fn in_words(weight: Weight, total: u64) -> String {
    match weight {
        Weight::Count => counted(total, "file operation", "file operations"),
        Weight::Time => format!("{} of file operations", amount(weight, total)),
        Weight::Bytes => format!("{} read and written", counted(total, "byte", "bytes")),
    }
}

/// The weight of each stack. An operation on an open file with nothing but Node in its stack stands
/// where the file was opened, and its leaf is marked as inferred.
pub(super) fn weighed(
    capture: &Capture,
    symboliser: &mut Symboliser<'_>,
    weight: Weight,
) -> StackCounts {
    let mut counts = StackCounts::default();
    let joined = operations::join(capture).operations;
    let askers = Askers::of(&joined, symboliser);
    for (place, operation) in joined.iter().enumerate() {
        let weight = match weight {
            Weight::Count => 1,
            Weight::Time => operation.latency_ns.unwrap_or_default() / UNIT_NS,
            Weight::Bytes => operation.bytes().unwrap_or_default(),
        };
        if weight == 0 {
            continue;
        }
        let asked = askers.get(place);
        let leaf = ResolvedFrame { inferred: asked.asker.is_some(), ..leaf(operation) };
        counts.add(symboliser.with_leaf(asked.stack(), leaf), weight);
    }
    counts
}

/// What an operation was about, and how it ended.
fn leaf(operation: &Operation<'_>) -> ResolvedFrame {
    let shown = |path: &[u8]| match path {
        b"" => "(empty path)".to_owned(),
        path => clean_string(path, PATH_CHARS),
    };
    let path = match (operation.path, operation.descriptor, operation.directory) {
        (Some(path), ..) => shown(path),
        (None, None, None) => "(path not readable)".to_owned(),
        (None, ..) => "(its open was not seen)".to_owned(),
    };
    let error = operation.errno().map_or(String::new(), |number| errno::name(number).into_owned());
    ResolvedFrame {
        file: Some(path),
        module: Some(operation.name.to_owned()),
        ..ResolvedFrame::named(Kind::Operation, error)
    }
}
