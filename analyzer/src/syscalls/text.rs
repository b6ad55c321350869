//! System calls for people: where the time went, then what failed and for whom, then what was slow. It
//! must not compute anything but layout.

use std::io::{self, Write};

use formats::text::clean_string;

use super::SyscallsReport;
use crate::aggregate::operations::Latency;
use crate::aggregate::syscalls::{CallCount, Failure, NotYet, Purpose, Slow};
use crate::join::errno;
use crate::join::syscalls::SystemCall;
use crate::profile::ResolvedStackId;
use crate::report::frames::{cmdline, comm, last_images};
use crate::report::stacks::{self, Line};
use crate::report::style::Style;
use crate::report::units::{self, counted, date, duration, percent};

/// Rows of each table unless `--top` says otherwise.
pub const TOP: usize = 20;
/// Slow calls unless `--top` says otherwise.
pub const SLOWEST: usize = 10;
/// Callers that are shown of one failure.
const CALLERS: usize = 3;
/// Longest path and command that is shown, characters.
const PATH_CHARS: usize = 300;
/// Longest name that is shown, characters.
const NAME_CHARS: usize = 80;

/// Writes the page.
///
/// # Errors
/// What writing says.
pub fn write(
    report: &SyscallsReport<'_>,
    (top, style): (Option<usize>, Style),
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut page = Page { report, top: top.unwrap_or(TOP), style, out };
    page.head()?;
    page.failures()?;
    page.tables()?;
    page.slowest()
}

struct Page<'r, 'c, 'o> {
    report: &'r SyscallsReport<'c>,
    top: usize,
    style: Style,
    out: &'o mut dyn Write,
}

impl Page<'_, '_, '_> {
    fn head(&mut self) -> io::Result<()> {
        let report = self.report;
        let targets = &report.capture.meta.targets;
        let is_target = |pid: u32| targets.is_empty() || targets.contains(&pid);
        for process in last_images(report.capture).into_iter().filter(|p| is_target(p.pid)) {
            let name = cmdline(process).or_else(|| comm(process)).unwrap_or_default();
            let name = clean_string(name.as_bytes(), PATH_CHARS);
            writeln!(self.out, "{} (pid {})", self.style.heading(&name), process.pid)?;
        }
        let mut parts = vec![format!("{} recorded", duration(report.duration_ns()))];
        if report.capture.meta.start_wall_ns > 0 {
            parts.push(format!("from {}", date(report.capture.meta.start_wall_ns)));
        }
        writeln!(self.out, "{}", parts.join(" "))?;
        let calls = counted(report.calls, "system call", "system calls");
        let mut parts = vec![calls, format!("{} failed", report.failed)];
        if report.exits_alone > 0 {
            parts.push(format!(
                "of {} only the end was seen (begun before, or a new thread's first)",
                report.exits_alone
            ));
        }
        writeln!(self.out, "{}", parts.join(", "))?;
        let filter = report.filter;
        if filter.is_set() {
            let failed = filter.failed.then(|| "--failed".to_owned());
            let slow = filter.slow_ns.map(|ns| format!("--slow {}", duration(ns)));
            let parts: Vec<String> = failed.into_iter().chain(slow).collect();
            writeln!(self.out, "filter: {}", parts.join(" "))?;
        }
        for problem in &report.problems {
            writeln!(self.out, "{}", self.style.bad(&format!("incomplete: {problem}")))?;
        }
        Ok(())
    }

    fn tables(&mut self) -> io::Result<()> {
        let calls = &self.report.counted.calls;
        let (waiting, working): (Vec<&CallCount>, Vec<_>) =
            calls.iter().partition(|call| call.waits);
        if calls.is_empty() {
            let why = if self.report.calls == 0 { "none was made" } else { "none fits the filter" };
            return writeln!(self.out, "\n{}\n  {why}", self.style.heading("SYSTEM CALLS"));
        }
        self.table("SYSTEM CALLS BY TIME", &working)?;
        self.table("WAITING FOR SOMETHING TO DO", &waiting)
    }

    fn table(&mut self, title: &str, rows: &[&CallCount]) -> io::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        writeln!(self.out, "\n{}", self.style.heading(title))?;
        let head =
            "   share       time     calls  errors        p50        p99        max  system call";
        writeln!(self.out, "{}", self.style.dim(head))?;
        let all: u64 = rows.iter().map(|row| row.total_ns).sum();
        for row in rows.iter().take(self.top) {
            let time = |pick: fn(Latency) -> u64| {
                row.latency.map_or("-".to_owned(), |latency| duration(pick(latency)))
            };
            let (p50, p99, max) = (time(|l| l.p50), time(|l| l.p99), time(|l| l.max));
            let (share, total) = (percent(row.total_ns, all), duration(row.total_ns));
            let errors = if row.errors > 0 { row.errors.to_string() } else { "-".to_owned() };
            let errors = format!("{errors:>6}");
            let errors =
                if row.errors > 0 { self.style.bad(&errors) } else { self.style.dim(&errors) };
            let unfinished = match row.unfinished {
                0 => String::new(),
                calls => format!("  {calls} did not return"),
            };
            writeln!(
                self.out,
                "{share:>8} {total:>10}  {:>8}  {errors}  {p50:>9}  {p99:>9}  {max:>9}  {}{}",
                row.count,
                row.name,
                self.style.dim(&unfinished)
            )?;
        }
        self.more(rows.len(), "system call", "system calls")
    }

    fn failures(&mut self) -> io::Result<()> {
        let counted = &self.report.counted;
        if !counted.failures.is_empty() {
            writeln!(self.out, "\n{}", self.style.heading("FAILED SYSTEM CALLS"))?;
            let head = "   count  call = error, what for, who asked";
            writeln!(self.out, "{}", self.style.dim(head))?;
            let shown = || counted.failures.iter().take(self.top);
            let width = shown().map(|f| what_failed(f).chars().count()).max().unwrap_or(0);
            for failure in counted.failures.iter().take(self.top) {
                self.failure(failure, width)?;
            }
            self.more(counted.failures.len(), "failure", "failures")?;
        }
        if counted.not_yet.is_empty() {
            return Ok(());
        }
        let what = |row: &NotYet| format!("{} {} {}", row.name, row.errno, row.count);
        let shown: Vec<String> = counted.not_yet.iter().take(self.top).map(what).collect();
        let more = counted.not_yet.len().saturating_sub(shown.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let text = format!(
            "  not counted as failures, they mean \"not yet\" or the end of waiting: {}{more}",
            shown.join(", ")
        );
        writeln!(self.out, "{}", self.style.dim(&text))
    }

    fn failure(&mut self, failure: &Failure<'_>, width: usize) -> io::Result<()> {
        let what = format!("{:<width$}", what_failed(failure));
        let mut callers: Vec<(Option<String>, u64)> = Vec::new();
        for &(stack, count) in &failure.stacks {
            let caller = self.who(stack);
            match callers.iter_mut().find(|(known, _count)| *known == caller) {
                Some((_known, sum)) => *sum += count,
                None => callers.push((caller, count)),
            }
        }
        callers.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let purpose = purpose(&failure.purpose);
        let one = match callers.as_slice() {
            [(Some(caller), _count)] => format!("  {caller}"),
            _ => String::new(),
        };
        let (what, one) = (self.style.bad(&what), self.style.dim(&one));
        writeln!(self.out, "{:>8}  {what}  {purpose}{one}", failure.count)?;
        if callers.len() < 2 {
            return Ok(());
        }
        for (caller, count) in callers.iter().take(CALLERS) {
            let caller = caller.as_deref().unwrap_or("no JavaScript in the stack");
            writeln!(self.out, "{count:>12} x  {}", self.style.dim(caller))?;
        }
        let more = callers.len().saturating_sub(CALLERS);
        if more > 0 {
            let text = format!("             … {}", counted(more as u64, "more", "more"));
            writeln!(self.out, "{}", self.style.dim(&text))?;
        }
        Ok(())
    }

    fn slowest(&mut self) -> io::Result<()> {
        let counted = &self.report.counted;
        if counted.slowest.is_empty() {
            return Ok(());
        }
        writeln!(self.out, "\n{}", self.style.heading("SLOWEST SYSTEM CALLS"))?;
        let head = "      took        after  call = result, what for, who asked";
        writeln!(self.out, "{}", self.style.dim(head))?;
        let width = counted.slowest.iter().map(|slow| what_gave(slow).chars().count()).max();
        let width = width.unwrap_or(0);
        for slow in &counted.slowest {
            let after = slow.call.start_ns.saturating_sub(self.report.capture.meta.start_ns);
            let took = duration(slow.call.duration_ns.unwrap_or(0));
            let what = what_gave(slow);
            let who = self.who(slow.stack).map_or(String::new(), |who| format!("  {who}"));
            writeln!(
                self.out,
                "{took:>10}  {:>4}.{:06}  {what:<width$}  {}{}",
                after / 1_000_000_000,
                after / 1_000 % 1_000_000,
                purpose(&slow.purpose),
                self.style.dim(&who)
            )?;
        }
        if counted.slowest.iter().any(|slow| slow.purpose == Purpose::Unknown) {
            let text = "  what for is known within file operations, and of calls that failed: only these \
                        have stacks";
            writeln!(self.out, "{}", self.style.dim(text))?;
        }
        let more = counted.working.saturating_sub(counted.slowest.len() as u64);
        if more > 0 && self.report.filter.is_set() {
            let text = format!("  … {} (--top N)", units::counted(more, "more", "more"));
            writeln!(self.out, "{}", self.style.dim(&text))?;
        }
        Ok(())
    }

    /// The line of JavaScript that asked.
    fn who(&self, stack: ResolvedStackId) -> Option<String> {
        let line = stacks::who_asked(&self.report.profile, stack)?;
        Some(match line {
            Line::Frame { function, place: Some(place) } => format!("at {function} ({place})"),
            Line::Frame { function, place: None } => format!("at {function}"),
            Line::Folded(text) => text,
        })
    }

    fn more(&mut self, rows: usize, one: &str, many: &str) -> io::Result<()> {
        let more = rows.saturating_sub(self.top);
        if more == 0 {
            return Ok(());
        }
        let text = format!("  … {more} more {} (--top N)", if more == 1 { one } else { many });
        writeln!(self.out, "{}", self.style.dim(&text))
    }
}

/// `openat = ENOENT`.
fn what_failed(failure: &Failure<'_>) -> String {
    format!("{} = {}", failure.name, failure.errno)
}

/// `openat = 17`.
fn what_gave(slow: &Slow<'_>) -> String {
    format!("{} = {}", slow.name, result(&slow.call))
}

/// The result as strace has it, the error by name.
fn result(call: &SystemCall) -> String {
    match (call.result, call.errno()) {
        (_, Some(number)) => errno::name(number).into_owned(),
        (Some(result), None) => units::result(result),
        (None, None) => "?".to_owned(),
    }
}

/// What a call was made for, in words; empty where that is not known.
fn purpose(purpose: &Purpose<'_>) -> String {
    match purpose {
        Purpose::Operation { name, path, new_path, call } => {
            let quoted = |path: &[u8]| format!(" \"{}\"", clean_string(path, PATH_CHARS));
            let path = path.map_or(String::new(), quoted);
            let to = new_path.map_or(String::new(), |path| format!(" to{}", quoted(path)));
            let via = call.as_ref().map_or(String::new(), |call| {
                format!(" via {}", clean_string(call.as_bytes(), NAME_CHARS))
            });
            format!("{name}{path}{to}{via}")
        }
        Purpose::Job(work) => work.words().to_owned(),
        Purpose::Function(name) => format!("in {}", clean_string(name.as_bytes(), NAME_CHARS)),
        Purpose::Unknown => String::new(),
    }
}
