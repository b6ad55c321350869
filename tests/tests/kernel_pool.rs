//! Where the time of an asynchronous operation goes: waiting for a pool thread, in it, waiting for the
//! event loop. The truth is the target's own clock; files without symbols are no exception.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use harness::binaries::fixture;
use harness::command::run;
use harness::events::{Event, events_of, only_event_of};
use harness::foreign::debian_turn;
use harness::kernel::tell;
use harness::nodes;
use harness::recording::Recording;
use harness::workload::Workload;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

const SCRIPT: &str = "pool.js";

/// A number of the log.
fn number(of: &Value, name: &str) -> Result<u64> {
    of.get(name).and_then(Value::as_u64).with_context(|| format!("no {name} in {of}"))
}

/// The times of an operation: when it was asked for, when a pool thread began and ended, when the loop
/// took the result up.
fn times(event: &Event) -> Result<[u64; 4]> {
    let part = |name: &str| number(&event.args, name);
    let began = event.time_ns + part("queue_ns")?;
    let ended = began + part("work_ns")?;
    let taken = ended + part("loop_ns")?;
    assert_eq!(taken, event.time_ns + part("latency_ns")?, "the parts are not the whole");
    Ok([event.time_ns, began, ended, taken])
}

/// Records the workload of `command`, which takes the folder as its last argument.
fn check(mut command: Command, version: u32, text: &str) -> Result<()> {
    let place = tempfile::tempdir()?;
    let folder = place.path();
    mkfifo(&folder.join("gate"), Mode::S_IRWXU)?;
    fs::write(folder.join("read.txt"), "text")?;
    command.arg(fixture("workloads").join(SCRIPT)).arg(folder).arg("--stay");
    let mut workload = Workload::start_command(command.env("UV_THREADPOOL_SIZE", "1"))?;
    let recording = Recording::attach(workload.pid(), &["-e", "fs"])?;
    workload.go()?;
    let said = workload.finish_and_stay()?;
    let recorded = recording.stop()?.complete()?;
    let events = events_of(&recorded.capture(), "fs")?;
    let (releasing, free) = said
        .iter()
        .find_map(|line| Some((number(line, "releasing").ok()?, number(line, "free").ok()?)))
        .context("the workload released nothing")?;

    let mut seen = HashMap::new();
    for call in said.iter().filter(|line| line.get("called").is_some()) {
        let name = Path::new(call["path"].as_str().unwrap_or_default()).file_name();
        let name = name.and_then(|name| name.to_str()).context("no name")?;
        let event = events
            .iter()
            .find(|event| event.args["path"] == call["path"] && event.args["async"] == true)
            .with_context(|| format!("{text}: no operation for {call}"))?;
        let (before, asked) = (number(call, "before")?, number(call, "asked")?);
        let called = number(call, "called")?;
        let worker = number(&event.args, "worker")?;
        assert_eq!(event.tid, u64::from(workload.pid()), "{text}: {name} was asked for elsewhere");
        assert!(Path::new(&format!("/proc/{}/task/{worker}", workload.pid())).exists());
        assert_ne!(worker, event.tid);
        seen.insert(name.to_owned(), worker);
        let asks = event.frames.iter().any(|frame| {
            frame.file.as_ref().is_some_and(|file| file.ends_with(SCRIPT))
                && frame.function.as_deref() == Some("ask")
        });
        assert!(asks, "{text}: {name} was asked for by {:#?}", event.frames);
        if name == "read.txt" && version >= 26 {
            // Within work of the program's own: only the whole of it waits.
            continue;
        }
        let [start, began, ended, taken] = times(event)?;
        assert!((before..=asked).contains(&start), "{text}: {name} began at {start}: {call}");
        assert!(taken <= called, "{text}: {name} was taken up at {taken}: {call}");
        match name {
            "gate" => {
                assert!(began < releasing && ended > releasing, "{text}: {event:?}, {releasing}");
                assert!(taken >= free, "{text}: {event:?}, {free}");
            }
            "behind.absent" => {
                assert!(began > releasing && ended < free, "{text}: {event:?}, {releasing} {free}");
                assert!(taken >= free, "{text}: {event:?}, {free}");
            }
            _ => {}
        }
    }
    assert_eq!(seen.len(), 3, "{text}: {seen:?}");
    assert!(seen.values().all(|worker| Some(worker) == seen.get("gate")), "{text}: {seen:?}");
    let gate = only_event_of(
        &events.into_iter().filter(|event| event.args["async"] == false).collect::<Vec<_>>(),
        &Value::from(folder.join("gate").to_string_lossy()),
    )
    .map(|event| event.args.clone())?;
    assert!(gate.get("worker").is_none() && gate.get("queue_ns").is_none(), "{text}: {gate}");
    tell(&format!("{text}: the parts of {} operations are within the target's clock", seen.len()))
}

/// A copy without symbols.
fn stripped(node: &Path, folder: &Path) -> Result<PathBuf> {
    let copy = folder.join("node");
    run(Command::new("strip").arg("-o").arg(&copy).arg(node))?.expect_code(0)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    Ok(copy)
}

fn check_version(name: &str, version: u32) -> Result<()> {
    let Some((_turn, node)) = nodes::take_turn_with(name, version, &["strip"])? else {
        return Ok(());
    };
    check(Command::new(&node), version, &format!("Node {version}"))?;
    let folder = tempfile::tempdir()?;
    let node = stripped(&node, folder.path())?;
    check(Command::new(node), version, &format!("Node {version}, stripped"))
}

#[test]
fn time_of_operations_is_taken_apart_in_node_16() -> Result<()> {
    check_version("time_of_operations_is_taken_apart_in_node_16", 16)
}

#[test]
fn time_of_operations_is_taken_apart_in_node_18() -> Result<()> {
    check_version("time_of_operations_is_taken_apart_in_node_18", 18)
}

#[test]
fn time_of_operations_is_taken_apart_in_node_20() -> Result<()> {
    check_version("time_of_operations_is_taken_apart_in_node_20", 20)
}

#[test]
fn time_of_operations_is_taken_apart_in_node_22() -> Result<()> {
    check_version("time_of_operations_is_taken_apart_in_node_22", 22)
}

#[test]
fn time_of_operations_is_taken_apart_in_node_24() -> Result<()> {
    check_version("time_of_operations_is_taken_apart_in_node_24", 24)
}

#[test]
fn time_of_operations_is_taken_apart_in_node_26() -> Result<()> {
    check_version("time_of_operations_is_taken_apart_in_node_26", 26)
}

#[test]
fn time_of_operations_is_taken_apart_in_a_shared_stripped_libuv() -> Result<()> {
    let name = "time_of_operations_is_taken_apart_in_a_shared_stripped_libuv";
    let Some((_turn, debian)) = debian_turn(name)? else { return Ok(()) };
    check(debian.command::<&str>([]), 18, "Debian's Node 18")
}
