//! `nrec doctor`: what this kernel, user and target allow, each problem with its remedy.
//!
//! Looks only; changes nothing and records nothing.

use std::io::{self, Write};

/// How good a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Good,
    /// Something will be missing in a recording.
    Limited,
    /// Recording, or a part of it, is impossible.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How good it is.
    pub level: Level,
    /// What was looked at.
    pub subject: String,
    /// What was found.
    pub text: String,
    /// What would help.
    pub remedy: Option<String>,
}

/// Looks at this machine, and at a process.
#[must_use]
pub fn examine(_pid: Option<u32>) -> Vec<Finding> {
    Vec::new()
}

/// Prints findings for people.
///
/// # Errors
/// What writing says.
pub fn print(findings: &[Finding], out: &mut dyn Write) -> io::Result<()> {
    for finding in findings {
        writeln!(out, "{:?} {} {}", finding.level, finding.subject, finding.text)?;
    }
    Ok(())
}
