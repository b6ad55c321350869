//! Stacks at a uprobe, next to the call sites that the script logs at the same moment.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use formats::elf::find_functions;
use object::read::ReadCache;
use recorder::sys::attr::{EventAttr, EventSource, SampleRate};
use recorder::tracefs::{DynamicEvents, ProbeKind, ProbePath, SiteSpec, Tracefs};
use recorder::v8::V8;
use recorder::v8::frame::{Frame, StackDump};

use crate::compare::{Seen, compare};
use crate::tap::{Cost, Tap, now, report_cost, start};

/// Runs `truth.js` and reports how its logs and the samples agree.
pub(crate) fn probe(args: &[String]) {
    let node = &args[0];
    let log = std::env::temp_dir().join(format!("v8truth-{}.log", std::process::id()));
    let log = log.display().to_string();
    let every = args.get(3).cloned().unwrap_or("7".into());
    let delay: u64 = args.get(4).map_or(10, |d| d.parse().unwrap());
    let script = Path::new(&args[1]).join("truth.js").display().to_string();
    let script_args = vec![script, log.clone(), args[2].clone(), every];
    let (mut child, mut stdout) = start(node, &[], &script_args);
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "ready");
    let pid = child.id();
    let began = Instant::now();
    let mut v8 = V8::attach(pid).unwrap();
    println!("V8 {} attached in {:?}", v8.version(), began.elapsed());
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
    let mut event = events.create(ProbeKind::Entry, "v8truth", &[site]).unwrap();
    let mut tap = Tap::open(
        EventAttr {
            rate: SampleRate::Period(1),
            ..EventAttr::new(EventSource::Tracepoint { id: event.id() })
        },
        pid,
    );
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let mut samples: Vec<Vec<Seen>> = Vec::new();
    let mut endings: BTreeMap<String, u64> = BTreeMap::new();
    let mut cost = Cost::default();
    let mut done = false;
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = ended.clone();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _read = stdout.read_line(&mut line);
        println!("{}", line.trim());
        flag.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    while !done {
        done = ended.load(std::sync::atomic::Ordering::SeqCst);
        if !done {
            std::thread::sleep(Duration::from_millis(delay));
        }
        let batch = tap.drain();
        if batch.is_empty() {
            continue;
        }
        let began = Instant::now();
        v8.begin_drain();
        for sample in &batch {
            cost.age_ns += now() - sample.time;
            let dump =
                StackDump { registers: sample.registers, stack: &sample.stack, at_entry: true };
            let resolved = v8.resolve(&dump);
            cost.known += u64::from(resolved.known);
            *endings.entry(format!("{:?}", resolved.ending)).or_default() += 1;
            if std::env::var_os("RAW").is_some() && samples.len() < 2 {
                println!("{:x?} {:?}", resolved.frames, resolved.ending);
            }
            samples.push(js_frames(resolved.frames));
        }
        cost.resolve += began.elapsed();
        cost.worst = cost.worst.max(began.elapsed());
        cost.drains += 1;
        cost.samples += batch.len() as u64;
        v8.end_drain();
    }
    for _ in 0..3 {
        v8.begin_drain();
        v8.end_drain();
    }
    let counts = tap.event.read_counts().unwrap();
    drop(tap);
    event.remove().unwrap();
    child.wait().unwrap();
    println!("hits {} lost {:?} endings {endings:?}", counts.value, counts.lost);
    report_cost(&v8, &cost);
    compare(&v8, &samples, &log);
    let _gone = std::fs::remove_file(&log);
}

fn js_frames(frames: &[Frame]) -> Vec<Seen> {
    frames
        .iter()
        .filter_map(|frame| match *frame {
            Frame::Js { function, position, tier, inlined, .. } => {
                Some(Seen::Js { function, position, tier, inlined })
            }
            Frame::Unknown { why, .. } => Some(Seen::Unknown(format!("{why:?}"))),
            _ => None,
        })
        .collect()
}
