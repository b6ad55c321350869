//! `nrec doctor`: what this kernel, user and target allow, each problem with its remedy.
//!
//! Looks only; changes nothing, records nothing and runs nothing of the target. `machine` looks at
//! the kernel and this user, `target` at a process; `privileges` and `verdict` are pure,
//! `program` reads what a mapped file says of itself, `page` prints. Must not know sessions.

mod machine;
mod page;
mod privileges;
mod program;
mod target;
mod verdict;

pub use page::print;

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

/// One thing that was looked at. Texts of the target are neutralised when they are printed.
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

impl Finding {
    fn good(subject: &str, text: impl Into<String>) -> Self {
        Self { level: Level::Good, subject: subject.into(), text: text.into(), remedy: None }
    }

    fn limited(subject: &str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = Some(remedy.into());
        Self { level: Level::Limited, subject: subject.into(), text: text.into(), remedy }
    }

    fn bad(subject: &str, text: impl Into<String>, remedy: Option<String>) -> Self {
        Self { level: Level::Bad, subject: subject.into(), text: text.into(), remedy }
    }
}

/// Looks at this machine, and at a process.
#[must_use]
pub fn examine(pid: Option<u32>) -> Vec<Finding> {
    let mut machine = machine::examine();
    if let Some(pid) = pid {
        machine.findings.extend(target::examine(pid, &machine.source));
    }
    // Last, beside what is said of JavaScript and native frames.
    machine.findings.push(machine.kernel_frames);
    machine.findings
}
