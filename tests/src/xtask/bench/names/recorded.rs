//! What is in a recording: samples, stacks, JavaScript frames with a name.

use std::path::Path;

use anyhow::{Context as _, Result};
use harness::command::run;
use serde_json::Value;

use super::super::figures::float;
use super::super::observers::Observer;
use super::super::sampling::recorded_samples;
use super::super::tools::Tools;

/// Of one recording.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Recorded {
    pub(crate) bytes: u64,
    pub(crate) samples: u64,
    /// Those of which a stack was taken.
    pub(crate) stacks: u64,
    /// Lost by the kernel or dropped by the recorder; perf does not say how many.
    pub(crate) lost: Option<u64>,
    /// Of all JavaScript frames, those with a name; perf names none without a perf map.
    pub(crate) named: Option<f64>,
}

impl Recorded {
    /// Reads what the observer left.
    pub(crate) fn of(observer: Observer, tools: &Tools, file: &Path) -> Result<Self> {
        let bytes = file.metadata().context("the recording is missing")?.len();
        if observer.tool.is_nrec() {
            // 1 says that something is lost, which is in the report, too.
            let outcome = run(tools.nanalyze(&["report", "--json", "--top", "0"]).arg(file))?;
            let report = serde_json::from_str(&outcome.stdout)
                .with_context(|| format!("no report: {}", outcome.stderr.trim()))?;
            return Self::in_report(&report, bytes).context("the report lacks its numbers");
        }
        let samples = recorded_samples(observer, tools, file)?.unwrap_or(0);
        Ok(Self { bytes, samples, stacks: samples, lost: None, named: None })
    }

    // docs/report-json.md
    fn in_report(report: &Value, bytes: u64) -> Option<Self> {
        let capture = report.get("capture")?;
        let samples = capture.get("events")?.as_u64()?;
        let events = capture.get("by_event")?.as_array()?.iter();
        let without = events.filter_map(|event| event.get("without_stack")?.as_u64()).sum();
        let lost = capture.get("lost")?.as_u64()? + capture.get("dropped")?.as_u64()?;
        let frames = report.get("stacks")?.get("js_frames")?;
        let (named, total) = (frames.get("named")?.as_u64()?, frames.get("total")?.as_u64()?);
        let named = (total > 0).then(|| float(named) / float(total));
        let stacks = samples.saturating_sub(without);
        Some(Self { bytes, samples, stacks, lost: Some(lost), named })
    }

    /// Bytes of the whole file for each sample.
    pub(crate) fn bytes_a_sample(&self) -> Option<f64> {
        (self.samples > 0).then(|| float(self.bytes) / float(self.samples))
    }

    /// Bytes of the whole file for each stack.
    pub(crate) fn bytes_a_stack(&self) -> Option<f64> {
        (self.stacks > 0).then(|| float(self.bytes) / float(self.stacks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_report() {
        let report = serde_json::json!({
            "capture": {
                "events": 100, "lost": 2, "dropped": 1,
                "by_event": [{"event": "a", "without_stack": 60}, {"event": "b"}],
            },
            "stacks": {"js_frames": {"total": 8, "named": 6}},
        });
        let recorded = Recorded::in_report(&report, 1000).unwrap();
        let (samples, stacks, lost, named) = (100, 40, Some(3), Some(0.75));
        assert_eq!(recorded, Recorded { bytes: 1000, samples, stacks, lost, named });
        assert_eq!((recorded.bytes_a_sample(), recorded.bytes_a_stack()), (Some(10.0), Some(25.0)));
        assert_eq!(Recorded::in_report(&serde_json::json!({}), 1), None);
    }
}
