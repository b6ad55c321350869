//! What Node does to files without libuv's file functions is recorded: once for each call, with its
//! path, its error and the function that asked; relative paths have their folder, and a file that was
//! open before the recording has its path.
//!
//! The truth is the workload's own log: the errors that Node threw, and `process.cwd()`.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use harness::events::{Event, events_of};
use harness::kernel::tell;
use harness::nodes;
use harness::recording::Recording;
use harness::report::{Frame, nanalyze};
use harness::workload::Workload;
use serde_json::Value;

const SCRIPT: &str = "outside.js";

/// What a call of the workload is recorded as; `None` where JavaScript does by libuv what C++ does from
/// Node 22 and 24 on.
fn operation(call: &str, version: u32) -> Option<&'static str> {
    let from = |first: u32, name| (version >= first).then_some(name);
    match call {
        "writeBefore" => Some("write"),
        "copyTree" | "copyOver" => from(22, "copy_file"),
        "removeTree" | "removeRefused" => from(24, "remove_all"),
        "removeFile" => from(24, "remove"),
        "enter" | "enterAbsent" | "leave" => Some("chdir"),
        "readBelow" | "readAgain" => Some("open"),
        "watchFolder" | "watchAbsent" => Some("watch"),
        "pollFile" => Some("watchFile"),
        "loadAbsent" => Some("dlopen"),
        _ => None,
    }
}

/// The innermost function of the workload.
fn asked(frames: &[Frame]) -> Option<&str> {
    let own = |frame: &&Frame| frame.file.as_ref().is_some_and(|file| file.ends_with(SCRIPT));
    frames.iter().find(own)?.function.as_deref()
}

fn text<'v>(of: &'v Value, key: &str) -> Option<&'v str> {
    of.get(key)?.as_str()
}

/// The events of one call.
fn events_of_call<'e>(said: &Value, version: u32, events: &'e [Event]) -> Vec<&'e Event> {
    let call = text(said, "call").unwrap_or_default();
    let path = text(said, "path").or(text(said, "open"));
    let fits = |event: &&Event| {
        text(&event.args, "operation") == operation(call, version)
            && text(&event.args, "path") == path
            && (said.get("new_path").is_none()
                || said.get("new_path") == event.args.get("new_path"))
            && asked(&event.frames) == Some(call)
    };
    events.iter().filter(fits).collect()
}

fn without_steps_back(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        match name {
            "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

/// What differs between a call and its event.
fn differences(said: &Value, event: &Event) -> Vec<String> {
    let mut wrong = Vec::new();
    let errno = text(&event.args, "errno");
    let errors: Vec<&str> =
        said["errors"].as_array().into_iter().flatten().flat_map(Value::as_str).collect();
    if errno.is_some_and(|errno| !errors.contains(&errno)) || errno.is_none() != errors.is_empty() {
        wrong.push(format!("error: {errors:?} was seen as {errno:?}"));
    }
    // No folder of the workload is a link, so that `..` can be taken back.
    let resolved = text(&event.args, "resolved").map(without_steps_back);
    if text(said, "resolved") != resolved.as_deref() {
        wrong.push(format!("folder: {resolved:?} was seen"));
    }
    let from = said.get("open").map(|_| "proc");
    if text(&event.args, "path_from") != from {
        wrong.push(format!("path from {:?}", event.args.get("path_from")));
    }
    if event.args.get("latency_ns").is_none() {
        wrong.push("no latency".to_owned());
    }
    wrong
}

fn check(name: &str, version: u32) -> Result<()> {
    let Some((_turn, node)) = nodes::take_turn_with(name, version, &[])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start_with(&node, SCRIPT, folder.path(), &["--stay"])?;
    let recording = Recording::attach(workload.pid(), &["-e", "fs"])?;
    workload.go()?;
    let said = workload.finish_and_stay()?;
    let recorded = recording.stop()?.complete()?;
    let events = events_of(&recorded.capture(), "fs")?;

    let (mut told, mut calls) = (String::new(), 0);
    for said in said.iter().filter(|said| said.get("call").is_some()) {
        if operation(text(said, "call").unwrap_or_default(), version).is_none() {
            continue;
        }
        calls += 1;
        match events_of_call(said, version, &events).as_slice() {
            [one] => {
                for wrong in differences(said, one) {
                    writeln!(told, "{wrong}: {said}")?;
                }
            }
            others => writeln!(told, "{} times: {said}", others.len())?,
        }
    }
    assert!(told.is_empty(), "of {calls} calls of Node {version}:\n{told}");
    assert!(calls >= 10, "the workload made {calls} calls");
    // The steps of a call are no operations of their own.
    let steps =
        events.iter().filter(|event| text(&event.args, "operation") == Some("create_directory"));
    let made = steps.filter(|event| text(&event.args, "path") == Some("copy"));
    assert_eq!(made.count(), 0, "create_directories is told twice");
    check_globs(&recorded.capture(), folder.path())?;
    tell(&format!("Node {version}: {calls} calls without uv_fs_*, or on what was there before"))
}

/// `--path` finds a relative path by either form.
fn check_globs(capture: &Path, folder: &Path) -> Result<()> {
    let real = folder.canonicalize()?;
    for glob in ["tree", &format!("{}/tree", real.display())] {
        let outcome = nanalyze(&["events", "-e", "fs", "--json", "--path", glob], capture)?;
        let outcome = outcome.expect_code(0)?;
        let is_chdir =
            |line: &str| line.contains("\"chdir\"") && line.contains("\"path\":\"tree\"");
        outcome
            .stdout
            .lines()
            .find(|line| is_chdir(line))
            .with_context(|| format!("no chdir to a path that fits {glob}:\n{}", outcome.stdout))?;
    }
    Ok(())
}

#[test]
fn node_16_without_libuv() -> Result<()> {
    check("node_16_without_libuv", 16)
}

#[test]
fn node_18_without_libuv() -> Result<()> {
    check("node_18_without_libuv", 18)
}

#[test]
fn node_20_without_libuv() -> Result<()> {
    check("node_20_without_libuv", 20)
}

#[test]
fn node_22_without_libuv() -> Result<()> {
    check("node_22_without_libuv", 22)
}

#[test]
fn node_24_without_libuv() -> Result<()> {
    check("node_24_without_libuv", 24)
}

#[test]
fn node_26_without_libuv() -> Result<()> {
    check("node_26_without_libuv", 26)
}
