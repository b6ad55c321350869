//! CPU samples: 999 a second of the fixture application while it answers `/report`, whose time is
//! all JavaScript. What the target loses shows in the number of reports.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use harness::command::run as run_quietly;
use harness::workload::{PERF_FLAGS, Workload};

use super::drawing::{Drawings, draw};
use super::figures::{Spread, float, ratio, rounds, shown};
use super::observers::{Names, Observer, Tool, Watch, Watched};
use super::probes::PerfProbes;
use super::tools::Tools;
use crate::steps::announce;

/// Samples a second and thread.
const FREQUENCY: u32 = 999;
const ROUNDS: usize = 2;
/// Until V8 has optimised what is hot.
const WARM_UP: Duration = Duration::from_secs(1);
const LENGTH: Duration = Duration::from_secs(10);
const TOOLS: [Tool; 4] =
    [Tool::Nobody, Tool::PerfRecord, Tool::PerfRecordPacked, Tool::Nrec(Names::Auto)];

#[derive(Debug)]
struct Cost {
    reports_per_second: f64,
    cpu: Duration,
    bytes: u64,
    samples: Option<u64>,
    drawings: Option<Drawings>,
}

/// Measures and prints.
pub(crate) fn run(tools: &Tools, probes: &PerfProbes) -> Result<()> {
    let mut rows: Vec<(Tool, Vec<Cost>)> = TOOLS.map(|tool| (tool, Vec::new())).into();
    let rounds = rounds(ROUNDS);
    for round in 1..=rounds {
        announce(&format!("CPU samples: round {round} of {rounds}"));
        for (tool, costs) in &mut rows {
            costs.push(measure(
                Observer { tool: *tool, watch: Watch::Cpu(FREQUENCY) },
                tools,
                probes,
            )?);
        }
    }
    print(&rows);
    Ok(())
}

fn measure(observer: Observer, tools: &Tools, probes: &PerfProbes) -> Result<Cost> {
    let folder = tempfile::tempdir()?;
    let (mut workload, port) = Workload::start_flagged_application(&PERF_FLAGS)?;
    let mut client = Client::connect(port)?;
    client.ask_for(WARM_UP)?;
    let watched = Watched::start(observer, workload.pid(), tools, probes, folder.path())?;
    let reports_per_second = client.ask_for(LENGTH)?;
    let seen = watched.stop()?;
    let bytes = seen.file.as_ref().map_or(Ok(0), |file| file.metadata().map(|data| data.len()))?;
    let samples = seen.file.as_ref().map(|file| recorded_samples(observer, tools, file));
    let samples = samples.transpose()?.flatten();
    let drawings = seen.file.map(|file| draw(observer, tools, &file)).transpose()?.flatten();
    drop(client);
    workload.terminate()?;
    Ok(Cost { reports_per_second, cpu: seen.cpu, bytes, samples, drawings })
}

/// As the analysis of each says it: a row `SAMPLES LOST DROPPED SET EVENT`, and perf's `SAMPLE events: N`.
pub(crate) fn recorded_samples(
    observer: Observer,
    tools: &Tools,
    file: &Path,
) -> Result<Option<u64>> {
    let mut command = match observer.tool {
        Tool::Nrec(_) => tools.nanalyze(&["info"]),
        _ => tools.perf(&["report", "--stats", "--stdio", "-i"]),
    };
    let text = run_quietly(command.arg(file))?.stdout;
    Ok(text.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["SAMPLE", "events:", count, ..] | [count, _, _, "cpu", ..] => count.parse().ok(),
        _ => None,
    }))
}

/// One connection that is kept.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .context("cannot connect to the application")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    // Reports a second, one after the other.
    fn ask_for(&mut self, length: Duration) -> Result<f64> {
        let begin = Instant::now();
        let mut reports = 0_u32;
        while begin.elapsed() < length {
            self.ask()?;
            reports += 1;
        }
        Ok(f64::from(reports) / begin.elapsed().as_secs_f64())
    }

    fn ask(&mut self) -> Result<()> {
        let request = b"GET /report HTTP/1.1\r\nHost: localhost\r\n\r\n";
        self.stream.get_mut().write_all(request).context("cannot ask the application")?;
        let length = answer_length(&mut self.stream)?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).context("the application's answer is cut short")
    }
}

// Reads the head of an answer; the application sends the length of each.
fn answer_length(stream: &mut impl std::io::BufRead) -> Result<usize> {
    let mut line = String::new();
    stream.read_line(&mut line).context("the application does not answer")?;
    if line.split(' ').nth(1) != Some("200") {
        bail!("the application answers {line:?}");
    }
    let mut length = None;
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            bail!("the application's answer is cut short");
        }
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok();
        }
    }
    length.context("the application's answer has no length")
}

fn print(rows: &[(Tool, Vec<Cost>)]) {
    println!(
        "\nCPU samples: {FREQUENCY} Hz, {} s of GET /report; median (least..greatest) of {} rounds",
        LENGTH.as_secs(),
        rounds(ROUNDS)
    );
    let columns = ("reports/s", "CPU s", "bytes/sample", "drawing s", "samples");
    let (rate, cpu, bytes, drawing, samples) = columns;
    println!("{:20} {rate:>22} {cpu:>18} {bytes:>22} {drawing:>19} {samples:>22}", "");
    for (tool, costs) in rows {
        let name = Observer { tool: *tool, watch: Watch::Cpu(FREQUENCY) }.name();
        let (rate, cpu) = (shown(reports(costs), 2), shown(cpu_time(costs), 2));
        let (bytes, drawing) = (shown(bytes_a_sample(costs), 2), shown(drawing_time(costs), 2));
        let recorded =
            shown(Spread::of(costs.iter().filter_map(|cost| cost.samples).map(float)), 0);
        println!("{name:20} {rate:>22} {cpu:>18} {bytes:>22} {drawing:>19} {recorded:>22}");
    }
    let of = |tool| rows.iter().find(|row| row.0 == tool).map(|row| row.1.as_slice());
    let (Some(alone), Some(perf), Some(packed), Some(nrec)) = (
        of(Tool::Nobody),
        of(Tool::PerfRecord),
        of(Tool::PerfRecordPacked),
        of(Tool::Nrec(Names::Auto)),
    ) else {
        return;
    };
    for (name, costs) in
        [("perf record -g   ", perf), ("perf record -g -z", packed), ("nrec             ", nrec)]
    {
        println!("work done, {name} / nobody:      {}", ratio(reports(costs), reports(alone)));
    }
    println!(
        "recorder CPU, nrec / perf record -g:        {}",
        ratio(cpu_time(nrec), cpu_time(perf))
    );
    println!(
        "recorder CPU, nrec / perf record -g -z:     {}",
        ratio(cpu_time(nrec), cpu_time(packed))
    );
    let (ours, theirs) = (bytes_a_sample(nrec), bytes_a_sample(packed));
    println!("bytes a sample, nrec / perf record -g:      {}", ratio(ours, bytes_a_sample(perf)));
    println!("bytes a sample, nrec / perf record -g -z:   {}", ratio(ours, theirs));
    let times = ratio(drawing_time(perf), drawing_time(nrec));
    println!("drawing, perf's pipe / nanalyze:            {times}");
}

fn reports(costs: &[Cost]) -> Option<Spread> {
    Spread::of(costs.iter().map(|cost| cost.reports_per_second))
}

fn cpu_time(costs: &[Cost]) -> Option<Spread> {
    Spread::of_times(costs.iter().map(|cost| cost.cpu))
}

fn drawings(costs: &[Cost]) -> impl Iterator<Item = Drawings> {
    costs.iter().filter_map(|cost| cost.drawings)
}

fn drawing_time(costs: &[Cost]) -> Option<Spread> {
    Spread::of_times(drawings(costs).map(|drawings| drawings.plain.time))
}

fn bytes_a_sample(costs: &[Cost]) -> Option<Spread> {
    let rounds = costs.iter().filter_map(|cost| Some((cost.bytes, cost.samples?)));
    Spread::of(rounds.map(|(bytes, samples)| float(bytes) / float(samples)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_answers() {
        let length = |mut text: &[u8]| answer_length(&mut text);
        let head = b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 57\r\n\r\n{}";
        assert_eq!(length(head).unwrap(), 57);
        assert!(length(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n").is_err());
        assert!(length(b"HTTP/1.1 200 OK\r\nContent-Length: 57\r\n").is_err());
        assert!(length(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n").is_err());
    }
}
