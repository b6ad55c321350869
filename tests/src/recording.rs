//! Runs `nrec record` around a workload, with an exact beginning and end.
//!
//! `nrec record -p PID -- COMMAND` starts COMMAND when it is armed and stops when it ends. COMMAND
//! here makes one file and waits for another: the first tells the test that the probes are in
//! place, with the second the test ends the recording.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::binaries;
use crate::command::{Outcome, Running, run, wait_for};
use crate::workload::perf_map;

// `kill -0`: a recorder that was killed must not leave this waiting for ever.
pub(crate) const GATE: &str =
    r#": > "$0"; while [ ! -e "$1" ] && kill -0 "$PPID" 2>/dev/null; do sleep 0.02; done"#;

/// A running recorder.
#[derive(Debug)]
pub struct Recording {
    running: Running,
    folder: TempDir,
}

impl Recording {
    /// Attaches to a process and waits until the probes are in place.
    ///
    /// # Errors
    /// If the recorder ends before.
    pub fn attach(pid: u32, options: &[&str]) -> Result<Self> {
        let recording = Self::start(pid, options, None)?;
        recording.wait_armed()
    }

    /// Like [`Recording::attach`], with the capture in a file of the caller's choice.
    ///
    /// # Errors
    /// If the recorder ends before.
    pub fn attach_to_file(pid: u32, options: &[&str], capture: &Path) -> Result<Self> {
        Self::start(pid, options, Some(capture))?.wait_armed()
    }

    /// Sends a signal to the recorder.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.running.signal(signal)
    }

    /// The recorder's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Ends the recording and waits for the recorder.
    ///
    /// # Errors
    /// If it does not end, or crashes. Its exit code is the caller's to judge.
    pub fn stop(self) -> Result<Recorded> {
        std::fs::write(self.folder.path().join("end"), "")?;
        self.wait_end()
    }

    /// Waits until the recorder ends for another reason.
    ///
    /// # Errors
    /// If it does not end, or crashes.
    pub fn wait_end(self) -> Result<Recorded> {
        let outcome = self.running.finish()?.expect_no_crash()?;
        Ok(Recorded { outcome, folder: self.folder })
    }

    /// Waits for a recorder that was killed.
    ///
    /// # Errors
    /// If it does not end.
    pub fn wait_killed(self) -> Result<Recorded> {
        let outcome = self.running.finish()?;
        Ok(Recorded { outcome, folder: self.folder })
    }

    fn start(pid: u32, options: &[&str], capture: Option<&Path>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(binaries::nrec()?);
        let own = folder.path().join("capture.nrec");
        command.args(["record", "-p", &pid.to_string()]).args(options);
        command.arg("-o").arg(capture.unwrap_or(&own)).args(["--", "sh", "-c", GATE]);
        command.arg(folder.path().join("armed")).arg(folder.path().join("end"));
        Ok(Self { running: Running::start(&mut command)?, folder })
    }

    fn wait_armed(mut self) -> Result<Self> {
        let armed = self.folder.path().join("armed");
        wait_for("the recorder to arm its probes", || {
            if armed.exists() {
                return Ok(Some(()));
            }
            if !self.running.is_running()? {
                bail!("the recorder ended before it was armed: {}", self.running.messages()?);
            }
            Ok(None)
        })?;
        Ok(self)
    }
}

/// A recording that has ended.
#[derive(Debug)]
pub struct Recorded {
    /// What the recorder said.
    pub outcome: Outcome,
    folder: TempDir,
}

impl Recorded {
    /// The capture.
    #[must_use]
    pub fn capture(&self) -> PathBuf {
        self.folder.path().join("capture.nrec")
    }

    /// Fails unless the recorder says that nothing is missing.
    ///
    /// # Errors
    /// With its messages, if its exit code is not 0.
    pub fn complete(self) -> Result<Self> {
        Ok(Self { outcome: self.outcome.expect_code(0)?, folder: self.folder })
    }
}

/// Runs `nrec record OPTIONS -- COMMAND` to its end and returns what the workload said, too. It runs
/// in the command's folder, if it has one.
///
/// # Errors
/// If the recorder cannot be run or crashes.
pub fn record_command(options: &[&str], target: &Command) -> Result<(Recorded, Vec<Value>)> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(binaries::nrec()?);
    // V8 writes a log of its own into the working folder.
    command.current_dir(target.get_current_dir().unwrap_or(folder.path()));
    command.arg("record").args(options).arg("-o").arg(folder.path().join("capture.nrec"));
    command.arg("--").arg(target.get_program()).args(target.get_args());
    let outcome = run(&mut command)?.expect_no_crash()?;
    let said: Vec<Value> = outcome.stdout.lines().flat_map(serde_json::from_str).collect();
    for record in &said {
        let pid = record.get("pid").or_else(|| record.get("ready")).and_then(Value::as_u64);
        if let Some(pid) = pid {
            drop(std::fs::remove_file(perf_map(pid)));
        }
    }
    Ok((Recorded { outcome, folder }, said))
}

/// Runs `nrec WORDS...` to its end.
///
/// # Errors
/// If it cannot be run or crashes.
pub fn nrec(words: &[&str]) -> Result<Outcome> {
    run(Command::new(binaries::nrec()?).args(words))?.expect_no_crash()
}
