//! Time samples of a busy process: how many frames have a name, and whether it is the map's.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use recorder::sys::attr::{EventAttr, EventSource, SampleRate};
use recorder::unwind::Mappings;
use recorder::v8::frame::{Ending, Frame, StackDump};
use recorder::v8::{Generated, V8};

use crate::map::{MapFile, check_map};
use crate::tap::{Cost, Sample, Tap, now, report_cost, start};

/// Samples SCRIPT until it ends; `flagged` starts it with perf-map flags and compares.
pub(crate) fn cpu(args: &[String], flagged: bool) {
    let node = &args[0];
    let hz: u64 = args[1].parse().unwrap();
    let flags: &[&str] =
        if flagged { &["--perf-basic-prof", "--interpreted-frames-native-stack"] } else { &[] };
    let script = Path::new(&args[2]).join(&args[3]).display().to_string();
    let script_args = [&[script], &args[4..]].concat();
    let (mut child, stdout) = start(node, flags, &script_args);
    let pid = child.id();
    let mut v8 = loop {
        let began = Instant::now();
        match V8::attach(pid) {
            Ok(v8) => {
                println!("attached in {:?}", began.elapsed());
                break v8;
            }
            Err(error) => {
                assert!(child.try_wait().unwrap().is_none(), "{error}");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    };
    let mut tap = Tap::open(
        EventAttr { rate: SampleRate::Frequency(hz), ..EventAttr::new(EventSource::CpuClock) },
        // WORKER=1: the thread beside the main one that has used most CPU time.
        if std::env::var_os("WORKER").is_some() {
            std::thread::sleep(Duration::from_secs(1));
            busiest_other_thread(pid)
        } else {
            pid
        },
    );
    let _keeps_stdin = child.stdin.take().map(|mut stdin| {
        let _sent = stdin.write_all(b"go\n");
        stdin
    });
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok).take(3) {
            println!("  | {}", line.chars().take(100).collect::<String>());
        }
    });
    let mut map = MapFile::new(pid);
    let mut tally: BTreeMap<String, u64> = BTreeMap::new();
    let mut cost = Cost::default();
    let mut differences: HashMap<(String, String), u64> = HashMap::new();
    let mut endings: BTreeMap<String, u64> = BTreeMap::new();
    let mut lost: HashMap<u64, u64> = HashMap::new();
    loop {
        let done = child.try_wait().unwrap().is_some();
        if !done {
            std::thread::sleep(Duration::from_millis(10));
        }
        let batch = tap.drain();
        let began = Instant::now();
        v8.begin_drain();
        let mut resolved = Vec::new();
        for sample in &batch {
            cost.age_ns += now() - sample.time;
            let dump =
                StackDump { registers: sample.registers, stack: &sample.stack, at_entry: false };
            let stack = v8.resolve(&dump);
            cost.known += u64::from(stack.known);
            let tag = if stack.frames.contains(&Frame::Gap) {
                "Gap".to_owned()
            } else if stack.ending == Ending::Broken {
                format!("Broken after {}", stack.frames.len().min(3))
            } else {
                format!("{:?}", stack.ending)
            };
            if let Some(place) = lost_at(stack.frames, stack.ending) {
                *lost.entry(place).or_default() += 1;
            }
            *endings.entry(tag).or_default() += 1;
            if stack.stale {
                *tally.entry("stacks after the end".into()).or_default() += 1;
            }
            let frames = stack.frames.to_vec();
            for frame in &frames {
                let Frame::Code { address, call } = *frame else { continue };
                let what = match v8.generated(address - u64::from(call)) {
                    Some(Generated::BuiltinCopy { .. }) => "copy".to_owned(),
                    Some(other) => format!("{other:?}"),
                    None if v8.in_made_code(address - u64::from(call)) => "nameless".to_owned(),
                    None => continue,
                };
                *tally.entry(format!("made {what}")).or_default() += 1;
                if what == "nameless" && std::env::var_os("NAMELESS").is_some() {
                    println!("{address:x} {frames:x?}");
                }
            }
            resolved.push(frames);
        }
        cost.resolve += began.elapsed();
        cost.unwind += time_unwinding(&v8, pid, &batch);
        cost.worst = cost.worst.max(began.elapsed());
        cost.drains += 1;
        cost.samples += batch.len() as u64;
        v8.end_drain();
        if flagged {
            map.read();
        }
        for frames in &resolved {
            for frame in frames {
                match frame {
                    Frame::Js { .. } => *tally.entry("js".into()).or_default() += 1,
                    Frame::Unknown { why, .. } => {
                        *tally.entry(format!("unknown {why:?}")).or_default() += 1;
                    }
                    Frame::Gap => *tally.entry("gap".into()).or_default() += 1,
                    _ => {}
                }
            }
            if flagged {
                check_map(&v8, frames, &map, &mut tally, &mut differences);
            }
        }
        if done || v8.is_gone() && child.try_wait().unwrap().is_some() {
            break;
        }
    }
    let counts = tap.event.read_counts().unwrap();
    println!("hits {} lost {:?} endings {endings:?}", counts.value, counts.lost);
    report_cost(&v8, &cost);
    let mut lost: Vec<_> = lost.into_iter().collect();
    lost.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    println!("lost at {:x?}", lost.get(..12).unwrap_or(&lost));
    println!("TALLY {tally:?}");
    let unknown: u64 = tally.iter().filter(|(k, _)| k.starts_with("unknown")).map(|(_, v)| v).sum();
    let js = tally.get("js").copied().unwrap_or(0);
    println!(
        "UNNAMED {unknown} of {} ({:.4} %)",
        js + unknown,
        unknown as f64 * 100.0 / (js + unknown).max(1) as f64
    );
    if flagged {
        let same = tally.get("map same").copied().unwrap_or(0);
        let other = tally.get("map differs").copied().unwrap_or(0);
        println!(
            "MAP same {same} differs {other} ({:.4} % same)",
            same as f64 * 100.0 / (same + other).max(1) as f64
        );
        let mut list: Vec<_> = differences.into_iter().collect();
        list.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for ((ours, theirs), count) in list.into_iter().take(12) {
            println!("  {count} ours {ours:?} map {theirs:?}");
        }
    }
    let _gone = std::fs::remove_file(format!("/tmp/perf-{pid}.map"));
}

/// The frame whose caller was not found.
fn lost_at(frames: &[Frame], ending: Ending) -> Option<u64> {
    let gap = frames.iter().position(|frame| *frame == Frame::Gap);
    let last = gap.or((ending == Ending::Broken).then_some(frames.len()))?;
    match frames.get(last.checked_sub(1)?)? {
        Frame::Code { address, .. }
        | Frame::Builtin { address, .. }
        | Frame::Unknown { address, .. } => Some(*address),
        Frame::Js { pc, .. } => Some(*pc),
        Frame::Gap | Frame::Later => None,
    }
}

/// How long finding the machine frames of these samples takes, without names.
fn time_unwinding(v8: &V8, pid: u32, batch: &[Sample]) -> Duration {
    let maps = std::fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
    let mappings = Mappings::new(pid, &maps);
    let mut frames = Vec::new();
    let began = Instant::now();
    for sample in batch {
        let dump = StackDump { registers: sample.registers, stack: &sample.stack, at_entry: false };
        v8.unwinder().unwind(&dump, &mappings, &mut frames);
    }
    began.elapsed()
}

fn busiest_other_thread(pid: u32) -> u32 {
    let used = |tid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).unwrap();
        let fields = stat.rsplit_once(')').unwrap().1.to_owned();
        fields.split_whitespace().nth(11).unwrap().parse::<u64>().unwrap()
    };
    let threads = recorder::process::procfs::threads(pid);
    threads.into_iter().filter(|&tid| tid != pid).max_by_key(used).unwrap()
}
