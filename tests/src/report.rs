//! The JSON of `nanalyze report --json` and what tests ask of it.
//!
//! docs/report-json.schema.json is the contract; these types hold what the tests compare.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::binaries;
use crate::command::{Outcome, run};
use crate::schema;
use crate::truth::{Open, Opens};

/// The whole report.
#[derive(Debug, Deserialize)]
pub struct Report {
    /// What was recorded.
    pub capture: Capture,
    /// How good the stacks are.
    pub stacks: StackQuality,
    /// One entry for each path.
    pub opens: Vec<OpenedPath>,
    /// What the recorder noticed.
    pub remarks: Vec<Remark>,
}

/// Something that the recorder noticed.
#[derive(Debug, Deserialize)]
pub struct Remark {
    /// What it is, for programs.
    pub code: String,
    /// How often.
    pub count: u64,
}

/// What was recorded.
#[derive(Debug, Deserialize)]
pub struct Capture {
    /// The processes that were followed.
    pub processes: Vec<Process>,
    /// Samples of all events.
    pub events: u64,
    /// Records that the kernel dropped.
    pub lost: u64,
    /// Whether nothing is missing.
    pub complete: bool,
}

/// One process.
#[derive(Debug, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: u64,
}

/// How good the stacks are.
#[derive(Debug, Deserialize)]
pub struct StackQuality {
    /// Frames of JavaScript functions.
    pub js_frames: NamedFrames,
    /// Why the others have no name.
    pub unresolved: Vec<Unresolved>,
}

/// How many frames have a name.
#[derive(Debug, Deserialize)]
pub struct NamedFrames {
    /// All of them.
    pub total: u64,
    /// Those with a name.
    pub named: u64,
}

/// Frames without a name, under their reason.
#[derive(Debug, Deserialize)]
pub struct Unresolved {
    /// Why.
    pub reason: String,
    /// How many.
    pub frames: u64,
}

/// All opens of one path.
#[derive(Debug, Deserialize)]
pub struct OpenedPath {
    /// The path as it is shown.
    pub path: String,
    /// Its bytes in hexadecimal, where it could not be shown as it is.
    pub path_bytes: Option<String>,
    /// How often it was opened.
    pub count: u64,
    /// How often that failed.
    pub failed: u64,
    /// How often each error occurred.
    pub errors: std::collections::BTreeMap<String, u64>,
    /// Who did it.
    pub stacks: Vec<CountedStack>,
}

/// One distinct stack.
#[derive(Debug, Deserialize)]
pub struct CountedStack {
    /// How many opens had it.
    pub count: u64,
    /// Leaf first.
    pub frames: Vec<Frame>,
}

/// One resolved level of a stack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Frame {
    /// `js`, `native`, `builtin`, `kernel`, `jit` or `unknown`.
    pub kind: String,
    /// The function's name.
    pub function: Option<String>,
    /// The source file.
    pub file: Option<String>,
    /// The line, from 1.
    pub line: Option<u64>,
    /// The column, from 1.
    pub column: Option<u64>,
    /// The line where the function begins.
    pub defined_line: Option<u64>,
    /// The column where the function begins.
    pub defined_column: Option<u64>,
    /// Whether it has no machine frame of its own.
    #[serde(default)]
    pub inlined: bool,
    /// The binary.
    pub module: Option<String>,
    /// Why it has no name.
    pub unresolved: Option<String>,
}

impl Report {
    /// Runs `nanalyze report --json` on a complete capture and checks the answer against the schema.
    ///
    /// # Errors
    /// If the analyzer fails, says that something is missing, or prints what the schema forbids.
    pub fn of(capture: &Path) -> Result<Self> {
        let outcome = nanalyze(&["report", "--json"], capture)?.expect_code(0)?;
        Self::parse(&outcome.stdout)
    }

    /// Reads the JSON and checks it against the schema.
    ///
    /// # Errors
    /// If it is not JSON or not what the schema says.
    pub fn parse(json: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(json).context("the report is not JSON")?;
        schema::check_report(&value)?;
        Ok(serde_json::from_value(value)?)
    }

    /// Frames without a name for this reason.
    #[must_use]
    pub fn unresolved(&self, reason: &str) -> u64 {
        let entries = self.stacks.unresolved.iter().filter(|entry| entry.reason == reason);
        entries.map(|entry| entry.frames).sum()
    }

    /// JavaScript frames without a name, percent, but for those of a process that had ended before
    /// it was read.
    #[must_use]
    pub fn nameless_percent(&self) -> f64 {
        let frames = &self.stacks.js_frames;
        self.percent_of_js(frames.total - frames.named - self.unresolved("process-ended"))
    }

    /// JavaScript frames without a name for this reason, percent of all.
    #[must_use]
    pub fn js_percent(&self, reason: &str) -> f64 {
        self.percent_of_js(self.unresolved(reason))
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of one test run")]
    fn percent_of_js(&self, frames: u64) -> f64 {
        frames as f64 * 100.0 / self.stacks.js_frames.total.max(1) as f64
    }

    /// The opens in the report, with their results.
    #[must_use]
    pub fn open_counts(&self) -> Opens {
        let mut counts = Opens::new();
        for opened in &self.opens {
            let path = original_path(&opened.path, opened.path_bytes.as_deref());
            let path = path.unwrap_or_else(|| opened.path.clone());
            let open = |error: Option<&String>| Open { path: path.clone(), error: error.cloned() };
            let succeeded = opened.count.saturating_sub(opened.failed);
            if succeeded > 0 {
                counts.insert(open(None), succeeded);
            }
            for (error, times) in &opened.errors {
                counts.insert(open(Some(error)), *times);
            }
        }
        counts
    }

    /// The opens below a folder.
    #[must_use]
    pub fn open_counts_below(&self, folder: &Path) -> Opens {
        let mut counts = self.open_counts();
        counts.retain(|open, _| crate::truth::is_below(open, folder));
        counts
    }
}

/// The path that the program gave: `bytes`, in hexadecimal, where it had to be changed to be shown.
/// Bytes that are not UTF-8 are replaced, as they are in the other observers' answers.
#[must_use]
pub fn original_path(shown: &str, bytes: Option<&str>) -> Option<String> {
    let Some(digits) = bytes else { return Some(shown.to_owned()) };
    let byte = |at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
    Some(String::from_utf8_lossy(&bytes?).into_owned())
}

/// Runs `nanalyze WORDS... CAPTURE`; a crash is an error, any exit code is not.
///
/// # Errors
/// If it cannot be run, panics or is killed.
pub fn nanalyze(words: &[&str], capture: &Path) -> Result<Outcome> {
    let (subcommand, options) = words.split_first().context("no subcommand")?;
    let mut command = Command::new(binaries::nanalyze()?);
    command.arg(subcommand).arg(capture).args(options);
    run(&mut command)?.expect_no_crash()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = include_str!("example-report.json");

    #[test]
    fn a_path_that_was_changed_comes_back() {
        assert_eq!(original_path("/a", None).as_deref(), Some("/a"));
        assert_eq!(original_path("/\\x1b", Some("2f1b")).as_deref(), Some("/\u{1b}"));
        assert_eq!(original_path("/a", Some("2f1")), None);
    }

    #[test]
    fn results_are_counted_by_error() {
        let report = Report::parse(REPORT).unwrap();
        let counts = report.open_counts();
        let open = |error: Option<&str>| Open {
            path: "/etc/app.conf".to_owned(),
            error: error.map(str::to_owned),
        };
        assert_eq!(counts.get(&open(None)), Some(&2));
        assert_eq!(counts.get(&open(Some("ENOENT"))), Some(&3));
        assert_eq!(counts.len(), 2);
        assert!(report.open_counts_below(Path::new("/var")).is_empty());
    }
}
