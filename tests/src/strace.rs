//! Runs `strace` beside a workload: a second observer, independent of uprobes and of perf.
//!
//! Measured on Linux 6.18: ptrace by strace and uprobes by perf hold on one process at the same time.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::binaries;
use crate::command::{Running, wait_for};
use crate::strace_log::{StraceLog, parse_log};

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
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("strace.log");
        let mut command = Command::new(binaries::require_program("strace")?);
        // 8192 is more than PATH_MAX, so that no path is cut.
        command.args([
            "-f",
            "-y",
            "-k",
            "-s",
            "8192",
            "-e",
            "trace=open,openat",
            "-e",
            "signal=none",
        ]);
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
    pub fn finish(mut self) -> Result<StraceLog> {
        if self.running.is_running()? {
            // Fails if it ends just now, which is as good.
            drop(self.running.signal(Signal::SIGINT));
        }
        self.running.finish()?;
        let bytes = std::fs::read(&self.log).context("cannot read the log of strace")?;
        let log = parse_log(&String::from_utf8_lossy(&bytes));
        if let Some(line) = log.unreadable.first() {
            bail!("cannot read a line of strace's log: {line}");
        }
        Ok(log)
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
