//! Captures in, names out: by time, by process, with every reason.

use formats::capture::{Frame, Function, Marker, Object, Process, Script, Tier};

use super::*;
use crate::testing::{CaptureBuilder, START_NS};

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
        let mut s = Symboliser::new(&capture);
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
    let mut s = Symboliser::new(&capture);
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
    let script = build.writer().script(Script { name: b"/app/a.js".to_vec(), ..Script::default() });
    let function =
        build.writer().function(Function { script: script + 1, name: Vec::new(), start: 3 });
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
    let mut s = Symboliser::new(&capture);
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
    assert_eq!(shown(&mut Symboliser::new(&capture), stack, 1), ["[kernel, hidden]"]);
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
    let mut s = Symboliser::new(&capture);
    assert!(shown(&mut s, deep, 1).len() <= DEPTH as usize);
    for stack in stacks {
        assert_eq!(shown(&mut s, stack, 1), ["f"]);
    }
    assert_eq!(s.resolve(u32::MAX, 1), ResolvedStackId(0));
    // A parent that is its own child.
    capture.stacks.push((capture.stacks.len() as u32, 0));
    let last = capture.stacks.len() as u32 - 1;
    let mut s = Symboliser::new(&capture);
    let id = s.resolve(last, 1);
    assert_eq!(s.profile().leaf_first(id).count(), 1);
}
