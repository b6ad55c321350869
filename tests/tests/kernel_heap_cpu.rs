//! Time samples without any flag: how many JavaScript frames have no name, for programs as they are
//! used. With flags: whether the names are those of V8's own perf map.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::binaries::{self, fixture};
use harness::command::run;
use harness::kernel::tell;
use harness::nodes;
use harness::recording::{Recorded, Recording, record_command};
use harness::report::{Report, nanalyze};
use harness::workload::Workload;

/// Frames without a name, percent at most, but for those that were moved before they were read: of
/// a process that has run for a while.
const STEADY: f64 = 0.1;
/// Of one from its first instruction to its last. Most of it are outermost frames of stacks that are
/// longer than what is copied.
const BEGINNING: f64 = 1.0;
/// Frames that were moved, percent at most: many on a busy machine, where the recorder comes late.
const MOVED: f64 = 5.0;

const OPTIONS: [&str; 4] = ["-e", "cpu", "-F", "999"];

// `most`: percent of nameless frames at most. A process that ends within the recording loses the names
// of what was not yet read: that is some tens of milliseconds.
fn check(what: &str, recorded: &Recorded, most: f64) -> Result<()> {
    // On a busy machine a recorder that launches its target may come too late for a second.
    let outcome = nanalyze(&["report", "--json"], &recorded.capture())?;
    let report = Report::parse(&outcome.stdout)?;
    let (lost, events) = (report.capture.lost, report.capture.events);
    ensure!(lost * 2 < events, "{lost} lost, {events} recorded: {}", recorded.outcome.stderr);
    let frames = &report.stacks.js_frames;
    let ended = report.unresolved("process-ended");
    let reasons = report.stacks.unresolved.iter();
    let reasons: Vec<_> =
        reasons.map(|entry| format!("{} {}", entry.reason, entry.frames)).collect();
    let moved = report.js_percent("js-moved");
    let percent = report.nameless_percent() - moved;
    tell(&format!(
        "{what}: {events} samples, {lost} lost, {} JavaScript frames, {percent:.3} % nameless and {moved:.3} % \
         moved; {}",
        frames.total,
        reasons.join(", ")
    ))?;
    ensure!(frames.total > 500, "only {} JavaScript frames", frames.total);
    ensure!(moved <= MOVED, "{moved} % of the JavaScript frames were moved: {reasons:?}");
    ensure!(percent <= most, "{percent} % of the JavaScript frames have no name: {reasons:?}");
    ensure!(ended * 20 <= frames.total, "{ended} of {} frames are lost at the end", frames.total);
    Ok(())
}

fn workers(name: &str, version: u32) -> Result<()> {
    let Some((_turn, node)) = nodes::take_turn_with(name, version, &[])? else { return Ok(()) };
    let mut command = Command::new(&node);
    let workload = Workload::start_plain(command.arg(fixture("v8-truth/worker.js")))?;
    std::thread::sleep(Duration::from_secs(1));
    let recording = Recording::attach(workload.pid(), &OPTIONS)?;
    std::thread::sleep(Duration::from_secs(3));
    let recorded = recording.stop()?.complete()?;
    check(&format!("Node {version}, worker threads"), &recorded, STEADY)
}

#[test]
fn frames_of_worker_threads_have_names_in_node_18() -> Result<()> {
    workers("frames_of_worker_threads_have_names_in_node_18", 18)
}

#[test]
fn frames_of_worker_threads_have_names_in_node_20() -> Result<()> {
    workers("frames_of_worker_threads_have_names_in_node_20", 20)
}

#[test]
fn frames_of_worker_threads_have_names_in_node_24() -> Result<()> {
    workers("frames_of_worker_threads_have_names_in_node_24", 24)
}

/// What a developer starts: the words after `node`, from the folder of the packages; `INPUT` is
/// a large JavaScript file.
const TOOLS: [(&str, &[&str]); 3] = [
    ("tsc", &["typescript/bin/tsc", "--allowJs", "--checkJs", "--noEmit", "INPUT"]),
    ("terser", &["terser/bin/terser", "-c", "-m", "-o", "OUTPUT", "--", "INPUT"]),
    ("prettier", &["prettier/bin/prettier.cjs", "--write", "INPUT"]),
];

fn record_tool(node: &Path, tool: &[&str]) -> Result<Recorded> {
    let packages = fixture("v8-truth/node_modules");
    let folder = tempfile::tempdir()?;
    let input = folder.path().join("input.js");
    fs::copy(packages.join("lodash/lodash.js"), &input).context("cannot copy lodash")?;
    let word = |word: &&str| -> OsString {
        match *word {
            "INPUT" => input.clone().into(),
            "OUTPUT" => folder.path().join("output.js").into(),
            script if script.contains("/bin/") => packages.join(script).into(),
            option => option.into(),
        }
    };
    let mut command = Command::new(node);
    command.args(tool.iter().map(word));
    let (recorded, _) = record_command(&OPTIONS, &command)?;
    Ok(recorded)
}

// From the first instruction to the last. tsc finds errors in that file and says so with its status,
// which is then the recorder's: the capture is judged, not the status.
fn tools(name: &str, version: u32) -> Result<()> {
    let Some((_turn, node)) = nodes::take_turn_with(name, version, &[])? else { return Ok(()) };
    for (tool, words) in TOOLS {
        let recorded = record_tool(&node, words)?;
        check(&format!("Node {version}, {tool}"), &recorded, BEGINNING)?;
    }
    Ok(())
}

#[test]
fn frames_of_tools_have_names_in_node_20() -> Result<()> {
    tools("frames_of_tools_have_names_in_node_20", 20)
}

#[test]
fn frames_of_tools_have_names_in_node_24() -> Result<()> {
    tools("frames_of_tools_have_names_in_node_24", 24)
}

// 9 MB of JavaScript are compiled, and nothing is done with it.
#[test]
fn frames_of_the_first_half_second_have_names() -> Result<()> {
    let name = "frames_of_the_first_half_second_have_names";
    for version in nodes::VERSIONS {
        let Some((_turn, node)) = nodes::take_turn_with(name, version, &[])? else {
            return Ok(());
        };
        let recorded = record_tool(&node, &["typescript/bin/tsc", "--version"])?;
        check(&format!("Node {version}, start"), &recorded, BEGINNING)?;
    }
    Ok(())
}

// V8's map is a truth of its own. At the level of the reader, since a capture keeps no address of a
// frame that has a name.
fn compare_with_map(name: &str, version: u32) -> Result<()> {
    let Some((_turn, node)) = nodes::take_turn_with(name, version, &[])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(binaries::example("v8_truth")?);
    command.arg("cpu").arg(&node).arg("999").arg(fixture("v8-truth")).arg("truth.js");
    command.arg(folder.path().join("log")).arg("5");
    // V8 writes a log of its own into the working folder.
    command.current_dir(folder.path()).env("STACK", "24576");
    let outcome = run(&mut command)?.expect_no_crash()?.expect_code(0)?;
    let line = |start: &str| {
        let mut lines = outcome.stdout.lines();
        lines.find(|line| line.starts_with(start)).with_context(|| format!("no line {start}"))
    };
    let (map, unnamed) = (line("MAP ")?, line("UNNAMED ")?);
    tell(&format!("Node {version}, against the perf map: {map}; {unnamed}"))?;
    let words: Vec<&str> = map.split_whitespace().collect();
    let [_, "same", same, "differs", differs, ..] = words[..] else {
        anyhow::bail!("not the figures of a comparison: {map}");
    };
    let (same, differs): (u64, u64) = (same.parse()?, differs.parse()?);
    let nameless = nameless_differences(&outcome.stdout);
    ensure!(same > 5000, "only {same} frames were compared: {}", outcome.stdout);
    ensure!((differs - nameless) * 1000 <= same, "wrong names: {}", outcome.stdout);
    ensure!(nameless * 200 <= same, "names that the map has are not read: {}", outcome.stdout);
    Ok(())
}

// `  28 ours " :0:0" map "…"`: the function was found, its name and script could not be read.
fn nameless_differences(figures: &str) -> u64 {
    let count = |line: &str| {
        let (number, rest) = line.trim().split_once(" ours ")?;
        if rest.starts_with("\" :0:0\"") { number.parse::<u64>().ok() } else { None }
    };
    figures.lines().filter_map(count).sum()
}

#[test]
fn names_of_node_16_are_those_of_its_perf_map() -> Result<()> {
    compare_with_map("names_of_node_16_are_those_of_its_perf_map", 16)
}

#[test]
fn names_of_node_18_are_those_of_its_perf_map() -> Result<()> {
    compare_with_map("names_of_node_18_are_those_of_its_perf_map", 18)
}

#[test]
fn names_of_node_20_are_those_of_its_perf_map() -> Result<()> {
    compare_with_map("names_of_node_20_are_those_of_its_perf_map", 20)
}

#[test]
fn names_of_node_22_are_those_of_its_perf_map() -> Result<()> {
    compare_with_map("names_of_node_22_are_those_of_its_perf_map", 22)
}

#[test]
fn names_of_node_24_are_those_of_its_perf_map() -> Result<()> {
    compare_with_map("names_of_node_24_are_those_of_its_perf_map", 24)
}

#[test]
fn names_of_node_26_are_those_of_its_perf_map() -> Result<()> {
    compare_with_map("names_of_node_26_are_those_of_its_perf_map", 26)
}
