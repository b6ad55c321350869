//! Probe hits: `uv_fs_open` with its five arguments and a stack, in a loop that never stops to open
//! (where `--js=heap` copies one stack in 61), and in one that stays below the rate where that begins.

use std::time::Duration;

use anyhow::Result;

use super::super::figures::{Spread, float, plain, ratio, rounds, shown};
use super::super::observers::{Names, Observer, Tool, Watch, Watched};
use super::super::probes::PerfProbes;
use super::super::tools::Tools;
use super::recorded::Recorded;
use super::{Flags, WATCHERS, median, own_workload, said_number, shared_workload, start};
use crate::steps::announce;

const ROUNDS: usize = 5;

/// How often the probe is hit.
#[derive(Debug, Clone, Copy)]
enum Loop {
    /// As often as the target can.
    Hot,
    /// Fewer than 2000 times a second: each hit has its stack.
    Paced,
}

impl Loop {
    fn opens(self) -> u32 {
        match self {
            Self::Hot => 50_000,
            Self::Paced => 6000,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Hot => "without a pause: nrec copies one stack in 61",
            Self::Paced => "fewer than 2000 a second: nrec copies each stack",
        }
    }
}

/// What one observer cost in one round.
#[derive(Debug)]
struct Cost {
    /// Of all opens, without the pauses.
    loop_time: Duration,
    cpu: Duration,
    start_cpu: Duration,
    recorded: Option<Recorded>,
}

/// All rounds of an observer.
#[derive(Debug)]
struct Row {
    flags: Flags,
    tool: Tool,
    costs: Vec<Cost>,
}

/// Measures and prints.
pub(crate) fn run(tools: &Tools, probes: &PerfProbes) -> Result<()> {
    for kind in [Loop::Paced, Loop::Hot] {
        let nobody = [(Flags::None, Tool::Nobody), (Flags::Map, Tool::Nobody)];
        let mut rows: Vec<Row> = nobody
            .into_iter()
            .chain(WATCHERS)
            .map(|(flags, tool)| Row { flags, tool, costs: Vec::new() })
            .collect();
        let rounds = rounds(ROUNDS);
        for round in 1..=rounds {
            announce(&format!("names, {kind:?} probe: round {round} of {rounds}"));
            for row in &mut rows {
                row.costs.push(measure(kind, row, tools, probes)?);
            }
        }
        print(kind, &rows, rounds);
    }
    Ok(())
}

fn measure(kind: Loop, row: &Row, tools: &Tools, probes: &PerfProbes) -> Result<Cost> {
    let folder = tempfile::tempdir()?;
    let script = match kind {
        Loop::Hot => shared_workload("open-loop.js"),
        Loop::Paced => own_workload("paced-opens.js"),
    };
    let count = format!("count={}", kind.opens());
    let mut target = start(row.flags, &script, folder.path(), &count)?;
    let observer = row.observer();
    let watched = Watched::start(observer, target.pid(), tools, probes, folder.path())?;
    target.go()?;
    let said = target.finish()?;
    let seen = watched.stop()?;
    let loop_time = Duration::from_secs_f64(said_number(&said, "seconds")?);
    let recorded = seen.file.map(|file| Recorded::of(observer, tools, &file)).transpose()?;
    Ok(Cost { loop_time, cpu: seen.cpu, start_cpu: seen.start_cpu, recorded })
}

impl Row {
    fn observer(&self) -> Observer {
        Observer { tool: self.tool, watch: Watch::Open }
    }

    // Microseconds a hit, each round compared with the loop alone in the same round.
    fn added(&self, alone: &Self, opens: u32) -> Option<Spread> {
        let rounds = self.costs.iter().zip(&alone.costs);
        Spread::of(rounds.map(|(cost, alone)| {
            (cost.loop_time.as_secs_f64() - alone.loop_time.as_secs_f64()) / f64::from(opens) * 1e6
        }))
    }

    // Of the recorder, start aside, for each open: also those that it lost.
    fn cpu_a_hit(&self, opens: u32) -> Option<Spread> {
        median(&self.costs, |cost| {
            let running = cost.cpu.saturating_sub(cost.start_cpu);
            Some(running.as_secs_f64() / f64::from(opens) * 1e6)
        })
    }

    fn start_ms(&self) -> Option<Spread> {
        median(&self.costs, |cost| Some(cost.start_cpu.as_secs_f64() * 1e3))
    }

    fn recorded(&self, figure: impl Fn(&Recorded) -> Option<f64>) -> Option<Spread> {
        median(&self.costs, |cost| figure(cost.recorded.as_ref()?))
    }
}

fn print(kind: Loop, rows: &[Row], rounds: usize) {
    let opens = kind.opens();
    println!(
        "\nnames, probe hits: {opens} opens below 15 functions, {}; --js=map: of a target with V8's \
         flags; median (least..greatest) of {rounds} rounds",
        kind.title()
    );
    println!("{:31} {:>21} {:^31}", "", "", "-- CPU time of the recorder --");
    println!(
        "{:31} {:>21} {:>21} {:>9} {:>10} {:>11} {:>8} {:>8} {:>8}",
        "",
        "added us/open",
        "us/open",
        "start, ms",
        "bytes/hit",
        "bytes/stack",
        "hits",
        "stacks",
        "named, %"
    );
    let of = |flags, tool| rows.iter().find(|row| row.flags == flags && row.tool == tool);
    for (flags, tool) in WATCHERS {
        let (Some(row), Some(alone)) = (of(flags, tool), of(flags, Tool::Nobody)) else { continue };
        println!(
            "{:31} {:>21} {:>21} {:>9} {:>10} {:>11} {:>8} {:>8} {:>8}",
            row.observer().name(),
            shown(row.added(alone, opens), 2),
            shown(row.cpu_a_hit(opens), 2),
            plain(row.start_ms(), 0),
            plain(row.recorded(Recorded::bytes_a_sample), 1),
            plain(row.recorded(Recorded::bytes_a_stack), 1),
            plain(row.recorded(|recorded| Some(float(recorded.samples))), 0),
            plain(row.recorded(|recorded| Some(float(recorded.stacks))), 0),
            plain(row.recorded(|recorded| Some(recorded.named? * 100.0)), 2),
        );
    }
    for (flags, name) in [(Flags::None, "without flags"), (Flags::Map, "with V8's flags")] {
        let Some(alone) = of(flags, Tool::Nobody) else { continue };
        let each = median(&alone.costs, |cost| {
            Some(cost.loop_time.as_secs_f64() / f64::from(opens) * 1e6)
        });
        println!("unwatched, {name}: {} us for each open", shown(each, 2));
    }
    let heap = of(Flags::None, Tool::Nrec(Names::Heap));
    let others = [
        ("callchains only (--js=off)", Flags::None, Tool::Nrec(Names::Off)),
        ("perf map (--js=map)", Flags::Map, Tool::Nrec(Names::Map)),
        ("perf --call-graph dwarf,16384", Flags::None, Tool::PerfRecordCopies),
    ];
    for (name, flags, tool) in others {
        let (Some(heap), Some(other)) = (heap, of(flags, tool)) else { continue };
        let (Some(alone), Some(others_alone)) =
            (of(Flags::None, Tool::Nobody), of(flags, Tool::Nobody))
        else {
            continue;
        };
        println!(
            "--js=heap / {name:30} added time {:>7}, recorder CPU {:>7}, bytes a hit {:>7}",
            ratio(heap.added(alone, opens), other.added(others_alone, opens)),
            ratio(heap.cpu_a_hit(opens), other.cpu_a_hit(opens)),
            ratio(
                heap.recorded(Recorded::bytes_a_sample),
                other.recorded(Recorded::bytes_a_sample)
            ),
        );
    }
}
