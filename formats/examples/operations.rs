//! `operations COUNT`: writes to standard output the capture of a program that does so many file
//! operations, each thousandth in a child process, on ever new paths. It is for the memory of whoever
//! reads along:
//!
//! ```text
//! operations 10000000 | nanalyze events --follow - --failed > /dev/null
//! ```

use std::io::{Error, Result, Write, stdout};

use formats::capture::{
    CaptureWriter, End, EventDef, FieldDef, FieldValue, Frame, Function, LineEnds, Loss, Meta,
    Process, ProcessEnd, Script, StackId, TableLimits, Thread, Tier,
};
use formats::catalogue::{CLEANUP, entries};

/// Operations of one chunk: 200 ms of 100 000 a second.
const CHUNK: u64 = 20_000;
/// What `uv_fs_type` and `uv_fs_req_cleanup` are called for (include/uv.h).
const OPEN: u64 = 1;
const CLOSE: u64 = 2;
const STEP_NS: u64 = 10_000;

fn main() -> Result<()> {
    let count = std::env::args().nth(1).and_then(|word| word.parse().ok());
    let count: u64 = count.ok_or_else(|| Error::other("usage: operations COUNT"))?;
    let meta = Meta { recorder: "operations".into(), js: "heap".into(), ..Meta::default() };
    let mut writer = CaptureWriter::create(stdout().lock(), &meta, TableLimits::default())?;
    let names = ["uv_fs_open", "uv_fs_close", CLEANUP];
    let mut fields: Vec<Vec<&str>> = Vec::new();
    for (id, name) in (1..).zip(names) {
        let entry = entries().find(|entry| entry.event == name);
        let arguments = entry.ok_or_else(|| Error::other("no such entry"))?.arguments;
        fields.push(arguments.iter().map(|argument| argument.name).collect());
        let defs = arguments.iter();
        let defs = defs.map(|a| FieldDef { name: a.name.into(), kind: a.kind }).collect();
        let (name, set, source) = (name.into(), "fs".into(), "uprobe".into());
        writer.event(&EventDef { id, name, set, source, fields: defs, period_ns: None })?;
    }
    let process = writer.process(Process { pid: 7, comm: b"node".to_vec(), ..Process::default() });
    let thread = writer.thread(Thread { process, tid: 7 });
    let script =
        writer.script(Script { process, name: b"/app/a.js".to_vec(), ..Script::default() });
    writer.line_ends(LineEnds { script, ends: (1..1000).map(|line| line * 40).collect() });
    let functions: Vec<u32> = (0..500)
        .map(|at| {
            let name = format!("function{at}").into_bytes();
            writer.function(Function { script: script + 1, name, start: at * 80 + 1 })
        })
        .collect();
    let mut time = 1_000;
    for number in 0..count / 2 {
        let mut who = thread;
        if number % 500 == 499 {
            let child = Process { pid: 8, comm: b"node".to_vec(), ..Process::default() };
            let child = writer.process(Process { cmdline: vec![b'a'; 200], ..child });
            who = writer.thread(Thread { process: child, tid: 8 });
        }
        let path = format!("/data/{}/{number}", number % 97);
        let mut stack = StackId::default();
        for level in 0..8u64 {
            let at = (number / 8u64.pow(7 - level as u32)) as usize % functions.len();
            let (function, position) = (functions[at], (number % 1000 * 40 + 5) as u32);
            let (tier, inlined) = (Tier::TURBOFAN, false);
            stack = writer.stack(stack, Frame::Js { function, position, tier, inlined });
        }
        let result = if number % 1000 == 0 { -2i64 as u64 } else { 20 + number % 40 };
        for (event, kind, result) in [(1, OPEN, result), (2, CLOSE, 0)] {
            let value = |name: &&str| match *name {
                "req" => FieldValue::Int(0x7000 + number % 4 * 0x200),
                "path" => FieldValue::Bytes(path.as_bytes()),
                "file" => FieldValue::Int(20 + number % 40),
                "type" => FieldValue::Int(kind),
                "result" => FieldValue::Int(result),
                _ => FieldValue::Int(0),
            };
            for (event, names, stack) in
                [(event, &fields[event as usize - 1], stack), (3, &fields[2], StackId::default())]
            {
                time += STEP_NS / 2;
                let values: Vec<_> = names.iter().map(value).collect();
                writer.sample(event, time, who, stack, &values);
            }
        }
        if number % 500 == 499 {
            writer.process_end(ProcessEnd { process: 1 + (number / 500) as u32, time_ns: time });
        }
        if number % (CHUNK / 2) == 0 {
            writer.loss(Loss { event: 1, time_ns: time, lost: 1, dropped: 0 });
            writer.flush()?;
        }
    }
    let end = End { reason: "duration".into(), end_ns: time, exit_status: None };
    writer.finish(&end)?.0.flush()
}
