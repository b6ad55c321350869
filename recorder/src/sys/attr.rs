//! What to ask of `perf_event_open`: a plain description and its kernel form.
//!
//! Pure: opens nothing. Every event asks for the same leading fields (identifier, address, task,
//! time), so that any record of any event can be ordered and attributed by fixed positions; see
//! [`super::record`]. Layouts: include/uapi/linux/perf_event.h, `struct perf_event_attr`.

use linux_perf_event_reader::{
    BranchSampleFormat, Endianness, ReadFormat, RecordIdParseInfo, RecordParseInfo, SampleFormat,
};
use perf_event_open_sys::bindings as abi;

/// Size in bytes of the `perf_event_attr` that this program speaks.
pub const ATTR_BYTES: usize = size_of::<abi::perf_event_attr>();

/// What an event counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventSource {
    /// Hardware cycles of the CPU's PMU.
    CpuCycles,
    /// The kernel's per-CPU high resolution timer; works without a PMU.
    CpuClock,
    /// A tracepoint or dynamic event, by the number in its tracefs `id` file.
    Tracepoint {
        /// Content of `events/GROUP/NAME/id`.
        id: u64,
    },
    /// Counts nothing; carries sideband records only.
    Dummy,
}

impl EventSource {
    /// The name used in messages.
    pub fn name(self) -> String {
        match self {
            Self::CpuCycles => "cpu-cycles".to_owned(),
            Self::CpuClock => "cpu-clock".to_owned(),
            Self::Tracepoint { id } => format!("tracepoint {id}"),
            Self::Dummy => "dummy".to_owned(),
        }
    }

    fn type_and_config(self) -> (u32, u64) {
        match self {
            Self::CpuCycles => (abi::PERF_TYPE_HARDWARE, u64::from(abi::PERF_COUNT_HW_CPU_CYCLES)),
            Self::CpuClock => (abi::PERF_TYPE_SOFTWARE, u64::from(abi::PERF_COUNT_SW_CPU_CLOCK)),
            Self::Tracepoint { id } => (abi::PERF_TYPE_TRACEPOINT, id),
            Self::Dummy => (abi::PERF_TYPE_SOFTWARE, u64::from(abi::PERF_COUNT_SW_DUMMY)),
        }
    }
}

/// How often an event takes a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleRate {
    /// Never: the event is only counted.
    Never,
    /// Every so many occurrences (1 = each).
    Period(u64),
    /// So many samples a second and CPU; the kernel adjusts the period.
    Frequency(u64),
}

/// Records about the address space and tasks that an event carries beside its samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sideband {
    /// MMAP2 records for executable mappings.
    pub mappings: bool,
    /// Build-id in MMAP2 records *instead of* device, inode and generation. Needs `mappings`.
    pub build_ids: bool,
    /// COMM records, marked when an exec made them.
    pub names: bool,
    /// FORK and EXIT records.
    pub tasks: bool,
}

impl Sideband {
    /// Everything but build-ids.
    pub const ALL: Self = Self { mappings: true, build_ids: false, names: true, tasks: true };
}

/// Whom an event follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inherit {
    /// Only the task that it was opened for.
    Nobody,
    /// New threads of the same process (`inherit_thread`, Linux 5.13).
    Threads,
    /// New threads and child processes.
    Children,
}

/// An event to open. Identifier, address, pid/tid and monotonic time are always sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventAttr {
    /// What is counted.
    pub source: EventSource,
    /// When a sample is taken.
    pub rate: SampleRate,
    /// Take a callchain with each sample.
    pub callchain: bool,
    /// Do not count in kernel mode.
    pub exclude_kernel: bool,
    /// Leave kernel addresses out of callchains (allowed where kernel addresses are not).
    pub exclude_callchain_kernel: bool,
    /// Leave user addresses out of callchains, where the user stack is copied instead.
    pub exclude_callchain_user: bool,
    /// Record the tracepoint's raw bytes with each sample.
    pub raw: bool,
    /// Callchain entries at most, kernel and user together; 0 = `kernel.perf_event_max_stack`.
    pub max_stack: u16,
    /// Records beside the samples.
    pub sideband: Sideband,
    /// Which tasks that the opened one creates from now on are followed.
    pub inherit: Inherit,
    /// Keep the kernel from handing this task's events to a sibling that inherited the same ones
    /// when it switches between the two. It does that to save time, but events on uprobes stay tied
    /// to the task they were made for: when one sibling ends, the other one's breakpoints are
    /// removed. Asking for PERF_SAMPLE_READ prevents it (kernel/events/core.c,
    /// `nr_no_switch_fast`); Linux before 6.13 refuses that together with `inherit`. It costs
    /// 24 bytes a sample, and one such event protects all events of its task.
    pub own_context: bool,
    /// Open without counting.
    pub disabled: bool,
    /// Start counting at the next exec.
    pub enable_on_exec: bool,
    /// Wake the reader at so many bytes in the ring; 0 = at each sample.
    pub watermark_bytes: u32,
    /// User registers to take, as bits of `enum perf_event_x86_regs`; 0 = none.
    pub user_regs: u64,
    /// Bytes of user stack to copy, a multiple of 8 below 65535; 0 = none.
    pub user_stack_bytes: u32,
}

impl EventAttr {
    /// An enabled, counting-only event without any option.
    pub const fn new(source: EventSource) -> Self {
        Self {
            source,
            rate: SampleRate::Never,
            callchain: false,
            exclude_kernel: false,
            exclude_callchain_kernel: false,
            exclude_callchain_user: false,
            raw: false,
            max_stack: 0,
            sideband: Sideband { mappings: false, build_ids: false, names: false, tasks: false },
            inherit: Inherit::Nobody,
            own_context: false,
            disabled: false,
            enable_on_exec: false,
            watermark_bytes: 0,
            user_regs: 0,
            user_stack_bytes: 0,
        }
    }

    /// The `PERF_SAMPLE_*` bits.
    pub fn sample_type(&self) -> u64 {
        let mut bits = abi::PERF_SAMPLE_IDENTIFIER
            | abi::PERF_SAMPLE_IP
            | abi::PERF_SAMPLE_TID
            | abi::PERF_SAMPLE_TIME;
        let optional = [
            (self.own_context, abi::PERF_SAMPLE_READ),
            (self.callchain, abi::PERF_SAMPLE_CALLCHAIN),
            (self.raw, abi::PERF_SAMPLE_RAW),
            (self.user_regs != 0, abi::PERF_SAMPLE_REGS_USER),
            (self.user_stack_bytes != 0, abi::PERF_SAMPLE_STACK_USER),
        ];
        for (wanted, bit) in optional {
            bits |= if wanted { bit } else { 0 };
        }
        u64::from(bits)
    }

    /// The `PERF_FORMAT_*` bits for `read(2)`. `lost` needs Linux 6.0
    /// (commit 119a784c8127, "perf/core: Add a new read format to get a number of lost samples").
    pub(crate) fn read_format(with_lost: bool) -> u64 {
        let lost = if with_lost { abi::PERF_FORMAT_LOST } else { 0 };
        u64::from(abi::PERF_FORMAT_ID | lost)
    }

    /// The kernel's structure.
    pub(crate) fn to_kernel(self, with_lost: bool) -> abi::perf_event_attr {
        let (type_, config) = self.source.type_and_config();
        let mut attr = abi::perf_event_attr {
            type_,
            size: u32::try_from(ATTR_BYTES).unwrap_or(u32::MAX),
            config,
            sample_type: self.sample_type(),
            read_format: Self::read_format(with_lost),
            sample_regs_user: self.user_regs,
            sample_stack_user: self.user_stack_bytes,
            sample_max_stack: if self.callchain { self.max_stack } else { 0 },
            clockid: nix::libc::CLOCK_MONOTONIC,
            ..Default::default()
        };
        match self.rate {
            SampleRate::Never => {}
            SampleRate::Period(period) => attr.sample_period = period,
            SampleRate::Frequency(hertz) => {
                attr.sample_freq = hertz;
                attr.set_freq(1);
            }
        }
        if self.watermark_bytes == 0 {
            attr.wakeup_events = 1;
        } else {
            attr.set_watermark(1);
            attr.wakeup_watermark = self.watermark_bytes;
        }
        attr.set_sample_id_all(1);
        attr.set_use_clockid(1);
        attr.set_disabled(self.disabled.into());
        attr.set_inherit((self.inherit != Inherit::Nobody).into());
        attr.set_inherit_thread((self.inherit == Inherit::Threads).into());
        attr.set_enable_on_exec(self.enable_on_exec.into());
        attr.set_exclude_kernel(self.exclude_kernel.into());
        attr.set_exclude_hv(self.exclude_kernel.into());
        attr.set_exclude_callchain_kernel(self.exclude_callchain_kernel.into());
        attr.set_exclude_callchain_user(self.exclude_callchain_user.into());
        attr.set_mmap(self.sideband.mappings.into());
        attr.set_mmap2(self.sideband.mappings.into());
        attr.set_build_id((self.sideband.mappings && self.sideband.build_ids).into());
        attr.set_comm(self.sideband.names.into());
        attr.set_comm_exec(self.sideband.names.into());
        attr.set_task(self.sideband.tasks.into());
        attr
    }

    /// How to tell the reader crate that a sample holds three words of counts: value, id, lost.
    ///
    /// linux-perf-event-reader 0.10.2 reads the layout of a single event where GROUP is set and
    /// that of a group where it is not, and knows no LOST. Nobody uses the words, so it is enough
    /// that it steps over the right number of them.
    fn reader_read_format(&self) -> ReadFormat {
        if self.own_context {
            ReadFormat::GROUP | ReadFormat::TOTAL_TIME_ENABLED | ReadFormat::ID
        } else {
            ReadFormat::from_bits_truncate(Self::read_format(true))
        }
    }

    /// What a record parser must know to decode this event's records (little endian).
    pub fn record_parse_info(&self) -> RecordParseInfo {
        // The trailing sample_id is {pid, tid} {time} {identifier}: 8 bytes each. The time of a
        // sample follows {identifier} {ip} {pid, tid}.
        RecordParseInfo {
            endian: Endianness::LittleEndian,
            sample_format: SampleFormat::from_bits_truncate(self.sample_type()),
            branch_sample_format: BranchSampleFormat::empty(),
            read_format: self.reader_read_format(),
            common_data_offset_from_end: Some(24),
            sample_regs_user: self.user_regs,
            // A 64-bit mask has at most 64 bits set.
            user_regs_count: u8::try_from(self.user_regs.count_ones()).unwrap_or(64),
            sample_regs_intr: 0,
            intr_regs_count: 0,
            nonsample_record_time_offset_from_end: Some(16),
            sample_record_time_offset_from_start: Some(24),
            id_parse_info: RecordIdParseInfo {
                nonsample_record_id_offset_from_end: Some(8),
                sample_record_id_offset_from_start: Some(0),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linux_perf_event_reader::{AttrFlags, PerfClock};

    fn full() -> EventAttr {
        EventAttr {
            rate: SampleRate::Frequency(99),
            callchain: true,
            raw: true,
            max_stack: 127,
            sideband: Sideband::ALL,
            inherit: Inherit::Children,
            disabled: true,
            watermark_bytes: 4096,
            user_regs: 0b1011,
            user_stack_bytes: 8192,
            ..EventAttr::new(EventSource::Tracepoint { id: 77 })
        }
    }

    #[test]
    fn kernel_form_carries_every_field() {
        let attr = full().to_kernel(true);
        assert_eq!((attr.type_, attr.config), (abi::PERF_TYPE_TRACEPOINT, 77));
        assert_eq!(attr.sample_freq, 99);
        assert_eq!(attr.freq(), 1);
        assert_eq!((attr.watermark(), attr.wakeup_watermark), (1, 4096));
        assert_eq!((attr.sample_max_stack, attr.sample_regs_user), (127, 0b1011));
        assert_eq!((attr.mmap(), attr.mmap2(), attr.build_id()), (1, 1, 0));
        assert_eq!((attr.comm(), attr.comm_exec(), attr.task()), (1, 1, 1));
        assert_eq!((attr.inherit(), attr.disabled(), attr.enable_on_exec()), (1, 1, 0));
        assert_eq!(attr.inherit_thread(), 0);
        let threads = EventAttr { inherit: Inherit::Threads, ..full() }.to_kernel(true);
        assert_eq!((threads.inherit(), threads.inherit_thread()), (1, 1));
        assert_eq!((attr.use_clockid(), attr.clockid), (1, nix::libc::CLOCK_MONOTONIC));
        assert_eq!(attr.read_format, u64::from(abi::PERF_FORMAT_ID | abi::PERF_FORMAT_LOST));
    }

    #[test]
    fn build_ids_need_mappings() {
        let mut attr = full();
        attr.sideband.build_ids = true;
        assert_eq!(attr.to_kernel(true).build_id(), 1);
        attr.sideband.mappings = false;
        assert_eq!(attr.to_kernel(true).build_id(), 0);
    }

    #[test]
    fn max_stack_without_callchain_is_not_sent() {
        // The kernel refuses sample_max_stack without PERF_SAMPLE_CALLCHAIN on some versions.
        let attr = EventAttr { callchain: false, ..full() };
        assert_eq!(attr.to_kernel(true).sample_max_stack, 0);
    }

    /// A sample with counts, as the kernel lays it out, is read to its callchain.
    #[test]
    fn counts_in_a_sample_are_stepped_over() {
        use linux_perf_event_reader::{EventRecord, RawData, RawEventRecord, RecordType};
        let attr = EventAttr {
            own_context: true,
            callchain: true,
            ..EventAttr::new(EventSource::CpuClock)
        };
        // identifier, ip, {pid, tid}, time, value, id, lost, nr, two addresses
        let words = [9u64, 0x1000, 7 | 8 << 32, 55, 123_456_789, 9, 0, 2, 0x1000, 0x2000];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let info = attr.record_parse_info();
        let record = RawEventRecord::new(RecordType::SAMPLE, 0, RawData::Single(&bytes), info);
        let EventRecord::Sample(sample) = record.parse().unwrap() else { panic!("no sample") };
        assert_eq!((sample.pid, sample.tid, sample.timestamp), (Some(7), Some(8), Some(55)));
        let chain = sample.callchain.unwrap();
        assert_eq!(
            (0..chain.len()).filter_map(|i| chain.get(i)).collect::<Vec<_>>(),
            [0x1000, 0x2000]
        );
    }

    /// Our hand-filled positions against the reader crate's own computation.
    #[test]
    fn layout_equals_the_readers_computation() {
        let attr = full();
        let mut flags = AttrFlags::empty();
        flags.insert(AttrFlags::SAMPLE_ID_ALL);
        let reader = linux_perf_event_reader::PerfEventAttr {
            type_: linux_perf_event_reader::PerfEventType::Tracepoint(77),
            sampling_policy: linux_perf_event_reader::SamplingPolicy::NoSampling,
            sample_format: SampleFormat::from_bits_truncate(attr.sample_type()),
            read_format: ReadFormat::from_bits_truncate(EventAttr::read_format(true)),
            flags,
            wakeup_policy: linux_perf_event_reader::WakeupPolicy::Watermark(4096),
            branch_sample_format: BranchSampleFormat::empty(),
            sample_regs_user: attr.user_regs,
            sample_stack_user: attr.user_stack_bytes,
            clock: PerfClock::Default,
            sample_regs_intr: 0,
            aux_watermark: 0,
            sample_max_stack: 127,
            aux_sample_size: 0,
            sig_data: 0,
        };
        assert_eq!(
            attr.record_parse_info(),
            RecordParseInfo::new(&reader, Endianness::LittleEndian)
        );
    }
}
