//! The CPU section: where the time went, and which JavaScript sent it there. It must not compute
//! anything but layout.

use std::io;

use super::{Page, width, write_line};
use crate::aggregate::cpu::FunctionShare;
use crate::report::CpuReport;
use crate::report::stacks;
use crate::report::units::{counted, duration, percent};

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
            let what = "JavaScript, each function with the builtins and native code it called";
            writeln!(self.out, "  {what}")?;
            self.functions(cpu, &cpu.javascript)?;
            writeln!(self.out, "  All functions, by the time in themselves")?;
        }
        self.functions(cpu, &cpu.functions)
    }

    fn functions(&mut self, cpu: &CpuReport, functions: &[FunctionShare]) -> io::Result<()> {
        writeln!(self.out, "{}", self.style.dim("    self   total  function"))?;
        let frame = |share: &FunctionShare| self.report.profile.get(share.frame).map(stacks::full);
        let shares = || functions.iter().take(self.top_functions);
        let width = width(shares().filter_map(frame).collect::<Vec<_>>().iter());
        for (share, line) in shares().filter_map(|share| Some((share, frame(share)?))) {
            let own = percent(share.self_samples, cpu.samples);
            let total = percent(share.total_samples, cpu.samples);
            write!(self.out, "{own:>8}{total:>8}  ")?;
            write_line(&line, width, self.style, self.out)?;
        }
        self.more(functions.len(), self.top_functions, "function", "functions")
    }
}
