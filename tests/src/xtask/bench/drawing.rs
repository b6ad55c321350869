//! The whole way from what was recorded to a flamegraph: `nanalyze flamegraph`, and for perf the pipe
//! `perf script | inferno-collapse-perf | inferno-flamegraph`.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use harness::command::run;

use super::observers::{Observer, Tool, Watch};
use super::tools::Tools;

/// The function of `open-loop.js` that loops: a picture without it explains nothing. The functions
/// below it V8 inlines sooner or later, and then they have no frame.
const LOOP: &str = "openRepeatedly";

/// What `perf script` prints by itself, but for the arguments of a probe (`trace`).
const FIELDS: &str = "comm,pid,tid,cpu,time,event,ip,sym,dso";

/// A picture, and what it took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drawing {
    /// From the start of the first program to the end of the last.
    pub(crate) time: Duration,
    /// Samples in the picture, of probes those below the function that loops; 0 if there is none.
    pub(crate) samples: u64,
}

/// All ways from one file to a picture.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drawings {
    /// As the programs are run by everybody.
    pub(crate) plain: Drawing,
    /// perf's only, when the plain picture lacks all that: without the arguments of the probe in the
    /// text of `perf script`. inferno-collapse-perf takes their `=` and `:` for a new event, and
    /// leaves the frames below that line out.
    pub(crate) without_arguments: Option<Drawing>,
}

/// Draws `file`. `None` for an observer that has no stacks, for perf's without
/// inferno, and if nanalyze fails, which is told.
pub(crate) fn draw(observer: Observer, tools: &Tools, file: &Path) -> Result<Option<Drawings>> {
    let svg = file.with_extension("svg");
    let wanted = (!matches!(observer.watch, Watch::Cpu(_))).then_some(LOOP);
    match observer.tool {
        Tool::Nrec(_) => {
            let event = match observer.watch {
                Watch::Open => "probe",
                Watch::OpenAndDone => "fs",
                Watch::Cpu(_) => "cpu",
            };
            let command = || {
                let mut command = tools.nanalyze(&["flamegraph", "-e", event]);
                command.arg(file).arg("-o").arg(&svg);
                command
            };
            let plain = timed(vec![command()], &svg, wanted)?;
            if plain.samples == 0 {
                let said = run(&mut command())?.stderr;
                println!("note: no picture of `{}`: {}", observer.name(), said.trim());
                return Ok(None);
            }
            Ok(Some(Drawings { plain, without_arguments: None }))
        }
        Tool::PerfRecord | Tool::PerfRecordPacked | Tool::PerfRecordCopies => {
            let plain = perf_pipe(tools, file, &svg, wanted, &[])?;
            let Some(plain) = plain else { return Ok(None) };
            let is_empty = plain.samples == 0;
            let without_arguments = if is_empty {
                perf_pipe(tools, file, &svg, wanted, &["-F", FIELDS])?
            } else {
                None
            };
            Ok(Some(Drawings { plain, without_arguments }))
        }
        Tool::Nobody | Tool::PerfStat | Tool::Bpftrace => Ok(None),
    }
}

fn perf_pipe(
    tools: &Tools,
    file: &Path,
    svg: &Path,
    wanted: Option<&str>,
    fields: &[&str],
) -> Result<Option<Drawing>> {
    let Some(inferno) = &tools.inferno else { return Ok(None) };
    let mut script = tools.perf(&["script", "-i"]);
    script.arg(file).args(fields);
    let collapse = Command::new(inferno.join("inferno-collapse-perf"));
    let flamegraph = Command::new(inferno.join("inferno-flamegraph"));
    timed(vec![script, collapse, flamegraph], svg, wanted).map(Some)
}

// Runs the programs as one pipe, its end into `svg`. The last one may fail: so does
// inferno-flamegraph when it is given no stacks, and the picture then has none.
fn timed(commands: Vec<Command>, svg: &Path, wanted: Option<&str>) -> Result<Drawing> {
    let picture = File::create(svg).context("cannot make a file for the picture")?;
    let last = commands.len() - 1;
    let begin = Instant::now();
    let mut children: Vec<Child> = Vec::new();
    let mut input = Stdio::null();
    for (index, mut command) in commands.into_iter().enumerate() {
        let output = if index == last { picture.try_clone()?.into() } else { Stdio::piped() };
        let mut child = command
            .stdin(std::mem::replace(&mut input, Stdio::null()))
            .stdout(output)
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        if let Some(pipe) = child.stdout.take() {
            input = pipe.into();
        }
        children.push(child);
    }
    let mut first_failure = None;
    for (index, child) in children.iter_mut().enumerate() {
        let status = child.wait()?;
        if index < last && !status.success() {
            first_failure.get_or_insert(status);
        }
    }
    let time = begin.elapsed();
    if let Some(status) = first_failure {
        bail!("a program on the way to the picture ended with {status}");
    }
    let text = fs::read_to_string(svg).context("cannot read the picture")?;
    fs::remove_file(svg)?;
    Ok(Drawing { time, samples: drawn_samples(&text, wanted) })
}

// inferno titles a frame `NAME (12,345 samples, 67.89%)`; the widest frame has all of them, and no
// stack has the `wanted` function twice.
fn drawn_samples(svg: &str, wanted: Option<&str>) -> u64 {
    let titles = svg.split("<title>").skip(1).filter_map(|rest| rest.split_once("</title>"));
    let counts = titles.filter_map(|(title, _)| {
        let (name, count) = title.rsplit_once('(')?;
        let count: u64 = count.split(' ').next()?.replace(',', "").parse().ok()?;
        wanted.is_none_or(|wanted| name.contains(wanted)).then_some(count)
    });
    if wanted.is_some() { counts.sum() } else { counts.max().unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_a_picture() {
        let svg =
            "<g><title>all (12,345 samples, 100%)</title></g><title>f (a) (5 opens, 1%)</title>";
        assert_eq!(drawn_samples(svg, None), 12_345);
        assert_eq!(drawn_samples(svg, Some("f")), 5);
        assert_eq!(drawn_samples(svg, Some("g")), 0);
        assert_eq!(drawn_samples("<svg>ERROR: No stack counts found</svg>", None), 0);
    }

    #[test]
    fn a_pipe_that_breaks_before_its_end_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let svg = folder.path().join("a.svg");
        let echo = || {
            let mut echo = Command::new("echo");
            echo.arg("<title>all (7 samples, 100%)</title>");
            echo
        };
        let drawing = timed(vec![echo(), Command::new("cat")], &svg, None).unwrap();
        assert_eq!(drawing.samples, 7);
        assert!(timed(vec![Command::new("false"), Command::new("cat")], &svg, None).is_err());
        assert_eq!(
            timed(vec![Command::new("true"), Command::new("false")], &svg, None).unwrap().samples,
            0
        );
    }
}
