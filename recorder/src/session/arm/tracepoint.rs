//! Tracepoints of system calls among the events of a recording.

use std::io::Write;
use std::rc::Rc;

use formats::capture::{EventDef, FieldDef, FieldType};
use formats::tracepoint::{Field, FormatError, TracepointFormat};

use super::Arms;
use crate::session::attrs;
use crate::session::decoder::{Decoder, Role};
use crate::session::error::RecordError;
use crate::session::ingest::Ingest;
use crate::session::syscalls::{self, Tracepoint, Whose};
use crate::sys::attr::{EventAttr, EventSource, Inherit};
use crate::tracefs::Tracefs;

impl Arms {
    /// Prepares to open a tracepoint of system calls.
    ///
    /// # Errors
    /// The kernel has no such tracepoint, or the capture cannot be written.
    pub fn tracepoint<W: Write>(
        &mut self,
        ingest: &mut Ingest<W>,
        tracefs: &Tracefs,
        (whose, wanted): (Whose, &Tracepoint),
    ) -> Result<(), RecordError> {
        let Tracepoint { event, name, set, tracepoint, .. } = *wanted;
        let place = format!("{}:{tracepoint}", syscalls::GROUP);
        let text = tracefs.event_format(syscalls::GROUP, tracepoint)?;
        let format = |cause| RecordError::Format { event: place.clone(), cause };
        let parsed = TracepointFormat::parse(&text).map_err(format)?;
        let named = |&name: &&'static str| {
            parsed.field(name).cloned().ok_or_else(|| format(FormatError::Missing(name)))
        };
        let fields = wanted.fields.iter().map(named).collect::<Result<Vec<Field>, _>>()?;
        let field = |field: &Field| FieldDef { name: field.name.clone(), kind: FieldType::Signed };
        let whom = match whose {
            Whose::Everybody => "all threads",
            Whose::OtherThreads => "threads other than the main one, without futex",
        };
        ingest.define(&EventDef {
            id: event,
            name: name.into(),
            set: set.into(),
            source: format!("{place} of {whom}"),
            fields: fields.iter().map(field).collect(),
            period_ns: None,
        })?;
        let base = self.base(EventSource::Tracepoint { id: parsed.id });
        let decoder = Decoder {
            event,
            role: Role::Each,
            layout: base.record_parse_info(),
            fields: fields.into(),
            shared: None,
            caller: None,
            entries: Rc::default(),
        };
        match whose {
            Whose::Everybody => {
                self.push_all(base, &decoder, wanted.stack, wanted.filter.as_ref(), None);
            }
            Whose::OtherThreads => {
                let base = EventAttr { inherit: Inherit::Nobody, ..base };
                for (attr, role) in attrs::of_probe(base, self.mode.stacks, false) {
                    let layout = attr.record_parse_info();
                    let decoder = Decoder { role, layout, ..decoder.clone() };
                    self.singles.add(attr, wanted.filter.clone(), decoder);
                }
            }
        }
        Ok(())
    }
}
