//! The `flamegraph` command: chooses the stacks and what the title says. How it is drawn is the
//! business of [`crate::emit::flamegraph`].

use std::io::Write;

use formats::capture::Capture;
use formats::text::clean_string;

use crate::aggregate::{StackCounts, count_stacks};
use crate::emit::flamegraph::{self, FlamegraphError, FlamegraphOptions};
use crate::events::OPEN_EVENT;
use crate::join::{errno, opens};
use crate::profile::Kind;
use crate::report::CPU_SET;
use crate::report::frames::{cmdline, comm};
use crate::report::units::{counted, duration};
use crate::symbolise::Symboliser;

/// Longest command in the title, characters: what follows it must not be cut off.
const COMMAND_CHARS: usize = 40;
/// Longest path at the end of a stack, characters.
const PATH_CHARS: usize = 160;

/// Why no flamegraph could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// There is nothing to draw.
    #[error("there are no samples of {event} in the capture")]
    NoSamples {
        /// Set or event.
        event: String,
    },
    /// Drawing or writing failed.
    #[error(transparent)]
    Render(#[from] FlamegraphError),
}

/// Draws the stacks of an event, of CPU time if none is named. Gives a sentence on what was drawn.
///
/// # Errors
/// No samples, or writing failed.
pub fn write(
    capture: &Capture,
    event: Option<&str>,
    out: &mut dyn Write,
) -> Result<String, GraphError> {
    let has_cpu = || {
        let cpu = |id| capture.event(id).is_some_and(|def| def.set == CPU_SET);
        capture.samples.iter().any(|samples| cpu(samples.event) && !samples.is_empty())
    };
    let event = event.unwrap_or(if has_cpu() { CPU_SET } else { OPEN_EVENT });
    let mut symboliser = Symboliser::new(capture);
    let counts = if event == OPEN_EVENT {
        opens_with_paths(capture, &mut symboliser)
    } else {
        count_stacks(capture, &mut symboliser, |def| def.name == event || def.set == event)
    };
    let shown = clean_string(event.as_bytes(), COMMAND_CHARS);
    if counts.total() == 0 {
        return Err(GraphError::NoSamples { event: shown });
    }
    let weight = match event {
        OPEN_EVENT => counted(counts.total(), "open", "opens"),
        _ => counted(counts.total(), "sample", "samples"),
    };
    let source = capture
        .events
        .iter()
        .find(|def| def.set == CPU_SET && event == CPU_SET && !def.source.is_empty())
        .map(|def| format!(" ({})", clean_string(def.source.as_bytes(), COMMAND_CHARS)));
    let length = duration(capture.end_ns().saturating_sub(capture.meta.start_ns));
    let options = FlamegraphOptions {
        title: format!(
            "{}, {length}, {weight} of {shown}{}",
            target(capture),
            source.unwrap_or_default()
        ),
        subtitle: String::new(),
        unit: if event == OPEN_EVENT { "opens" } else { "samples" }.to_owned(),
    };
    let profile = symboliser.into_profile();
    let rendered = flamegraph::render(&profile, &counts.rows(), &options, out)?;
    Ok(match rendered.merged_frames {
        0 => weight,
        merged => format!("{weight}, {merged} narrow frames merged"),
    })
}

/// How often each stack occurs, with the path and the result as its leaf: an open is about a file.
fn opens_with_paths(capture: &Capture, symboliser: &mut Symboliser<'_>) -> StackCounts {
    let mut counts = StackCounts::default();
    for open in opens::join(capture).operations {
        let stack = symboliser.resolve(open.stack, open.start_ns);
        let path = open.path.map_or_else(
            || "(path not readable)".to_owned(),
            |path| clean_string(path, PATH_CHARS),
        );
        let text = match open.errno() {
            Some(number) => format!("{path} {}", errno::name(number)),
            None => path,
        };
        counts.add(symboliser.with_leaf(stack, Kind::Operation, text), 1);
    }
    counts
}

fn target(capture: &Capture) -> String {
    let processes = &capture.processes;
    let process = processes
        .iter()
        .find(|process| capture.meta.targets.contains(&process.pid))
        .or_else(|| processes.first());
    let Some(process) = process else { return "unknown target".to_owned() };
    let name = cmdline(process).map(|line| short(&line)).or_else(|| comm(process));
    let name = clean_string(name.unwrap_or_default().as_bytes(), COMMAND_CHARS);
    format!("{name} (pid {})", process.pid).trim_start().to_owned()
}

/// A command line as people say it: without options, and of each path the last two names.
fn short(cmdline: &str) -> String {
    let mut words = cmdline.split(' ').filter(|word| !word.is_empty());
    let program = words.next().map(|program| program.rsplit('/').next().unwrap_or(program));
    let arguments = words.filter(|word| !word.starts_with('-')).map(|word| {
        let names = word.rmatch_indices('/').nth(1);
        names.map_or(word, |(at, _)| word.get(at + 1..).unwrap_or(word))
    });
    program.into_iter().chain(arguments).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn commands_are_short_in_the_title() {
        let line = "/usr/bin/node --perf-basic-prof /srv/shop/app/server.js 80";
        assert_eq!(short(line), "node app/server.js 80");
        assert_eq!(short("node server.js"), "node server.js");
        assert_eq!(short("node ./server.js /a/b"), "node ./server.js a/b");
    }
}
