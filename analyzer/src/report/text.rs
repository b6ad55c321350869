//! The report for people: one page, the worst first. It must not compute anything but layout.

mod cpu;
mod files;
mod modules;
mod operations;
mod pool;
mod probes;
mod quality;

use std::io::{self, Write};

use formats::text::clean_string;

use super::Report;
use super::frames::{cmdline, comm, last_images};
use super::stacks::Line;
use super::style::Style;
use super::units::{counted, date, duration};
use crate::aggregate::operations::PathFilter;

/// Paths and remarks shown unless `--top` says otherwise.
const TOP: usize = 20;
/// Functions shown in each table of CPU time unless `--top` says otherwise.
const TOP_FUNCTIONS: usize = 10;
/// Stacks shown of one path, or of one probe.
const STACKS: usize = 3;
/// Longest path that is shown, characters.
const PATH_CHARS: usize = 300;
/// Longest command line that is shown, characters.
const COMMAND_CHARS: usize = 200;
/// Longest event name and source that is shown, characters.
const NAME_CHARS: usize = 80;
/// Processes named in the head.
const PROCESSES: usize = 5;
/// Widest function column, characters; longer names push their place to the right.
const FUNCTION_WIDTH: usize = 40;

/// How to show it.
#[derive(Debug, Clone, Copy, Default)]
pub struct TextOptions {
    /// Rows of each table.
    pub top: Option<usize>,
    /// Colours.
    pub style: Style,
}

/// Writes the report.
///
/// # Errors
/// What writing says.
pub fn write(report: &Report<'_>, options: TextOptions, out: &mut dyn Write) -> io::Result<()> {
    let top = options.top.unwrap_or(TOP);
    let top_functions = options.top.unwrap_or(TOP_FUNCTIONS);
    let mut page = Page { report, top, top_functions, style: options.style, out };
    page.head()?;
    page.operations()?;
    // Who filters operations asks for nothing else; but the pool is why some are slow.
    if !report.filter.is_set() || report.filter.slow_ns.is_some() {
        page.pools()?;
    }
    if !report.filter.is_set() {
        page.probes()?;
        if let Some(cpu) = &report.cpu {
            page.cpu(cpu)?;
        }
    }
    page.quality()?;
    page.losses()
}

struct Page<'r, 'c, 'o> {
    report: &'r Report<'c>,
    top: usize,
    top_functions: usize,
    style: Style,
    out: &'o mut dyn Write,
}

impl Page<'_, '_, '_> {
    fn head(&mut self) -> io::Result<()> {
        let capture = self.report.capture;
        let all = last_images(capture);
        let targets: Vec<_> = all
            .iter()
            .copied()
            .filter(|process| capture.meta.targets.contains(&process.pid))
            .collect();
        let others = all.len();
        let processes = if targets.is_empty() { all } else { targets };
        for process in processes.iter().take(PROCESSES) {
            let name = cmdline(process).or_else(|| comm(process));
            let name = name.unwrap_or_else(|| "(unknown command)".to_owned());
            let name = cut(&name, COMMAND_CHARS);
            writeln!(self.out, "{} (pid {})", self.style.heading(&name), process.pid)?;
        }
        let rest = others.saturating_sub(processes.len().min(PROCESSES));
        if rest > 0 {
            writeln!(self.out, "and {}", counted(rest as u64, "other process", "other processes"))?;
        }
        let mut parts = vec![format!("{} recorded", duration(self.report.duration_ns()))];
        if capture.meta.start_wall_ns > 0 {
            parts.push(format!("from {}", date(capture.meta.start_wall_ns)));
        }
        if !capture.meta.kernel.is_empty() {
            parts.push(format!(
                "on Linux {}",
                clean_string(capture.meta.kernel.as_bytes(), NAME_CHARS)
            ));
        }
        writeln!(self.out, "{}", parts.join(" "))?;
        let mut parts = Vec::new();
        if let Some(cpu) = &self.report.cpu {
            let source = clean_string(cpu.source.as_bytes(), NAME_CHARS);
            let source = if source.is_empty() { source } else { format!(" ({source})") };
            parts.push(format!("{}{source}", counted(cpu.samples, "CPU sample", "CPU samples")));
        }
        if let Some(opens) = self.report.opens {
            parts.push(counted(opens.count, "open", "opens"));
            parts.push(format!("{} failed", opens.failed));
            let all = self.report.all_operations;
            let others = all.count - opens.count;
            if others > 0 {
                let what = "other file operation";
                parts.push(counted(others, what, &format!("{what}s")));
                parts.push(format!("{} failed", all.failed - opens.failed));
            }
        }
        for probe in &self.report.probes {
            let name = clean_string(probe.event.as_bytes(), NAME_CHARS);
            parts.push(format!("{} {name}", probe.count));
        }
        if !parts.is_empty() {
            writeln!(self.out, "{}", parts.join(", "))?;
        }
        self.filter()?;
        for problem in &self.report.problems {
            let problem = format!("incomplete: {problem}");
            writeln!(self.out, "{}", self.style.bad(&problem))?;
        }
        Ok(())
    }

    fn filter(&mut self) -> io::Result<()> {
        let PathFilter { glob, failed, slow_ns, modules: _ } = self.report.filter;
        let mut parts: Vec<String> = failed.then(|| "--failed".to_owned()).into_iter().collect();
        if let Some(glob) = glob {
            parts.push(format!("--path {}", clean_string(glob.pattern(), PATH_CHARS)));
        }
        if let Some(slow_ns) = slow_ns {
            parts.push(format!("--slow {}", duration(*slow_ns).replace(' ', "")));
        }
        if parts.is_empty() {
            return Ok(());
        }
        writeln!(self.out, "filter: {}", parts.join(" "))
    }

    fn more_stacks(&mut self, stacks: usize, shown: usize) -> io::Result<()> {
        let more = stacks.saturating_sub(shown);
        if more == 0 {
            return Ok(());
        }
        let text = format!("          … {}", counted(more as u64, "more stack", "more stacks"));
        writeln!(self.out, "{}", self.style.dim(&text))
    }

    fn stack(&mut self, lines: &[Line]) -> io::Result<()> {
        if lines.is_empty() {
            return writeln!(self.out, "              {}", self.style.dim("(no stack)"));
        }
        write_lines(lines, "              ", self.style, self.out)
    }

    fn losses(&mut self) -> io::Result<()> {
        writeln!(self.out, "\n{}", self.style.heading("LOSSES AND REMARKS"))?;
        let mut nothing = true;
        for event in self.report.events.iter().filter(|e| e.lost > 0 || e.dropped > 0) {
            nothing = false;
            let name = clean_string(event.event.as_bytes(), NAME_CHARS);
            writeln!(
                self.out,
                "  {name}: {} lost by the kernel, {} dropped by the recorder, {} kept",
                event.lost, event.dropped, event.samples
            )?;
        }
        for remark in self.report.capture.remarks.iter().take(self.top) {
            nothing = false;
            let text = clean_string(remark.text.as_bytes(), PATH_CHARS);
            let times =
                if remark.count > 1 { format!(" ({} times)", remark.count) } else { String::new() };
            writeln!(self.out, "  {text}{times}")?;
        }
        self.more(self.report.capture.remarks.len(), self.top, "remark", "remarks")?;
        if nothing && self.report.problems.is_empty() {
            writeln!(self.out, "  none: everything that was recorded is here")?;
        } else if nothing {
            for problem in &self.report.problems {
                writeln!(self.out, "  {problem}")?;
            }
        }
        Ok(())
    }

    /// Says what a bounded table leaves out.
    fn more(&mut self, rows: usize, top: usize, one: &str, many: &str) -> io::Result<()> {
        let more = rows.saturating_sub(top);
        if more == 0 {
            return Ok(());
        }
        let text = format!("  … {} more {} (--top N)", more, if more == 1 { one } else { many });
        writeln!(self.out, "{}", self.style.dim(&text))
    }
}

/// Writes the lines of a stack, places aligned.
///
/// # Errors
/// What writing says.
pub fn write_lines(
    lines: &[Line],
    indent: &str,
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    let width = width(lines.iter());
    for line in lines {
        out.write_all(indent.as_bytes())?;
        write_line(line, width, style, out)?;
    }
    Ok(())
}

/// Width of the function column.
fn width<'l>(lines: impl Iterator<Item = &'l Line>) -> usize {
    let widths = lines.map(|line| match line {
        Line::Frame { function, place: Some(_) } => function.chars().count(),
        _ => 0,
    });
    widths.max().unwrap_or(0).min(FUNCTION_WIDTH)
}

fn write_line(line: &Line, width: usize, style: Style, out: &mut dyn Write) -> io::Result<()> {
    match line {
        Line::Frame { function, place: Some(place) } => {
            let (function, place) = (cut(function, PATH_CHARS), cut(place, PATH_CHARS));
            writeln!(out, "{function:<width$}  {}", style.dim(&place))
        }
        Line::Frame { function, place: None } => writeln!(out, "{}", cut(function, PATH_CHARS)),
        Line::Folded(text) => writeln!(out, "{}", style.dim(&cut(text, PATH_CHARS))),
    }
}

/// Cuts text that is neutralised already: neutralising it twice would double its escapes.
fn cut(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    text.chars().take(max.saturating_sub(1)).chain(['…']).collect()
}
