//! A capture is complete: on another machine, without the target's binary, map and files, it gives
//! the same report, byte by byte.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::Result;
use harness::binaries::require_program;
use harness::kernel::take_turn;
use harness::recording::Recording;
use harness::report::nanalyze;
use harness::workload::{PERF_FLAGS, Workload, perf_map};

#[test]
fn the_report_needs_nothing_of_the_recorded_machine() -> Result<()> {
    let name = "the_report_needs_nothing_of_the_recorded_machine";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    check(&[])
}

#[test]
fn the_report_does_not_need_the_perf_map_again() -> Result<()> {
    let name = "the_report_does_not_need_the_perf_map_again";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    check(&PERF_FLAGS)
}

fn check(flags: &[&str]) -> Result<()> {
    let place = tempfile::tempdir()?;
    let home = place.path().join("here");
    fs::create_dir(&home)?;
    let node = home.join("node");
    fs::copy(require_program("node")?, &node)?;
    fs::set_permissions(&node, fs::Permissions::from_mode(0o755))?;
    let files = home.join("files");
    fs::create_dir(&files)?;

    let mut workload = Workload::start_flagged(&node, flags, "error-stack.js", &files, &[])?;
    let map = perf_map(u64::from(workload.pid()));
    let recording = Recording::attach(workload.pid(), &["-e", "fs", "-e", "cpu"])?;
    workload.go()?;
    workload.wait_done()?;
    let recorded = recording.stop()?.complete()?;

    let questions: [&[&str]; 4] =
        [&["report"], &["report", "--json"], &["events", "--json", "--stacks"], &["info"]];
    let ask = || -> Result<Vec<String>> {
        let answer =
            |words: &&[&str]| Ok(nanalyze(words, &recorded.capture())?.expect_code(0)?.stdout);
        questions.iter().map(answer).collect()
    };
    let before = ask()?;
    drop(workload);
    fs::rename(&home, place.path().join("away"))?;
    assert!(!map.exists() && !node.exists());
    let after = ask()?;
    for ((words, before), after) in questions.iter().zip(&before).zip(&after) {
        assert!(before == after, "{words:?} differs; before:\n{before}\nafter:\n{after}");
    }
    Ok(())
}
