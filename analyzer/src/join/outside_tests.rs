//! Joins of made-up calls and returns.

use crate::join::operations::{ErrnoFrom, Operation, join};
use crate::testing::{CaptureBuilder, Given};

const STD: &str = "std::filesystem::";

fn call(build: &mut CaptureBuilder, thread: u32, time: u64, event: &str, sp: i64, path: &str) {
    build.operation(thread, time, event, 0, &[("sp", sp.into()), ("path", path.into())]);
}

fn give(build: &mut CaptureBuilder, time: u64, event: &str, sp: i64, value: (&str, i64)) {
    let event = format!("{event}.return");
    let given: [(&str, Given<'_>); 2] = [("sp", (sp + 8).into()), (value.0, value.1.into())];
    build.operation(0, time, &event, 0, &given);
}

fn told<'o>(operation: &'o Operation<'o>) -> (&'o str, &'o str, Option<i64>, Option<u64>) {
    let path = std::str::from_utf8(operation.path.unwrap()).unwrap();
    (operation.name, path, operation.result, operation.latency_ns)
}

#[test]
fn calls_within_a_call_are_its_steps() {
    let mut build = CaptureBuilder::new();
    let thread = build.process(10, &[10])[0];
    let (all, one, state) =
        (&*format!("{STD}create_directories"), &*format!("{STD}create_directory"), "status");
    let state = &*format!("{STD}{state}");
    call(&mut build, thread, 100, all, 1000, "/a/b");
    call(&mut build, thread, 110, state, 900, "/a/b");
    give(&mut build, 120, state, 900, ("type", -1));
    call(&mut build, thread, 130, one, 900, "/a/b");
    give(&mut build, 140, one, 900, ("done", 1));
    give(&mut build, 150, all, 1000, ("done", 1));
    // By itself it is an operation.
    call(&mut build, thread, 160, state, 1000, "/c");
    give(&mut build, 170, state, 1000, ("type", -1));
    // Its return was lost: what is called next is no step of it.
    call(&mut build, thread, 180, all, 1000, "/lost");
    call(&mut build, thread, 190, one, 1000, "/d");
    give(&mut build, 200, one, 1000, ("done", 1));
    // A return without a call.
    give(&mut build, 210, one, 700, ("done", 0));
    let capture = build.finish();
    let operations = join(&capture).operations;
    assert_eq!(
        operations.iter().map(told).collect::<Vec<_>>(),
        [
            ("create_directories", "/a/b", Some(0), Some(50)),
            ("status", "/c", Some(-2), Some(10)),
            ("create_directories", "/lost", None, None),
            ("create_directory", "/d", Some(0), Some(10)),
        ]
    );
    assert!(operations.iter().all(|operation| operation.asynchronous == Some(false)));
}

#[test]
fn what_each_function_returns_is_understood() {
    let mut build = CaptureBuilder::new();
    let thread = build.process(10, &[10])[0];
    let remove_all = format!("{STD}remove_all");
    let cases = [
        ("uv_chdir", ("status", -13), -13),
        ("chdir", ("failed", -1), -4094),
        ("chdir", ("failed", 0), 0),
        ("uv_fs_event_start", ("status", -2), -2),
        (&remove_all, ("count", 7), 0),
        (&remove_all, ("count", -1), -4094),
    ];
    for (at, (event, value, _)) in (1u64..).zip(&cases) {
        call(&mut build, thread, at * 100, event, 1000, "/a");
        give(&mut build, at * 100 + 10, event, 1000, *value);
    }
    // Of the program itself.
    build.operation(thread, 5000, "dlopen", 0, &[("sp", 1000.into())]);
    // Node asks why it failed, only of the second.
    for time in [6000, 6100] {
        call(&mut build, thread, time, "dlopen", 1000, "/a.node");
    }
    build.operation(thread, 6120, "dlerror", 0, &[("sp", 1000.into())]);
    build.operation(thread, 6130, "dlerror", 0, &[("sp", 1000.into())]);
    let capture = build.finish();
    let results: Vec<_> = join(&capture).operations.iter().map(|o| o.result).collect();
    let returned = cases.map(|(.., want)| Some(want));
    assert_eq!(results, [returned.as_slice(), &[None, Some(-65536)]].concat());
}

#[test]
fn the_error_that_node_throws_is_the_operations() {
    let mut build = CaptureBuilder::new();
    let thread = build.process(10, &[10])[0];
    let remove = format!("{STD}remove");
    let throw = |build: &mut CaptureBuilder, time, error: i64, call: [u8; 2]| {
        let call = i64::from(u16::from_le_bytes(call));
        let given = [("error", error.into()), ("call", call.into())];
        build.operation(thread, time, "node::ErrnoException", 0, &given);
    };
    let mut removed = |time, done, then: Option<(i64, [u8; 2])>| {
        call(&mut build, thread, time, &remove, 1000, "/a");
        give(&mut build, time + 10, &remove, 1000, ("done", done));
        if let Some((error, call)) = then {
            throw(&mut build, time + 20, error, call);
        }
    };
    removed(100, 0, Some((39, *b"rm")));
    removed(200, 0, None);
    // Of something else.
    removed(300, 0, Some((1, *b"uv")));
    // It went well.
    removed(400, 1, Some((39, *b"rm")));
    removed(500, 0, None);
    build.open(thread, 520, 1, "/b", false, 0);
    throw(&mut build, 530, 13, *b"cp");
    let capture = build.finish();
    let operations = join(&capture).operations;
    let seen: Vec<_> = operations.iter().map(|o| (o.result, o.errno_from)).collect();
    let fine = (Some(0), None);
    assert_eq!(
        seen,
        [(Some(-39), Some(ErrnoFrom::Exception)), fine, fine, fine, fine, (None, None)]
    );
}

#[test]
fn second_paths_are_found_before_and_after_their_call() {
    let mut build = CaptureBuilder::new();
    let thread = build.process(10, &[10])[0];
    let copy = format!("{STD}copy_file");
    let new = |build: &mut CaptureBuilder, time, sp: i64, path: &str| {
        let given = [("sp", sp.into()), ("new", path.into())];
        build.operation(thread, time, &format!("{copy}.new"), 0, &given);
    };
    call(&mut build, thread, 100, &copy, 1000, "/a");
    new(&mut build, 101, 1000, "/b");
    give(&mut build, 110, &copy, 1000, ("done", 1));
    new(&mut build, 200, 1000, "/d");
    call(&mut build, thread, 201, &copy, 1000, "/c");
    give(&mut build, 210, &copy, 1000, ("done", 1));
    // Of another call.
    new(&mut build, 300, 900, "/f");
    call(&mut build, thread, 301, &copy, 1000, "/e");
    let capture = build.finish();
    let operations = join(&capture).operations;
    let seen: Vec<_> = operations.iter().map(|o| o.new_path).collect();
    assert_eq!(seen, [Some(b"/b".as_slice()), Some(b"/d"), None]);
}

#[test]
fn calls_of_the_c_library_are_steps_of_what_libuv_does() {
    let mut build = CaptureBuilder::new();
    let t = build.process(10, &[10, 11]);
    let open = |build: &mut CaptureBuilder, time, sp: i64, path: &str, fd: i64| {
        let given = [("sp", sp.into()), ("path", path.into())];
        build.operation(t[0], time, "libc.open64", 0, &given);
        let given = [("sp", (sp + 8).into()), ("fd", fd.into())];
        build.operation(t[0], time + 1, "libc.open64.return", 0, &given);
    };
    // libuv's, and within it something that an allocator or a signal handler might do.
    build.open(t[0], 100, 1, "/uv", false, 0);
    open(&mut build, 110, 1000, "/uv", 5);
    open(&mut build, 115, 1000, "/other", 6);
    build.cleanup(t[0], 120, 1, 5);
    // The same path again, by something else; then what it is used for.
    open(&mut build, 200, 1000, "/uv", -1);
    open(&mut build, 210, 1000, "/addon", 7);
    build.operation(t[0], 220, "uv_fs_read", 2, &[("file", 7.into())]);
    // What the beginning of an add-on does is no step of loading it.
    build.operation(t[0], 300, "dlopen", 0, &[("sp", 2000.into()), ("path", "/a.node".into())]);
    open(&mut build, 310, 1500, "/config", 8);
    // A pool thread.
    build.open(t[0], 400, 9, "/pool", true, 0);
    build.operation(
        t[1],
        410,
        "uv__fs_work",
        0,
        &[("work", (9 + 336).into()), ("loop", 64.into()), ("cb", 1.into())],
    );
    let given = [("sp", 80.into()), ("path", "/pool".into())];
    build.operation(t[1], 420, "libc.open64", 0, &given);
    let capture = build.finish();
    let operations = join(&capture).operations;
    let seen: Vec<_> = operations.iter().map(|o| (o.name, o.path, o.result)).collect();
    let path = |path: &'static str| Some(path.as_bytes());
    assert_eq!(
        seen,
        [
            ("open", path("/uv"), Some(5)),
            ("open", path("/other"), Some(6)),
            ("open", path("/uv"), Some(-4094)),
            ("open", path("/addon"), Some(7)),
            ("read", path("/addon"), None),
            ("dlopen", path("/a.node"), None),
            ("open", path("/config"), Some(8)),
            ("open", path("/pool"), None),
        ]
    );
}

#[test]
fn a_path_in_a_folder_that_is_open_is_not_in_the_working_folder() {
    let mut build = CaptureBuilder::new();
    let thread = build.process(10, &[10])[0];
    build.holding(0, 0, 10, "/srv");
    for (time, folder) in [(100, -100), (200, 7)] {
        let given = [("sp", 80.into()), ("dirfd", folder.into()), ("path", "a".into())];
        build.operation(thread, time, "libc.openat64", 0, &given);
    }
    let capture = build.finish();
    let found = join(&capture);
    let resolved = found.operations.iter().map(|o| o.resolved(b"a", &found.folders));
    assert_eq!(resolved.collect::<Vec<_>>(), [Some(b"/srv/a".to_vec()), None]);
}

#[test]
fn the_last_system_call_that_failed_tells_an_error_that_nothing_else_does() {
    let mut build = CaptureBuilder::new();
    let thread = build.process(10, &[10])[0];
    // All of it while an add-on is loaded.
    build.operation(thread, 50, "dlopen", 0, &[("sp", 900.into()), ("path", "/b.node".into())]);
    for (time, fd) in [(100, -1i64), (200, 7)] {
        let given = [("sp", 80.into()), ("path", "/a".into())];
        build.operation(thread, time, "libc.open64", 0, &given);
        for (at, error) in [(10, -22), (20, -13), (30, 0)] {
            build.enter(thread, time + at, 257);
            build.exit(thread, time + at + 5, 257, error, 0);
        }
        let given = [("sp", 88.into()), ("fd", fd.into())];
        build.operation(thread, time + 40, "libc.open64.return", 0, &given);
    }
    build.enter(thread, 300, 257);
    build.exit(thread, 310, 257, -1, 0);
    let capture = build.finish();
    let operations = join(&capture).operations;
    let seen: Vec<_> = operations.iter().map(|o| (o.result, o.errno_from)).collect();
    let failed = (Some(-13), Some(ErrnoFrom::SystemCall));
    assert_eq!(seen, [(None, None), failed, (Some(7), None)]);
}
