//! The capture of a recording that begins: what it says of the machine and of the plan.

use formats::capture::{CaptureWriter, Meta, Remark, TableLimits};
use formats::limits::Limits;

use crate::plan::{CPU_STACK_BYTES, JsSource, PROBE_STACK_BYTES, RecordPlan, Target};
use crate::process::procfs;
use crate::session::attrs::UserStacks;
use crate::session::budget::Budget;
use crate::session::error::RecordError;
use crate::session::ingest::Ingest;
use crate::session::sink::Sink;
use crate::session::world::World;
use crate::sys::attr::{EventAttr, EventSource};
use crate::sys::spawn::PendingChild;
use crate::sys::{clock, vdso};

/// Begins it.
pub(super) fn open(
    plan: &RecordPlan,
    sink: Sink,
    budget: &Budget,
    child: Option<&PendingChild>,
    online: &[u32],
    js: JsSource,
) -> Result<Ingest<Sink>, RecordError> {
    let clocks = clock::clock_pair()?;
    let uname = nix::sys::utsname::uname()?;
    let (mode, targets) = match &plan.target {
        Target::Attach { pids, .. } => ("attach", pids.clone()),
        Target::Launch { .. } => {
            ("launch", child.map(|child| child.pid() as u32).into_iter().collect())
        }
    };
    let meta = Meta {
        recorder: concat!("nrec ", env!("CARGO_PKG_VERSION")).into(),
        command: plan.command_line.clone(),
        mode: mode.into(),
        targets,
        start_ns: clocks.monotonic_ns,
        start_wall_ns: clocks.wall_ns,
        kernel: uname.release().to_string_lossy().into_owned(),
        arch: uname.machine().to_string_lossy().into_owned(),
        cpus: online.len() as u32,
        frequency: plan.frequency.unwrap_or(0),
        ring_bytes: budget.ring_total(),
        js: js.key().into(),
        stack_bytes: match user_stacks(plan, js) {
            UserStacks::Callchain => 0,
            UserStacks::Copy { cpu_bytes, .. } if plan.frequency.is_some() => cpu_bytes,
            UserStacks::Copy { probe_bytes, .. } => probe_bytes,
        },
    };
    let writer = CaptureWriter::create(sink, &meta, TableLimits::default())?;
    let limits = Limits::default();
    let image = vdso::vdso_image();
    let no_vdso = image.as_ref().err().map(ToString::to_string);
    let world = World::new(limits, image.ok());
    let layout = EventAttr::new(EventSource::Dummy).record_parse_info();
    let mut ingest = Ingest::new(world, writer, layout, max_stack(), limits, js);
    if let Some(text) = no_vdso {
        ingest.remark(Remark { code: "no-vdso".into(), text, count: 1 });
    }
    Ok(ingest)
}

/// How user stacks are taken.
pub(super) fn user_stacks(plan: &RecordPlan, js: JsSource) -> UserStacks {
    match js {
        JsSource::Map | JsSource::Off => UserStacks::Callchain,
        JsSource::Heap => UserStacks::Copy {
            cpu_bytes: plan.stack_bytes.unwrap_or(CPU_STACK_BYTES),
            probe_bytes: plan.stack_bytes.unwrap_or(PROBE_STACK_BYTES),
        },
    }
}

/// The kernel's limit on callchains; its default where it cannot be read.
fn max_stack() -> usize {
    const DEFAULT: usize = 127; // PERF_MAX_STACK_DEPTH, include/uapi/linux/perf_event.h
    procfs::read("/proc/sys/kernel/perf_event_max_stack")
        .ok()
        .and_then(|text| std::str::from_utf8(&text).ok()?.trim().parse().ok())
        .unwrap_or(DEFAULT)
}
