//! Runs a plan: load, analyse, write, and choose the exit status. The only place that knows standard
//! output, standard error and exit codes.

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use formats::capture::Capture;
use formats::limits::Limits;
use formats::text::Clean;
use nix::sys::signal::SigSet;

use crate::aggregate::losses;
use crate::events::follow::{FollowError, Followed, Growing};
use crate::graph::{self, GraphError};
use crate::load::{self, LoadError};
use crate::plan::{Action, EventsPlan, FlamegraphPlan, Plan, SyscallsPlan};
use crate::report::style::Style;
use crate::report::{self, Report};
use crate::source_map::{Originals, Problem};
use crate::syscalls::{NoSyscalls, SyscallsReport};
use crate::{cli, events, info, syscalls as system_calls};

/// Done.
const DONE: u8 = 0;
/// Done, but something is missing in the capture.
const INCOMPLETE: u8 = 1;
/// Wrong use or failure.
const FAILED: u8 = 2;

/// Reasons that are told why source maps are not used.
const MAP_PROBLEMS: usize = 20;

/// `nrec watch` writes what it has after 200 ms, `nrec record` after 800 ms (recorder's plan): nothing is
/// under way if nothing has come for longer.
const IDLE_PIPE: Duration = Duration::from_millis(300);
const IDLE_FILE: Duration = Duration::from_millis(1200);

/// What is to be said of a run that was done.
#[derive(Debug)]
struct Outcome {
    /// What is missing in the capture.
    problems: Vec<String>,
    /// Source maps were asked for, and there was none.
    unmapped: bool,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The file cannot be analysed.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The name given with `-e` is in no event.
    #[error("the capture has no event {}; it has {known}", Clean::text(name))]
    NoSuchEvent {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// No flamegraph could be made.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// There are no system calls.
    #[error(transparent)]
    NoSyscalls(#[from] NoSyscalls),
    /// The output cannot be written.
    #[error("cannot write {}", Clean(path.as_os_str().as_bytes()))]
    Output {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
}

impl RunError {
    /// Whether the reader of the output went away, which is its right.
    fn is_closed_pipe(&self) -> bool {
        let mut error: Option<&(dyn Error + 'static)> = Some(self);
        while let Some(at) = error {
            let io = at.downcast_ref::<io::Error>();
            if io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
                return true;
            }
            error = at.source();
        }
        false
    }
}

/// The whole program.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    // nrec watch blocks signals before it starts this program, which inherits that; nothing else fails.
    let _unchanged = SigSet::all().thread_unblock();
    let plan = match cli::parse(args) {
        Ok(plan) => plan,
        Err(error) => {
            // Help goes to stdout with 0, wrong use to stderr with 2; a closed pipe is no failure.
            let _closed = error.print();
            return ExitCode::from(if error.exit_code() == 0 { DONE } else { FAILED });
        }
    };
    let stdout = io::stdout();
    let colour = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let mut out = BufWriter::with_capacity(1 << 16, stdout.lock());
    let mut messages = io::stderr().lock();
    ExitCode::from(run(&plan, Style { colour }, &mut out, &mut messages))
}

/// Runs a plan and gives the exit status. Results go to `out`, messages to `messages`.
pub fn run(plan: &Plan, style: Style, out: &mut dyn Write, messages: &mut dyn Write) -> u8 {
    match execute(plan, style, out, messages) {
        Ok(Outcome { problems, unmapped }) => {
            if !problems.is_empty() {
                let file = match plan.file.as_os_str().as_bytes() {
                    b"-" => "what was recorded".to_owned(),
                    path => Clean(path).to_string(),
                };
                say(messages, &format!("{file} is incomplete: {}", problems.join("; ")));
            }
            if problems.is_empty() && !unmapped { DONE } else { INCOMPLETE }
        }
        Err(error) if error.is_closed_pipe() => DONE,
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                text.push_str(&format!(": {error}"));
                cause = error.source();
            }
            say(messages, &text);
            FAILED
        }
    }
}

fn execute(
    plan: &Plan,
    style: Style,
    out: &mut dyn Write,
    messages: &mut dyn Write,
) -> Result<Outcome, RunError> {
    if let Action::Events(options) = &plan.action
        && options.follow
    {
        return follow(&plan.file, options, style, out, messages);
    }
    let capture = load::load(&plan.file, &Limits::default())?;
    let maps = plan.source_maps.as_deref().map(|root| Originals::find(&capture, root));
    let none = Originals::default();
    let originals = maps.as_ref().unwrap_or(&none);
    match &plan.action {
        Action::Report(options) => {
            let report = Report::new(&capture, &options.filter, originals);
            if options.json {
                report::json::write(&report, options.top, out)
            } else {
                let options = report::text::TextOptions { top: options.top, style };
                report::text::write(&report, options, out)
            }
            .map_err(RunError::Stdout)?;
        }
        Action::Flamegraph(options) => flamegraph(&capture, options, originals, out, messages)?,
        Action::Events(options) => {
            for name in &options.events {
                check_event(&capture, name)?;
            }
            events::write(&capture, options, originals, style, out).map_err(RunError::Stdout)?;
        }
        Action::Syscalls(options) => syscalls(&capture, options, originals, style, out)?,
        Action::Info => info::write(&capture, style, out).map_err(RunError::Stdout)?,
    }
    out.flush().map_err(RunError::Stdout)?;
    let unmapped = maps.is_some_and(|originals| !tell_maps(&originals, messages));
    Ok(Outcome { problems: losses::problems(&capture), unmapped })
}

/// Prints events while the capture is being written; `-` is standard input.
fn follow(
    path: &Path,
    options: &EventsPlan,
    style: Style,
    out: &mut dyn Write,
    messages: &mut dyn Write,
) -> Result<Outcome, RunError> {
    let unreadable = |source| LoadError::Read { path: path.to_owned(), source };
    let followed = if path == Path::new("-") {
        events::follow::follow(io::stdin(), IDLE_PIPE, options, style, out)
    } else {
        let file = fs::File::open(path).map_err(unreadable)?;
        events::follow::follow(Growing::new(file), IDLE_FILE, options, style, out)
    };
    let followed = followed.map_err(|error| match error {
        FollowError::Read(source) => RunError::Load(unreadable(source)),
        FollowError::Capture(source) => {
            RunError::Load(LoadError::Capture { path: path.to_owned(), source })
        }
        FollowError::Write(source) => RunError::Stdout(source),
    })?;
    out.flush().map_err(RunError::Stdout)?;
    let Followed { capture, completed, failed, without_result } = followed;
    let pending = match without_result {
        0 => String::new(),
        count => format!(", {count} without a result"),
    };
    say(messages, &format!("{completed} file operations completed, {failed} failed{pending}"));
    for name in &options.events {
        check_event(&capture, name)?;
    }
    Ok(Outcome { problems: losses::problems(&capture), unmapped: false })
}

/// Says which source maps were not used, those for one reason together; gives whether any was.
fn tell_maps(originals: &Originals, messages: &mut dyn Write) -> bool {
    // In the order of the first of each reason.
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for Problem { object, reason } in &originals.problems {
        match reasons.iter_mut().find(|(known, _objects)| known == reason) {
            Some((_reason, objects)) => objects.push(object),
            None => reasons.push((reason, vec![object])),
        }
    }
    for (reason, objects) in reasons.iter().take(MAP_PROBLEMS) {
        let first = objects.first().copied().unwrap_or_default();
        let text = match objects.len() {
            1 => format!("source map {first} is not used: {reason}"),
            count => format!("{count} source maps are not used: {reason} ({first}, …)"),
        };
        say(messages, &text);
    }
    let rest = reasons.iter().skip(MAP_PROBLEMS);
    let more: usize = rest.map(|(_reason, objects)| objects.len()).sum();
    if more > 0 {
        say(messages, &format!("{more} more source maps are not used"));
    }
    if originals.applied == 0 {
        let why = if originals.problems.is_empty() {
            "no script of the capture has one that can be found"
        } else {
            "see above"
        };
        say(messages, &format!("no source map was applied: {why}; places are those of what ran"));
    }
    originals.applied > 0
}

fn syscalls(
    capture: &Capture,
    plan: &SyscallsPlan,
    originals: &Originals,
    style: Style,
    out: &mut dyn Write,
) -> Result<(), RunError> {
    use system_calls::{json, text};
    let slowest = if plan.json { json::SLOWEST } else { text::SLOWEST };
    let bounds = (plan.filter, plan.top.unwrap_or(slowest));
    let report = SyscallsReport::new(capture, bounds, originals)?;
    let written = if plan.json {
        json::write(&report, plan.top, out)
    } else {
        text::write(&report, (plan.top, style), out)
    };
    written.map_err(RunError::Stdout)
}

fn flamegraph(
    capture: &Capture,
    plan: &FlamegraphPlan,
    originals: &Originals,
    out: &mut dyn Write,
    messages: &mut dyn Write,
) -> Result<(), RunError> {
    let Some(path) = &plan.output else {
        graph::write(capture, plan.event.as_deref(), plan.weight, originals, out)?;
        return Ok(());
    };
    // Into memory first: a failure must not leave half a file, nor destroy the one before.
    let mut svg = Vec::new();
    let note = graph::write(capture, plan.event.as_deref(), plan.weight, originals, &mut svg)?;
    write_file(path, &svg)?;
    let path = Clean(path.as_os_str().as_bytes());
    say(messages, &format!("wrote {path}: {} bytes, {note}", svg.len()));
    Ok(())
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), RunError> {
    fs::write(path, bytes).map_err(|source| RunError::Output { path: path.to_owned(), source })
}

fn check_event(capture: &Capture, name: &str) -> Result<(), RunError> {
    if events::is_known(capture, name) {
        return Ok(());
    }
    let known: Vec<String> = events::known_names(capture)
        .into_iter()
        .map(|name| Clean::text(name).to_string())
        .collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Err(RunError::NoSuchEvent { name: name.to_owned(), known })
}

/// A message that cannot be written has no one to hear of it.
fn say(messages: &mut dyn Write, text: &str) {
    let _unheard = writeln!(messages, "nanalyze: {text}");
}

#[cfg(test)]
mod tests {
    use formats::capture::Loss;

    use super::*;
    use crate::plan::{EventsPlan, ReportPlan};
    use crate::testing::CaptureBuilder;

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn file(name: &str, bytes: &[u8]) -> PathBuf {
        let path = std::env::temp_dir().join(format!("nanalyze-{}-{name}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        path
    }

    fn capture(lost: u64) -> Vec<u8> {
        let mut build = CaptureBuilder::new();
        let thread = build.process(10, &[10])[0];
        build.open(thread, 100, 1, "/a", false, 0);
        if lost > 0 {
            build.writer().loss(Loss { event: 1, time_ns: 5, lost, dropped: 0 });
        }
        build.finish_bytes()
    }

    fn status(path: &Path, action: Action, out: &mut dyn Write) -> (u8, String) {
        let plan = Plan { file: path.to_owned(), action, source_maps: None };
        let mut messages = Vec::new();
        let status = run(&plan, Style::default(), out, &mut messages);
        (status, String::from_utf8(messages).unwrap())
    }

    #[test]
    fn source_maps_with_one_problem_are_one_message() {
        let problem =
            |object: &str, reason: &str| Problem { object: object.into(), reason: reason.into() };
        let problems = ["/a.map", "/b.map", "/c.map"].map(|map| problem(map, "no such file"));
        let other = problem("/d.map", "it is no JSON");
        let problems = problems.into_iter().chain([other]).collect();
        let mut originals = Originals::default();
        originals.applied = 1;
        originals.problems = problems;
        let mut messages = Vec::new();
        assert!(tell_maps(&originals, &mut messages));
        assert_eq!(
            String::from_utf8(messages).unwrap(),
            "nanalyze: 3 source maps are not used: no such file (/a.map, …)\n\
             nanalyze: source map /d.map is not used: it is no JSON\n"
        );
    }

    #[test]
    fn exit_codes() {
        let report = || Action::Report(ReportPlan::default());
        let whole = file("whole", &capture(0));
        let mut out = Vec::new();
        assert_eq!(status(&whole, report(), &mut out), (DONE, String::new()));
        assert!(!out.is_empty());
        assert_eq!(status(&whole, report(), &mut Closed), (DONE, String::new()));
        let unknown = EventsPlan { events: vec!["nothing".into()], ..EventsPlan::default() };
        let (code, text) = status(&whole, Action::Events(unknown), &mut out);
        assert_eq!(code, FAILED);
        assert!(text.contains("no event nothing; it has cpu, fs,"), "{text}");
        let (code, text) = status(
            &whole,
            Action::Flamegraph(FlamegraphPlan {
                event: Some("cpu".into()),
                ..FlamegraphPlan::default()
            }),
            &mut out,
        );
        assert_eq!(
            (code, text.as_str()),
            (FAILED, "nanalyze: there are no samples of cpu in the capture; it has -e fs (1)\n")
        );

        let lossy = file("lossy", &capture(9));
        let mut out = Vec::new();
        let (code, text) = status(&lossy, report(), &mut out);
        assert_eq!(code, INCOMPLETE);
        assert!(text.contains("is incomplete: 9 records lost"), "{text}");
        assert!(String::from_utf8(out).unwrap().contains("incomplete: 9 records lost"));
        let bytes = capture(0);
        let cut = file("cut", &bytes[..bytes.len() - 3]);
        for action in [report(), Action::Info, Action::Events(EventsPlan::default())] {
            assert_eq!(status(&cut, action, &mut Vec::new()).0, INCOMPLETE);
        }
        let (code, text) = status(Path::new("/nonexistent/x"), report(), &mut Vec::new());
        assert_eq!(code, FAILED);
        assert!(text.starts_with("nanalyze: cannot read /nonexistent/x: "), "{text}");
        for path in [whole, lossy, cut] {
            fs::remove_file(path).unwrap();
        }
    }
}
