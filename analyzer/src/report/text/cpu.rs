//! The CPU section: where the time went, and which JavaScript sent it there. It must not compute
//! anything but layout.

use std::io;

use super::{Page, width, write_line};
use crate::aggregate::cpu::{FunctionShare, LineShare};
use crate::report::CpuReport;
use crate::report::stacks;
use crate::report::units::{counted, duration, percent};

/// Lines of a function that are shown.
const LINES: usize = 3;
/// Share of a function's samples below which a line is not shown, percent.
const LEAST_PERCENT: u64 = 5;
/// Samples of its own that a function must have: of fewer, the parts of its lines say nothing.
const LEAST_OWN: u64 = 5;
/// Samples below which the table of all functions says no more than that of the JavaScript.
const LEAST_SAMPLES: u64 = 20;
const NO_LINES: &[LineShare] = &[];

/// A function, and its lines where they are to be shown.
type Row<'r> = (&'r FunctionShare, &'r [LineShare]);

/// `line 42: 63.0%, line 47: 20.5%`, of a function's own samples.
fn hottest(lines: &[LineShare], samples: u64) -> Option<String> {
    if samples < LEAST_OWN {
        return None;
    }
    let shown: Vec<String> = lines
        .iter()
        .take(LINES)
        .filter(|line| line.samples.saturating_mul(100) >= samples.saturating_mul(LEAST_PERCENT))
        .map(|line| format!("line {}: {}", line.line, percent(line.samples, samples)))
        .collect();
    (!shown.is_empty()).then(|| shown.join(", "))
}

impl Page<'_, '_, '_> {
    pub(super) fn cpu(&mut self, cpu: &CpuReport) -> io::Result<()> {
        let mut title = format!("CPU: {}", counted(cpu.samples, "sample", "samples"));
        if let Some(period) = cpu.period_ns.filter(|_ns| cpu.samples > 0) {
            let used = duration(cpu.samples.saturating_mul(period));
            let length = duration(self.report.duration_ns());
            title.push_str(&format!(", {used} of CPU time in {length}"));
        }
        writeln!(self.out, "\n{}", self.style.heading(&title))?;
        if cpu.samples == 0 {
            return writeln!(self.out, "  the target used next to no CPU time");
        }
        if !cpu.javascript.is_empty() {
            let rows: Vec<Row<'_>> =
                cpu.javascript.iter().map(|inner| (&inner.share, inner.lines.as_slice())).collect();
            let has_lines =
                |&(share, lines): &Row<'_>| hottest(lines, share.self_samples).is_some();
            let of_lines = if rows.iter().take(self.top_functions).any(has_lines) {
                "; its lines by their part of its own (self) time"
            } else {
                ""
            };
            let what = "JavaScript, each function with the builtins and native code it called";
            writeln!(self.out, "  {what}{of_lines}")?;
            self.functions(cpu, &rows)?;
            if cpu.samples < LEAST_SAMPLES {
                return Ok(());
            }
            writeln!(self.out, "  All functions, by the time in themselves")?;
        }
        // Whose own time is nothing is above, or only called others.
        let own = cpu.functions.iter().filter(|share| share.self_samples > 0);
        let rows: Vec<Row<'_>> = own.map(|share| (share, NO_LINES)).collect();
        self.functions(cpu, &rows)
    }

    fn functions(&mut self, cpu: &CpuReport, functions: &[Row<'_>]) -> io::Result<()> {
        writeln!(self.out, "{}", self.style.dim("    self   total  function"))?;
        let frame =
            |&(share, _lines): &Row<'_>| self.report.profile.get(share.frame).map(stacks::full);
        let shares = || functions.iter().take(self.top_functions);
        let width = width(shares().filter_map(frame).collect::<Vec<_>>().iter());
        for ((share, lines), line) in shares().filter_map(|row| Some((row, frame(row)?))) {
            let own = percent(share.self_samples, cpu.samples);
            let total = percent(share.total_samples, cpu.samples);
            write!(self.out, "{own:>8}{total:>8}  ")?;
            write_line(&line, width, self.style, self.out)?;
            if let Some(lines) = hottest(lines, share.self_samples) {
                writeln!(self.out, "{:20}{}", "", self.style.dim(&lines))?;
            }
        }
        self.more(functions.len(), self.top_functions, "function", "functions")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_shown_where_enough_samples_tell_them_apart() {
        let share = |line, samples| LineShare { line, samples };
        let text = hottest(&[share(42, 60), share(47, 36), share(50, 4)], 100);
        assert_eq!(text.as_deref(), Some("line 42: 60.0%, line 47: 36.0%"));
        assert_eq!(hottest(&[share(7, 5)], 5).as_deref(), Some("line 7: 100.0%"));
        assert_eq!(hottest(&[share(7, 4)], 4), None);
        assert_eq!(hottest(&[], 100), None);
    }
}
