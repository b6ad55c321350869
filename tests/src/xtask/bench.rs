//! What a recording costs, and its analysis, as ratios against perf on the same work in the same
//! run. It asserts nothing: figures of one machine in one minute are no test.

mod drawing;
mod figures;
mod files;
mod million;
mod names;
mod observers;
mod opens;
mod probes;
mod sampling;
mod soak;
mod tools;

use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::setup;
use crate::steps::{announce, cargo, run_visibly};
use probes::PerfProbes;
use tools::Tools;

/// Runs all parts; each prints its own table.
pub(crate) fn run() -> Result<()> {
    measured(|tools| {
        let probes = PerfProbes::place().context("cannot place perf's probes")?;
        opens::run(tools, &probes)?;
        sampling::run(tools, &probes)?;
        names::run(tools, &probes)?;
        drop(probes);
        million::run(tools)
    })
}

/// Runs the part about names without flags alone.
pub(crate) fn run_names() -> Result<()> {
    measured(|tools| {
        let probes = PerfProbes::place().context("cannot place perf's probes")?;
        names::run(tools, &probes)
    })
}

/// Runs the part about file operations, which is no part of the others.
pub(crate) fn run_files() -> Result<()> {
    measured(files::run)
}

/// Runs the long recording, which is no part of the others.
pub(crate) fn run_soak() -> Result<()> {
    measured(soak::run)
}

fn measured(work: impl FnOnce(&Tools) -> Result<()>) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the bench places probes, for which it must be root");
    }
    setup::everything()?;
    announce("building nrec and nanalyze");
    run_visibly(&mut cargo(&["build", "--release", "-p", "recorder", "-p", "analyzer"]))?;
    let tools = Tools::gather()?;
    let begin = Instant::now();
    work(&tools)?;
    announce(&format!("{} s in all, builds aside", begin.elapsed().as_secs()));
    Ok(())
}
