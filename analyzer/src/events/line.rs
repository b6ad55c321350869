//! One event as a line of text or of JSON. It must not choose or order events.

use std::io::{self, Write};

use formats::capture::{Capture, FieldDef, FieldType, Samples};
use formats::text::{Clean, clean_string};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::OPEN_EVENT;
use formats::catalogue::{Gives, Role};

use crate::join::operations::{Operation, Parts};
use crate::join::{errno, flags};
use crate::plan::EventsPlan;
use crate::profile::{Kind, Profile, ResolvedFrame, ResolvedStackId};
use crate::report::frames::{JsonFrame, hex};
use crate::report::stacks::{Line, full};
use crate::report::style::Style;
use crate::report::text::write_lines;
use crate::report::units::duration;

/// Longest name and text argument in a line of text, characters.
const TEXT_CHARS: usize = 400;

#[derive(Serialize)]
struct JsonEvent<'e> {
    event: &'e str,
    time_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tid: Option<u32>,
    args: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frames: Option<Vec<JsonFrame<'e>>>,
}

/// Where something happened.
#[derive(Clone, Copy)]
struct Place {
    time_ns: u64,
    pid: u32,
    tid: u32,
}

pub(super) struct LineWriter<'c, 'o> {
    pub(super) capture: &'c Capture,
    pub(super) plan: &'c EventsPlan,
    pub(super) style: Style,
    pub(super) out: &'o mut dyn Write,
}

impl LineWriter<'_, '_> {
    pub(super) fn operation(
        &mut self,
        operation: &Operation<'_>,
        stack: Option<ResolvedStackId>,
        profile: &Profile,
    ) -> io::Result<()> {
        let Operation { start_ns: time_ns, pid, tid, .. } = *operation;
        let place = Place { time_ns, pid, tid };
        if self.plan.json {
            let args = self.operation_args(operation);
            return self.json(OPEN_EVENT, place, args, stack, profile);
        }
        let mut text = format!("{}({})", operation.name, self.inside(operation).join(", "));
        match (operation.result, operation.errno()) {
            (_, Some(number)) => text.push_str(&format!(" = -{}", errno::name(number))),
            (Some(result), None) => text.push_str(&format!(" = {result}")),
            (None, None) => text.push_str(" = ?"),
        }
        if let Some(latency) = operation.latency_ns {
            text.push_str(&format!(" <{}>", duration(latency)));
        }
        if let Some(asynchronous) = operation.asynchronous {
            text.push_str(if asynchronous { " async" } else { " sync" });
        }
        if let Some(asked) = stack.and_then(|stack| who_asked(profile, stack)) {
            text.push_str(&format!("  {}", self.style.dim(&format!("at {asked}"))));
        }
        let stack = stack.filter(|_| self.plan.stacks);
        self.text(OPEN_EVENT, place, &text, stack, profile)
    }

    /// What stands between the parentheses.
    fn inside(&self, operation: &Operation<'_>) -> Vec<String> {
        let quoted = |path: &[u8]| format!("\"{}\"", clean_string(path, TEXT_CHARS));
        let path = operation.path.map(quoted);
        let mut inside = Vec::new();
        match (operation.descriptor, operation.directory) {
            // As strace -y has it.
            (Some(number), _) => {
                let path = operation.path.map(|path| clean_string(path, TEXT_CHARS));
                inside.push(path.map_or(number.to_string(), |path| format!("{number}<{path}>")));
            }
            (None, Some(_address)) => inside.push(path.unwrap_or_else(|| "?".to_owned())),
            (None, None) => inside.push(path.unwrap_or_else(|| "(not readable)".to_owned())),
        }
        inside.extend(operation.new_path.map(quoted));
        inside.extend(self.flags(operation));
        let is_made = operation.flags.is_none_or(|(bits, role)| {
            role != Role::OpenFlags || bits as u32 & flags::O_CREAT != 0
        });
        inside.extend(mode(operation).filter(|_| is_made));
        inside
    }

    fn flags(&self, operation: &Operation<'_>) -> Option<String> {
        match operation.flags? {
            (bits, Role::CopyFlags) => flags::of_copy(bits as u32),
            (bits, _) => Some(flags::text(bits as u32, &self.capture.meta.arch)),
        }
    }

    pub(super) fn sample(
        &mut self,
        samples: &Samples,
        row: usize,
        stack: Option<ResolvedStackId>,
        profile: &Profile,
    ) -> io::Result<()> {
        let thread = samples.thread.get(row).and_then(|&at| self.capture.threads.get(at as usize));
        let process = thread.and_then(|t| self.capture.processes.get(t.process as usize));
        let place = Place {
            time_ns: samples.time_ns.get(row).copied().unwrap_or(0),
            pid: process.map_or(0, |process| process.pid),
            tid: thread.map_or(0, |thread| thread.tid),
        };
        let def = self.capture.event(samples.event);
        let fallback = format!("event {}", samples.event);
        let name = def.map_or(fallback.as_str(), |def| match def.set.as_str() {
            "cpu" => "cpu",
            _ => &def.name,
        });
        let name = Clean::text(name).to_string();
        let fields: &[FieldDef] = def.map_or(&[], |def| &def.fields);
        let words = samples.fields.iter().map(|column| column.get(row).copied());
        let fields = fields.iter().zip(words).filter_map(|(field, word)| Some((field, word?)));
        if self.plan.json {
            let mut args = Map::new();
            for (field, word) in fields {
                self.argument(field, word, &mut args);
            }
            return self.json(&name, place, args, stack, profile);
        }
        let args: Vec<String> = fields
            .map(|(field, word)| {
                let value = match field.kind {
                    FieldType::Unsigned => word.to_string(),
                    FieldType::Signed => (word as i64).to_string(),
                    FieldType::Hex => format!("{word:#x}"),
                    FieldType::String => self
                        .capture
                        .string(word)
                        .map_or("?".to_owned(), |text| clean_string(text, TEXT_CHARS)),
                    FieldType::Bytes => self.capture.string(word).map_or("?".to_owned(), hex),
                };
                format!("{}={value}", Clean::text(&field.name))
            })
            .collect();
        self.text(&name, place, &args.join(" "), stack, profile)
    }

    fn operation_args(&self, operation: &Operation<'_>) -> Map<String, Value> {
        let mut args = Map::new();
        args.insert("operation".into(), json!(operation.name));
        if let Some(number) = operation.descriptor {
            args.insert("fd".into(), json!(number));
        }
        if let Some(path) = operation.path {
            put_text("path", path, &mut args);
        }
        if let Some(path) = operation.new_path {
            put_text("new_path", path, &mut args);
        }
        if let Some(flags) = self.flags(operation) {
            args.insert("flags".into(), json!(flags));
        }
        match operation.mode {
            Some((mode, Role::AccessMode)) => {
                args.insert("access".into(), json!(flags::of_access(mode as u32)));
            }
            Some((mode, _)) => {
                args.insert("mode".into(), json!(mode));
            }
            None => {}
        }
        if let Some(asynchronous) = operation.asynchronous {
            args.insert("async".into(), json!(asynchronous));
        }
        match (operation.result, operation.errno()) {
            (_, Some(number)) => {
                args.insert("errno".into(), json!(errno::name(number)));
            }
            (Some(result), None) => {
                args.insert("result".into(), json!(result));
                if operation.gives == Gives::Bytes {
                    args.insert("bytes".into(), json!(result));
                }
            }
            (None, None) => {}
        }
        if let Some(latency) = operation.latency_ns {
            args.insert("latency_ns".into(), json!(latency));
        }
        let Parts { worker, queue_ns, work_ns, syscall_ns, loop_ns } = operation.parts;
        let parts = [
            ("worker", worker.map(u64::from)),
            ("queue_ns", queue_ns),
            ("work_ns", work_ns),
            ("syscall_ns", syscall_ns),
            ("loop_ns", loop_ns),
        ];
        for (name, value) in parts {
            args.extend(value.map(|value| (name.to_owned(), json!(value))));
        }
        args
    }

    /// An argument that the kernel could not read is absent.
    fn argument(&self, field: &FieldDef, word: u64, args: &mut Map<String, Value>) {
        let name = Clean::text(&field.name).to_string();
        match field.kind {
            FieldType::Unsigned | FieldType::Hex => {
                args.insert(name, json!(word));
            }
            FieldType::Signed => {
                args.insert(name, json!(word as i64));
            }
            FieldType::String => {
                if let Some(text) = self.capture.string(word) {
                    put_text(&name, text, args);
                }
            }
            FieldType::Bytes => {
                if let Some(bytes) = self.capture.string(word) {
                    args.insert(name, json!(hex(bytes)));
                }
            }
        }
    }

    fn json(
        &mut self,
        event: &str,
        place: Place,
        args: Map<String, Value>,
        stack: Option<ResolvedStackId>,
        profile: &Profile,
    ) -> io::Result<()> {
        let known = |number: u32| Some(number).filter(|&number| number > 0);
        let line = JsonEvent {
            event,
            time_ns: place.time_ns,
            pid: known(place.pid),
            tid: known(place.tid),
            args,
            frames: stack.map(|stack| JsonFrame::stack(profile, stack)),
        };
        serde_json::to_writer(&mut *self.out, &line)?;
        self.out.write_all(b"\n")
    }

    fn text(
        &mut self,
        event: &str,
        place: Place,
        text: &str,
        stack: Option<ResolvedStackId>,
        profile: &Profile,
    ) -> io::Result<()> {
        let since = place.time_ns.saturating_sub(self.capture.meta.start_ns);
        let (seconds, micros) = (since / 1_000_000_000, since % 1_000_000_000 / 1_000);
        let Place { pid, tid, .. } = place;
        let head = format!("{seconds:>5}.{micros:06} {pid}/{tid}");
        write!(self.out, "{} {}", self.style.dim(&head), self.style.heading(event))?;
        if !text.is_empty() {
            write!(self.out, " {text}")?;
        }
        writeln!(self.out)?;
        if let Some(stack) = stack {
            let lines: Vec<Line> = profile.leaf_first(stack).map(full).collect();
            write_lines(&lines, "        ", self.style, self.out)?;
        }
        Ok(())
    }
}

/// The mode as it is read: permissions in octal, access by name.
fn mode(operation: &Operation<'_>) -> Option<String> {
    match operation.mode? {
        (mode, Role::AccessMode) => Some(flags::of_access(mode as u32)),
        (mode, _) => Some(format!("{mode:#o}")),
    }
}

/// The JavaScript that asked: the innermost frame of the application, else the innermost that has a
/// name.
fn who_asked(profile: &Profile, stack: ResolvedStackId) -> Option<String> {
    let application = profile.leaf_first(stack).find(|frame| frame.is_application());
    let named = || {
        let is_named =
            |frame: &&ResolvedFrame| frame.kind == Kind::Js && frame.unresolved.is_none();
        profile.leaf_first(stack).find(is_named)
    };
    Some(match full(application.or_else(named)?) {
        Line::Frame { function, place: Some(place) } => format!("{function} ({place})"),
        Line::Frame { function, place: None } => function,
        Line::Folded(text) => text,
    })
}

/// Text as it can be shown, and beside it the bytes themselves where they had to be changed.
fn put_text(name: &str, text: &[u8], args: &mut Map<String, Value>) {
    let shown = Clean(text).to_string();
    if shown.as_bytes() != text {
        args.insert(format!("{name}_bytes"), json!(hex(text)));
    }
    args.insert(name.to_owned(), json!(shown));
}
