//! Reports of operations other than opens, through the real writers.

use formats::capture::Frame;
use serde_json::Value;

use super::tests::{application, assert_no_empty_values, events_of, filtered, json, text};
use super::*;
use crate::aggregate::glob::Glob;
use crate::plan::EventsPlan;
use crate::testing::CaptureBuilder;

/// Operations of several kinds after the opens of [`application`].
fn operations() -> CaptureBuilder {
    let mut build = application();
    let thread = build.process(30, &[30])[0];
    build.jit(1, 0, &[(0x10_0000, 0x100, b"JS:~tidy /app/lib/tidy.js:7:3")]);
    let tidy = build.stack(&[Frame::Jit { process: 1, address: 0x10_0010, call: true }]);
    build.operations_by(tidy);
    for n in 0..2 {
        let at = 20_000_000 + n * 1_000;
        build.operation(thread, at, "uv_fs_stat", 1, &[("path", "/gone".into())]);
        build.cleanup_of(thread, at + 100, 1, if n == 0 { -2 } else { 0 }, 6);
    }
    build.open(thread, 20_003_000, 1, "/data", true, tidy);
    build.cleanup(thread, 20_003_100, 1, 9);
    for n in 0..3 {
        let at = 20_004_000 + n * 1_000;
        build.operation(thread, at, "uv_fs_read", 1, &[("file", 9.into()), ("cb", 1.into())]);
        build.cleanup_of(thread, at + 100, 1, 50, 3);
    }
    build.operation(thread, 20_008_000, "uv_fs_fstat", 1, &[("file", 3.into())]);
    build.cleanup_of(thread, 20_008_100, 1, 0, 8);
    build.operation(thread, 20_009_000, "uv_fs_rename", 1, &[("path", "/old".into())]);
    build.operation(thread, 20_009_000, "uv_fs_rename.new", 1, &[("new", "/n\u{1b}w".into())]);
    build.cleanup_of(thread, 20_009_100, 1, 0, 21);
    let access = [("path", "/x".into()), ("mode", 6.into())];
    build.operation(thread, 20_010_000, "uv_fs_access", 1, &access);
    build.cleanup_of(thread, 20_010_100, 1, -13, 12);
    let mkdir = [("path", "/new".into()), ("mode", 0o755.into())];
    build.operation(thread, 20_011_000, "uv_fs_mkdir", 1, &mkdir);
    build
}

#[test]
fn operations_are_in_the_text() {
    let capture = operations().finish();
    let shown = text(&capture, false);
    for want in [
        "90 CPU samples (cpu-clock), 8 opens, 3 failed, 9 other file operations, 2 failed, 1 uprobe",
        "       2       1     100 ns     100 ns     100 ns  stat /gone  ENOENT 1  pid 30\n",
        "          2 x sync, 1 failed\n              tidy  /app/lib/tidy.js:7:3\n",
        "       1       1     100 ns     100 ns     100 ns  access /x  EACCES 1",
        "\nFILES\n",
        "  /data  read 3, open 1, 150 bytes  pid 30\n          4 x async  tidy /app/lib/tidy.js:7:3\n",
        "  (its open was not seen)  fstat 1",
        "  /old to /n\\x1bw  rename 1",
        "  /new  mkdir 1  no result 1",
        "\nCALLS, by the time of their operations\n",
    ] {
        assert!(shown.contains(want), "{want}\n{shown}");
    }
    // What failed comes first, whatever it was.
    let place = |text: &str| shown.find(text).unwrap();
    assert!(place("stat /gone") < place("\nFILES"), "{shown}");
    assert!(place("/data/ada.json") < place("/data  read"), "{shown}");

    let filter = |glob: &str, failed| PathFilter {
        glob: Some(Glob::new(glob.as_bytes())),
        failed,
        ..PathFilter::default()
    };
    let shown = filtered(&capture, &filter("/data", false), false);
    assert!(shown.contains("read /data") && !shown.contains("rename"), "{shown}");
    // Either path of a rename fits.
    let shown = filtered(&capture, &filter("/n?w", false), false);
    assert!(shown.contains("rename /old to"), "{shown}");
    let failed = PathFilter { failed: true, ..PathFilter::default() };
    let shown = filtered(&capture, &failed, false);
    assert!(shown.contains("access /x") && !shown.contains("read /data"), "{shown}");
    assert!(shown.contains("          1 x sync, failed") || shown.contains("2 x sync, 1 failed"));
}

#[test]
fn operations_are_in_json() {
    let capture = operations().finish();
    let report = json(&capture, &PathFilter::default(), None);
    assert_no_empty_values(&report);
    let rows = report["operations"].as_array().unwrap();
    let of = |operation: &str| rows.iter().find(|row| row["operation"] == operation).unwrap();
    let stat = of("stat");
    assert_eq!((&stat["path"], &stat["count"]), (&"/gone".into(), &2.into()));
    assert_eq!((&stat["failed"], &stat["errors"]["ENOENT"]), (&1.into(), &1.into()));
    assert_eq!(stat["latency_ns"]["max"], 100);
    assert_eq!(stat["stacks"][0]["frames"][0]["function"], "tidy");
    let read = of("read");
    assert_eq!((&read["path"], &read["bytes"]), (&"/data".into(), &150.into()));
    assert_eq!((&read["by_handle"], &read["asynchronous"]), (&true.into(), &3.into()));
    assert!(of("fstat").get("path").is_none() && of("fstat").get("path_unreadable").is_none());
    let rename = of("rename");
    assert_eq!(rename["new_path"], "/n\\x1bw");
    assert_eq!(rename["new_path_bytes"], "2f6e1b77");
    assert_eq!(of("mkdir")["pending"], 1);
    // Opens are among them, and stand where they stood.
    assert_eq!(rows.iter().filter(|row| row["operation"] == "open").count(), 3);
    assert_eq!(report["opens"].as_array().unwrap().len(), 3);
    assert!(report["opens"][0].get("operation").is_none());
    assert_eq!(
        (&report["opens_total"]["count"], &report["opens_total"]["failed"]),
        (&8.into(), &3.into())
    );
    let total = &report["operations_total"];
    assert_eq!(
        (&total["count"], &total["failed"], &total["bytes"]),
        (&17.into(), &5.into(), &150.into())
    );
    let failed = PathFilter { failed: true, ..PathFilter::default() };
    assert_eq!(json(&capture, &failed, None)["operations"].as_array().unwrap().len(), 3);
}

#[test]
fn operations_are_events() {
    let capture = operations().finish();
    let plan = |json| EventsPlan { json, events: vec!["fs".into()], ..EventsPlan::default() };
    let lines = events_of(&capture, &plan(false));
    for want in [
        "22:13:20.019999 [30/30] stat(\"/gone\") = -1 ENOENT <0.000000>  tidy /app/lib/tidy.js:7:3\n",
        "] read(9</data>) = 50 <0.000000> async  tidy /app",
        "] fstat(3) = 0 <0.000000>",
        "] rename(\"/old\", \"/n\\x1bw\") = 0 ",
        "] access(\"/x\", R_OK|W_OK) = -1 EACCES ",
        "] mkdir(\"/new\", 0o755) = ?",
    ] {
        assert!(lines.contains(want), "{want}\n{lines}");
    }
    let filtered = |filter| {
        let plan = EventsPlan { filter, ..EventsPlan::default() };
        events_of(&capture, &plan)
    };
    let failed = filtered(PathFilter { failed: true, ..PathFilter::default() });
    assert_eq!(failed.lines().count(), 5, "{failed}");
    assert!(failed.lines().all(|line| line.contains(" = -1 E")), "{failed}");
    let slow = filtered(PathFilter { slow_ns: Some(400_000), ..PathFilter::default() });
    assert_eq!(slow.matches("open(\"/app/data/ada.json\"").count(), 3, "{slow}");
    assert_eq!(slow.lines().count(), 3, "{slow}");
    let glob = Some(Glob::new(b"/n*"));
    let path = filtered(PathFilter { glob, ..PathFilter::default() });
    assert_eq!(path.lines().count(), 2, "{path}");
    let json = events_of(&capture, &plan(true));
    let rows: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of =
        |name: &str| &rows.iter().find(|row| row["args"]["operation"] == name).unwrap()["args"];
    assert_eq!(
        of("read"),
        &serde_json::json!({"operation": "read", "fd": 9, "path": "/data", "async": true,
            "result": 50, "bytes": 50, "latency_ns": 100})
    );
    assert_eq!(of("access")["access"], "R_OK|W_OK");
    assert_eq!(of("mkdir")["mode"], 0o755);
    assert_eq!(of("rename")["new_path"], "/n\\x1bw");
    let halves = EventsPlan { events: vec!["uv_fs_stat".into()], ..EventsPlan::default() };
    assert_eq!(events_of(&capture, &halves).lines().count(), 2);
}

/// A program that requires a module that is not there, reads a file whose steps Node takes, and keeps the pool busy.
fn steps() -> CaptureBuilder {
    let mut build = CaptureBuilder::new();
    let thread = build.process(10, &[10])[0];
    build.jit(
        0,
        0,
        &[
            (0x1000, 0x100, b"JS:~load /app/load.js:3:1"),
            (0x1100, 0x100, b"JS:~require node:internal/modules/helpers:5:1"),
            (0x1200, 0x100, b"JS:~stat node:internal/modules/cjs/loader:6:1"),
            (0x1300, 0x100, b"JS:~readFile node:fs:3:1"),
            (0x1400, 0x100, b"JS:~readFileAfterOpen node:fs:4:1"),
        ],
    );
    let mut stack = |code: &[u64]| {
        let frame = |&address: &u64| Frame::Jit { process: 0, address: address + 1, call: true };
        let frames: Vec<Frame> = code.iter().map(frame).collect();
        build.stack(&frames)
    };
    let require = stack(&[0x1000, 0x1100, 0x1200]);
    let (read, after) = (stack(&[0x1000, 0x1300]), stack(&[0x1400]));
    build.operations_by(require);
    for (n, path) in ["/app/gone", "/app/gone.js"].into_iter().enumerate() {
        let at = 1_000 + n as u64 * 100;
        build.operation(thread, at, "uv_fs_stat", 1, &[("path", path.into())]);
        build.cleanup_of(thread, at + 50, 1, -2, 6);
    }
    build.open(thread, 10_000, 2, "/app/a.txt", true, read);
    build.cleanup(thread, 30_010_000, 2, 9);
    build.operations_by(after);
    let arguments = [("file", 9.into()), ("cb", 1.into())];
    build.operation(thread, 30_020_000, "uv_fs_read", 2, &arguments);
    build.cleanup_of(thread, 32_020_000, 2, 7, 3);
    build
}

#[test]
fn steps_are_told_by_their_call() {
    let capture = steps().finish();
    let shown = text(&capture, false);
    for want in [
        "\nMODULES NOT FOUND (the program may have caught the error)\n   count  asked for by\n       \
         1  require at load /app/load.js:3:1\n          tried /app/gone, /app/gone.js\n",
        "\nSLOWEST OPERATIONS\n   30.0 ms  open /app/a.txt\n            fs.readFile at load /app/load.js:3:1\n",
        "       2       -    2.00 ms    30.0 ms    30.0 ms  /app/a.txt  open 1, read 1, 7 bytes\n          \
         2 x async  fs.readFile at load /app/load.js:3:1\n",
        "       2       -    32.0 ms          -  fs.readFile at load /app/load.js:3:1\n",
        "\nMODULE RESOLUTION\n  2 operations, 2 failed, for 0 modules loaded: not shown above; --modules opens it\n",
    ] {
        assert!(shown.contains(want), "{want}\n{shown}");
    }
    assert!(!shown.contains("stat /app/gone"), "{shown}");
    let modules = PathFilter { modules: true, ..PathFilter::default() };
    let shown = filtered(&capture, &modules, false);
    assert!(shown.contains("stat /app/gone  ENOENT 1  module resolution\n"), "{shown}");
    assert!(shown.contains("via require\n"), "{shown}");
    let failed = PathFilter { failed: true, ..PathFilter::default() };
    let shown = filtered(&capture, &failed, false);
    assert!(
        shown.contains("  2 operations fit the filter too: not shown above; --modules opens it\n"),
        "{shown}"
    );
    // Who names a path gets to see it.
    let glob = Some(Glob::new(b"gone"));
    let shown = filtered(&capture, &PathFilter { glob, ..PathFilter::default() }, false);
    assert!(shown.contains("stat /app/gone  ENOENT 1  module resolution\n"), "{shown}");
    let slow_ns = Some(10_000_000);
    let shown = filtered(&capture, &PathFilter { slow_ns, ..PathFilter::default() }, false);
    assert!(shown.contains("filter: --slow 10.0ms\n") && !shown.contains("read /app"), "{shown}");
    assert!(shown.contains("\n          1 x async  via fs.readFile\n"), "{shown}");

    let report = json(&capture, &PathFilter::default(), None);
    assert_no_empty_values(&report);
    // Nothing is left out, all is marked.
    let rows = report["operations"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    let of = |path: &str, operation: &str| {
        let fits = |row: &&Value| row["path"] == path && row["operation"] == operation;
        rows.iter().find(fits).unwrap()
    };
    let gone = of("/app/gone", "stat");
    assert_eq!((&gone["folded"], &gone["folded_count"]), (&"module-resolution".into(), &1.into()));
    assert_eq!(gone["stacks"][0]["folded_by"], "stack");
    let read = of("/app/a.txt", "read");
    assert!(read.get("folded").is_none() && read.get("folded_count").is_none());
    let stack = &read["stacks"][0];
    assert_eq!((&stack["call"], &stack["asked_by"]), (&"fs.readFile".into(), &"descriptor".into()));
    assert_eq!(stack["frames"][0]["function"], "readFileAfterOpen");
    assert_eq!(stack["asker_frames"][1]["function"], "load");
    let slow = &report["slowest"][0];
    assert_eq!((&slow["path"], &slow["latency_ns"]), (&"/app/a.txt".into(), &30_000_000.into()));
    assert_eq!(slow["line"]["function"], "load");
    let call = &report["calls"][0];
    assert_eq!((&call["call"], &call["by_operation"]["open"]), (&"fs.readFile".into(), &1.into()));
    assert_eq!((&call["bytes"], &call["total_ns"]), (&7.into(), &32_000_000.into()));
    let modules = &report["module_resolution"];
    assert_eq!((&modules["count"], &modules["failed"]), (&2.into(), &2.into()));
    assert_eq!(modules["missing"][0]["tried"], serde_json::json!(["/app/gone", "/app/gone.js"]));

    let plan = EventsPlan { json: true, stacks: true, ..EventsPlan::default() };
    let lines = events_of(&capture, &plan);
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows[0]["folded_by"], "stack");
    assert_eq!(
        (&rows[3]["call"], &rows[3]["asked_by"]),
        (&"fs.readFile".into(), &"descriptor".into())
    );
    assert_eq!(rows[3]["asker_frames"][1]["function"], "load");
    let plan = EventsPlan { stacks: true, ..EventsPlan::default() };
    let lines = events_of(&capture, &plan);
    assert!(
        lines.contains("  via fs.readFile  load /app/load.js:3:1  (by its descriptor)\n"),
        "{lines}"
    );
    assert!(
        lines.contains("        by its descriptor\n        readFile  node:fs:3:1\n"),
        "{lines}"
    );
}

/// Address of a loop, and of work; both libuv's.
const LOOP: i64 = 0x7000;

/// Hashing keeps both threads of a pool busy for 100 ms each; a read waits for one of them.
fn pool() -> CaptureBuilder {
    let mut build = CaptureBuilder::new();
    let t = build.process(10, &[10, 11, 12]);
    build.jit(
        0,
        0,
        &[
            (0x1000, 0x100, b"JS:~login /app/login.js:3:1"),
            (0x1100, 0x100, b"JS:~pbkdf2 node:internal/crypto/pbkdf2:5:1"),
            (0x1300, 0x100, b"JS:~readFile node:fs:3:1"),
        ],
    );
    let mut stack = |code: &[u64]| {
        let frame = |&address: &u64| Frame::Jit { process: 0, address: address + 1, call: true };
        let frames: Vec<Frame> = code.iter().map(frame).collect();
        build.stack(&frames)
    };
    let (hash, read) = (stack(&[0x1000, 0x1100]), stack(&[0x1000, 0x1300]));
    build.operations_by(hash);
    const MS: u64 = 1_000_000;
    let begin = |build: &mut CaptureBuilder, thread, time, event: &str, work: i64| {
        let arguments = [("work", work.into()), ("loop", LOOP.into())];
        build.operation(thread, time, event, 0, &arguments);
    };
    let end = |build: &mut CaptureBuilder, thread, time| {
        build.operation(thread, time, "uv_async_send", 0, &[("handle", LOOP.into())]);
    };
    for (n, worker) in [t[1], t[2]].into_iter().enumerate() {
        let request = 0x500 + n as u64 * 0x100;
        build.operation(t[0], MS, "uv_queue_work", request, &[]);
        begin(&mut build, worker, MS, "uv__queue_work", request as i64 + 88);
    }
    build.open(t[0], 2 * MS, 0x2000, "/app/a.txt", true, read);
    for worker in [t[1], t[2]] {
        end(&mut build, worker, 101 * MS);
    }
    begin(&mut build, t[1], 101 * MS, "uv__fs_work", 0x2000 + 336);
    end(&mut build, t[1], 102 * MS);
    begin(&mut build, t[0], 132 * MS, "uv__fs_done", 0x2000 + 336);
    build.cleanup(t[0], 133 * MS, 0x2000, 9);
    build
}

#[test]
fn a_pool_that_is_too_small_is_said_with_what_kept_it_busy() {
    let capture = pool().finish();
    let shown = text(&capture, false);
    for want in [
        "\nTHREAD POOL\n  2 threads did 3 pieces of work in 101 ms: both were busy 99.0% of the time, \
         99.5% of them on average\n",
        "  1 of 3 waited more than 10 ms for a pool thread; 99.0 ms of waiting together, at most 99.0 ms\n",
        "  the pool was too small: all its threads were busy in 100.0% of this waiting. More threads: \
         UV_THREADPOOL_SIZE\n  (here 2; at most 1024) in the environment before the start, so this needs a restart;",
        "      200 ms  2 jobs: pbkdf2 at login /app/login.js:3:1\n",
        "     1.00 ms  1 file operation: fs.readFile at login /app/login.js:3:1\n",
        "  1 of 1 waited more than 10 ms for the event loop to take their result up; 30.0 ms of waiting",
        "nrec record -e cpu says with what\n",
        "    130 ms  open /app/a.txt  waited for a thread 99.0 ms, worked 1.00 ms, waited for the loop 30.0 ms\n",
    ] {
        assert!(shown.contains(want), "{want}\n{shown}");
    }
    let report = json(&capture, &PathFilter::default(), None);
    assert_no_empty_values(&report);
    let pool = &report["pools"][0];
    assert_eq!((&pool["pid"], &pool["threads"], &pool["jobs"]), (&10.into(), &2.into(), &3.into()));
    assert_eq!((&pool["too_small"], &pool["all_busy_ns"]), (&true.into(), &100_000_000.into()));
    assert_eq!(pool["waiting_for_thread"]["over_10ms"], 1);
    let work = &pool["work"][0];
    assert_eq!((&work["kind"], &work["call"]), (&"queued".into(), &"pbkdf2".into()));
    assert_eq!(report["slowest"][0]["queue_ns"], 99_000_000);
    let plan = EventsPlan::default();
    let lines = events_of(&capture, &plan);
    let want = "<0.130000> async queue 99.0ms work 1.00ms loop 30.0ms  via fs.readFile  login /app/login.js:3:1\n";
    assert!(lines.contains(want), "{lines}");
}

#[test]
fn system_calls_of_operations_are_no_events_of_their_own() {
    let mut build = CaptureBuilder::new();
    let thread = build.process(10, &[10])[0];
    build.open(thread, 100, 1, "/a", false, 0);
    build.enter(thread, 110, 257);
    build.exit(thread, 120, 257, 3, 0);
    build.cleanup(thread, 200, 1, 3);
    let mut capture = build.finish();
    let plan = |events: &[&str]| EventsPlan {
        events: events.iter().map(|&name| name.to_owned()).collect(),
        ..EventsPlan::default()
    };
    let lines =
        |capture: &Capture, events: &[&str]| events_of(capture, &plan(events)).lines().count();
    assert_eq!((lines(&capture, &[]), lines(&capture, &["fs"])), (2, 1));
    for event in &mut capture.events {
        if event.set == "syscalls" {
            event.set = "fs".into();
        }
    }
    assert_eq!((lines(&capture, &[]), lines(&capture, &["fs"])), (1, 1));
    assert_eq!(lines(&capture, &["sys_enter"]), 1);
}

#[test]
fn what_the_kernel_did_by_itself_is_said() {
    let mut build = CaptureBuilder::new();
    let thread = build.process(10, &[10])[0];
    build.open(thread, 100, 1, "/a", true, 0);
    build.cleanup(thread, 200, 1, 3);
    let shown = text(&build.finish(), false);
    let want =
        "\nTHREAD POOL\n  1 operation was done by the kernel itself (io_uring), not by the pool\n";
    assert!(shown.contains(want), "{shown}");
}
