//! What is not in the capture, by event, and whether the capture is whole.

use formats::capture::{Capture, Frame, Marker};

/// Samples and losses of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventCount {
    /// Number of the event in the capture.
    pub id: u32,
    /// Event name.
    pub event: String,
    /// The set it belongs to.
    pub set: String,
    /// Samples in the capture.
    pub samples: u64,
    /// Of these, samples of which no stack was taken, because there were too many.
    pub without_stack: u64,
    /// Records that the kernel lost.
    pub lost: u64,
    /// Records that the recorder dropped.
    pub dropped: u64,
}

/// Counts samples and losses, one row an event, in the order of the capture.
#[must_use]
pub fn by_event(capture: &Capture) -> Vec<EventCount> {
    let mut ids: Vec<u32> = capture.events.iter().map(|event| event.id).collect();
    // A damaged capture may hold samples and losses of events whose definition is gone.
    ids.extend(capture.samples.iter().map(|samples| samples.event));
    ids.extend(capture.losses.iter().map(|loss| loss.event));
    let mut seen = std::collections::HashSet::new();
    ids.retain(|&id| seen.insert(id));
    ids.into_iter()
        .map(|id| {
            let def = capture.event(id);
            let losses = || capture.losses.iter().filter(|loss| loss.event == id);
            EventCount {
                id,
                event: def.map_or_else(|| format!("event {id}"), |def| def.name.clone()),
                set: def.map_or_else(String::new, |def| def.set.clone()),
                samples: capture
                    .samples
                    .iter()
                    .filter(|samples| samples.event == id)
                    .map(|samples| samples.len() as u64)
                    .sum(),
                without_stack: without_stack(capture, id),
                lost: losses().fold(0, |sum, loss| sum.saturating_add(loss.lost)),
                dropped: losses().fold(0, |sum, loss| sum.saturating_add(loss.dropped)),
            }
        })
        .collect()
}

/// Samples of an event of which no stack was taken, because its probe was hit too often.
#[must_use]
pub fn without_stack(capture: &Capture, event: u32) -> u64 {
    let taken = |stack: &&u32| {
        let frame = capture.stacks.get(**stack as usize).map(|&(_parent, frame)| frame);
        let frame = frame.and_then(|frame| capture.frames.get(frame as usize));
        **stack == 0 || frame != Some(&Frame::Marker(Marker::NOT_TAKEN))
    };
    let samples = capture.samples.iter().filter(|samples| samples.event == event);
    samples.map(|samples| samples.stack.iter().filter(|stack| !taken(stack)).count() as u64).sum()
}

/// Remarks of the recorder that say something is missing, by their codes.
const MISSING: [&str; 4] =
    ["lost-sideband", "bad-records", "too-many-processes", "late-probe-failed"];

/// What makes the capture incomplete, one sentence each; empty when nothing is missing.
#[must_use]
pub fn problems(capture: &Capture) -> Vec<String> {
    let mut problems = Vec::new();
    let mut say = |count: u64, text: &str| {
        if count > 0 {
            problems.push(format!("{count} {text}"));
        }
    };
    let events = by_event(capture);
    say(events.iter().map(|e| e.lost).sum(), "records lost by the kernel for want of ring space");
    say(events.iter().map(|e| e.dropped).sum(), "records dropped by the recorder");
    let read = &capture.read;
    say(read.damaged_chunks, "chunks damaged");
    say(read.missing_chunks, "chunks missing");
    say(read.damaged_sections, "sections damaged");
    say(read.damaged_bytes, "bytes of the file belong to no readable chunk");
    for remark in capture.remarks.iter().filter(|r| MISSING.contains(&r.code.as_str())) {
        let text = formats::text::clean_string(remark.text.as_bytes(), 200);
        problems.push(format!("{}: {text}", remark.count));
    }
    if read.torn_tail {
        problems.push("the file is cut short".to_owned());
    }
    if !read.ended {
        problems
            .push("the recording has no end: the recorder was killed or is still running".into());
    }
    problems
}

#[cfg(test)]
mod tests {
    use formats::capture::Loss;

    use super::*;
    use crate::testing::CaptureBuilder;

    #[test]
    fn losses_are_counted_by_event() {
        let mut build = CaptureBuilder::new();
        let threads = build.process(10, &[10]);
        build.cpu(threads[0], 100, 0);
        for lost in [3, 4] {
            build.writer().loss(Loss { event: 1, time_ns: 5, lost, dropped: 1 });
        }
        build.writer().loss(Loss { event: 7700, time_ns: 5, lost: 0, dropped: 2 });
        let mut capture = build.finish();
        let counts = by_event(&capture);
        assert_eq!((counts[0].samples, counts[0].lost, counts[0].dropped), (1, 7, 2));
        let last = counts.last().unwrap();
        assert_eq!((last.event.as_str(), last.dropped), ("event 7700", 2));
        let problems = super::problems(&capture);
        assert_eq!(problems.len(), 2);
        assert!(problems[0].starts_with("7 records lost"));
        capture.losses.clear();
        assert!(super::problems(&capture).is_empty());
        capture.read.torn_tail = true;
        assert_eq!(super::problems(&capture), ["the file is cut short"]);
    }
}
