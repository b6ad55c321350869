//! How the samples of one perf event are read: whose they are, and which fields become arguments.

use std::rc::Rc;

use formats::capture::FieldValue;
use formats::tracepoint::{Field, FieldKind, Value};
use linux_perf_event_reader::RecordParseInfo;

use crate::sys::ring::page_bytes;

/// What a perf event's records are to a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Each is a hit, with its stack where one is wanted.
    Each,
    /// Each is a hit of a hot probe, without its stack.
    HotHit,
    /// The stack of a hit of a hot probe; the hit itself follows.
    HotStack,
}

/// How samples of one event are read.
#[derive(Debug, Clone)]
pub struct Decoder {
    /// Event id in the capture.
    pub event: u32,
    /// What its records are.
    pub role: Role,
    /// Layout of its records.
    pub layout: RecordParseInfo,
    /// Fields of the raw part that become arguments, in the order of the event's definition.
    pub fields: Rc<[Field]>,
    /// For a probe at several functions: how they are told apart, and what each one's event is.
    pub shared: Option<Shared>,
    /// The field that holds the caller's return address, when the probe could not slide.
    pub caller: Option<Field>,
    /// File offsets at which the frame pointer is still the caller's, ascending; where user stacks
    /// are copied.
    pub entries: Rc<[u64]>,
}

/// What the functions have of their own that share one dynamic event.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The field that tells the function, as a place in `members`.
    pub function: Field,
    /// Each function's event in the capture, and its arguments.
    pub members: Rc<[(u32, Rc<[Field]>)]>,
}

impl Decoder {
    /// The event in the capture of a raw record, and what of it becomes arguments.
    pub fn event_of(&self, raw: &[u8]) -> Option<(u32, &[Field])> {
        let Some(shared) = &self.shared else { return Some((self.event, &self.fields)) };
        let Value::U64(place) = shared.function.read(raw) else { return None };
        let (event, fields) = shared.members.get(place as usize)?;
        Some((*event, fields))
    }
}

/// Bytes of a uprobe's record before what it fetched: the header of all tracepoints and the probed
/// address. (Those of a return probe have another address.)
const BEFORE_FETCHED: usize = 16;
/// Follows a string that the kernel has cut.
const CUT: &[u8] = "\u{2026}".as_bytes();

/// A string of a raw record that the kernel has cut because all that is fetched shares one page, with a
/// mark at its end; `None` for what is whole.
pub(super) fn cut_string(field: &Field, raw: &[u8]) -> Option<Vec<u8>> {
    let end = field.string_end(raw)?;
    if end < BEFORE_FETCHED + page_bytes() {
        return None;
    }
    match field.read(raw) {
        Value::Str(text) => Some([text, CUT].concat()),
        _ => None,
    }
}

/// One argument of a raw record.
pub(super) fn value<'a>(field: &Field, raw: &'a [u8]) -> FieldValue<'a> {
    if matches!(field.kind, FieldKind::Array { .. } | FieldKind::Opaque) {
        // Arrays are kept as they lie in the record: the reader knows the element size.
        let start = field.offset as usize;
        let bytes = start.checked_add(field.size as usize).and_then(|end| raw.get(start..end));
        return bytes.map_or(FieldValue::Missing, FieldValue::Bytes);
    }
    match field.read(raw) {
        Value::U64(value) => FieldValue::Int(value),
        Value::I64(value) => FieldValue::Int(value as u64),
        Value::Str(bytes) | Value::Bytes(bytes) => FieldValue::Bytes(bytes),
        _ => FieldValue::Missing,
    }
}
