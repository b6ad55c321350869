//! Without any flag: the stack of each open is the target's own `Error().stack`, with the executing
//! lines and columns, in each version of Node.js.

use std::path::Path;

use anyhow::{Context as _, Result};
use harness::events::{Event, file_events, only_event_of};
use harness::kernel::tell;
use harness::nodes;
use harness::recording::Recording;
use harness::report::Frame;
use harness::truth::{NameSource, compare_stack};
use harness::workload::Workload;

/// A recursion of 60 calls does not fit into what is copied by default at a probe.
const STACK_SIZE: &str = "--stack-size=24k";

// How many stacks were compared.
fn compare_all(node: &Path, script: &str) -> Result<usize> {
    Ok(compare_each(node, script)?.0)
}

// How many stacks were compared, and all opens.
fn compare_each(node: &Path, script: &str) -> Result<(usize, Vec<Event>)> {
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start_with(node, script, folder.path(), &["--stay"])?;
    let recording = Recording::attach(workload.pid(), &["-e", "fs", STACK_SIZE])?;
    workload.go()?;
    // What is sampled just before the end of a process may have no names.
    let said = workload.finish_and_stay()?;
    let recorded = recording.stop()?.complete()?;
    let events = file_events(&recorded.capture())?;
    let mut compared = 0;
    for probe in said.iter().filter(|record| record.get("probe").is_some()) {
        let event = only_event_of(&events, &probe["open"])?;
        let sites = probe["frames"].as_array().context("the log has no call sites")?;
        compare_stack(sites, &event.frames, NameSource::Heap)
            .with_context(|| format!("at {}", probe["label"]))?;
        compared += 1;
    }
    Ok((compared, events))
}

fn check(name: &str, version: u32) -> Result<()> {
    let Some((_turn, node)) = nodes::take_turn_with(name, version, &[])? else { return Ok(()) };
    let language = compare_all(&node, "error-stack.js")?;
    let files = compare_all(&node, "error-stack-io.js")?;
    assert!(language > 80 && files > 70, "only {language} and {files} stacks");
    tell(&format!("Node {version}: {} stacks of opens, lines and columns too", language + files))
}

#[test]
fn opens_of_node_16_have_its_own_stacks() -> Result<()> {
    check("opens_of_node_16_have_its_own_stacks", 16)
}

#[test]
fn opens_of_node_18_have_its_own_stacks() -> Result<()> {
    check("opens_of_node_18_have_its_own_stacks", 18)
}

#[test]
fn opens_of_node_20_have_its_own_stacks() -> Result<()> {
    check("opens_of_node_20_have_its_own_stacks", 20)
}

#[test]
fn opens_of_node_22_have_its_own_stacks() -> Result<()> {
    check("opens_of_node_22_have_its_own_stacks", 22)
}

#[test]
fn opens_of_node_24_have_its_own_stacks() -> Result<()> {
    check("opens_of_node_24_have_its_own_stacks", 24)
}

#[test]
fn opens_of_node_26_have_its_own_stacks() -> Result<()> {
    check("opens_of_node_26_have_its_own_stacks", 26)
}

// V8 overwrites return addresses into code that it throws away, and from Node 26 on the code as well.
fn check_thrown_away(name: &str, version: u32) -> Result<()> {
    let Some((_turn, node)) = nodes::take_turn_with(name, version, &[])? else { return Ok(()) };
    let (compared, events) = compare_each(&node, "thrown-away.js")?;
    assert_eq!(compared, 40, "two stacks in each of 20 rounds");
    let frames = || events.iter().flat_map(|event| &event.frames);
    let nameless = frames().filter(|frame| frame.kind == "js" && frame.unresolved.is_some());
    assert_eq!(nameless.count(), 0, "frames without a name");
    let middle = |frame: &&Frame| frame.inlined && frame.function.as_deref() == Some("middle");
    assert!(frames().filter(middle).count() >= 20, "`middle` is rarely a part of `outer`");
    tell(&format!("Node {version}: 20 stacks over code that V8 threw away"))
}

#[test]
fn code_thrown_away_by_node_16_has_its_lines() -> Result<()> {
    check_thrown_away("code_thrown_away_by_node_16_has_its_lines", 16)
}

#[test]
fn code_thrown_away_by_node_18_has_its_lines() -> Result<()> {
    check_thrown_away("code_thrown_away_by_node_18_has_its_lines", 18)
}

#[test]
fn code_thrown_away_by_node_20_has_its_lines() -> Result<()> {
    check_thrown_away("code_thrown_away_by_node_20_has_its_lines", 20)
}

#[test]
fn code_thrown_away_by_node_22_has_its_lines() -> Result<()> {
    check_thrown_away("code_thrown_away_by_node_22_has_its_lines", 22)
}

#[test]
fn code_thrown_away_by_node_24_has_its_lines() -> Result<()> {
    check_thrown_away("code_thrown_away_by_node_24_has_its_lines", 24)
}

#[test]
fn code_thrown_away_by_node_26_has_its_lines() -> Result<()> {
    check_thrown_away("code_thrown_away_by_node_26_has_its_lines", 26)
}
