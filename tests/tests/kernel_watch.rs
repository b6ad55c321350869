//! `nrec watch`: what a running program does is on the screen while it does it, and no file is left.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use harness::binaries::{self, fixture, require_program};
use harness::command::{PATIENCE, run, send_signal, wait_for};
use harness::kernel::{left_dynamic_events, take_turn, tell};
use harness::report::{Report, nanalyze};
use harness::workload::Workload;
use nix::sys::signal::Signal;
use serde_json::Value;

const SCRIPT: &str = "workloads/missing-file.js";

fn check_nothing_is_left() -> Result<()> {
    let left = left_dynamic_events()?;
    assert!(left.is_empty(), "dynamic events were left behind: {left:#?}");
    Ok(())
}

/// A program that asks for a missing file.
fn start_asking(folder: &Path) -> Result<Workload> {
    let mut command = Command::new(require_program("node")?);
    Workload::start_plain(command.arg(fixture(SCRIPT)).arg(folder))
}

/// Where in the program it asks: the truth is its text.
fn asking_line() -> Result<String> {
    let text = fs::read_to_string(fixture(SCRIPT))?;
    let line = text.lines().position(|line| line.contains("fs.readFile(")).context("no call")?;
    Ok(format!("missing-file.js:{}:", line + 1))
}

/// JSON lines in a fixed order, without what is known only when all is (decisions/0008).
fn told_live(lines: &[String]) -> Result<Vec<String>> {
    let mut told = Vec::new();
    for line in lines {
        let mut event: Value = serde_json::from_str(line)?;
        let arguments = event.get_mut("args").and_then(Value::as_object_mut);
        arguments.context("no arguments")?.remove("syscall_ns");
        told.push(event.to_string());
    }
    told.sort_unstable();
    Ok(told)
}

/// A live view whose lines are read as they come; ended when dropped.
struct Watch {
    child: Child,
    lines: Receiver<String>,
}

impl Watch {
    fn start(folder: &Path, pid: u32, options: &[&str]) -> Result<Self> {
        let mut command = Command::new(binaries::nrec()?);
        command.args(["watch", "-p", &pid.to_string()]).args(options).current_dir(folder);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let stdout = BufReader::new(child.stdout.take().context("no output")?);
        let (to, lines) = channel();
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).all(|line| to.send(line).is_ok());
        });
        Ok(Self { child, lines })
    }

    fn next_line(&self) -> Result<String> {
        self.lines.recv_timeout(PATIENCE).context("nothing was printed")
    }

    fn nanalyze(&self) -> Result<u32> {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        wait_for("nanalyze", || {
            let children = fs::read_to_string(&children)?;
            Ok(children.split_whitespace().next().map(str::parse).transpose()?)
        })
    }

    /// Waits for the end; gives what it said.
    fn end(mut self, code: i32) -> Result<String> {
        let status = wait_for("the end of nrec watch", || Ok(self.child.try_wait()?))?;
        let mut said = String::new();
        self.child.stderr.take().context("no messages")?.read_to_string(&mut said)?;
        assert_eq!(status.code(), Some(code), "{said}");
        Ok(said)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Not killed: it has dynamic events to remove. Both fail only if it has ended.
        drop(send_signal(self.child.id(), Signal::SIGTERM));
        drop(self.child.wait());
    }
}

#[test]
fn a_failing_open_is_on_the_screen_while_the_program_runs() -> Result<()> {
    let name = "a_failing_open_is_on_the_screen_while_the_program_runs";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut workload = start_asking(folder.path())?;
    let watch = Watch::start(folder.path(), workload.pid(), &["--failed"])?;
    let path = folder.path().join("app.conf");
    for _ in 0..5 {
        let line = watch.next_line()?;
        let wanted = [
            format!("open(\"{}\"", path.display()),
            "ENOENT".into(),
            "loadConfig".into(),
            asking_line()?,
        ];
        assert!(wanted.iter().all(|part| line.contains(part)), "{wanted:?} in {line}");
    }
    // It is the program that runs that was watched, and no file was needed.
    assert_eq!(fs::read_dir(folder.path())?.count(), 0);
    send_signal(watch.child.id(), Signal::SIGINT)?;
    let said = watch.end(0)?;
    assert!(said.contains("watched (interrupted)") && said.contains(" 0 lost"), "{said}");
    assert!(said.contains(" file operations completed, "), "{said}");
    assert!(workload.terminate()?.success());
    assert_eq!(fs::read_dir(folder.path())?.count(), 0);
    check_nothing_is_left()
}

#[test]
fn a_reader_that_has_enough_ends_the_live_view() -> Result<()> {
    let name = "a_reader_that_has_enough_ends_the_live_view";
    let Some(_turn) = take_turn(name, &["node", "bash"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut workload = start_asking(folder.path())?;
    let line = "set -o pipefail; \"$0\" watch -p \"$1\" --failed | head -n 1";
    let mut command = Command::new("bash");
    command.args(["-c", line]).arg(binaries::nrec()?).arg(workload.pid().to_string());
    let outcome = run(&mut command)?.expect_code(0)?;
    assert_eq!(outcome.stdout.lines().count(), 1, "{}", outcome.stdout);
    assert!(outcome.stderr.contains("nobody reads any more"), "{}", outcome.stderr);
    assert!(workload.terminate()?.success());
    check_nothing_is_left()
}

#[test]
fn the_targets_end_ends_the_live_view() -> Result<()> {
    let name = "the_targets_end_ends_the_live_view";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut workload = start_asking(folder.path())?;
    let capture = folder.path().join("kept.nrec");
    let options = ["--json", "-o", "kept.nrec"];
    let watch = Watch::start(folder.path(), workload.pid(), &options)?;
    let mut lines = vec![watch.next_line()?];
    assert!(workload.terminate()?.success());
    lines.extend(watch.lines.iter());
    let said = watch.end(0)?;
    assert!(said.contains("watched (the target ended)"), "{said}");
    // The capture that was kept is whole, and holds what was printed.
    assert!(Report::of(&capture)?.capture.complete);
    let events = nanalyze(&["events", "-e", "fs", "--json"], &capture)?;
    let kept: Vec<String> = events.stdout.lines().map(str::to_owned).collect();
    assert_eq!(told_live(&lines)?, told_live(&kept)?);
    check_nothing_is_left()
}

#[test]
fn without_nanalyze_it_says_what_to_do_and_arms_nothing() -> Result<()> {
    let name = "without_nanalyze_it_says_what_to_do_and_arms_nothing";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let alone = folder.path().join("nrec");
    fs::copy(binaries::nrec()?, &alone)?;
    let pid = std::process::id().to_string();
    let outcome = run(Command::new(&alone).args(["watch", "-p", &pid]).env("PATH", "/nowhere"))?
        .expect_code(2)?;
    let said = &outcome.stderr;
    assert!(said.contains("nanalyze is neither beside this program"), "{said}");
    assert!(said.contains("what helps: put nanalyze beside nrec"), "{said}");
    assert!(!said.contains("arming"), "{said}");
    check_nothing_is_left()
}

/// Resident memory now, KiB.
fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
    Ok(number.parse()?)
}

#[test]
fn the_memory_of_a_live_view_does_not_grow() -> Result<()> {
    let name = "the_memory_of_a_live_view_does_not_grow";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start("open-loop.js", folder.path(), &["count=1000000000"])?;
    // Not each is printed: the target is faster than any terminal.
    let watch = Watch::start(folder.path(), workload.pid(), &["--slow", "10s"])?;
    let nanalyze = watch.nanalyze()?;
    workload.go()?;
    let mut figures = Vec::new();
    for second in 1..=12 {
        sleep(Duration::from_secs(1));
        if watch.lines.try_recv().is_ok() {
            bail!("an open took more than 10 s");
        }
        if second % 3 == 0 {
            figures.push((resident(watch.child.id())?, resident(nanalyze)?));
        }
    }
    send_signal(watch.child.id(), Signal::SIGINT)?;
    let status = wait_for("the end of nrec watch", {
        let mut watch = watch;
        move || {
            let Some(status) = watch.child.try_wait()? else { return Ok(None) };
            let mut said = String::new();
            watch.child.stderr.take().context("no messages")?.read_to_string(&mut said)?;
            Ok(Some((status, said)))
        }
    })?;
    // Losses are told, and are not what this is about.
    assert!(status.0.code().is_some_and(|code| code < 2), "{}", status.1);
    tell(&format!("watch of a hot target, KiB (nrec, nanalyze) each 3 s: {figures:?}"))?;
    tell(&status.1.lines().rev().take(4).collect::<Vec<_>>().join(" | "))?;
    // A chunk of a fast target is some ten MiB while it is taken apart; what grows raises the least.
    let least = |of: fn(&(u64, u64)) -> u64| figures[1..].iter().map(of).min();
    let allowed = 16 << 10;
    let is_flat =
        |of: fn(&(u64, u64)) -> u64| least(of).is_some_and(|kib| kib < of(&figures[0]) + allowed);
    assert!(is_flat(|kib| kib.0) && is_flat(|kib| kib.1), "{figures:?}");
    send_signal(workload.pid(), Signal::SIGKILL)?;
    check_nothing_is_left()
}
