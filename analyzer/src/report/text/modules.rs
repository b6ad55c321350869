//! Module resolution in one line, and what it did not find. It must not compute anything but layout.

use std::io;

use formats::text::clean_string;

use super::{PATH_CHARS, Page};
use crate::aggregate::calls::CallSite;
use crate::asked;
use crate::report::units::counted;

/// Paths that are shown of one search.
const TRIED: usize = 3;
/// Searches that are shown unless `--top` asks for fewer.
const MISSING: usize = 10;

impl Page<'_, '_, '_> {
    /// What `require` and `import` asked for in vain.
    pub(super) fn missing_modules(&mut self) -> io::Result<()> {
        let report = self.report;
        let missing = &report.askers.modules.missing;
        let narrowed = report.filter.glob.is_some() || report.filter.slow_ns.is_some();
        if missing.is_empty() || narrowed {
            return Ok(());
        }
        let title = "MODULES NOT FOUND (the program may have caught the error)";
        writeln!(self.out, "\n{}", self.style.heading(title))?;
        let head = "   count  asked for by";
        writeln!(self.out, "{}", self.style.dim(head))?;
        let limit = self.top.min(MISSING);
        for search in missing.iter().take(limit) {
            let call = report.askers.get(search.place).call;
            let line = asked::line(&report.profile, search.stack);
            let who = self.site(CallSite { call, line });
            let who = who.unwrap_or_else(|| "(no stack taken, or no JavaScript in it)".to_owned());
            writeln!(self.out, "{:>8}  {who}", search.count)?;
            // A folder for modules tells less than a file that is missing in one.
            let is_folder = |path: &&Vec<u8>| asked::is_module_folder(path);
            let files: Vec<&Vec<u8>> = search.tried.iter().filter(|p| !is_folder(p)).collect();
            let folders: Vec<&Vec<u8>> = search.tried.iter().filter(is_folder).collect();
            let tried = if files.is_empty() { folders } else { files };
            let shown: Vec<String> =
                tried.iter().take(TRIED).map(|path| clean_string(path, PATH_CHARS)).collect();
            let more = search.tried.len().saturating_sub(shown.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let text = format!("{:10}tried {}{more}", "", shown.join(", "));
            writeln!(self.out, "{}", self.style.dim(&text))?;
        }
        self.more(missing.len(), limit, "search", "searches")
    }

    /// What was folded.
    pub(super) fn modules(&mut self) -> io::Result<()> {
        let modules = &self.report.askers.modules;
        let count = modules.operations.count;
        if self.report.folded == 0 {
            return Ok(());
        }
        writeln!(self.out, "\n{}", self.style.heading("MODULE RESOLUTION"))?;
        if self.report.filter.is_set() {
            let what = counted(self.report.folded, "operation fits", "operations fit");
            let how = if self.report.filter.opens_modules() { "" } else { "not " };
            let hint = if how.is_empty() { "" } else { "; --modules opens it" };
            return writeln!(self.out, "  {what} the filter too: {how}shown above{hint}");
        }
        let operations = counted(count, "operation", "operations");
        let files = counted(modules.files, "module", "modules");
        let failed = modules.operations.failed;
        let how = if self.report.filter.opens_modules() {
            "shown above".to_owned()
        } else {
            "not shown above; --modules opens it".to_owned()
        };
        writeln!(self.out, "  {operations}, {failed} failed, for {files} loaded: {how}")?;
        let mut known = "  known by Node's module loader in their stacks".to_owned();
        if modules.concluded > 0 {
            known.push_str(&format!(
                "; {} without a stack, by their paths",
                counted(modules.concluded, "is", "are")
            ));
        }
        writeln!(self.out, "{}", self.style.dim(&known))
    }
}
