//! System calls are counted as strace counts them on the same process at the same time, and those that
//! fail are told with the operation, the path and the function that asked.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, Result};
use harness::binaries::{fixture, require_program};
use harness::command::{run, wait_for};
use harness::events::events_of;
use harness::kernel::{take_turn, tell};
use harness::recording::Recording;
use harness::report::nanalyze;
use harness::schema::check_syscalls;
use harness::strace::Strace;
use harness::strace_counts::Counts;
use harness::workload::Workload;
use serde_json::Value;

/// Calls that the observers see differently, because each begins and ends at another moment.
const EXCEPTED: [&str; 6] = [
    // What every thread waits in while the observers attach; strace interrupts and restarts it.
    "epoll_wait",
    "epoll_pwait",
    "futex",
    "restart_syscall",
    // Does not return; strace 6 writes no result.
    "exit",
    // `uretprobe`: made by the recorder's own probes, and therefore not recorded.
    "syscall_0x14f",
];

fn counted(counts: Counts) -> Counts {
    counts.into_iter().filter(|((_, name, _), _)| !EXCEPTED.contains(&name.as_str())).collect()
}

/// Waits until the main thread has slept for a while: what it does until then one observer would see
/// and the other would not.
fn wait_idle(pid: u32) -> Result<()> {
    let (mut last, mut same) = (String::new(), 0);
    wait_for("the workload to be idle", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let told = |line: &&str| line.starts_with("State") || line.contains("ctxt_switches");
        let now: String = status.lines().filter(told).collect();
        same = if now == last && now.contains("S (sleeping)") { same + 1 } else { 0 };
        last = now;
        std::thread::sleep(std::time::Duration::from_millis(20));
        Ok((same > 10).then_some(()))
    })
}

fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str)
}

#[test]
fn calls_and_errors_of_each_thread_are_those_that_strace_sees() -> Result<()> {
    let name = "calls_and_errors_of_each_thread_are_those_that_strace_sees";
    let Some(_turn) = take_turn(name, &["node", "strace"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start("opens-mixed.js", folder.path(), &[])?;
    let main = workload.pid();
    wait_idle(main)?;
    let strace = Strace::attach_all(main)?;
    let recording = Recording::attach(main, &["-e", "syscalls"])?;
    workload.go()?;
    workload.finish()?;
    let capture = recording.stop()?.complete()?;
    let truth = counted(strace.finish_counts()?);

    let mut ours = Counts::new();
    for call in events_of(&capture.capture(), "syscalls")? {
        let tid = u32::try_from(call.tid)?;
        let name = text(&call.args, "syscall").context("a call without a name")?;
        // One that does not return has no result.
        if call.args.get("result").is_some() || call.args.get("errno").is_some() {
            let error = text(&call.args, "errno").unwrap_or_default();
            *ours.entry((tid, name.to_owned(), error.to_owned())).or_default() += 1;
        }
    }
    let ours = counted(ours);
    let (all, failed): (u64, u64) = (
        truth.values().sum(),
        truth.iter().filter(|((_, _, error), _)| !error.is_empty()).map(|(_, count)| count).sum(),
    );
    let pool = truth.keys().filter(|(tid, name, _)| *tid != main && name == "openat").count();
    assert!(all > 100 && failed > 10 && pool > 0, "the workload does too little: {truth:?}");
    let missing: Vec<_> =
        truth.iter().filter(|&(key, count)| ours.get(key) != Some(count)).collect();
    let invented: Vec<_> =
        ours.iter().filter(|&(key, count)| truth.get(key) != Some(count)).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "strace alone: {missing:?}\nnrec alone: {invented:?}"
    );
    tell(&format!("{all} system calls, {failed} with an error: as strace counted them"))
}

#[test]
fn a_failure_tells_the_path_and_who_asked() -> Result<()> {
    let name = "a_failure_tells_the_path_and_who_asked";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start("opens-mixed.js", folder.path(), &["--stay"])?;
    let recording = Recording::attach(workload.pid(), &["-e", "syscalls"])?;
    workload.go()?;
    // What a process did last has names only while it lives.
    let said = workload.finish_and_stay()?;
    let capture = recording.stop()?.complete()?;
    let out = nanalyze(&["syscalls", "--json"], &capture.capture())?.expect_code(0)?.stdout;
    let report: Value = serde_json::from_str(&out)?;
    check_syscalls(&report)?;

    let failures = report["failures"].as_array().context("no failures")?;
    let mut checked = BTreeMap::<&str, u64>::new();
    let failed = said.iter().filter(|line| line.get("error").is_some());
    for line in failed.filter(|line| text(line, "open").is_some()) {
        let (path, error) = (text(line, "open").unwrap_or_default(), text(line, "error"));
        let how = text(line, "how").context("the log does not say how")?;
        let of_path = |failure: &&Value| {
            text(failure, "path") == Some(path) && text(failure, "syscall") == Some("openat")
        };
        let failure = failures.iter().find(of_path).with_context(|| format!("no {path}"))?;
        assert_eq!((text(failure, "errno"), text(failure, "operation")), (error, Some("open")));
        let asked = match how {
            "sync" => "openSynchronously",
            "callback" => "startOpen",
            _ => "openWithPromise",
        };
        let frames = failure["stacks"][0]["frames"].as_array().context("no frames")?;
        let names = || frames.iter().filter_map(|frame| text(frame, "function"));
        assert!(
            names().any(|name| name == asked),
            "{how} {path}: {:?}",
            names().collect::<Vec<_>>()
        );
        *checked.entry(how).or_default() += 1;
    }
    assert_eq!(checked.len(), 3, "not every way failed: {checked:?}");
    tell(&format!("failures by way of asking: {checked:?}"))
}

/// Sends requests to the application.
fn send(port: u16, requests: u32) -> Result<()> {
    let traffic = fixture("app/traffic.js");
    let words = [traffic.to_string_lossy().into_owned(), port.to_string(), requests.to_string()];
    run(Command::new(require_program("node")?).args(words))?.expect_code(0)?;
    Ok(())
}

#[test]
fn beside_operations_only_pool_threads_are_seen_and_their_time_is_told() -> Result<()> {
    let name = "beside_operations_only_pool_threads_are_seen_and_their_time_is_told";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let (mut application, port) = Workload::start_application()?;
    let main = u64::from(application.pid());
    // The threads of the pool begin with the first operation.
    send(port, 20)?;
    let recording = Recording::attach(application.pid(), &["-e", "fs"])?;
    send(port, 60)?;
    let capture = recording.stop()?.complete()?;
    application.terminate()?;
    let halves = events_of(&capture.capture(), "sys_enter")?;
    assert!(!halves.is_empty() && halves.iter().all(|half| half.tid != main));

    let number = |of: &Value, key: &str| of.get(key).and_then(Value::as_u64);
    let (mut known, mut all) = (0, 0);
    for operation in events_of(&capture.capture(), "fs")? {
        let within = number(&operation.args, "syscall_ns");
        let Some(work) = number(&operation.args, "work_ns") else {
            assert!(within.is_none(), "{operation:?}");
            continue;
        };
        all += 1;
        if let Some(within) = within {
            assert!(within > 0 && within <= work, "{operation:?}");
            known += 1;
        }
    }
    // Of the last operation the end may be missing.
    assert!(all > 20 && known + 1 >= all, "{known} of {all}");

    let refused = nanalyze(&["syscalls"], &capture.capture())?.expect_code(2)?;
    assert!(refused.stderr.contains("nrec record -e syscalls"), "{}", refused.stderr);
    tell(&format!("time in the kernel of {known} of {all} operations on pool threads"))
}
