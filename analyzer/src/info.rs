//! The `info` command: what is in the capture. It resolves no stack.

use std::io::{self, Write};

use formats::capture::{Capture, Object};
use formats::text::{Clean, clean_string};

use crate::aggregate::losses;
use crate::aggregate::quality::js_names;
use crate::report::frames::{cmdline, comm, hex};
use crate::report::style::Style;
use crate::report::units::{counted, date, duration};

/// Longest text of one line, characters.
const CHARS: usize = 300;

/// Writes what is in the capture.
///
/// # Errors
/// What writing says.
pub fn write(capture: &Capture, style: Style, out: &mut dyn Write) -> io::Result<()> {
    recording(capture, style, out)?;
    processes(capture, style, out)?;
    events(capture, style, out)?;
    objects(capture, style, out)?;
    state(capture, style, out)
}

fn recording(capture: &Capture, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let meta = &capture.meta;
    let text = |text: &str| clean_string(text.as_bytes(), CHARS);
    writeln!(out, "{}", style.heading("RECORDING"))?;
    let mut row = |name: &str, value: String| {
        if value.is_empty() { Ok(()) } else { writeln!(out, "  {name:<10}{value}") }
    };
    row("recorder", text(&meta.recorder))?;
    row("command", text(&meta.command.join(" ")))?;
    row("mode", text(&meta.mode))?;
    if meta.start_wall_ns > 0 {
        row("from", date(meta.start_wall_ns))?;
    }
    let length = capture.end_ns().saturating_sub(meta.start_ns);
    let end = capture.end.as_ref().map(|end| {
        let status = end.exit_status.map_or(String::new(), |s| format!(", exit status {s}"));
        format!(", ended by {}{status}", text(&end.reason))
    });
    row("length", format!("{}{}", duration(length), end.unwrap_or_default()))?;
    row("clock", format!("CLOCK_MONOTONIC, start {} ns", meta.start_ns))?;
    row("kernel", text(&[meta.kernel.as_str(), meta.arch.as_str()].join(" ")).trim().to_owned())?;
    if meta.cpus > 0 {
        row("CPUs", meta.cpus.to_string())?;
    }
    if meta.frequency > 0 {
        row("frequency", format!("{} Hz", meta.frequency))?;
    }
    if meta.ring_bytes > 0 {
        row("rings", format!("{} KiB", meta.ring_bytes / 1024))?;
    }
    if let Some(origin) = js_names(capture).origin() {
        row("JS names", origin.to_owned())?;
    }
    if meta.stack_bytes > 0 {
        row("stacks", format!("from {} KiB of user stack a sample", meta.stack_bytes / 1024))?;
    }
    Ok(())
}

fn processes(capture: &Capture, style: Style, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\n{}", style.heading("PROCESSES"))?;
    for (at, process) in capture.processes.iter().enumerate() {
        let at = at as u32;
        let threads = capture.threads.iter().filter(|thread| thread.process == at).count();
        let target = if capture.meta.targets.contains(&process.pid) { ", target" } else { "" };
        let name = comm(process).unwrap_or_default();
        let threads = counted(threads as u64, "thread", "threads");
        writeln!(out, "  {} {name}: {threads}{target}", process.pid)?;
        if let Some(cmdline) = cmdline(process) {
            writeln!(out, "      command  {cmdline}")?;
        }
        if !process.node_options.is_empty() {
            let options = clean_string(&process.node_options, CHARS);
            writeln!(out, "      V8 flags in NODE_OPTIONS  {options}")?;
        }
        let batches = || capture.jit.iter().filter(|batch| batch.process == at);
        let entries: usize = batches().map(|batch| batch.entries.len()).sum();
        if entries > 0 {
            let looks = counted(batches().count() as u64, "piece", "pieces");
            let entries = counted(entries as u64, "entry", "entries");
            writeln!(out, "      JIT map  {entries} in {looks}")?;
        }
        if let Some(end) = capture.ends.iter().find(|end| end.process == at) {
            let after = end.time_ns.saturating_sub(capture.meta.start_ns);
            writeln!(out, "      ended after {}", duration(after))?;
        }
    }
    Ok(())
}

fn events(capture: &Capture, style: Style, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\n{}", style.heading("EVENTS"))?;
    let head = "   samples      lost   dropped  set       event";
    writeln!(out, "{}", style.dim(head))?;
    for count in &losses::by_event(capture) {
        let name = clean_string(count.event.as_bytes(), CHARS);
        let set = clean_string(count.set.as_bytes(), 20);
        let (samples, lost, dropped) = (count.samples, count.lost, count.dropped);
        writeln!(out, "{samples:>10}{lost:>10}{dropped:>10}  {set:<8}  {name}")?;
        let Some(def) = capture.event(count.id) else { continue };
        let mut notes = Vec::new();
        if !def.source.is_empty() {
            notes.push(def.source.clone());
        }
        if !def.fields.is_empty() {
            let names: Vec<&str> = def.fields.iter().map(|field| field.name.as_str()).collect();
            notes.push(format!("arguments {}", names.join(", ")));
        }
        if let Some(period) = def.period_ns {
            notes.push(format!("one sample stands for {}", duration(period)));
        }
        if !notes.is_empty() {
            let notes = clean_string(notes.join("; ").as_bytes(), CHARS);
            writeln!(out, "{:>40}{}", "", style.dim(&notes))?;
        }
    }
    Ok(())
}

fn objects(capture: &Capture, style: Style, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\n{}", style.heading("FILES"))?;
    let mut symbols = vec![0u64; capture.objects.len()];
    for symbol in &capture.symbols {
        if let Some(count) = symbols.get_mut(symbol.object as usize) {
            *count += 1;
        }
    }
    for (object, symbols) in capture.objects.iter().zip(symbols) {
        let build_id = if object.build_id.is_empty() {
            "no build-id".to_owned()
        } else {
            format!("build-id {}", hex(&object.build_id))
        };
        let mut notes = vec![build_id, counted(symbols, "symbol", "symbols")];
        for (flag, note) in [
            (Object::DELETED, "replaced or removed"),
            (Object::STRIPPED, "stripped"),
            (Object::UNREADABLE, "not readable"),
        ] {
            if object.flags & flag != 0 {
                notes.push(note.to_owned());
            }
        }
        let path = clean_string(&object.path, CHARS);
        writeln!(out, "  {path}\n      {}", style.dim(&notes.join(", ")))?;
    }
    Ok(())
}

fn state(capture: &Capture, style: Style, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\n{}", style.heading("STATE"))?;
    let problems = losses::problems(capture);
    if problems.is_empty() {
        writeln!(out, "  complete: nothing is lost or damaged")?;
    }
    for problem in &problems {
        writeln!(out, "  {}", style.bad(problem))?;
    }
    let read = &capture.read;
    if read.unknown_chunks + read.unknown_sections > 0 {
        let (chunks, sections) = (read.unknown_chunks, read.unknown_sections);
        writeln!(out, "  skipped, from a newer recorder: {chunks} chunks, {sections} sections")?;
    }
    for remark in &capture.remarks {
        let times =
            if remark.count > 1 { format!(" ({} times)", remark.count) } else { String::new() };
        writeln!(out, "  {}{times}", Clean::text(&remark.text))?;
    }
    Ok(())
}
