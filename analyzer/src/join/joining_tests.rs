//! The join in parts against the join of the whole, on made-up captures.

use proptest::prelude::*;

use super::*;
use crate::join::operations::join;
use crate::testing::CaptureBuilder;

/// One thing that a made-up program does.
#[derive(Debug, Clone, Copy)]
struct Step {
    act: u8,
    thread: usize,
    request: u64,
    number: i64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0u8..18, 0usize..4, 1u64..6, 3i64..7);
    let step =
        step.prop_map(|(act, thread, request, number)| Step { act, thread, request, number });
    prop::collection::vec(step, 1..60)
}

/// The capture of a program that does these steps, one each 10 ns; two processes of two threads.
fn capture(steps: &[Step]) -> Capture {
    const LOOP: i64 = 0x5000;
    let mut build = CaptureBuilder::new();
    let mut threads = build.process(10, &[10, 11]);
    threads.extend(build.process(20, &[20, 21]));
    for (number, target) in [(0, "/folder"), (4, "/held/3"), (5, "/held/4"), (6, "socket:[7]")] {
        build.holding(0, number, 150, target);
    }
    for (at, step) in (1u64..).zip(steps) {
        let &Step { act, thread, request, number } = step;
        let (time, thread) = (at * 10, threads[thread]);
        let path = format!("{}p{request}", if number < 5 { "" } else { "/" });
        let path = path.as_str();
        let file = [("file", number.into())];
        let result = if number == 6 { -2 } else { number };
        let work = [("w", (request as i64 + 336).into()), ("loop", LOOP.into())];
        let queued = [("w", (request as i64 + 88).into()), ("loop", LOOP.into())];
        let call = [("sp", (1000 * number).into()), ("path", path.into())];
        let returned = |name: &'static str, value: i64| {
            [("sp", (1000 * number + 8).into()), (name, value.into())]
        };
        match act {
            0 | 1 => build.open(thread, time, request, path, act == 1, 0),
            2 | 3 => build.cleanup(thread, time, request, result),
            4 => build.operation(thread, time, "uv_fs_read", request, &file),
            5 => build.cleanup_of(thread, time, request, result, 3),
            6 => build.operation(thread, time, "uv_fs_close", request, &file),
            7 => build.cleanup_of(thread, time, request, 0, 2),
            8 => build.operation(thread, time, "uv_fs_rename", request, &[("path", path.into())]),
            9 => {
                let new = [("new", path.into())];
                build.operation(thread, time, "uv_fs_rename.new", request, &new);
            }
            10 => build.cleanup_of(thread, time, request, result, 21),
            11 => build.operation(thread, time, "uv__fs_work", 0, &work),
            12 => build.operation(thread, time, "uv_async_send", 0, &[("handle", LOOP.into())]),
            13 => build.operation(thread, time, "uv__queue_work", 0, &queued),
            14 => build.operation(thread, time, "uv_queue_work", request, &[]),
            15 => build.operation(thread, time, "uv_chdir", 0, &call),
            16 => {
                let status = i64::from(number == 6) * -2;
                build.operation(thread, time, "uv_chdir.return", 0, &returned("status", status));
            }
            _ => {
                let name = "std::filesystem::remove";
                build.operation(thread, time, name, 0, &call);
                let name = "std::filesystem::remove.return";
                build.operation(thread, time + 2, name, 0, &returned("done", 0));
                let call = i64::from(u16::from_le_bytes(*b"rm"));
                let given = [("error", number.into()), ("call", call.into())];
                build.operation(thread, time + 4, "node::ErrnoException", 0, &given);
            }
        }
    }
    build.finish()
}

/// The samples from one time to another.
fn between(capture: &Capture, from: u64, to: u64) -> Vec<Samples> {
    let of = |samples: &Samples| {
        let rows: Vec<usize> =
            (0..samples.len()).filter(|&row| (from..to).contains(&samples.time_ns[row])).collect();
        let column = |column: &Vec<u64>| rows.iter().map(|&row| column[row]).collect::<Vec<_>>();
        Samples {
            event: samples.event,
            time_ns: column(&samples.time_ns),
            thread: rows.iter().map(|&row| samples.thread[row]).collect(),
            stack: rows.iter().map(|&row| samples.stack[row]).collect(),
            fields: samples.fields.iter().map(column).collect(),
        }
    };
    capture.samples.iter().map(of).collect()
}

/// Operations without places: what opened them is told by its time, the folder by its name.
type Told<'c> = Vec<(Operation<'c>, Option<u64>, Option<Vec<u8>>)>;

fn told<'c>(found: &Operations<'c>, from: usize) -> Told<'c> {
    let rows = found.operations.iter().skip(from).map(|operation| {
        let opener = operation.opened_by.map(|place| found.operations[place].start_ns);
        let resolved = operation.path.and_then(|path| operation.resolved(path, &found.folders));
        (Operation { opened_by: None, folder: None, ..*operation }, opener, resolved)
    });
    rows.collect()
}

fn in_parts<'c>(capture: &'c Capture, cuts: &[u64]) -> (Told<'c>, Operations<'c>) {
    let mut joining = Joining::new(Patience::ENDLESS);
    let mut all = Told::new();
    let mut from = 0;
    for &to in cuts {
        joining.take(capture, &between(capture, from, to));
        let completed = joining.completed(capture);
        all.extend(told(&completed.found, completed.from));
        from = to;
    }
    joining.take(capture, &between(capture, from, u64::MAX));
    let completed = joining.finish(capture);
    all.extend(told(&completed.found, completed.from));
    all.sort_by_key(|(operation, ..)| operation.start_ns);
    (all, completed.found)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]
    #[test]
    fn the_parts_give_what_the_whole_gives(
        steps in steps(),
        mut cuts in prop::collection::vec(0u64..700, 0..6),
    ) {
        let capture = capture(&steps);
        let whole = join(&capture);
        let want = told(&whole, 0);
        cuts.sort_unstable();
        let (got, last) = in_parts(&capture, &cuts);
        for (got, want) in got.iter().zip(&want) {
            prop_assert_eq!(got, want);
        }
        prop_assert_eq!(got.len(), want.len());
        prop_assert_eq!(last.results_without_open, whole.results_without_open);
        prop_assert_eq!(last.results_without_operation, whole.results_without_operation);
        prop_assert_eq!(last.without_pool, whole.without_pool);
    }
}

#[test]
fn every_split_gives_what_the_whole_gives() {
    let step = |act, thread, request, number| Step { act, thread, request, number };
    // An open whose callback reads and closes before the request is given up, a rename of two
    // samples, work of the pool, a descriptor from before, a folder that changes.
    let steps = [
        step(4, 0, 2, 3),
        step(5, 0, 2, 3),
        step(1, 0, 1, 5),
        step(4, 0, 2, 5),
        step(11, 1, 1, 0),
        step(12, 1, 1, 0),
        step(5, 0, 2, 5),
        step(6, 0, 3, 5),
        step(7, 0, 3, 0),
        step(2, 0, 1, 5),
        step(4, 0, 2, 5),
        step(8, 2, 4, 5),
        step(9, 2, 4, 4),
        step(10, 2, 4, 4),
        step(15, 0, 1, 3),
        step(0, 0, 5, 4),
        step(16, 0, 1, 3),
        step(0, 0, 1, 3),
        step(2, 0, 5, 4),
        step(17, 0, 1, 3),
        step(6, 0, 3, 3),
        step(4, 0, 2, 3),
    ];
    let capture = capture(&steps);
    let whole = join(&capture);
    let want = told(&whole, 0);
    assert!(want.iter().any(|(_, opener, _)| opener.is_some()));
    assert!(want.iter().any(|(operation, ..)| operation.path_from_proc));
    assert!(want.iter().any(|(.., resolved)| resolved.is_some()));
    assert!(want.iter().any(|(operation, ..)| operation.errno_from.is_some()));
    for cut in 0..300 {
        assert_eq!(in_parts(&capture, &[cut]).0, want, "cut at {cut}");
    }
    let each: Vec<u64> = (0..300).collect();
    assert_eq!(in_parts(&capture, &each).0, want);
}

#[test]
fn what_is_complete_comes_out_and_nothing_twice() {
    let mut build = CaptureBuilder::new();
    let t = build.process(10, &[10])[0];
    build.open(t, 100, 1, "/slow", true, 0);
    build.open(t, 200, 2, "/fast", false, 0);
    build.cleanup(t, 210, 2, 5);
    build.operation(t, 220, "uv_fs_read", 3, &[("file", 5.into())]);
    build.cleanup_of(t, 230, 3, 7, 3);
    build.operation(t, 900_000_000, "uv_fs_close", 3, &[("file", 5.into())]);
    build.cleanup_of(t, 900_000_010, 3, 0, 2);
    build.cleanup(t, 900_000_020, 1, 6);
    let capture = build.finish();
    let names = |completed: &Completed<'_>| -> Vec<_> {
        let new = completed.found.operations.iter().skip(completed.from);
        new.map(|o| (o.name, String::from_utf8_lossy(o.path.unwrap_or_default()).into_owned()))
            .collect()
    };
    let pair = |name, path: &str| (name, path.to_owned());
    let mut joining = Joining::new(Patience::LIVE);
    joining.take(&capture, &between(&capture, 0, 500));
    // The slow open may be what gave 5, so the read waits for it; in vain.
    assert_eq!(names(&joining.completed(&capture)), [pair("open", "/fast")]);
    assert_eq!(names(&joining.completed_while_idle(&capture)), [pair("read", "/fast")]);
    joining.take(&capture, &between(&capture, 500, 900_000_015));
    let completed = joining.completed(&capture);
    assert_eq!(names(&completed), [pair("close", "/fast")]);
    let [opener, close] = completed.found.operations.as_slice() else { panic!("{completed:?}") };
    assert_eq!((opener.start_ns, close.opened_by, completed.from), (200, Some(0), 1));
    joining.take(&capture, &between(&capture, 900_000_015, u64::MAX));
    assert_eq!(names(&joining.completed(&capture)), [pair("open", "/slow")]);
    assert!(names(&joining.finish(&capture)).is_empty());
}

#[test]
fn what_never_ends_is_given_up() {
    let mut build = CaptureBuilder::new();
    let one = build.process(10, &[10])[0];
    let two = build.process(20, &[20])[0];
    build.open(one, 100, 1, "/overwritten", true, 0);
    build.open(one, 200, 1, "/first", true, 0);
    build.open(two, 300, 1, "/ended", true, 0);
    for request in 2..6 {
        build.open(one, 400 + request, request, "/more", true, 0);
    }
    let capture = build.finish();
    let mut joining = Joining::new(Patience { pending: 3, ..Patience::LIVE });
    joining.take(&capture, &capture.samples);
    joining.process_ended(1);
    let paths: Vec<_> =
        joining.completed(&capture).found.operations.iter().map(|o| o.path.unwrap()).collect();
    assert_eq!(paths, [b"/overwritten".as_slice(), b"/first", b"/ended", b"/more"]);
    assert_eq!(joining.finish(&capture).found.operations.len(), 3);
}
