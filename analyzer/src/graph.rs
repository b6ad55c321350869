//! The `flamegraph` command: chooses the stacks and what the title says. How it is drawn is the
//! business of [`crate::emit::flamegraph`].

mod weights;

use std::io::Write;

use formats::capture::Capture;
use formats::text::clean_string;

use crate::aggregate::quality::js_names;
use crate::aggregate::{StackCounts, count_stacks, losses};
use crate::emit::flamegraph::{self, FlamegraphError, FlamegraphOptions};
use crate::events::OPEN_EVENT;
use crate::join;
use crate::join::operations;
use crate::plan::Weight;
use crate::profile::{Profile, Reason, ResolvedStackId};
use crate::report::CPU_SET;
use crate::report::frames::{cmdline, comm, last_images};
use crate::report::units::{counted, duration};
use crate::source_map::Originals;
use crate::symbolise::Symboliser;

/// Longest command in the title, characters: what follows it must not be cut off.
const COMMAND_CHARS: usize = 40;
/// Longest path at the end of a stack, characters: PATH_MAX of Linux (limits.h), for its end counts.
const PATH_CHARS: usize = 4096;
/// Longest event name in a message, characters.
const NAME_CHARS: usize = 200;

/// Why no flamegraph could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// There is nothing to draw.
    #[error("there are no samples of {event} in the capture; it has {known}")]
    NoSamples {
        /// Set or event.
        event: String,
        /// What there is, as options with their number of samples.
        known: String,
    },
    /// There is nothing to draw, whatever is asked for.
    #[error("there are no samples in the capture")]
    Nothing,
    /// Only file operations have it.
    #[error("--weight time and --weight bytes are of file operations: use them with -e fs")]
    NoWeight,
    /// No operation weighs anything.
    #[error("no file operation of the capture weighs anything in {unit}: use another --weight")]
    Weightless {
        /// What a weight counts.
        unit: &'static str,
    },
    /// Drawing or writing failed.
    #[error(transparent)]
    Render(#[from] FlamegraphError),
}

/// Draws the stacks of an event; if none is named of CPU time, else of file operations, else of the probe
/// that was hit most. A weight other than the number is one of file operations. Gives a sentence on what
/// was drawn.
///
/// # Errors
/// No samples, or writing failed.
pub fn write(
    capture: &Capture,
    event: Option<&str>,
    weight: Weight,
    originals: &Originals,
    out: &mut dyn Write,
) -> Result<String, GraphError> {
    let drawable = drawable(capture);
    let first = drawable.first().map(|(name, _count)| name.as_str());
    let first = if weight == Weight::Count { first } else { Some(OPEN_EVENT) };
    let event = event.or(first).ok_or(GraphError::Nothing)?;
    let is_fs = event == OPEN_EVENT;
    if !is_fs && weight != Weight::Count {
        return Err(GraphError::NoWeight);
    }
    let mut symboliser = Symboliser::new(capture, originals);
    let counts = if is_fs {
        weights::weighed(capture, &mut symboliser, weight)
    } else {
        count_stacks(capture, &mut symboliser, |def| def.name == event || def.set == event)
    };
    if counts.total() == 0 {
        if drawable.is_empty() {
            return Err(GraphError::Nothing);
        }
        let known: Vec<String> =
            drawable.iter().map(|(name, count)| format!("-e {} ({count})", quoted(name))).collect();
        if is_fs && drawable.iter().any(|(name, _count)| name == OPEN_EVENT) {
            return Err(GraphError::Weightless { unit: weights::unit(weight) });
        }
        let event = clean_string(event.as_bytes(), NAME_CHARS);
        return Err(GraphError::NoSamples { event, known: known.join(", ") });
    }
    let in_words = |total| match is_fs {
        true => weights::in_words(weight, total),
        false => counted(total, "sample", "samples"),
    };
    let weight_in_words = in_words(counts.total());
    let what = match is_fs {
        true => weight_in_words.clone(),
        false => {
            format!("{weight_in_words} of {}", clean_string(event.as_bytes(), COMMAND_CHARS))
        }
    };
    let source = capture
        .events
        .iter()
        .find(|def| def.set == CPU_SET && event == CPU_SET && !def.source.is_empty())
        .map(|def| format!(" ({})", clean_string(def.source.as_bytes(), COMMAND_CHARS)));
    let length = duration(capture.end_ns().saturating_sub(capture.meta.start_ns));
    let mut options = FlamegraphOptions {
        title: format!("{}, {length}, {what}{}", target(capture), source.unwrap_or_default()),
        subtitle: String::new(),
        unit: if is_fs { weights::unit(weight) } else { "samples" }.to_owned(),
        js_names: js_names(capture),
    };
    let profile = symboliser.into_profile();
    let rows = with_stack(&profile, &counts);
    let drawn: u64 = rows.iter().map(|(_stack, count)| count).sum();
    if drawn < counts.total() {
        options.subtitle =
            format!("stacks of {} of {weight_in_words}", weights::amount(weight, drawn));
    }
    let rendered = flamegraph::render(&profile, &rows, &options, out)?;
    Ok(match rendered.merged_frames {
        0 => weight_in_words,
        merged => format!("{weight_in_words}, {merged} narrow frames merged"),
    })
}

/// The stacks without those that were not taken, because there were too many: the others stand for
/// them. All if none was taken.
fn with_stack(profile: &Profile, counts: &StackCounts) -> Vec<(ResolvedStackId, u64)> {
    // What an operation was about is the leaf.
    let is_taken = |stack| {
        let mut frames = profile.leaf_first(stack).take(2);
        !frames.any(|frame| frame.unresolved == Some(Reason::NotTaken))
    };
    let rows: Vec<_> = counts.iter().filter(|&(stack, _count)| is_taken(stack)).collect();
    if rows.is_empty() { counts.rows() } else { rows }
}

/// What can be drawn, with the number of its samples: the first is what is drawn unless something else
/// is asked for.
fn drawable(capture: &Capture) -> Vec<(String, u64)> {
    let (mut cpu, mut begun) = (0, 0);
    // A name may stand for several events.
    let mut probes: Vec<(String, u64)> = Vec::new();
    for event in losses::by_event(capture) {
        match capture.event(event.id) {
            Some(def) if def.set == CPU_SET => cpu += event.samples,
            Some(def) if join::is_part(def) => {
                begun += if operations::is_beginning(def) { event.samples } else { 0 };
            }
            Some(_) => match probes.iter_mut().find(|(name, _count)| *name == event.event) {
                Some((_name, count)) => *count += event.samples,
                None => probes.push((event.event, event.samples)),
            },
            // Samples without a definition cannot be asked for.
            None => {}
        }
    }
    probes.sort_by_key(|(_name, count)| std::cmp::Reverse(*count));
    let mut drawable = vec![(CPU_SET.to_owned(), cpu), (OPEN_EVENT.to_owned(), begun)];
    drawable.extend(probes);
    drawable.retain(|(_name, count)| *count > 0);
    drawable
}

/// A name as a shell takes it.
fn quoted(name: &str) -> String {
    let name = clean_string(name.as_bytes(), NAME_CHARS);
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
    if plain { name } else { format!("'{}'", name.replace('\'', "'\\''")) }
}

fn target(capture: &Capture) -> String {
    let processes = last_images(capture);
    let process = processes
        .iter()
        .find(|process| capture.meta.targets.contains(&process.pid))
        .or_else(|| processes.first());
    let Some(process) = process else { return "unknown target".to_owned() };
    let others = match processes.len() - 1 {
        0 => String::new(),
        others => format!(" and {}", counted(others as u64, "other process", "other processes")),
    };
    let name = cmdline(process).map(|line| short(&line)).or_else(|| comm(process));
    let name = clean_string(name.unwrap_or_default().as_bytes(), COMMAND_CHARS);
    format!("{name} (pid {}){others}", process.pid).trim_start().to_owned()
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
    use super::*;
    use crate::testing::CaptureBuilder;

    fn draw(capture: &Capture, event: Option<&str>) -> Result<String, String> {
        let mut out = Vec::new();
        write(capture, event, Weight::Count, &Originals::default(), &mut out)
            .map_err(|error| error.to_string())?;
        Ok(String::from_utf8(out).unwrap())
    }

    /// A process that called exec, and another; opens too if asked for.
    fn capture(opens: bool) -> Capture {
        let mut build = CaptureBuilder::new();
        let thread = build.process(10, &[10])[0];
        build.process(20, &[20]);
        build.process(20, &[20]);
        let object = build.object("/usr/bin/node", 0);
        build.symbol(object, 0x10, 0x10, "caller");
        let frame = formats::capture::Frame::Native { object, offset: 0x14, call: true };
        let stack = build.stack(&[frame]);
        build.probe(thread, 100, stack, b"/x", b"");
        if opens {
            build.open(thread, 200, 1, "/srv/app/config/local.json", false, stack);
            build.cleanup(thread, 210, 1, -2);
            build.open(thread, 300, 1, "/srv/app/data/ada.json", false, stack);
        }
        build.finish()
    }

    fn drawn(svg: &str, text: &str) -> bool {
        svg.contains(&format!(">{text}<"))
    }

    #[test]
    fn what_is_there_is_drawn() {
        let probes = capture(false);
        let svg = draw(&probes, None).unwrap();
        assert!(svg.contains("1 sample of uprobe:node:f"), "{svg}");
        let error = draw(&probes, Some("cpu")).unwrap_err();
        assert_eq!(
            error,
            "there are no samples of cpu in the capture; it has -e 'uprobe:node:f' (1)"
        );
        let opens = capture(true);
        let svg = draw(&opens, None).unwrap();
        let title = "node app/server.js (pid 10) and 1 other process, 2.00 s, 2 file operations";
        assert!(drawn(&svg, title), "{svg}");
        assert!(svg.contains("open config/local.json ENOENT (1 operations, "), "{svg}");
        let error = draw(&opens, Some("nothing")).unwrap_err();
        assert!(error.ends_with("it has -e fs (2), -e 'uprobe:node:f' (1)"), "{error}");
        let error = draw(&CaptureBuilder::new().finish(), None).unwrap_err();
        assert_eq!(error, "there are no samples in the capture");
    }

    #[test]
    fn widths_are_counts_times_or_bytes() {
        let mut build = CaptureBuilder::new();
        let thread = build.process(10, &[10])[0];
        build.jit(
            0,
            0,
            &[
                (0x1000, 16, b"JS:~load /app/load.js:3:1"),
                (0x2000, 16, b"JS:~readFileAfterOpen node:fs:4:1"),
            ],
        );
        let jit = |address| formats::capture::Frame::Jit { process: 0, address, call: false };
        let (load, after) = (build.stack(&[jit(0x1000)]), build.stack(&[jit(0x2000)]));
        build.open(thread, 1_000, 1, "/srv/app/a.txt", true, load);
        build.cleanup(thread, 3_001_000, 1, 9);
        build.operations_by(after);
        build.operation(thread, 3_100_000, "uv_fs_read", 1, &[("file", 9.into())]);
        build.cleanup_of(thread, 4_100_000, 1, 700, 3);
        build.open(thread, 5_000_000, 1, "/gone", false, load);
        build.cleanup(thread, 5_000_400, 1, -2);
        let capture = build.finish();
        let draw = |weight, event| {
            let mut out = Vec::new();
            let note = write(&capture, event, weight, &Originals::default(), &mut out);
            note.map(|note| (note, String::from_utf8(out).unwrap()))
        };
        let (note, svg) = draw(Weight::Count, None).unwrap();
        assert_eq!(note, "3 file operations");
        assert!(svg.contains("<title>open app/a.txt (1 operations, 33.33%)"), "{svg}");
        assert!(svg.contains("<title>open gone ENOENT (1 operations, "), "{svg}");
        // Read by nobody but Node: it stands where the file was opened, and says so.
        assert!(svg.contains("<title>read app/a.txt (inferred) (1 operations, "), "{svg}");
        assert!(svg.contains("<title>load app/load.js:3 (3 operations, 100.00%)"), "{svg}");
        let (note, svg) = draw(Weight::Time, None).unwrap();
        assert_eq!(note, "4.00 ms of file operations");
        assert!(svg.contains("<title>open app/a.txt (3,000 µs, 75.00%)"), "{svg}");
        assert!(drawn(&svg, "node app/server.js (pid 10), 2.00 s, 4.00 ms of file operations"));
        let (note, svg) = draw(Weight::Bytes, Some("fs")).unwrap();
        assert_eq!(note, "700 bytes read and written");
        assert!(svg.contains("<title>read app/a.txt (inferred) (700 bytes, 100.00%)"), "{svg}");
        assert!(!svg.contains("<title>open "), "{svg}");
        let error = draw(Weight::Time, Some("cpu")).unwrap_err().to_string();
        assert!(error.ends_with("use them with -e fs"), "{error}");
        let opens = self::capture(true);
        let none = write(&opens, None, Weight::Bytes, &Originals::default(), &mut Vec::new());
        assert!(none.unwrap_err().to_string().contains("in bytes: use another --weight"));
    }

    #[test]
    fn commands_are_short_in_the_title() {
        let line = "/usr/bin/node --perf-basic-prof /srv/shop/app/server.js 80";
        assert_eq!(short(line), "node app/server.js 80");
        assert_eq!(short("node server.js"), "node server.js");
        assert_eq!(short("node ./server.js /a/b"), "node ./server.js a/b");
    }
}
