//! Programs that watch the file operations of a process, each started, awaited and stopped in its
//! own way.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use harness::binaries::{find_program, require_program};
use harness::command::{Running, wait_for};
use nix::sys::signal::Signal;

use crate::bench::tools::Tools;

/// A way of watching.
#[derive(Debug)]
pub(super) struct Watcher {
    /// For the table.
    pub(super) name: &'static str,
    how: How,
}

#[derive(Debug, Clone, Copy)]
enum How {
    /// The recorder, with these options.
    Nrec(&'static [&'static str]),
    /// strace, with these options.
    Strace(&'static [&'static str]),
    /// bpftrace: a probe, the action, and whether the probe is in the target's binary.
    Bpftrace(&'static str, &'static str, bool),
}

/// All of them, the cheapest first.
pub(super) const WATCHERS: [Watcher; 6] = [
    Watcher { name: "nrec record -e fs", how: How::Nrec(&["-e", "fs"]) },
    Watcher { name: "nrec record (CPU samples, too)", how: How::Nrec(&[]) },
    Watcher {
        name: "bpftrace uprobe uv_fs_open, printf",
        how: How::Bpftrace("uv_fs_open", r#"printf("%d %s\n", tid, str(arg2))"#, true),
    },
    Watcher {
        name: "bpftrace tracepoint openat, printf",
        how: How::Bpftrace(
            "tracepoint:syscalls:sys_enter_openat",
            r#"printf("%d %s\n", tid, str(args->filename))"#,
            false,
        ),
    },
    Watcher { name: "strace -f -e trace=file", how: How::Strace(&["-e", "trace=file"]) },
    Watcher { name: "strace -f", how: How::Strace(&[]) },
];

impl Watcher {
    /// Whether this machine has the program.
    pub(super) fn is_there(&self) -> bool {
        match self.how {
            How::Nrec(_) => true,
            How::Strace(_) => find_program("strace").is_some(),
            How::Bpftrace(..) => Tools::bpftrace().is_some(),
        }
    }

    /// Starts it and waits until it watches.
    pub(super) fn start(&self, pid: u32, tools: &Tools, place: &Path) -> Result<Watching> {
        let (output, armed) = (place.join("recorded"), place.join("armed"));
        let pid = pid.to_string();
        let mut command = match self.how {
            How::Nrec(options) => {
                let mut command = tools.nrec(&["record", "-p", &pid]);
                command.args(options).arg("-o").arg(&output).args(["--", "sh", "-c"]);
                // Started when all probes are armed, and ended by the recorder.
                command.arg(r#": > "$0"; exec sleep 1000"#).arg(&armed);
                command
            }
            How::Strace(options) => {
                let mut command = Command::new(require_program("strace")?);
                command.args(["-f", "-o"]).arg(&output).args(options).args(["-p", &pid]);
                command
            }
            How::Bpftrace(probe, action, in_binary) => {
                let mut command = Command::new(Tools::bpftrace().context("bpftrace is missing")?);
                let binary = fs::canonicalize(require_program("node")?)?;
                let probe = if in_binary {
                    format!("uprobe:{}:{probe}", binary.display())
                } else {
                    probe.to_owned()
                };
                let script = format!(
                    r#"BEGIN {{ printf("armed\n"); }} {probe} /pid == {pid}/ {{ {action}; }}"#
                );
                command.arg("-o").arg(&output).args(["-e", &script]);
                command
            }
        };
        let mut running = Running::start(&mut command)?;
        wait_for(self.name, || {
            let is_armed = match self.how {
                How::Nrec(_) => armed.exists(),
                How::Strace(_) => running.messages()?.contains("attached"),
                How::Bpftrace(..) => {
                    fs::read_to_string(&output).is_ok_and(|text| text.contains("armed\n"))
                }
            };
            if !is_armed && !running.is_running()? {
                bail!("{} ended early: {}", self.name, running.messages()?);
            }
            Ok(is_armed.then_some(()))
        })?;
        Ok(Watching { name: self.name, running })
    }
}

/// A watcher at work.
#[derive(Debug)]
pub(super) struct Watching {
    name: &'static str,
    running: Running,
}

impl Watching {
    /// Ends it, and says what it says of losses.
    pub(super) fn stop(self) -> Result<()> {
        self.running.signal(Signal::SIGINT)?;
        let outcome = self.running.finish()?.expect_no_crash();
        // strace ends by the signal that it was sent.
        let Ok(outcome) = outcome else { return Ok(()) };
        for line in outcome.stderr.lines().filter(|line| is_about_losses(line)) {
            println!("{}: {line}", self.name);
        }
        Ok(())
    }
}

fn is_about_losses(line: &str) -> bool {
    let line = line.to_lowercase();
    line.contains("lost") && !line.contains(" 0 lost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_told() {
        assert!(is_about_losses("Lost 17 events"));
        assert!(is_about_losses("nrec: 51 records lost: they came faster"));
        assert!(!is_about_losses("nrec: capture.nrec, 18.1 KiB, 0 lost"));
    }
}
