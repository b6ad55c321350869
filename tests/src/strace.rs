//! Runs `strace` beside a workload: a second observer, independent of uprobes and of perf.
//!
//! Measured on Linux 6.18: ptrace by strace and uprobes by perf hold on one process at the same time.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::binaries;
use crate::command::{Running, wait_for};
use crate::strace_calls::{PathCall, TRACE, parse_calls};
use crate::strace_counts::{Counts, count_calls};
use crate::strace_log::{StraceLog, parse_log};

// 8192 is more than PATH_MAX, so that no path is cut.
const COMMON: [&str; 6] = ["-f", "-y", "-s", "8192", "-e", "signal=none"];

/// The command that starts a program below strace, which writes all calls that take a path to `log`.
/// Only they stop the program.
///
/// # Errors
/// If strace is missing.
pub fn launch_paths(log: &Path) -> Result<Command> {
    let mut command = Command::new(binaries::require_program("strace")?);
    command.args(COMMON).args(["--seccomp-bpf", "-e", TRACE, "-o"]).arg(log);
    Ok(command)
}

/// A running `strace`.
#[derive(Debug)]
pub struct Strace {
    running: Running,
    log: PathBuf,
    _folder: TempDir,
}

impl Strace {
    /// Attaches to all threads of a process and waits until that is done. The stack of every open
    /// is taken too, so that what libuv did can be told from the rest.
    ///
    /// # Errors
    /// If strace is missing or may not attach.
    pub fn attach(pid: u32) -> Result<Self> {
        Self::attach_tracing(pid, &["-k", "-e", "trace=open,openat"])
    }

    /// Like [`Strace::attach`], for all system calls that take a path, without their stacks.
    ///
    /// # Errors
    /// If strace is missing or may not attach.
    pub fn attach_paths(pid: u32) -> Result<Self> {
        Self::attach_tracing(pid, &["-e", TRACE])
    }

    /// Like [`Strace::attach`], for all system calls, without their stacks.
    ///
    /// # Errors
    /// If strace is missing or may not attach.
    pub fn attach_all(pid: u32) -> Result<Self> {
        Self::attach_tracing(pid, &["-e", "trace=all"])
    }

    /// Like [`Strace::finish`], after [`Strace::attach_all`].
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn finish_counts(self) -> Result<Counts> {
        Ok(count_calls(&self.end()?))
    }

    fn attach_tracing(pid: u32, what: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("strace.log");
        let mut command = Command::new(binaries::require_program("strace")?);
        command.args(COMMON).args(what);
        command.arg("-o").arg(&log).arg("-p").arg(pid.to_string());
        let mut running = Running::start(&mut command)?;
        wait_for("strace to attach", || {
            let messages = running.messages()?;
            if messages.contains("attached") {
                return Ok(Some(()));
            }
            if !running.is_running()? {
                bail!("strace cannot attach to process {pid}: {messages}");
            }
            Ok(None)
        })?;
        Ok(Self { running, log, _folder: folder })
    }

    /// Detaches, unless the process has ended, and reads the log.
    ///
    /// # Errors
    /// If a line of the log cannot be read.
    pub fn finish(self) -> Result<StraceLog> {
        let log = parse_log(&self.end()?);
        if let Some(line) = log.unreadable.first() {
            bail!("cannot read a line of strace's log: {line}");
        }
        Ok(log)
    }

    /// Like [`Strace::finish`], after [`Strace::attach_paths`].
    ///
    /// # Errors
    /// If a line of the log cannot be read.
    pub fn finish_paths(self) -> Result<Vec<PathCall>> {
        readable_calls(&self.end()?)
    }

    fn end(mut self) -> Result<String> {
        if self.running.is_running()? {
            // Fails if it ends just now, which is as good.
            drop(self.running.signal(Signal::SIGINT));
        }
        self.running.finish()?;
        let bytes = std::fs::read(&self.log).context("cannot read the log of strace")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Reads the log of [`launch_paths`].
///
/// # Errors
/// If it or a line of it cannot be read.
pub fn read_paths(log: &Path) -> Result<Vec<PathCall>> {
    let bytes = std::fs::read(log).context("cannot read the log of strace")?;
    readable_calls(&String::from_utf8_lossy(&bytes))
}

fn readable_calls(text: &str) -> Result<Vec<PathCall>> {
    let log = parse_calls(text);
    match log.unreadable.first() {
        Some(line) => bail!("cannot read a line of strace's log: {line}"),
        None => Ok(log.calls),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::truth;
    use crate::workload::Workload;

    #[test]
    fn strace_sees_what_the_workload_says() {
        if let Err(reason) = binaries::require_program("strace") {
            return crate::kernel::skip("strace_sees_what_the_workload_says", &reason).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let mut workload = Workload::start("opens-mixed.js", folder.path(), &[]).unwrap();
        let strace = Strace::attach(workload.pid()).unwrap();
        workload.go().unwrap();
        let said = workload.finish().unwrap();
        let log = strace.finish().unwrap();
        let seen = log.opens.iter().filter(|traced| truth::is_below(&traced.open, folder.path()));
        assert!(seen.clone().all(crate::strace_log::TracedOpen::is_libuvs));
        let seen = truth::count(seen.map(|traced| traced.open.clone()));
        truth::compare("strace", &truth::said_opens(&said), &seen).unwrap();
        assert_eq!(log.unfinished, 0);
    }
}
