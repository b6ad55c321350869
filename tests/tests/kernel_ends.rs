//! However a recording ends, the capture is readable and no dynamic event is left behind.

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use harness::binaries::{self, fixture, require_program};
use harness::command::{Running, run, wait_for};
use harness::kernel::{left_dynamic_events, take_turn};
use harness::recording::{Recording, nrec};
use harness::report::{Report, nanalyze};
use harness::truth::{compare, said_opens};
use harness::workload::Workload;
use nix::sys::signal::Signal;

fn check_nothing_is_left() -> Result<()> {
    let left = left_dynamic_events()?;
    assert!(left.is_empty(), "dynamic events were left behind: {left:#?}");
    Ok(())
}

fn ends_well_on(signal: Signal) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start("opens-mixed.js", folder.path(), &[])?;
    let recording = Recording::attach(workload.pid(), &["-e", "fs"])?;
    workload.go()?;
    let said = workload.finish()?;
    // It may have ended with the target already, which is as good.
    drop(recording.signal(signal));
    let recorded = recording.wait_end()?.complete()?;
    let report = Report::of(&recorded.capture())?;
    compare("the report", &said_opens(&said), &report.open_counts_below(folder.path()))?;
    check_nothing_is_left()
}

#[test]
fn an_interrupt_ends_a_recording() -> Result<()> {
    let Some(_turn) = take_turn("an_interrupt_ends_a_recording", &["node"])? else { return Ok(()) };
    ends_well_on(Signal::SIGINT)
}

#[test]
fn a_termination_signal_ends_a_recording() -> Result<()> {
    let name = "a_termination_signal_ends_a_recording";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    ends_well_on(Signal::SIGTERM)
}

#[test]
fn an_interrupt_ends_the_command_too_and_not_the_target() -> Result<()> {
    let name = "an_interrupt_ends_the_command_too_and_not_the_target";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start("opens-mixed.js", folder.path(), &[])?;
    let capture = folder.path().join("capture.nrec");
    let started = folder.path().join("started");
    let mut command = Command::new(binaries::nrec()?);
    command.args(["record", "-p", &workload.pid().to_string(), "-o"]).arg(&capture);
    command.args(["--", "sh", "-c", "echo $$ > \"$0.new\"; mv \"$0.new\" \"$0\"; exec sleep 1000"]);
    let recorder = Running::start(command.arg(&started))?;
    let command_pid: u32 = wait_for("the command", || {
        Ok(std::fs::read_to_string(&started).ok().and_then(|pid| pid.trim().parse().ok()))
    })?;
    recorder.signal(Signal::SIGINT)?;
    recorder.finish()?.expect_no_crash()?.expect_code(0)?;
    wait_for("the end of the command", || {
        let state = std::fs::read_to_string(format!("/proc/{command_pid}/stat"));
        Ok(state.map_or(Some(()), |state| state.contains(") Z ").then_some(())))
    })?;
    assert!(Report::of(&capture)?.capture.complete);
    check_nothing_is_left()?;
    workload.go()?;
    workload.finish().map(drop)
}

#[test]
fn a_target_that_is_killed_ends_a_recording() -> Result<()> {
    let name = "a_target_that_is_killed_ends_a_recording";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start("open-loop.js", folder.path(), &["count=1000000000"])?;
    let recording = Recording::attach(workload.pid(), &["-e", "fs"])?;
    workload.go()?;
    sleep(Duration::from_millis(300));
    harness::command::send_signal(workload.pid(), Signal::SIGKILL)?;
    let recorded = recording.wait_end()?.complete()?;
    assert!(Report::of(&recorded.capture())?.capture.events > 0);
    check_nothing_is_left()
}

#[test]
fn a_duration_ends_a_recording_and_the_target_lives_on() -> Result<()> {
    let name = "a_duration_ends_a_recording_and_the_target_lives_on";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let (mut application, port) = Workload::start_application()?;
    let folder = tempfile::tempdir()?;
    let capture = folder.path().join("capture.nrec");
    let pid = application.pid().to_string();
    let file = capture.to_string_lossy().into_owned();
    let outcome =
        nrec(&["record", "-p", &pid, "--duration", "500ms", "-o", &file])?.expect_code(0)?;
    // What it costs is said before it is paid, and at the end where to go on.
    let said: Vec<_> = outcome.stderr.lines().collect();
    assert!(said[0].contains(" descriptors, ") && said[0].contains(" rings "), "{said:#?}");
    assert!(said.last().is_some_and(|line| line.contains("next: nanalyze report ")), "{said:#?}");
    assert!(!outcome.stderr.contains('\r'), "a live line where there is no terminal");
    assert!(Report::of(&capture)?.capture.complete);
    check_nothing_is_left()?;
    send_traffic(port)?;
    assert!(application.terminate()?.success());
    Ok(())
}

#[test]
fn a_terminal_shows_a_live_line() -> Result<()> {
    let name = "a_terminal_shows_a_live_line";
    let Some(_turn) = take_turn(name, &["node", "script"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let workload = Workload::start("opens-mixed.js", folder.path(), &[])?;
    let line = format!(
        "'{}' record -p {} --duration 2500ms -o '{}/capture.nrec'",
        binaries::nrec()?.display(),
        workload.pid(),
        folder.path().display()
    );
    // script(1) gives it a terminal.
    let outcome = run(Command::new("script").args(["-q", "-e", "-c", &line, "/dev/null"]))?;
    let shown = outcome.expect_code(0)?.stdout;
    let live = shown.split('\r').filter(|part| part.contains(" events (")).count();
    assert!(live >= 2, "the live line was shown {live} times: {shown:?}");
    assert!(shown.contains(" lost, "), "{shown:?}");
    check_nothing_is_left()
}

#[test]
fn the_end_of_the_target_ends_a_recording() -> Result<()> {
    let name = "the_end_of_the_target_ends_a_recording";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start("opens-mixed.js", folder.path(), &[])?;
    let capture = folder.path().join("capture.nrec");
    let mut command = Command::new(binaries::nrec()?);
    command.args(["record", "-p", &workload.pid().to_string(), "-o"]).arg(&capture);
    let mut recorder = Running::start(&mut command)?;
    wait_for("the recorder to say that it records", || {
        anyhow::ensure!(recorder.is_running()?, "the recorder ended: {}", recorder.messages()?);
        Ok(recorder.messages()?.contains("recording process").then_some(()))
    })?;
    workload.go()?;
    workload.finish()?;
    recorder.finish()?.expect_no_crash()?.expect_code(0)?;
    assert!(Report::of(&capture)?.capture.complete);
    check_nothing_is_left()
}

fn send_traffic(port: u16) -> Result<()> {
    let mut command = Command::new(require_program("node")?);
    command.arg(fixture("app/traffic.js")).args([&port.to_string(), "25"]);
    run(&mut command)?.expect_code(0)?;
    Ok(())
}

#[test]
fn a_killed_recorder_leaves_a_readable_capture_and_clean_removes_its_events() -> Result<()> {
    let name = "a_killed_recorder_leaves_a_readable_capture_and_clean_removes_its_events";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let (mut application, port) = Workload::start_application()?;
    let recording = Recording::attach(application.pid(), &["-e", "fs"])?;
    send_traffic(port)?;
    // The capture is flushed at least every second: docs/capture-format.md promises no more.
    sleep(Duration::from_millis(2500));
    recording.signal(Signal::SIGKILL)?;
    let recorded = recording.wait_killed()?;
    assert!(!left_dynamic_events()?.is_empty(), "a killed recorder cannot have cleaned up");

    let outcome = nanalyze(&["report", "--json"], &recorded.capture())?.expect_code(1)?;
    let report = Report::parse(&outcome.stdout)?;
    assert!(!report.capture.complete);
    let settings = report.opens.iter().find(|opened| opened.path.ends_with("settings.json"));
    assert_eq!(settings.map(|opened| (opened.count, opened.failed)), Some((5, 5)));

    nrec(&["clean"])?.expect_code(0)?;
    check_nothing_is_left()?;
    send_traffic(port)?;
    assert!(application.terminate()?.success(), "the target was harmed");
    Ok(())
}

#[test]
fn the_next_recording_sweeps_what_a_killed_one_left() -> Result<()> {
    let name = "the_next_recording_sweeps_what_a_killed_one_left";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start("opens-mixed.js", folder.path(), &[])?;
    let recording = Recording::attach(workload.pid(), &["-e", "fs"])?;
    recording.signal(Signal::SIGKILL)?;
    recording.wait_killed()?;
    let recording = Recording::attach(workload.pid(), &["-e", "fs"])?;
    workload.go()?;
    let said = workload.finish()?;
    let recorded = recording.stop()?.complete()?;
    let report = Report::of(&recorded.capture())?;
    compare("the report", &said_opens(&said), &report.open_counts_below(folder.path()))?;
    check_nothing_is_left()
}

#[test]
fn an_existing_capture_is_kept_under_another_name_and_only_the_owner_reads_it() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let name = "an_existing_capture_is_kept_under_another_name_and_only_the_owner_reads_it";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let capture = folder.path().join("capture.nrec");
    std::fs::write(&capture, "the old one")?;
    let file = capture.to_string_lossy().into_owned();
    nrec(&["record", "-e", "cpu", "-o", &file, "--", "node", "-e", "0"])?.expect_code(0)?;
    assert_eq!(std::fs::read_to_string(Path::new(&format!("{file}.old")))?, "the old one");
    assert_eq!(std::fs::metadata(&capture)?.permissions().mode() & 0o777, 0o600);
    check_nothing_is_left()
}
