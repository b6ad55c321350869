//! The stack of an event is the target's own `Error().stack`, frame by frame.

use std::process::Command;

use anyhow::{Context as _, Result};
use harness::binaries::{fixture, require_program};
use harness::command::run;
use harness::events::{file_events, only_event_of};
use harness::kernel::take_turn;
use harness::recording::Recording;
use harness::report::Report;
use harness::truth::{NameSource, compare_stack};
use harness::workload::{PERF_FLAGS, Workload};

#[test]
fn stacks_are_those_that_the_target_itself_sees() -> Result<()> {
    let name = "stacks_are_those_that_the_target_itself_sees";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    check_stacks(&[], NameSource::Heap)
}

#[test]
fn stacks_from_a_perf_map_are_those_that_the_target_itself_sees() -> Result<()> {
    let name = "stacks_from_a_perf_map_are_those_that_the_target_itself_sees";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    check_stacks(&PERF_FLAGS, NameSource::PerfMap)
}

fn check_stacks(flags: &[&str], source: NameSource) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = require_program("node")?;
    let mut workload =
        Workload::start_flagged(&node, flags, "error-stack.js", folder.path(), &["--stay"])?;
    let recording = Recording::attach(workload.pid(), &["-e", "fs", "--stack-size=24k"])?;
    workload.go()?;
    let said = workload.finish_and_stay()?;
    let recorded = recording.stop()?.complete()?;
    let events = file_events(&recorded.capture())?;
    let probes: Vec<_> = said.iter().filter(|record| record.get("probe").is_some()).collect();
    assert!(probes.len() > 80, "the workload made only {} probes", probes.len());
    for probe in probes {
        let event = only_event_of(&events, &probe["open"])?;
        let sites = probe["frames"].as_array().context("the log has no call sites")?;
        compare_stack(sites, &event.frames, source)
            .with_context(|| format!("at {}", probe["label"]))?;
    }
    check_quality(&Report::of(&recorded.capture())?);
    Ok(())
}

// At least 99.9 % of the JavaScript frames with function, file and line.
fn check_quality(report: &Report) {
    let frames = &report.stacks.js_frames;
    assert!(frames.total > 500, "only {} JavaScript frames", frames.total);
    assert!(frames.named * 1000 >= frames.total * 999, "named: {frames:?}");
    for opened in report.opens.iter().filter(|opened| opened.path.contains("/probe-")) {
        for frame in opened.stacks.iter().flat_map(|stack| &stack.frames) {
            if frame.kind == "js" && frame.function.is_some() {
                assert!(frame.file.is_some() && frame.line.is_some(), "{frame:?}");
            }
        }
    }
}

#[test]
fn frames_of_the_application_have_names() -> Result<()> {
    let name = "frames_of_the_application_have_names";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    check_application(&[], 0)
}

#[test]
fn frames_of_the_application_have_names_from_a_perf_map() -> Result<()> {
    let name = "frames_of_the_application_have_names_from_a_perf_map";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    // A function of Node's own snapshot has no address of its own before V8 compiles it: `emit` is
    // one, and is on most stacks here. After some requests it is compiled.
    check_application(&PERF_FLAGS, 200)
}

fn check_application(flags: &[&str], requests_before: u32) -> Result<()> {
    let (mut application, port) = Workload::start_flagged_application(flags)?;
    if requests_before > 0 {
        send_traffic(port, requests_before)?;
    }
    let recording = Recording::attach(application.pid(), &["-e", "cpu", "-e", "fs", "-F", "999"])?;
    send_traffic(port, 300)?;
    let recorded = recording.stop()?.complete()?;
    application.terminate()?;
    let report = Report::of(&recorded.capture())?;
    let frames = &report.stacks.js_frames;
    assert!(frames.total > 10_000, "only {} JavaScript frames", frames.total);
    assert!(frames.named * 1000 >= frames.total * 999, "{:?}", report.stacks);
    let mut named: u64 = 0;
    for event in harness::events::parse_events(
        &harness::report::nanalyze(&["events", "--json", "--stacks"], &recorded.capture())?.stdout,
    )? {
        for frame in event.frames.iter().filter(|frame| frame.kind == "js") {
            if frame.function.is_some() {
                assert!(frame.file.is_some() && frame.line.is_some(), "{frame:?}");
                named += 1;
            }
        }
    }
    assert!(named >= frames.named, "{named} named frames in the list, {frames:?} in the report");
    Ok(())
}

fn send_traffic(port: u16, requests: u32) -> Result<()> {
    let mut command = Command::new(require_program("node")?);
    command.arg(fixture("app/traffic.js")).args([port.to_string(), requests.to_string()]);
    run(&mut command)?.expect_code(0)?;
    Ok(())
}

#[test]
fn samples_of_the_cpu_name_the_busy_functions() -> Result<()> {
    let name = "samples_of_the_cpu_name_the_busy_functions";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start("open-loop.js", folder.path(), &["count=200000"])?;
    let recording = Recording::attach(workload.pid(), &["-e", "cpu", "-F", "999"])?;
    workload.go()?;
    workload.finish()?;
    let recorded = recording.stop()?.complete()?;
    let report = Report::of(&recorded.capture())?;
    assert!(report.capture.events > 0 && report.capture.lost == 0, "{:?}", report.capture);
    let svg = recorded.capture().with_extension("svg");
    let output = svg.to_string_lossy().into_owned();
    harness::report::nanalyze(&["flamegraph", "-e", "cpu", "-o", &output], &recorded.capture())?
        .expect_code(0)?;
    let svg = std::fs::read_to_string(&svg)?;
    assert!(svg.contains("openRepeatedly"), "the loop is not in the flamegraph");
    assert!(svg.len() < 1 << 20, "the flamegraph has {} bytes", svg.len());
    Ok(())
}
