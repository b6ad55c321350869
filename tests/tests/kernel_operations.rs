//! Every file operation is in the list of events and in the report, with its path, its result and the
//! function that asked for it, and none is invented.
//!
//! The truth is the workload's own log: what it called, from where, and how that ended.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use harness::events::{Event, events_of};
use harness::kernel::take_turn;
use harness::recording::Recording;
use harness::report::{Frame, nanalyze};
use harness::workload::Workload;
use serde_json::Value;

const SCRIPT: &str = "file-operations.js";

/// An operation with its paths, as a key.
type Key = (String, String, String);

fn key(of: &Value) -> Option<Key> {
    let text = |name: &str| Some(of.get(name)?.as_str()?.to_owned());
    Some((text("operation")?, text("path")?, text("new_path").unwrap_or_default()))
}

/// The innermost function of the workload.
fn asked(frames: &[Frame]) -> Option<&str> {
    let own = |frame: &&Frame| frame.file.as_ref().is_some_and(|file| file.ends_with(SCRIPT));
    frames.iter().find(own)?.function.as_deref()
}

/// Whether a stack says that it ends before the function: Node keeps 16 KiB of buffers on the stack
/// for these calls (src/node_file.cc, `ReadBuffers`, `WriteBuffers`), as much as is copied by default.
fn is_cut(function: &str, frames: &[Frame]) -> bool {
    let cut = |frame: &Frame| frame.unresolved.as_deref() == Some("stack-cut");
    (function.starts_with("readv") || function.starts_with("writev")) && frames.iter().any(cut)
}

/// What differs between a call and its event.
fn difference(said: &Value, event: &Event, with_cuts: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut compare = |what: &str, truth: Option<&Value>, seen: Option<&Value>| {
        if truth != seen {
            wrong.push(format!("{what}: {truth:?} was seen as {seen:?}"));
        }
    };
    compare("error", said.get("error"), event.args.get("errno"));
    let is_async = Value::from(said["how"] != "sync");
    compare("async", Some(&is_async), event.args.get("async"));
    if said.get("bytes").is_some() {
        compare("bytes", said.get("bytes"), event.args.get("bytes"));
    }
    if said.get("error").is_none() && event.args.get("result").is_none() {
        wrong.push("no result".to_owned());
    }
    if event.args.get("latency_ns").and_then(Value::as_u64).is_none() {
        wrong.push("no latency".to_owned());
    }
    if let Some(function) = said.get("function").and_then(Value::as_str)
        && asked(&event.frames) != Some(function)
        && !(with_cuts && is_cut(function, &event.frames))
    {
        wrong.push(format!("{function} asked, seen is {:?}", asked(&event.frames)));
    }
    wrong
}

/// Runs the workload under a recording and compares every cell; `with_cuts` lets stacks be too long for
/// what is copied of them.
fn check(options: &[&str], with_cuts: bool) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start(SCRIPT, folder.path(), &[])?;
    let recording = Recording::attach(workload.pid(), options)?;
    workload.go()?;
    let said = workload.finish()?;
    let recorded = recording.stop()?.complete()?;
    let events = events_of(&recorded.capture(), "fs")?;

    let mut by_key: BTreeMap<Key, Vec<&Event>> = BTreeMap::new();
    for event in &events {
        let Some(key) = key(&event.args) else { continue };
        if Path::new(&key.1).starts_with(folder.path()) {
            by_key.entry(key).or_default().push(event);
        }
    }
    let (mut told, mut calls) = (String::new(), 0);
    let mut counts: BTreeMap<Key, (u64, u64)> = BTreeMap::new();
    for call in &said {
        let Some(key) = key(call) else { continue };
        calls += 1;
        // The buffer of `readFile` may need a second read to see the end.
        let many = key.0 == "read" && call.get("bytes").is_none();
        match by_key.remove(&key).as_deref() {
            None => writeln!(told, "missing: {call}")?,
            Some(seen) if seen.len() > 1 && !many => {
                writeln!(told, "{} times: {call}", seen.len())?;
            }
            Some(seen) => {
                for difference in seen
                    .first()
                    .map(|event| difference(call, event, with_cuts))
                    .into_iter()
                    .flatten()
                {
                    writeln!(told, "{difference}: {call}")?;
                }
                let failed = u64::from(call.get("error").is_some());
                counts.insert(key, (seen.len() as u64, failed));
            }
        }
    }
    for key in by_key.keys() {
        writeln!(told, "invented: {key:?}")?;
    }
    assert!(calls > 200, "the workload made {calls} calls");
    assert!(told.is_empty(), "of {calls} operations:\n{told}");

    let report = nanalyze(&["report", "--json"], &recorded.capture())?.expect_code(0)?;
    let report: Value = serde_json::from_str(&report.stdout)?;
    harness::schema::check_report(&report)?;
    let rows = report["operations"].as_array().cloned().unwrap_or_default();
    let mut seen: BTreeMap<Key, (u64, u64)> = BTreeMap::new();
    for row in &rows {
        let Some(key) = key(row) else { continue };
        if Path::new(&key.1).starts_with(folder.path()) {
            let number = |name: &str| row[name].as_u64().unwrap_or_default();
            seen.insert(key, (number("count"), number("failed")));
        }
    }
    assert_eq!(seen, counts, "the report's operations");
    Ok(())
}

#[test]
fn operations_of_every_kind_are_those_that_were_called() -> Result<()> {
    let name = "operations_of_every_kind_are_those_that_were_called";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    check(&["-e", "fs"], true)
}

#[test]
fn operations_beside_time_samples_have_the_longest_stacks_too() -> Result<()> {
    let name = "operations_beside_time_samples_have_the_longest_stacks_too";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    check(&["-e", "cpu", "-e", "fs", "--stack-size", "32k"], false)
}
