//! Joins of made-up captures.

use super::*;
use crate::join::pool::JobKind;
use crate::testing::CaptureBuilder;

#[test]
fn requests_are_joined_whatever_is_between() {
    let mut build = CaptureBuilder::new();
    let one = build.process(10, &[10, 11]);
    let two = build.process(20, &[20]);
    // Synchronous, asynchronous with the result on another thread, the same request at once in
    // another process, reused memory, a cleanup of something older, and one left pending.
    build.cleanup(one[0], 90, 0x1000, 7);
    build.open(one[0], 100, 0x1000, "/sync", false, 0);
    build.open(two[0], 105, 0x1000, "/other", false, 0);
    build.cleanup(one[0], 110, 0x1000, -2);
    build.cleanup(two[0], 130, 0x1000, 3);
    build.open(one[0], 200, 0x2000, "/async", true, 0);
    build.open(one[0], 210, 0x1000, "/again", false, 0);
    build.cleanup(one[0], 215, 0x1000, 5);
    build.cleanup(one[1], 290, 0x2000, 19);
    build.open(one[0], 300, 0x3000, "/overwritten", true, 0);
    build.open(one[0], 310, 0x3000, "/pending", true, 0);
    let capture = build.finish();
    let opens = join(&capture);
    let got: Vec<_> = opens
        .operations
        .iter()
        .map(|o| {
            let path = std::str::from_utf8(o.path.unwrap()).unwrap();
            (path, o.pid, o.asynchronous.unwrap(), o.result, o.latency_ns, o.errno())
        })
        .collect();
    assert_eq!(
        got,
        [
            ("/sync", 10, false, Some(-2), Some(10), Some(2)),
            ("/other", 20, false, Some(3), Some(25), None),
            ("/async", 10, true, Some(19), Some(90), None),
            ("/again", 10, false, Some(5), Some(5), None),
            ("/overwritten", 10, true, None, None, None),
            ("/pending", 10, true, None, None, None),
        ]
    );
    assert_eq!(opens.results_without_open, 1);
}

#[test]
fn fields_count_by_name_and_may_be_missing() {
    let mut build =
        CaptureBuilder::with_fields(&["path", "extra", "req"], &["result", "other", "req", "type"]);
    let threads = build.process(10, &[10]);
    build.open(threads[0], 100, 0x1000, "/a", true, 0);
    build.cleanup_of(threads[0], 101, 0x1000, -13, 6);
    build.cleanup(threads[0], 110, 0x1000, -13);
    let capture = build.finish();
    let opens = join(&capture).operations;
    assert_eq!(opens.len(), 1);
    assert_eq!((opens[0].result, opens[0].latency_ns), (Some(-13), Some(10)));
    assert_eq!((opens[0].flags, opens[0].asynchronous), (None, None));
    assert!(opens[0].is_open());
}

#[test]
fn operations_of_every_kind_are_joined() {
    let mut build = CaptureBuilder::new();
    let t = build.process(10, &[10, 11]);
    build.operation(t[0], 100, "uv_fs_stat", 0x1, &[("path", "/a".into()), ("cb", 1.into())]);
    // The same request, whose result was lost; then a result of another type.
    build.operation(
        t[0],
        110,
        "uv_fs_mkdir",
        0x2,
        &[("path", "/d".into()), ("mode", 0o755.into())],
    );
    build.cleanup_of(t[1], 115, 0x2, 0, 6);
    build.cleanup_of(t[0], 120, 0x2, -17, 19);
    build.cleanup_of(t[1], 130, 0x1, 0, 6);
    // Either of the two probes of a rename may be written first.
    for (time, first) in [(200, true), (300, false)] {
        let new = [("new", "/new".into())];
        if first {
            build.operation(t[0], time - 1, "uv_fs_rename.new", 0x3, &new);
        }
        build.operation(t[0], time, "uv_fs_rename", 0x3, &[("path", "/old".into())]);
        if !first {
            build.operation(t[0], time + 1, "uv_fs_rename.new", 0x3, &new);
        }
        build.cleanup_of(t[0], time + 10, 0x3, -18, 21);
    }
    let capture = build.finish();
    let found = join(&capture);
    assert_eq!((found.results_without_open, found.results_without_operation), (0, 1));
    let got: Vec<_> = found
        .operations
        .iter()
        .map(|o| (o.name, o.path.unwrap(), o.new_path, o.result, o.latency_ns))
        .collect();
    let new = Some(b"/new".as_slice());
    assert_eq!(
        got,
        [
            ("stat", b"/a".as_slice(), None, Some(0), Some(30)),
            ("mkdir", b"/d", None, Some(-17), Some(10)),
            ("rename", b"/old", new, Some(-18), Some(10)),
            ("rename", b"/old", new, Some(-18), Some(10)),
        ]
    );
    assert_eq!(found.operations[0].asynchronous, Some(true));
    assert_eq!(found.operations[1].mode, Some((0o755, Role::Mode)));
}

#[test]
fn descriptors_have_the_path_that_they_were_opened_by() {
    let mut build = CaptureBuilder::new();
    let t = build.process(10, &[10])[0];
    let close = |build: &mut CaptureBuilder, time, fd: i64| {
        build.operation(t, time, "uv_fs_close", 0x9, &[("file", fd.into())]);
        build.cleanup_of(t, time + 1, 0x9, 0, 2);
    };
    let read = |build: &mut CaptureBuilder, time, fd: i64| {
        build.operation(t, time, "uv_fs_read", 0x8, &[("file", fd.into())]);
        build.cleanup_of(t, time + 1, 0x8, 7, 3);
    };
    // From before the recording.
    read(&mut build, 10, 5);
    // An open whose callback reads and closes before the request is given up.
    build.open(t, 20, 0x1, "/first", true, 0);
    read(&mut build, 30, 5);
    // Asked for while the first is open, gets its number.
    build.open(t, 35, 0x2, "/second", true, 0);
    read(&mut build, 40, 5);
    close(&mut build, 50, 5);
    build.cleanup(t, 55, 0x1, 5);
    read(&mut build, 60, 5);
    build.cleanup(t, 65, 0x2, 5);
    read(&mut build, 70, 5);
    // Closed by somebody unseen, and given again.
    build.open(t, 80, 0x3, "/third", false, 0);
    build.cleanup(t, 85, 0x3, 5);
    read(&mut build, 90, 5);
    close(&mut build, 100, 5);
    read(&mut build, 110, 5);
    // Another number, and one that failed.
    build.open(t, 120, 0x4, "/absent", false, 0);
    build.cleanup(t, 125, 0x4, -2);
    read(&mut build, 130, 6);
    let capture = build.finish();
    let found = join(&capture).operations;
    let of = |name: &str| -> Vec<Option<&str>> {
        let named = found.iter().filter(|operation| operation.name == name);
        named.map(|o| o.path.map(|path| std::str::from_utf8(path).unwrap())).collect()
    };
    let (first, second, third) = (Some("/first"), Some("/second"), Some("/third"));
    assert_eq!(of("read"), [None, first, first, second, second, third, None, None]);
    assert_eq!(of("close"), [first, third]);
    let bytes = found.iter().filter_map(Operation::bytes).sum::<u64>();
    assert_eq!(bytes, 7 * 8);
}

#[test]
fn directories_have_the_path_that_they_were_opened_by() {
    let mut build = CaptureBuilder::new();
    let t = build.process(10, &[10])[0];
    build.operation(t, 10, "uv_fs_opendir", 0x1, &[("path", "/d".into())]);
    build.cleanup_with(t, 11, 0x1, 0, 31, 0xd1);
    for (time, name, kind) in
        [(20, "uv_fs_readdir", 32), (30, "uv_fs_closedir", 33), (40, "uv_fs_readdir", 32)]
    {
        build.operation(t, time, name, 0x2, &[("dir", 0xd1.into())]);
        build.cleanup_of(t, time + 1, 0x2, 0, kind);
    }
    let capture = build.finish();
    let paths: Vec<_> = join(&capture).operations.iter().map(|o| o.path).collect();
    let d = Some(b"/d".as_slice());
    assert_eq!(paths, [d, d, d, None]);
}

/// The loop of the made-up programs.
const LOOP: i64 = 0x70_0000;

fn step(build: &mut CaptureBuilder, thread: u32, time: u64, event: &str, work: i64) {
    build.operation(thread, time, event, 0, &[("work", work.into()), ("loop", LOOP.into())]);
}

fn wake(build: &mut CaptureBuilder, thread: u32, time: u64, handle: i64) {
    build.operation(thread, time, "uv_async_send", 0, &[("handle", handle.into())]);
}

#[test]
fn the_time_of_asynchronous_operations_is_taken_apart() {
    let mut build = CaptureBuilder::new();
    let t = build.process(10, &[10, 11]);
    let (asking, pool) = (t[0], t[1]);
    build.open(asking, 100, 0x1000, "/a", true, 0);
    step(&mut build, pool, 130, "uv__fs_work", 0x1000 + 336);
    // Somebody else's handle, another thread's, then the loop's own, twice.
    wake(&mut build, pool, 140, 0x1234);
    wake(&mut build, asking, 141, LOOP + 0x80);
    wake(&mut build, pool, 150, LOOP + 0x80);
    wake(&mut build, pool, 155, LOOP + 0x80);
    step(&mut build, asking, 190, "uv__fs_done", 0x1000 + 336);
    // The callback runs until here.
    build.cleanup(asking, 900, 0x1000, 7);
    // Without a pool thread: io_uring. Then a synchronous one.
    build.open(asking, 1000, 0x1000, "/b", true, 0);
    build.cleanup(asking, 1050, 0x1000, 8);
    build.open(asking, 1100, 0x1000, "/c", false, 0);
    build.cleanup(asking, 1110, 0x1000, 9);
    let capture = build.finish();
    let found = join(&capture);
    let parts: Vec<_> = found.operations.iter().map(|o| (o.latency_ns, o.parts)).collect();
    let first = Parts {
        worker: Some(11),
        queue_ns: Some(30),
        work_ns: Some(20),
        syscall_ns: None,
        loop_ns: Some(40),
    };
    let none = Parts::default();
    assert_eq!(parts, [(Some(90), first), (Some(50), none), (Some(10), none)]);
    assert_eq!(found.without_pool, 1);
    let [job] = found.jobs.as_slice() else { panic!("{:?}", found.jobs) };
    assert_eq!((job.kind, job.worker, job.asked_by), (JobKind::File, 11, Some(10)));
    assert_eq!((job.asked_ns, job.start_ns, job.end_ns), (Some(100), 130, Some(150)));
}

#[test]
fn operations_within_work_of_the_program_belong_to_who_gave_it() {
    let mut build = CaptureBuilder::new();
    let t = build.process(10, &[10, 11]);
    build.operation(t[0], 100, "uv_queue_work", 0x500, &[]);
    step(&mut build, t[1], 120, "uv__queue_work", 0x500 + 88);
    build.open(t[1], 130, 0x1000, "/a", false, 0);
    build.cleanup(t[1], 140, 0x1000, -2);
    build.operation(t[1], 142, "uv_fs_rename", 0x2000, &[("path", "/a".into())]);
    build.operation(t[1], 143, "uv_fs_rename.new", 0x2000, &[("new", "/c".into())]);
    wake(&mut build, t[1], 150, LOOP);
    // On the same thread, in no work.
    build.open(t[1], 160, 0x1000, "/b", false, 0);
    step(&mut build, t[1], 170, "uv__getaddrinfo_work", 0x900);
    build.open(t[1], 180, 0x1000, "/etc/hosts", false, 0);
    let capture = build.finish();
    let found = join(&capture);
    let of = |o: &Operation<'_>| (o.tid, o.asynchronous, o.job, o.parts.worker);
    let got: Vec<_> = found.operations.iter().map(of).collect();
    let alone = (11, Some(false), None, None);
    let given = (10, Some(true), Some(0), Some(11));
    assert_eq!(got, [given, given, alone, alone]);
    assert_eq!(found.operations[1].new_path, Some(b"/c".as_slice()));
    let kinds: Vec<_> = found.jobs.iter().map(|job| (job.kind, job.end_ns)).collect();
    assert_eq!(kinds, [(JobKind::Queued, Some(150)), (JobKind::Lookup, None)]);
}

#[test]
fn a_request_that_is_not_given_up_holds_the_result_until_the_next_operation() {
    let mut build = CaptureBuilder::new();
    let t = build.process(10, &[10, 11]);
    let file = |file: i64, before: i64, cb: i64| {
        [("file", file.into()), ("before", before.into()), ("cb", cb.into())]
    };
    build.operation(t[0], 100, "uv_fs_read", 0x1000, &file(7, 99, 0));
    build.operation(t[0], 110, "uv_fs_read", 0x1000, &file(7, 41, 0));
    build.operation(t[0], 120, "uv_fs_close", 0x1000, &file(7, 0, 0));
    build.cleanup_of(t[0], 130, 0x1000, 0, 2);
    // Of another file, of another thread, and one that has perhaps not ended.
    build.operation(t[0], 200, "uv_fs_read", 0x2000, &file(8, 1, 0));
    build.operation(t[0], 210, "uv_fs_read", 0x2000, &file(9, 2, 0));
    build.operation(t[1], 220, "uv_fs_read", 0x2000, &file(9, 3, 0x55));
    build.operation(t[1], 230, "uv_fs_close", 0x2000, &file(9, 4, 0));
    let capture = build.finish();
    let operations = join(&capture).operations;
    let got: Vec<_> = operations.iter().map(|o| (o.result, o.bytes(), o.latency_ns)).collect();
    let (closed, none) = ((Some(0), None, Some(10)), (None, None, None));
    let read = |bytes: u64| (Some(bytes as i64), Some(bytes), None);
    assert_eq!(got, [read(41), read(0), closed, none, none, none, none]);
}

#[test]
fn descriptors_from_before_are_what_proc_said() {
    let mut build = CaptureBuilder::new();
    let one = build.process(10, &[10])[0];
    let other = build.process(20, &[20])[0];
    for (number, target) in [(3, "/old"), (4, "/closed"), (5, "socket:[7]"), (6, "/opened")] {
        build.holding(0, number + 1, 1000, target);
    }
    let file = |build: &mut CaptureBuilder, thread, time, event: &str, number: i64| {
        build.operation(thread, time, event, time, &[("file", number.into())]);
    };
    // Before /proc was read.
    file(&mut build, one, 100, "uv_fs_read", 3);
    file(&mut build, one, 110, "uv_fs_close", 4);
    file(&mut build, one, 120, "uv_fs_fstat", 4);
    build.open(one, 130, 1, "/given", false, 0);
    build.cleanup(one, 140, 1, 6);
    file(&mut build, one, 150, "uv_fs_read", 6);
    // After it.
    file(&mut build, one, 1100, "uv_fs_read", 4);
    file(&mut build, one, 1110, "uv_fs_read", 6);
    file(&mut build, one, 1120, "uv_fs_read", 5);
    // The socket was closed unseen. The result comes after the callback that reads.
    build.open(one, 1200, 2, "/new", true, 0);
    file(&mut build, one, 1210, "uv_fs_read", 5);
    build.cleanup(one, 1220, 2, 5);
    file(&mut build, one, 1300, "uv_fs_close", 3);
    file(&mut build, one, 1310, "uv_fs_read", 3);
    file(&mut build, other, 1320, "uv_fs_read", 3);
    let capture = build.finish();
    let operations = join(&capture).operations;
    let seen = operations.iter().filter(|o| !o.is_open()).map(|o| {
        let path = o.path.map_or("-", |path| std::str::from_utf8(path).unwrap());
        (path, o.path_from_proc)
    });
    assert_eq!(
        seen.collect::<Vec<_>>(),
        [
            ("/old", true),
            ("-", false),
            ("-", false),
            ("/given", false),
            ("/closed", true),
            ("/given", false),
            ("socket:[7]", true),
            ("/new", false),
            ("/old", true),
            ("-", false),
            ("-", false),
        ]
    );
}

#[test]
fn an_open_that_waits_for_a_pool_thread_has_no_descriptor_yet() {
    let mut build = CaptureBuilder::new();
    let t = build.process(10, &[10, 11]);
    build.open(t[0], 100, 0x1000, "/waits", true, 0);
    // Meanwhile its number is another file's.
    build.open(t[0], 110, 0x2000, "/other", false, 0);
    build.cleanup(t[0], 120, 0x2000, 19);
    build.operation(t[0], 130, "uv_fs_close", 0x2000, &[("file", 19.into())]);
    build.cleanup_of(t[0], 140, 0x2000, 0, 2);
    step(&mut build, t[1], 200, "uv__fs_work", 0x1000 + 336);
    wake(&mut build, t[1], 210, LOOP);
    step(&mut build, t[0], 220, "uv__fs_done", 0x1000 + 336);
    build.operation(t[0], 225, "uv_fs_read", 0x3000, &[("file", 19.into()), ("cb", 1.into())]);
    build.cleanup(t[0], 230, 0x1000, 19);
    build.cleanup_of(t[0], 240, 0x3000, 5, 3);
    let capture = build.finish();
    let found = join(&capture);
    let paths: Vec<_> = found.operations.iter().map(|o| (o.name, o.path)).collect();
    let (waits, other) = (Some(b"/waits".as_slice()), Some(b"/other".as_slice()));
    assert_eq!(paths, [("open", waits), ("open", other), ("close", other), ("read", waits)]);
}
