//! Where names come from, when they cannot be had, and what must not reach the capture.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::binaries::{self, require_program};
use harness::capture::{contains, payloads};
use harness::command::{Running, run};
use harness::events::file_events;
use harness::kernel::{left_dynamic_events, take_turn};
use harness::nodes;
use harness::recording::{Recorded, Recording, nrec};
use harness::report::{Report, nanalyze};
use harness::truth::{compare, said_opens};
use harness::workload::Workload;

#[test]
fn doctor_can_read_the_heap_of_each_version() -> Result<()> {
    let name = "doctor_can_read_the_heap_of_each_version";
    for version in nodes::VERSIONS {
        let folder = tempfile::tempdir()?;
        let Some((_turn, node)) = nodes::take_turn_with(name, version, &[])? else {
            return Ok(());
        };
        // By its content, not by its name.
        let renamed = folder.path().join(format!("server-{version}"));
        give_name(&node, &renamed)?;
        let workload = Workload::start_with(&renamed, "opens-mixed.js", folder.path(), &[])?;
        let outcome = nrec(&["doctor", "-p", &workload.pid().to_string()])?.expect_code(0)?;
        let text = outcome.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [&format!("Node {version}."), "the line that runs, from"] {
            ensure!(text.contains(part), "no {part:?} in:\n{}", outcome.stdout);
        }
    }
    Ok(())
}

fn give_name(from: &Path, to: &Path) -> Result<()> {
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop)).context("cannot copy node")
}

fn record_opens(options: &[&str]) -> Result<Recorded> {
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start("error-stack.js", folder.path(), &["rounds=1", "--stay"])?;
    let options = [&["-e", "fs"], options].concat();
    let recording = Recording::attach(workload.pid(), &options)?;
    workload.go()?;
    workload.finish_and_stay()?;
    recording.stop()
}

#[test]
fn without_a_source_of_names_the_opens_are_still_recorded() -> Result<()> {
    let name = "without_a_source_of_names_the_opens_are_still_recorded";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    for source in ["--js=off", "--js=map"] {
        let folder = tempfile::tempdir()?;
        let mut workload = Workload::start("opens-mixed.js", folder.path(), &[])?;
        let recording = Recording::attach(workload.pid(), &["-e", "fs", source])?;
        workload.go()?;
        let said = workload.finish()?;
        let recorded = recording.stop()?;
        let code = recorded.outcome.status.code();
        ensure!(matches!(code, Some(0 | 1)), "{source}: {:?}", recorded.outcome);
        let report = Report::of(&recorded.capture())?;
        let told = recorded.outcome.stderr.contains("no target has a perf map");
        let remarked = report.remarks.iter().any(|remark| remark.code == "no-perf-map");
        let map = source == "--js=map";
        ensure!(told == map && remarked == map, "{source}: {}", recorded.outcome.stderr);
        compare(source, &said_opens(&said), &report.open_counts_below(folder.path()))?;
        let frames = &report.stacks.js_frames;
        ensure!(frames.named == 0 && frames.total > 0, "{source}: {frames:?}");
        // What would help is said, and is true: no flag is needed.
        let text = nanalyze(&["report"], &recorded.capture())?.expect_code(0)?.stdout;
        ensure!(text.contains("--js=heap"), "{source}: {text}");
    }
    Ok(())
}

#[test]
fn the_heap_can_be_asked_for() -> Result<()> {
    let name = "the_heap_can_be_asked_for";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let report =
        Report::of(&record_opens(&["--js=heap", "--stack-size=24k"])?.complete()?.capture())?;
    let frames = &report.stacks.js_frames;
    ensure!(frames.total > 100 && frames.named == frames.total, "{:?}", report.stacks);
    Ok(())
}

#[test]
fn a_stack_that_was_not_copied_whole_says_so() -> Result<()> {
    let name = "a_stack_that_was_not_copied_whole_says_so";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let recorded = record_opens(&["--stack-size=4k"])?.complete()?;
    let report = Report::of(&recorded.capture())?;
    ensure!(report.unresolved("stack-cut") > 0, "{:?}", report.stacks);
    let events = file_events(&recorded.capture())?;
    let is_named = |frame: &harness::report::Frame| frame.function.as_deref() == Some("probe");
    let probes = events.iter().filter(|event| event.frames.iter().any(is_named)).count();
    ensure!(probes > 10, "the innermost frames are not there in {} events", events.len());
    let text = nanalyze(&["report"], &recorded.capture())?.stdout;
    ensure!(text.contains("--stack-size"), "{text}");
    Ok(())
}

#[test]
fn wrong_values_are_refused() -> Result<()> {
    let name = "wrong_values_are_refused";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let workload = Workload::start("opens-mixed.js", folder.path(), &[])?;
    let pid = workload.pid().to_string();
    let capture = folder.path().join("capture.nrec");
    let file = capture.to_string_lossy().into_owned();
    let wrong = ["0", "1", "1023", "64k", "65536", "1m", "-1", "16kk", "", "16.5k", "99999999999"];
    let wrong: Vec<_> = wrong.iter().map(|value| format!("--stack-size={value}")).collect();
    for option in wrong.iter().map(String::as_str).chain(["--js=", "--js=HEAP", "--js=maps"]) {
        let words = ["record", "-p", &pid, option, "-o", &file, "--duration", "100ms"];
        let outcome = nrec(&words)?.expect_code(2).with_context(|| option.to_owned())?;
        let flag = option.split('=').next().unwrap_or(option);
        ensure!(outcome.stderr.contains(flag), "{option}: {}", outcome.stderr);
        ensure!(!capture.exists(), "{option} left a capture");
    }
    for size in ["1k", "1024", "63k"] {
        let words =
            ["record", "-p", &pid, "--stack-size", size, "-o", &file, "--duration", "100ms"];
        nrec(&words)?.expect_code(0).with_context(|| size.to_owned())?;
    }
    ensure!(left_dynamic_events()?.is_empty(), "dynamic events were left");
    Ok(())
}

// root without CAP_SYS_PTRACE may open perf events on root's processes, but not read their memory.
#[test]
fn memory_that_may_not_be_read_is_told_and_all_else_is_recorded() -> Result<()> {
    let name = "memory_that_may_not_be_read_is_told_and_all_else_is_recorded";
    let Some(_turn) = take_turn(name, &["node", "setpriv"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start("open-loop.js", folder.path(), &["count=1000000000"])?;
    workload.go()?;
    let capture = folder.path().join("capture.nrec");
    for source in ["--js=auto", "--js=heap"] {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"]);
        command.arg(binaries::nrec()?).args(["record", "-p", &workload.pid().to_string()]);
        command.args(["-e", "cpu", source, "--duration", "1s", "-o"]).arg(&capture);
        let outcome = run(&mut command)?.expect_no_crash()?;
        let text = &outcome.stderr;
        for part in ["cannot read memory", "JavaScript frames have no names", "CAP_SYS_PTRACE"] {
            ensure!(text.contains(part), "{source}: no {part:?} in {text}");
        }
        ensure!(matches!(outcome.status.code(), Some(0 | 1)), "{source}: {:?}", outcome.status);
        let report = Report::parse(&nanalyze(&["report", "--json"], &capture)?.stdout)?;
        ensure!(report.capture.events > 5, "{source}: {:?}", report.capture);
        let frames = &report.stacks.js_frames;
        ensure!(frames.named == 0 && frames.total > 0, "{source}: {frames:?}");
        let mut codes = report.remarks.iter().map(|remark| remark.code.as_str());
        ensure!(codes.any(|code| code == "js-not-readable"), "{source}: {:?}", report.remarks);
    }
    Ok(())
}

#[test]
fn a_program_without_javascript_is_recorded() -> Result<()> {
    let name = "a_program_without_javascript_is_recorded";
    let Some(_turn) = take_turn(name, &[])? else { return Ok(()) };
    let running = Running::start(Command::new("sh").args(["-c", "while :; do :; done"]))?;
    for source in ["--js=auto", "--js=heap", "--js=map", "--js=off"] {
        let recording = Recording::attach(running.pid(), &["-e", "cpu", source])?;
        std::thread::sleep(Duration::from_millis(500));
        let recorded = recording.stop()?;
        let code = recorded.outcome.status.code();
        ensure!(matches!(code, Some(0 | 1)), "{source}: {:?}", recorded.outcome);
        let outcome = nanalyze(&["report", "--json"], &recorded.capture())?;
        let report = Report::parse(&outcome.stdout)?;
        ensure!(report.capture.events > 3, "{source}: {:?}", report.capture);
        ensure!(report.stacks.js_frames.total == 0, "{source}: {:?}", report.stacks);
    }
    Ok(())
}

/// Neither in the script nor in the command line; different from run to run.
fn make_secret() -> Result<String> {
    let mut bytes = [0; 20];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

// Any 12 bytes of it, forwards or backwards.
fn check_hidden(capture: &Path, secret: &str) -> Result<()> {
    let backwards: Vec<u8> = secret.bytes().rev().collect();
    let mut texts = payloads(capture)?;
    texts.push(fs::read(capture)?);
    for text in &texts {
        for part in secret.as_bytes().windows(12).chain(backwards.windows(12)).step_by(4) {
            ensure!(!contains(text, part), "{part:?} of the secret is in the capture");
        }
    }
    Ok(())
}

// perf keeps the copies of the stack in its file: that the secret is there shows that it is on the
// stack, and that this test can fail.
#[test]
fn what_is_on_the_stack_and_in_the_heap_stays_out_of_the_capture() -> Result<()> {
    let name = "what_is_on_the_stack_and_in_the_heap_stays_out_of_the_capture";
    let Some(_turn) = take_turn(name, &["node", "perf"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let secret = make_secret()?;
    fs::write(folder.path().join("secret"), &secret)?;
    let mut workload = Workload::start("secret.js", folder.path(), &["seconds=4", "--stay"])?;
    let pid = workload.pid().to_string();
    let options = ["--js=heap", "-e", "cpu", "-e", "fs", "-F", "999", "--stack-size=24k"];
    let recording = Recording::attach(workload.pid(), &options)?;
    workload.go()?;
    let perf_data = folder.path().join("perf.data");
    let mut perf = Command::new(require_program("perf")?);
    perf.args([
        "record",
        "-q",
        "-N",
        "-F",
        "999",
        "--call-graph",
        "dwarf,16384",
        "-e",
        "cpu-clock",
    ]);
    perf.args(["-p", &pid, "-o"]).arg(&perf_data).args(["--", "sleep", "1"]);
    run(&mut perf)?.expect_code(0)?;
    workload.finish_and_stay()?;
    // Two recorders and the load on two CPUs: some may be lost, which is said.
    let recorded = recording.stop()?;
    ensure!(contains(&fs::read(&perf_data)?, secret.as_bytes()), "it is not on the stack");
    check_hidden(&recorded.capture(), &secret)?;
    let outcome = nanalyze(&["report", "--json"], &recorded.capture())?;
    let report = Report::parse(&outcome.stdout)?;
    ensure!(report.capture.events > 1000, "{:?}", report.capture);
    ensure!(report.stacks.js_frames.named > 10_000, "{:?}", report.stacks);
    let named = |opened: &harness::report::OpenedPath| opened.path.ends_with("/absent");
    ensure!(report.opens.iter().any(named), "the opens are not there");
    Ok(())
}
