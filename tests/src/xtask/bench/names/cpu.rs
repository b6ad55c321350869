//! CPU samples of an application that serves as fast as it can, at 99 and 999 Hz.

use std::time::Duration;

use anyhow::Result;

use super::super::figures::{Spread, float, plain, ratio, rounds, shown};
use super::super::observers::{Names, Observer, Tool, Watch, Watched};
use super::super::probes::PerfProbes;
use super::super::tools::Tools;
use super::recorded::Recorded;
use super::{Flags, WATCHERS, median, own_workload, said_number, start};
use crate::steps::announce;

const ROUNDS: usize = 3;
const SECONDS: u32 = 8;
const FREQUENCIES: [u32; 2] = [99, 999];

/// What one observer cost in one round.
#[derive(Debug)]
struct Cost {
    /// Requests a second.
    work: f64,
    /// Requests for each second of CPU time: what others do on the machine changes it less.
    work_a_cpu_second: f64,
    cpu: Duration,
    start_cpu: Duration,
    recorded: Option<Recorded>,
}

/// All rounds of an observer.
#[derive(Debug)]
struct Row {
    flags: Flags,
    observer: Observer,
    costs: Vec<Cost>,
}

/// Measures and prints.
pub(crate) fn run(tools: &Tools, probes: &PerfProbes) -> Result<()> {
    let mut rows: Vec<Row> = observers()
        .into_iter()
        .map(|(flags, observer)| Row { flags, observer, costs: Vec::new() })
        .collect();
    let rounds = rounds(ROUNDS);
    for round in 1..=rounds {
        announce(&format!("names, CPU samples: round {round} of {rounds}"));
        for row in &mut rows {
            row.costs.push(measure(row, tools, probes)?);
        }
    }
    for frequency in FREQUENCIES {
        print(&rows, frequency, rounds);
    }
    Ok(())
}

// Without an observer once, for both frequencies.
fn observers() -> Vec<(Flags, Observer)> {
    let nobody = Observer { tool: Tool::Nobody, watch: Watch::Cpu(0) };
    let mut all = vec![(Flags::None, nobody), (Flags::Map, nobody)];
    for frequency in FREQUENCIES {
        let watch = Watch::Cpu(frequency);
        all.extend(WATCHERS.map(|(flags, tool)| (flags, Observer { tool, watch })));
    }
    all
}

fn measure(row: &Row, tools: &Tools, probes: &PerfProbes) -> Result<Cost> {
    let folder = tempfile::tempdir()?;
    let script = own_workload("served-application.js");
    let mut target = start(row.flags, &script, folder.path(), &format!("seconds={SECONDS}"))?;
    let watched = Watched::start(row.observer, target.pid(), tools, probes, folder.path())?;
    target.go()?;
    target.wait_done()?;
    let seen = watched.stop()?;
    target.terminate()?;
    let said = target.finish()?;
    let answered = said_number(&said, "answered")?;
    let work = answered / said_number(&said, "seconds")?;
    let work_a_cpu_second = answered / said_number(&said, "cpu_seconds")?;
    let recorded = seen.file.map(|file| Recorded::of(row.observer, tools, &file)).transpose()?;
    Ok(Cost { work, work_a_cpu_second, cpu: seen.cpu, start_cpu: seen.start_cpu, recorded })
}

impl Cost {
    fn running_cpu(&self) -> Duration {
        self.cpu.saturating_sub(self.start_cpu)
    }
}

impl Row {
    // Each round compared with the one without an observer.
    fn left(&self, alone: &Self, work: impl Fn(&Cost) -> f64) -> Option<Spread> {
        let rounds = self.costs.iter().zip(&alone.costs);
        Spread::of(rounds.map(|(cost, alone)| work(cost) / work(alone) * 100.0))
    }

    fn start_ms(&self) -> Option<Spread> {
        median(&self.costs, |cost| Some(cost.start_cpu.as_secs_f64() * 1e3))
    }

    // What it takes of one CPU, start aside.
    fn cpu_share(&self) -> Option<Spread> {
        median(&self.costs, |cost| {
            Some(cost.running_cpu().as_secs_f64() / f64::from(SECONDS) * 100.0)
        })
    }

    fn cpu_a_sample(&self) -> Option<Spread> {
        median(&self.costs, |cost| {
            let samples = cost.recorded?.samples;
            (samples > 0).then(|| cost.running_cpu().as_secs_f64() / float(samples) * 1e6)
        })
    }

    fn recorded(&self, figure: impl Fn(&Recorded) -> Option<f64>) -> Option<Spread> {
        median(&self.costs, |cost| figure(cost.recorded.as_ref()?))
    }

    fn bytes(&self) -> Option<Spread> {
        self.recorded(Recorded::bytes_a_sample)
    }
}

fn print(rows: &[Row], frequency: u32, rounds: usize) {
    println!(
        "\nnames, CPU samples at {frequency} Hz: {SECONDS} s of an application that serves; --js=map: of \
         one with V8's flags; median (least..greatest) of {rounds} rounds"
    );
    println!(
        "{:31} {:^40} {:^39}",
        "", "-- work, % of unwatched --", "-- CPU time of the recorder --"
    );
    println!(
        "{:31} {:>19} {:>20} {:>18} {:>9} {:>10} {:>13} {:>8} {:>6} {:>8}",
        "",
        "a second",
        "a second of its CPU",
        "% of one CPU",
        "start, ms",
        "us/sample",
        "bytes/sample",
        "samples",
        "lost",
        "named, %"
    );
    let of = |flags, tool| {
        let is_it = |row: &&Row| {
            row.flags == flags
                && row.observer.tool == tool
                && (tool == Tool::Nobody || row.observer.watch == Watch::Cpu(frequency))
        };
        rows.iter().find(is_it)
    };
    for (flags, tool) in WATCHERS {
        let (Some(row), Some(alone)) = (of(flags, tool), of(flags, Tool::Nobody)) else { continue };
        println!(
            "{:31} {:>19} {:>20} {:>18} {:>9} {:>10} {:>13} {:>8} {:>6} {:>8}",
            row.observer.name(),
            shown(row.left(alone, |cost| cost.work), 1),
            shown(row.left(alone, |cost| cost.work_a_cpu_second), 1),
            shown(row.cpu_share(), 2),
            plain(row.start_ms(), 0),
            plain(row.cpu_a_sample(), 0),
            plain(row.bytes(), 1),
            plain(row.recorded(|recorded| Some(float(recorded.samples))), 0),
            plain(row.recorded(|recorded| recorded.lost.map(float)), 0),
            plain(row.recorded(|recorded| Some(recorded.named? * 100.0)), 2),
        );
    }
    for (flags, name) in [(Flags::None, "without flags"), (Flags::Map, "with V8's flags")] {
        let alone = of(flags, Tool::Nobody).and_then(|row| median(&row.costs, |c| Some(c.work)));
        println!("unwatched, {name}: {} requests/s", shown(alone, 0));
    }
    let heap = of(Flags::None, Tool::Nrec(Names::Heap));
    let others = [
        ("callchains only (--js=off)", of(Flags::None, Tool::Nrec(Names::Off))),
        ("perf map (--js=map)", of(Flags::Map, Tool::Nrec(Names::Map))),
        ("perf --call-graph dwarf,16384", of(Flags::None, Tool::PerfRecordCopies)),
    ];
    for (name, other) in others {
        let (Some(heap), Some(other)) = (heap, other) else { continue };
        println!(
            "--js=heap / {name:30} recorder CPU {:>7}, CPU a sample {:>7}, bytes a sample {:>7}",
            ratio(heap.cpu_share(), other.cpu_share()),
            ratio(heap.cpu_a_sample(), other.cpu_a_sample()),
            ratio(heap.bytes(), other.bytes()),
        );
    }
}
