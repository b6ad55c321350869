//! The `events` command: everything that happened, in time order, one line or one JSON line each.
//! All parts of a file operation are one line, and so are entry and exit of a system call. It must not
//! aggregate anything.

pub mod follow;
mod line;

use std::io::{self, Write};

use formats::capture::{Capture, Samples};
use formats::catalogue::LIBC;
use formats::syscalls::SET;

use crate::asked::Askers;
use crate::join::folders::Folder;
use crate::join::operations::{self, Operation, Operations};
use crate::join::syscalls::{self, Cause, SystemCall};
use crate::plan::EventsPlan;
use crate::report::style::Style;
use crate::source_map::Originals;
use crate::symbolise::Symboliser;

/// Name of joined file operations in the output; also the set that records their parts.
pub const OPEN_EVENT: &str = "fs";

/// Name of joined system calls in the output.
pub const SYSCALL_EVENT: &str = "syscall";

/// One thing that happened, still as numbers.
#[derive(Debug, Clone, Copy)]
enum Row {
    /// Index into the joined operations.
    Operation(usize),
    /// Index into the joined system calls.
    SystemCall(usize),
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
    let found = operations::join(capture);
    let calls = system_calls(capture, plan, &found);
    let Operations { operations, folders, .. } = found;
    let events = Events {
        capture,
        operations: &operations,
        from: 0,
        folders: &folders,
        calls: &calls,
        samples: &capture.samples,
    };
    events.write(plan, originals, style, out)
}

/// What happened, in a whole capture or in a part of one.
struct Events<'e> {
    capture: &'e Capture,
    operations: &'e [Operation<'e>],
    /// Operations before this one are there for others that name them.
    from: usize,
    folders: &'e [Folder],
    calls: &'e [SystemCall],
    samples: &'e [Samples],
}

impl Events<'_> {
    fn write(
        &self,
        plan: &EventsPlan,
        originals: &Originals,
        style: Style,
        out: &mut dyn Write,
    ) -> io::Result<Written> {
        let &Self { capture, operations, folders, calls, samples, .. } = self;
        let mut written = Written::default();
        let rows = self.rows(plan);
        if rows.is_empty() {
            return Ok(written);
        }
        let mut symboliser = Symboliser::new(capture, originals);
        let askers = Askers::of(operations, &mut symboliser);
        let mut writer = line::LineWriter { capture, folders, plan, style, out };
        for (time, row) in rows {
            match row {
                Row::Operation(at) => {
                    let Some(operation) = operations.get(at) else { continue };
                    let asked = askers.get(at);
                    let by = line::By { asked, call: askers.name(asked.call) };
                    writer.operation(operation, by, symboliser.profile())?;
                }
                Row::SystemCall(at) => {
                    let Some(call) = calls.get(at) else { continue };
                    let within = match call.cause {
                        Some(Cause::Operation(place)) => {
                            operations.get(place as usize).zip(Some(place))
                        }
                        _ => None,
                    };
                    let within = within.map(|(operation, place)| {
                        let asked = askers.get(place as usize);
                        (operation, line::By { asked, call: askers.name(asked.call) })
                    });
                    let own = (call.stack != 0 && (plan.stacks || within.is_none()))
                        .then(|| symboliser.resolve(call.stack, call.end_ns()));
                    writer.system_call(call, within, own, symboliser.profile())?;
                }
                Row::Sample(of, at) => {
                    let Some(samples) = samples.get(of) else { continue };
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
    fn rows(&self, plan: &EventsPlan) -> Vec<(u64, Row)> {
        let &Self { capture, operations: joined, folders, .. } = self;
        let asked = |name: &str| plan.events.iter().any(|event| event == name);
        let mut rows: Vec<(u64, Row)> = Vec::new();
        if plan.events.is_empty() || asked(OPEN_EVENT) || asked(LIBC) {
            let all = joined.iter().enumerate().skip(self.from);
            let chosen = all.filter(|(_at, operation)| plan.filter.takes(operation, folders));
            rows.extend(chosen.map(|(at, operation)| (operation.start_ns, Row::Operation(at))));
        }
        let calls = self.calls.iter().enumerate();
        rows.extend(calls.map(|(at, call)| (call.start_ns, Row::SystemCall(at))));
        let everything = plan.events.is_empty() && !plan.filter.is_set();
        for (of, samples) in self.samples.iter().enumerate() {
            // Of a damaged capture, samples without a definition are still shown.
            let wanted = match capture.event(samples.event) {
                // A half is shown by itself only where its own name was asked for.
                Some(def) if operations::is_part(def) || syscalls::is_part(def) => asked(&def.name),
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
}

/// The system calls that the plan asks for: of a filter by file operation, those within them.
fn system_calls(
    capture: &Capture,
    plan: &EventsPlan,
    operations: &Operations<'_>,
) -> Vec<SystemCall> {
    let asked = |event: &String| event == SYSCALL_EVENT || event == SET;
    let wanted = plan.events.is_empty() && !plan.filter.is_set();
    if !syscalls::are_recorded(capture) || !(wanted || plan.events.iter().any(asked)) {
        return Vec::new();
    }
    let mut calls = syscalls::join(capture).calls;
    syscalls::attribute(&mut calls, operations);
    calls
}

/// Names that `-e` accepts for this capture: its sets and its events.
#[must_use]
pub fn known_names(capture: &Capture) -> Vec<&str> {
    let mut known: Vec<&str> = Vec::new();
    for def in &capture.events {
        // Parts of operations can be asked for, and are too many to be offered.
        let name = Some(&def.name).filter(|_name| !operations::is_part(def));
        for name in [Some(&def.set), name].into_iter().flatten() {
            if !name.is_empty() && !known.contains(&name.as_str()) {
                known.push(name);
            }
        }
        if operations::is_part(def) && !known.contains(&OPEN_EVENT) {
            known.push(OPEN_EVENT);
        }
    }
    known.extend(syscalls::are_recorded(capture).then_some(SYSCALL_EVENT));
    known
}

/// Whether `-e` names anything in this capture.
#[must_use]
pub fn is_known(capture: &Capture, name: &str) -> bool {
    known_names(capture).contains(&name) || capture.events.iter().any(|def| def.name == name)
}
