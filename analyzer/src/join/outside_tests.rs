//! Joins of made-up calls and returns.

use crate::join::operations::{Operation, join};
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
        ("dlopen", ("handle", 0), -65536),
        ("dlopen", ("handle", 0x5555), 0),
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
    let capture = build.finish();
    let results: Vec<_> = join(&capture).operations.iter().map(|o| o.result).collect();
    assert_eq!(results, cases.map(|(.., want)| Some(want)));
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
    let seen: Vec<_> = operations.iter().map(|o| (o.result, o.errno_thrown)).collect();
    let fine = (Some(0), false);
    assert_eq!(seen, [(Some(-39), true), fine, fine, fine, fine, (None, false)]);
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
