//! The command line of `nrec`: arguments, help, exit codes. Turns what was typed into plans and
//! prints how they went.

mod list;
mod units;
mod watch;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use formats::catalogue;
use formats::duration;
use formats::probe::EventSpec;

use crate::doctor;
use crate::plan::{DEFAULT_FREQUENCY, FLUSH, JsChoice, RecordPlan, Target};
use crate::session::budget::RING_ASKED;
use crate::session::status::{Console, size};
use crate::session::{self, RecordError, StopReason, Summary};
use crate::tracefs::{Tracefs, sweep_stale};
use units::{parse_ring_size, parse_stack_size};

/// All went well.
const DONE: u8 = 0;
/// Done, and something is missing: losses, a capture that ended early.
const INCOMPLETE: u8 = 1;
/// Wrong use, or nothing could be done.
const FAILED: u8 = 2;

const AFTER_HELP: &str = "\
Examples:
  nrec record -p 4711 -- sleep 30           CPU samples and file opens of process 4711
  nrec record -- node server.js             from the first instruction on
  nrec record -p 4711 -e 'uprobe:node:uv_fs_open path=+0(%dx):ustring flags=%cx:s32'
  nrec watch -p 4711 --failed               file operations that fail, as they happen
  nrec list -p 4711 --uv                    which functions of libuv can be probed there
  nanalyze report capture.nrec              read what was recorded

Exit status: 0 done, 1 done but incomplete (losses), 2 wrong use or failure.
The exit status of COMMAND is told in the summary and stored, not passed on.";

/// Records what a process does: CPU samples, file opens and probes with their stacks.
#[derive(Debug, Parser)]
#[command(name = "nrec", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Record a running process, or a command from its start
    Record(RecordArgs),
    /// Print file operations of a running process as they complete, with the JavaScript line that
    /// asked
    Watch(watch::WatchArgs),
    /// Say what this kernel, user and target allow
    Doctor(DoctorArgs),
    /// Say what can be probed in a file or a process: each line is an EVENT for nrec record -e
    List(list::ListArgs),
    /// Remove dynamic events that a killed recorder left
    Clean,
}

#[derive(Debug, Args)]
struct RecordArgs {
    /// Process to record, with all its threads and children; may be repeated
    #[arg(short, long = "pid", value_name = "PID")]
    pid: Vec<u32>,
    /// cpu, fs, syscalls (which records fs, too), libc (what add-ons open; not for programs that cancel
    /// threads), uprobe:FILE:FUNCTION[+OFFSET] or uretprobe:FILE:FUNCTION, with fetch arguments in the
    /// kernel's syntax; may be repeated [default: cpu and fs]
    #[arg(short, long = "event", value_name = "EVENT")]
    event: Vec<EventSpec>,
    /// The capture; an existing one is kept as FILE.old
    #[arg(short, long, value_name = "FILE", default_value = "capture.nrec")]
    output: PathBuf,
    #[command(flatten)]
    how: HowArgs,
}

/// Whom and how to record, whatever becomes of it.
#[derive(Debug, Args)]
struct HowArgs {
    /// CPU samples a second and thread
    #[arg(short = 'F', long, value_name = "HZ", default_value_t = DEFAULT_FREQUENCY,
          value_parser = clap::value_parser!(u32).range(1..=50_000))]
    frequency: u32,
    /// Stop after this time: 30s, 500ms, 2m, 1h; a bare number is seconds
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    duration: Option<Duration>,
    /// Where the names of JavaScript frames come from
    #[arg(long, value_enum, default_value_t = JsChoice::Auto, value_name = "SOURCE")]
    js: JsChoice,
    /// User stack to copy with each sample, where names come from the heap: 1k to 63k
    /// [default: 16k]
    #[arg(long, value_name = "BYTES", value_parser = parse_stack_size)]
    stack_size: Option<u32>,
    /// Ring of each CPU, where records wait to be stored: 64k to 1g. Larger ones lose less of a burst
    /// [default: up to 16m, all together 128m]
    #[arg(long, value_name = "BYTES", value_parser = parse_ring_size)]
    buffer_size: Option<u64>,
    /// Do not follow child processes (threads always are)
    #[arg(long)]
    no_inherit: bool,
    /// Allow return probes that can crash the target
    #[arg(long = "unsafe")]
    allow_unsafe: bool,
    /// With -p: record while COMMAND runs. Without: start COMMAND and record it
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Debug, Args)]
struct DoctorArgs {
    /// Process to look at
    #[arg(short, long = "pid", value_name = "PID")]
    pid: Option<u32>,
}

/// Runs `nrec`.
#[must_use]
pub fn main() -> ExitCode {
    // clap exits with 2 on wrong use and 0 on --help, as documented.
    let status = match Cli::parse().command {
        Command::Record(args) => record(args),
        Command::Watch(args) => watch::run(args),
        Command::Doctor(args) => doctor(&args),
        Command::List(args) => list::run(args),
        Command::Clean => clean(),
    };
    ExitCode::from(status)
}

fn record(args: RecordArgs) -> u8 {
    let mut console = Console::default();
    let plan = match plan(args) {
        Ok(plan) => plan,
        Err(text) => {
            console.say(text);
            return FAILED;
        }
    };
    match session::record(&plan, &mut console) {
        Ok(summary) => summarise(&plan, &summary, &mut console),
        Err(error) => {
            complain(&error, &mut console);
            FAILED
        }
    }
}

fn plan(args: RecordArgs) -> Result<RecordPlan, &'static str> {
    plan_of(args.pid, &args.event, args.how, Some(args.output), FLUSH)
}

fn plan_of(
    pids: Vec<u32>,
    events: &[EventSpec],
    how: HowArgs,
    output: Option<PathBuf>,
    flush: Duration,
) -> Result<RecordPlan, &'static str> {
    let target = match (pids.is_empty(), how.command.is_empty()) {
        (true, true) => {
            return Err("whom to record? Use -p PID, or -- COMMAND to start one (see --help)");
        }
        (true, false) => Target::Launch { command: how.command },
        (false, _) => Target::Attach { pids, during: how.command },
    };
    let (frequency, files, probes) = RecordPlan::events(events, how.frequency);
    Ok(RecordPlan {
        target,
        frequency,
        files,
        syscalls: RecordPlan::syscalls(events),
        libc: RecordPlan::libc(events),
        probes,
        inherit: !how.no_inherit,
        duration: how.duration,
        output,
        flush,
        allow_unsafe: how.allow_unsafe,
        js: how.js,
        stack_bytes: how.stack_size,
        ring_bytes: how.buffer_size,
        command_line: std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect(),
    })
}

fn complain(error: &RecordError, console: &mut Console) {
    console.say(&error.to_string());
    if let Some(remedy) = error.remedy() {
        console.say(&format!("what helps: {remedy}"));
    }
}

fn summarise(plan: &RecordPlan, summary: &Summary, console: &mut Console) -> u8 {
    let (mut status, why) = tell(plan, summary, console);
    let seconds = summary.duration_ns as f64 / 1e9;
    let samples = counted(&summary.samples);
    console.say(&format!("{seconds:.1} s recorded ({why}): {}", samples.join(", ")));
    if summary.lost > 0 {
        status = INCOMPLETE;
        console.say(&format!(
            "{} records lost: they came faster than they could be stored; {}",
            summary.lost,
            more_room(summary.ring_bytes)
        ));
    }
    tell_file(plan, summary, console);
    status
}

/// Names the file and what to do with it.
fn tell_file(plan: &RecordPlan, summary: &Summary, console: &mut Console) {
    let Some(file) = &plan.output else { return };
    let file = file.display();
    let size = size(summary.written.bytes);
    console.say(&format!("{file}, {size}, {} lost", summary.lost));
    console.say(&format!("next: nanalyze report {file}"));
}

/// Says what went wrong and what is missing; gives the status so far, and why the recording ended.
fn tell(plan: &RecordPlan, summary: &Summary, console: &mut Console) -> (u8, String) {
    let mut status = DONE;
    for problem in &summary.problems {
        console.say(problem);
        status = INCOMPLETE;
    }
    summary.warnings.iter().for_each(|warning| console.say(warning));
    let (files, others): (Vec<_>, Vec<_>) =
        summary.missing.iter().partition(|name| catalogue::armed_as(name).next().is_some());
    if files.iter().any(|name| catalogue::is_needed(name)) {
        console.say("no libuv in the target: its opens were not recorded (is it Node.js?)");
    }
    if files.iter().any(|name| *name == catalogue::LIBC) {
        console.say("no glibc in the target: paths given to the C library were not recorded");
    }
    for name in others {
        console.say(&format!("{name}: no file that the target mapped has this function"));
    }
    let why = match summary.reason {
        StopReason::CommandEnded => "the command ended",
        StopReason::TargetEnded => "the target ended",
        StopReason::Duration => "the time was over",
        StopReason::Interrupt => "interrupted",
        StopReason::Terminated => "asked to end",
        StopReason::ReaderGone => "nobody reads any more",
        StopReason::WriteFailed | StopReason::ReadFailed => {
            status = INCOMPLETE;
            "ended early"
        }
    };
    let exit = match (summary.exit_status, &plan.target) {
        (Some(code), Target::Launch { .. }) => format!(", exit status {code}"),
        _ => String::new(),
    };
    (status, format!("{why}{exit}"))
}

/// What would lose less, where each CPU's ring has so many bytes.
fn more_room(ring_bytes: u64) -> String {
    let larger = ring_bytes.saturating_mul(4).clamp(1 << 20, *RING_ASKED.end());
    if larger <= ring_bytes {
        return "record fewer events".to_owned();
    }
    let (larger, now) = (larger >> 20, size(ring_bytes));
    format!(
        "larger rings hold more of a burst (--buffer-size {larger}m; {now} now), or record fewer events"
    )
}

/// What was recorded, in the user's words: events of `fs` are operations, and what they are made of
/// is ours alone.
fn counted(samples: &BTreeMap<String, u64>) -> Vec<String> {
    let ours = |name: &str| catalogue::entries().find(|e| e.event == name || e.group == Some(name));
    // What the C library is asked for may be a step of one.
    let begins = |name: &str| {
        catalogue::entry(name).is_some_and(|e| e.operation.is_some() && e.set != catalogue::LIBC)
    };
    let (operations, others): (Vec<_>, Vec<_>) =
        samples.iter().partition(|(name, _count)| ours(name).is_some());
    // Each system call begins and ends.
    let others = others.into_iter().filter(|(name, _count)| !name.starts_with("sys_exit"));
    let all: u64 =
        operations.iter().filter(|(name, _)| begins(name)).map(|&(_, count)| count).sum();
    let operations = (!operations.is_empty()).then(|| format!("{all} file operations"));
    let others = others.map(|(name, count)| match name.as_str() {
        "cpu" => format!("{count} CPU samples"),
        "sys_enter" => format!("{count} system calls"),
        name => format!("{count} {name}"),
    });
    others.chain(operations).collect()
}

fn doctor(args: &DoctorArgs) -> u8 {
    let findings = doctor::examine(args.pid);
    let mut out = std::io::stdout().lock();
    let printed = doctor::print(&findings, &mut out).and_then(|()| out.flush());
    match printed {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => FAILED,
        _ if findings.iter().any(|finding| finding.level == doctor::Level::Bad) => INCOMPLETE,
        _ => DONE,
    }
}

fn clean() -> u8 {
    let mut console = Console::default();
    let swept = Tracefs::locate().and_then(|tracefs| sweep_stale(&tracefs));
    match swept {
        Ok(report) => {
            for (event, error) in &report.failed {
                console.say(&format!("cannot remove {event}: {error}"));
            }
            for event in &report.in_use {
                console.say(&format!("{event} is still in use by another program"));
            }
            console.say(&format!(
                "{} left-over dynamic events removed, {} belong to running recorders",
                report.removed.len(),
                report.alive
            ));
            if report.failed.is_empty() && report.in_use.is_empty() { DONE } else { INCOMPLETE }
        }
        Err(error) => {
            complain(&RecordError::Tracefs(error), &mut console);
            FAILED
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_was_recorded_is_told_in_the_users_words() {
        let names = [
            ("cpu", 7),
            ("uprobe:node:f", 4),
            ("uv__work", 9),
            ("uv__fs_work", 9),
            ("uv_fs_*", 4),
            ("uv_fs_stat", 3),
            ("uv_queue_work", 1),
            ("uv_fs_*.new", 1),
            ("uv_fs_open", 2),
            ("uv_fs_req_cleanup", 5),
        ];
        let samples = names.map(|(name, count)| (name.to_owned(), count)).into();
        assert_eq!(counted(&samples), ["7 CPU samples", "4 uprobe:node:f", "5 file operations"]);
        assert_eq!(counted(&BTreeMap::from([("cpu".to_owned(), 0)])), ["0 CPU samples"]);
    }

    #[test]
    fn larger_rings_are_proposed_while_there_are_any() {
        assert!(more_room(16 << 20).contains("--buffer-size 64m; 16.0 MiB now"));
        assert!(more_room(64 << 10).contains("--buffer-size 1m; 64.0 KiB now"));
        assert_eq!(more_room(1 << 30), "record fewer events");
    }

    #[test]
    fn the_contracts_examples_are_understood() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let args = |line: &str| match parse(line).unwrap().command {
            Command::Record(args) => plan(args),
            _ => panic!("{line}"),
        };
        let attach = args("nrec record -p 7 -- sleep 30").unwrap();
        assert_eq!(
            attach.target,
            Target::Attach { pids: vec![7], during: vec!["sleep".into(), "30".into()] }
        );
        assert_eq!((attach.frequency, attach.files), (Some(99), true));
        let launch = args("nrec record -e fs -- node a.js -p 3").unwrap();
        assert_eq!((launch.frequency, launch.files), (None, true));
        assert!(matches!(launch.target, Target::Launch { command } if command.len() == 4));
        assert!(args("nrec record").is_err());
        assert!(parse("nrec record -p 7 -e nonsense").is_err());
        assert!(parse("nrec record -p 7 -F 0").is_err());
    }
}
