//! The section on how good the stacks are: what has a name, what has none and why. It must not
//! compute anything but layout.

use std::collections::BTreeMap;
use std::io;

use formats::catalogue;
use formats::text::clean_string;

use super::{NAME_CHARS, Page};
use crate::aggregate::quality::Named;
use crate::profile::Reason;
use crate::report::units::{counted, percent};

/// Frames whose names can come from several places.
const JAVASCRIPT: &str = "JavaScript";

impl Page<'_, '_, '_> {
    pub(super) fn quality(&mut self) -> io::Result<()> {
        let fitting = self.report.quality_of_fitting.as_ref();
        let quality = fitting.unwrap_or(&self.report.quality);
        writeln!(self.out, "\n{}", self.style.heading("HOW GOOD ARE THESE STACKS"))?;
        for (what, named) in
            [(JAVASCRIPT, quality.js), ("native", quality.native), ("kernel", quality.kernel)]
        {
            let Named { total, named } = named;
            if total > 0 {
                let part = percent(named, total);
                let origin = self.report.js_names.origin().filter(|_origin| what == JAVASCRIPT);
                let origin = origin.map_or(String::new(), |origin| format!(", {origin}"));
                writeln!(
                    self.out,
                    "  {part:>7} of {what} frames have a name ({named} of {total}){origin}"
                )?;
            }
        }
        if quality.inferred > 0 {
            let frames = counted(quality.inferred, "frame is", "frames are");
            writeln!(self.out, "  {frames} concluded, not seen (marked as inferred)")?;
        }
        if quality.read_later > 0 {
            let stacks = counted(quality.read_later, "stack", "stacks");
            let what = "longer than what is copied; their outermost native frames were read some milliseconds later";
            writeln!(self.out, "  {stacks} {what}")?;
        }
        // Untaken stacks are told by event: hits are no frames.
        let untaken = |reason: Reason| reason == Reason::NotTaken;
        for &(reason, frames) in quality.unresolved.iter().filter(|row| !untaken(row.0)) {
            let frames = counted(frames, "frame", "frames");
            writeln!(self.out, "  {frames}: {} [{}]", reason.sentence(), reason.key())?;
            let remedy = format!("      remedy: {}", reason.remedy(self.report.js_names));
            writeln!(self.out, "{}", self.style.dim(&remedy))?;
        }
        // Functions that share a probe share its stacks.
        let mut probes: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for event in &self.report.events {
            let entry = catalogue::entry(&event.event).filter(|entry| entry.stack);
            let probe = entry.and_then(|entry| entry.group).unwrap_or(&event.event);
            let (hits, without) = probes.entry(probe).or_default();
            *hits = hits.saturating_add(event.samples);
            *without = without.saturating_add(event.without_stack);
        }
        for (probe, (hits, without)) in probes.into_iter().filter(|(_, (_, without))| *without > 0)
        {
            let name = clean_string(probe.as_bytes(), NAME_CHARS);
            let with_stack = hits.saturating_sub(without);
            let why = "for a while there were too many to take more";
            writeln!(self.out, "  {name}: stacks of {with_stack} of {hits} hits: {why}")?;
        }
        let nothing = quality.js.total == 0 && quality.native.total == 0;
        if nothing && quality.unresolved.is_empty() {
            writeln!(self.out, "  there are no stacks")?;
        }
        Ok(())
    }
}
