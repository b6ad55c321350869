//! The `flamegraph` command: chooses the stacks and what the title says. How it is drawn is the
//! business of [`crate::emit::flamegraph`].

use std::io::Write;

use formats::capture::{Capture, EventDef};
use formats::text::clean_string;

use crate::aggregate::{StackCounts, count_stacks};
use crate::emit::flamegraph::{self, FlamegraphError, FlamegraphOptions};
use crate::events::OPEN_EVENT;
use crate::join::opens;
use crate::report::CPU_SET;
use crate::report::frames::{cmdline, comm};
use crate::report::units::{counted, duration};
use crate::symbolise::Symboliser;

/// Longest command in the title, characters.
const COMMAND_CHARS: usize = 80;

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
    let counts = weigh(capture, event, &mut symboliser);
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

/// How often each stack occurs: opens count by their beginning.
fn weigh(capture: &Capture, event: &str, symboliser: &mut Symboliser<'_>) -> StackCounts {
    let chosen = |def: &EventDef| def.name == event || (def.set == event && event != OPEN_EVENT);
    let opens = |def: &EventDef| opens::is_half(def) && def.name == opens::OPEN;
    count_stacks(capture, symboliser, |def| chosen(def) || (event == OPEN_EVENT && opens(def)))
}

fn target(capture: &Capture) -> String {
    let processes = &capture.processes;
    let process = processes
        .iter()
        .find(|process| capture.meta.targets.contains(&process.pid))
        .or_else(|| processes.first());
    let Some(process) = process else { return "unknown target".to_owned() };
    let name = cmdline(process).or_else(|| comm(process)).unwrap_or_default();
    let name: String = name.chars().take(COMMAND_CHARS).collect();
    format!("{name} (pid {})", process.pid).trim_start().to_owned()
}
