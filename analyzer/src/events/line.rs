//! One event as a line of text or of JSON. It must not choose or order events.

use std::io::{self, Write};

use formats::capture::{Capture, FieldDef, FieldType, Samples};
use formats::text::{Clean, clean_string};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{OPEN_EVENT, SYSCALL_EVENT};
use formats::catalogue::{Gives, Role};

use crate::asked::{Asked, Folded, MODULE_RESOLUTION};
use crate::join::folders::Folder;
use crate::join::operations::{Operation, Parts};
use crate::join::syscalls::SystemCall;
use crate::join::{errno, flags, sysno};
use crate::plan::EventsPlan;
use crate::profile::{Profile, ResolvedStackId};
use crate::report::frames::{JsonFrame, hex};
use crate::report::stacks::{self, Line, full};
use crate::report::style::Style;
use crate::report::text::write_lines;
use crate::report::units::{self, clock, duration};

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
    call: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    folded: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    folded_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frames: Option<Vec<JsonFrame<'e>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asker_frames: Option<Vec<JsonFrame<'e>>>,
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
    pub(super) folders: &'c [Folder],
    pub(super) plan: &'c EventsPlan,
    pub(super) style: Style,
    pub(super) out: &'o mut dyn Write,
}

/// Who asked for an operation.
#[derive(Clone, Copy)]
pub(super) struct By<'c> {
    pub(super) asked: Asked,
    pub(super) call: Option<&'c str>,
}

impl LineWriter<'_, '_> {
    pub(super) fn operation(
        &mut self,
        operation: &Operation<'_>,
        by: By<'_>,
        profile: &Profile,
    ) -> io::Result<()> {
        let Operation { start_ns: time_ns, pid, tid, .. } = *operation;
        let place = Place { time_ns, pid, tid };
        let stack = Some(by.asked.own).filter(|_| self.plan.stacks);
        if self.plan.json {
            let args = self.operation_args(operation);
            return self.json(OPEN_EVENT, place, args, stack, Some(by), profile);
        }
        // As strace has it.
        let mut text = format!("{}({})", operation.name, self.inside(operation).join(", "));
        match (operation.result, operation.errno()) {
            (_, Some(number)) => {
                let result = format!(" = -1 {}", errno::name(number));
                text.push_str(&self.style.bad(&result).to_string());
            }
            (Some(result), None) => text.push_str(&format!(" = {result}")),
            (None, None) => text.push_str(" = ?"),
        }
        if let Some(ns) = operation.latency_ns {
            text.push_str(&format!(" <{}.{:06}>", ns / 1_000_000_000, ns / 1_000 % 1_000_000));
        }
        text.push_str(&parts(operation));
        if let Some(who) = who(profile, by) {
            text.push_str(&format!("  {}", self.style.dim(&who)));
        }
        self.text("", place, &text, stack, profile)?;
        match by.asked.asker.filter(|_| self.plan.stacks) {
            Some(asker) => {
                writeln!(self.out, "        {}", self.style.dim("by its descriptor"))?;
                let lines: Vec<Line> = profile.leaf_first(asker).map(full).collect();
                write_lines(&lines, "        ", self.style, self.out)
            }
            None => Ok(()),
        }
    }

    /// A system call, with the file operation in the midst of which it was made; `own` is its own stack,
    /// where one is shown.
    pub(super) fn system_call(
        &mut self,
        call: &SystemCall,
        within: Option<(&Operation<'_>, By<'_>)>,
        own: Option<ResolvedStackId>,
        profile: &Profile,
    ) -> io::Result<()> {
        let thread = self.capture.threads.get(call.thread as usize);
        let process = thread.and_then(|t| self.capture.processes.get(t.process as usize));
        let pid = process.map_or(0, |process| process.pid);
        let place = Place { time_ns: call.start_ns, pid, tid: call.tid };
        let name = sysno::name(&self.capture.meta.arch, call.number);
        let stack = own.filter(|_| self.plan.stacks);
        if self.plan.json {
            let mut args = Map::new();
            args.insert("syscall".into(), json!(name));
            args.insert("number".into(), json!(call.number));
            match (call.result, call.errno()) {
                (_, Some(number)) => args.insert("errno".into(), json!(errno::name(number))),
                (Some(result), None) => args.insert("result".into(), json!(result)),
                (None, None) => None,
            };
            if let Some(took) = call.duration_ns {
                args.insert("duration_ns".into(), json!(took));
            }
            if let Some((operation, _by)) = within {
                args.insert("operation".into(), json!(operation.name));
                if let Some(path) = operation.path {
                    put_text("path", path, &mut args);
                }
            }
            return self.json(SYSCALL_EVENT, place, args, stack, None, profile);
        }
        // What the arguments were is not recorded.
        let mut text = format!("{name}(…)");
        match (call.result, call.errno()) {
            (_, Some(number)) => {
                let result = format!(" = -1 {}", errno::name(number));
                text.push_str(&self.style.bad(&result).to_string());
            }
            (Some(result), None) => text.push_str(&format!(" = {}", units::result(result))),
            (None, None) => text.push_str(" = ?"),
        }
        if let Some(ns) = call.duration_ns {
            text.push_str(&format!(" <{}.{:06}>", ns / 1_000_000_000, ns / 1_000 % 1_000_000));
        }
        let who = match within {
            Some((operation, by)) => {
                let inside = self.inside(operation).join(", ");
                text.push_str(&format!("  in {}({inside})", operation.name));
                who(profile, by)
            }
            None => own.and_then(|own| who_made(profile, own)),
        };
        if let Some(who) = who {
            text.push_str(&format!("  {}", self.style.dim(&who)));
        }
        self.text("", place, &text, stack, profile)
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
                inside.extend(operation.path_from_proc.then(|| "opened before".to_owned()));
            }
            (None, Some(_address)) => inside.push(path.unwrap_or_else(|| "?".to_owned())),
            (None, None) => {
                let text = path.unwrap_or_else(|| "(not readable)".to_owned());
                let is_relative = operation.path.is_some_and(|path| !path.starts_with(b"/"));
                let folder = operation.folder.and_then(|at| self.folders.get(at as usize));
                let folder = folder.filter(|_| is_relative).map(|folder| quoted(folder.path()));
                inside.push(folder.map_or(text.clone(), |folder| format!("{text} in {folder}")));
            }
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
            return self.json(&name, place, args, stack, None, profile);
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
        for (name, resolved, path) in
            [("path", "resolved", operation.path), ("new_path", "new_resolved", operation.new_path)]
        {
            let Some(path) = path else { continue };
            put_text(name, path, &mut args);
            if let Some(path) = operation.resolved(path, self.folders) {
                put_text(resolved, &path, &mut args);
            }
        }
        if operation.path_from_proc {
            args.insert("path_from".into(), json!("proc"));
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
                if let Some(from) = operation.errno_from {
                    args.insert("errno_from".into(), json!(from.key()));
                }
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
        by: Option<By<'_>>,
        profile: &Profile,
    ) -> io::Result<()> {
        let asked = by.map(|by| by.asked).unwrap_or_default();
        let known = |number: u32| Some(number).filter(|&number| number > 0);
        let line = JsonEvent {
            event,
            time_ns: place.time_ns,
            pid: known(place.pid),
            tid: known(place.tid),
            args,
            call: by.and_then(|by| by.call),
            asked_by: asked.asked_by(),
            folded: asked.folded.map(|_| MODULE_RESOLUTION),
            folded_by: asked.folded.map(Folded::key),
            frames: stack.map(|stack| JsonFrame::stack(profile, stack)),
            asker_frames: asked
                .asker
                .filter(|_| stack.is_some())
                .map(|stack| JsonFrame::stack(profile, stack)),
        };
        serde_json::to_writer(&mut *self.out, &line)?;
        self.out.write_all(b"\n")
    }

    /// The time of day in UTC as `strace -tt` writes it, or the seconds since the recording began where
    /// the capture does not tell the time of day.
    fn time(&self, time_ns: u64) -> String {
        let meta = &self.capture.meta;
        let since = time_ns.saturating_sub(meta.start_ns);
        if meta.start_wall_ns == 0 {
            let (seconds, micros) = (since / 1_000_000_000, since / 1_000 % 1_000_000);
            return format!("{seconds:>5}.{micros:06}");
        }
        let wall = meta.start_wall_ns.saturating_add(since);
        format!("{}.{:06}", clock(wall), wall / 1_000 % 1_000_000)
    }

    fn text(
        &mut self,
        event: &str,
        place: Place,
        text: &str,
        stack: Option<ResolvedStackId>,
        profile: &Profile,
    ) -> io::Result<()> {
        let Place { pid, tid, .. } = place;
        let head = format!("{} [{pid}/{tid}]", self.time(place.time_ns));
        write!(self.out, "{}", self.style.dim(&head))?;
        if !event.is_empty() {
            write!(self.out, " {}", self.style.heading(event))?;
        }
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

/// Where the time of an operation that did not block its caller went, as far as it is known.
fn parts(operation: &Operation<'_>) -> String {
    let Parts { queue_ns, work_ns, syscall_ns, loop_ns, .. } = operation.parts;
    let short = |ns: u64| duration(ns).replace(' ', "");
    let mut text = String::new();
    if operation.asynchronous == Some(true) {
        text.push_str(" async");
    }
    if let Some(ns) = queue_ns {
        text.push_str(&format!(" queue {}", short(ns)));
    }
    if let Some(ns) = work_ns {
        text.push_str(&format!(" work {}", short(ns)));
    }
    if let Some(ns) = syscall_ns {
        text.push_str(&format!(" (syscalls {})", short(ns)));
    }
    if let Some(ns) = loop_ns {
        text.push_str(&format!(" loop {}", short(ns)));
    }
    text
}

/// The mode as it is read: permissions in octal, access by name.
fn mode(operation: &Operation<'_>) -> Option<String> {
    match operation.mode? {
        (mode, Role::AccessMode) => Some(flags::of_access(mode as u32)),
        (mode, _) => Some(format!("{mode:#o}")),
    }
}

/// The call, and the line of JavaScript that made it.
fn who(profile: &Profile, by: By<'_>) -> Option<String> {
    let via = by.call.map(|call| format!("via {call}"));
    let line = who_made(profile, by.asked.stack());
    let how = by.asked.asker.map(|_| "(by its descriptor)".to_owned());
    let words: Vec<String> = [via, line, how].into_iter().flatten().collect();
    Some(words.join("  ")).filter(|text| !text.is_empty())
}

/// The line of JavaScript in a stack.
fn who_made(profile: &Profile, stack: ResolvedStackId) -> Option<String> {
    Some(match stacks::who_asked(profile, stack)? {
        Line::Frame { function, place: Some(place) } => format!("{function} {place}"),
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
