//! Programs that are not of this project: every system call of theirs that takes a path is part of an
//! operation that we tell, with the same path and errno, or of a class that is known; and every
//! operation that we tell consists of such calls.
//!
//! The truth is what `strace -f -y` saw of the same run.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow, ensure};
use harness::accounts::Account;
use harness::binaries::{fixture, require_program};
use harness::command::run;
use harness::http::get;
use harness::kernel::{skip, take_turn, tell};
use harness::nodes::{VERSIONS, take_turn_with};
use harness::recording::{Recorded, Recording, record_command};
use harness::report::{Report, nanalyze};
use harness::strace::{self, Strace};
use harness::strace_calls::PathCall;
use harness::workload::Workload;
use serde_json::Value;
use tempfile::TempDir;

/// Requests of each page, by each client.
const REQUESTS: usize = 40;
const CLIENTS: usize = 4;
/// Rings that hold all of a program that starts: others may want the CPUs, too.
const OPTIONS: [&str; 4] = ["-e", "fs", "--buffer-size", "128m"];

/// Our operations: the thread that asked, and what was asked.
fn operations(recorded: &Recorded) -> Result<Vec<(u32, Value)>> {
    let outcome = nanalyze(&["events", "-e", "fs", "--json"], &recorded.capture())?;
    let operation = |line: &str| {
        let mut event: Value = serde_json::from_str(line)?;
        let tid = event["tid"].as_u64().context("an event without a thread")?;
        Ok((u32::try_from(tid)?, event["args"].take()))
    };
    outcome.expect_code(0)?.stdout.lines().map(operation).collect()
}

fn check(what: &str, calls: &[PathCall], recorded: &Recorded, at_least: usize) -> Result<()> {
    let account = Account::of(calls, &operations(recorded)?);
    tell(&format!("{what}: {}", account.figures()))?;
    account.check()?;
    let count = account.of_operations();
    ensure!(count >= at_least, "{what}: only {count} calls, so the program did not do its work");
    Ok(())
}

/// Records a program that strace starts, in `folder`.
fn record_launched(words: &[&str], folder: &Path) -> Result<(Vec<PathCall>, Recorded)> {
    let place = tempfile::tempdir()?;
    let log = place.path().join("strace.log");
    let mut command = strace::launch_paths(&log)?;
    // cargo's own, in which the dynamic loader would look for each library.
    command.args(["env", "-u", "LD_LIBRARY_PATH"]).args(words).current_dir(folder);
    let (recorded, _said) = record_command(&OPTIONS, &command)?;
    Ok((strace::read_paths(&log)?, recorded.complete()?))
}

/// Records a server while `load` runs.
fn record_server(
    script: &Path,
    load: impl Fn(u16) -> Result<()>,
) -> Result<(Vec<PathCall>, Recorded)> {
    let (mut server, port) = Workload::start_server(script, &[])?;
    let strace = Strace::attach_paths(server.pid())?;
    let recording = Recording::attach(server.pid(), &OPTIONS)?;
    load(port)?;
    server.terminate()?;
    let recorded = recording.stop()?.complete()?;
    Ok((strace.finish_paths()?, recorded))
}

fn packages_of(fixture_name: &str) -> Result<PathBuf> {
    let packages = fixture(fixture_name).join("node_modules");
    ensure!(packages.exists(), "fixtures/{fixture_name} has no packages: run `cargo xtask setup`");
    Ok(packages)
}

/// Tarballs of installed packages that need no others.
fn pack(folder: &Path) -> Result<Vec<String>> {
    let packages = packages_of("app")?;
    let mut npm = Command::new(require_program("npm")?);
    npm.args(["pack", "--ignore-scripts", "--silent", "--pack-destination"]).arg(folder);
    let outcome = run(npm.args(["ms", "mime"].map(|name| packages.join(name))))?.expect_code(0)?;
    let path = |name: &str| folder.join(name.trim()).to_string_lossy().into_owned();
    Ok(outcome.stdout.lines().map(path).collect())
}

#[test]
fn npm_install_of_tarballs_is_told_as_strace_sees_it() -> Result<()> {
    let name = "npm_install_of_tarballs_is_told_as_strace_sees_it";
    let Some(_turn) = take_turn(name, &["node", "npm", "strace"])? else { return Ok(()) };
    let place = tempfile::tempdir()?;
    let tarballs = match pack(place.path()) {
        Ok(tarballs) => tarballs,
        Err(reason) => return skip(name, &reason),
    };
    let project = place.path().join("project");
    fs::create_dir(&project)?;
    fs::write(project.join("package.json"), r#"{"name": "project", "version": "1.0.0"}"#)?;
    let cache = place.path().join("cache").to_string_lossy().into_owned();
    let mut words = vec!["npm", "install", "--offline", "--ignore-scripts", "--cache", &cache];
    words.extend(["--no-audit", "--no-fund", "--update-notifier=false"]);
    words.extend(tarballs.iter().map(String::as_str));
    let (calls, recorded) = record_launched(&words, &project)?;
    assert!(project.join("node_modules/mime/package.json").exists());
    check("npm install", &calls, &recorded, 1000)
}

/// A TypeScript project, with the compiler below it.
fn project() -> Result<TempDir> {
    let packages = packages_of("field")?;
    let project = tempfile::tempdir()?;
    let from = fixture("field");
    fs::create_dir(project.path().join("src"))?;
    for file in ["package.json", "tsconfig.json", "src/main.ts", "src/shapes.ts"] {
        fs::copy(from.join(file), project.path().join(file))?;
    }
    symlink(packages, project.path().join("node_modules"))?;
    Ok(project)
}

fn check_compilation(what: &str, words: &[&str], at_least: usize) -> Result<()> {
    let project = project()?;
    let (calls, recorded) = record_launched(words, project.path())?;
    assert!(project.path().join("out/main.js").exists(), "{what}: nothing was compiled");
    check(what, &calls, &recorded, at_least)
}

#[test]
fn a_typescript_compilation_is_told_as_strace_sees_it() -> Result<()> {
    let name = "a_typescript_compilation_is_told_as_strace_sees_it";
    let Some(_turn) = take_turn(name, &["node", "npx", "strace"])? else { return Ok(()) };
    if let Err(reason) = packages_of("field") {
        return skip(name, &reason);
    }
    // A shell that npx starts, in which the compiler is started.
    check_compilation(
        "npx tsc",
        &["npx", "--offline", "--no", "--", "tsc", "--outDir", "out"],
        1000,
    )
}

#[test]
fn compilations_by_each_version_of_node_are_told_as_strace_sees_them() -> Result<()> {
    let name = "compilations_by_each_version_of_node_are_told_as_strace_sees_them";
    if let Err(reason) = packages_of("field") {
        return skip(name, &reason);
    }
    for version in VERSIONS {
        let Some((_turn, node)) = take_turn_with(name, version, &["strace"])? else { continue };
        // As V8 reads it in its own mappings.
        let node = node.canonicalize()?.to_string_lossy().into_owned();
        let words = [&node, "node_modules/.bin/tsc", "--outDir", "out"];
        check_compilation(&format!("tsc on Node {version}"), &words, 100)?;
    }
    Ok(())
}

#[test]
fn a_node_that_no_word_of_the_command_names_is_recorded_late_which_is_said() -> Result<()> {
    let name = "a_node_that_no_word_of_the_command_names_is_recorded_late_which_is_said";
    let Some((_turn, node)) = take_turn_with(name, 18, &["sh"])? else { return Ok(()) };
    let file = tempfile::NamedTempFile::new()?;
    let later = format!("setTimeout(() => fs.readFileSync({:?}), 1000)", file.path());
    let script = format!("{} -e '{later}'; true", node.display());
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]);
    let (recorded, _said) = record_command(&["-e", "fs"], &shell)?;
    let report = Report::of(&recorded.complete()?.capture())?;
    let opens = report.opens.iter().filter(|open| Path::new(&open.path) == file.path());
    assert_eq!(opens.map(|open| open.count).sum::<u64>(), 1);
    assert!(report.remarks.iter().any(|remark| remark.code == "late-probe"));
    Ok(())
}

#[test]
fn an_express_application_under_load_is_told_as_strace_sees_it() -> Result<()> {
    let name = "an_express_application_under_load_is_told_as_strace_sees_it";
    let Some(_turn) = take_turn(name, &["node", "strace"])? else { return Ok(()) };
    if let Err(reason) = packages_of("app").and_then(|_| packages_of("lab")) {
        return skip(name, &reason);
    }
    let (calls, recorded) = record_server(&fixture("app/server.js"), |port| {
        let mut traffic = Command::new(require_program("node")?);
        traffic.arg(fixture("app/traffic.js")).args([&port.to_string(), "200"]);
        run(&mut traffic)?.expect_code(0).map(drop)
    })?;
    check("the application", &calls, &recorded, 160)?;

    // `sendFile`, and a file that is not there, by several clients at once.
    let (calls, recorded) = record_server(&fixture("lab/server.js"), |port| {
        let client = move || {
            (0..REQUESTS).try_for_each(|_| {
                ensure!(get(port, "/")?.contains("About us"), "another page");
                ensure!(get(port, "/about")?.contains("An error occurred"), "no error");
                Ok(())
            })
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| std::thread::spawn(client)).collect();
        let ended = clients.into_iter().map(JoinHandle::join);
        ended.into_iter().try_for_each(|end| end.map_err(|_| anyhow!("a client panicked"))?)
    })?;
    // A stat and an open of the page, and the open that fails.
    check("the lab", &calls, &recorded, 3 * REQUESTS * CLIENTS)
}
