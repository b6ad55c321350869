//! How an event of a probe stands in the capture. Pure: writes nothing.

use formats::capture::{EventDef, FieldDef, FieldType};
use formats::tracepoint::Field;

use crate::probe::wanted::Wanted;

/// The definition of a probe's event, or of one function's where several share a dynamic event; with
/// the places of its sites in words.
#[must_use]
pub fn of_probe(
    wanted: &Wanted,
    (id, name): (u32, &str),
    places: &[&str],
    fields: &[(&Field, FieldType)],
) -> EventDef {
    let field = |&(field, kind): &(&Field, FieldType)| FieldDef { name: field.name.clone(), kind };
    EventDef {
        id,
        name: name.to_owned(),
        set: wanted.set.into(),
        source: places.join(", "),
        fields: fields.iter().map(field).collect(),
        period_ns: None,
    }
}
