//! Reports of made-up captures, through the real writers.

use formats::capture::{Frame, Loss, Object, Remark};
use serde_json::Value;

use super::*;
use crate::aggregate::glob::Glob;
use crate::events;
use crate::plan::EventsPlan;
use crate::report::style::Style;
use crate::report::text::TextOptions;
use crate::testing::CaptureBuilder;

/// An application that fails to open its configuration, opens data, and computes.
pub(super) fn application() -> CaptureBuilder {
    let mut build = CaptureBuilder::new();
    let threads = build.process(10, &[10, 11]);
    let node = build.object("/usr/bin/node", 0);
    build.symbol(node, 0x1000, 0x100, "uv_fs_open");
    build.symbol(
        node,
        0x2000,
        0x100,
        "_ZN4node2fs4OpenERKN2v820FunctionCallbackInfoINS1_5ValueEEE",
    );
    build.symbol(node, 0x3000, 0x100, "Builtins_InterpreterEntryTrampoline");
    build.jit(
        0,
        0,
        &[
            (0x10_0000, 0x100, b"JS:~readSettings /app/lib/settings.js:12:18"),
            (0x10_0100, 0x100, b"JS:~openSync node:fs:591:18"),
            (0x10_0200, 0x100, b"JS:~ /app/server.js:3:1"),
            (0x10_0300, 0x100, b"JS:*hot /app/lib/report.js:5:13"),
        ],
    );
    let jit = |address| Frame::Jit { process: 0, address, call: true };
    let native = |offset| Frame::Native { object: node, offset, call: true };
    let settings = build.stack(&[
        jit(0x10_0210),
        jit(0x10_0010),
        jit(0x10_0110),
        native(0x2010),
        native(0x1010),
    ]);
    let data = build.stack(&[native(0x3010), jit(0x10_0110), native(0x1010)]);
    for n in 0..3u64 {
        let at = 1_000_000 * (n + 1);
        build.open(threads[0], at, 1, "/app/config/local.json", false, settings);
        build.cleanup(threads[0], at + 12_000, 1, -2);
        build.open(threads[0], at + 500_000, 2, "/app/data/ada.json", true, data);
        build.cleanup(threads[0], at + 900_000, 2, 19);
    }
    build.open(threads[1], 5_000_000, 3, "/app/data/ada.json", true, data);
    let hot = build.stack(&[jit(0x10_0210), jit(0x10_0310)]);
    for n in 0..90u64 {
        build.cpu(threads[0], 10_000_000 + n, if n % 3 == 0 { settings } else { hot });
    }
    build.probe(threads[1], 6_000_000, hot, b"\xff\x1b[2J", b"\x01\x02");
    build
}

pub(super) fn json(capture: &Capture, filter: &PathFilter, top: Option<usize>) -> Value {
    let mut out = Vec::new();
    json::write(
        &Report::new(capture, filter, &crate::source_map::Originals::default()),
        top,
        &mut out,
    )
    .unwrap();
    serde_json::from_slice(&out).unwrap()
}

pub(super) fn text(capture: &Capture, colour: bool) -> String {
    filtered(capture, &PathFilter::default(), colour)
}

pub(super) fn filtered(capture: &Capture, filter: &PathFilter, colour: bool) -> String {
    let mut out = Vec::new();
    let report = Report::new(capture, filter, &crate::source_map::Originals::default());
    let options = TextOptions { top: None, style: Style { colour } };
    text::write(&report, options, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn the_report_reads_as_intended() {
    let capture = application().finish();
    let want = "\
node /app/server.js (pid 10)
2.00 s recorded from 2023-11-14 22:13:20 UTC on Linux 6.18.0
90 CPU samples (cpu-clock), 7 opens, 3 failed, 1 uprobe:node:f

FAILED OPERATIONS
   count  failed        p50        p99        max  operation
       3       3    12.0 µs    12.0 µs    12.0 µs  open /app/config/local.json  ENOENT 3
          3 x sync, failed  via fs.openSync
              … Node: openSync, 2 native
              readSettings  /app/lib/settings.js:12:18
              (anonymous)   /app/server.js:3:1

FILES
   count  failed        p50        p99        max  path
       4       -     400 µs     400 µs     400 µs  /app/data/ada.json  open 4  no result 1
          4 x async  openSync node:fs:591:18
  with whole stacks: --path GLOB

CALLS, by the time of their operations
   count  failed       time    blocked  call, with what it did
       4       -    1.20 ms          -  openSync node:fs:591:18
                                         open 4
       3       3    36.0 µs    36.0 µs  fs.openSync at readSettings /app/lib/settings.js:12:18
                                         open 3
  time: of all operations together, also of those at once; blocked: of the synchronous ones, for which \
the event loop stood still

THREAD POOL
  3 operations were done by the kernel itself (io_uring), not by the pool

PROBES
  uprobe:node:f: 1 hit
          1 x
              hot          /app/lib/report.js:5:13
              (anonymous)  /app/server.js:3:1
  each hit with its arguments: nanalyze events FILE -e probe --stacks

CPU: 90 samples, 909 ms of CPU time in 2.00 s
  JavaScript, each function with the builtins and native code it called
    self   total  function
   66.7%   66.7%  hot           /app/lib/report.js:5:13
   33.3%   33.3%  readSettings  /app/lib/settings.js:12:18
  All functions, by the time in themselves
    self   total  function
   66.7%   66.7%  hot         /app/lib/report.js:5:13
   33.3%   33.3%  uv_fs_open  /usr/bin/node

HOW GOOD ARE THESE STACKS
    98.3% of JavaScript frames have a name (225 of 229)
   100.0% of native frames have a name (70 of 70)
  4 frames: an interpreted function runs inside the interpreter and has no address of its own \
[interpreted-without-name]
      remedy: start the target with --perf-basic-prof --interpreted-frames-native-stack; those that remain are in Node's snapshot: --no-node-snapshot

LOSSES AND REMARKS
  none: everything that was recorded is here
";
    let got = text(&capture, false);
    assert_eq!(got, want, "\n{got}");
    assert!(text(&capture, true).contains("\x1b[31m"));
}

#[test]
fn json_keeps_the_contract() {
    let capture = application().finish();
    let report = json(&capture, &PathFilter::default(), None);
    assert_eq!(report["schema"], "nanalyze.report/1");
    assert_eq!(report["capture"]["duration_ns"], 2_000_000_000u64);
    assert_eq!(report["capture"]["start_wall_ns"], 1_700_000_000_000_000_000u64);
    assert_eq!(report["capture"]["kernel"], "6.18.0");
    assert_eq!(report["capture"]["complete"], true);
    assert_eq!(report["capture"]["processes"][0]["cmdline"], "node /app/server.js");
    assert_eq!(report["stacks"]["js_frames"]["total"], 229);
    assert_eq!(report["stacks"]["unresolved"][0]["reason"], "interpreted-without-name");
    let data = &report["opens"][0];
    assert_eq!((&data["path"], &data["count"]), (&"/app/data/ada.json".into(), &4.into()));
    assert_eq!(data["asynchronous"], 4);
    assert_eq!(data["pids"], serde_json::json!([10]));
    assert_eq!(data["errors"], serde_json::json!({}));
    let settings = &report["opens"][1];
    assert_eq!(settings["errors"]["ENOENT"], 3);
    assert_eq!(settings["latency_ns"]["p50"], 12_000);
    let frames = settings["stacks"][0]["frames"].as_array().unwrap();
    assert_eq!(frames.len(), 5);
    assert_eq!(
        frames[0],
        serde_json::json!({"kind": "native", "function": "uv_fs_open", "module": "/usr/bin/node"})
    );
    assert_eq!(
        frames[3],
        serde_json::json!({"kind": "js", "function": "readSettings",
            "file": "/app/lib/settings.js", "line": 12, "column": 18,
            "defined_line": 12, "defined_column": 18})
    );
    assert_eq!(report["cpu"]["functions"][0]["function"], "hot");
    let probe = &report["probes"][0];
    assert_eq!((&probe["event"], &probe["count"]), (&"uprobe:node:f".into(), &1.into()));
    assert_eq!(probe["stacks"][0]["frames"][0]["function"], "hot");
    let unnamed = &data["stacks"][0]["frames"][2];
    assert!(unnamed.get("function").is_none());
    assert_eq!(unnamed["unresolved"], "interpreted-without-name");

    let filter = PathFilter { failed: true, ..PathFilter::default() };
    assert_eq!(json(&capture, &filter, None)["opens"].as_array().unwrap().len(), 1);
    let filter = PathFilter { glob: Some(Glob::new(b"*/data/*")), ..PathFilter::default() };
    assert_eq!(json(&capture, &filter, None)["opens"][0]["path"], "/app/data/ada.json");
    let top = json(&capture, &PathFilter::default(), Some(1));
    assert_eq!(top["opens"].as_array().unwrap().len(), 1);
    assert_eq!(top["opens_total"]["paths"], 2);
    assert_no_empty_values(&report);
}

#[test]
fn a_filter_is_said_and_leaves_only_opens() {
    let capture = application().finish();
    let glob = Some(Glob::new(b"local.json"));
    let shown =
        filtered(&capture, &PathFilter { glob, failed: true, ..PathFilter::default() }, false);
    assert!(shown.contains("1 uprobe:node:f\nfilter: --failed --path local.json\n"), "{shown}");
    assert!(shown.contains("/app/config/local.json") && !shown.contains("ada.json"), "{shown}");
    assert!(!shown.contains("CPU: ") && !shown.contains("PROBES"), "{shown}");
}

#[test]
fn what_was_not_recorded_is_not_counted() {
    let mut capture = application().finish();
    capture.events.retain(|event| ["cpu", "probe"].contains(&event.set.as_str()));
    let shown = text(&capture, false);
    assert!(shown.contains("90 CPU samples (cpu-clock), 1 uprobe:node:f\n"), "{shown}");
    assert!(shown.contains("file operations were not recorded (nrec record -e fs)"), "{shown}");
    assert!(json(&capture, &PathFilter::default(), None).get("opens_total").is_none());
}

#[test]
fn processes_are_told_apart_where_several_open() {
    let mut build = CaptureBuilder::new();
    let threads = [10, 20].map(|pid| build.process(pid, &[pid])[0]);
    build.open(threads[0], 100, 1, "/one", false, 0);
    build.open(threads[0], 200, 1, "/both", false, 0);
    build.open(threads[1], 300, 1, "/both", false, 0);
    let shown = text(&build.finish(), false);
    assert!(shown.contains("/one  open 1  no result 1  pid 10\n"), "{shown}");
    assert!(shown.contains("/both  open 2  no result 2  pids 10, 20\n"), "{shown}");
}

/// A missing value is absent, never null or "".
pub(super) fn assert_no_empty_values(value: &Value) {
    match value {
        Value::Null => panic!("null"),
        Value::String(text) => assert!(!text.is_empty()),
        Value::Array(rows) => rows.iter().for_each(assert_no_empty_values),
        Value::Object(rows) => rows.values().for_each(assert_no_empty_values),
        _ => {}
    }
}

pub(super) fn events_of(capture: &Capture, plan: &EventsPlan) -> String {
    let mut out = Vec::new();
    events::write(
        capture,
        plan,
        &crate::source_map::Originals::default(),
        Style::default(),
        &mut out,
    )
    .unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn events_come_in_time_order() {
    let capture = application().finish();
    let plan = EventsPlan { json: true, stacks: true, ..EventsPlan::default() };
    let lines: Vec<Value> = events_of(&capture, &plan)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 7 + 90 + 1);
    assert!(lines.is_sorted_by_key(|line| line["time_ns"].as_u64()));
    assert_eq!((&lines[0]["event"], &lines[0]["pid"]), (&"fs".into(), &10.into()));
    assert_eq!(
        lines[0]["args"],
        serde_json::json!({"operation": "open", "path": "/app/config/local.json",
            "flags": "O_RDONLY", "mode": 438, "async": false, "errno": "ENOENT", "latency_ns": 12_000})
    );
    assert_eq!(lines[0]["frames"].as_array().unwrap().len(), 5);
    assert_eq!(lines[1]["args"]["result"], 19);
    assert!(lines[6]["args"].get("result").is_none());
    assert_eq!(
        (&lines[7]["event"], &lines[7]["args"]),
        (
            &"uprobe:node:f".into(),
            &serde_json::json!({"size": -5, "path": "\\xff\\x1b[2J", "path_bytes": "ff1b5b324a",
                "blob": "0102"})
        )
    );
    assert_eq!((&lines[8]["event"], &lines[8]["args"]), (&"cpu".into(), &serde_json::json!({})));

    let only = |names: &[&str]| {
        let events = names.iter().map(|&name| name.to_owned()).collect();
        events_of(&capture, &EventsPlan { events, ..EventsPlan::default() })
    };
    assert_eq!(only(&["fs"]).lines().count(), 7);
    assert_eq!(only(&["cpu", "probe"]).lines().count(), 91);
    assert_eq!(only(&["uv_fs_open"]).lines().count(), 7);
    assert_eq!(only(&["uv_fs_req_cleanup"]).lines().count(), 6);
    let text = only(&["fs"]);
    let first = text.lines().next().unwrap();
    let want = "22:13:20.000999 [10/10] open(\"/app/config/local.json\", O_RDONLY) = -1 ENOENT <0.000012>  \
                via fs.openSync  readSettings /app/lib/settings.js:12:18";
    assert_eq!(first, want);
    let json = EventsPlan { json: true, events: vec!["fs".into()], ..EventsPlan::default() };
    let json = events_of(&capture, &json);
    let first: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(first["call"], "fs.openSync");
    assert!(first.get("asked_by").is_none() && first.get("frames").is_none());
}

#[test]
fn hostile_text_reaches_no_terminal() {
    let mut build = CaptureBuilder::new();
    let thread = build.process(10, &[10])[0];
    let hostile = "\x1b[2J\u{9b}31m\u{202e}<script>alert(1)</script>\n\\x1b\u{7}";
    let long = "A".repeat(1 << 20);
    let object = build.object(&format!("/lib/{hostile}"), Object::STRIPPED);
    build.symbol(object, 0x10, 0x10, hostile);
    build.jit(
        0,
        0,
        &[
            (0x100, 16, format!("JS:~{hostile} /app/{hostile}.js:1:1").as_bytes()),
            (0x200, 16, format!("JS:~{} /app/x.js:1:1", &long[..15_000]).as_bytes()),
        ],
    );
    let jit = |address| Frame::Jit { process: 0, address, call: false };
    let native = |offset| Frame::Native { object, offset, call: false };
    let stack = build.stack(&[native(0x99), native(0x11), jit(0x100), jit(0x200)]);
    build.open(thread, 100, 1, hostile, false, stack);
    build.open_bytes(thread, 200, 1, b"\xff\xfe/x", false, stack);
    build.open(thread, 300, 2, &long[..60_000], false, stack);
    build.cpu(thread, 400, stack);
    build.probe(thread, 500, stack, hostile.as_bytes(), b"\x1b");
    let remark = Remark { code: hostile.into(), text: hostile.into(), count: 2 };
    build.writer().remark(&remark).unwrap();
    build.writer().loss(Loss { event: 1, time_ns: 1, lost: 1, dropped: 0 });
    let mut capture = build.finish();
    capture.processes[0].cmdline = hostile.as_bytes().to_vec();
    capture.processes[0].comm = hostile.as_bytes().to_vec();
    capture.meta.kernel = hostile.into();
    capture.meta.arch = hostile.into();
    capture.meta.command = vec![hostile.into()];
    for event in &mut capture.events {
        event.source = hostile.into();
        if event.name.starts_with("uprobe") {
            event.name = hostile.into();
            event.set = hostile.into();
            event.fields[0].name = hostile.into();
        }
    }
    let mut shown = vec![text(&capture, false)];
    let mut info = Vec::new();
    crate::info::write(&capture, Style::default(), &mut info).unwrap();
    shown.push(String::from_utf8(info).unwrap());
    for json in [false, true] {
        shown
            .push(events_of(&capture, &EventsPlan { json, stacks: true, ..EventsPlan::default() }));
    }
    let report = json(&capture, &PathFilter::default(), None);
    assert_no_empty_values(&report);
    shown.push(report.to_string());
    for output in &shown {
        let bad = output.chars().find(|&c| (c.is_control() && c != '\n') || c == '\u{202e}');
        assert_eq!(bad, None);
        assert!(output.lines().all(|line| line.len() < 300_000));
    }
    // The bytes themselves are told where text cannot hold them.
    let paths: Vec<_> = report["opens"].as_array().unwrap().iter().collect();
    let of = |path: &str| paths.iter().find(|open| open["path"] == path).unwrap();
    assert_eq!(of("\\xff\\xfe/x")["path_bytes"], "fffe2f78");
}

#[test]
fn an_empty_or_damaged_capture_still_gives_its_report() {
    let capture = CaptureBuilder::new().finish();
    let shown = text(&capture, false);
    assert!(shown.contains("no file was used"), "{shown}");
    let mut bare = Capture::default();
    bare.stacks.push((0, 0));
    let shown = text(&bare, false);
    assert!(shown.contains("not known: the capture is cut"), "{shown}");
    assert!(shown.contains("the recorder was killed"), "{shown}");
    assert_eq!(json(&bare, &PathFilter::default(), None)["capture"]["complete"], false);
    // Cut anywhere: never a panic, and incomplete is said.
    let bytes = application().finish_bytes();
    for cut in (0..bytes.len()).step_by(7) {
        let limits = formats::limits::Limits::default();
        let Ok(capture) = formats::capture::read(&bytes[..cut], &limits) else { continue };
        assert!(text(&capture, false).contains("incomplete: "));
        json(&capture, &PathFilter::default(), None);
        events_of(&capture, &EventsPlan { stacks: true, ..EventsPlan::default() });
    }
}
