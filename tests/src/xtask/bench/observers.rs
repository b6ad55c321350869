//! The programs that watch, each started, awaited and stopped in its own way.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use harness::command::{Running, wait_for};
use harness::kernel::our_dynamic_events;
use nix::sys::signal::Signal;

use super::probes::{OPEN_ARGUMENTS, PerfProbes};
use super::tools::Tools;

/// Samples a second and thread.
pub(crate) const FREQUENCY: &str = "999";
/// `UV_FS_OPEN` of `uv_fs_type`, include/uv.h.
const OPENS_ONLY: &str = "type == 1";
/// Says that the observer has armed, then waits for the file that ends it. `kill -0`: an observer
/// that was killed must not leave this waiting for ever.
const GATE: &str = r#": > "$0"; while [ ! -e "$1" ] && kill -0 "$PPID"; do sleep 0.02; done"#;

/// A way of watching.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// Nobody watches: what the work takes alone.
    Nobody,
    /// `perf stat`: the bare price in the kernel.
    PerfStat,
    /// `perf record -g`.
    PerfRecord,
    /// `perf record -g -z`.
    PerfRecordPacked,
    /// `bpftrace` that prints the arguments.
    Bpftrace,
    /// `nrec record`.
    Nrec,
}

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watch {
    /// `uv_fs_open` with its five arguments.
    Open,
    /// That, and `uv_fs_req_cleanup` with the result: what `nrec -e fs` joins.
    OpenAndDone,
    /// CPU time.
    Cpu,
}

/// Who watches what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Observer {
    pub(crate) tool: Tool,
    pub(crate) watch: Watch,
}

impl Observer {
    /// For the tables.
    pub(crate) fn name(self) -> &'static str {
        match self.tool {
            Tool::Nobody => "nobody",
            Tool::PerfStat => "perf stat (counting only)",
            Tool::PerfRecord => "perf record -g",
            Tool::PerfRecordPacked => "perf record -g -z",
            Tool::Bpftrace => "bpftrace printf(str), no stacks",
            Tool::Nrec => match self.watch {
                Watch::Open => "nrec record -e uprobe:…",
                Watch::OpenAndDone => "nrec record -e fs",
                Watch::Cpu => "nrec record -e cpu",
            },
        }
    }

    // The gate runs when the observer is armed, and ends it.
    fn command(
        self,
        pid: u32,
        tools: &Tools,
        probes: &PerfProbes,
        place: &Place,
    ) -> Result<Option<Command>> {
        let mut command = match self.tool {
            Tool::Nobody => return Ok(None),
            Tool::Bpftrace => return self.bpftrace(pid, probes, place).map(Some),
            Tool::PerfStat => tools.perf(&["stat"]),
            Tool::PerfRecord => tools.perf(&["record", "-q", "-g"]),
            Tool::PerfRecordPacked => tools.perf(&["record", "-q", "-g", "-z"]),
            Tool::Nrec => tools.nrec(&["record"]),
        };
        let (open, done) = (probes.open(), probes.done());
        match (self.tool, self.watch) {
            (Tool::Nrec, Watch::Open) => {
                command.arg("-e").arg(format!("uprobe:node:uv_fs_open {OPEN_ARGUMENTS}"))
            }
            (Tool::Nrec, Watch::OpenAndDone) => command.args(["-e", "fs"]),
            (Tool::Nrec, Watch::Cpu) => command.args(["-e", "cpu", "-F", FREQUENCY]),
            (_, Watch::Open) => command.args(["-e", &open]),
            // As nrec's catalogue does it: the end of other operations is filtered out, and the
            // result needs no callchain of its own.
            (Tool::PerfStat, Watch::OpenAndDone) => {
                command.args(["-e", &open, "-e", &done, "--filter", OPENS_ONLY])
            }
            (_, Watch::OpenAndDone) => {
                let done = format!("{done}/call-graph=no/");
                command.args(["-e", &open, "-e", &done, "--filter", OPENS_ONLY])
            }
            (_, Watch::Cpu) => command.args(["-F", FREQUENCY]),
        };
        command.args(["-p", &pid.to_string(), "-o"]).arg(&place.file);
        command.args(["--", "sh", "-c", GATE]).arg(&place.armed).arg(&place.end);
        Ok(Some(command))
    }

    // bpftrace splits the command of -c at spaces, so the gate is a file.
    fn bpftrace(self, pid: u32, probes: &PerfProbes, place: &Place) -> Result<Command> {
        let program = Tools::bpftrace().context("bpftrace is not installed")?;
        let gate = place.file.with_extension("sh");
        let (armed, end) = (place.armed.display(), place.end.display());
        let lines =
            format!(": > {armed}\nwhile [ ! -e {end} ] && kill -0 $PPID; do sleep 0.02; done\n");
        fs::write(&gate, lines)?;
        let script = format!(
            "uprobe:{}:uv_fs_open /pid == {pid}/ \
             {{ printf(\"%llx %d %d %llx %s\\n\", arg1, arg3, arg4, arg5, str(arg2)); }}",
            probes.node().display()
        );
        let mut command = Command::new(program);
        command.arg("-q").arg("-o").arg(&place.file).args(["-e", &script]);
        command.arg("-c").arg(format!("/bin/sh {}", gate.display()));
        Ok(command)
    }
}

#[derive(Debug)]
struct Place {
    file: PathBuf,
    armed: PathBuf,
    end: PathBuf,
}

/// What an observer left.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Its CPU time, user and system.
    pub(crate) cpu: Duration,
    /// What it wrote, if anybody watched.
    pub(crate) file: Option<PathBuf>,
}

/// An observer at work.
pub(crate) struct Watched {
    tool: Tool,
    observer: Option<(Running, Place)>,
}

impl Watched {
    /// Starts the observer and waits until its probes are armed.
    pub(crate) fn start(
        observer: Observer,
        pid: u32,
        tools: &Tools,
        probes: &PerfProbes,
        folder: &Path,
    ) -> Result<Self> {
        let at = |name: &str| folder.join(name);
        let place = Place { file: at("recorded"), armed: at("armed"), end: at("end") };
        let Some(mut command) = observer.command(pid, tools, probes, &place)? else {
            return Ok(Self { tool: observer.tool, observer: None });
        };
        let mut running = Running::start(&mut command)?;
        wait_for("the observer", || {
            if !running.is_running()? {
                bail!("{} ended early: {}", observer.name(), running.messages()?);
            }
            Ok(place.armed.exists().then_some(()))
        })?;
        let is_ours = observer.tool == Tool::Nrec && observer.watch != Watch::Cpu;
        if is_ours && !probes.is_open_site(&our_dynamic_events()?) {
            println!("note: nrec and perf probe different instructions of uv_fs_open");
        }
        Ok(Self { tool: observer.tool, observer: Some((running, place)) })
    }

    /// Ends the observer.
    pub(crate) fn stop(self) -> Result<Seen> {
        let Some((running, place)) = self.observer else {
            return Ok(Seen { cpu: Duration::ZERO, file: None });
        };
        fs::write(&place.end, "")?;
        // A process that has ended keeps its times until somebody waits for it.
        let stat = PathBuf::from(format!("/proc/{}/stat", running.pid()));
        let ticks = wait_for("the observer's end", || {
            let text = fs::read_to_string(&stat)?;
            Ok(finished_ticks(&text))
        })?;
        let outcome = running.finish()?;
        // perf ends with its target, ends the gate by SIGTERM then, and itself as the gate ended.
        let is_done = outcome.status.success()
            || outcome.status.signal() == Some(Signal::SIGTERM as i32) && self.tool != Tool::Nrec;
        let incomplete = outcome.status.code() == Some(1) && self.tool == Tool::Nrec;
        if incomplete {
            println!("note: `{}` is incomplete: {}", outcome.command, outcome.stderr.trim());
        } else if !is_done {
            bail!("`{}` ended with {}: {}", outcome.command, outcome.status, outcome.stderr);
        }
        let second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?;
        let second = u32::try_from(second.context("no clock tick")?)?;
        Ok(Seen { cpu: Duration::from_secs(ticks) / second, file: Some(place.file) })
    }
}

// proc_pid_stat(5): after the name come the state and, 11 and 12 fields on, utime and stime.
fn finished_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    if *fields.first()? != "Z" {
        return None;
    }
    let user: u64 = fields.get(11)?.parse().ok()?;
    let system: u64 = fields.get(12)?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_an_ended_process() {
        let fields = "1 1 1 0 -1 4194304 100 0 0 0 30 12 0 0 20 0 1 0 5 0 0";
        assert_eq!(finished_ticks(&format!("7 (a) b) Z {fields}")), Some(42));
        assert_eq!(finished_ticks(&format!("7 (node) S {fields}")), None);
    }
}
