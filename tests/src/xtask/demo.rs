//! The whole product on the fixture application: record it under load, report, draw.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use harness::binaries::{fixture, repository};
use harness::command::Running;
use harness::kernel::TRACEFS;
use harness::workload::Workload;

use crate::setup;
use crate::steps::{announce, cargo, run_visibly, target_folder};

const RECORDED_SECONDS: &str = "10";
// Longer than the recording, so that the load lasts to its end.
const TRAFFIC_SECONDS: &str = "15";
const TRAFFIC_REQUESTS: &str = "1000000";

/// Runs the demonstration.
pub(crate) fn run() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the demo places probes, for which it must be root: run it with sudo");
    }
    setup::application()?;
    setup::tracefs()?;
    if !std::path::Path::new(TRACEFS).join("dynamic_events").exists() {
        bail!("{TRACEFS} has no dynamic_events: this kernel has no uprobe events, or hides them");
    }
    announce("building nrec and nanalyze");
    run_visibly(&mut cargo(&["build", "--release", "-p", "recorder", "-p", "analyzer"]))?;
    let target = target_folder()?;
    let nrec = target.join("release/nrec");
    let nanalyze = target.join("release/nanalyze");
    let results = target.join("demo");
    fs::create_dir_all(&results).with_context(|| format!("cannot make {}", results.display()))?;
    let capture = results.join("capture.nrec");
    let flamegraph = results.join("flame.svg");

    announce("starting the application of fixtures/app and sending requests");
    // Both are ended when this function is left. An interrupt does not leave it but ends this task:
    // then the application ends with its standard input.
    let (application, port) = Workload::start_application()?;
    let mut traffic = Command::new("node");
    traffic.arg(fixture("app/traffic.js"));
    let _traffic =
        Running::start(traffic.args([&port.to_string(), TRAFFIC_REQUESTS, TRAFFIC_SECONDS]))?;

    let pid = application.pid().to_string();
    announce(&format!("nrec record -p {pid} -o {} -- sleep {RECORDED_SECONDS}", capture.display()));
    let mut record = Command::new(&nrec);
    record.args(["record", "-p", &pid, "-o"]).arg(&capture);
    run_product(record.args(["--", "sleep", RECORDED_SECONDS]))?;
    drop(application);

    announce(&format!("nanalyze report {}", capture.display()));
    run_product(Command::new(&nanalyze).arg("report").arg(&capture))?;
    let mut draw = Command::new(&nanalyze);
    run_product(draw.arg("flamegraph").arg(&capture).arg("-o").arg(&flamegraph))?;

    let shown = |path: &std::path::Path| {
        path.strip_prefix(repository()).unwrap_or(path).display().to_string()
    };
    println!();
    println!("capture:    {}", shown(&capture));
    println!("flamegraph: {} (open it in a browser)", shown(&flamegraph));
    Ok(())
}

// Exit code 1 means that something is missing from the result, which the program has said itself.
fn run_product(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command
        .current_dir(repository())
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {name}"))?;
    match status.code() {
        Some(0 | 1) => Ok(()),
        _ => bail!("{name} ended with {status}"),
    }
}
