//! Reports of stacks whose JavaScript the recorder has resolved itself: lines, call sites, and what is
//! said of stacks that are short or missing.

use formats::capture::{Frame, Marker, NoName, Remark, Tier};
use serde_json::{Value, json};

use super::*;
use crate::events;
use crate::plan::EventsPlan;
use crate::report::style::Style;
use crate::report::text::TextOptions;
use crate::testing::CaptureBuilder;

fn text(capture: &Capture) -> String {
    let filter = PathFilter::default();
    let mut out = Vec::new();
    text::write(
        &Report::new(capture, &filter, &crate::source_map::Originals::default()),
        TextOptions::default(),
        &mut out,
    )
    .unwrap();
    String::from_utf8(out).unwrap()
}

fn json_of(capture: &Capture) -> Value {
    let filter = PathFilter::default();
    let mut out = Vec::new();
    json::write(
        &Report::new(capture, &filter, &crate::source_map::Originals::default()),
        None,
        &mut out,
    )
    .unwrap();
    serde_json::from_slice(&out).unwrap()
}

/// Lines of ten characters: line N, column C is character offset 10 (N - 1) + C - 1, so the capture's
/// position is 10 (N - 1) + C.
const ENDS: [u32; 40] = {
    let mut ends = [0; 40];
    let mut at = 0;
    while at < 40 {
        ends[at] = 10 * at as u32 + 9;
        at += 1;
    }
    ends
};

fn place(line: u32, column: u32) -> u32 {
    10 * (line - 1) + column
}

/// A function that computes on two of its lines, and opens a file from two of its lines.
fn application() -> CaptureBuilder {
    let mut build = CaptureBuilder::new();
    let thread = build.process(10, &[10])[0];
    let script = build.script("/app/lib/report.js", &ENDS) + 1;
    let internal = build.script("node:fs", &ENDS) + 1;
    let hot = build.function(script, "hot", place(5, 2));
    let main = build.function(script, "", place(1, 1));
    let open_sync = build.function(internal, "openSync", place(20, 3));
    let join = build.function(0, "ArrayPrototypeJoin", 0);
    let at = |function, line, tier, inlined| Frame::Js {
        function,
        position: place(line, 4),
        tier,
        inlined,
    };
    let root = at(main, 30, Tier::INTERPRETER, false);
    let builtin = Frame::Js { function: join, position: 0, tier: Tier::BUILTIN, inlined: false };
    let mut stack = |frames: &[Frame]| build.stack(frames);
    let seven = stack(&[root, at(hot, 7, Tier::TURBOFAN, true)]);
    let eight = stack(&[root, at(hot, 8, Tier::MAGLEV, false), builtin]);
    let open = at(open_sync, 21, Tier::BASELINE, false);
    let first = stack(&[root, at(hot, 7, Tier::INTERPRETER, false), open]);
    let second = stack(&[root, at(hot, 9, Tier::INTERPRETER, false), open]);
    for n in 0..100 {
        build.cpu(thread, 1_000 + n, if n < 63 { seven } else { eight });
    }
    for n in 0..3 {
        build.open(thread, 2_000 + 10 * n, 1, "/a", false, if n < 2 { first } else { second });
        build.cleanup(thread, 2_005 + 10 * n, 1, 3);
    }
    build
}

fn finish(build: CaptureBuilder, js: &str) -> Capture {
    let mut capture = build.finish();
    capture.meta.js = js.into();
    capture
}

#[test]
fn functions_are_merged_and_call_sites_are_not() {
    let capture = finish(application(), "heap");
    let opens = "
FILES
   count  failed        p50        p99        max  path
       3       -       5 ns       5 ns       5 ns  /a  open 3
          2 x sync   fs.openSync at hot /app/lib/report.js:7:4
          1 x sync   fs.openSync at hot /app/lib/report.js:9:4
";
    let cpu = "
CPU: 100 samples, 1.01 s of CPU time in 2.00 s
  JavaScript, each function with the builtins and native code it called; its lines by their part of its own (self) time
    self   total  function
  100.0%  100.0%  hot  /app/lib/report.js:5:2
                    line 7: 63.0%, line 8: 37.0%
  All functions, by the time in themselves
    self   total  function
   63.0%  100.0%  hot  /app/lib/report.js:5:2
   37.0%   37.0%  ArrayPrototypeJoin

HOW GOOD ARE THESE STACKS
   100.0% of JavaScript frames have a name (209 of 209), read from V8's heap
   100.0% of native frames have a name (37 of 37)
";
    let got = text(&capture);
    assert!(got.contains(opens) && got.contains(cpu), "{got}");
    let report = json_of(&capture);
    assert_eq!(report["capture"]["js"], "heap");
    assert_eq!(
        report["cpu"]["functions"][0],
        json!({"self_samples": 63, "total_samples": 100, "innermost_samples": 100,
            "lines": [{"line": 7, "samples": 63}, {"line": 8, "samples": 37}],
            "kind": "js", "function": "hot", "file": "/app/lib/report.js",
            "line": 5, "column": 2, "defined_line": 5, "defined_column": 2})
    );
    assert!(report["cpu"]["functions"][1].get("innermost_samples").is_none());
    assert_eq!(report["opens"][0]["stacks"].as_array().unwrap().len(), 2);
    let frame = &report["opens"][0]["stacks"][0]["frames"][1];
    assert_eq!((&frame["line"], &frame["defined_line"]), (&json!(7), &json!(5)));
    // Inlined frames are told apart only where a single one is shown.
    let mut out = Vec::new();
    let plan = EventsPlan { json: true, stacks: true, ..EventsPlan::default() };
    events::write(
        &capture,
        &plan,
        &crate::source_map::Originals::default(),
        Style::default(),
        &mut out,
    )
    .unwrap();
    let out = String::from_utf8(out).unwrap();
    let first: Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    assert_eq!(
        first["frames"][0],
        json!({"kind": "js", "function": "hot", "file": "/app/lib/report.js", "line": 7,
            "column": 4, "defined_line": 5, "defined_column": 2, "inlined": true})
    );
    assert_eq!(out.matches("\"inlined\"").count(), 63);
}

#[test]
fn the_flamegraph_merges_call_sites() {
    let capture = finish(application(), "heap");
    let mut out = Vec::new();
    crate::graph::write(
        &capture,
        Some("cpu"),
        crate::plan::Weight::Count,
        &crate::source_map::Originals::default(),
        &mut out,
    )
    .unwrap();
    let svg = String::from_utf8(out).unwrap();
    assert_eq!(svg.matches("<title>hot ").count(), 1, "{svg}");
    assert!(svg.contains("<title>hot lib/report.js:5 (100 samples, 100.00%)"), "{svg}");
}

#[test]
fn hits_without_a_stack_are_said_and_not_drawn() {
    let mut build = CaptureBuilder::new();
    let thread = build.process(10, &[10])[0];
    let script = build.script("/app/a.js", &ENDS) + 1;
    let function = build.function(script, "f", place(1, 1));
    let frame =
        Frame::Js { function, position: place(2, 1), tier: Tier::INTERPRETER, inlined: false };
    let taken = build.stack(&[frame]);
    let untaken = build.stack(&[Frame::Marker(Marker::NOT_TAKEN)]);
    for n in 0..50 {
        let stack = if n % 10 == 0 { taken } else { untaken };
        build.probe(thread, 1_000 + n, stack, b"", b"");
        build.open(thread, 5_000 + n, 1, "/a", false, stack);
    }
    let capture = finish(build, "heap");
    let got = text(&capture);
    for want in [
        "  uprobe:node:f: 50 hits, stacks of 5 of 50 hits\n          5 x\n              f  /app/a.js:2:1\n  each hit",
        "/a  open 50  no result 50\n         45 x sync   (no stack taken, or no JavaScript in it)\n          5 x sync   f /app/a.js:2:1\n",
        "  uprobe:node:f: stacks of 5 of 50 hits: for a while there were too many to take more\n",
    ] {
        assert!(got.contains(want), "{want}\n{got}");
    }
    assert!(!got.contains("[no stack taken]") && !got.contains("stack-not-taken"), "{got}");
    let report = json_of(&capture);
    assert_eq!(report["probes"][0]["without_stack"], 45);
    let said = &report["stacks"]["unresolved"][0];
    assert_eq!((&said["reason"], &said["frames"]), (&json!("stack-not-taken"), &json!(90)));
    let events = report["capture"]["by_event"].as_array().unwrap();
    let without: Vec<_> = events.iter().map(|event| event["without_stack"].as_u64()).collect();
    assert_eq!(without.iter().filter(|hits| hits.is_some()).count(), 2);
    assert_eq!((without[1], without[3]), (Some(45), Some(45)));
    for (event, what) in [("fs", "file operations"), ("probe", "samples")] {
        let mut out = Vec::new();
        crate::graph::write(
            &capture,
            Some(event),
            crate::plan::Weight::Count,
            &crate::source_map::Originals::default(),
            &mut out,
        )
        .unwrap();
        let svg = String::from_utf8(out).unwrap();
        assert!(svg.contains(&format!(">stacks of 5 of 50 {what}<")), "{svg}");
        assert!(!svg.contains("no stack taken"), "{svg}");
    }
}

#[test]
fn what_has_no_name_says_what_would_give_it_one() {
    let mut build = CaptureBuilder::new();
    let thread = build.process(10, &[10])[0];
    let frames = [
        Frame::Marker(Marker::CUT),
        Frame::Nameless(NoName::MOVED),
        Frame::Marker(Marker::GAP),
        Frame::Nameless(NoName::ENDED),
        Frame::Jit { process: 0, address: 0x1000, call: false },
    ];
    let stack = build.stack(&frames);
    build.cpu(thread, 100, stack);
    let mut capture = build.finish();
    let mut said = |js: &str, code: &str| {
        capture.meta.js = js.into();
        capture.remarks = vec![Remark { code: code.into(), text: "why".into(), count: 1 }];
        text(&capture)
    };
    let got = said("heap", "js-not-readable");
    for want in [
        "0.0% of JavaScript frames have a name (0 of 3), read from V8's heap\n",
        "[js-moved]\n      remedy: none is needed for a few, or at a process's end; else record at a lower",
        "[process-ended]\n",
        "[stack-cut]\n      remedy: record with a larger --stack-size\n",
        "[frames-missing]\n",
        "remedy: the remarks say why V8's heap could not be read; without it, start the target with \
         --perf-basic-prof",
    ] {
        assert!(got.contains(want), "{want}\n{got}");
    }
    let got = said("map", "");
    assert!(got.contains("(0 of 3), from V8's perf map: lines are those of the def"), "{got}");
    assert!(got.contains("remedy: record with --js=heap, which needs no flag\n"), "{got}");
    let got = said("heap", "");
    assert!(
        got.contains("[jit-unknown]\n      remedy: none is needed for a few; else let the p"),
        "{got}"
    );
    let got = said("", "");
    assert!(got.contains("remedy: start the target with --perf-basic-prof"), "{got}");
    let got = said("off", "");
    assert!(got.contains("(0 of 3), naming was off (--js=off)\n"), "{got}");
    assert!(got.contains("remedy: record with --js=heap, which needs no flag\n"), "{got}");
}
