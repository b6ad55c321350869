//! Starts a Node workload of `fixtures/workloads` and talks to it; `protocol.js` has the other half.
//!
//! It must not know what a workload does: what it says is kept as JSON.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::binaries;
use crate::command::{PATIENCE, wait_for};

/// The flags that give every JavaScript function a name in `/tmp/perf-PID.map` and a frame of its own.
pub const PERF_FLAGS: [&str; 2] = ["--perf-basic-prof", "--interpreted-frames-native-stack"];

/// A running Node process and all its children; they are killed, and their perf maps removed, on drop.
#[derive(Debug)]
pub struct Workload {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    said: Vec<Value>,
    _working_folder: TempDir,
}

impl Workload {
    /// Starts `fixtures/workloads/NAME` and waits until it is ready. It then waits for
    /// [`Workload::go`].
    ///
    /// # Errors
    /// If Node cannot be started or the workload ends before it is ready.
    pub fn start(name: &str, folder: &Path, options: &[&str]) -> Result<Self> {
        Self::start_with(&binaries::require_program("node")?, name, folder, options)
    }

    /// Like [`Workload::start`], with a Node binary of the caller's choice.
    ///
    /// # Errors
    /// If Node cannot be started or the workload ends before it is ready.
    pub fn start_with(node: &Path, name: &str, folder: &Path, options: &[&str]) -> Result<Self> {
        Self::start_flagged(node, &[], name, folder, options)
    }

    /// Like [`Workload::start`], with [`PERF_FLAGS`].
    ///
    /// # Errors
    /// If Node cannot be started or the workload ends before it is ready.
    pub fn start_mapped(name: &str, folder: &Path, options: &[&str]) -> Result<Self> {
        let node = binaries::require_program("node")?;
        Self::start_flagged(&node, &PERF_FLAGS, name, folder, options)
    }

    /// Like [`Workload::start_with`], with flags for Node.
    ///
    /// # Errors
    /// If Node cannot be started or the workload ends before it is ready.
    pub fn start_flagged(
        node: &Path,
        flags: &[&str],
        name: &str,
        folder: &Path,
        options: &[&str],
    ) -> Result<Self> {
        let mut command = Command::new(node);
        command.args(flags).arg(binaries::fixture("workloads").join(name)).arg(folder);
        Self::start_command(command.args(options))
    }

    /// Starts a workload by a command of the caller's choice and waits until it is ready.
    ///
    /// # Errors
    /// If it cannot be started or ends before it is ready.
    pub fn start_command(command: &mut Command) -> Result<Self> {
        let mut workload = Self::spawn(command)?;
        workload.hear_until(|record| record.get("ready").is_some())?;
        Ok(workload)
    }

    /// Starts the Express application of `fixtures/app` and returns it with its port.
    ///
    /// # Errors
    /// If it cannot be started: `npm ci` has perhaps not been run.
    pub fn start_application() -> Result<(Self, u16)> {
        Self::start_flagged_application(&[])
    }

    /// Like [`Workload::start_application`], with flags for Node.
    ///
    /// # Errors
    /// If it cannot be started: `npm ci` has perhaps not been run.
    pub fn start_flagged_application(flags: &[&str]) -> Result<(Self, u16)> {
        Self::start_server(&binaries::fixture("app/server.js"), flags)
    }

    /// Starts a server that obeys `PORT` and `EXIT_WITH_STDIN` and says `listening on PORT`, and
    /// returns it with its port.
    ///
    /// # Errors
    /// If it cannot be started: its packages have perhaps not been installed.
    pub fn start_server(script: &Path, flags: &[&str]) -> Result<(Self, u16)> {
        let mut command = Command::new(binaries::require_program("node")?);
        command.args(flags).arg(script).envs([("PORT", "0"), ("EXIT_WITH_STDIN", "1")]);
        let workload = Self::spawn(&mut command)?;
        let line = workload.next_line()?.context("the application ended before it listened")?;
        let port = line
            .strip_prefix("listening on ")
            .and_then(|port| port.parse().ok())
            .with_context(|| format!("the application said {line:?}"))?;
        Ok((workload, port))
    }

    /// Starts a script that does not speak JSON, and waits until it says `ready`.
    ///
    /// # Errors
    /// If it cannot be started or says something else.
    pub fn start_plain(command: &mut Command) -> Result<Self> {
        let workload = Self::spawn(command)?;
        match workload.next_line()? {
            Some(line) if line == "ready" => Ok(workload),
            other => bail!("the script said {other:?} instead of ready"),
        }
    }

    /// Waits for the next line of a script that does not speak JSON.
    ///
    /// # Errors
    /// If it ends before, or says nothing within [`PATIENCE`].
    pub fn wait_line(&self) -> Result<String> {
        self.next_line()?.context("the script ended too early")
    }

    /// Waits for the end, whatever the status.
    ///
    /// # Errors
    /// If it does not end within [`PATIENCE`].
    pub fn wait_end(&mut self) -> Result<ExitStatus> {
        self.wait()
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process id of the first `node` below the process that was started, where that one is
    /// only the program that made a container for it.
    ///
    /// # Errors
    /// If there is none.
    pub fn node_pid(&self) -> Result<u32> {
        let mut pids = vec![self.pid()];
        while let Some(pid) = pids.pop() {
            let process = Path::new("/proc").join(pid.to_string());
            if std::fs::read_to_string(process.join("comm")).is_ok_and(|comm| comm == "node\n") {
                return Ok(pid);
            }
            let children = process.join("task").join(pid.to_string()).join("children");
            let children = std::fs::read_to_string(children).unwrap_or_default();
            pids.extend(children.split_whitespace().flat_map(str::parse::<u32>));
        }
        bail!("there is no node below process {}", self.pid())
    }

    /// Lets the workload begin.
    ///
    /// # Errors
    /// If it has ended.
    pub fn go(&mut self) -> Result<()> {
        let mut stdin = self.stdin.take().context("the workload was told to go twice")?;
        stdin.write_all(b"go\n").context("cannot tell the workload to go")
    }

    /// Waits until the workload has done its work; it may still be running.
    ///
    /// # Errors
    /// If it ends before, or takes longer than [`PATIENCE`].
    pub fn wait_done(&mut self) -> Result<()> {
        self.hear_until(|record| record.get("done").is_some())
    }

    /// Waits until a workload that was started with `--stay` has done its work, and returns all that it
    /// said.
    ///
    /// # Errors
    /// Like [`Workload::wait_done`].
    pub fn finish_and_stay(&mut self) -> Result<Vec<Value>> {
        self.wait_done()?;
        Ok(self.said.clone())
    }

    /// Waits for the end and returns all that the workload and its children said. The perf map stays,
    /// as it does in real life, until the workload is dropped: a recorder may still be reading it.
    ///
    /// # Errors
    /// If it ends with a failure, or not within [`PATIENCE`].
    pub fn finish(&mut self) -> Result<Vec<Value>> {
        while let Some(line) = self.next_line()? {
            self.remember(&line)?;
        }
        let status = self.wait()?;
        if !status.success() {
            bail!("the workload ended with {status}");
        }
        Ok(self.said.clone())
    }

    /// Ends the process in the orderly way, with SIGTERM, and waits for it.
    ///
    /// # Errors
    /// If it does not end within [`PATIENCE`].
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        crate::command::send_signal(self.pid(), Signal::SIGTERM)?;
        self.wait()
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        wait_for("the end of the workload", || Ok(self.child.try_wait()?))
    }

    fn spawn(command: &mut Command) -> Result<Self> {
        // With --perf-basic-prof, V8 also writes a log of its own into the working folder.
        let working_folder = tempfile::tempdir()?;
        let mut child = command
            .current_dir(working_folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("cannot start node")?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("node has no standard output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, stdin, lines, said: Vec::new(), _working_folder: working_folder })
    }

    fn hear_until(&mut self, is_last: impl Fn(&Value) -> bool) -> Result<()> {
        loop {
            let Some(line) = self.next_line()? else { bail!("the workload ended too early") };
            if self.remember(&line).is_ok_and(&is_last) {
                return Ok(());
            }
        }
    }

    fn remember(&mut self, line: &str) -> Result<&Value> {
        let record = serde_json::from_str(line)
            .with_context(|| format!("the workload said something that is not JSON: {line:?}"))?;
        self.said.push(record);
        self.said.last().context("nothing was said")
    }

    fn next_line(&self) -> Result<Option<String>> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => bail!("the workload said nothing for too long"),
        }
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let mut processes = members_of_group(self.child.id());
        processes.extend(self.said.iter().filter_map(|record| record.get("pid")?.as_u64()));
        processes.push(u64::from(self.child.id()));
        if let Ok(group) = i32::try_from(self.child.id()) {
            // Fails if all of them have ended.
            killpg(Pid::from_raw(group), Signal::SIGKILL).ok();
        }
        drop(self.child.wait());
        for pid in processes {
            drop(std::fs::remove_file(perf_map(pid)));
        }
    }
}

// proc_pid_stat(5): after the name in parentheses come state, parent and process group.
fn members_of_group(group: u32) -> Vec<u64> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let member = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.ok()?;
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        let of: u32 = fields.split_whitespace().nth(2)?.parse().ok()?;
        (of == group).then_some(pid)
    };
    entries.filter_map(member).collect()
}

/// The command line that runs a workload, for a recorder that launches it itself; the workload
/// begins at once.
#[must_use]
pub fn node_command(name: &str, folder: &Path) -> Command {
    flagged_node_command(&[], name, folder)
}

/// Like [`node_command`], with flags for Node.
#[must_use]
pub fn flagged_node_command(flags: &[&str], name: &str, folder: &Path) -> Command {
    let mut command = Command::new("node");
    command.args(flags).arg(binaries::fixture("workloads").join(name)).arg(folder);
    command.arg("--now");
    command
}

/// Where V8 writes the names: `--perf-basic-prof` in V8's src/flags/flag-definitions.h.
#[must_use]
pub fn perf_map(pid: u64) -> PathBuf {
    PathBuf::from(format!("/tmp/perf-{pid}.map"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_runs_says_what_it_did_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut workload = Workload::start_mapped("opens-mixed.js", folder.path(), &[]).unwrap();
        let pid = workload.pid();
        assert!(perf_map(u64::from(pid)).exists());
        workload.go().unwrap();
        let said = workload.finish().unwrap();
        assert_eq!(said.iter().filter(|record| record.get("open").is_some()).count(), 49);
        assert!(perf_map(u64::from(pid)).exists());
        drop(workload);
        assert!(!perf_map(u64::from(pid)).exists());
        assert!(!crate::command::process_exists(pid));
    }

    #[test]
    fn children_die_with_the_workload() {
        let folder = tempfile::tempdir().unwrap();
        let workload = Workload::start("children.js", folder.path(), &[]).unwrap();
        let children = format!("/proc/{0}/task/{0}/children", workload.pid());
        let children = std::fs::read_to_string(children).unwrap();
        let child: u32 = children.split_whitespace().next().unwrap().parse().unwrap();
        drop(workload);
        crate::command::wait_for("the child's end", || {
            let state = std::fs::read_to_string(format!("/proc/{child}/stat"));
            Ok(state.map_or(Some(()), |state| state.contains(") Z ").then_some(())))
        })
        .unwrap();
    }
}
