//! Without any flag: at a probe, the stack that the recorder reads from V8's heap is the one that the
//! target itself logs just before, in each version of Node.js and in Debian's.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use harness::binaries::fixture;
use harness::call_sites::{Figures, compare, read_log};
use harness::events::{Event, parse_events};
use harness::foreign::debian_turn;
use harness::kernel::tell;
use harness::nodes;
use harness::recording::Recording;
use harness::report::nanalyze;
use harness::workload::Workload;

/// Stacks in each run. Each fourteenth chance is logged: the load runs as long as one of twice as many
/// stacks, so that much of it is compiled, inlined and collected.
const STACKS: &str = "1500";
const EVERY: &str = "14";
/// Against a load that does not end.
const SECONDS: &str = "60";
/// The deepest stacks of the load; what is not copied cannot be named.
const STACK_SIZE: &str = "--stack-size=32k";

// `start` gets the words for Node; `probed` is the file that has uv_uptime.
fn compare_with_log(start: impl FnOnce(&[String]) -> Command, probed: &str) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    let script = fixture("v8-truth/truth.js").to_string_lossy().into_owned();
    let log_name = log.to_string_lossy().into_owned();
    let words = [script, log_name, SECONDS.to_owned(), EVERY.to_owned(), STACKS.to_owned()];
    let mut workload = Workload::start_plain(&mut start(&words))?;
    let event = format!("uprobe:{probed}:uv_uptime");
    let recording = Recording::attach(workload.pid(), &["-e", &event, STACK_SIZE])?;
    workload.go()?;
    let done = workload.wait_line()?;
    assert!(workload.wait_end()?.success(), "{done}");
    let recorded = recording.stop()?.complete()?;
    let events = probe_events(&recorded.capture())?;
    let log = read_log(&fs::read_to_string(&log)?)?;
    assert!(log.len() >= 1000, "the load logged only {} stacks", log.len());
    assert_eq!(log.len(), events.len(), "logs and hits");
    Ok(compare(&log, &events))
}

fn probe_events(capture: &Path) -> Result<Vec<Event>> {
    let outcome = nanalyze(&["events", "--json", "--stacks"], capture)?.expect_code(0)?;
    parse_events(&outcome.stdout)
}

// `lines`: percent of the lines that are right at least.
fn check(what: &str, figures: &Figures, lines: f64) -> Result<()> {
    tell(&format!("{what}: {figures}"))?;
    let examples = figures.examples.join("\n  ");
    assert_eq!(figures.wrong, 0, "{what}: {figures}\n  {examples}");
    assert!(figures.right_percent() >= 99.9, "{what}: {figures}\n  {examples}");
    assert!(figures.whole_percent() >= 99.5, "{what}: {figures}\n  {examples}");
    assert!(figures.line_percent() >= lines, "{what}: {figures}\n  {examples}");
    Ok(())
}

fn check_version(name: &str, version: u32, lines: f64) -> Result<()> {
    let Some((_turn, node)) = nodes::take_turn_with(name, version, &[])? else { return Ok(()) };
    let figures = compare_with_log(
        |words| {
            let mut command = Command::new(&node);
            command.args(words);
            command
        },
        "node",
    )?;
    check(&format!("Node {version}"), &figures, lines)
}

#[test]
fn stacks_of_node_16_are_those_that_it_logs() -> Result<()> {
    check_version("stacks_of_node_16_are_those_that_it_logs", 16, 100.0)
}

#[test]
fn stacks_of_node_18_are_those_that_it_logs() -> Result<()> {
    check_version("stacks_of_node_18_are_those_that_it_logs", 18, 100.0)
}

#[test]
fn stacks_of_node_20_are_those_that_it_logs() -> Result<()> {
    check_version("stacks_of_node_20_are_those_that_it_logs", 20, 100.0)
}

#[test]
fn stacks_of_node_22_are_those_that_it_logs() -> Result<()> {
    check_version("stacks_of_node_22_are_those_that_it_logs", 22, 100.0)
}

// Maglev's position tables leave places out from V8 13 on: docs/decisions/0004.
#[test]
fn stacks_of_node_24_are_those_that_it_logs() -> Result<()> {
    check_version("stacks_of_node_24_are_those_that_it_logs", 24, 97.0)
}

#[test]
fn stacks_of_node_26_are_those_that_it_logs() -> Result<()> {
    check_version("stacks_of_node_26_are_those_that_it_logs", 26, 97.0)
}

#[test]
fn stacks_of_debians_node_are_those_that_it_logs() -> Result<()> {
    let name = "stacks_of_debians_node_are_those_that_it_logs";
    let Some((_turn, node)) = debian_turn(name)? else { return Ok(()) };
    let libuv = node.libuv();
    let libuv = libuv.to_str().context("the path of libuv is not UTF-8")?;
    let figures = compare_with_log(|words| node.command(words), libuv)?;
    check("Debian's Node 18", &figures, 100.0)
}
