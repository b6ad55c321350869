//! The process under load, its samples, and what reading them costs. Knows no names.

use std::io::BufReader;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use linux_perf_event_reader::{EventRecord, RawEventRecord, RecordParseInfo, RecordType};
use recorder::sys::attr::EventAttr;
use recorder::sys::perf::PerfFd;
use recorder::sys::ring::Ring;
use recorder::unwind::{REGISTERS, Registers};
use recorder::v8::V8;

/// A sample with the start of its user stack.
pub(crate) struct Sample {
    pub(crate) time: u64,
    pub(crate) registers: Registers,
    pub(crate) stack: Vec<u8>,
}

/// One perf event of one thread, and its ring.
pub(crate) struct Tap {
    ring: Ring,
    pub(crate) event: PerfFd,
    layout: RecordParseInfo,
    lost: u64,
}

impl Tap {
    pub(crate) fn open(mut attr: EventAttr, pid: u32) -> Self {
        attr.user_regs = REGISTERS;
        attr.user_stack_bytes = std::env::var("STACK").map_or(16 << 10, |v| v.parse().unwrap());
        attr.watermark_bytes = 1 << 20;
        let event = PerfFd::open(&attr, pid as i32, -1).unwrap();
        let ring = Ring::map(&event, 8192).unwrap();
        Self { ring, layout: attr.record_parse_info(), event, lost: 0 }
    }

    pub(crate) fn drain(&mut self) -> Vec<Sample> {
        self.ring.refresh().unwrap();
        let mut out = Vec::new();
        for record in self.ring.records() {
            let record = record.unwrap();
            if !record.is_sample() {
                if record.type_ == 2 {
                    self.lost += 1;
                }
                continue;
            }
            let body = record.body().raw_data();
            let parsed =
                RawEventRecord::new(RecordType::SAMPLE, record.misc, body, self.layout).parse();
            let Ok(EventRecord::Sample(sample)) = parsed else { continue };
            let (Some(regs), Some((stack, _))) = (sample.user_regs, sample.user_stack) else {
                continue;
            };
            out.push(Sample {
                time: sample.timestamp.unwrap(),
                registers: Registers::of_sample(|number| regs.get(number)),
                stack: stack.as_slice().to_vec(),
            });
        }
        let head = self.ring.head();
        self.ring.consume_to(head).unwrap();
        out
    }
}

/// `CLOCK_MONOTONIC`, in nanoseconds like a sample's time.
pub(crate) fn now() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// What the reader spent.
#[derive(Default)]
pub(crate) struct Cost {
    pub(crate) samples: u64,
    pub(crate) resolve: Duration,
    pub(crate) drains: u64,
    pub(crate) worst: Duration,
    pub(crate) age_ns: u64,
    /// Stacks that the drain had resolved before.
    pub(crate) known: u64,
    /// Finding the machine frames once more, their tables being known.
    pub(crate) unwind: Duration,
}

/// Starts `node`; both its ends are piped.
pub(crate) fn start(
    node: &str,
    flags: &[&str],
    args: &[String],
) -> (Child, BufReader<ChildStdout>) {
    let mut command = Command::new(node);
    command.args(flags).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let reader = BufReader::new(child.stdout.take().unwrap());
    (child, reader)
}

/// Prints what the reader spent on each sample.
pub(crate) fn report_cost(v8: &V8, cost: &Cost) {
    let counts = v8.counts();
    let (tables, bytes) = v8.unwinder().size();
    let n = cost.samples.max(1);
    println!(
        "{} stacks known; unwinding {:.2} us each, tables of {tables} files, {} KiB",
        cost.known,
        cost.unwind.as_nanos() as f64 / n as f64 / 1e3,
        bytes >> 10
    );
    println!(
        "{} samples, {:.1} us each, {} drains, worst drain {:?}, mean age {:.1} ms; reads/sample: {:.1} calls {:.1} pages; code {:?}; exhausted {}",
        cost.samples,
        cost.resolve.as_nanos() as f64 / n as f64 / 1e3,
        cost.drains,
        cost.worst,
        cost.age_ns as f64 / n as f64 / 1e6,
        counts.calls as f64 / n as f64,
        counts.pages as f64 / n as f64,
        v8.code_counts(),
        counts.exhausted,
    );
}
