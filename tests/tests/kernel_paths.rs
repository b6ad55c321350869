//! Paths that try to break what reads, keeps or prints them are recorded as they were given, byte by byte,
//! or it is said that they are cut; and many of them do not make the recorder grow.
//!
//! The truth is the workload's own log, which has them as hexadecimal bytes.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use harness::binaries;
use harness::command::run;
use harness::events::{Event, events_of};
use harness::kernel::{take_turn, tell};
use harness::recording::{Recording, record_command};
use harness::report::{Report, nanalyze};
use harness::workload::Workload;
use serde_json::Value;

/// Follows what was cut.
const CUT: &str = "\u{2026}";

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    hex.as_bytes().chunks(2).filter_map(digits).collect()
}

/// The bytes of an event's path; `None` where it could not be read.
fn path_of(event: &Event) -> Option<Vec<u8>> {
    let text = |key: &str| event.args.get(key).and_then(Value::as_str);
    text("path_bytes").map(bytes_of).or_else(|| Some(text("path")?.as_bytes().to_vec()))
}

#[test]
fn hostile_paths_are_recorded_byte_by_byte() -> Result<()> {
    let name = "hostile_paths_are_recorded_byte_by_byte";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start("paths.js", folder.path(), &[])?;
    let recording = Recording::attach(workload.pid(), &["-e", "fs"])?;
    workload.go()?;
    let said = workload.finish()?;
    let recorded = recording.stop()?.complete()?;
    let events = events_of(&recorded.capture(), "fs")?;
    let of = |name: &str| -> Vec<&Event> {
        let is_of = |event: &&Event| event.args.get("operation") == Some(&Value::from(name));
        events.iter().filter(is_of).collect()
    };
    let (mut opens, mut stats) = (of("open").into_iter(), of("stat").into_iter());
    let mut compared = 0;
    for call in said.iter().filter(|call| call.get("label").is_some()) {
        let label = call["label"].as_str().unwrap_or_default();
        let events = if label.ends_with(" by stat") { &mut stats } else { &mut opens };
        let event = events.next().with_context(|| format!("{label} was not recorded"))?;
        assert_eq!(call.get("error"), event.args.get("errno"), "{label}");
        let given = bytes_of(call["path"].as_str().unwrap_or_default());
        match path_of(event) {
            // More than the system takes.
            None => assert!(given.len() > 4095, "{label}: {} bytes are missing", given.len()),
            Some(seen) if seen.ends_with(CUT.as_bytes()) => {
                let kept = &seen[..seen.len() - CUT.len()];
                assert!(given.starts_with(kept), "{label} is another path");
                assert!((3900..4095).contains(&kept.len()), "{label}: {} bytes", kept.len());
            }
            Some(seen) => assert_eq!(seen, given, "{label}"),
        }
        compared += 1;
    }
    assert_eq!(compared, 26);
    assert!(opens.next().is_none() && stats.next().is_none(), "an operation was invented");
    let report = Report::of(&recorded.capture())?;
    let cut = report.remarks.iter().find(|remark| remark.code == "strings-cut");
    // Opened, looked at and asked for.
    assert_eq!(cut.map(|remark| remark.count), Some(3), "{:?}", report.remarks);

    for words in [&["report"][..], &["events", "--stacks"], &["report", "--failed"]] {
        let shown = nanalyze(words, &recorded.capture())?.expect_code(0)?.stdout;
        let hostile = |c: char| {
            (c.is_control() && c != '\n')
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200b}')
        };
        let found = shown.lines().find(|line| line.contains(hostile));
        assert_eq!(found, None, "{words:?}");
        assert!(
            !shown.lines().any(|line| line.starts_with("{\"event\"")),
            "{words:?}: a forged line"
        );
    }
    Ok(())
}

/// The most memory that a process has had, KiB (proc(5), `VmHWM`).
fn most_memory(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next()).context("no VmHWM")?;
    Ok(number.parse()?)
}

/// Records so many opens, each of another path; gives the recorder's memory and the paths seen.
fn record_many(many: u64) -> Result<(u64, u64)> {
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start("paths.js", folder.path(), &[&format!("many={many}")])?;
    let recording = Recording::attach(workload.pid(), &["-e", "fs"])?;
    workload.go()?;
    workload.wait_done()?;
    let memory = most_memory(recording.pid())?;
    workload.finish()?;
    let recorded = recording.stop()?;
    let mut paths: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for event in events_of(&recorded.complete()?.capture(), "fs")? {
        if event.args.get("operation") == Some(&Value::from("open"))
            && let Some(path) = path_of(&event)
        {
            *paths.entry(path).or_default() += 1;
        }
    }
    Ok((memory, paths.len() as u64))
}

#[test]
fn many_paths_do_not_make_the_recorder_grow() -> Result<()> {
    let name = "many_paths_do_not_make_the_recorder_grow";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    const MANY: u64 = 120_000;
    let (few, one) = record_many(1)?;
    let (many, seen) = record_many(MANY)?;
    ensure!(one == 1 && seen == MANY, "{seen} of {MANY} paths were recorded");
    tell(&format!(
        "recorder's memory: {few} KiB at 1 path, {many} KiB at {MANY} paths of 80 bytes"
    ))?;
    // Tables of 4 MiB of strings, rings that are read, a chunk that is compressed.
    assert!(many < few + (96 << 10), "it grew from {few} to {many} KiB");
    Ok(())
}

#[test]
fn a_path_in_memory_that_nobody_touched_is_read() -> Result<()> {
    let name = "a_path_in_memory_that_nobody_touched_is_read";
    let Some(_turn) = take_turn(name, &["cc"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("cold-path");
    let source = binaries::repository().join("fixtures/workloads/cold-path.c");
    let mut compiler = Command::new(binaries::require_program("cc")?);
    run(compiler.arg("-o").arg(&program).arg(source))?.expect_code(0)?;
    let path = folder.path().join("absent/file");
    let text = folder.path().join("text");
    fs::write(&text, format!("{}\0", path.display()))?;
    let mut command = Command::new(&program);
    command.arg(&text);
    let (recorded, said) = record_command(&["-e", "libc"], &command)?;
    let recorded = recorded.complete()?;
    let events = events_of(&recorded.capture(), "fs")?;
    let wanted = path.to_string_lossy();
    let event = events
        .iter()
        .find(|event| event.args.get("path").and_then(Value::as_str) == Some(&*wanted))
        .with_context(|| format!("{wanted} is not among {events:?}"))?;
    assert_eq!(said.first().map(|said| &said["errno"]), Some(&Value::from(2)));
    assert_eq!(event.args.get("operation"), Some(&Value::from("open")));
    let given = events.iter().any(|event| {
        event.args.get("path").and_then(Value::as_str) == Some(&*text.to_string_lossy())
    });
    assert!(given, "the program's own file is missing");
    Ok(())
}
