//! The section of the probes that the user asked for. It must not compute anything but layout.

use std::io;

use formats::text::clean_string;

use super::{NAME_CHARS, Page, STACKS};
use crate::profile::ResolvedStackId;
use crate::report::stacks;
use crate::report::units::counted;

impl Page<'_, '_, '_> {
    pub(super) fn probes(&mut self) -> io::Result<()> {
        let report = self.report;
        if report.probes.is_empty() {
            return Ok(());
        }
        writeln!(self.out, "\n{}", self.style.heading("PROBES"))?;
        for probe in report.probes.iter().take(self.top) {
            let name = clean_string(probe.event.as_bytes(), NAME_CHARS);
            let with_stack = probe.count.saturating_sub(probe.not_taken);
            let some = match probe.not_taken {
                0 => String::new(),
                _ => format!(", stacks of {with_stack} of {} hits", probe.count),
            };
            writeln!(self.out, "  {name}: {}{some}", counted(probe.count, "hit", "hits"))?;
            let taken = |stack: &(ResolvedStackId, u64)| stacks::is_taken(&report.profile, stack.0);
            let stacks = probe.stacks.iter().copied().filter(taken);
            let stacks = stacks::alike(&report.profile, stacks, |sum, more| *sum += more, |n| *n);
            for (count, lines) in stacks.iter().take(STACKS) {
                writeln!(self.out, "{count:>11} x")?;
                self.stack(lines)?;
            }
            self.more_stacks(stacks.len(), STACKS)?;
        }
        self.more(report.probes.len(), self.top, "probe", "probes")?;
        let hint = "  each hit with its arguments: nanalyze events FILE -e probe --stacks";
        writeln!(self.out, "{}", self.style.dim(hint))
    }
}
