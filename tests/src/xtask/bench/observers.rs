//! The programs that watch, each started, awaited and stopped in its own way.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use harness::command::{Running, wait_for};
use harness::kernel::our_dynamic_events;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::sys::time::TimeValLike as _;
use nix::unistd::mkfifo;

use super::probes::{OPEN_ARGUMENTS, PerfProbes};
use super::tools::Tools;

/// `UV_FS_OPEN` of `uv_fs_type`, include/uv.h.
const OPENS_ONLY: &str = "type == 1";
/// Says that the observer has armed, then waits without any work until the bench writes into a pipe
/// of the file system, or has ended.
const GATE: &str = r#"exec 3< "$1"; : > "$0"; read -r line <&3 || :"#;

/// Where nrec has the names of JavaScript frames from: `--js`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// What nrec chooses: with V8's flags the perf map.
    Auto,
    Heap,
    Map,
    /// None: callchains only.
    Off,
}

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
    /// `perf record --call-graph dwarf,16384`: as much stack as nrec copies.
    PerfRecordCopies,
    /// `bpftrace` that prints the arguments.
    Bpftrace,
    /// `nrec record`.
    Nrec(Names),
}

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watch {
    /// `uv_fs_open` with its five arguments.
    Open,
    /// That, and `uv_fs_req_cleanup` with the result: what `nrec -e fs` joins.
    OpenAndDone,
    /// CPU time, so many samples a second and thread.
    Cpu(u32),
}

/// Who watches what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Observer {
    pub(crate) tool: Tool,
    pub(crate) watch: Watch,
}

impl Names {
    fn option(self) -> &'static str {
        match self {
            Self::Auto => "--js=auto",
            Self::Heap => "--js=heap",
            Self::Map => "--js=map",
            Self::Off => "--js=off",
        }
    }
}

impl Tool {
    /// Whether it is ours.
    pub(crate) fn is_nrec(self) -> bool {
        matches!(self, Self::Nrec(_))
    }
}

impl Observer {
    /// For the tables.
    pub(crate) fn name(self) -> &'static str {
        match self.tool {
            Tool::Nobody => "nobody",
            Tool::PerfStat => "perf stat (counting only)",
            Tool::PerfRecord => "perf record -g",
            Tool::PerfRecordPacked => "perf record -g -z",
            Tool::PerfRecordCopies => "perf record --call-graph dwarf",
            Tool::Bpftrace => "bpftrace printf(str), no stacks",
            Tool::Nrec(Names::Heap) => "nrec --js=heap",
            Tool::Nrec(Names::Map) => "nrec --js=map",
            Tool::Nrec(Names::Off) => "nrec --js=off",
            Tool::Nrec(Names::Auto) => match self.watch {
                Watch::Open => "nrec record -e uprobe:…",
                Watch::OpenAndDone => "nrec record -e fs",
                Watch::Cpu(_) => "nrec record -e cpu",
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
            Tool::PerfRecordCopies => tools.perf(&["record", "-q", "--call-graph", "dwarf,16384"]),
            Tool::Nrec(names) => tools.nrec(&["record", names.option()]),
        };
        let (open, done) = (probes.open(), probes.done());
        match (self.tool, self.watch) {
            (Tool::Nrec(_), Watch::Open) => {
                command.arg("-e").arg(format!("uprobe:node:uv_fs_open {OPEN_ARGUMENTS}"))
            }
            (Tool::Nrec(_), Watch::OpenAndDone) => command.args(["-e", "fs"]),
            (Tool::Nrec(_), Watch::Cpu(hertz)) => {
                command.args(["-e", "cpu", "-F", &hertz.to_string()])
            }
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
            (_, Watch::Cpu(hertz)) => command.args(["-F", &hertz.to_string()]),
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
        fs::write(&gate, format!("exec 3< {end}\n: > {armed}\nread -r line <&3 || :\n"))?;
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
    /// Its CPU time, user and system, with the millisecond of the shell that waits.
    pub(crate) cpu: Duration,
    /// The part of it that it took until it was armed.
    pub(crate) start_cpu: Duration,
    /// What it wrote, if anybody watched.
    pub(crate) file: Option<PathBuf>,
}

/// An observer at work.
pub(crate) struct Watched {
    tool: Tool,
    observer: Option<Armed>,
}

struct Armed {
    running: Running,
    place: Place,
    // Its other end is the gate's: closed, it opens the gate.
    gate: File,
    start_cpu: Duration,
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
        mkfifo(&place.end, Mode::S_IRUSR | Mode::S_IWUSR).context("cannot make a pipe")?;
        // For reading, too: otherwise it would wait here for the gate (fifo(7)).
        let gate = OpenOptions::new().read(true).write(true).open(&place.end)?;
        let mut running = Running::start(&mut command)?;
        wait_for("the observer", || {
            if !running.is_running()? {
                bail!("{} ended early: {}", observer.name(), running.messages()?);
            }
            Ok(place.armed.exists().then_some(()))
        })?;
        let start_cpu = cpu_until_now(running.pid())?;
        let is_ours = observer.tool.is_nrec() && !matches!(observer.watch, Watch::Cpu(_));
        if is_ours && !probes.is_open_site(&our_dynamic_events()?) {
            println!("note: nrec and perf probe different instructions of uv_fs_open");
        }
        let armed = Armed { running, place, gate, start_cpu };
        Ok(Self { tool: observer.tool, observer: Some(armed) })
    }

    /// Ends the observer.
    pub(crate) fn stop(self) -> Result<Seen> {
        let Some(Armed { running, place, mut gate, start_cpu }) = self.observer else {
            return Ok(Seen { cpu: Duration::ZERO, start_cpu: Duration::ZERO, file: None });
        };
        // Of the children that have been waited for: nothing else is, in between.
        let before = cpu_of_ended_children()?;
        gate.write_all(b"\n").context("cannot open the gate")?;
        let outcome = running.finish()?;
        let cpu = cpu_of_ended_children()?.saturating_sub(before);
        // perf ends with its target, ends the gate by SIGTERM then, and itself as the gate ended.
        let is_done = outcome.status.success()
            || outcome.status.signal() == Some(Signal::SIGTERM as i32) && !self.tool.is_nrec();
        let incomplete = outcome.status.code() == Some(1) && self.tool.is_nrec();
        if incomplete {
            println!("note: `{}` is incomplete: {}", outcome.command, outcome.stderr.trim());
        } else if !is_done {
            bail!("`{}` ended with {}: {}", outcome.command, outcome.status, outcome.stderr);
        }
        Ok(Seen { cpu, start_cpu, file: Some(place.file) })
    }
}

fn cpu_of_ended_children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let microseconds = (usage.user_time() + usage.system_time()).num_microseconds();
    Ok(Duration::from_micros(u64::try_from(microseconds)?))
}

/// CPU time of the threads that a process has now. The first number of their `schedstat` is
/// nanoseconds (Documentation/scheduler/sched-stats.rst).
pub(crate) fn cpu_until_now(pid: u32) -> Result<Duration> {
    let mut total = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).context("cannot list threads")? {
        // A thread that has ended in the meantime has no file.
        let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        total += run_time(&text).unwrap_or_default();
    }
    Ok(total)
}

fn run_time(schedstat: &str) -> Option<Duration> {
    schedstat.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_times() {
        assert_eq!(run_time("1193088 7064920 2\n"), Some(Duration::from_nanos(1_193_088)));
        assert_eq!(run_time(""), None);
        assert!(cpu_until_now(std::process::id()).unwrap() > Duration::ZERO);
        assert!(cpu_until_now(u32::MAX).is_err());
    }

    #[test]
    fn the_gate_opens_when_it_is_told_and_when_nobody_can_tell_it() {
        let folder = tempfile::tempdir().unwrap();
        let (armed, end) = (folder.path().join("armed"), folder.path().join("end"));
        mkfifo(&end, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        for is_told in [true, false] {
            let mut gate = OpenOptions::new().read(true).write(true).open(&end).unwrap();
            let mut shell = Command::new("sh");
            shell.args(["-c", GATE]).arg(&armed).arg(&end);
            let mut running = Running::start(&mut shell).unwrap();
            wait_for("the gate", || Ok(armed.exists().then_some(()))).unwrap();
            assert!(running.is_running().unwrap());
            if is_told {
                gate.write_all(b"\n").unwrap();
            }
            drop(gate);
            assert!(running.finish().unwrap().status.success());
            fs::remove_file(&armed).unwrap();
        }
    }
}
