//! Each way to call each file function of Node, in each version of it: the operations, their paths, how
//! they ended and the function that asked are right, or listed in docs/file-operations.md as not to be
//! known; and each stack is the target's own `Error().stack`, with lines and columns.
//!
//! The truth is the workload's: its data, its log, and the call sites that V8 told it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use harness::binaries;
use harness::events::events_of;
use harness::kernel::{take_turn, tell};
use harness::matrix::{self, Cell};
use harness::nodes;
use harness::recording::Recording;
use harness::report::nanalyze;
use harness::workload::Workload;
use serde_json::Value;

const SCRIPT: &str = "file-matrix.js";
/// Node keeps 16 KiB of buffers on the stack for `readv` and `writev` (src/node_file.cc, `ReadBuffers`),
/// as much as is copied by default.
///
/// Each sample is so large then that on a busy machine a ring of the usual size may be half full before it is
/// read; what is hit most then goes without stacks for a while.
const WHOLE_STACKS: [&str; 4] = ["--stack-size", "32k", "--buffer-size", "64m"];

/// Records the workload once, and compares all of it.
fn check(node: &Path, told: &str, options: &[&str]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start_with(node, SCRIPT, folder.path(), &[])?;
    let recording = Recording::attach(workload.pid(), options)?;
    workload.go()?;
    let said = workload.finish()?;
    let recorded = recording.stop()?.complete()?;
    let cells = matrix::read_log(&said)?;
    let figures = matrix::compare(&cells, &events_of(&recorded.capture(), "fs")?, folder.path());
    tell(&format!("{told}: {figures}"))?;
    ensure!(figures.differences.is_empty(), "{}", figures.differences);
    ensure!(figures.right + figures.listed > 250, "only {figures}");
    ensure!(figures.asynchronous_stacks > 350, "only {figures}");
    ensure!(figures.less * 50 < figures.asynchronous_stacks, "too much was moved: {figures}");
    check_report(&cells, &recorded.capture(), folder.path())
}

/// The report's table of operations counts the same.
fn check_report(cells: &[Cell], capture: &Path, folder: &Path) -> Result<()> {
    let report = nanalyze(&["report", "--json"], capture)?.expect_code(0)?;
    let report: Value = serde_json::from_str(&report.stdout)?;
    harness::schema::check_report(&report)?;
    let rows = report["operations"].as_array().context("the report has no operations")?;
    let mut seen = BTreeMap::new();
    for row in rows {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| row[name].as_u64().unwrap_or_default() as usize;
        let key = (text("operation"), text("path"), text("new_path"));
        seen.insert(key, (number("count"), number("failed")));
    }
    for (key, (least, most, failed)) in matrix::counts(cells) {
        let row = seen.remove(&key);
        let is_right = row
            .is_some_and(|(count, failures)| (least..=most).contains(&count) && failures == failed);
        ensure!(is_right || (least == 0 && row.is_none()), "{key:?} is told as {row:?}");
    }
    seen.retain(|(_, path, _), _| matrix::is_of_call(path, folder));
    ensure!(seen.is_empty(), "told without a call: {seen:?}");
    Ok(())
}

fn check_version(name: &str, version: u32) -> Result<()> {
    let Some((_turn, node)) = nodes::take_turn_with(name, version, &[])? else { return Ok(()) };
    check(&node, &format!("Node {version}"), &[&["-e", "fs"], &WHOLE_STACKS[..]].concat())
}

#[test]
fn every_call_of_node_16_is_right_or_listed() -> Result<()> {
    check_version("every_call_of_node_16_is_right_or_listed", 16)
}

#[test]
fn every_call_of_node_18_is_right_or_listed() -> Result<()> {
    check_version("every_call_of_node_18_is_right_or_listed", 18)
}

#[test]
fn every_call_of_node_20_is_right_or_listed() -> Result<()> {
    check_version("every_call_of_node_20_is_right_or_listed", 20)
}

#[test]
fn every_call_of_node_22_is_right_or_listed() -> Result<()> {
    check_version("every_call_of_node_22_is_right_or_listed", 22)
}

#[test]
fn every_call_of_node_24_is_right_or_listed() -> Result<()> {
    check_version("every_call_of_node_24_is_right_or_listed", 24)
}

#[test]
fn every_call_of_node_26_is_right_or_listed() -> Result<()> {
    check_version("every_call_of_node_26_is_right_or_listed", 26)
}

#[test]
fn time_samples_beside_them_change_nothing() -> Result<()> {
    let name = "time_samples_beside_them_change_nothing";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let node = binaries::require_program("node")?;
    let options = [&["-e", "cpu", "-e", "fs"], &WHOLE_STACKS[..]].concat();
    check(&node, "the machine's Node, with -e cpu", &options)
}
