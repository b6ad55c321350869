//! Targets that end, break or change while their heap is read: the recorder ends well and in time, and
//! what it could not read is said.

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::binaries::{fixture, require_program};
use harness::command::send_signal;
use harness::events::{Event, file_events, parse_events};
use harness::kernel::{left_dynamic_events, take_turn, tell};
use harness::nodes;
use harness::recording::{Recorded, Recording, record_command};
use harness::report::{Report, nanalyze};
use harness::scribble::{Part, scribble};
use harness::truth::{compare, said_opens};
use harness::workload::{Workload, node_command};
use nix::sys::signal::Signal;

/// Of a drain each 5 ms, on a machine that has other things to do.
const LAST_DRAIN_NS: u64 = 250_000_000;

fn is_lost_at_the_end(event: &Event) -> bool {
    event.frames.iter().any(|frame| frame.unresolved.as_deref() == Some("process-ended"))
}

#[test]
fn a_process_that_is_killed_loses_only_its_last_names() -> Result<()> {
    let name = "a_process_that_is_killed_loses_only_its_last_names";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let mut command = Command::new(require_program("node")?);
    let workload = Workload::start_plain(command.arg(fixture("v8-truth/worker.js")))?;
    sleep(Duration::from_secs(1));
    let recording = Recording::attach(workload.pid(), &["-e", "cpu", "-F", "999"])?;
    sleep(Duration::from_secs(2));
    send_signal(workload.pid(), Signal::SIGKILL)?;
    let recorded = recording.wait_end()?.complete()?;
    let outcome = nanalyze(&["events", "--json", "--stacks"], &recorded.capture())?;
    let events = parse_events(&outcome.expect_code(0)?.stdout)?;
    ensure!(events.len() > 500, "only {} samples", events.len());
    let last = events.iter().map(|event| event.time_ns).max().unwrap_or_default();
    let lost: Vec<&Event> = events.iter().filter(|event| is_lost_at_the_end(event)).collect();
    let early = lost.iter().filter(|event| event.time_ns + LAST_DRAIN_NS < last).count();
    ensure!(early == 0, "{early} samples long before the end have no names because of it");
    let report = Report::of(&recorded.capture())?;
    tell(&format!(
        "killed: {} of {} samples have no names, {:.3} % of the other frames",
        lost.len(),
        events.len(),
        report.nameless_percent()
    ))?;
    ensure!(report.nameless_percent() < 3.0, "{:?}", report.stacks);
    Ok(())
}

// Every open is there. A stack has its names, or the reason why not.
fn check_opens(folder: &Path, recorded: &Recorded, opens: &[serde_json::Value]) -> Result<()> {
    let report = Report::of(&recorded.capture())?;
    compare("the report", &said_opens(opens), &report.open_counts_below(folder))?;
    let events = file_events(&recorded.capture())?;
    for event in events.iter().filter(|event| !is_lost_at_the_end(event)) {
        for frame in event.frames.iter().filter(|frame| frame.kind == "js") {
            let has_both = frame.function.is_some() && frame.file.is_some();
            ensure!(has_both || frame.unresolved.is_some(), "{frame:?}");
        }
    }
    let lost = events.iter().filter(|event| is_lost_at_the_end(event)).count();
    tell(&format!("{lost} of {} stacks of a short life have no names", events.len()))
}

#[test]
fn a_process_that_ends_after_its_last_open_has_all_opens() -> Result<()> {
    let name = "a_process_that_ends_after_its_last_open_has_all_opens";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let (recorded, said) =
        record_command(&["-e", "fs"], &node_command("short-lived.js", folder.path()))?;
    check_opens(folder.path(), &recorded.complete()?, &said)?;

    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start("error-stack.js", folder.path(), &["rounds=1"])?;
    let recording = Recording::attach(workload.pid(), &["-e", "fs"])?;
    workload.go()?;
    let mut said = workload.finish()?;
    // Each of them is absent.
    for record in &mut said {
        if record.get("open").is_some() {
            record["error"] = "ENOENT".into();
        }
    }
    check_opens(folder.path(), &recording.stop()?.complete()?, &said)
}

fn destroy(part: Part, seed: u64) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut workload = match part {
        Part::Heap => {
            let mut command = Command::new(require_program("node")?);
            Workload::start_plain(command.arg(fixture("v8-truth/worker.js")))?
        }
        Part::Stack => Workload::start("open-loop.js", folder.path(), &["count=1000000000"])?,
    };
    let recording = Recording::attach(workload.pid(), &["-e", "cpu", "-F", "999"])?;
    workload.go()?;
    sleep(Duration::from_millis(300));
    let writes = scribble(workload.pid(), part, seed, Duration::from_secs(4))?;
    // It may have survived, or hang.
    drop(send_signal(workload.pid(), Signal::SIGKILL));
    let status = workload.wait_end()?;
    let died = Instant::now();
    let recorded = recording.wait_end()?;
    let took = died.elapsed();
    tell(&format!("{part:?} destroyed: {writes} words, {status}; the recorder took {took:.1?}"))?;
    ensure!(took < Duration::from_secs(10), "the recorder needed {took:?} to end");
    ensure!(matches!(recorded.outcome.status.code(), Some(0 | 1)), "{:?}", recorded.outcome);
    for words in [&["report"][..], &["report", "--json"], &["events", "--json", "--stacks"]] {
        let outcome = nanalyze(words, &recorded.capture())?;
        ensure!(matches!(outcome.status.code(), Some(0 | 1)), "{}", outcome.stderr);
    }
    let outcome = nanalyze(&["report", "--json"], &recorded.capture())?;
    let report = Report::parse(&outcome.stdout)?;
    ensure!(report.capture.events > 100, "only {} samples", report.capture.events);
    ensure!(left_dynamic_events()?.is_empty(), "dynamic events were left");
    Ok(())
}

#[test]
fn a_process_that_destroys_its_heap_harms_nobody() -> Result<()> {
    let name = "a_process_that_destroys_its_heap_harms_nobody";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    (1..=4).try_for_each(|seed| destroy(Part::Heap, seed))
}

#[test]
fn a_process_that_destroys_its_stack_harms_nobody() -> Result<()> {
    let name = "a_process_that_destroys_its_stack_harms_nobody";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    (1..=2).try_for_each(|seed| destroy(Part::Stack, seed))
}

fn remapping(name: &str, version: u32) -> Result<()> {
    let Some((_turn, node)) = nodes::take_turn_with(name, version, &[])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start_with(&node, "remapping.js", folder.path(), &["seconds=3"])?;
    let recording = Recording::attach(workload.pid(), &["-e", "cpu", "-e", "fs", "-F", "999"])?;
    workload.go()?;
    workload.finish()?;
    let recorded = recording.stop()?.complete()?;
    let report = Report::of(&recorded.capture())?;
    let frames = &report.stacks.js_frames;
    tell(&format!(
        "Node {version}, changing mappings: {} of {} JavaScript frames named; {:?}",
        frames.named, frames.total, report.stacks.unresolved
    ))?;
    // The threads here live for 30 ms each.
    ensure!(frames.named * 3 > frames.total, "{:?}", report.stacks);
    Ok(())
}

#[test]
fn a_process_that_changes_its_mappings_all_the_time_is_recorded() -> Result<()> {
    let name = "a_process_that_changes_its_mappings_all_the_time_is_recorded";
    [16, 20, 24].iter().try_for_each(|version| remapping(name, *version))
}
