//! Analysis of large captures: time and memory of `nanalyze` on synthetic ones of up to 1 000 000
//! samples, and whether they grow as the captures do.
//!
//! `synthetic/main.rs` writes the captures. It is a package of its own, built beside the tools: the
//! task runner, like the tests, does not link the product.

use std::fs;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use harness::binaries::repository;
use harness::command::run as run_quietly;

use super::figures::{Spread, float, ratio, rounds, shown};
use super::tools::Tools;
use crate::steps::{announce, cargo, run_visibly, target_folder};

const SIZES: [u32; 3] = [250_000, 500_000, 1_000_000];
const ROUNDS: usize = 3;
const SOURCE: &str = include_str!("synthetic/main.rs");
const COMMANDS: [&str; 2] = ["report", "flamegraph"];

/// One command on one capture, all rounds.
#[derive(Debug, Clone, Copy)]
struct Cell {
    time: Option<Spread>,
    peak: Option<Spread>,
}

/// Measures and prints.
pub(crate) fn run(tools: &Tools) -> Result<()> {
    announce("synthetic captures");
    let program = build()?;
    let folder = tempfile::tempdir()?;
    let mut rows = Vec::new();
    for samples in SIZES {
        let file = folder.path().join("synthetic.nrec");
        let mut write = Command::new(&program);
        run_quietly(write.arg(samples.to_string()).arg(&file))?.expect_code(0)?;
        let bytes = file.metadata()?.len();
        let cells: Vec<Cell> =
            COMMANDS.iter().map(|command| measure(tools, command, &file)).collect::<Result<_>>()?;
        fs::remove_file(&file)?;
        rows.push((samples, bytes, cells));
    }
    print(&rows);
    Ok(())
}

fn measure(tools: &Tools, word: &str, file: &Path) -> Result<Cell> {
    let mut runs = Vec::new();
    for _ in 0..rounds(ROUNDS) {
        let mut command = tools.nanalyze(&[word]);
        command.arg(file);
        if word == "flamegraph" {
            command.arg("-o").arg(file.with_extension("svg"));
        }
        match watch(&mut command) {
            Ok(run) => runs.push(run),
            Err(error) => {
                println!("note: nanalyze {word}: {error:#}");
                break;
            }
        }
    }
    let time = Spread::of_times(runs.iter().map(|run| run.0));
    let peak = Spread::of(runs.iter().map(|run| float(run.1) / 1024.0));
    Ok(Cell { time, peak })
}

// Time, and the greatest resident set in KiB. proc_pid_status(5): VmHWM is a high-water mark, so
// looking every millisecond misses only what a program gains in its last one.
fn watch(command: &mut Command) -> Result<(Duration, u64)> {
    let mut messages = tempfile::tempfile()?;
    let begin = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(messages.try_clone()?)
        .spawn()
        .context("cannot start nanalyze")?;
    let file = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut peak = 0;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let text = fs::read_to_string(&file).unwrap_or_default();
        peak = peak.max(high_water(&text).unwrap_or(0));
        std::thread::sleep(Duration::from_millis(1));
    };
    let time = begin.elapsed();
    if !status.success() {
        let mut said = String::new();
        messages.rewind()?;
        messages.read_to_string(&mut said)?;
        bail!("it ended with {status}: {}", said.trim());
    }
    Ok((time, peak))
}

fn high_water(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

// The lock file and the profile of this repository: then cargo finds most of it built already.
fn build() -> Result<PathBuf> {
    let target = target_folder()?;
    let package = target.join("tools/synthetic");
    fs::create_dir_all(package.join("src")).context("cannot make the package")?;
    let formats = repository().join("formats");
    let manifest = format!(
        "[package]\nname = \"synthetic\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [dependencies]\nformats = {{ path = {formats:?} }}\n\n[workspace]\n\n\
         [profile.release]\ndebug = \"line-tables-only\"\nlto = \"thin\"\ncodegen-units = 4\n"
    );
    fs::write(package.join("Cargo.toml"), manifest)?;
    fs::write(package.join("src/main.rs"), SOURCE)?;
    fs::copy(repository().join("Cargo.lock"), package.join("Cargo.lock"))?;
    let mut cargo = cargo(&["build", "--release", "--quiet", "--manifest-path"]);
    cargo.arg(package.join("Cargo.toml")).arg("--target-dir").arg(&target);
    run_visibly(&mut cargo)?;
    Ok(target.join("release/synthetic"))
}

fn print(rows: &[(u32, u64, Vec<Cell>)]) {
    println!(
        "\nnanalyze on synthetic CPU captures: stacks of 37 frames; median (least..greatest) of \
         {} runs; ratios to the first row",
        rounds(ROUNDS)
    );
    let columns = ("samples", "bytes/sample", "command", "time s", "peak MiB");
    let (samples, bytes, command, time, peak) = columns;
    println!("{samples:>9} {bytes:>13}  {command:12} {time:>20} {:>6} {peak:>24} {:>6}", "", "");
    let first = rows.first().map(|row| row.2.clone()).unwrap_or_default();
    for (samples, bytes, cells) in rows {
        let bytes = float(*bytes) / f64::from(*samples);
        for ((command, cell), first) in COMMANDS.iter().zip(cells).zip(&first) {
            let (time, peak) = (shown(cell.time, 3), shown(cell.peak, 1));
            let (slower, larger) = (ratio(cell.time, first.time), ratio(cell.peak, first.peak));
            println!(
                "{samples:>9} {bytes:>13.2}  {command:12} {time:>20} {slower:>6} {peak:>24} {larger:>6}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn high_water_marks() {
        assert_eq!(high_water("Name:\ta\nVmHWM:\t   12345 kB\nVmRSS:\t 1 kB\n"), Some(12_345));
        assert_eq!(high_water("Name:\ta\nState:\tZ (zombie)\n"), None);
    }

    #[test]
    fn a_failing_analysis_is_no_figure() {
        let (time, peak) = watch(Command::new("sleep").arg("0.05")).unwrap();
        assert!(time > Duration::ZERO && peak > 0);
        assert!(watch(&mut Command::new("false")).is_err());
    }
}
