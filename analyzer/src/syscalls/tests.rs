//! Tests of the outputs of system calls, on a made-up program.

use formats::capture::Frame;

use super::*;
use crate::events;
use crate::plan::EventsPlan;
use crate::report::style::Style;
use crate::testing::CaptureBuilder;

/// Numbers of x86-64.
const OPENAT: i64 = 257;
const EPOLL_WAIT: i64 = 232;

fn program() -> Capture {
    let mut build = CaptureBuilder::new();
    let main = build.process(10, &[10])[0];
    build.jit(0, 0, &[(0x1000, 16, b"JS:~handler /app.js:12:3")]);
    let stack = build.stack(&[Frame::Jit { process: 0, address: 0x1000, call: false }]);
    let own = build.stack(&[Frame::Unmapped { address: 7 }]);
    for n in 0..12u64 {
        let at = 1000 + n * 100_000;
        build.open(main, at, 1, "/etc/\u{1b}[31mapp.conf", false, stack);
        build.enter(main, at + 10, OPENAT);
        build.exit(main, at + 20_010, OPENAT, -2, own);
        build.cleanup(main, at + 30_000, 1, -2);
        build.enter(main, at + 40_000, EPOLL_WAIT);
        build.exit(main, at + 50_000, EPOLL_WAIT, 1, 0);
    }
    build.finish()
}

fn text_of(capture: &Capture, filter: CallFilter) -> String {
    let report = SyscallsReport::new(capture, (filter, 2), &Originals::default()).unwrap();
    let mut out = Vec::new();
    text::write(&report, (None, Style::default()), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_failure_reads_call_error_path_and_line() {
    let text = text_of(&program(), CallFilter::default());
    for part in [
        "24 system calls, 12 failed\n",
        "      12  openat = ENOENT  open \"/etc/\\x1b[31mapp.conf\"  at handler (/app.js:12:3)\n",
        "  100.0%     240 µs        12      12    20.0 µs    20.0 µs    20.0 µs  openat\n",
        "\nWAITING FOR SOMETHING TO DO\n",
        "  100.0%     120 µs        12       -    10.0 µs    10.0 µs    10.0 µs  epoll_wait\n",
        "   20.0 µs     0.000000  openat = ENOENT  open ",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn a_filter_is_said() {
    let slow = CallFilter { failed: false, slow_ns: Some(1_000_000_000) };
    let text = text_of(&program(), slow);
    assert!(text.contains("filter: --slow 1.00 s"), "{text}");
    assert!(text.contains("none fits the filter"), "{text}");
}

#[test]
fn json_has_the_same() {
    let capture = program();
    let bounds = (CallFilter::default(), 1);
    let report = SyscallsReport::new(&capture, bounds, &Originals::default()).unwrap();
    let mut out = Vec::new();
    json::write(&report, None, &mut out).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(json["schema"], "nanalyze.syscalls/1");
    assert_eq!(json["by_call"][0]["syscall"], "openat");
    assert_eq!(json["by_call"][1]["waiting"], true);
    let failure = &json["failures"][0];
    assert_eq!((&failure["errno"], &failure["count"]), (&"ENOENT".into(), &12.into()));
    assert_eq!(failure["path"], "/etc/\\x1b[31mapp.conf");
    assert_eq!(failure["path_bytes"], "2f6574632f1b5b33316d6170702e636f6e66");
    assert_eq!(failure["stacks"][0]["frames"][0]["function"], "handler");
    assert_eq!(json["slowest"].as_array().unwrap().len(), 1);
    assert!(json["slowest"][0].get("result").is_none());
}

#[test]
fn without_system_calls_it_says_what_to_record() {
    let mut build = CaptureBuilder::new();
    build.process(10, &[10]);
    let capture = build.finish();
    let bounds = (CallFilter::default(), 1);
    let error = SyscallsReport::new(&capture, bounds, &Originals::default()).unwrap_err();
    assert!(error.to_string().contains("nrec record -e syscalls"), "{error}");
}

#[test]
fn events_has_one_line_a_call() {
    let capture = program();
    let lines = |plan: &EventsPlan| {
        let mut out = Vec::new();
        let (none, style) = (Originals::default(), Style::default());
        events::write(&capture, plan, &none, style, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let only = |name: &str| EventsPlan { events: vec![name.into()], ..EventsPlan::default() };
    let calls = lines(&only("syscalls"));
    assert_eq!(calls.lines().count(), 24, "{calls}");
    let first = calls.lines().next().unwrap();
    let want = "[10/10] openat(…) = -1 ENOENT <0.000020>  in open(\"/etc/\\x1b[31mapp.conf\", O_RDONLY)  \
                handler /app.js:12:3";
    assert!(first.ends_with(want), "{first}");
    assert_eq!(lines(&only("syscall")), calls);
    // Not among the operations; by the name of a half its samples.
    assert!(!lines(&only("fs")).contains("openat"));
    assert!(lines(&EventsPlan::default()).contains("openat(…)"));
    assert!(lines(&only("sys_enter")).contains("sys_enter id=257"));
    let json = lines(&EventsPlan { json: true, ..only("syscalls") });
    let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!((&first["event"], &first["time_ns"]), (&"syscall".into(), &1010.into()));
    let args = &first["args"];
    assert_eq!((&args["syscall"], &args["errno"]), (&"openat".into(), &"ENOENT".into()));
    assert_eq!((&args["operation"], &args["duration_ns"]), (&"open".into(), &20_000.into()));
}
