//! Tests of the joining of system calls, on made-up captures.

use formats::capture::Frame;

use super::*;
use crate::join::operations;
use crate::testing::CaptureBuilder;

/// Numbers of x86-64.
const OPENAT: i64 = 257;
const READ: i64 = 0;
const EXECVE: i64 = 59;
const CLONE3: i64 = 435;

fn summary(calls: &[SystemCall]) -> Vec<(i64, u64, Option<u64>, Option<i64>)> {
    calls.iter().map(|c| (c.number, c.start_ns, c.duration_ns, c.result)).collect()
}

#[test]
fn entries_and_exits_are_joined_by_thread() {
    let mut build = CaptureBuilder::new();
    let threads = build.process(10, &[10, 11, 12]);
    let (main, pool, new) = (threads[0], threads[1], threads[2]);
    let stack = build.stack(&[Frame::Unmapped { address: 7 }]);
    build.exit(main, 90, READ, 5, 0);
    build.enter(main, 100, OPENAT);
    build.enter(pool, 101, READ);
    build.exit(pool, 105, READ, 0, 0);
    build.exit(main, 110, OPENAT, -2, stack);
    build.exit(new, 120, CLONE3, 0, 0);
    build.enter(main, 130, READ);
    let found = join(&build.finish());
    assert_eq!(
        summary(&found.calls),
        [(OPENAT, 100, Some(10), Some(-2)), (READ, 101, Some(4), Some(0)), (READ, 130, None, None),]
    );
    assert_eq!(found.exits_alone, 2);
    assert_eq!(found.calls[0].errno(), Some(2));
    // A stack's number in the capture is the reader's own.
    assert!(found.calls[0].stack > 0 && found.calls[1].stack == 0);
    assert_eq!((found.calls[1].errno(), found.calls[1].tid), (None, 11));
}

#[test]
fn a_lost_exit_costs_one_call_and_no_other() {
    let mut build = CaptureBuilder::new();
    let main = build.process(10, &[10])[0];
    build.enter(main, 100, READ);
    build.enter(main, 200, OPENAT);
    build.exit(main, 210, OPENAT, 3, 0);
    // An exit of another call than the one entered.
    build.enter(main, 300, READ);
    build.exit(main, 310, OPENAT, 4, 0);
    let found = join(&build.finish());
    assert_eq!(
        summary(&found.calls),
        [(READ, 100, None, None), (OPENAT, 200, Some(10), Some(3)), (READ, 300, None, None)]
    );
    assert_eq!(found.exits_alone, 1);
}

#[test]
fn results_that_are_large_numbers_are_no_errors() {
    let call = |result| SystemCall {
        number: 9,
        start_ns: 0,
        duration_ns: Some(1),
        result: Some(result),
        thread: 0,
        tid: 1,
        stack: 0,
        cause: None,
    };
    assert_eq!(call(-4095).errno(), Some(4095));
    assert_eq!(call(-4096).errno(), None);
    assert_eq!(call(i64::MIN).errno(), None);
    assert_eq!(call(0).errno(), None);
}

#[test]
fn the_way_to_a_command_is_the_recorders() {
    for (mode, want) in [("launch", vec![EXECVE, READ]), ("attach", vec![EXECVE, EXECVE, READ])] {
        let mut build = CaptureBuilder::in_mode(mode);
        // The command is what the builder's recording is of.
        let main = build.process(10, &[10])[0];
        let after = build.process(10, &[10])[0];
        build.enter(main, 100, EXECVE);
        build.exit(main, 101, EXECVE, -2, 0);
        build.enter(main, 102, EXECVE);
        build.exit(after, 103, EXECVE, 0, 0);
        build.enter(after, 104, READ);
        build.exit(after, 105, READ, 0, 0);
        let found = join(&build.finish());
        let numbers: Vec<_> = found.calls.iter().map(|call| call.number).collect();
        assert_eq!(numbers, want, "{mode}");
    }
}

#[test]
fn a_call_belongs_to_the_operation_around_it() {
    let mut build = CaptureBuilder::new();
    let threads = build.process(10, &[10, 11]);
    let (main, other) = (threads[0], threads[1]);
    let call = |build: &mut CaptureBuilder, thread, at| {
        build.enter(thread, at, OPENAT);
        build.exit(thread, at + 2, OPENAT, 3, 0);
    };
    build.open(main, 100, 1, "/sync", false, 0);
    call(&mut build, main, 110);
    call(&mut build, other, 112);
    build.cleanup(main, 120, 1, 3);
    call(&mut build, main, 130);
    // One within another is a step of it.
    build.open(main, 140, 7, "/outer", false, 0);
    build.open(main, 150, 8, "/step", false, 0);
    call(&mut build, main, 155);
    build.cleanup(main, 160, 8, 3);
    build.cleanup(main, 170, 7, 3);
    // Asked for here, done elsewhere.
    build.open(main, 200, 2, "/async", true, 0);
    call(&mut build, main, 210);
    build.cleanup(main, 220, 2, 3);
    // No end was seen: where it ends is not known.
    build.open(main, 300, 3, "/pending", false, 0);
    call(&mut build, main, 310);
    let capture = build.finish();
    let joined = operations::join(&capture);
    let mut found = join(&capture);
    attribute(&mut found.calls, &joined);
    let paths: Vec<_> = found
        .calls
        .iter()
        .map(|call| {
            let Some(Cause::Operation(place)) = call.cause else { return None };
            joined.operations[place as usize].path
        })
        .collect();
    let [sync, outer] = [b"/sync".as_slice(), b"/outer"].map(Some);
    assert_eq!(paths, [sync, None, None, outer, None, None]);
}

/// The loop of the made-up program.
const LOOP: i64 = 0x70_0000;

#[test]
fn a_pool_threads_calls_belong_to_its_work() {
    let mut build = CaptureBuilder::new();
    let t = build.process(10, &[10, 11]);
    let (asking, pool) = (t[0], t[1]);
    let call = |build: &mut CaptureBuilder, at, took| {
        build.enter(pool, at, READ);
        build.exit(pool, at + took, READ, 3, 0);
    };
    let begin = |build: &mut CaptureBuilder, at, event: &str, work: i64| {
        build.operation(pool, at, event, 0, &[("work", work.into()), ("loop", LOOP.into())]);
    };
    let wake = |build: &mut CaptureBuilder, at| {
        build.operation(pool, at, "uv_async_send", 0, &[("handle", LOOP.into())]);
    };
    build.open(asking, 100, 0x1000, "/a", true, 0);
    call(&mut build, 110, 1);
    begin(&mut build, 130, "uv__fs_work", 0x1000 + 336);
    call(&mut build, 131, 5);
    call(&mut build, 140, 7);
    wake(&mut build, 150);
    // Waking the loop is no part of the work.
    call(&mut build, 151, 1);
    build.cleanup(asking, 200, 0x1000, 3);
    // Work of the program's own, with an operation in it.
    build.operation(asking, 300, "uv_queue_work", 0x500, &[]);
    begin(&mut build, 310, "uv__queue_work", 0x500 + 88);
    call(&mut build, 315, 1);
    build.open(pool, 320, 0x2000, "/b", false, 0);
    call(&mut build, 325, 1);
    build.cleanup(pool, 330, 0x2000, 3);
    call(&mut build, 335, 1);
    wake(&mut build, 340);
    // The kernel was still within when the work had ended, as it seems.
    build.open(asking, 400, 0x1000, "/c", true, 0);
    begin(&mut build, 410, "uv__fs_work", 0x1000 + 336);
    call(&mut build, 411, 60);
    wake(&mut build, 450);
    let capture = build.finish();
    let joined = operations::join(&capture);
    let mut found = join(&capture);
    attribute(&mut found.calls, &joined);
    let causes: Vec<_> = found.calls.iter().map(|call| call.cause).collect();
    use Cause::{Job, Operation};
    let [a, b, c] = [0, 1, 2].map(|place| Some(Operation(place)));
    assert_eq!(causes, [None, a, a, None, Some(Job(1)), b, Some(Job(1)), c]);
    let parts: Vec<_> = joined.operations.iter().map(|of| of.parts.syscall_ns).collect();
    assert_eq!(parts, [Some(12), None, Some(40)]);
}
