//! What the events of a recording are, before any is open: time samples, probes and the kernel's
//! tracepoints, each with its definition in the capture and the way in which its records are read.

use std::borrow::Cow;
use std::io::Write;
use std::rc::Rc;

use formats::capture::{EventDef, FieldType, Remark};
use formats::probe::ProbeKind;
use formats::tracepoint::{Field, FieldRole, TracepointFormat};

use super::{Arms, CPU_EVENT};
use crate::probe::locate::Site;
use crate::probe::wanted::{Member, Wanted};
use crate::session::armed::{Armed, Paced};
use crate::session::attrs::{self, UserStacks};
use crate::session::decoder::{Decoder, Role, Shared};
use crate::session::define;
use crate::session::error::RecordError;
use crate::session::ingest::Ingest;
use crate::session::stacks::{DROP_CALLER, KEEP_CALLER};
use crate::sys::attr::{EventAttr, EventSource, Inherit, SampleRate, Sideband};
use crate::sys::perf::PerfFd;
use crate::sys::ring::page_bytes;
use crate::tracefs::{self, DynamicEvent};

/// Name of the argument that carries the caller's address; users never see it.
const CALLER: &str = "nrec_caller";
/// Name of the argument that tells at which function a shared probe was hit: the place among its
/// functions. Users never see it.
const FUNCTION: &str = "nrec_function";

impl Arms {
    /// Options that all events share.
    pub(super) fn base(&self, source: EventSource) -> EventAttr {
        EventAttr {
            inherit: self.mode.inherit,
            disabled: self.mode.on_exec,
            enable_on_exec: self.mode.on_exec,
            // A quarter of the ring: early enough to empty it, seldom enough to cost nothing.
            watermark_bytes: (self.ring_pages * page_bytes() / 4) as u32,
            ..EventAttr::new(source)
        }
    }

    /// The event that carries mappings, names and tasks beside time samples, or instead of them.
    /// It is opened first, on the first thread of each CPU it owns the ring.
    ///
    /// # Errors
    /// What writing the capture says.
    pub fn carrier<W: Write>(
        &mut self,
        ingest: &mut Ingest<W>,
        sampling: Option<Sampling>,
    ) -> Result<(), RecordError> {
        // Threads share their process's memory: what one loses by a swap another one keeps.
        let children = self.mode.inherit == Inherit::Children;
        let own_context = children && inherits_with_own_context();
        if children && !own_context {
            ingest.remark(Remark {
                code: "shared-contexts".into(),
                text: "this kernel is older than 6.13: probes may miss hits of child processes"
                    .into(),
                count: 1,
            });
        }
        let Some(sampling) = sampling else {
            let base = self.base(EventSource::Dummy);
            let attr =
                EventAttr { sideband: Sideband::ALL, own_context, exclude_kernel: true, ..base };
            self.push(attr, None, None, None);
            return Ok(());
        };
        let attr = EventAttr {
            rate: SampleRate::Frequency(sampling.frequency.into()),
            callchain: true,
            exclude_kernel: sampling.exclude_kernel,
            exclude_callchain_kernel: sampling.exclude_kernel,
            sideband: Sideband::ALL,
            own_context,
            ..self.base(sampling.source)
        };
        let attr = self.mode.stacks.taken_by(attr, |cpu_bytes, _probe| cpu_bytes);
        let period_ns = 1_000_000_000 / u64::from(sampling.frequency.max(1));
        ingest.define(&EventDef {
            id: CPU_EVENT,
            name: "cpu".into(),
            set: "cpu".into(),
            source: format!("{} at {} Hz", sampling.source.name(), sampling.frequency),
            fields: Vec::new(),
            period_ns: Some(period_ns),
        })?;
        let layout = attr.record_parse_info();
        let (fields, entries) = (Rc::default(), Rc::default());
        let (event, role) = (CPU_EVENT, Role::Each);
        let decoder = Decoder { event, role, layout, fields, shared: None, caller: None, entries };
        self.push(attr, None, Some(decoder), None);
        Ok(())
    }

    /// Makes the dynamic event of a probe at `sites` and prepares to open it.
    ///
    /// # Errors
    /// The kernel refuses the event, or the capture cannot be written.
    pub fn probe<W: Write>(
        &mut self,
        ingest: &mut Ingest<W>,
        wanted: &Wanted,
        sites: &[Site],
    ) -> Result<(), RecordError> {
        let Some(dynamic) = &self.dynamic else { return Err(RecordError::NoTracefs) };
        let repair = wanted.stack
            && self.mode.stacks == UserStacks::Callchain
            && sites.iter().any(|site| site.fetch_caller || site.false_caller);
        let specs = sites
            .iter()
            .map(|site| {
                // Names and types must be equal at all sites, what is fetched need not.
                let caller = match site {
                    Site { fetch_caller: true, .. } => "$stack0".to_owned(),
                    Site { false_caller: true, .. } => format!("\\{DROP_CALLER}"),
                    _ => format!("\\{KEEP_CALLER}"),
                };
                // Before the string, which must be the last: see formats::catalogue.
                let caller = repair.then(|| format!("{CALLER}={caller}:x64"));
                let functions = wanted.functions();
                let place = functions.iter().position(|name| *name == site.function);
                let place = place.filter(|_| !wanted.members.is_empty());
                let place = place.map(|place| format!("{FUNCTION}=\\{place}:u16"));
                let arguments = wanted.arguments_at(&site.function);
                site.spec(caller.into_iter().chain(place).chain(arguments).collect())
            })
            .collect::<Result<Vec<_>, _>>()?;
        let kind = match wanted.kind {
            ProbeKind::Entry => tracefs::ProbeKind::Entry,
            ProbeKind::Return => tracefs::ProbeKind::Return,
        };
        self.names += 1;
        let event = dynamic.create(kind, &wanted.event_name(self.names), &specs)?;
        let format = TracepointFormat::parse(event.format())
            .map_err(|cause| RecordError::Format { event: wanted.name.clone(), cause })?;
        let caller = format.field(CALLER).cloned();
        let is_own = |field: &&Field| {
            field.role == FieldRole::Argument && ![CALLER, FUNCTION].contains(&field.name.as_str())
        };
        let fields: Vec<Field> = format.fields.iter().filter(is_own).cloned().collect();
        let kinds = wanted.kinds.iter().copied().chain(std::iter::repeat(FieldType::Hex));
        let kinds: Vec<_> = fields.iter().zip(kinds).collect();
        let place: Vec<&str> = sites.iter().map(|site| site.text.as_str()).collect();
        let shown = if wanted.members.is_empty() { kinds.as_slice() } else { &[] };
        ingest.define(&define::of_probe(wanted, (wanted.event, &wanted.name), &place, shown))?;
        let mut members = Vec::new();
        for Member { event, entry } in &wanted.members {
            let is_own = |(field, _): &&(&Field, FieldType)| {
                entry.arguments.iter().any(|argument| argument.name == field.name)
            };
            let own: Vec<_> = kinds.iter().filter(is_own).copied().collect();
            let at = sites.iter().filter(|site| site.function == entry.function);
            let place: Vec<&str> = at.map(|site| site.text.as_str()).collect();
            ingest.define(&define::of_probe(wanted, (*event, entry.event), &place, &own))?;
            members.push((*event, own.into_iter().map(|(field, _)| field.clone()).collect()));
        }
        let shared = format.field(FUNCTION).cloned();
        let shared = shared.map(|function| Shared { function, members: members.into() });
        let entries: Rc<[u64]> =
            sites.iter().filter(|site| site.at_entry).map(|site| site.offset).collect();
        let base = self.base(EventSource::Tracepoint { id: event.id() });
        let decoder = Decoder {
            event: wanted.event,
            role: Role::Each,
            layout: base.record_parse_info(),
            fields: fields.into(),
            shared,
            caller,
            entries,
        };
        let filter = wanted.filter.map(Cow::Borrowed);
        self.push_all(base, &decoder, wanted.stack, filter.as_ref(), Some(event));
        Ok(())
    }

    /// The perf events of one probe or tracepoint; `decoder` reads each, by its role.
    pub(super) fn push_all(
        &mut self,
        base: EventAttr,
        decoder: &Decoder,
        stack: bool,
        filter: Option<&Cow<'static, str>>,
        dynamic: Option<DynamicEvent>,
    ) {
        let first = self.armed.len();
        let attrs = attrs::of_probe(base, self.mode.stacks, stack);
        if attrs.len() > 1 {
            let (event, armed) = (decoder.event, first..first + attrs.len());
            self.paced.push(Paced { event, armed, pace: None });
        }
        // The dynamic event is removed with the last of them.
        let mut dynamic = dynamic;
        for (attr, role) in attrs {
            let layout = attr.record_parse_info();
            let decoder = Decoder { role, layout, ..decoder.clone() };
            self.push(attr, filter.cloned(), Some(decoder), dynamic.take());
        }
    }

    fn push(
        &mut self,
        attr: EventAttr,
        filter: Option<Cow<'static, str>>,
        decoder: Option<Decoder>,
        dynamic: Option<DynamicEvent>,
    ) {
        let enabled = !attr.disabled || attr.enable_on_exec;
        let fds = Vec::new();
        self.armed.push(Armed { attr, filter, decoder, fds, lost: 0, enabled, dynamic });
    }
}

/// Time sampling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// Cycles or clock.
    pub source: EventSource,
    /// Samples a second and thread.
    pub frequency: u32,
    /// The user may not see the kernel.
    pub exclude_kernel: bool,
}

/// Whether this kernel can keep the events of siblings apart, see [`EventAttr::own_context`].
fn inherits_with_own_context() -> bool {
    let attr = EventAttr {
        inherit: Inherit::Children,
        own_context: true,
        disabled: true,
        // Nothing is counted; asking for the kernel would need a privilege.
        exclude_kernel: true,
        ..EventAttr::new(EventSource::Dummy)
    };
    PerfFd::open(&attr, 0, -1).is_ok()
}
