//! A probe that is hit very often keeps every hit and takes few stacks; one that is not has a stack at
//! every hit.

use std::collections::HashSet;

use anyhow::{Context as _, Result, ensure};
use harness::events::{Event, file_events};
use harness::kernel::{take_turn, tell};
use harness::recording::{Recorded, Recording};
use harness::report::{Report, nanalyze};
use harness::workload::Workload;
use serde_json::Value;

/// About three seconds of an open and a close, both probed.
const HITS: u64 = 200_000;
/// Fewer hits a second than the recorder takes stacks of for as long as it likes (5000), and more in
/// all than a burst may have (1000): 40 times 100, 50 ms apart.
const SLOW: [&str; 3] = ["batches=40", "count=100", "pause=50"];
const SLOW_HITS: usize = 4000;

fn record(options: &[&str]) -> Result<(Recorded, String)> {
    let folder = tempfile::tempdir()?;
    let options = [options, &["--stay"]].concat();
    let mut workload = Workload::start("open-loop.js", folder.path(), &options)?;
    let recording = Recording::attach(workload.pid(), &["-e", "fs"])?;
    workload.go()?;
    // What is sampled just before the end of a process may have no names.
    workload.finish_and_stay()?;
    let path = folder.path().join("open-loop.txt").to_string_lossy().into_owned();
    Ok((recording.stop()?, path))
}

// The opens of this file that the capture has, in the order of time.
fn opens_of(recorded: &Recorded, path: &str) -> Result<Vec<Event>> {
    let words = ["events", "-e", "fs", "--json", "--stacks"];
    let outcome = nanalyze(&words, &recorded.capture())?;
    let mut events = harness::events::parse_events(&outcome.stdout)?;
    let says = |event: &Event, key: &str, value| event.args.get(key) == Some(&Value::from(value));
    events.retain(|event| says(event, "operation", "open") && says(event, "path", path));
    events.sort_by_key(|event| event.time_ns);
    Ok(events)
}

fn has_stack(event: &Event) -> bool {
    !event.frames.iter().any(|frame| frame.unresolved.as_deref() == Some("stack-not-taken"))
}

// The sample of `open` calls in the report: how many, how many without a stack, how many lost.
fn counts_of_opens(report: &Value) -> Result<[u64; 3]> {
    let events = report["capture"]["by_event"].as_array().context("no events in the report")?;
    let event = events.iter().find(|event| event["event"] == "uv_fs_open");
    let event = event.context("no opens in the report")?;
    Ok(["samples", "without_stack", "lost"].map(|key| event[key].as_u64().unwrap_or(0)))
}

#[test]
fn a_hot_probe_keeps_every_hit_and_few_stacks() -> Result<()> {
    let name = "a_hot_probe_keeps_every_hit_and_few_stacks";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let (recorded, path) = record(&[&format!("count={HITS}")])?;
    // Where the kernel lost some, which is said, both programs end with 1.
    let report = nanalyze(&["report", "--json"], &recorded.capture())?;
    let value: Value = serde_json::from_str(&report.stdout)?;
    let [samples, without_stack, lost] = counts_of_opens(&value)?;
    let opens = opens_of(&recorded, &path)?;
    let listed = opens.len() as u64;
    ensure!(listed + lost == HITS, "{listed} opens and {lost} lost are not {HITS}");
    ensure!(lost < HITS / 20, "{lost} of {HITS} were lost");
    ensure!(samples == listed, "{samples} samples, {listed} in the list");
    let opened = Report::parse(&report.stdout)?.opens;
    let counted: u64 = opened.iter().filter(|open| open.path == path).map(|open| open.count).sum();
    ensure!(counted == listed, "the report counts {counted} of {listed}");
    let moments: HashSet<_> = opens.iter().map(|event| (event.tid, event.time_ns)).collect();
    ensure!(moments.len() == opens.len(), "{} are there twice", opens.len() - moments.len());

    let first = opens.iter().position(|event| !has_stack(event)).context("it never became hot")?;
    ensure!(first > 0, "not even the first hit has a stack");
    let (hot, cool) = (&opens[first..], first);
    let taken = hot.iter().filter(|event| has_stack(event)).count();
    tell(&format!(
        "hot probe: {listed} hits, {lost} lost; all {cool} stacks before it was hot, then {taken} \
         of {}",
        hot.len()
    ))?;
    ensure!(hot.len() as u64 > HITS / 2, "it became hot after {cool} hits");
    ensure!(hot.len() < taken * 200 && taken * 5 < hot.len(), "{taken} stacks of {}", hot.len());
    ensure!(without_stack == (hot.len() - taken) as u64, "{without_stack} without a stack");
    let text = nanalyze(&["report"], &recorded.capture())?.stdout;
    let said = format!("stacks of {} of {samples} hits", samples - without_stack);
    ensure!(text.contains(&said), "no {said:?} in {text}");
    Ok(())
}

#[test]
fn a_slow_probe_has_a_stack_at_every_hit() -> Result<()> {
    let name = "a_slow_probe_has_a_stack_at_every_hit";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let (recorded, path) = record(&SLOW)?;
    let recorded = recorded.complete()?;
    ensure!(file_events(&recorded.capture())?.len() >= SLOW_HITS, "events are missing");
    let opens = opens_of(&recorded, &path)?;
    ensure!(opens.len() == SLOW_HITS, "{} opens", opens.len());
    let is_ours = |event: &&Event| {
        event.frames.iter().any(|frame| frame.function.as_deref() == Some("openRepeatedly"))
    };
    let whole = opens.iter().filter(is_ours).count();
    tell(&format!("slow probe: {whole} of {SLOW_HITS} hits have their whole stack"))?;
    ensure!(opens.iter().all(has_stack), "stacks were not taken");
    // Some frames of a just compiled function may have no name.
    ensure!(whole * 100 >= SLOW_HITS * 99, "only {whole} stacks reach the loop");
    let text = nanalyze(&["report"], &recorded.capture())?.stdout;
    ensure!(!text.contains("stacks of "), "{text}");
    Ok(())
}
