//! The sections on what was done to files, what failed first. It must not compute anything but layout.

use std::collections::HashMap;
use std::io;

use formats::text::clean_string;

use super::{PATH_CHARS, Page, STACKS};
use crate::aggregate::operations::{Latency, OpenCount, OpenStack, PathOperations};
use crate::profile::ResolvedStackId;
use crate::report::json::UNREADABLE_PATH;
use crate::report::stacks::{self, Line};
use crate::report::units::{counted, duration};

/// Stands for the path of a descriptor or a directory that was opened before the recording, or by
/// something that is not libuv.
const UNSEEN_OPEN: &str = "(its open was not seen)";
/// Processes named behind a path.
const PIDS: usize = 3;

/// Lines of a stack that are worth not being repeated.
const LEAST_LINES: usize = 4;

/// What is said of one stack of a path.
#[derive(Debug, Clone, Copy)]
struct Told {
    opens: OpenCount,
    call: Option<u32>,
    is_inferred: bool,
}

impl Page<'_, '_, '_> {
    pub(super) fn operations(&mut self) -> io::Result<()> {
        let opens_modules = self.report.filter.opens_modules();
        let shown = self.report.split.iter().filter(|row| opens_modules || row.folded == 0);
        let (mut failed, fine): (Vec<&PathOperations<'_>>, Vec<_>) =
            shown.partition(|row| row.opens.failed > 0);
        // Of those that are as frequent, the ones that tell who.
        let profile = &self.report.profile;
        let tells = |stack: &OpenStack| stacks::is_taken(profile, stack.asked.own);
        let is_mute = |row: &PathOperations<'_>| !row.stacks.iter().any(tells);
        // And side by side those with the same stack.
        let stack = |row: &PathOperations<'_>| row.stacks.first().map(|stack| stack.asked.stack());
        let mut places: HashMap<_, usize> = HashMap::new();
        for (place, row) in failed.iter().enumerate() {
            places.entry((row.opens.failed, stack(row))).or_insert(place);
        }
        failed.sort_by_key(|row| {
            let place = places.get(&(row.opens.failed, stack(row)));
            (std::cmp::Reverse(row.opens.failed), is_mute(row), place.copied())
        });
        if !failed.is_empty() {
            self.table("FAILED OPERATIONS", &failed)?;
        }
        self.missing_modules()?;
        if !self.report.filter.is_set() || self.report.filter.slow_ns.is_some() {
            self.slowest()?;
        }
        if self.report.filter.is_set() {
            // Who asks for some operations wants to see all of them.
            if !fine.is_empty() {
                let title = if failed.is_empty() { "OPERATIONS" } else { "OTHER OPERATIONS" };
                self.table(title, &fine)?;
            }
        } else {
            self.files()?;
            self.calls()?;
        }
        self.modules()?;
        if self.report.split.is_empty() {
            let why = match self.report.opens {
                None if self.report.is_cut_before_events() => "not known: the capture is cut",
                None => "file operations were not recorded (nrec record -e fs)",
                Some(_) if self.report.all_operations.count == 0 => "no file was used",
                Some(_) => "no operation fits the filter",
            };
            writeln!(self.out, "\n{}\n  {why}", self.style.heading("FILES"))?;
        }
        for (results, one, many) in [
            (self.report.results_without_open, "an open", "opens"),
            (self.report.results_without_operation, "another operation", "other operations"),
        ] {
            if results == 0 {
                continue;
            }
            let one = format!("result belongs to {one}");
            let count = counted(results, &one, &format!("results belong to {many}"));
            writeln!(self.out, "\n  {count} from before the recording, or whose record was lost")?;
        }
        Ok(())
    }

    fn table(&mut self, title: &str, rows: &[&PathOperations<'_>]) -> io::Result<()> {
        writeln!(self.out, "\n{}", self.style.heading(title))?;
        let head = "   count  failed        p50        p99        max  operation";
        writeln!(self.out, "{}", self.style.dim(head))?;
        let mut shown = HashMap::new();
        for row in rows.iter().take(self.top) {
            self.path(row, &mut shown)?;
        }
        self.more(rows.len(), self.top, "operation", "operations")
    }

    /// A path, or what stands for it, and the second one.
    pub(super) fn names(path: Option<&[u8]>, new_path: Option<&[u8]>, by_handle: bool) -> String {
        let unknown = if by_handle { UNSEEN_OPEN } else { UNREADABLE_PATH };
        let shown = |path: Option<&[u8]>| match path {
            None => unknown.to_owned(),
            Some(b"") => "(empty path)".to_owned(),
            Some(path) => clean_string(path, PATH_CHARS),
        };
        match new_path {
            Some(_) => format!("{} to {}", shown(path), shown(new_path)),
            None => shown(path),
        }
    }

    /// The columns that all tables of paths have.
    pub(super) fn counts(&self, opens: OpenCount, latency: Option<Latency>) -> String {
        let OpenCount { count, failed, .. } = opens;
        let text = format!("{:>6}", if failed > 0 { failed.to_string() } else { "-".into() });
        let failed = if failed > 0 { self.style.bad(&text) } else { self.style.dim(&text) };
        let time = |pick: fn(Latency) -> u64| {
            latency.map_or("-".to_owned(), |latency| duration(pick(latency)))
        };
        let (p50, p99, max) = (time(|l| l.p50), time(|l| l.p99), time(|l| l.max));
        format!("{count:>8}  {failed}  {p50:>9}  {p99:>9}  {max:>9}")
    }

    /// `shown` are the stacks that the table has already, with the operation that they stand at.
    fn path(
        &mut self,
        path: &PathOperations<'_>,
        shown: &mut HashMap<Vec<Line>, String>,
    ) -> io::Result<()> {
        let mut name = path.operation.to_owned();
        name.push(' ');
        name.push_str(&Self::names(path.path, path.new_path, path.by_handle));
        let this = name.clone();
        if let Some(bytes) = path.bytes {
            name.push_str(&format!("  {}", counted(bytes, "byte", "bytes")));
        }
        let notes = notes(path.errors.iter(), path.opens.pending);
        let notes = self.style.bad(&notes);
        let folded = if path.folded > 0 { "  module resolution" } else { "" };
        let pids = if self.report.many_open { pids(&path.pids) } else { String::new() };
        let dim = format!("{folded}{pids}");
        let dim = self.style.dim(&dim);
        let counts = self.counts(path.opens, path.latency);
        writeln!(self.out, "{counts}  {name}{notes}{dim}")?;
        let profile = &self.report.profile;
        let taken = |stack: &&OpenStack| stacks::is_taken(profile, stack.asked.own);
        let with_stack: u64 = path.stacks.iter().filter(taken).map(|s| s.opens.count).sum();
        let all: u64 = path.stacks.iter().map(|s| s.opens.count).sum();
        let told = |stack: &OpenStack| -> (ResolvedStackId, Told) {
            let OpenStack { asked, opens } = *stack;
            (asked.stack(), Told { opens, call: asked.call, is_inferred: asked.asker.is_some() })
        };
        let stacks = path.stacks.iter().filter(taken).map(told);
        let stacks = stacks::alike(
            &self.report.profile,
            stacks,
            |sum, more| sum.opens.merge(more.opens),
            |told| told.opens.count,
        );
        // Who names a path wants to see each of its stacks.
        let limit = if self.report.filter.glob.is_some() { self.top } else { STACKS };
        for (told, lines) in stacks.iter().take(limit) {
            let how = self.how(*told);
            writeln!(self.out, "{:>11} x {how}", told.opens.count)?;
            match shown.get(lines).filter(|_| lines.len() >= LEAST_LINES) {
                Some(other) => {
                    let text = format!("              the stack of {other} above");
                    writeln!(self.out, "{}", self.style.dim(&text))?;
                }
                None => {
                    self.stack(lines)?;
                    shown.insert(lines.clone(), this.clone());
                }
            }
        }
        self.more_stacks(stacks.len(), limit)?;
        if with_stack == 0 && all > 0 {
            let text = "          no stack was taken, because there were too many at once";
            writeln!(self.out, "{}", self.style.dim(text))?;
        } else if with_stack < all {
            let text = format!("          stacks of {with_stack} of {all} times");
            writeln!(self.out, "{}", self.style.dim(&text))?;
        }
        Ok(())
    }

    /// How a stack did it, and by which call.
    fn how(&self, told: Told) -> String {
        let Told { opens, call, is_inferred } = told;
        let mut how = mode(opens).to_owned();
        match opens.failed {
            0 => {}
            failed if failed == opens.count => how.push_str(", failed"),
            failed => how.push_str(&format!(", {failed} failed")),
        }
        if let Some(call) = self.report.askers.name(call) {
            how.push_str(&format!("  via {call}"));
        }
        if is_inferred {
            how.push_str(", by its descriptor");
        }
        how
    }
}

/// Whether the caller stood still.
pub(super) fn mode(opens: OpenCount) -> &'static str {
    match opens {
        OpenCount { count, synchronous, .. } if count == synchronous => "sync",
        OpenCount { count, asynchronous, .. } if count == asynchronous => "async",
        OpenCount { synchronous: 0, asynchronous: 0, .. } => "",
        _ => "sync and async",
    }
}

/// Failures by their name, and what has no result.
pub(super) fn notes<N: std::fmt::Display>(
    errors: impl Iterator<Item = (N, impl std::fmt::Display)>,
    pending: u64,
) -> String {
    let mut notes: Vec<String> = errors.map(|(name, count)| format!("{name} {count}")).collect();
    if pending > 0 {
        notes.push(format!("no result {pending}"));
    }
    if notes.is_empty() { String::new() } else { format!("  {}", notes.join(", ")) }
}

/// Which processes used a path.
pub(super) fn pids(pids: &[u32]) -> String {
    let shown: Vec<String> = pids.iter().take(PIDS).map(u32::to_string).collect();
    let more = pids.len().saturating_sub(PIDS);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    match shown.len() {
        0 => String::new(),
        1 => format!("  pid {}", shown.join(", ")),
        _ => format!("  pids {}{more}", shown.join(", ")),
    }
}
