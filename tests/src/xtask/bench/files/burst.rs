//! 100 000 operations a second, and as many as the machine does: how many are in the capture, with and
//! without stacks, how many were lost, and what the recorder says of it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use harness::command::{self, Running, wait_for};
use harness::workload::Workload;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::bench::tools::Tools;
use crate::steps::announce;

const WANTED: u32 = 100_000;
const UNLIMITED: u32 = 10_000_000;
/// `how` of busy-files.js.
const WAYS: [(&str, u32); 2] = [("in the main thread", 0), ("by four pool threads", 1)];
const OPTIONS: [(&str, &[&str]); 2] =
    [("default rings", &[]), ("--buffer-size 64m", &["--buffer-size", "64m"])];

/// What became of the operations of one run.
#[derive(Debug, Default)]
struct Kept {
    made: u64,
    a_second: u64,
    kept: u64,
    without_stack: u64,
    lost: u64,
    said: Vec<String>,
}

/// Measures and prints.
pub(super) fn run(tools: &Tools) -> Result<()> {
    announce("many operations a second");
    println!(
        "\noperations for three seconds\n{:46} {:>10} {:>10} {:>10} {:>9} {:>12} {:>8}",
        "", "alone/s", "watched/s", "made", "kept %", "with stack %", "lost"
    );
    let mut said = Vec::new();
    for rate in [WANTED, UNLIMITED] {
        for (way, how) in WAYS {
            let alone = busy(how, rate, None)?.a_second;
            for (what, options) in OPTIONS {
                let kept = busy(how, rate, Some((tools, options)))?;
                let wanted = if rate == WANTED { "100 000/s" } else { "unlimited" };
                let name = format!("{way}, {wanted}, {what}");
                println!(
                    "{name:46} {alone:>10} {:>10} {:>10} {:>9} {:>12} {:>8}",
                    kept.a_second,
                    kept.made,
                    percent(kept.kept, kept.made),
                    percent(kept.kept.saturating_sub(kept.without_stack), kept.made),
                    kept.lost
                );
                said.extend(kept.said.into_iter().map(|line| format!("{name}: {line}")));
            }
        }
    }
    said.iter().for_each(|line| println!("{line}"));
    Ok(())
}

fn percent(part: u64, of: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let percent = part as f64 * 100.0 / of.max(1) as f64;
    format!("{percent:.2}")
}

fn busy(how: u32, rate: u32, recorded: Option<(&Tools, &[&str])>) -> Result<Kept> {
    let folder = tempfile::tempdir()?;
    let options = [format!("how={how}"), format!("rate={rate}")];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut workload = Workload::start("busy-files.js", folder.path(), &options)?;
    let recorder = match recorded {
        Some((tools, options)) => Some(start(workload.pid(), tools, options, folder.path())?),
        None => None,
    };
    workload.go()?;
    let said = workload.finish()?;
    let number = |key: &str| said.iter().find_map(|record| record.get(key)?.as_u64());
    let made = number("operations").context("the workload did not say what it did")?;
    let a_second = number("per_second").unwrap_or_default();
    let (Some((tools, _)), Some(recorder)) = (recorded, recorder) else {
        return Ok(Kept { made, a_second, ..Kept::default() });
    };
    // It may have ended with its target.
    drop(recorder.signal(Signal::SIGINT));
    let outcome = recorder.finish()?.expect_no_crash()?;
    let lines = outcome.stderr.lines().filter(|line| line.contains("lost:"));
    let said = lines.map(str::to_owned).collect();
    let capture = folder.path().join("capture.nrec");
    Ok(Kept { made, a_second, said, ..read(tools, &capture, folder.path())? })
}

fn start(pid: u32, tools: &Tools, options: &[&str], folder: &Path) -> Result<Running> {
    let armed = folder.join("armed");
    let mut command = tools.nrec(&["record", "-e", "fs", "-p", &pid.to_string()]);
    command.args(options).arg("-o").arg(folder.join("capture.nrec"));
    command.args(["--", "sh", "-c", r#": > "$0"; exec sleep 1000"#]).arg(&armed);
    let mut running = Running::start(&mut command)?;
    wait_for("the recorder", || {
        if !running.is_running()? {
            bail!("nrec ended early: {}", running.messages()?);
        }
        Ok(armed.exists().then_some(()))
    })?;
    Ok(running)
}

fn read(tools: &Tools, capture: &Path, folder: &Path) -> Result<Kept> {
    let mut command: Command = tools.nanalyze(&["report", "--json"]);
    let outcome =
        command::run(command.arg("--path").arg(folder.join("busy-file.txt")).arg(capture))?;
    let report: Value = serde_json::from_str(&outcome.expect_no_crash()?.stdout)?;
    let rows = report["operations"].as_array().cloned().unwrap_or_default();
    let of_access = rows.iter().filter(|row| row["operation"] == "access");
    let events = report["capture"]["by_event"].as_array().cloned().unwrap_or_default();
    let sum = |key: &str| events.iter().filter_map(|event| event[key].as_u64()).sum();
    Ok(Kept {
        kept: of_access.filter_map(|row| row["count"].as_u64()).sum(),
        without_stack: sum("without_stack"),
        lost: sum("lost"),
        ..Kept::default()
    })
}
