//! Opens the events of a recording: one descriptor an event, thread and CPU, all events of a CPU
//! in that CPU's ring; dynamic events are made first and removed last.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::Write;
use std::rc::Rc;

use formats::capture::{EventDef, FieldDef, FieldType, Loss, Remark};
use formats::probe::ProbeKind;
use formats::tracepoint::{Field, FieldRole, FormatError, TracepointFormat};

use super::armed::{self, Armed, Paced};
use super::attrs::{self, UserStacks};
use super::budget::{Budget, map_ring, shortage};
use super::decoder::{Decoder, Role, Shared};
use super::define;
use super::error::RecordError;
use super::ingest::Ingest;
use super::pace::{self, Pace};
use super::single::Singles;
use super::stacks::{DROP_CALLER, KEEP_CALLER};
use super::syscalls::{self, Tracepoint, Whose};
use crate::probe::locate::Site;
use crate::probe::wanted::{Member, Wanted};
use crate::process::procfs;
use crate::sys::attr::{EventAttr, EventSource, Inherit, SampleRate, Sideband};
use crate::sys::perf::PerfFd;
use crate::sys::perf_error::PerfError;
use crate::sys::ring::{Ring, page_bytes};
use crate::tracefs::{self, DynamicEvent, DynamicEvents, Tracefs};

/// Event id of the time samples.
pub const CPU_EVENT: u32 = 1;
/// Name of the argument that carries the caller's address; users never see it.
const CALLER: &str = "nrec_caller";
/// Name of the argument that tells at which function a shared probe was hit: the place among its
/// functions. Users never see it.
const FUNCTION: &str = "nrec_function";

/// How the targets' events are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenMode {
    /// Whom the events follow.
    pub inherit: Inherit,
    /// Time samples begin at the exec that the target will do.
    pub on_exec: bool,
    /// How user stacks are taken.
    pub stacks: UserStacks,
}

/// All open events and their rings.
#[derive(Debug)]
pub struct Arms {
    /// One ring a CPU.
    pub rings: Vec<Ring>,
    /// For each ring the event and the descriptor that it belongs to.
    owners: Vec<(usize, usize)>,
    cpus: Vec<u32>,
    mode: OpenMode,
    ring_pages: usize,
    armed: Vec<Armed>,
    dynamic: Option<DynamicEvents>,
    paced: Vec<Paced>,
    singles: Singles,
    opened: HashSet<u32>,
    names: u32,
}

impl Arms {
    /// Nothing armed yet. `dynamic` is needed for probes only.
    #[must_use]
    pub fn new(
        cpus: Vec<u32>,
        mode: OpenMode,
        budget: &Budget,
        dynamic: Option<DynamicEvents>,
    ) -> Self {
        let ring_pages = (budget.ring_bytes as usize / page_bytes()).max(1);
        let rings = Vec::new();
        let (armed, opened, owners) = (Vec::new(), HashSet::new(), Vec::new());
        let (paced, singles, names) = (Vec::new(), Singles::default(), 0);
        Self {
            rings,
            owners,
            cpus,
            mode,
            ring_pages,
            armed,
            dynamic,
            paced,
            singles,
            opened,
            names,
        }
    }

    /// Options that all events share.
    fn base(&self, source: EventSource) -> EventAttr {
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

    /// Opens the events that single threads have for a thread. `false`: too many threads have them.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn open_single<W: Write>(
        &mut self,
        ingest: &mut Ingest<W>,
        tid: u32,
    ) -> Result<bool, PerfError> {
        if self.singles.is_empty() {
            return Ok(true);
        }
        let Self { singles, owners, armed, cpus, .. } = self;
        let owner = |&(event, fd): &(usize, usize)| armed.get(event)?.fds.get(fd);
        let rings = cpus.iter().zip(owners.iter());
        singles.open(ingest, tid, rings.filter_map(|(&cpu, at)| Some((cpu, owner(at)?))))
    }

    /// Closes what a thread had for itself.
    pub fn close_single<W: Write>(&mut self, ingest: &mut Ingest<W>, tid: u32) {
        self.singles.close(ingest, tid);
    }

    /// The perf events of one probe or tracepoint; `decoder` reads each, by its role.
    fn push_all(
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

    /// Looks how often each probe was hit, by event, and takes stacks accordingly.
    ///
    /// # Errors
    /// The kernel refuses to switch an event on or off; all others are switched. The first refusal
    /// is returned.
    pub fn keep_pace(&mut self, now_ns: u64, hits: impl Fn(u32) -> u64) -> Result<(), PerfError> {
        let burst = pace::burst(self.smallest_ring(), self.mode.stacks.probe_bytes());
        armed::every(&mut self.paced, |paced| {
            let pace = paced.pace.get_or_insert_with(|| Pace::new(burst));
            let Some(hot) = pace.update(now_ns, hits(paced.event)) else { return Ok(()) };
            armed::take_stacks(self.armed.get_mut(paced.armed.clone()).unwrap_or_default(), hot)
        })
    }

    /// Takes few stacks at all probes while a ring is half full, before what is in it is read: reading
    /// takes longer than filling.
    ///
    /// # Errors
    /// As [`Self::keep_pace`].
    pub fn relieve(&mut self, now_ns: u64, hits: impl Fn(u32) -> u64) -> Result<(), PerfError> {
        let fills = |ring: &mut Ring| {
            // What is wrong with a ring is told by who reads it.
            let half = ring.capacity() as u64 / 2;
            ring.refresh().is_ok_and(|head| head.saturating_sub(ring.tail()) >= half)
        };
        if self.paced.is_empty() || !self.rings.iter_mut().any(fills) {
            return Ok(());
        }
        armed::every(&mut self.paced, |paced| {
            let Some(pace) = &mut paced.pace else { return Ok(()) };
            if !pace.press(now_ns, hits(paced.event)) {
                return Ok(());
            }
            armed::take_stacks(self.armed.get_mut(paced.armed.clone()).unwrap_or_default(), true)
        })
    }

    /// Bytes of the smallest ring that is mapped, 0 before any is: the kernel may allow less than was
    /// asked for.
    #[must_use]
    pub fn smallest_ring(&self) -> u64 {
        self.rings.iter().map(Ring::capacity).min().unwrap_or(0) as u64
    }

    /// Says that the kernel allowed less ring memory than was asked for, if it did.
    #[must_use]
    pub fn small_rings(&self) -> Option<String> {
        let asked = self.ring_pages * page_bytes() * self.rings.len();
        let mapped: usize = self.rings.iter().map(Ring::capacity).sum();
        shortage(asked as u64, mapped as u64)
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

    /// Number of events that are opened for each thread and CPU.
    #[must_use]
    pub fn events(&self) -> usize {
        self.armed.len()
    }

    /// Opens all events from number `first_event` on for a thread. A thread that has ended
    /// meanwhile is no error; `false` says so.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn open_thread<W: Write>(
        &mut self,
        ingest: &mut Ingest<W>,
        tid: u32,
        first_event: usize,
    ) -> Result<bool, RecordError> {
        for cpu in 0..self.cpus.len() {
            for event in first_event..self.armed.len() {
                match self.open_one(ingest, tid, cpu, event) {
                    Err(error) if error.task_is_gone() => return Ok(false),
                    other => other?,
                }
            }
        }
        self.opened.insert(tid);
        if !self.singles.is_empty() && procfs::thread_group(tid).is_some_and(|pid| pid != tid) {
            self.open_single(ingest, tid)?;
        }
        Ok(true)
    }

    /// Whether events were opened for this thread (not inherited by it).
    #[must_use]
    pub fn is_open(&self, tid: u32) -> bool {
        self.opened.contains(&tid)
    }

    fn open_one<W: Write>(
        &mut self,
        ingest: &mut Ingest<W>,
        tid: u32,
        cpu: usize,
        event: usize,
    ) -> Result<(), PerfError> {
        let number = self.cpus.get(cpu).copied().unwrap_or_default();
        let Some(armed) = self.armed.get(event) else { return Ok(()) };
        let fd = PerfFd::open(&armed.attr, tid as i32, number as i32)?;
        if self.rings.len() <= cpu {
            let ring = map_ring(&fd, self.ring_pages)?;
            self.rings.push(ring);
            self.owners.push((event, armed.fds.len()));
        } else if let Some(owner) = self.ring_owner(cpu) {
            fd.set_output(owner)?;
        }
        if let Some(filter) = &armed.filter {
            fd.set_filter(filter)?;
        }
        // A thread that is found while its probe is hot.
        if armed.enabled != (!armed.attr.disabled || armed.attr.enable_on_exec) {
            fd.switch(armed.enabled)?;
        }
        if let Some(decoder) = &armed.decoder {
            ingest.decode_by(fd.id()?, decoder.clone());
        }
        if let Some(armed) = self.armed.get_mut(event) {
            armed.fds.push(fd);
        }
        Ok(())
    }

    /// The descriptors by which rings announce data, in the order of the rings.
    pub fn ring_owners(&self) -> impl Iterator<Item = &PerfFd> {
        (0..self.rings.len()).filter_map(|ring| self.ring_owner(ring))
    }

    fn ring_owner(&self, ring: usize) -> Option<&PerfFd> {
        let &(event, fd) = self.owners.get(ring)?;
        self.armed.get(event)?.fds.get(fd)
    }

    /// Samples that the kernel lost since the last call, by event.
    pub fn losses(&mut self, now: u64) -> Vec<Loss> {
        let mut losses = Vec::new();
        for armed in &mut self.armed {
            // A stack that is lost is no hit that is lost.
            let is_hit = |decoder: &&Decoder| decoder.role != Role::HotStack;
            let Some(decoder) = armed.decoder.as_ref().filter(is_hit) else { continue };
            let counts = armed.fds.iter().filter_map(|fd| fd.read_counts().ok()?.lost);
            let lost: u64 = counts.sum();
            if lost > armed.lost {
                let new = lost - armed.lost;
                armed.lost = lost;
                losses.push(Loss { event: decoder.event, time_ns: now, lost: new, dropped: 0 });
            }
        }
        losses.extend(self.singles.losses(now));
        losses
    }

    /// Stops counting, so that the last drain finds an end. Requests stop before their results.
    pub fn stop(&self) {
        self.singles.stop();
        for armed in self.armed.iter().rev() {
            for fd in &armed.fds {
                // A task that has ended needs no stopping.
                let _ended = fd.disable();
            }
        }
    }

    /// Closes all events and removes the dynamic ones. Returns what could not be removed.
    pub fn disarm(mut self) -> Vec<tracefs::TracefsError> {
        let mut problems = Vec::new();
        let dynamic: Vec<_> =
            self.armed.iter_mut().filter_map(|armed| armed.dynamic.take()).collect();
        self.rings.clear();
        self.singles = Singles::default();
        self.armed.clear();
        for mut event in dynamic {
            problems.extend(event.remove().err());
        }
        problems
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
