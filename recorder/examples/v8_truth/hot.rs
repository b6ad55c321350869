//! A probe that is hit all the time: most stacks are equal.

use std::path::Path;
use std::time::{Duration, Instant};

use formats::elf::find_functions;
use object::read::ReadCache;
use recorder::sys::attr::{EventAttr, EventSource, SampleRate};
use recorder::tracefs::{DynamicEvents, ProbeKind, ProbePath, SiteSpec, Tracefs};
use recorder::v8::V8;
use recorder::v8::frame::StackDump;

use crate::tap::{Cost, Tap, now, report_cost, start};

/// Probes `uv_uptime` in SCRIPT for SECONDS.
pub(crate) fn hot(args: &[String]) {
    let (node, seconds) = (&args[0], args[1].parse().unwrap());
    let script = Path::new(&args[2]).join(&args[3]).display().to_string();
    let (mut child, _stdout) = start(node, &[], &[&[script], &args[4..]].concat());
    let pid = child.id();
    std::thread::sleep(Duration::from_millis(500));
    let mut v8 = V8::attach(pid).unwrap();
    let probed = std::env::var("PROBED").unwrap_or(node.clone());
    let file = std::fs::File::open(&probed).unwrap();
    let found = find_functions(&ReadCache::new(&file), &["uv_uptime"]).unwrap();
    let site = SiteSpec {
        path: ProbePath::any(Path::new(&probed)).unwrap(),
        offset: found[0].file_offset,
        ref_ctr: None,
        fetch_args: Vec::new(),
    };
    let events = DynamicEvents::new(Tracefs::locate().unwrap()).unwrap();
    let mut event = events.create(ProbeKind::Entry, "v8hot", &[site]).unwrap();
    let source = EventSource::Tracepoint { id: event.id() };
    let attr = EventAttr { rate: SampleRate::Period(1), ..EventAttr::new(source) };
    let mut tap = Tap::open(attr, pid);
    let mut cost = Cost::default();
    let (mut drains, mut js) = (Vec::new(), 0);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_millis(10));
        let batch = tap.drain();
        let start = Instant::now();
        v8.begin_drain();
        for sample in &batch {
            cost.age_ns += now() - sample.time;
            let dump =
                StackDump { registers: sample.registers, stack: &sample.stack, at_entry: true };
            let resolved = v8.resolve(&dump);
            cost.known += u64::from(resolved.known);
            js += resolved.frames.len();
        }
        drains.push(start.elapsed());
        cost.resolve += start.elapsed();
        cost.drains += 1;
        cost.samples += batch.len() as u64;
        v8.end_drain();
    }
    cost.worst = drains.iter().copied().max().unwrap_or_default();
    let counts = tap.event.read_counts().unwrap();
    drop(tap);
    event.remove().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    println!("hits {} lost {:?}, {js} frames", counts.value, counts.lost);
    report_cost(&v8, &cost);
    let rate = cost.samples as f64 / cost.resolve.as_secs_f64();
    println!("{rate:.0} hits/s of one CPU");
}
