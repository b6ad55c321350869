//! The tables of files, of the calls that used them, and of the slowest operations. It must not
//! compute anything but layout.

use std::collections::{BTreeMap, HashSet};
use std::io;

use super::operations::{mode, notes, pids};
use super::{Page, TOP_FUNCTIONS};
use crate::aggregate::calls::{CallSite, PathRow};
use crate::join::errno;
use crate::join::operations::{Operation, Parts};
use crate::report::stacks::{self, Line};
use crate::report::units::{counted, duration};

/// Callers that are shown of one path.
const CALLERS: usize = 3;
/// Stands for who asked where no stack was taken, or where it holds no name of JavaScript.
const UNKNOWN: &str = "(no stack taken, or no JavaScript in it)";
/// What is faster is not called slow unless a filter asks for it, nanoseconds.
const LEAST_NS: u64 = 1_000_000;
/// Slowest operations that are shown unless `--top` says otherwise.
const SLOWEST: usize = 5;

impl Page<'_, '_, '_> {
    /// Every path with all that was done to it.
    pub(super) fn files(&mut self) -> io::Result<()> {
        let report = self.report;
        // What only failed is above.
        let fine = |row: &&PathRow<'_>| row.sum.opens.failed < row.sum.opens.count;
        let paths: Vec<&PathRow<'_>> = report.paths.iter().filter(fine).collect();
        if paths.is_empty() {
            return Ok(());
        }
        writeln!(self.out, "\n{}", self.style.heading("FILES"))?;
        let head = "   count  failed        p50        p99        max  path";
        writeln!(self.out, "{}", self.style.dim(head))?;
        for row in paths.iter().take(self.top) {
            let counts = self.counts(row.sum.opens, row.latency);
            let name = Self::names(row.path, row.new_path, row.by_handle);
            let notes = notes(row.sum.errors.iter(), row.sum.opens.pending);
            let list: Vec<u32> = row.sum.pids.iter().copied().collect();
            let pids = if report.many_open { pids(&list) } else { String::new() };
            let done = format!("  {}", done(&row.sum.names, row.sum.bytes));
            let (done, pids) = (self.style.dim(&done), self.style.dim(&pids));
            writeln!(self.out, "{counts}  {name}{done}{}{pids}", self.style.bad(&notes))?;
            for (site, sum) in row.askers.iter().take(CALLERS) {
                let mut line = format!("{:>11} x {:<5}", sum.opens.count, mode(sum.opens));
                let who = self.site(*site).unwrap_or_else(|| UNKNOWN.to_owned());
                line.push_str(&format!("  {who}"));
                writeln!(self.out, "{}", line.trim_end())?;
            }
            let more = row.askers.len().saturating_sub(CALLERS);
            if more > 0 {
                let text =
                    format!("          … {}", counted(more as u64, "more caller", "more callers"));
                writeln!(self.out, "{}", self.style.dim(&text))?;
            }
        }
        self.more(paths.len(), self.top, "path", "paths")?;
        let hint = "  with whole stacks: --path GLOB";
        writeln!(self.out, "{}", self.style.dim(hint))
    }

    /// Every line of the program with all that came of it.
    pub(super) fn calls(&mut self) -> io::Result<()> {
        let report = self.report;
        if report.calls.is_empty() {
            return Ok(());
        }
        let title = "CALLS, by the time of their operations";
        writeln!(self.out, "\n{}", self.style.heading(title))?;
        let head = "   count  failed       time    blocked  call, with what it did";
        writeln!(self.out, "{}", self.style.dim(head))?;
        for (site, sum) in report.calls.iter().take(self.top_functions) {
            let who = self.site(*site).unwrap_or_else(|| UNKNOWN.to_owned());
            let failed = match sum.opens.failed {
                0 => "-".to_owned(),
                failed => failed.to_string(),
            };
            let blocked = if sum.blocked_ns > 0 { duration(sum.blocked_ns) } else { "-".into() };
            writeln!(
                self.out,
                "{:>8}  {failed:>6}  {:>9}  {blocked:>9}  {who}",
                sum.opens.count,
                duration(sum.total_ns)
            )?;
            let mut done = done(&sum.names, sum.bytes);
            if sum.by_descriptor > 0 {
                done.push_str(&format!("; {} by their descriptor", sum.by_descriptor));
            }
            writeln!(self.out, "{:41}{}", "", self.style.dim(&done))?;
        }
        self.more(report.calls.len(), self.top_functions, "call", "calls")?;
        let text = "  time: of all operations together, also of those at once; blocked: of the synchronous ones, for which \
                    the event loop stood still";
        writeln!(self.out, "{}", self.style.dim(text))
    }

    /// Call and line in words.
    pub(super) fn site(&self, site: CallSite) -> Option<String> {
        let call = self.report.askers.name(site.call).map(str::to_owned);
        let frame = site.line.and_then(|line| self.report.profile.get(line));
        let line = frame.map(|frame| words(stacks::full(frame)));
        match (call, line) {
            (Some(call), Some(line)) => Some(format!("{call} at {line}")),
            (call, line) => call.or(line),
        }
    }

    /// The slowest operations, of those that are alike the first.
    pub(super) fn slowest(&mut self) -> io::Result<()> {
        let report = self.report;
        let limit = if self.top_functions == TOP_FUNCTIONS { SLOWEST } else { self.top };
        let mut seen = HashSet::new();
        let mut title = Some("SLOWEST OPERATIONS");
        for &place in &report.slowest {
            let Some(operation) = report.joined.get(place) else { continue };
            let asked = report.askers.get(place);
            let line = crate::asked::line(&report.profile, asked.stack());
            let site = CallSite { call: asked.call, line };
            let is_slow = operation.latency_ns.is_some_and(|took| took >= LEAST_NS);
            if seen.len() == limit || !(is_slow || report.filter.slow_ns.is_some()) {
                break;
            }
            if !seen.insert((operation.name, operation.path, site)) {
                continue;
            }
            if let Some(title) = title.take() {
                writeln!(self.out, "\n{}", self.style.heading(title))?;
            }
            let took = duration(operation.latency_ns.unwrap_or_default());
            let by_handle = operation.descriptor.is_some() || operation.directory.is_some();
            let name = Self::names(operation.path, operation.new_path, by_handle);
            let error = operation.errno().map(errno::name);
            let error = error.map_or(String::new(), |name| format!("  {name}"));
            let (error, parts) = (self.style.bad(&error), parts(operation));
            let parts = self.style.dim(&parts);
            writeln!(self.out, "{took:>10}  {} {name}{error}{parts}", operation.name)?;
            if let Some(who) = self.site(site) {
                writeln!(self.out, "{:12}{}", "", self.style.dim(&who))?;
            }
        }
        Ok(())
    }
}

/// `open 60, read 120, 1920 bytes`.
fn done(names: &BTreeMap<&'static str, u64>, bytes: Option<u64>) -> String {
    let mut names: Vec<_> = names.iter().collect();
    names.sort_by_key(|(_name, count)| std::cmp::Reverse(**count));
    let mut done: Vec<String> =
        names.into_iter().map(|(name, count)| format!("{name} {count}")).collect();
    done.extend(bytes.map(|bytes| counted(bytes, "byte", "bytes")));
    done.join(", ")
}

pub(super) fn words(line: Line) -> String {
    match line {
        Line::Frame { function, place: Some(place) } => format!("{function} {place}"),
        Line::Frame { function, place: None } => function,
        Line::Folded(text) => text,
    }
}

/// Where the time went, as far as it is known.
fn parts(operation: &Operation<'_>) -> String {
    let Parts { queue_ns, work_ns, syscall_ns, loop_ns, .. } = operation.parts;
    let known = [
        ("waited for a thread", queue_ns),
        ("worked", work_ns),
        ("in system calls", syscall_ns),
        ("waited for the loop", loop_ns),
    ];
    let parts: Vec<String> = known
        .into_iter()
        .filter_map(|(what, ns)| Some(format!("{what} {}", duration(ns?))))
        .collect();
    match (parts.is_empty(), operation.asynchronous) {
        (false, _) => format!("  {}", parts.join(", ")),
        (true, Some(false)) => "  sync".to_owned(),
        (true, _) => String::new(),
    }
}
