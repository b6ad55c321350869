//! From the records in time order to a capture: each record goes to the part that it concerns.

use std::cell::RefCell;
use std::num::NonZeroU64;
use std::rc::Rc;

use formats::capture::{Capture, End, Frame, Loss, ReadReport, Samples};
use formats::limits::Limits;
use linux_perf_data::linux_perf_event_reader::{
    AttrFlags, ClockId, CommOrExecRecord, CpuMode, EventRecord, ForkOrExitRecord, Mmap2FileId,
    PerfClock, PerfEventType, RawData, RawEventRecord, RecordType, SamplingPolicy, constants,
};
use linux_perf_data::{AttributeDescription, Feature, PerfFileRecord};

use super::events::{self, Events};
use super::gate::Shared;
use super::kernel::KernelReference;
use super::remarks::Remarks;
use super::sample::Sample;
use super::stacks::{Context, Interner, Owner};
use super::tracing::Tracing;
use super::world::{Inode, Mapped, World};
use super::{jit, kernel, meta, symbols};

/// `PROT_EXEC` of mmap(2).
const PROT_EXEC: u32 = 4;
/// Where the length of the build-id stands in the body of an MMAP2 record, behind five fields.
const MMAP2_BUILD_ID_LENGTH: usize = 32;
/// Longest build-id that an MMAP2 record can hold.
const MAX_BUILD_ID: u8 = 20;
/// Pid of mappings that belong to the kernel.
const KERNEL_PID: i32 = -1;

/// Builds the capture.
pub(super) struct Builder<'l> {
    limits: &'l Limits,
    shared: Rc<RefCell<Shared>>,
    attributes: Vec<AttributeDescription>,
    /// Made with the first record: a pipe brings the descriptions along the way.
    events: Option<Events>,
    samples: Vec<Samples>,
    sample_count: usize,
    losses: Vec<Loss>,
    world: World,
    interner: Interner,
    remarks: Remarks,
    kernel: KernelReference,
    bad_records: u64,
    first_ns: Option<u64>,
    last_ns: u64,
    broken: bool,
}

impl<'l> Builder<'l> {
    pub(super) fn new(
        attributes: &[AttributeDescription],
        shared: Rc<RefCell<Shared>>,
        limits: &'l Limits,
    ) -> Self {
        Self {
            limits,
            shared,
            attributes: attributes.to_vec(),
            events: None,
            samples: Vec::new(),
            sample_count: 0,
            losses: Vec::new(),
            world: World::new(limits),
            interner: Interner::new(limits),
            remarks: Remarks::default(),
            kernel: KernelReference::default(),
            bad_records: 0,
            first_ns: None,
            last_ns: 0,
            broken: false,
        }
    }

    /// Reading ended before the end of the file.
    pub(super) fn broken(&mut self, error: &linux_perf_data::Error) {
        self.broken = true;
        self.remarks.add("perf-data-broken", 1, || {
            format!("reading of the perf.data file ended early: {error}")
        });
    }

    /// Takes one record.
    pub(super) fn record(&mut self, record: &PerfFileRecord<'_>) {
        if self.events.is_none() {
            self.define_events();
        }
        let PerfFileRecord::EventRecord { attr_index, record } = record else { return };
        let time_ns = record.timestamp().unwrap_or_default();
        self.last_ns = self.last_ns.max(time_ns);
        let done = match record.record_type {
            RecordType::SAMPLE => self.sample(*attr_index, record),
            RecordType::MMAP2 if !build_id_fits(record) => None,
            _ => self.side_record(*attr_index, record, time_ns),
        };
        self.bad_records += u64::from(done.is_none());
    }

    fn define_events(&mut self) {
        let shared = self.shared.borrow();
        let section = |feature: Feature| shared.features.get(&feature.0).map(Vec::as_slice);
        let tracing = section(Feature::TRACING_DATA).map(Tracing::parse).unwrap_or_default();
        let names = section(Feature::EVENT_DESC);
        let events = Events::new(&self.attributes, &shared.attr_events, names, &tracing);
        drop(shared);
        self.remarks.add("tracepoint-format", events.without_format.max(tracing.bad), || {
            "a tracepoint's format is missing or not understood, so its arguments are not shown"
                .into()
        });
        self.samples = (events.definitions.iter())
            .map(|event| Samples {
                event: event.id,
                fields: vec![Vec::new(); event.fields.len()],
                ..Samples::default()
            })
            .collect();
        self.events = Some(events);
    }

    fn sample(&mut self, attr_index: usize, record: &RawEventRecord<'_>) -> Option<()> {
        let body = record.data.as_slice();
        let format = record.parse_info.sample_format;
        let read = self.shared.borrow().read_formats.get(attr_index).copied().unwrap_or_default();
        let sample = Sample::parse(&body, format, read)?;
        let slot = self.events.as_ref()?.slots.get(attr_index)?;
        if self.sample_count >= self.limits.samples {
            self.remarks
                .add("too-many-samples", 1, || "samples above the limit were left out".into());
            return Some(());
        }
        let time_ns = sample.time_ns.unwrap_or_default();
        self.first_ns = Some(self.first_ns.map_or(time_ns, |first| first.min(time_ns)));
        let (thread, process) = self.world.sampled(
            sample.pid.unwrap_or_default(),
            sample.tid.unwrap_or_default(),
            time_ns,
        );
        let start = match CpuMode::from_misc(record.misc) {
            CpuMode::Kernel => Context::Kernel,
            CpuMode::User => Context::User,
            _ => Context::Other,
        };
        let owner = Owner { process, space: self.world.space(process)? };
        let max_stack = self.attributes.get(attr_index).map_or(0, |a| a.attr.sample_max_stack);
        let entries = sample.callchain.chunks_exact(8);
        let entries = entries.map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
        let stack = if sample.callchain.is_empty() {
            self.interner.chain(owner, sample.ip.into_iter(), start, max_stack)
        } else {
            self.interner.chain(owner, entries, start, max_stack)
        };
        let columns = self.samples.get_mut(slot.event)?;
        columns.time_ns.push(time_ns);
        columns.thread.push(thread);
        columns.stack.push(stack);
        if let Some(format) = &slot.format {
            let cells = format.decode_arguments(sample.raw);
            for (column, (field, value)) in columns.fields.iter_mut().zip(cells) {
                column.push(events::cell(field, &value, |bytes| self.interner.string(bytes)));
            }
        }
        self.sample_count += 1;
        Some(())
    }

    /// Anything that is not a sample. `None` when it is too short.
    fn side_record(
        &mut self,
        attr_index: usize,
        record: &RawEventRecord<'_>,
        time_ns: u64,
    ) -> Option<()> {
        match record.parse().ok()? {
            EventRecord::Comm(comm) => self.comm(&comm, time_ns),
            EventRecord::Fork(ForkOrExitRecord { pid, ppid, .. }) => {
                self.world.fork(pid.cast_unsigned(), ppid.cast_unsigned(), time_ns);
            }
            EventRecord::Exit(ForkOrExitRecord { pid, tid, .. }) => {
                self.world.exit(pid.cast_unsigned(), tid.cast_unsigned(), time_ns);
            }
            EventRecord::Mmap(map) if map.pid == KERNEL_PID || is_kernel(map.cpu_mode) => {
                self.kernel.mapped(&map.path.as_slice(), map.page_offset);
            }
            EventRecord::Mmap(map) if map.is_executable => self.world.map(Mapped {
                pid: map.pid.cast_unsigned(),
                start: map.address,
                length: map.length,
                offset: map.page_offset,
                path: &map.path.as_slice(),
                build_id: &[],
                inode: None,
                time_ns,
            }),
            EventRecord::Mmap2(map) if map.pid == KERNEL_PID || is_kernel(map.cpu_mode) => {
                self.kernel.mapped(&map.path.as_slice(), map.page_offset);
            }
            EventRecord::Mmap2(map) if map.protection & PROT_EXEC != 0 => {
                let (build_id, inode) = match &map.file_id {
                    Mmap2FileId::BuildId(id) => (id.as_slice(), None),
                    Mmap2FileId::InodeAndVersion(file) => (
                        &[][..],
                        Some(Inode { major: file.major, minor: file.minor, number: file.inode }),
                    ),
                };
                self.world.map(Mapped {
                    pid: map.pid.cast_unsigned(),
                    start: map.address,
                    length: map.length,
                    offset: map.page_offset,
                    path: &map.path.as_slice(),
                    build_id,
                    inode,
                    time_ns,
                });
            }
            EventRecord::Lost(lost) => self.lost(attr_index, lost.count, time_ns),
            EventRecord::Raw(raw) if raw.record_type == RecordType::LOST_SAMPLES => {
                let count = super::layout::u64_at(&raw.data.as_slice(), 0)?;
                self.lost(attr_index, count, time_ns);
            }
            EventRecord::Throttle(_) => self.remarks.add("throttled", 1, || {
                "the kernel stopped an event for a moment because it came too often".into()
            }),
            _ => {}
        }
        Some(())
    }

    fn comm(&mut self, comm: &CommOrExecRecord<'_>, time_ns: u64) {
        let (pid, tid) = (comm.pid.cast_unsigned(), comm.tid.cast_unsigned());
        self.world.comm(pid, tid, &text(comm.name), comm.is_execve, time_ns);
    }

    fn lost(&mut self, attr_index: usize, lost: u64, time_ns: u64) {
        let slot = self.events.as_ref().and_then(|events| events.slots.get(attr_index));
        let event = slot.map_or(0, |slot| slot.event as u32);
        self.losses.push(Loss { event, time_ns, lost, dropped: 0 });
    }

    /// Looks for names and puts everything together.
    pub(super) fn finish(mut self) -> Capture {
        if self.events.is_none() {
            self.define_events();
        }
        let events = self.events.take().unwrap_or_default();
        let shared = self.shared.take();
        self.add_remarks(&shared);

        let mut meta = meta::read(&shared.features);
        meta.start_ns = match (meta.start_ns, self.first_ns) {
            (0, first) => first.unwrap_or_default(),
            (start, first) => first.map_or(start, |first| first.min(start)),
        };
        meta.start_wall_ns = meta::wall_clock(&shared.features, meta.start_ns);
        meta.frequency =
            self.attributes.iter().find_map(|a| events::frequency(&a.attr)).unwrap_or_default();
        if meta.targets.is_empty() {
            let first = self.world.threads.first().and_then(|thread| {
                self.world.processes.get(thread.process as usize).map(|process| process.pid)
            });
            meta.targets.extend(self.world.first_exec.or(first));
        }
        // What ran before has no time in the records.
        for process in &mut self.world.processes {
            process.start_ns = process.start_ns.max(meta.start_ns);
        }

        let build_ids = symbols::BuildIds::parse(
            shared.features.get(&Feature::BUILD_ID.0).map_or(&[], Vec::as_slice),
        );
        let monotonic = self.clock_is_monotonic();
        let clock = jit::Clock { monotonic, end_ns: self.last_ns };
        let found =
            jit::find(&self.world, &self.interner.frames, clock, self.limits, &mut self.remarks);
        let mut named = symbols::find(
            &mut self.world,
            &self.interner.frames,
            &build_ids,
            self.limits,
            &mut self.remarks,
        );
        if self.interner.frames.iter().any(|frame| matches!(frame, Frame::Kernel { .. })) {
            let object = self.world.add_kernel(build_ids.kernel.clone().unwrap_or_default());
            named.extend(kernel::find(
                object,
                &self.kernel,
                build_ids.kernel.as_deref(),
                &self.interner.frames,
                &mut self.remarks,
            ));
        }

        let reason =
            if self.broken || shared.torn { "cut short" } else { "the end of perf record" };
        Capture {
            meta,
            end: Some(End { reason: reason.to_owned(), end_ns: self.last_ns, exit_status: None }),
            events: events.definitions,
            objects: self.world.objects,
            processes: self.world.processes,
            threads: self.world.threads,
            ends: self.world.ends,
            // It records what happens, not what was there.
            holdings: Vec::new(),
            mappings: self.world.mappings,
            symbols: named,
            functions: Vec::new(),
            scripts: Vec::new(),
            line_ends: Vec::new(),
            jit: found,
            losses: self.losses,
            remarks: self.remarks.finish(),
            strings: self.interner.strings,
            frames: self.interner.frames,
            stacks: self.interner.stacks,
            samples: self.samples,
            read: ReadReport {
                ended: !self.broken,
                torn_tail: shared.torn,
                damaged_sections: self.bad_records + shared.bad_records,
                ..ReadReport::default()
            },
        }
    }

    fn add_remarks(&mut self, shared: &Shared) {
        self.remarks.add("perf-data-torn", u64::from(shared.torn), || {
            "the perf.data file was not finished: perf was killed, or the file was cut".into()
        });
        if let Some(error) = &shared.failure {
            self.remarks.add("perf-data-read", 1, || format!("reading ended early: {error}"));
        }
        self.remarks.add("perf-data-damaged", self.bad_records + shared.bad_records, || {
            "records of the perf.data file are shorter than they say".into()
        });
        self.remarks.add("table-full", self.interner.dropped + self.world.dropped, || {
            "stacks, strings or mappings above the limits were left out".into()
        });
        self.remarks.add("probe-sampled", self.sampled_tracepoints(), || {
            "perf record was told to sample a probe (-F or -c), so most of its hits are not in the file"
                .into()
        });
        let other_clock = !self.clock_is_monotonic();
        self.remarks.add("perf-clock", u64::from(other_clock), || {
            "times are of perf's own clock; record with -k CLOCK_MONOTONIC to compare them with others"
                .into()
        });
        let unordered = (self.attributes.iter())
            .filter(|attribute| !attribute.attr.flags.contains(AttrFlags::SAMPLE_ID_ALL))
            .count();
        self.remarks.add("no-record-times", unordered as u64, || {
            "mappings have no times, so addresses of unloaded libraries may be named wrongly".into()
        });
    }

    /// `perf record -F` makes a tracepoint a sampled event too.
    fn sampled_tracepoints(&self) -> u64 {
        let every = |policy| matches!(policy, SamplingPolicy::Period(NonZeroU64::MIN));
        let sampled = self.attributes.iter().filter(|attribute| {
            matches!(attribute.attr.type_, PerfEventType::Tracepoint(_))
                && !every(attribute.attr.sampling_policy)
        });
        sampled.count() as u64
    }

    fn clock_is_monotonic(&self) -> bool {
        self.attributes
            .iter()
            .all(|a| matches!(a.attr.clock, PerfClock::ClockId(ClockId::Monotonic)))
    }
}

/// A name field: it may be filled up with NUL behind its end.
fn text(name: RawData<'_>) -> Vec<u8> {
    let bytes = name.as_slice();
    bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

fn is_kernel(mode: CpuMode) -> bool {
    matches!(mode, CpuMode::Kernel | CpuMode::GuestKernel | CpuMode::Hypervisor)
}

/// The record reader asserts this length.
fn build_id_fits(record: &RawEventRecord<'_>) -> bool {
    let has_build_id = record.misc & constants::PERF_RECORD_MISC_MMAP_BUILD_ID != 0;
    let length = record.data.as_slice().get(MMAP2_BUILD_ID_LENGTH).copied();
    !has_build_id || length.is_none_or(|length| length <= MAX_BUILD_ID)
}
