//! The events of a `perf.data` file, and how the raw data of each becomes arguments.
//!
//! One kind of time sample becomes the set `cpu`; tracepoints that the catalogue knows, by name and
//! arguments, become its sets, so that they give the same reports; all others are probes.

use std::collections::HashMap;

use formats::capture::{EventDef, FieldDef, FieldType};
use formats::catalogue;
use formats::text::clean_string;
use formats::tracepoint::{Field, FieldKind, FieldRole, TracepointFormat, Value};
use linux_perf_data::AttributeDescription;
use linux_perf_data::linux_perf_event_reader::{
    HardwareEventId, PerfEventAttr, PerfEventType, SamplingPolicy, SoftwareCounterType,
};

use super::layout::{sized_attr, u32_at, u64_at};
use super::tracing::{Described, Tracing};

/// Longest event name that is kept, characters.
const MAX_NAME: usize = 256;

/// How the samples of one attribute are read.
#[derive(Debug)]
pub(super) struct Slot {
    /// Index into the definitions.
    pub(super) event: usize,
    /// Format of the raw data, for tracepoints.
    pub(super) format: Option<TracepointFormat>,
}

/// All events.
#[derive(Debug, Default)]
pub(super) struct Events {
    pub(super) definitions: Vec<EventDef>,
    /// By attribute of the record reader.
    pub(super) slots: Vec<Slot>,
    /// Tracepoints whose format is not in the file.
    pub(super) without_format: u64,
}

impl Events {
    /// `attr_events` says which event each attribute belongs to; empty when there is one attribute an
    /// event.
    pub(super) fn new(
        attributes: &[AttributeDescription],
        attr_events: &[usize],
        event_desc: Option<&[u8]>,
        tracing: &Tracing,
    ) -> Self {
        let names = Names::parse(event_desc.unwrap_or_default());
        let mut events = Self::default();
        let mut known: HashMap<usize, usize> = HashMap::new();
        for (at, attribute) in attributes.iter().enumerate() {
            let event = attr_events.get(at).copied().unwrap_or(at);
            let described = match attribute.attr.type_ {
                PerfEventType::Tracepoint(id) => tracing.formats.get(&id),
                _ => None,
            };
            let index = *known.entry(event).or_insert_with(|| {
                let name = names.find(event, &attribute.event_ids);
                events.define(&attribute.attr, name, described);
                events.definitions.len() - 1
            });
            let format = described.map(|described| described.format.clone());
            events.slots.push(Slot { event: index, format });
        }
        events
    }

    fn define(&mut self, attr: &PerfEventAttr, name: Option<&str>, described: Option<&Described>) {
        let id = self.definitions.len() as u32;
        let full = match (described, name) {
            (Some(d), _) => format!("{}:{}", d.group, d.format.name),
            (None, Some(name)) => name.to_owned(),
            (None, None) => format!("event {id}"),
        };
        let full = clean_string(full.as_bytes(), MAX_NAME);
        let mut definition = EventDef {
            id,
            name: full.clone(),
            set: "probe".to_owned(),
            source: full,
            fields: Vec::new(),
            period_ns: None,
        };
        if matches!(attr.type_, PerfEventType::Tracepoint(_)) && described.is_none() {
            self.without_format += 1;
        }
        if let Some(Described { format, .. }) = described {
            let entry = catalogue::entries().find(|entry| is_entry(entry, format));
            if let Some(entry) = entry {
                definition.name = entry.event.to_owned();
                definition.set = entry.set.to_owned();
            }
            definition.fields =
                format.arguments().map(|field| field_definition(field, entry)).collect();
        } else if counts_time(attr) && !self.definitions.iter().any(|other| other.set == "cpu") {
            // Samples of a second clock would count the same time again.
            definition.name = "cpu".to_owned();
            definition.set = "cpu".to_owned();
            definition.period_ns = period_ns(attr);
        }
        self.definitions.push(definition);
    }
}

/// Whether a tracepoint is what a catalogue entry would have armed, whatever its group is called.
fn is_entry(entry: &catalogue::Entry, format: &TracepointFormat) -> bool {
    let fits = |argument: &catalogue::Argument| {
        format.field(argument.name).is_some_and(|field| {
            field.role == FieldRole::Argument
                && (field_type(field) == FieldType::String) == (argument.kind == FieldType::String)
        })
    };
    // Older recordings have less of a result.
    let more = [catalogue::Role::Address, catalogue::Role::Callback];
    let needed = |argument: &&catalogue::Argument| {
        entry.event != catalogue::CLEANUP || !more.contains(&argument.role)
    };
    entry.function == format.name && entry.arguments.iter().filter(needed).all(fits)
}

fn field_definition(field: &Field, entry: Option<&catalogue::Entry>) -> FieldDef {
    let known = entry.and_then(|e| e.arguments.iter().find(|a| a.name == field.name));
    // The format does not tell a number that people read in hexadecimal; the catalogue does.
    FieldDef { name: field.name.clone(), kind: known.map_or(field_type(field), |a| a.kind) }
}

fn field_type(field: &Field) -> FieldType {
    match field.kind {
        FieldKind::Int if field.signed => FieldType::Signed,
        FieldKind::Int => FieldType::Unsigned,
        FieldKind::Str { .. } | FieldKind::FixedChars => FieldType::String,
        _ => FieldType::Bytes,
    }
}

/// A value as a column of the capture holds it; bytes go through `intern`.
pub(super) fn cell(field: &Field, value: &Value<'_>, mut intern: impl FnMut(&[u8]) -> u32) -> u64 {
    match value {
        Value::U64(number) => *number,
        Value::I64(number) => number.cast_unsigned(),
        Value::Str(bytes) | Value::Bytes(bytes) => u64::from(intern(bytes)),
        Value::Array(numbers) => u64::from(intern(&packed(numbers.iter().copied(), field))),
        Value::SignedArray(numbers) => {
            let numbers = numbers.iter().map(|number| number.cast_unsigned());
            u64::from(intern(&packed(numbers, field)))
        }
        Value::StrArray(strings) => {
            let strings: Vec<&[u8]> = strings.iter().map(|s| s.unwrap_or_default()).collect();
            u64::from(intern(&strings.join(&0)))
        }
        // Not readable, or cut off: no value.
        _ => 0,
    }
}

/// Array elements as they lay in the record.
fn packed(numbers: impl Iterator<Item = u64>, field: &Field) -> Vec<u8> {
    let size = match field.kind {
        FieldKind::Array { elem_size } | FieldKind::DynamicArray { elem_size, .. } => elem_size,
        _ => 8,
    };
    let size = (size as usize).min(8);
    numbers.flat_map(|number| number.to_le_bytes().into_iter().take(size)).collect()
}

/// Whether a sample of this event stands for a piece of time on a CPU.
fn counts_time(attr: &PerfEventAttr) -> bool {
    matches!(
        attr.type_,
        PerfEventType::Software(SoftwareCounterType::CpuClock | SoftwareCounterType::TaskClock)
            | PerfEventType::Hardware(
                HardwareEventId::CpuCycles | HardwareEventId::RefCpuCycles,
                _
            )
    )
}

/// Nanoseconds that one sample stands for: by frequency, or by the period of a clock.
fn period_ns(attr: &PerfEventAttr) -> Option<u64> {
    match attr.sampling_policy {
        SamplingPolicy::Frequency(hertz) => 1_000_000_000_u64.checked_div(hertz),
        SamplingPolicy::Period(period) if matches!(attr.type_, PerfEventType::Software(_)) => {
            Some(period.get())
        }
        _ => None,
    }
}

/// Samples a second that were asked for.
pub(super) fn frequency(attr: &PerfEventAttr) -> Option<u32> {
    match attr.sampling_policy {
        SamplingPolicy::Frequency(hertz) if counts_time(attr) => u32::try_from(hertz).ok(),
        _ => None,
    }
}

/// Names of the events, from the section HEADER_EVENT_DESC.
#[derive(Debug, Default)]
struct Names {
    /// Name and first id, in the order of the events.
    names: Vec<(String, Option<u64>)>,
}

impl Names {
    /// Reads as many names as there are. Layout: counts of events and of bytes in an attribute (u32),
    /// then for each event the attribute, a count of ids (u32), a string (u32 and bytes), the ids.
    fn parse(section: &[u8]) -> Self {
        let mut names = Self::default();
        let (Some(count), Some(attr_size)) = (u32_at(section, 0), u32_at(section, 4)) else {
            return names;
        };
        let mut at = section.get(8..).unwrap_or_default();
        for _ in 0..count {
            let Some(next) = names.read_one(at, attr_size as usize) else { break };
            at = next;
        }
        names
    }

    fn read_one<'a>(&mut self, at: &'a [u8], attr_size: usize) -> Option<&'a [u8]> {
        sized_attr(at)?;
        let at = at.get(attr_size..)?;
        let ids = u32_at(at, 0)? as usize;
        let length = u32_at(at, 4)? as usize;
        let (text, rest) = at.get(8..)?.split_at_checked(length)?;
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        let rest_of = rest.get(ids.checked_mul(8)?..)?;
        let first = if ids > 0 { u64_at(rest, 0) } else { None };
        self.names.push((String::from_utf8_lossy(text).into_owned(), first));
        Some(rest_of)
    }

    /// By id, or by place where the events have no ids.
    fn find(&self, event: usize, ids: &[u64]) -> Option<&str> {
        let by_id = ids.first().and_then(|id| self.names.iter().find(|(_, f)| *f == Some(*id)));
        let by_place = self.names.get(event).filter(|(_, first)| first.is_none());
        by_id.or(by_place).map(|(name, _)| name.as_str())
    }
}
