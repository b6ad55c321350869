//! Imports of real `perf record` runs on a real node, compared frame by frame with `perf script`.
//!
//! Needs root, perf, node and tracefs. Where these are missing the tests are skipped and say why;
//! with `NREC_REQUIRE_KERNEL` set, a skip is a failure.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and a skipped one says why"
)]

mod compare;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use analyzer::import::perfdata;
use formats::capture::{Capture, Frame};
use formats::limits::Limits;

use compare::{compare, script_key};

/// Runs hot and cold JavaScript, builtins, C++ and the kernel for a while, and opens files in both ways.
const WORKLOAD: &str = r"
const fs = require('fs');
function fib(n) { return n < 2 ? n : fib(n - 1) + fib(n - 2) }
class Thing { work(n) { let s = 0; for (let i = 0; i < n; i++) s += Math.sqrt(i) * fib(8); return s } }
let opens = 0;
function opener(i) { opens++; try { fs.closeSync(fs.openSync(i % 3 ? '/etc/hostname' : '/absent-' + i % 7)) } catch {} }
const end = Date.now() + Number(process.argv[2]); const thing = new Thing(); let i = 0, pending = 0;
function done() { if (Date.now() < end || pending) return; fs.writeFileSync(process.argv[3], String(opens)); }
function tick() {
  thing.work(2000);
  for (let k = 0; k < 4; k++) opener(i++);
  JSON.parse(JSON.stringify({ a: [1, 2, 3, { b: 'x'.repeat(50) }] }));
  opens++; pending++;
  fs.open('/etc/passwd', 'r', (error, fd) => { pending--; if (fd) fs.closeSync(fd); done() });
  [3, 1, 2].sort((a, b) => a - b);
  if (Date.now() < end) setImmediate(tick);
}
tick();
";
const JS_FLAGS: [&str; 2] = ["--perf-basic-prof", "--interpreted-frames-native-stack"];

/// Why the kernel tests cannot run here.
fn obstacle() -> Option<String> {
    let works = |program: &str| {
        let status = Command::new(program).arg("--version").stdout(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let missing = ["perf", "node"].into_iter().find(|program| !works(program));
    if let Some(program) = missing {
        return Some(format!("{program} is not installed"));
    }
    let writable = OpenOptions::new().append(true).open(DYNAMIC_EVENTS);
    writable.err().map(|error| format!("{DYNAMIC_EVENTS}: {error}"))
}

const DYNAMIC_EVENTS: &str = "/sys/kernel/tracing/dynamic_events";

/// Whether to go on; says why not.
fn possible() -> bool {
    let Some(why) = obstacle() else { return true };
    assert!(std::env::var_os("NREC_REQUIRE_KERNEL").is_none(), "skipped although required: {why}");
    eprintln!("skipped: {why}");
    false
}

/// A folder that goes away, with the JIT files of the processes that ran in it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("nanalyze-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("work.js"), WORKLOAD).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Runs `perf record` with these options on the workload; gives the number of files it opened.
    fn record(&self, options: &[&str], node: &[&str], output: &str) -> usize {
        let mut perf = Command::new("perf");
        perf.current_dir(&self.0).args(["record", "-N", "-o", output]).args(options);
        perf.args(["--", "node"]).args(node).args(["work.js", "1200", "opens.txt"]);
        // `-o -` writes the pipe form to standard output.
        perf.stdout(if output == "-" {
            Stdio::from(File::create(self.path("pipe.data")).unwrap())
        } else {
            Stdio::null()
        });
        let status = perf.stderr(File::create(self.path("perf.err")).unwrap()).status().unwrap();
        let error = fs::read_to_string(self.path("perf.err")).unwrap();
        assert!(status.success(), "{error}");
        fs::read_to_string(self.path("opens.txt")).unwrap().parse().unwrap()
    }

    fn script(&self, data: &str, fields: &str) -> String {
        let output = Command::new("perf")
            .current_dir(&self.0)
            .args(["script", "-i", data, "-F", fields, "--ns", "--no-inline", "--no-demangle"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn load(&self, data: &str) -> Capture {
        let capture = perfdata::load(&self.path(data), &Limits::default()).unwrap();
        let pids = capture.processes.iter().map(|process| process.pid);
        for pid in pids {
            MAPS.lock().unwrap().insert(pid);
        }
        capture
    }
}

static MAPS: std::sync::Mutex<BTreeSet<u32>> = std::sync::Mutex::new(BTreeSet::new());

impl Drop for Folder {
    fn drop(&mut self) {
        for pid in MAPS.lock().unwrap().iter() {
            // A process that was not JIT-compiled has no map.
            let _gone = fs::remove_file(format!("/tmp/perf-{pid}.map"));
        }
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// These tests record: one that waits for the other's load sees its map late.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn cpu_samples_equal_perf_script() {
    let _turn = turn();
    if !possible() {
        return;
    }
    let folder = Folder::new("cpu");
    folder.record(&["-F", "999", "-g"], &JS_FLAGS, "cpu.data");
    let capture = folder.load("cpu.data");
    assert!(capture.read.complete(), "{:?} {:?}", capture.read, capture.remarks);
    let event = &capture.events[0];
    assert_eq!((event.name.as_str(), event.set.as_str()), ("cpu", "cpu"));
    assert_eq!(event.period_ns, Some(1_000_000_000 / 999));
    compare(&capture, &folder.script("cpu.data", "tid,time,event,ip,sym")).assert_equal("cpu");
    let js = capture.frames.iter().filter(|frame| matches!(frame, Frame::Jit { .. })).count();
    assert!(js > 10, "{js} JIT frames");
}

#[test]
fn jitdump_gives_the_names_that_perf_inject_gives() {
    let _turn = turn();
    if !possible() {
        return;
    }
    let folder = Folder::new("jitdump");
    let flags = ["--perf-prof", "--interpreted-frames-native-stack"];
    folder.record(&["-F", "499", "-g", "-k", "CLOCK_MONOTONIC"], &flags, "jit.data");
    let direct = folder.load("jit.data");
    let inject = Command::new("perf")
        .current_dir(&folder.0)
        .arg("--buildid-dir")
        .arg(folder.path("cache"))
        .args(["inject", "--jit", "-i", "jit.data", "-o", "injected.data"])
        .output()
        .unwrap();
    assert!(inject.status.success(), "{}", String::from_utf8_lossy(&inject.stderr));
    let script = folder.script("injected.data", "tid,time,event,ip,sym");
    compare(&direct, &script).assert_mostly_equal("jitdump");
    let injected = folder.load("injected.data");
    compare(&injected, &script).assert_equal("injected");
}

/// Two dynamic events on libuv inside node, removed when dropped.
struct Probes(String);

impl Probes {
    fn new() -> Self {
        let which = Command::new("sh").args(["-c", "command -v node"]).output().unwrap();
        let node = String::from_utf8(which.stdout).unwrap();
        let node = fs::canonicalize(node.trim()).unwrap();
        let group = format!("nanalyze_test_{}", std::process::id());
        let data = fs::read(&node).unwrap();
        let entries: Vec<_> = open_entries().collect();
        let names: Vec<_> = entries.iter().map(|entry| entry.function).collect();
        let found = formats::elf::find_functions(data.as_slice(), &names).unwrap();
        let mut text = String::new();
        for entry in entries {
            let site = found.iter().find(|f| f.name == entry.function).unwrap().file_offset;
            write!(text, "p:{group}/{} {}:{site:#x}", entry.function, node.display()).unwrap();
            for argument in entry.arguments {
                write!(text, " {}={}", argument.name, argument.fetch).unwrap();
            }
            text.push('\n');
        }
        let probes = Self(group);
        for line in text.lines() {
            append(line).unwrap();
        }
        probes
    }
}

/// What an open is joined of.
fn open_entries() -> impl Iterator<Item = &'static formats::catalogue::Entry> {
    let events = ["uv_fs_open", formats::catalogue::CLEANUP];
    formats::catalogue::set("fs").filter(move |entry| events.contains(&entry.event))
}

fn append(line: &str) -> std::io::Result<()> {
    OpenOptions::new().append(true).open(DYNAMIC_EVENTS)?.write_all(line.as_bytes())
}

impl Drop for Probes {
    fn drop(&mut self) {
        for entry in open_entries() {
            append(&format!("-:{}/{}", self.0, entry.function)).unwrap();
        }
    }
}

/// Every `uv_fs_open` of `perf script`: thread, time, path, flags and mode.
fn script_opens(script: &str) -> BTreeSet<(u32, u64, String, i64, i64)> {
    let mut opens = BTreeSet::new();
    // In pipe mode perf prints the callchains even if they are not asked for.
    for line in script.lines().filter(|l| l.contains("uv_fs_open") && !l.starts_with('\t')) {
        let ((tid, time, _event), rest) = script_key(line);
        let value = |name: &str| {
            let (_, after) = rest.split_once(&format!(" {name}=")).unwrap();
            after.split(' ').next().unwrap()
        };
        let path = value("path").trim_matches('"').to_owned();
        opens.insert((
            tid,
            time,
            path,
            value("flags").parse().unwrap(),
            value("mode").parse().unwrap(),
        ));
    }
    opens
}

fn capture_opens(capture: &Capture) -> BTreeSet<(u32, u64, String, i64, i64)> {
    let event = capture.events.iter().find(|event| event.name == "uv_fs_open").unwrap();
    assert_eq!(event.set, "fs");
    let samples = capture.samples.iter().find(|samples| samples.event == event.id).unwrap();
    let column = |name: &str| {
        let index = event.fields.iter().position(|field| field.name == name).unwrap();
        &samples.fields[index]
    };
    (0..samples.len())
        .map(|at| {
            let tid = capture.threads[samples.thread[at] as usize].tid;
            let path = capture.string(column("path")[at]).unwrap();
            let path = String::from_utf8(path.to_vec()).unwrap();
            let (flags, mode) = (column("flags")[at] as i64, column("mode")[at] as i64);
            (tid, samples.time_ns[at], path, flags, mode)
        })
        .collect()
}

#[test]
fn opens_equal_perf_script_in_every_form_of_the_file() {
    let _turn = turn();
    if !possible() {
        return;
    }
    let folder = Folder::new("opens");
    let probes = Probes::new();
    let event = |name: &str| format!("{}:{name}", probes.0);
    let (open, cleanup) = (event("uv_fs_open"), event("uv_fs_req_cleanup"));
    let events = ["-e", &open, "-e", &cleanup, "-e", "cpu-clock/freq=499/", "-g"];
    for (output, data, extra) in [
        ("file.data", "file.data", None),
        ("zstd.data", "zstd.data", Some("-z")),
        ("-", "pipe.data", None),
    ] {
        let mut options = events.to_vec();
        options.extend(extra);
        let opened = folder.record(&options, &JS_FLAGS, output);
        let capture = folder.load(data);
        assert!(capture.read.complete(), "{data}: {:?}", capture.read);
        let script = folder.script(data, "tid,time,event,trace");
        let (truth, ours) = (script_opens(&script), capture_opens(&capture));
        let missing: Vec<_> = truth.symmetric_difference(&ours).take(5).collect();
        assert!(missing.is_empty(), "{data}: {missing:?}");
        // The program's own count; node itself opens more, to load the program.
        let of_program = |open: &&(u32, u64, String, i64, i64)| {
            open.2 == "/etc/hostname" || open.2.starts_with("/absent-") || open.2 == "/etc/passwd"
        };
        assert_eq!(ours.iter().filter(of_program).count(), opened, "{data}");
        let script = folder.script(data, "tid,time,event,ip,sym");
        compare(&capture, &script).assert_equal(data);
    }
}

#[test]
fn cut_and_damaged_files_are_read_as_far_as_they_go() {
    let _turn = turn();
    if !possible() {
        return;
    }
    let folder = Folder::new("cut");
    folder.record(&["-F", "99", "-g"], &JS_FLAGS, "whole.data");
    let whole = fs::read(folder.path("whole.data")).unwrap();
    let full = folder.load("whole.data").samples[0].len();
    let load = |bytes: &[u8]| {
        let path: &Path = &folder.path("damaged.data");
        fs::write(path, bytes).unwrap();
        perfdata::load(path, &Limits::default())
    };
    let half = load(&whole[..whole.len() / 2]).unwrap();
    assert!(!half.read.complete() && half.samples[0].len() < full && !half.samples[0].is_empty());
    for cut in (0..whole.len()).step_by(whole.len() / 25) {
        // What counts is that it comes back.
        let _read = load(&whole[..cut]);
    }
    for seed in 0..25usize {
        let mut bytes = whole.clone();
        for flip in 0..20usize {
            let place = (seed * 7919 + flip * flip * 104_729) % bytes.len();
            bytes[place] ^= 1 << (flip % 8);
        }
        let _read = load(&bytes);
    }
}
