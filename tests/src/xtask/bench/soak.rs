//! A long recording, as `nrec record -p PID` makes it, of an application that serves without a
//! pause: whether the recorder's memory stays as it is, whether anything is lost, and whether
//! JavaScript keeps its names.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use harness::command::{Running, process_exists, run as run_quietly, wait_for};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::figures::float;
use super::names::{Flags, own_workload, said_number, start};
use super::observers::cpu_until_now;
use super::tools::Tools;
use crate::steps::announce;

/// Makes a soak of other than ten minutes.
const MINUTES_VARIABLE: &str = "NREC_SOAK_MINUTES";
const MINUTES: u32 = 10;
const FREQUENCY: &str = "99";
const MINUTE: Duration = Duration::from_secs(60);
/// Parts of the recording of which the names are counted.
const SLICES: u32 = 5;

/// Records and prints.
pub(crate) fn run(tools: &Tools) -> Result<()> {
    let wanted = std::env::var(MINUTES_VARIABLE).ok().and_then(|text| text.parse().ok());
    let minutes = wanted.filter(|minutes| *minutes > 0).unwrap_or(MINUTES);
    let folder = tempfile::tempdir()?;
    let capture = folder.path().join("soak.nrec");
    announce(&format!("soak: CPU samples at {FREQUENCY} Hz and opens, {minutes} minutes"));
    let seconds = format!("seconds={}", 60 * minutes);
    let script = own_workload("served-application.js");
    let mut target = start(Flags::None, &script, folder.path(), &seconds)?;
    let mut recorder = start_recorder(tools, target.pid(), &capture)?;
    target.go()?;
    watch(&mut recorder, target.pid(), &capture, minutes)?;
    target.wait_done()?;
    recorder.signal(Signal::SIGINT)?;
    let outcome = recorder.finish()?;
    if outcome.status.code() != Some(0) {
        println!("nrec ended with {}: {}", outcome.status, outcome.stderr.trim());
    }
    target.terminate()?;
    let said = target.finish()?;
    let requests = said_number(&said, "answered")? / said_number(&said, "seconds")?;
    println!("the application answered {requests:.0} requests/s");
    print_losses(&report(tools, &capture)?)?;
    print_slices(&slices(tools, &capture, MINUTE * minutes / SLICES)?, minutes);
    Ok(())
}

fn start_recorder(tools: &Tools, pid: u32, capture: &Path) -> Result<Running> {
    let mut command = tools.nrec(&["record", "-F", FREQUENCY, "-p", &pid.to_string(), "-o"]);
    let mut running = Running::start(command.arg(capture))?;
    wait_for("the recorder's file", || {
        if !running.is_running()? {
            bail!("nrec ended early: {}", running.messages()?);
        }
        Ok(capture.metadata().is_ok_and(|data| data.len() > 0).then_some(()))
    })?;
    Ok(running)
}

// One row a minute, from the beginning.
fn watch(recorder: &mut Running, target: u32, capture: &Path, minutes: u32) -> Result<()> {
    println!(
        "\n{:>6} {:>18} {:>10} {:>18} {:>12} {:>17}",
        "minute",
        "recorder RSS, MiB",
        "peak, MiB",
        "CPU since, % of one",
        "capture, MiB",
        "target RSS, MiB"
    );
    let begin = Instant::now();
    let mut before = Duration::ZERO;
    for minute in 0..=minutes {
        while begin.elapsed() < MINUTE * minute {
            std::thread::sleep(Duration::from_millis(200));
            if !recorder.is_running()? {
                bail!("nrec ended early: {}", recorder.messages()?);
            }
            if !process_exists(target) {
                bail!("the application ended early");
            }
        }
        let cpu = cpu_until_now(recorder.pid())?;
        let share = cpu.saturating_sub(before).as_secs_f64() / MINUTE.as_secs_f64() * 100.0;
        before = cpu;
        let share = if minute == 0 { "-".to_owned() } else { format!("{share:.2}") };
        println!(
            "{minute:>6} {:>18.1} {:>10.1} {share:>19} {:>12.2} {:>17.1}",
            memory(recorder.pid(), "VmRSS:")?,
            memory(recorder.pid(), "VmHWM:")?,
            float(capture.metadata()?.len()) / f64::from(1 << 20),
            memory(target, "VmRSS:")?,
        );
    }
    Ok(())
}

// MiB; proc_pid_status(5).
fn memory(pid: u32, key: &str) -> Result<f64> {
    let text = fs::read_to_string(PathBuf::from(format!("/proc/{pid}/status")))
        .context("the process is gone")?;
    memory_in(&text, key).with_context(|| format!("the kernel does not say {key}"))
}

fn memory_in(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(float(kibibytes) / 1024.0)
}

fn report(tools: &Tools, capture: &Path) -> Result<Value> {
    // 1 says that something is lost, which is in the report, too.
    let outcome = run_quietly(tools.nanalyze(&["report", "--json", "--top", "0"]).arg(capture))?;
    serde_json::from_str(&outcome.stdout)
        .with_context(|| format!("no report: {}", outcome.stderr.trim()))
}

// docs/report-json.md
fn print_losses(report: &Value) -> Result<()> {
    let events = report.pointer("/capture/by_event").and_then(Value::as_array);
    println!("\n{:20} {:>9} {:>9} {:>8} {:>8}", "event", "samples", "no stack", "lost", "dropped");
    for event in events.context("the report has no events")? {
        let number = |key: &str| event.get(key).and_then(Value::as_u64).unwrap_or(0);
        println!(
            "{:20} {:>9} {:>9} {:>8} {:>8}",
            event.get("event").and_then(Value::as_str).unwrap_or("?"),
            number("samples"),
            number("without_stack"),
            number("lost"),
            number("dropped")
        );
    }
    for frames in
        report.pointer("/stacks/unresolved").and_then(Value::as_array).into_iter().flatten()
    {
        let reason = frames.get("reason").and_then(Value::as_str).unwrap_or("?");
        let count = frames.get("frames").and_then(Value::as_u64).unwrap_or(0);
        println!("frames without a name: {count:>9} {reason}");
    }
    Ok(())
}

/// One part of the recording.
#[derive(Debug, Default, PartialEq, Eq)]
struct Slice {
    samples: u64,
    frames: u64,
    /// JavaScript frames, and unnamed ones of code made at run time.
    js: u64,
    js_named: u64,
}

// Reads what `nanalyze events` prints as it prints it: that is more than has to be kept.
fn slices(tools: &Tools, capture: &Path, length: Duration) -> Result<Vec<Slice>> {
    let mut command: Command = tools.nanalyze(&["events", "--json", "--stacks", "-e", "cpu"]);
    let mut child = command
        .arg(capture)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start nanalyze")?;
    let output = child.stdout.take().context("nanalyze has no standard output")?;
    let slices = count(BufReader::new(output), length)?;
    // 1 is said above: the capture is incomplete.
    let status = child.wait()?;
    if !matches!(status.code(), Some(0 | 1)) {
        bail!("nanalyze ended with {status}");
    }
    Ok(slices)
}

fn count(lines: impl BufRead, length: Duration) -> Result<Vec<Slice>> {
    let length = u64::try_from(length.as_nanos())?.max(1);
    let mut slices: BTreeMap<u64, Slice> = BTreeMap::new();
    let mut begin = None;
    for line in lines.lines() {
        let event: Value = serde_json::from_str(&line?).context("an event is not JSON")?;
        let time = event.get("time_ns").and_then(Value::as_u64).context("an event has no time")?;
        let begin = *begin.get_or_insert(time);
        // The last sample can come a little after the end.
        let index = (time.saturating_sub(begin) / length).min(u64::from(SLICES) - 1);
        let slice = slices.entry(index).or_default();
        slice.samples += 1;
        for frame in event.get("frames").and_then(Value::as_array).into_iter().flatten() {
            slice.add(frame);
        }
    }
    Ok(slices.into_values().collect())
}

impl Slice {
    // As the report counts them.
    fn add(&mut self, frame: &Value) {
        let is_named = frame.get("unresolved").is_none();
        self.frames += 1;
        match frame.get("kind").and_then(Value::as_str) {
            Some("js") => {
                self.js += 1;
                self.js_named += u64::from(is_named);
            }
            Some("jit") if !is_named => self.js += 1,
            _ => {}
        }
    }

    fn share(&self) -> f64 {
        if self.js == 0 { 0.0 } else { float(self.js_named) / float(self.js) * 100.0 }
    }
}

fn print_slices(slices: &[Slice], minutes: u32) {
    println!("\nCPU samples, parts of {:.1} minutes", f64::from(minutes) / f64::from(SLICES));
    println!(
        "{:>5} {:>9} {:>9} {:>10} {:>9} {:>9}",
        "part", "samples", "frames", "JavaScript", "unnamed", "named, %"
    );
    for (number, slice) in (1..).zip(slices) {
        let Slice { samples, frames, js, js_named } = slice;
        let unnamed = js - js_named;
        println!(
            "{number:>5} {samples:>9} {frames:>9} {js:>10} {unnamed:>9} {:>9.3}",
            slice.share()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_by_time() {
        let lines = concat!(
            r#"{"event":"cpu","time_ns":1000,"frames":[{"kind":"js","function":"f"},"#,
            r#"{"kind":"jit","unresolved":"jit-unknown"},{"kind":"native"}]}"#,
            "\n",
            r#"{"event":"cpu","time_ns":1100,"frames":[{"kind":"js","unresolved":"js-moved"}]}"#,
            "\n",
            r#"{"event":"cpu","time_ns":9900,"frames":[{"kind":"jit","function":"stub"}]}"#,
        );
        let counted = count(lines.as_bytes(), Duration::from_nanos(100)).unwrap();
        let of = |frames, js, js_named| Slice { samples: 1, frames, js, js_named };
        assert_eq!(counted, [of(3, 2, 1), of(1, 1, 0), of(1, 0, 0)]);
        assert!((counted[0].share() - 50.0).abs() < 1e-9 && counted[2].share() < 1e-9);
        assert!(count("x".as_bytes(), Duration::from_nanos(100)).is_err());
        assert!(count(r#"{"event":"cpu"}"#.as_bytes(), Duration::from_nanos(100)).is_err());
    }

    #[test]
    fn memory_of_a_process() {
        let status = "Name:\ta\nVmHWM:\t   2048 kB\nVmRSS:\t 1024 kB\n";
        assert_eq!(memory_in(status, "VmRSS:"), Some(1.0));
        assert_eq!(memory_in(status, "VmHWM:"), Some(2.0));
        assert_eq!(memory_in("State:\tZ (zombie)\n", "VmRSS:"), None);
    }
}
