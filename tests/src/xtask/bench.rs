//! What a recording costs, and its analysis, as ratios against perf on the same work in the same
//! run. It asserts nothing: figures of one machine in one minute are no test.

mod drawing;
mod figures;
mod million;
mod observers;
mod opens;
mod probes;
mod sampling;
mod tools;

use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::setup;
use crate::steps::{announce, cargo, run_visibly};
use probes::PerfProbes;
use tools::Tools;

/// Runs all parts; each prints its own table.
pub(crate) fn run() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the bench places probes, for which it must be root");
    }
    setup::everything()?;
    announce("building nrec and nanalyze");
    run_visibly(&mut cargo(&["build", "--release", "-p", "recorder", "-p", "analyzer"]))?;
    let tools = Tools::gather()?;
    let begin = Instant::now();
    let probes = PerfProbes::place().context("cannot place perf's probes")?;
    opens::run(&tools, &probes)?;
    sampling::run(&tools, &probes)?;
    drop(probes);
    million::run(&tools)?;
    announce(&format!("{} s in all, builds aside", begin.elapsed().as_secs()));
    Ok(())
}
