//! Captures in, names out: by time, by process, with every reason.

use formats::capture::{Frame, Marker, NoName, Object, Process, Script, Tier};

use std::sync::LazyLock;

use super::*;
use crate::testing::{CaptureBuilder, START_NS};

/// No source maps.
static NONE: LazyLock<Originals> = LazyLock::new(Originals::default);

fn jit(process: u32, address: u64) -> Frame {
    Frame::Jit { process, address, call: false }
}

/// The stack of a CPU sample, as the capture counts stacks.
fn at(capture: &Capture, row: usize) -> u32 {
    capture.samples[0].stack[row]
}

fn shown(symboliser: &mut Symboliser<'_>, row: usize, time: u64) -> Vec<String> {
    let id = symboliser.resolve(at(symboliser.capture, row), time);
    symboliser
        .profile()
        .leaf_first(id)
        .map(|f| format!("{}{}", f.label(), if f.inferred { " (inferred)" } else { "" }))
        .collect()
}

#[test]
fn jit_frames_resolve_by_time() {
    let mut build = CaptureBuilder::new();
    build.process(10, &[10]);
    build.jit(
        0,
        0,
        &[(0x1000, 0x100, b"JS:~old /a.js:1:1"), (0x2000, 0x100, b"JS:~tiers /t.js:1:1")],
    );
    // A newer entry overlaps the older one's second half; another function's tier changes.
    build.jit(
        0,
        500,
        &[(0x1080, 0x100, b"JS:*new /b.js:2:2"), (0x2000, 0x100, b"JS:*tiers /t.js:1:1")],
    );
    build.jit(
        0,
        900,
        &[(0x1000, 0x10, b"JS:^third /c.js:3:3"), (0x5000, 0x10, b"JS:~late /l.js:1:1")],
    );
    let root = Frame::Unmapped { address: 1 };
    let low = build.sampled(&[root, jit(0, 0x1008)]);
    let high = build.sampled(&[root, jit(0, 0x1088), jit(0, 0x1008)]);
    let tiers = build.sampled(&[jit(0, 0x2010)]);
    let late = build.sampled(&[jit(0, 0x5000)]);
    let gap = build.sampled(&[jit(0, 0x5010)]);
    let call = build.sampled(&[Frame::Jit { process: 0, address: 0x2100, call: true }]);
    let capture = build.finish();
    // In both orders of time, and again: the cache must not change an answer.
    for times in [[100, 600, 1000], [1000, 600, 100]] {
        let mut s = Symboliser::new(&capture, &NONE);
        for _round in 0..2 {
            for time in times {
                let (a, b) = match time {
                    100 => ("old", "old"),
                    600 => ("old", "new"),
                    _ => ("third", "new"),
                };
                assert_eq!(shown(&mut s, low, time), [a, "[chain broken]"]);
                assert_eq!(shown(&mut s, high, time), [a, b, "[chain broken]"]);
                assert_eq!(shown(&mut s, tiers, time), ["tiers"]);
                let suffix = if time < 900 { " (inferred)" } else { "" };
                assert_eq!(shown(&mut s, late, time), [format!("late{suffix}")]);
                assert_eq!(shown(&mut s, gap, time), ["[JIT code, not in the map]"]);
                assert_eq!(shown(&mut s, call, time), ["tiers"]);
            }
        }
        // Tiers are one frame, so the stack is one stack.
        let tiers = at(&capture, tiers);
        assert_eq!(s.resolve(tiers, 100), s.resolve(tiers, 600));
    }
}

#[test]
fn a_forked_child_shows_the_code_as_it_was_at_the_fork() {
    let mut build = CaptureBuilder::new();
    let child = |pid, parent, start_ns, cmdline: &[u8]| Process {
        pid,
        parent,
        start_ns,
        cmdline: cmdline.to_vec(),
        ..Process::default()
    };
    let same = b"node\0/app/server.js\0";
    build.process(10, &[10]);
    build.process_with(child(11, 10, 600, same), &[11]); // 1: forked
    build.process_with(child(11, 10, 700, b"sh\0"), &[]); // 2: and then exec'd
    build.process_with(child(12, 10, START_NS, same), &[12]); // 3: older than the recording
    build.process_with(child(13, 10, 600, same), &[13]); // 4: has its own map
    build.jit(0, 0, &[(0x1000, 0x100, b"JS:~parent /p.js:1:1")]);
    build.jit(0, 800, &[(0x1000, 0x100, b"JS:~afterFork /p.js:9:1")]);
    build.jit(4, 600, &[(0x1000, 0x100, b"JS:~own /own.js:1:1")]);
    let stacks: Vec<_> = (0..5).map(|process| build.sampled(&[jit(process, 0x1010)])).collect();
    let capture = build.finish();
    let mut s = Symboliser::new(&capture, &NONE);
    let got: Vec<_> = stacks.iter().flat_map(|&stack| shown(&mut s, stack, 1000)).collect();
    let none = "[JIT code, no map]";
    assert_eq!(got, ["afterFork", "parent (inferred)", none, none, "own"]);
}

#[test]
fn native_kernel_and_recorded_javascript_frames() {
    let mut build = CaptureBuilder::new();
    build.process(10, &[10]);
    let node = build.object("/usr/bin/node", 0);
    let kernel = build.object("[kernel.kallsyms]", Object::KERNEL);
    let gone = build.object("/gone.so", Object::DELETED | Object::UNREADABLE);
    let secret = build.object("/secret.so", Object::UNREADABLE);
    let stripped = build.object("/usr/lib/libc.so.6", Object::STRIPPED);
    build.symbol(node, 0x1000, 0x100, "uv_fs_open");
    build.symbol(node, 0x1000, 0x1000, "outer_blob");
    build.symbol(node, 0x3000, 0x10, "Builtins_ArrayMap");
    build.symbol(node, 0x4000, 0x10, "Builtins_InterpreterEntryTrampoline");
    build.symbol(node, 0x5000, 0x10, "_ZN4node2fs4OpenERKN2v820FunctionCallbackInfoINS1_5ValueEEE");
    build.symbol(kernel, 0xffff_ffff_8100_0000, 0x40, "do_sys_openat2");
    build.symbol(stripped, 0x10, 0x10, "exported");
    let script = build.script("/app/a.js", &[9]);
    let function = build.function(script + 1, "", 3);
    let array_map = build.function(0, "ArrayMap", 0);
    let regexp = build.function(0, "RegExp", 0);
    let unnamed = build.function(0, "", 0);
    let js = |function, tier| Frame::Js { function, position: 1, tier, inlined: false };
    let native = |object, offset, call| Frame::Native { object, offset, call };
    let table = [
        (native(node, 0x1000, false), "native uv_fs_open"),
        (native(node, 0x1100, true), "native uv_fs_open"),
        (native(node, 0x1100, false), "native outer_blob"),
        (native(node, 0x3004, false), "builtin ArrayMap"),
        (native(node, 0x4004, false), "js [interpreted, no name]"),
        (native(node, 0x5004, false), "native node::fs::Open"),
        (native(node, 0x9000, false), "native [no symbol]"),
        (native(gone, 0x1, false), "native [file replaced]"),
        (native(secret, 0x1, false), "native [file not readable]"),
        (native(stripped, 0x18, false), "native exported"),
        (native(stripped, 0x28, false), "native [stripped]"),
        (native(99, 0x1, false), "unknown [damaged capture]"),
        (Frame::Kernel { address: 0xffff_ffff_8100_0040, call: true }, "kernel do_sys_openat2"),
        (Frame::Kernel { address: 0xffff_ffff_8100_0040, call: false }, "kernel [no symbol]"),
        (Frame::Js { function, position: 1, tier: Tier::MAGLEV, inlined: false }, "js (anonymous)"),
        (
            Frame::Js { function: 9, position: 1, tier: Tier::MAGLEV, inlined: false },
            "js [damaged capture]",
        ),
        (js(function, Tier(77)), "js (anonymous)"),
        (js(array_map, Tier::BUILTIN), "builtin ArrayMap"),
        (js(unnamed, Tier::BUILTIN), "builtin [no symbol]"),
        (js(regexp, Tier::GENERATED), "jit RegExp"),
        (Frame::Nameless(NoName::MOVED), "js [JavaScript, moved]"),
        (Frame::Nameless(NoName::CONTRADICTION), "js [JavaScript, contradictory]"),
        (Frame::Nameless(NoName::ENDED), "js [JavaScript, process ended]"),
        (Frame::Nameless(NoName(77)), "js [damaged capture]"),
        (Frame::Marker(Marker::CUT), "unknown [stack cut at --stack-size]"),
        (Frame::Marker(Marker::GAP), "unknown [frames missing]"),
        (Frame::Marker(Marker::BROKEN), "unknown [chain lost]"),
        (Frame::Marker(Marker::NOT_TAKEN), "unknown [no stack taken]"),
        (Frame::Marker(Marker::TRUNCATED), "unknown [stack cut at the kernel's limit]"),
        (Frame::Marker(Marker::DROPPED), "unknown [stack not kept]"),
        (Frame::Marker(Marker(77)), "unknown [damaged capture]"),
    ];
    let stacks: Vec<_> = table.iter().map(|&(frame, _want)| build.sampled(&[frame])).collect();
    let inserted = build.sampled(&[
        native(node, 0x1100, true),
        native(node, 0x5008, true),
        Frame::Marker(Marker::CALLER_INSERTED),
        native(node, 0x1000, false),
    ]);
    let capture = build.finish();
    let mut s = Symboliser::new(&capture, &NONE);
    for ((frame, want), &stack) in table.iter().zip(&stacks) {
        let id = s.resolve(at(&capture, stack), 100);
        let got: Vec<_> = s.profile().leaf_first(id).collect();
        assert_eq!(got.len(), 1);
        assert_eq!(format!("{} {}", got[0].kind.key(), got[0].label()), *want, "{frame:?}");
        assert_eq!(got[0].function.is_empty(), got[0].unresolved.is_some());
    }
    assert_eq!(
        shown(&mut s, inserted, 100),
        ["uv_fs_open", "node::fs::Open (inferred)", "uv_fs_open"]
    );
    let mut hidden = CaptureBuilder::new();
    let stack = hidden.sampled(&[Frame::Kernel { address: 1 << 63, call: false }]);
    let capture = hidden.finish();
    assert_eq!(shown(&mut Symboliser::new(&capture, &NONE), stack, 1), ["[kernel, hidden]"]);
}

#[test]
fn the_interpreters_entry_is_no_function_where_the_heap_names_them() {
    let mut build = CaptureBuilder::new();
    let node = build.object("/usr/bin/node", 0);
    build.symbol(node, 0x4000, 0x10, "Builtins_InterpreterEntryTrampoline");
    let frame = |call| Frame::Native { object: node, offset: 0x4004, call };
    let stacks = [build.sampled(&[frame(false)]), build.sampled(&[frame(true)])];
    let mut capture = build.finish();
    for (js, want) in [
        ("heap", ["InterpreterEntryTrampoline", "[interpreted, no name]"]),
        ("map", ["[interpreted, no name]"; 2]),
    ] {
        capture.meta.js = js.into();
        let mut s = Symboliser::new(&capture, &NONE);
        let got = stacks.map(|stack| shown(&mut s, stack, 100).concat());
        assert_eq!(got, want, "{js}");
    }
}

#[test]
fn javascript_places_are_those_of_error_stack() {
    let mut build = CaptureBuilder::new();
    build.process(10, &[10]);
    // Three lines of 4, 6 and 5 characters, 10 lines and 5 columns into a file: what `vm.Script`
    // with `lineOffset: 10, columnOffset: 5` prints (Node 20.20.2).
    let mut script = |name: &str, url: &str, before: (i32, i32), known: bool| {
        let script = build.writer().script(Script {
            name: name.as_bytes().to_vec(),
            source_url: url.as_bytes().to_vec(),
            line_offset: before.0 as u32,
            column_offset: before.1 as u32,
            ..Script::default()
        });
        if known {
            build.line_ends(script, &[4, 11, 17]);
        }
        script
    };
    let scripts = [
        script("/app/a.js", "", (0, 0), true),
        script("/app/a.js", "", (10, 5), true),
        script("", "gone.js", (10, 5), true),
        script("/app/a.js", "other.js", (10, 5), true),
        script("", "", (0, 0), true),
        script("/app/late.js", "", (0, 0), false),
        script("/app/a.js", "", (-1, 0), true),
    ];
    let places = [
        // script, definition, position: file, place, definition
        (0, 3, 14, "/app/a.js:3:2", "1:3"),
        (0, 5, 5, "/app/a.js:1:5", "1:5"),
        (0, 6, 12, "/app/a.js:2:7", "2:1"),
        (0, 0, 14, "/app/a.js:3:2", "-"),
        (0, 6, 0, "/app/a.js:2:1", "2:1"),
        (0, 6, 99, "/app/a.js:2:1", "2:1"),
        (0, 0, 0, "/app/a.js", "-"),
        (1, 3, 14, "/app/a.js:13:2", "11:8"),
        (2, 3, 14, "gone.js:3:2", "1:3"),
        (3, 3, 14, "/app/a.js:13:2", "11:8"),
        (4, 3, 14, "<anonymous>:3:2", "1:3"),
        (5, 3, 14, "/app/late.js", "-"),
        (6, 6, 14, "/app/a.js:2:2", "1:1"),
        (6, 3, 3, "/app/a.js", "-"),
    ];
    let rows: Vec<_> = places
        .iter()
        .map(|&(script, start, position, ..)| {
            let function = build.function(scripts[script] + 1, "f", start);
            let tier = Tier::TURBOFAN;
            build.sampled(&[Frame::Js { function, position, tier, inlined: script == 1 }])
        })
        .collect();
    let capture = build.finish();
    let mut s = Symboliser::new(&capture, &NONE);
    for (&(script, start, position, place, defined), row) in places.iter().zip(rows) {
        let id = s.resolve(at(&capture, row), 100);
        let frame = s.profile().leaf_first(id).next().unwrap();
        assert_eq!(frame.place().as_deref(), Some(place));
        let got = frame.defined_line.zip(frame.defined_column);
        let got = got.map_or("-".into(), |(line, column)| format!("{line}:{column}"));
        assert_eq!(got, defined, "{script} {start} {place}");
        let ran = ((1..=17).contains(&position) && script < 5) || (script == 6 && position == 14);
        assert_eq!((frame.executing, frame.inlined), (ran, script == 1), "{place}");
    }
}

#[test]
fn forged_captures_end() {
    let mut build = CaptureBuilder::new();
    build.process(10, &[10]);
    let deep: Vec<_> = (0..100_000).map(|address| Frame::Unmapped { address }).collect();
    let deep = build.sampled(&deep);
    // Every entry covers every address: the candidates of an address are bounded.
    let name = b"JS:~f /a.js:1:1";
    let entries: Vec<_> = (0..20_000u64).map(|n| (n, 1 << 40, name.as_slice())).collect();
    build.jit(0, 0, &entries);
    let frames: Vec<_> = (0..20_000).map(|n| jit(0, 0x10_0000 + n)).collect();
    let stacks: Vec<_> = frames.iter().map(|&frame| build.sampled(&[frame])).collect();
    let mut capture = build.finish();
    let mut s = Symboliser::new(&capture, &NONE);
    assert!(shown(&mut s, deep, 1).len() <= DEPTH as usize);
    for stack in stacks {
        assert_eq!(shown(&mut s, stack, 1), ["f"]);
    }
    assert_eq!(s.resolve(u32::MAX, 1), ResolvedStackId(0));
    // A parent that is its own child.
    capture.stacks.push((capture.stacks.len() as u32, 0));
    let last = capture.stacks.len() as u32 - 1;
    let mut s = Symboliser::new(&capture, &NONE);
    let id = s.resolve(last, 1);
    assert_eq!(s.profile().leaf_first(id).count(), 1);
}
