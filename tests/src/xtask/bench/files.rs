//! File operations: what `-e fs` costs a busy server, beside strace and bpftrace, and what becomes of
//! 100 000 operations a second.

mod burst;
mod load;
mod watchers;

use std::time::Duration;

use anyhow::Result;
use harness::binaries::fixture;
use harness::workload::Workload;

use super::figures::{Spread, rounds, shown};
use super::tools::Tools;
use crate::steps::announce;
use load::requests_a_second;
use watchers::{WATCHERS, Watcher};

const ROUNDS: usize = 5;
/// Each measurement of the server.
const MEASURED: Duration = Duration::from_secs(4);
/// Until V8 has compiled what is hot.
const WARM_UP: Duration = Duration::from_secs(3);
/// Opens, reads and closes a file in a chain of promises: some five operations.
const PAGE: &str = "/profile";

/// One watcher, all rounds.
#[derive(Debug, Default)]
struct Row {
    with: Vec<f64>,
    /// With the watcher, of without it just before.
    ratios: Vec<f64>,
}

/// Measures and prints.
pub(crate) fn run(tools: &Tools) -> Result<()> {
    server(tools)?;
    burst::run(tools)
}

fn server(tools: &Tools) -> Result<()> {
    let watchers: Vec<&Watcher> = WATCHERS.iter().filter(|watcher| watcher.is_there()).collect();
    let mut rows: Vec<Row> = watchers.iter().map(|_| Row::default()).collect();
    let mut alone = Vec::new();
    let rounds = rounds(ROUNDS);
    for round in 1..=rounds {
        announce(&format!("a busy server: round {round} of {rounds}"));
        // One process for all of a round: what differs is who watches.
        let (server, port) = Workload::start_server(&fixture("app/server.js"), &[])?;
        requests_a_second(port, PAGE, WARM_UP)?;
        for (watcher, row) in watchers.iter().zip(&mut rows) {
            let without = requests_a_second(port, PAGE, MEASURED)?;
            let place = tempfile::tempdir()?;
            let watching = watcher.start(server.pid(), tools, place.path())?;
            let with = requests_a_second(port, PAGE, MEASURED)?;
            watching.stop()?;
            alone.push(without);
            row.with.push(with);
            row.ratios.push(with / without);
        }
    }
    println!(
        "\na busy server, GET {PAGE}: requests a second, median (least..greatest) of {rounds}"
    );
    println!("{:44} {:>24} {:>24}", "", "requests/s", "of those without");
    println!("{:44} {:>24} {:>24}", "nobody", shown(Spread::of(alone), 0), "1");
    for (watcher, row) in watchers.iter().zip(rows) {
        let (with, ratios) = (Spread::of(row.with), Spread::of(row.ratios));
        println!("{:44} {:>24} {:>24}", watcher.name, shown(with, 0), shown(ratios, 3));
    }
    for watcher in WATCHERS.iter().filter(|watcher| !watcher.is_there()) {
        println!("{}: not installed", watcher.name);
    }
    Ok(())
}
