//! Probes: what they add to each of 50 000 `fs.openSync` below 15 JavaScript functions
//! (`open-loop.js`), like for like: everybody fetches the same arguments at the same instructions.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::workload::Workload;

use super::drawing::{Drawings, draw};
use super::figures::{Spread, float, ratio, rounds, shown};
use super::observers::{Names, Observer, Tool, Watch, Watched};
use super::probes::PerfProbes;
use super::tools::Tools;
use crate::steps::announce;

const ROUNDS: usize = 5;
/// Rounds whose recordings are drawn, too.
const DRAWN_ROUNDS: usize = 3;
const OPENS: u32 = 50_000;

/// What one observer cost in one round.
#[derive(Debug)]
struct Cost {
    loop_time: Duration,
    cpu: Duration,
    bytes: u64,
    drawings: Option<Drawings>,
}

/// All rounds of an observer.
#[derive(Debug)]
struct Row {
    observer: Observer,
    costs: Vec<Cost>,
}

/// Measures and prints.
pub(crate) fn run(tools: &Tools, probes: &PerfProbes) -> Result<()> {
    let mut rows: Vec<Row> =
        observers().into_iter().map(|observer| Row { observer, costs: Vec::new() }).collect();
    let rounds = rounds(ROUNDS);
    for round in 1..=rounds {
        announce(&format!("probes: round {round} of {rounds}"));
        for row in &mut rows {
            let cost = measure(row.observer, tools, probes, round <= DRAWN_ROUNDS)?;
            row.costs.push(cost);
        }
    }
    print(&rows, Watch::Open, "one probe with five arguments: uv_fs_open");
    if Tools::bpftrace().is_none() {
        println!("bpftrace: not installed");
    }
    print(&rows, Watch::OpenAndDone, "two probes: uv_fs_open, uv_fs_req_cleanup");
    Ok(())
}

// The loop alone first: what the others are compared with.
fn observers() -> Vec<Observer> {
    let one = |tool| Observer { tool, watch: Watch::Open };
    let two = |tool| Observer { tool, watch: Watch::OpenAndDone };
    let recorders =
        [Tool::PerfStat, Tool::PerfRecord, Tool::PerfRecordPacked, Tool::Nrec(Names::Auto)];
    let mut all = vec![one(Tool::Nobody)];
    all.extend(recorders.map(one));
    all.extend(Tools::bpftrace().map(|_| one(Tool::Bpftrace)));
    all.extend(recorders.map(two));
    all
}

fn measure(observer: Observer, tools: &Tools, probes: &PerfProbes, drawn: bool) -> Result<Cost> {
    let folder = tempfile::tempdir()?;
    let count = format!("count={OPENS}");
    let mut workload = Workload::start_mapped("open-loop.js", folder.path(), &[&count])?;
    let watched = Watched::start(observer, workload.pid(), tools, probes, folder.path())?;
    workload.go()?;
    let said = workload.finish()?;
    let seconds = said.iter().find_map(|record| record.get("seconds")?.as_f64());
    let loop_time = Duration::from_secs_f64(seconds.context("the loop did not say its time")?);
    let seen = watched.stop()?;
    let bytes = seen.file.as_ref().map_or(Ok(0), |file| file.metadata().map(|data| data.len()))?;
    if let (Tool::Bpftrace, Some(file)) = (observer.tool, &seen.file) {
        let lines = fs::read_to_string(file)?.lines().count();
        if lines != OPENS as usize {
            println!("note: bpftrace prints {lines} lines of {OPENS}");
        }
    }
    // While the workload is not dropped, perf script finds its perf map.
    let file = seen.file.filter(|_| drawn);
    let drawings = file.map(|file| draw(observer, tools, &file)).transpose()?.flatten();
    Ok(Cost { loop_time, cpu: seen.cpu, bytes, drawings })
}

impl Row {
    // Microseconds a hit, each round compared with the loop alone in the same round.
    fn added(&self, alone: &Self) -> Option<Spread> {
        let rounds = self.costs.iter().zip(&alone.costs);
        Spread::of(rounds.map(|(cost, alone)| {
            (cost.loop_time.as_secs_f64() - alone.loop_time.as_secs_f64()) / f64::from(OPENS) * 1e6
        }))
    }

    fn cpu(&self) -> Option<Spread> {
        Spread::of_times(self.costs.iter().map(|cost| cost.cpu))
    }

    fn bytes(&self) -> Option<Spread> {
        let bytes = self.costs.iter().filter(|cost| cost.bytes > 0);
        Spread::of(bytes.map(|cost| float(cost.bytes) / f64::from(OPENS)))
    }

    fn plain(&self) -> Option<Spread> {
        let drawings = self.costs.iter().filter_map(|cost| cost.drawings);
        Spread::of_times(drawings.map(|drawings| drawings.plain.time))
    }

    fn without_arguments(&self) -> Option<Spread> {
        let drawings = self.costs.iter().filter_map(|cost| cost.drawings);
        Spread::of_times(drawings.filter_map(|drawings| Some(drawings.without_arguments?.time)))
    }
}

fn print(rows: &[Row], watch: Watch, title: &str) {
    let Some((alone, watchers)) = rows.split_first() else { return };
    println!("\n{title}; {OPENS} opens, median (least..greatest) of {} rounds", rounds(ROUNDS));
    let columns = ("added us/hit", "CPU s", "bytes/hit", "drawing s");
    println!("{:32} {:>20} {:>18} {:>22} {:>19}", "", columns.0, columns.1, columns.2, columns.3);
    let watchers: Vec<&Row> = watchers.iter().filter(|row| row.observer.watch == watch).collect();
    for row in &watchers {
        let (added, cpu) = (shown(row.added(alone), 2), shown(row.cpu(), 2));
        let (bytes, drawing) = match row.observer.tool {
            // What perf stat writes does not grow with the hits.
            Tool::PerfStat => ("-".to_owned(), "-".to_owned()),
            _ => (shown(row.bytes(), 1), shown(row.plain(), 2)),
        };
        println!("{:32} {added:>20} {cpu:>18} {bytes:>22} {drawing:>19}", row.observer.name());
    }
    let alone_time = Spread::of_times(alone.costs.iter().map(|cost| cost.loop_time));
    println!("the loop alone: {} s", shown(alone_time, 3));
    print_pictures(&watchers);
    let of = |tool| watchers.iter().find(|row| row.observer.tool == tool);
    let (Some(nrec), Some(perf), Some(packed)) =
        (of(Tool::Nrec(Names::Auto)), of(Tool::PerfRecord), of(Tool::PerfRecordPacked))
    else {
        return;
    };
    let count = of(Tool::PerfStat).and_then(|row| row.added(alone));
    println!(
        "added time, nrec / perf record -g:          {}",
        ratio(nrec.added(alone), perf.added(alone))
    );
    println!("added time, counting / perf record -g:      {}", ratio(count, perf.added(alone)));
    if let Some(bpftrace) = of(Tool::Bpftrace) {
        let added = ratio(nrec.added(alone), bpftrace.added(alone));
        println!("added time, nrec / bpftrace without stacks: {added}");
    }
    println!("recorder CPU, nrec / perf record -g:        {}", ratio(nrec.cpu(), perf.cpu()));
    println!("recorder CPU, nrec / perf record -g -z:     {}", ratio(nrec.cpu(), packed.cpu()));
    println!("bytes, nrec / perf record -g:               {}", ratio(nrec.bytes(), perf.bytes()));
    println!("bytes, nrec / perf record -g -z:            {}", ratio(nrec.bytes(), packed.bytes()));
    println!("drawing, perf's pipe / nanalyze:            {}", ratio(perf.plain(), nrec.plain()));
    if perf.without_arguments().is_some() {
        let times = ratio(perf.without_arguments(), nrec.plain());
        println!("drawing, the same without arguments:        {times}");
    }
}

// How much of what was recorded is in the picture.
fn print_pictures(watchers: &[&Row]) {
    for row in watchers {
        let Some(drawings) = row.costs.iter().find_map(|cost| cost.drawings) else { continue };
        let samples = drawings.plain.samples;
        println!(
            "{} draws {samples} of {OPENS} opens below the loop's function",
            row.observer.name()
        );
        if let Some(without) = drawings.without_arguments {
            let time = shown(row.without_arguments(), 2);
            println!(
                "  without the arguments (`perf script -F …`): {} opens, {time} s",
                without.samples
            );
        }
    }
}
