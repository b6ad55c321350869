//! The section on what was done to files, what failed first. It must not compute anything but layout.

use std::io;

use formats::text::clean_string;

use super::{PATH_CHARS, Page, STACKS};
use crate::aggregate::operations::{Latency, OpenCount, OpenStack, PathOperations};
use crate::join::operations::OPEN_OPERATION;
use crate::report::json::UNREADABLE_PATH;
use crate::report::stacks;
use crate::report::units::{counted, duration};

/// Stands for the path of a descriptor or a directory that was opened before the recording, or by
/// something that is not libuv.
const UNSEEN_OPEN: &str = "(its open was not seen)";
/// Processes named behind a path.
const PIDS: usize = 3;

impl Page<'_, '_, '_> {
    pub(super) fn operations(&mut self) -> io::Result<()> {
        let (failed, fine): (Vec<&PathOperations<'_>>, Vec<_>) =
            self.report.operations.iter().partition(|row| row.opens.failed > 0);
        let is_open = |row: &&PathOperations<'_>| row.operation == OPEN_OPERATION;
        let (opens, others): (Vec<_>, Vec<_>) = fine.into_iter().partition(is_open);
        if !failed.is_empty() {
            self.table("FAILED OPERATIONS", &failed, true)?;
        }
        if !opens.is_empty() {
            let is_other = failed.iter().any(is_open);
            self.table(if is_other { "OTHER OPENS" } else { "OPENS" }, &opens, false)?;
        }
        if !others.is_empty() {
            self.table("OTHER OPERATIONS", &others, true)?;
        }
        if failed.is_empty() && opens.is_empty() && others.is_empty() {
            let why = match self.report.opens {
                None if self.report.is_cut_before_events() => "not known: the capture is cut",
                None => "opens were not recorded (nrec record -e fs)",
                Some(_) if self.report.all_operations.count == 0 => "no file was opened",
                Some(_) => "no operation fits the filter",
            };
            writeln!(self.out, "\n{}\n  {why}", self.style.heading("OPENS"))?;
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

    /// `named`: the rows say what was done, which the title of a table of opens does.
    fn table(&mut self, title: &str, rows: &[&PathOperations<'_>], named: bool) -> io::Result<()> {
        writeln!(self.out, "\n{}", self.style.heading(title))?;
        let what = if named { "operation" } else { "path" };
        let head = format!("   count  failed        p50        p99        max  {what}");
        writeln!(self.out, "{}", self.style.dim(&head))?;
        for row in rows.iter().take(self.top) {
            self.path(row, named)?;
        }
        let (one, many) = if named { ("operation", "operations") } else { ("path", "paths") };
        self.more(rows.len(), self.top, one, many)
    }

    fn path(&mut self, path: &PathOperations<'_>, named: bool) -> io::Result<()> {
        let unknown = if path.by_handle { UNSEEN_OPEN } else { UNREADABLE_PATH };
        let shown = |path: Option<&[u8]>| match path {
            None => unknown.to_owned(),
            Some(b"") => "(empty path)".to_owned(),
            Some(path) => clean_string(path, PATH_CHARS),
        };
        let mut name = shown(path.path);
        if named {
            name = format!("{} {name}", path.operation);
        }
        if path.new_path.is_some() {
            name.push_str(&format!(" to {}", shown(path.new_path)));
        }
        if let Some(bytes) = path.bytes {
            name.push_str(&format!("  {}", counted(bytes, "byte", "bytes")));
        }
        let OpenCount { count, failed, pending, .. } = path.opens;
        let failed = format!("{:>6}", if failed > 0 { failed.to_string() } else { "-".into() });
        let time = |pick: fn(Latency) -> u64| {
            path.latency.map_or("-".to_owned(), |latency| duration(pick(latency)))
        };
        let (p50, p99, max) = (time(|l| l.p50), time(|l| l.p99), time(|l| l.max));
        let failed =
            if path.opens.failed > 0 { self.style.bad(&failed) } else { self.style.dim(&failed) };
        let mut notes: Vec<String> =
            path.errors.iter().map(|(name, count)| format!("{name} {count}")).collect();
        if pending > 0 {
            notes.push(format!("no result {pending}"));
        }
        let notes =
            if notes.is_empty() { String::new() } else { format!("  {}", notes.join(", ")) };
        let notes = self.style.bad(&notes);
        let pids = if self.report.many_open { pids(&path.pids) } else { String::new() };
        let pids = self.style.dim(&pids);
        writeln!(
            self.out,
            "{count:>8}  {failed}  {p50:>9}  {p99:>9}  {max:>9}  {name}{notes}{pids}"
        )?;
        let profile = &self.report.profile;
        let taken = |stack: &&OpenStack| stacks::is_taken(profile, stack.stack);
        let with_stack: u64 = path.stacks.iter().filter(taken).map(|s| s.opens.count).sum();
        let shown: u64 = path.stacks.iter().map(|s| s.opens.count).sum();
        let stacks = path.stacks.iter().filter(taken).map(|stack| (stack.stack, stack.opens));
        let stacks =
            stacks::alike(&self.report.profile, stacks, OpenCount::merge, |opens| opens.count);
        for (opens, lines) in stacks.iter().take(STACKS) {
            let how = match *opens {
                OpenCount { count, synchronous, .. } if count == synchronous => "sync",
                OpenCount { count, asynchronous, .. } if count == asynchronous => "async",
                OpenCount { synchronous: 0, asynchronous: 0, .. } => "",
                _ => "sync and async",
            };
            let failed = match opens.failed {
                0 => String::new(),
                failed if failed == opens.count => ", failed".to_owned(),
                failed => format!(", {failed} failed"),
            };
            writeln!(self.out, "{:>11} x {how}{failed}", opens.count)?;
            self.stack(lines)?;
        }
        self.more_stacks(stacks.len())?;
        if with_stack < shown {
            let what = if named { "times" } else { "opens" };
            let text = format!("          stacks of {with_stack} of {shown} {what}");
            writeln!(self.out, "{}", self.style.dim(&text))?;
        }
        Ok(())
    }
}

/// Which processes opened a path.
fn pids(pids: &[u32]) -> String {
    let shown: Vec<String> = pids.iter().take(PIDS).map(u32::to_string).collect();
    let more = pids.len().saturating_sub(PIDS);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    match shown.len() {
        0 => String::new(),
        1 => format!("  pid {}", shown.join(", ")),
        _ => format!("  pids {}{more}", shown.join(", ")),
    }
}
