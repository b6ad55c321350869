//! Tests of counted system calls, on a made-up program.

use formats::capture::Frame;

use super::*;
use crate::join;
use crate::source_map::Originals;
use crate::testing::CaptureBuilder;

/// Numbers of x86-64.
const OPENAT: i64 = 257;
const READ: i64 = 0;
const FUTEX: i64 = 202;
const FCNTL: i64 = 72;

fn counted(capture: &Capture, filter: CallFilter, slowest: usize) -> (Counted<'_>, Profile) {
    let operations = join::operations::join(capture);
    let mut found = join::syscalls::join(capture);
    join::syscalls::attribute(&mut found.calls, &operations);
    let none = Originals::default();
    let mut symboliser = Symboliser::new(capture, &none);
    let counted = count(capture, &found, &operations, &mut symboliser, (filter, slowest));
    (counted, symboliser.into_profile())
}

/// A program that opens a file that is not there from two places, sets what cannot be set, waits, and
/// reads.
fn program() -> Capture {
    let mut build = CaptureBuilder::new();
    let main = build.process(10, &[10])[0];
    let libc = build.object("/lib/libc.so.6", 0);
    let node = build.object("/usr/bin/node", 0);
    build.symbol(libc, 0x100, 0x100, "__fcntl");
    build.symbol(node, 0x100, 0x100, "uv_disable_stdio_inheritance");
    build.symbol(node, 0x300, 0x100, "main");
    build.jit(0, 0, &[(0x1000, 16, b"JS:~a /a.js:1:1"), (0x2000, 16, b"JS:~b /a.js:2:1")]);
    let native = |object, offset| Frame::Native { object, offset, call: false };
    let jit = |address| Frame::Jit { process: 0, address, call: false };
    let (a, b) = (build.stack(&[jit(0x1000)]), build.stack(&[jit(0x2000)]));
    let own = build.stack(&[native(node, 0x310), native(node, 0x110), native(libc, 0x110)]);
    let call = |build: &mut CaptureBuilder, at, number, took, result, stack| {
        build.enter(main, at, number);
        build.exit(main, at + took, number, result, stack);
    };
    for n in 0..3u64 {
        let at = 1000 * (n + 1);
        build.open(main, at, 1, "/missing", false, if n == 0 { a } else { b });
        call(&mut build, at + 10, OPENAT, 10 + n, -2, own);
        build.cleanup(main, at + 100, 1, -2);
    }
    call(&mut build, 5000, FCNTL, 5, -9, own);
    call(&mut build, 6000, READ, 100, -11, 0);
    call(&mut build, 7000, READ, 300, 0, 0);
    call(&mut build, 8000, FUTEX, 100_000, -110, 0);
    build.enter(main, 200_000, FUTEX);
    build.finish()
}

#[test]
fn calls_are_counted_by_number() {
    let capture = program();
    let (counted, _profile) = counted(&capture, CallFilter::default(), 2);
    let rows: Vec<_> = counted
        .calls
        .iter()
        .map(|row| (row.name.as_ref(), row.count, row.errors, row.unfinished, row.total_ns))
        .collect();
    assert_eq!(
        rows,
        [
            ("futex", 2, 1, 1, 100_000),
            ("read", 2, 1, 0, 400),
            ("openat", 3, 3, 0, 33),
            ("fcntl", 1, 1, 0, 5),
        ]
    );
    assert!(counted.calls[0].waits && !counted.calls[1].waits);
    assert_eq!(counted.calls[2].latency, Some(Latency { p50: 11, p99: 12, max: 12 }));
    let not_yet: Vec<_> =
        counted.not_yet.iter().map(|n| (n.name.as_ref(), n.errno.as_ref(), n.count)).collect();
    assert_eq!(not_yet, [("read", "EAGAIN", 1), ("futex", "ETIMEDOUT", 1)]);
    // What waits is not slow.
    let slowest: Vec<_> =
        counted.slowest.iter().map(|s| (s.name.as_ref(), s.call.duration_ns)).collect();
    assert_eq!(slowest, [("read", Some(300)), ("read", Some(100))]);
    assert_eq!((counted.working, counted.threads), (6, 1));
}

#[test]
fn failures_say_for_what_and_for_whom() {
    let capture = program();
    let (counted, profile) = counted(&capture, CallFilter::default(), 0);
    let [missing, closed] = counted.failures.as_slice() else { panic!("{:?}", counted.failures) };
    assert_eq!(
        (missing.name.as_ref(), missing.errno.as_ref(), missing.count),
        ("openat", "ENOENT", 3)
    );
    let Purpose::Operation { name: "open", path: Some(b"/missing"), .. } = missing.purpose else {
        panic!("{missing:?}")
    };
    // The operation's stack, not the one in the kernel.
    let leaf = |stack| profile.leaf_first(stack).next().unwrap().function.clone();
    let stacks: Vec<_> = missing.stacks.iter().map(|&(s, count)| (leaf(s), count)).collect();
    assert_eq!(stacks, [("b".to_owned(), 2), ("a".to_owned(), 1)]);
    assert_eq!(closed.purpose, Purpose::Function("uv_disable_stdio_inheritance".into()));
    assert_eq!((closed.errno.as_ref(), leaf(closed.stacks[0].0).as_str()), ("EBADF", "__fcntl"));
}

#[test]
fn only_what_was_asked_for_is_counted() {
    let capture = program();
    let failed = CallFilter { failed: true, slow_ns: None };
    let names = |counted: &Counted<'_>| -> Vec<_> {
        counted.calls.iter().map(|row| (row.name.to_string(), row.count)).collect()
    };
    let (all, _) = counted(&capture, failed, 9);
    assert_eq!(names(&all), [("openat".to_owned(), 3), ("fcntl".to_owned(), 1)]);
    assert!(all.not_yet.is_empty());
    let slow = CallFilter { failed: false, slow_ns: Some(100) };
    let (all, _) = counted(&capture, slow, 9);
    // One that has not returned has no time.
    assert_eq!(names(&all), [("futex".to_owned(), 1), ("read".to_owned(), 2)]);
    let both = CallFilter { failed: true, slow_ns: Some(12) };
    assert_eq!(names(&counted(&capture, both, 9).0), [("openat".to_owned(), 1)]);
}
