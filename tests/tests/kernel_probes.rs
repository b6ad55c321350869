//! Probes that the user names: entry and return, with arguments, and what is refused.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use harness::binaries::require_program;
use harness::events::events_of;
use harness::kernel::{left_dynamic_events, take_turn};
use harness::perf::PerfRecording;
use harness::recording::{Recorded, Recording, nrec};
use harness::report::Report;
use harness::truth::{NameSource, compare, compare_stack, said_opens};
use harness::workload::{PERF_FLAGS, Workload};
use serde_json::Value;

const OPEN_PROBE: &str = "uprobe:node:uv_fs_open req=%si:x64 path=+0(%dx):ustring flags=%cx:s32";

fn record(flags: &[&str], workload: &str, options: &[&str]) -> Result<(Recorded, Vec<Value>)> {
    let folder = tempfile::tempdir()?;
    let node = require_program("node")?;
    let mut workload = Workload::start_flagged(&node, flags, workload, folder.path(), &["--stay"])?;
    let recording = Recording::attach(workload.pid(), options)?;
    workload.go()?;
    let said = workload.finish_and_stay()?;
    Ok((recording.stop()?.complete()?, said))
}

#[test]
fn the_stack_of_a_probe_is_the_one_that_the_target_sees() -> Result<()> {
    let name = "the_stack_of_a_probe_is_the_one_that_the_target_sees";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    check_stacks(&[], NameSource::Heap)
}

#[test]
fn the_stack_of_a_probe_is_named_by_a_perf_map() -> Result<()> {
    let name = "the_stack_of_a_probe_is_named_by_a_perf_map";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    check_stacks(&PERF_FLAGS, NameSource::PerfMap)
}

fn check_stacks(flags: &[&str], source: NameSource) -> Result<()> {
    let (recorded, said) =
        record(flags, "error-stack.js", &["-e", OPEN_PROBE, "--stack-size=24k"])?;
    let events = events_of(&recorded.capture(), "probe")?;
    let probes: Vec<_> = said.iter().filter(|record| record.get("probe").is_some()).collect();
    assert!(probes.len() > 80, "the workload made only {} probes", probes.len());
    for probe in probes {
        let is_it = |event: &&harness::events::Event| event.args.get("path") == probe.get("open");
        let mut found = events.iter().filter(is_it);
        let event = found.next().with_context(|| format!("no event for {}", probe["open"]))?;
        assert!(found.next().is_none(), "two events for {}", probe["open"]);
        // O_RDONLY|O_CLOEXEC: 'r' of fs.openSync, and what libuv adds later is not seen here.
        assert_eq!(event.args["flags"], 0, "{:?}", event.args);
        assert!(event.args["req"].as_u64().is_some_and(|address| address > 0));
        let sites = probe["frames"].as_array().context("the log has no call sites")?;
        compare_stack(sites, &event.frames, source)
            .with_context(|| format!("at {}", probe["label"]))?;
    }
    Ok(())
}

#[test]
fn a_return_probe_gives_the_results() -> Result<()> {
    let name = "a_return_probe_gives_the_results";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let event = "uretprobe:node:uv_fs_open ret=$retval:s32";
    let (recorded, said) = record(&[], "opens-mixed.js", &["-e", event])?;
    // errno(3), and asm-generic/errno*.h; an asynchronous request returns 0 when it is queued.
    let numbers = [
        ("ENOENT", -2),
        ("EEXIST", -17),
        ("ENOTDIR", -20),
        ("EISDIR", -21),
        ("ENAMETOOLONG", -36),
        ("ELOOP", -40),
    ];
    let mut truth = BTreeMap::<&str, usize>::new();
    for record in said.iter().filter(|record| record.get("open").is_some()) {
        let kind = match (record["how"].as_str(), record["error"].as_str()) {
            (Some("sync"), Some(error)) => error,
            (Some("sync"), None) => "descriptor",
            _ => "queued",
        };
        *truth.entry(kind).or_default() += 1;
    }
    let mut seen = BTreeMap::<&str, usize>::new();
    for event in events_of(&recorded.capture(), "probe")? {
        let result = event.args["ret"].as_i64().context("no result")?;
        let kind = match result {
            0 => "queued",
            1.. => "descriptor",
            _ => {
                let known = numbers.iter().find(|(_, number)| *number == result);
                known.with_context(|| format!("unexpected result {result}"))?.0
            }
        };
        *seen.entry(kind).or_default() += 1;
    }
    assert_eq!(seen, truth);
    assert!(left_dynamic_events()?.is_empty());
    Ok(())
}

fn refused(event: &str, words: &[&str]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start("opens-mixed.js", folder.path(), &[])?;
    let pid = workload.pid().to_string();
    let capture = folder.path().join("capture.nrec");
    let file = capture.to_string_lossy().into_owned();
    let outcome = nrec(&["record", "-p", &pid, "-e", event, "-o", &file, "--duration", "1s"])?
        .expect_code(2)?;
    for word in words {
        assert!(outcome.stderr.contains(word), "no {word:?} in: {}", outcome.stderr);
    }
    assert!(left_dynamic_events()?.is_empty());
    assert!(!capture.exists(), "a recording that did not begin left a capture");
    workload.go()?;
    workload.finish()?;
    Ok(())
}

#[test]
fn a_return_probe_on_code_that_is_unwound_is_refused() -> Result<()> {
    let name = "a_return_probe_on_code_that_is_unwound_is_refused";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    refused("uretprobe:node:Builtins_ArrayMap", &["Builtins_ArrayMap", "refusing", "--unsafe"])
}

// OpenSSL's constants of SHA-256, which lie among its code.
#[test]
fn a_probe_on_a_table_of_constants_is_refused() -> Result<()> {
    let name = "a_probe_on_a_table_of_constants_is_refused";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    refused("uprobe:node:K256", &["K256", "has no size", "--unsafe"])
}

// Each byte of the first instructions: what is refused must lie between two beginnings, and what is
// accepted must not harm the target.
#[test]
fn a_probe_inside_an_instruction_is_refused() -> Result<()> {
    let name = "a_probe_inside_an_instruction_is_refused";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let mut refusals = 0;
    for offset in 1..=9_u64 {
        let event = format!("uprobe:node:uv_fs_open+{offset}");
        let folder = tempfile::tempdir()?;
        let mut workload = Workload::start("opens-mixed.js", folder.path(), &[])?;
        match Recording::attach(workload.pid(), &["-e", &event]) {
            Ok(recording) => {
                workload.go()?;
                workload.finish().with_context(|| format!("{event} harmed the target"))?;
                recording.stop()?.complete()?;
            }
            Err(error) => {
                let text = format!("{error:#}");
                assert!(text.contains("inside an instruction"), "{text}");
                refusals += 1;
                workload.go()?;
                workload.finish()?;
            }
        }
        assert!(left_dynamic_events()?.is_empty());
    }
    assert!(refusals > 0, "nine bytes are not nine instructions");
    Ok(())
}

#[test]
fn a_perf_data_with_the_same_probes_gives_the_same_opens() -> Result<()> {
    let name = "a_perf_data_with_the_same_probes_gives_the_same_opens";
    let Some(_turn) = take_turn(name, &["node", "perf"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start_mapped("opens-mixed.js", folder.path(), &[])?;
    let perf = PerfRecording::attach(workload.pid())?;
    let ours = Recording::attach(workload.pid(), &["-e", "fs"])?;
    workload.go()?;
    let said = said_opens(&workload.finish()?);
    let ours = ours.stop()?.complete()?;
    let perf = perf.stop()?;
    let from_perf = Report::of(&perf.file())?;
    compare("the report on perf.data", &said, &from_perf.open_counts_below(folder.path()))?;
    let from_us = Report::of(&ours.capture())?;
    compare("our own report", &said, &from_us.open_counts_below(folder.path()))?;
    assert!(from_perf.stacks.js_frames.named > 0, "{:?}", from_perf.stacks);
    Ok(())
}
