//! The gate of every real-kernel test: is this machine one that can run it, and is nobody else
//! recording at the moment?
//!
//! A test that cannot run says why and is counted as skipped, never as passed. With
//! `NREC_REQUIRE_KERNEL=1` it fails instead.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Error, Result, anyhow, bail};
use nix::fcntl::{Flock, FlockArg};

use crate::binaries;

/// Makes a skip a failure when it is `1`.
pub const REQUIRE_VARIABLE: &str = "NREC_REQUIRE_KERNEL";
/// Names the file to which the task runner wants one line for each skip.
pub const SKIP_LOG_VARIABLE: &str = "NREC_SKIP_LOG";
/// Where tracefs is mounted: Documentation/trace/ftrace.rst, "The File System".
pub const TRACEFS: &str = "/sys/kernel/tracing";

/// The right to run one kernel test; no other test in any process has it at the same time.
#[derive(Debug)]
pub struct KernelTurn {
    _lock: Flock<File>,
}

/// Waits for this test's turn. `None` means that the test is skipped: it returns at once.
///
/// # Errors
/// If the machine cannot run the test and `NREC_REQUIRE_KERNEL=1`; if the lock cannot be taken.
pub fn take_turn(test: &str, programs: &[&str]) -> Result<Option<KernelTurn>> {
    if let Err(reason) = check_machine(programs) {
        skip(test, &reason)?;
        return Ok(None);
    }
    let file = env::temp_dir().join("nrec-kernel-tests.lock");
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&file)
        .with_context(|| format!("cannot open {}", file.display()))?;
    let lock = Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| anyhow!("cannot lock out other kernel tests: {errno}"))?;
    Ok(Some(KernelTurn { _lock: lock }))
}

/// Reports a test as skipped; it must return after that.
///
/// # Errors
/// If `NREC_REQUIRE_KERNEL=1`, with the reason; if the skip cannot be counted.
pub fn skip(test: &str, reason: &Error) -> Result<()> {
    if env::var_os(REQUIRE_VARIABLE).is_some_and(|value| value == "1") {
        bail!("{test} must not be skipped: {reason:#}");
    }
    note_inapplicable(test, reason)
}

/// Reports a test as skipped because what it is about does not exist on this kind of system. It is
/// counted like any skip, but is no failure with `NREC_REQUIRE_KERNEL=1`: no set-up would help.
///
/// # Errors
/// If the skip cannot be counted.
pub fn note_inapplicable(test: &str, reason: &Error) -> Result<()> {
    let line = format!("SKIPPED {test}: {}\n", format!("{reason:#}").replace('\n', " "));
    std::io::stderr().write_all(line.as_bytes())?;
    if let Some(log) = env::var_os(SKIP_LOG_VARIABLE) {
        let mut log = OpenOptions::new().create(true).append(true).open(log)?;
        log.write_all(line.as_bytes())?;
    }
    Ok(())
}

/// Says something that the log of a passing test shows too: libtest keeps what `println!` says.
///
/// # Errors
/// If standard error cannot be written.
pub fn tell(text: &str) -> Result<()> {
    std::io::stderr().write_all(format!("FIGURES {text}\n").as_bytes())?;
    Ok(())
}

/// The dynamic events in tracefs that belong to any `nrec`: the recorder's group names begin so.
///
/// # Errors
/// If tracefs cannot be read.
pub fn our_dynamic_events() -> Result<Vec<String>> {
    let file = Path::new(TRACEFS).join("dynamic_events");
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(text.lines().filter(|line| is_ours(line)).map(str::to_owned).collect())
}

/// Those of them whose recorder is gone. Somebody else may be recording on this machine.
///
/// # Errors
/// If tracefs cannot be read.
pub fn left_dynamic_events() -> Result<Vec<String>> {
    let mut events = our_dynamic_events()?;
    events.retain(|line| !recorder_of(line).is_some_and(crate::command::process_exists));
    Ok(events)
}

// The recorder's process id in `p:nrec_PID_…/EVENT`.
fn recorder_of(line: &str) -> Option<u32> {
    let (_, group) = line.split_once(":nrec_")?;
    group.split(['_', '/']).next()?.parse().ok()
}

// `p:GROUP/EVENT FILE:OFFSET …`, Documentation/trace/uprobetracer.rst.
fn is_ours(line: &str) -> bool {
    line.split_once(':').is_some_and(|(_, rest)| rest.starts_with("nrec"))
}

fn check_machine(programs: &[&str]) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("not root");
    }
    if !Path::new(TRACEFS).join("dynamic_events").exists() {
        bail!("tracefs is not mounted at {TRACEFS}, or has no dynamic events");
    }
    for program in programs {
        binaries::require_program(program)?;
    }
    binaries::nrec()?;
    binaries::nanalyze()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_recorders_groups_are_ours() {
        assert!(is_ours("p:nrec_4711/fs_open /usr/bin/node:0x14b1c50 req=%si:x64"));
        assert_eq!(recorder_of("p:nrec_4711_99/fs_open_1 /usr/bin/node:0x14b1c50"), Some(4711));
        assert!(!is_ours("p:probe_node/uv_fs_open /usr/bin/node:0x14b1c50 name=nrec"));
        assert!(!is_ours("p:uprobes/p_nrec /usr/bin/node:0x14b1c50"));
    }

    #[test]
    fn a_missing_program_is_a_reason() {
        assert!(check_machine(&["no-program-has-this-name"]).is_err());
    }
}
