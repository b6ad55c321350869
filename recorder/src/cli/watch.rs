//! `nrec watch` on the command line: a recording into a pipe, with `nanalyze` at its other end, which
//! prints each operation when it has completed.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Child;

use clap::Args;
use formats::duration;
use formats::probe::{EventSpec, Set};

use super::{DONE, FAILED, HowArgs, INCOMPLETE, complain, counted, plan_of, tell, tell_file};
use crate::plan::{FLUSH_LIVE, RecordPlan};
use crate::process::companion;
use crate::session::status::Console;
use crate::session::{self, RecordError, StopReason, Summary};
use crate::sys::signals;

const AFTER_HELP: &str = "\
Each line is printed within half a second after its operation has completed. Ctrl-C ends it, and
so do the target's end and a closed pipe.

Examples:
  nrec watch -p 4711                        every file operation, with the line that asked
  nrec watch -p 4711 --failed               only those that fail
  nrec watch -p 4711 --slow 10ms --stacks   slow ones, each with its whole stack
  nrec watch -p 4711 --path '*.json' --json | jq -c .args

Exit status: 0 done, 1 done but incomplete (losses), 2 wrong use or failure.";

/// Arguments of `nrec watch`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct WatchArgs {
    /// Process to watch, with all its threads and children; may be repeated
    #[arg(short, long = "pid", value_name = "PID")]
    pid: Vec<u32>,
    /// As for nrec record; may be repeated [default: fs]
    #[arg(short, long = "event", value_name = "EVENT")]
    event: Vec<EventSpec>,
    /// Only operations that failed
    #[arg(long)]
    failed: bool,
    /// Only paths that fit: * is any text, slashes included, ? one character, [a-z] one of a set;
    /// without these and without a / in front, also paths that end in /GLOB
    #[arg(long, value_name = "GLOB")]
    path: Option<OsString>,
    /// Only operations that took at least this long: 10ms, 1.5s
    #[arg(long, value_name = "TIME", value_parser = a_duration)]
    slow: Option<String>,
    /// With the whole stack below each line
    #[arg(long)]
    stacks: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Keep the capture too; an existing FILE is kept as FILE.old
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    how: HowArgs,
}

/// The text as it was typed: it is for `nanalyze`, which reads it by the same rules.
fn a_duration(text: &str) -> Result<String, String> {
    duration::parse(text).map(|_time| text.to_owned())
}

/// What `nanalyze` is told.
fn arguments(args: &WatchArgs) -> Vec<OsString> {
    let mut words: Vec<OsString> = ["events", "--follow", "-"].map(OsString::from).into();
    for (given, word) in
        [(args.failed, "--failed"), (args.stacks, "--stacks"), (args.json, "--json")]
    {
        words.extend(given.then(|| OsString::from(word)));
    }
    let values =
        [("--path=", args.path.clone()), ("--slow=", args.slow.clone().map(OsString::from))];
    for (name, value) in values {
        words.extend(value.map(|value| {
            let mut word = OsString::from(name);
            word.push(value);
            word
        }));
    }
    words
}

fn plan(args: WatchArgs) -> Result<RecordPlan, &'static str> {
    let events = if args.event.is_empty() { vec![EventSpec::Set(Set::Fs)] } else { args.event };
    if events.contains(&EventSpec::Set(Set::Syscalls)) {
        return Err(
            "system calls are not shown while they happen: record them (nrec record -e syscalls) \
                    and see nanalyze syscalls",
        );
    }
    plan_of(args.pid, &events, args.how, args.output, FLUSH_LIVE)
}

/// Runs `nrec watch` and returns its exit status.
pub(super) fn run(args: WatchArgs) -> u8 {
    let mut console = Console::of_messages();
    let arguments = arguments(&args);
    let plan = match plan(args) {
        Ok(plan) => plan,
        Err(text) => {
            console.say(text);
            return FAILED;
        }
    };
    match watch(&plan, &arguments, &mut console) {
        Ok((summary, reader)) => summarise(&plan, &summary, reader, &mut console),
        Err(error) => {
            complain(&error, &mut console);
            FAILED
        }
    }
}

fn watch(
    plan: &RecordPlan,
    arguments: &[OsString],
    console: &mut Console,
) -> Result<(Summary, Option<Child>), RecordError> {
    let program = companion::find()?;
    let (input, output) = io::pipe()?;
    let mut reader = None;
    let begun = || {
        reader = Some(companion::start(program, arguments, input)?);
        Ok(())
    };
    let summary = session::record_for(plan, Some(output), begun, console)?;
    Ok((summary, reader))
}

fn summarise(
    plan: &RecordPlan,
    summary: &Summary,
    reader: Option<Child>,
    console: &mut Console,
) -> u8 {
    // It prints what was under way, then its own summary; ours is the last word. One that takes
    // nothing any more is left to itself: it ends when it finds its input closed. Whoever pages
    // through the lines may take long: another Ctrl-C does without.
    if let Err(error) = signals::let_through() {
        console.say(&error.to_string());
    }
    let takes_nothing = summary.problems.iter().any(|problem| problem == session::NOT_READ);
    let ended = reader.filter(|_reader| !takes_nothing).and_then(|mut reader| reader.wait().ok());
    let (mut status, why) = tell(plan, summary, console);
    if let Some(failed) = ended.filter(|status| status.code().is_none_or(|code| code > 1)) {
        console.say(&format!("nanalyze, which prints, ended early: {failed}"));
        status = FAILED;
    }
    let seconds = summary.duration_ns as f64 / 1e9;
    let samples = counted(&summary.samples).join(", ");
    console.say(&format!("{seconds:.1} s watched ({why}): {samples}, {} lost", summary.lost));
    if summary.lost > 0 {
        status = status.max(INCOMPLETE);
        console
            .say("records were lost: they came faster than they were printed; watch fewer events");
    }
    tell_file(plan, summary, console);
    if summary.reason == StopReason::ReaderGone
        && status == INCOMPLETE
        && summary.problems.is_empty()
    {
        return DONE;
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Target;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        watch: WatchArgs,
    }

    fn parse(line: &str) -> Result<WatchArgs, clap::Error> {
        Line::try_parse_from(line.split(' ').skip(1)).map(|line| line.watch)
    }

    #[test]
    fn file_operations_are_watched_and_nothing_is_written() {
        let args = parse("nrec watch -p 7 --failed --path /etc/* --slow 10ms --stacks").unwrap();
        let words =
            ["events", "--follow", "-", "--failed", "--stacks", "--path=/etc/*", "--slow=10ms"];
        assert_eq!(arguments(&args), words.map(OsString::from));
        let plan = plan(args).unwrap();
        assert_eq!((plan.frequency, plan.files, plan.output), (None, true, None));
        assert_eq!(plan.flush, FLUSH_LIVE);
        assert!(matches!(plan.target, Target::Attach { pids, .. } if pids == [7]));
        let kept = super::plan(parse("nrec watch -p 7 -e cpu -o x.nrec").unwrap()).unwrap();
        assert_eq!(
            (kept.frequency, kept.files, kept.output),
            (Some(99), false, Some("x.nrec".into()))
        );
        assert!(super::plan(parse("nrec watch --failed").unwrap()).is_err());
        assert!(parse("nrec watch -p 7 --slow soon").is_err());
        let told = super::plan(parse("nrec watch -p 7 -e syscalls").unwrap()).unwrap_err();
        assert!(told.contains("nrec record -e syscalls"), "{told}");
    }
}
