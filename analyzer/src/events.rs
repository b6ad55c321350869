//! The `events` command: everything that happened, in time order, one line or one JSON line each.
//! All parts of a file operation are one line. It must not aggregate anything.

mod line;

use std::io::{self, Write};

use formats::capture::Capture;

use crate::asked::Askers;
use crate::join::folders::Folder;
use crate::join::operations::{self, Operation};
use crate::plan::EventsPlan;
use crate::report::style::Style;
use crate::source_map::Originals;
use crate::symbolise::Symboliser;

/// Name of joined file operations in the output; also the set that records their parts.
pub const OPEN_EVENT: &str = "fs";

/// One thing that happened, still as numbers.
#[derive(Debug, Clone, Copy)]
enum Row {
    /// Index into the joined operations.
    Operation(usize),
    /// Index into the capture's samples, and the row in it.
    Sample(usize, usize),
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Lines of events.
    pub events: u64,
}

/// Writes the events that the plan asks for.
///
/// # Errors
/// What writing says.
pub fn write(
    capture: &Capture,
    plan: &EventsPlan,
    originals: &Originals,
    style: Style,
    out: &mut dyn Write,
) -> io::Result<Written> {
    let operations::Operations { operations: joined, folders, .. } = operations::join(capture);
    let mut symboliser = Symboliser::new(capture, originals);
    let askers = Askers::of(&joined, &mut symboliser);
    let mut writer = line::LineWriter { capture, folders: &folders, plan, style, out };
    let mut written = Written::default();
    for (time, row) in rows(capture, &joined, &folders, plan) {
        match row {
            Row::Operation(at) => {
                let Some(operation) = joined.get(at) else { continue };
                let asked = askers.get(at);
                let by = line::By { asked, call: askers.name(asked.call) };
                writer.operation(operation, by, symboliser.profile())?;
            }
            Row::Sample(of, at) => {
                let Some(samples) = capture.samples.get(of) else { continue };
                let id = samples.stack.get(at).copied().unwrap_or(0);
                let stack = plan.stacks.then(|| symboliser.resolve(id, time));
                writer.sample(samples, at, stack, symboliser.profile())?;
            }
        }
        written.events += 1;
    }
    Ok(written)
}

/// The chosen rows in time order.
fn rows(
    capture: &Capture,
    joined: &[Operation<'_>],
    folders: &[Folder],
    plan: &EventsPlan,
) -> Vec<(u64, Row)> {
    let asked = |name: &str| plan.events.iter().any(|event| event == name);
    let mut rows: Vec<(u64, Row)> = Vec::new();
    if plan.events.is_empty() || asked(OPEN_EVENT) {
        let all = joined.iter().enumerate();
        let chosen = all.filter(|(_at, operation)| plan.filter.takes(operation, folders));
        rows.extend(chosen.map(|(at, operation)| (operation.start_ns, Row::Operation(at))));
    }
    let everything = plan.events.is_empty() && !plan.filter.is_set();
    for (of, samples) in capture.samples.iter().enumerate() {
        // Of a damaged capture, samples without a definition are still shown.
        let wanted = match capture.event(samples.event) {
            // A half is shown by itself only where its own name was asked for.
            Some(def) if operations::is_part(def) => asked(&def.name),
            Some(def) => everything || asked(&def.name) || asked(&def.set),
            None => everything,
        };
        if wanted {
            let times = samples.time_ns.iter().enumerate();
            rows.extend(times.map(|(at, &time)| (time, Row::Sample(of, at))));
        }
    }
    // Stable: at one time the order is that of the capture.
    rows.sort_by_key(|&(time, _row)| time);
    rows
}

/// Names that `-e` accepts for this capture: its sets and its events.
#[must_use]
pub fn known_names(capture: &Capture) -> Vec<&str> {
    let mut known: Vec<&str> = Vec::new();
    for def in &capture.events {
        for name in [&def.set, &def.name] {
            if !name.is_empty() && !known.contains(&name.as_str()) {
                known.push(name);
            }
        }
    }
    known
}

/// Whether `-e` names anything in this capture.
#[must_use]
pub fn is_known(capture: &Capture, name: &str) -> bool {
    capture.events.iter().any(|def| def.name == name || def.set == name)
}
