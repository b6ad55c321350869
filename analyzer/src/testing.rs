//! Captures made up for tests, through the real writer and reader.

use formats::capture::{
    Capture, CaptureWriter, End, EventDef, FieldDef, FieldType, FieldValue, Frame, Function,
    Holding, JitBatch, JitEntry, LineEnds, Meta, Object, Process, Script, StackId, Symbol,
    TableLimits, Thread, read,
};
use formats::catalogue::{Argument, CLEANUP, entries};
use formats::limits::Limits;

use crate::join::operations::OPEN;

/// When test recordings begin.
pub(crate) const START_NS: u64 = 50;
/// When they end.
pub(crate) const END_NS: u64 = 2_000_000_050;

pub(crate) struct CaptureBuilder {
    writer: CaptureWriter<Vec<u8>>,
    open_fields: Vec<&'static str>,
    cleanup_fields: Vec<&'static str>,
    sampled: usize,
    stack_of_operations: u32,
    has_syscalls: bool,
}

/// The value of an argument of an operation.
pub(crate) enum Given<'a> {
    Text(&'a str),
    Number(i64),
}

impl<'a> From<&'a str> for Given<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Given<'_> {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl CaptureBuilder {
    const CPU: u32 = 1;
    const OPEN: u32 = 2;
    const CLEANUP: u32 = 3;
    const PROBE: u32 = 4;
    /// System calls: entry, exit, exit with an error.
    const SYSCALLS: [u32; 3] = [5, 6, 7];
    /// The first of the other file functions.
    const OTHERS: u32 = 10;

    pub(crate) fn new() -> Self {
        Self::in_mode("attach")
    }

    /// As [`Self::new`]; `mode` as in the capture.
    pub(crate) fn in_mode(mode: &str) -> Self {
        Self::with(mode, &["req", "flags", "mode", "cb", "path"], &["req", "type", "result", "ptr"])
    }

    pub(crate) fn with_fields(open: &[&'static str], cleanup: &[&'static str]) -> Self {
        Self::with("attach", open, cleanup)
    }

    fn with(mode: &str, open: &[&'static str], cleanup: &[&'static str]) -> Self {
        let meta = Meta {
            recorder: "nrec test".into(),
            mode: mode.into(),
            targets: vec![10],
            start_ns: START_NS,
            start_wall_ns: 1_700_000_000_000_000_000,
            kernel: "6.18.0".into(),
            arch: "x86_64".into(),
            frequency: 99,
            ..Meta::default()
        };
        let mut writer = CaptureWriter::create(Vec::new(), &meta, TableLimits::default()).unwrap();
        let fields = |names: &[&str]| {
            names
                .iter()
                .map(|&name| FieldDef { name: name.into(), kind: kind_of(name) })
                .collect::<Vec<_>>()
        };
        for (id, name, set, fields) in [
            (Self::CPU, "cpu", "cpu", Vec::new()),
            (Self::OPEN, "uv_fs_open", "fs", fields(open)),
            (Self::CLEANUP, "uv_fs_req_cleanup", "fs", fields(cleanup)),
            (Self::PROBE, "uprobe:node:f", "probe", fields(&["size", "path", "blob"])),
        ] {
            let (name, set) = (name.into(), set.into());
            let period_ns = (id == Self::CPU).then_some(10_101_010);
            let source = if id == Self::CPU { "cpu-clock" } else { "uprobe" }.into();
            writer.event(&EventDef { id, name, set, source, fields, period_ns }).unwrap();
        }
        for (entry, id) in entries().zip(Self::OTHERS..) {
            if [OPEN, CLEANUP].contains(&entry.event) {
                continue;
            }
            let field = |a: &Argument| FieldDef { name: a.name.into(), kind: a.kind };
            let fields = entry.arguments.iter().map(field).collect();
            let (name, set) = (entry.event.into(), entry.set.into());
            let source = "uprobe".into();
            writer.event(&EventDef { id, name, set, source, fields, period_ns: None }).unwrap();
        }
        Self {
            writer,
            open_fields: open.to_vec(),
            cleanup_fields: cleanup.to_vec(),
            sampled: 0,
            stack_of_operations: 0,
            has_syscalls: false,
        }
    }

    /// A process with its threads; gives the threads' indexes.
    pub(crate) fn process(&mut self, pid: u32, tids: &[u32]) -> Vec<u32> {
        self.process_with(
            Process {
                pid,
                comm: b"node".to_vec(),
                cmdline: b"node\0/app/server.js\0".to_vec(),
                start_ns: START_NS,
                ..Process::default()
            },
            tids,
        )
    }

    pub(crate) fn process_with(&mut self, process: Process, tids: &[u32]) -> Vec<u32> {
        let process = self.writer.process(process);
        tids.iter().map(|&tid| self.writer.thread(Thread { process, tid })).collect()
    }

    /// What /proc said of a descriptor plus 1, or of the working folder (0).
    pub(crate) fn holding(&mut self, process: u32, number: u32, time_ns: u64, target: &str) {
        let target = target.as_bytes().to_vec();
        self.writer.holding(Holding { process, number, time_ns, target });
    }

    pub(crate) fn object(&mut self, path: &str, flags: u32) -> u32 {
        let path = path.as_bytes().to_vec();
        self.writer.object(Object { path, flags, ..Object::default() })
    }

    pub(crate) fn symbol(&mut self, object: u32, start: u64, size: u64, name: &str) {
        let name = name.as_bytes().to_vec();
        self.writer.symbol(Symbol { object, start, size, name });
    }

    pub(crate) fn jit(&mut self, process: u32, after_ns: u64, entries: &[(u64, u64, &[u8])]) {
        let entries = entries
            .iter()
            .map(|&(start, size, name)| JitEntry { start, size, name: name.to_vec() })
            .collect();
        self.writer.jit(&JitBatch { process, after_ns, seen_ns: after_ns + 10, entries });
    }

    /// A script with the offsets of its line ends; gives its index.
    pub(crate) fn script(&mut self, name: &str, ends: &[u32]) -> u32 {
        let name = name.as_bytes().to_vec();
        let script = self.writer.script(Script { name, ..Script::default() });
        self.line_ends(script, ends);
        script
    }

    pub(crate) fn line_ends(&mut self, script: u32, ends: &[u32]) {
        self.writer.line_ends(LineEnds { script, ends: ends.to_vec() });
    }

    /// A function: its script plus 1, and where it is defined plus 1; gives its index.
    pub(crate) fn function(&mut self, script: u32, name: &str, start: u32) -> u32 {
        let name = name.as_bytes().to_vec();
        self.writer.function(Function { script, name, start })
    }

    /// A stack from its frames, root first.
    pub(crate) fn stack(&mut self, frames: &[Frame]) -> u32 {
        frames.iter().fold(StackId::default(), |at, &frame| self.writer.stack(at, frame)).0
    }

    /// The same as a CPU sample; gives its row. A stack's index in the capture is the reader's own.
    pub(crate) fn sampled(&mut self, frames: &[Frame]) -> usize {
        let stack = self.stack(frames);
        let row = self.sampled;
        self.sampled += 1;
        self.cpu(0, START_NS + row as u64, stack);
        row
    }

    pub(crate) fn writer(&mut self) -> &mut CaptureWriter<Vec<u8>> {
        &mut self.writer
    }

    pub(crate) fn cpu(&mut self, thread: u32, time: u64, stack: u32) {
        self.writer.sample(Self::CPU, time, thread, StackId(stack), &[]);
    }

    pub(crate) fn probe(&mut self, thread: u32, time: u64, stack: u32, path: &[u8], blob: &[u8]) {
        let fields =
            [FieldValue::Int(-5i64 as u64), FieldValue::Bytes(path), FieldValue::Bytes(blob)];
        self.writer.sample(Self::PROBE, time, thread, StackId(stack), &fields);
    }

    pub(crate) fn open(
        &mut self,
        thread: u32,
        time: u64,
        req: u64,
        path: &str,
        asynchronous: bool,
        stack: u32,
    ) {
        self.open_bytes(thread, time, req, path.as_bytes(), asynchronous, stack);
    }

    pub(crate) fn open_bytes(
        &mut self,
        thread: u32,
        time: u64,
        req: u64,
        path: &[u8],
        asynchronous: bool,
        stack: u32,
    ) {
        let names = self.open_fields.clone();
        let fields: Vec<_> = names
            .iter()
            .map(|&name| match name {
                "req" => FieldValue::Int(req),
                "mode" => FieldValue::Int(0o666),
                "cb" => FieldValue::Int(if asynchronous { 0x55 } else { 0 }),
                "path" => FieldValue::Bytes(path),
                _ => FieldValue::Int(0),
            })
            .collect();
        self.writer.sample(Self::OPEN, time, thread, StackId(stack), &fields);
    }

    /// The beginning of another operation; arguments that are not given are zero or unreadable.
    pub(crate) fn operation(
        &mut self,
        thread: u32,
        time: u64,
        event: &str,
        req: u64,
        arguments: &[(&str, Given<'_>)],
    ) {
        let mut all = entries();
        let place = all.position(|entry| entry.event == event).unwrap();
        let value = |argument: &Argument| {
            let given = arguments.iter().find(|(name, _)| *name == argument.name);
            match given.map(|(_, value)| value) {
                Some(Given::Text(text)) => FieldValue::Bytes(text.as_bytes()),
                Some(&Given::Number(number)) => FieldValue::Int(number as u64),
                None if argument.name == "req" => FieldValue::Int(req),
                None if argument.kind == FieldType::String => FieldValue::Missing,
                None => FieldValue::Int(0),
            }
        };
        let fields: Vec<_> = entries().nth(place).unwrap().arguments.iter().map(value).collect();
        let id = Self::OTHERS + place as u32;
        self.writer.sample(id, time, thread, StackId(self.stack_of_operations), &fields);
    }

    /// A thread enters the kernel. The first call defines the events of system calls.
    pub(crate) fn enter(&mut self, thread: u32, time: u64, number: i64) {
        self.define_syscalls();
        let fields = [FieldValue::Int(number as u64)];
        self.writer.sample(Self::SYSCALLS[0], time, thread, StackId::default(), &fields);
    }

    /// A thread leaves the kernel; one that has a stack has an event of its own.
    pub(crate) fn exit(&mut self, thread: u32, time: u64, number: i64, result: i64, stack: u32) {
        self.define_syscalls();
        let fields = [FieldValue::Int(number as u64), FieldValue::Int(result as u64)];
        let event = Self::SYSCALLS[if stack == 0 { 1 } else { 2 }];
        self.writer.sample(event, time, thread, StackId(stack), &fields);
    }

    fn define_syscalls(&mut self) {
        if std::mem::replace(&mut self.has_syscalls, true) {
            return;
        }
        let names = ["sys_enter", "sys_exit", "sys_exit.failed"];
        for (id, name) in Self::SYSCALLS.into_iter().zip(names) {
            let fields = if id == Self::SYSCALLS[0] { &["id"][..] } else { &["id", "ret"] };
            let field = |&name: &&str| FieldDef { name: name.into(), kind: FieldType::Signed };
            let fields = fields.iter().map(field).collect();
            let (name, set) = (name.into(), "syscalls".into());
            let source = "tracepoint".into();
            self.writer
                .event(&EventDef { id, name, set, source, fields, period_ns: None })
                .unwrap();
        }
    }

    /// Operations that follow are asked for by this stack.
    pub(crate) fn operations_by(&mut self, stack: u32) {
        self.stack_of_operations = stack;
    }

    pub(crate) fn cleanup(&mut self, thread: u32, time: u64, req: u64, result: i64) {
        self.cleanup_of(thread, time, req, result, 1);
    }

    pub(crate) fn cleanup_of(&mut self, thread: u32, time: u64, req: u64, result: i64, kind: u64) {
        self.cleanup_with(thread, time, req, result, kind, 0);
    }

    pub(crate) fn cleanup_with(
        &mut self,
        thread: u32,
        time: u64,
        req: u64,
        result: i64,
        kind: u64,
        ptr: u64,
    ) {
        let names = self.cleanup_fields.clone();
        let fields: Vec<_> = names
            .iter()
            .map(|&name| match name {
                "req" => FieldValue::Int(req),
                "type" => FieldValue::Int(kind),
                "result" => FieldValue::Int(result as u64),
                "ptr" => FieldValue::Int(ptr),
                _ => FieldValue::Int(0),
            })
            .collect();
        self.writer.sample(Self::CLEANUP, time, thread, StackId::default(), &fields);
    }

    pub(crate) fn finish_bytes(self) -> Vec<u8> {
        let end = End { reason: "duration".into(), end_ns: END_NS, exit_status: None };
        self.writer.finish(&end).unwrap().0
    }

    pub(crate) fn finish(self) -> Capture {
        let capture = read(&self.finish_bytes(), &Limits::default()).unwrap();
        assert!(capture.read.complete(), "{:?}", capture.read);
        capture
    }
}

fn kind_of(name: &str) -> FieldType {
    match name {
        "path" => FieldType::String,
        "blob" => FieldType::Bytes,
        "req" | "cb" => FieldType::Hex,
        _ => FieldType::Signed,
    }
}
