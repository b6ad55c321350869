//! The command line: what was typed becomes a [`Plan`]. Everything clap is in here.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use formats::duration;

use crate::aggregate::glob::Glob;
use crate::aggregate::operations::PathFilter;
use crate::aggregate::syscalls::CallFilter;
use crate::plan::{Action, EventsPlan, FlamegraphPlan, Plan, ReportPlan, SyscallsPlan, Weight};

const EXIT_CODES: &str = "Exit status: 0 done; 1 done, but the capture is incomplete (records were \
lost, or the file is cut short: said on stderr and in the output), or --source-maps found no map; 2 wrong use or failure. A closed \
pipe is success.";

/// Explains what a capture of nrec (or a perf.data of perf) holds.
///
/// The recorded machine is not needed: a capture has everything in it.
#[derive(Debug, Parser)]
#[command(name = "nanalyze", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The one-page answer: which JavaScript did what to which files, and where the CPU time went
    Report(ReportArgs),
    /// A flamegraph: one SVG file that needs nothing else
    Flamegraph(FlamegraphArgs),
    /// Everything that happened, in time order, one line an event
    Events(EventsArgs),
    /// System calls: where the time in the kernel went, which failed and for whom, which were slow
    Syscalls(SyscallsArgs),
    /// What is in the capture: target, kernel, clock, events, build-ids, losses
    Info(FileArgs),
}

#[derive(Debug, Args)]
struct FileArgs {
    /// Capture of nrec, or perf.data
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Args)]
struct SourceMapArgs {
    /// Show JavaScript where it was written (TypeScript, bundles), by the source maps that the scripts
    /// name. They are read from the target's files as they are now, below DIR: a copied tree, or
    /// /proc/PID/root of a container that still runs [default: /]
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true,
          default_missing_value = "/")]
    source_maps: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct FilterArgs {
    /// Only paths that fit: * is any text, slashes included, ? one character, [a-z] one of a set;
    /// without these and without a / in front, also paths that end in /GLOB
    #[arg(long, value_name = "GLOB")]
    path: Option<OsString>,
    /// Only file operations that failed; in a report each such path with the stacks that failed
    #[arg(long)]
    failed: bool,
    /// Only file operations that took at least so long: 10ms, 1.5s; with their waiting for a pool thread
    /// and for the event loop
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    slow: Option<Duration>,
}

impl FilterArgs {
    fn filter(self, modules: bool) -> PathFilter {
        PathFilter {
            glob: self.path.map(|glob| Glob::new(glob.as_bytes())),
            failed: self.failed,
            slow_ns: self.slow.map(nanoseconds),
            modules,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
struct ReportArgs {
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    maps: SourceMapArgs,
    /// JSON for programs instead of text (docs/report-json.md)
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: FilterArgs,
    /// The steps by which Node looked for modules (require, import) each by itself, not in one line
    #[arg(long)]
    modules: bool,
    /// Rows of each table [default: 20, of functions 10; with --json: all]
    #[arg(long, value_name = "N")]
    top: Option<usize>,
}

/// What widths are.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum WeightArg {
    Count,
    Time,
    Bytes,
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
struct SyscallsArgs {
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    maps: SourceMapArgs,
    /// JSON for programs instead of text (docs/report-json.md)
    #[arg(long)]
    json: bool,
    /// Only calls that failed; EINTR, EAGAIN, ETIMEDOUT and EINPROGRESS are no failures
    #[arg(long)]
    failed: bool,
    /// Only calls that took at least so long: 10ms, 1.5s, 200us
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    slow: Option<Duration>,
    /// Rows of each table [default: 20, of slow calls 10; with --json: all, of slow calls 100]
    #[arg(long, value_name = "N")]
    top: Option<usize>,
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
struct FlamegraphArgs {
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    maps: SourceMapArgs,
    /// What is drawn: cpu, fs, probe, or an event's name
    /// [default: what has samples, in this order: cpu, fs (file operations), the probe that was hit most]
    #[arg(short, long, value_name = "EVENT")]
    event: Option<String>,
    /// What widths are, of file operations: how many, how long they took (with their waiting), or how
    /// many bytes they read and wrote
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = WeightArg::Count)]
    weight: WeightArg,
    /// File to write [default: standard output]
    #[arg(short, long, value_name = "OUT.svg")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
struct EventsArgs {
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    maps: SourceMapArgs,
    /// Go on while the capture is being written, and print each file operation when it has completed;
    /// ends with the recording. FILE may be - for standard input: nrec watch does that
    #[arg(long, conflicts_with = "source_maps")]
    follow: bool,
    /// Only events of this set (cpu, fs, probe) or name; may be given more than once.
    /// fs shows each file operation with its result; uv_fs_open, uv_fs_stat, … and uv_fs_req_cleanup
    /// show the parts
    #[arg(short, long, value_name = "EVENT")]
    event: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// With stacks, leaf first
    #[arg(long)]
    stacks: bool,
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Reads the command line.
///
/// # Errors
/// Wrong use, or a request for help: clap says which, and what to print.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Plan, clap::Error> {
    Ok(match Cli::try_parse_from(args)?.command {
        Command::Report(args) => Plan {
            file: args.file.file,
            source_maps: args.maps.source_maps,
            action: Action::Report(ReportPlan {
                json: args.json,
                filter: args.filter.filter(args.modules),
                top: args.top,
            }),
        },
        Command::Flamegraph(args) => Plan {
            file: args.file.file,
            source_maps: args.maps.source_maps,
            action: Action::Flamegraph(FlamegraphPlan {
                event: args.event,
                weight: match args.weight {
                    WeightArg::Count => Weight::Count,
                    WeightArg::Time => Weight::Time,
                    WeightArg::Bytes => Weight::Bytes,
                },
                output: args.output,
            }),
        },
        Command::Events(args) => Plan {
            file: args.file.file,
            source_maps: args.maps.source_maps,
            action: Action::Events(EventsPlan {
                events: args.event,
                filter: args.filter.filter(true),
                follow: args.follow,
                json: args.json,
                stacks: args.stacks,
            }),
        },
        Command::Syscalls(args) => Plan {
            file: args.file.file,
            source_maps: args.maps.source_maps,
            action: Action::Syscalls(SyscallsPlan {
                json: args.json,
                filter: CallFilter { failed: args.failed, slow_ns: args.slow.map(nanoseconds) },
                top: args.top,
            }),
        },
        Command::Info(args) => Plan { file: args.file, source_maps: None, action: Action::Info },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(args: &[&str]) -> Result<Plan, clap::Error> {
        parse(std::iter::once("nanalyze").chain(args.iter().copied()).map(OsString::from))
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn the_contract_is_kept() {
        let report = plan(&["report", "f", "--json", "--path", "*.js", "--failed", "--top", "3"]);
        let Action::Report(report) = report.unwrap().action else { panic!() };
        assert!(report.json && report.filter.failed && report.top == Some(3));
        assert!(report.filter.glob.unwrap().matches(b"/a.js"));
        let slow = |args: &[&str]| match plan(args).unwrap().action {
            Action::Report(plan) => (plan.filter.slow_ns, plan.filter.modules),
            Action::Events(plan) => (plan.filter.slow_ns, plan.filter.failed),
            _ => panic!(),
        };
        assert_eq!(slow(&["report", "f", "--slow", "10ms"]), (Some(10_000_000), false));
        assert_eq!(slow(&["report", "f", "--slow=1.5", "--modules"]), (Some(1_500_000_000), true));
        assert_eq!(slow(&["events", "f", "--slow", "20us", "--failed"]), (Some(20_000), true));
        for bad in ["", "s", "-1s", "0", "3d", "nan"] {
            assert!(plan(&["report", "f", &format!("--slow={bad}")]).is_err(), "{bad}");
        }
        let graph = plan(&["flamegraph", "f", "-e", "fs", "-o", "x.svg"]).unwrap().action;
        let Action::Flamegraph(graph) = graph else { panic!() };
        assert_eq!((graph.event.as_deref(), graph.output), (Some("fs"), Some("x.svg".into())));
        let weight = plan(&["flamegraph", "f", "--weight", "time"]).unwrap().action;
        assert!(matches!(weight, Action::Flamegraph(FlamegraphPlan { weight: Weight::Time, .. })));
        let events = plan(&["events", "f", "-e", "fs", "-e", "cpu", "--json", "--stacks"]);
        let Action::Events(events) = events.unwrap().action else { panic!() };
        assert_eq!(events.events, ["fs", "cpu"]);
        assert!(events.json && events.stacks);
        let calls = plan(&["syscalls", "f", "--json", "--failed", "--slow", "2ms", "--top", "3"]);
        let Action::Syscalls(calls) = calls.unwrap().action else { panic!() };
        let want = CallFilter { failed: true, slow_ns: Some(2_000_000) };
        assert_eq!((calls.json, calls.filter, calls.top), (true, want, Some(3)));
        assert!(matches!(plan(&["info", "f"]).unwrap().action, Action::Info));
        let maps = |args: &[&str]| plan(args).unwrap().source_maps;
        assert_eq!(maps(&["report", "--source-maps", "f"]), Some("/".into()));
        assert_eq!(
            maps(&["events", "f", "--source-maps=/proc/7/root"]),
            Some("/proc/7/root".into())
        );
        assert_eq!(maps(&["flamegraph", "f"]), None);
        for wrong in [&["report"][..], &["nothing", "f"], &["report", "f", "--top", "x"], &[]] {
            assert_eq!(plan(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
        assert_eq!(plan(&["--help"]).unwrap_err().exit_code(), 0);
    }
}
