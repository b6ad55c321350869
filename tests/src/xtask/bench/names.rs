//! JavaScript names without flags: what `nrec --js=heap` costs recorder and target, against
//! callchains only, against the perf map of a target with V8's flags, and against perf with copies of
//! the same size, on the same work.

mod cpu;
mod hits;
mod recorded;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use harness::binaries::{fixture, repository, require_program};
use harness::workload::{PERF_FLAGS, Workload};
use serde_json::Value;

use super::figures::Spread;
use super::observers::{Names, Tool};
use super::probes::PerfProbes;
use super::tools::Tools;

/// Measures and prints.
pub(crate) fn run(tools: &Tools, probes: &PerfProbes) -> Result<()> {
    cpu::run(tools, probes)?;
    hits::run(tools, probes)
}

/// How Node is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flags {
    None,
    /// Those of the perf map.
    Map,
}

impl Flags {
    fn words(self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::Map => &PERF_FLAGS,
        }
    }
}

/// Those that watch a target without flags, callchains only first; then the one with them.
const WATCHERS: [(Flags, Tool); 4] = [
    (Flags::None, Tool::Nrec(Names::Off)),
    (Flags::None, Tool::Nrec(Names::Heap)),
    (Flags::None, Tool::PerfRecordCopies),
    (Flags::Map, Tool::Nrec(Names::Map)),
];

/// Starts a script with or without flags, and waits until it is ready. Its flags are said here, not
/// left to what the tests do by default.
pub(crate) fn start(flags: Flags, script: &Path, folder: &Path, option: &str) -> Result<Workload> {
    let mut command = Command::new(require_program("node")?);
    command.args(flags.words()).arg(script).arg(folder).arg(option);
    Workload::start_command(&mut command)
}

/// A script of the fixtures.
fn shared_workload(name: &str) -> PathBuf {
    fixture("workloads").join(name)
}

/// A script of the bench alone.
pub(crate) fn own_workload(name: &str) -> PathBuf {
    repository().join("tests/src/xtask/bench/workloads").join(name)
}

/// A number that a workload said.
pub(crate) fn said_number(said: &[Value], key: &str) -> Result<f64> {
    let number = said.iter().find_map(|record| record.get(key)?.as_f64());
    number.with_context(|| format!("the workload did not say its {key}"))
}

/// The median of what is found in the rounds where it is found.
fn median<T>(rounds: &[T], figure: impl Fn(&T) -> Option<f64>) -> Option<Spread> {
    Spread::of(rounds.iter().filter_map(figure))
}
