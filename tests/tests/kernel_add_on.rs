//! What a native add-on opens by the C library is recorded with `-e libc`, its errors with `-e syscalls` beside it: with its
//! error and the line that loaded it; and what libuv opens by the C library is told once.
//!
//! The truth is `strace`: every open below the test's folder.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use harness::binaries;
use harness::events::{Event, events_of};
use harness::kernel::take_turn;
use harness::recording::Recording;
use harness::report::Frame;
use harness::strace::Strace;
use harness::truth::{self, Open, Opens};
use harness::workload::Workload;
use serde_json::Value;

const LIBRARY: &str = "add-on.node";

fn compile(to: &Path) -> Result<()> {
    let source = binaries::repository().join("fixtures/workloads/add-on.c");
    let mut command = Command::new(binaries::require_program("cc")?);
    let status = command.args(["-shared", "-fPIC", "-o"]).arg(to).arg(source).status()?;
    ensure!(status.success(), "cc failed: {status}");
    Ok(())
}

fn text<'v>(of: &'v Value, key: &str) -> Option<&'v str> {
    of.get(key)?.as_str()
}

/// The innermost function of the workload.
fn asked(frames: &[Frame]) -> Option<&str> {
    let own = |frame: &&Frame| frame.file.as_ref().is_some_and(|file| file.ends_with("add-on.js"));
    frames.iter().find(own)?.function.as_deref()
}

fn opens(events: &[Event], folder: &Path) -> Opens {
    let is_open = |event: &&Event| matches!(text(&event.args, "operation"), Some("open" | "fopen"));
    let opens = events.iter().filter(is_open).filter_map(Event::open);
    truth::count(opens.filter(|open| truth::is_below(open, folder)))
}

/// Records the workload and compares it with strace; the system calls tell the errors.
fn check(options: &[&str], with_errors: bool) -> Result<()> {
    let folder = tempfile::tempdir()?;
    compile(&folder.path().join(LIBRARY))?;
    let mut workload = Workload::start("add-on.js", folder.path(), &["--stay"])?;
    let recording = Recording::attach(workload.pid(), options)?;
    let strace = Strace::attach(workload.pid())?;
    workload.go()?;
    workload.finish_and_stay()?;
    let log = strace.finish()?;
    let recorded = recording.stop()?.complete()?;
    let events = events_of(&recorded.capture(), "fs")?;
    // The dynamic loader opens by itself what `dlopen` is asked for.
    let traced = log.opens.iter().map(|traced| &traced.open);
    let traced =
        traced.filter(|open| truth::is_below(open, folder.path()) && !open.path.ends_with(LIBRARY));
    let without_error = |open: &Open| match (open.error.as_deref(), with_errors) {
        (Some(_), false) if open.path.ends_with("add-on.absent") => {
            Open { error: Some("UNKNOWN".to_owned()), ..open.clone() }
        }
        _ => open.clone(),
    };
    let expected = truth::count(traced.map(without_error));
    truth::compare("the recording", &expected, &opens(&events, folder.path()))?;
    let of = |operation: &str| {
        events.iter().find(|event| text(&event.args, "operation") == Some(operation))
    };
    for operation in ["dlopen", "fopen"] {
        let event = of(operation);
        assert_eq!(event.and_then(|event| asked(&event.frames)), Some("load"), "{operation}");
    }
    let absent = of("fopen").map(|event| text(&event.args, "errno_from"));
    assert_eq!(absent, Some(with_errors.then_some("syscall")));
    let loaded = of("dlopen").and_then(|event| text(&event.args, "path")).unwrap_or_default();
    assert!(loaded.ends_with(LIBRARY), "{loaded}");
    Ok(())
}

#[test]
fn what_an_add_on_opens_is_recorded() -> Result<()> {
    let name = "what_an_add_on_opens_is_recorded";
    let Some(_turn) = take_turn(name, &["node", "strace", "cc"])? else { return Ok(()) };
    check(&["-e", "fs", "-e", "libc"], false)
}

#[test]
fn what_an_add_on_opens_has_its_error_from_the_system_calls() -> Result<()> {
    let name = "what_an_add_on_opens_has_its_error_from_the_system_calls";
    let Some(_turn) = take_turn(name, &["node", "strace", "cc"])? else { return Ok(()) };
    check(&["-e", "syscalls", "-e", "libc"], true)
}
