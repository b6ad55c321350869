//! Every open is in the report, with the same path and result, and none is invented.
//!
//! The truth is what `strace` saw at the same time on the same process, or the workload's own log.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use harness::binaries::{fixture, require_program};
use harness::command::run;
use harness::events::{file_events, open_counts_below};
use harness::kernel::take_turn;
use harness::recording::{Recorded, Recording, record_command};
use harness::report::Report;
use harness::strace::Strace;
use harness::strace_log::TracedOpen;
use harness::truth::{Opens, compare, count, is_below, said_opens};
use harness::workload::{Workload, node_command};
use serde_json::Value;

fn check_below(folder: &Path, truth: &Opens, recorded: &Recorded) -> Result<()> {
    let capture = recorded.capture();
    compare("the report", truth, &Report::of(&capture)?.open_counts_below(folder))?;
    compare("the list of events", truth, &open_counts_below(&file_events(&capture)?, folder))
}

fn record_attached(workload: &str, folder: &Path) -> Result<(Recorded, Vec<Value>)> {
    let mut workload = Workload::start(workload, folder, &[])?;
    let recording = Recording::attach(workload.pid(), &["-e", "fs"])?;
    workload.go()?;
    let said = workload.finish()?;
    Ok((recording.stop()?.complete()?, said))
}

fn record_launched(workload: &str, folder: &Path) -> Result<(Recorded, Vec<Value>)> {
    let (recorded, said) = record_command(&["-e", "fs"], &node_command(workload, folder))?;
    Ok((recorded.complete()?, said))
}

#[test]
fn opens_of_every_kind_are_those_that_strace_sees() -> Result<()> {
    let name = "opens_of_every_kind_are_those_that_strace_sees";
    let Some(_turn) = take_turn(name, &["node", "strace"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start("opens-mixed.js", folder.path(), &[])?;
    let strace = Strace::attach(workload.pid())?;
    let recording = Recording::attach(workload.pid(), &["-e", "fs"])?;
    workload.go()?;
    let said = workload.finish()?;
    let recorded = recording.stop()?.complete()?;
    let traced = strace.finish()?.opens.into_iter().map(|traced| traced.open);
    let truth = count(traced.filter(|open| is_below(open, folder.path())));
    compare("strace", &said_opens(&said), &truth)?;
    check_below(folder.path(), &truth, &recorded)
}

#[test]
fn opens_of_the_application_are_those_that_strace_sees() -> Result<()> {
    let name = "opens_of_the_application_are_those_that_strace_sees";
    let Some(_turn) = take_turn(name, &["node", "strace"])? else { return Ok(()) };
    let (mut application, port) = Workload::start_application()?;
    let strace = Strace::attach(application.pid())?;
    let recording = Recording::attach(application.pid(), &["-e", "fs"])?;
    let traffic = fixture("app/traffic.js");
    let words = [traffic.to_string_lossy().into_owned(), port.to_string(), "100".to_owned()];
    run(Command::new(require_program("node")?).args(words))?.expect_code(0)?;
    application.terminate()?;
    let recorded = recording.stop()?.complete()?;
    let traced = strace.finish()?.opens;
    let truth = count(traced.into_iter().filter(TracedOpen::is_libuvs).map(|open| open.open));
    let settings = truth.iter().filter(|(open, _)| open.path.ends_with("settings.json"));
    assert_eq!(settings.map(|(_, times)| times).sum::<u64>(), 20, "one for each /settings");
    compare("the report", &truth, &Report::of(&recorded.capture())?.open_counts())?;
    let events = open_counts_below(&file_events(&recorded.capture())?, Path::new("/"));
    compare("the list of events", &truth, &events)
}

#[test]
fn worker_threads_of_an_attached_process_are_followed() -> Result<()> {
    let name = "worker_threads_of_an_attached_process_are_followed";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let (recorded, said) = record_attached("workers.js", folder.path())?;
    check_below(folder.path(), &said_opens(&said), &recorded)
}

#[test]
fn worker_threads_of_a_launched_process_are_followed() -> Result<()> {
    let name = "worker_threads_of_a_launched_process_are_followed";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let (recorded, said) = record_launched("workers.js", folder.path())?;
    check_below(folder.path(), &said_opens(&said), &recorded)
}

#[test]
fn children_and_grandchildren_of_an_attached_process_are_followed() -> Result<()> {
    let name = "children_and_grandchildren_of_an_attached_process_are_followed";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let (recorded, said) = record_attached("children.js", folder.path())?;
    check_children(folder.path(), &said, &recorded)
}

#[test]
fn children_and_grandchildren_of_a_launched_process_are_followed() -> Result<()> {
    let name = "children_and_grandchildren_of_a_launched_process_are_followed";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let (recorded, said) = record_launched("children.js", folder.path())?;
    check_children(folder.path(), &said, &recorded)
}

fn check_children(folder: &Path, said: &[Value], recorded: &Recorded) -> Result<()> {
    check_below(folder, &said_opens(said), recorded)?;
    let report = Report::of(&recorded.capture())?;
    let events = file_events(&recorded.capture())?;
    for record in said.iter().filter(|record| record.get("open").is_some()) {
        let pid = record["pid"].as_u64();
        let listed = report.capture.processes.iter().any(|process| Some(process.pid) == pid);
        assert!(listed, "process {pid:?} is not in the report");
        let has_path = |path: &Value| record.get("open") == Some(path);
        let event = events.iter().find(|event| event.args.get("path").is_some_and(has_path));
        assert_eq!(event.map(|event| event.pid), pid, "who opened {}", record["open"]);
    }
    Ok(())
}

#[test]
fn a_process_that_ends_at_once_is_recorded() -> Result<()> {
    let name = "a_process_that_ends_at_once_is_recorded";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let (recorded, said) = record_launched("short-lived.js", folder.path())?;
    check_below(folder.path(), &said_opens(&said), &recorded)
}

#[test]
fn files_that_are_loaded_as_modules_are_opens_too() -> Result<()> {
    let name = "files_that_are_loaded_as_modules_are_opens_too";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let (recorded, said) = record_launched("startup-require.js", folder.path())?;
    let truth = said_opens(&said);
    // The loader also looks for a package.json beside the modules; the workload does not know that.
    let mut seen = Report::of(&recorded.capture())?.open_counts();
    seen.retain(|open, _| truth.keys().any(|true_open| true_open.path == open.path));
    compare("the report", &truth, &seen)
}

#[test]
fn without_children_the_threads_are_still_followed() -> Result<()> {
    let name = "without_children_the_threads_are_still_followed";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let options = ["-e", "fs", "--no-inherit"];
    let folder = tempfile::tempdir()?;
    let workers = node_command("workers.js", folder.path());
    let (recorded, said) = record_command(&options, &workers)?;
    check_below(folder.path(), &said_opens(&said), &recorded.complete()?)?;

    // Attached: threads that begin while recording.
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start("workers.js", folder.path(), &[])?;
    let recording = Recording::attach(workload.pid(), &options)?;
    workload.go()?;
    let said = workload.finish()?;
    check_below(folder.path(), &said_opens(&said), &recording.stop()?.complete()?)?;

    let folder = tempfile::tempdir()?;
    let family = node_command("children.js", folder.path());
    let (recorded, said) = record_command(&options, &family)?;
    let parent = said.iter().find_map(|record| record.get("ready")?.as_u64());
    let own = |record: &&Value| record.get("pid").and_then(Value::as_u64) == parent;
    let own: Vec<Value> = said.iter().filter(own).cloned().collect();
    assert!(!own.is_empty() && own.len() < said.len(), "the parent and its children open files");
    check_below(folder.path(), &said_opens(&own), &recorded.complete()?)
}
