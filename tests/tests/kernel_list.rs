//! `nrec list` beside `readelf`: the same functions, and each line is an EVENT that can be armed.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use harness::binaries::{self, fixture, require_program};
use harness::command::{Outcome, run, wait_for};
use harness::events::events_of;
use harness::foreign::debian_turn;
use harness::kernel::{left_dynamic_events, take_turn, tell};
use harness::nodes::{VERSIONS, take_turn_with};
use harness::recording::{Recording, nrec};
use harness::workload::Workload;

type Names = BTreeSet<String>;

/// Above the kernel's largest process id (PID_MAX_LIMIT, 2^22).
const NOBODY: &str = "4194311";

/// What `readelf` knows of a file, of symbols that have a size.
#[derive(Debug, Default)]
struct Symbols {
    functions: Names,
    indirect: Names,
    /// Hand-written assembly that is not said to be a function.
    untyped: Names,
}

/// Number, address, size, type, binding, visibility, section and name (readelf(1)); behind `@` is a
/// version that is no part of the name. `nm` cannot tell functions from data that lies among them.
fn of_readelf(file: &Path) -> Result<Symbols> {
    let mut command = Command::new(require_program("readelf")?);
    let outcome = run(command.args(["--syms", "--wide"]).arg(file))?.expect_code(0)?;
    let mut symbols = Symbols::default();
    for line in outcome.stdout.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, _, size, kind, _, _, section, name, ..] = words[..] else { continue };
        let kind = match kind {
            _ if section == "UND" || size == "0" => continue,
            "FUNC" => &mut symbols.functions,
            "IFUNC" => &mut symbols.indirect,
            "NOTYPE" => &mut symbols.untyped,
            _ => continue,
        };
        kind.insert(name.split('@').next().unwrap_or(name).to_owned());
    }
    Ok(symbols)
}

/// The functions of one file among the lines of `nrec list`, which must be sorted.
fn of_list(outcome: &Outcome, file: &Path) -> Result<Names> {
    let lines: Vec<_> = outcome.stdout.lines().collect();
    ensure!(lines.is_sorted_by(|a, b| a < b), "the lines are not sorted, or one is there twice");
    let prefix = format!("uprobe:{}:", file.display());
    let of_file = lines.iter().filter_map(|line| line.strip_prefix(&prefix));
    Ok(of_file.filter_map(|rest| rest.split(' ').next()).map(str::to_owned).collect())
}

fn of_libuv(names: Names) -> Names {
    names.into_iter().filter(|name| name.starts_with("uv_")).collect()
}

/// What a recorder with these events says to a process that is not there.
fn without_target(events: &[&str]) -> Result<Outcome> {
    let folder = tempfile::tempdir()?;
    let capture = folder.path().join("capture.nrec").to_string_lossy().into_owned();
    let mut words = vec!["record", "-p", NOBODY, "-o", &capture];
    words.extend(events.iter().flat_map(|event| ["-e", event]));
    nrec(&words)?.expect_code(2)
}

#[test]
fn the_functions_of_libuv_are_those_that_readelf_knows() -> Result<()> {
    let name = "the_functions_of_libuv_are_those_that_readelf_knows";
    let Some(_turn) = take_turn(name, &["node", "readelf"])? else { return Ok(()) };
    let node = require_program("node")?.canonicalize()?;
    check_libuv(&node, name)
}

#[test]
fn the_functions_of_libuv_are_found_in_each_version() -> Result<()> {
    let name = "the_functions_of_libuv_are_found_in_each_version";
    for version in VERSIONS {
        let Some((_turn, node)) = take_turn_with(name, version, &["readelf"])? else {
            return Ok(());
        };
        check_libuv(&node.canonicalize()?, &format!("Node {version}"))?;
    }
    Ok(())
}

fn check_libuv(node: &Path, what: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let workload = Workload::start_with(node, "opens-mixed.js", folder.path(), &[])?;
    let of_process = nrec(&["list", "-p", &workload.pid().to_string(), "--uv"])?.expect_code(0)?;
    let of_file = nrec(&["list", &node.to_string_lossy(), "--uv"])?.expect_code(0)?;
    assert_eq!(of_process.stdout, of_file.stdout, "{what}");
    let listed = of_list(&of_process, node)?;
    let truth = of_libuv(of_readelf(node)?.functions);
    assert!(
        truth.len() > 400 && truth.contains("uv_fs_open"),
        "{what}: readelf has {}",
        truth.len()
    );
    assert_eq!(listed, truth, "{what}");
    // Parsing comes before the process is looked for: all lines are understood, and none is if one
    // is not.
    let lines: Vec<_> = of_process.stdout.lines().collect();
    let parsed = without_target(&lines)?;
    assert!(parsed.stderr.contains("no process"), "{what}: {}", parsed.stderr);
    let broken = format!("{} a=%", lines[0]);
    let refused = without_target(&[&lines[..], &[&broken, "uprobe:node:"]].concat())?;
    assert!(refused.stderr.contains("names no function"), "{what}: {}", refused.stderr);
    tell(&format!("list: {what}: {} functions of libuv, as readelf has them", listed.len()))
}

#[test]
fn all_functions_are_those_that_readelf_knows_or_are_told() -> Result<()> {
    let name = "all_functions_are_those_that_readelf_knows_or_are_told";
    let Some(_turn) = take_turn(name, &["node", "readelf"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let workload = Workload::start("opens-mixed.js", folder.path(), &[])?;
    let outcome = nrec(&["list", "-p", &workload.pid().to_string()])?.expect_code(0)?;
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", workload.pid()))?;
    let libc = maps.split_whitespace().find(|word| word.contains("/libc.so")).context("no libc")?;
    let node = require_program("node")?.canonicalize()?;
    for file in [PathBuf::from(libc), node] {
        let alone = nrec(&["list", &file.to_string_lossy()])?.expect_code(0)?;
        let listed = of_list(&outcome, &file)?;
        assert_eq!(listed, of_list(&alone, &file)?, "{}", file.display());
        let Symbols { functions, indirect, untyped } = of_readelf(&file)?;
        // Some are both: memcpy for programs linked long ago, and the one that is chosen at start.
        let functions: Names = functions.difference(&indirect).cloned().collect();
        let missing: Vec<_> = functions.difference(&listed).collect();
        let invented = listed.difference(&functions).filter(|name| !untyped.contains(*name));
        let invented: Vec<_> = invented.collect();
        assert!(invented.is_empty(), "{}: {invented:?}", file.display());
        // A `lock` prefix, or what is no code: the kernel would refuse. Each is counted.
        let told = |why: &str| -> usize {
            let line = alone.stderr.lines().find(|line| line.contains(why));
            let words = line.and_then(|line| line.strip_prefix("nrec: "));
            words.and_then(|line| line.split(' ').next()?.parse().ok()).unwrap_or(0)
        };
        assert_eq!(missing.len(), told("no instruction there"), "{missing:?}: {}", alone.stderr);
        assert_eq!(indirect.len(), told("IFUNC"), "{}", alone.stderr);
        assert!(missing.len() * 200 < functions.len(), "{missing:?}");
        if file == Path::new(libc) {
            let stripped = alone.stderr.lines().find(|line| line.contains("stripped"));
            assert!(stripped.is_some_and(|line| line.contains(libc)), "{}", alone.stderr);
        }
        let (path, all, left) = (file.display(), listed.len(), missing.len());
        tell(&format!("list: {path}: {all} functions, {left} left out of readelf's"))?;
    }
    Ok(())
}

#[test]
fn a_sample_of_lines_can_be_armed() -> Result<()> {
    const SAMPLE: usize = 12;
    let name = "a_sample_of_lines_can_be_armed";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start("opens-mixed.js", folder.path(), &["--stay"])?;
    let pid = workload.pid().to_string();
    let mut lines = Vec::new();
    for choice in ["--uv", "--functions"] {
        let outcome = nrec(&["list", "-p", &pid, choice])?.expect_code(0)?;
        let all: Vec<_> = outcome.stdout.lines().map(str::to_owned).collect();
        lines.extend(all.iter().step_by(all.len() / SAMPLE).cloned());
    }
    let open = nrec(&["list", "-p", &pid, "--catalogue", "uv_fs_open"])?.expect_code(0)?;
    let open = open.stdout.trim_end().to_owned();
    assert!(open.contains(" path=+0(%dx):ustring"), "{open}");
    lines.push(open.clone());
    lines.sort_unstable();
    lines.dedup();
    assert!(lines.len() > SAMPLE, "{lines:?}");
    let options: Vec<&str> = lines.iter().flat_map(|line| ["-e", line]).collect();
    let recording = Recording::attach(workload.pid(), &options)?;
    workload.go()?;
    let said = workload.finish_and_stay()?;
    let recorded = recording.stop()?;
    let (probe, _arguments) = open.split_once(' ').context("no arguments")?;
    let events = events_of(&recorded.capture(), "probe")?;
    let opened: Names = events
        .iter()
        .filter(|event| event.event == probe)
        .filter_map(|event| event.args["path"].as_str().map(str::to_owned))
        .collect();
    for open in said.iter().filter_map(|record| record.get("open")?.as_str()) {
        // Longer paths arrive empty, other bytes escaped; kernel_opens has those.
        if open.len() < 4096 && open.bytes().all(|byte| byte.is_ascii_graphic()) {
            assert!(opened.contains(open), "{open:?} is not in {opened:?}");
        }
    }
    assert!(left_dynamic_events()?.is_empty());
    tell(&format!("list: {} lines armed at once, {} hits", lines.len(), events.len()))
}

#[test]
fn a_shared_and_stripped_libuv_is_listed() -> Result<()> {
    let name = "a_shared_and_stripped_libuv_is_listed";
    let Some((_turn, node)) = debian_turn(name)? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let script = fixture("workloads").join("opens-mixed.js");
    let words = [script.as_os_str(), folder.path().as_os_str()];
    let mut workload = Workload::start_command(&mut node.command(words))?;
    let outcome = nrec(&["list", "-p", &workload.pid().to_string(), "--uv"])?.expect_code(0)?;
    let listed = of_list(&outcome, &node.libuv())?;
    assert_eq!(listed, of_libuv(of_readelf(&node.libuv())?.functions));
    let stripped = outcome.stderr.lines().find(|line| line.contains("stripped"));
    let is_named = |line: &str| line.contains(&*node.libuv().to_string_lossy());
    assert!(stripped.is_some_and(is_named), "{}", outcome.stderr);
    // What was `objdump -tT node | grep uv_fs`: the program itself has none, and says who may.
    let starter = std::fs::read_link(format!("/proc/{}/exe", workload.pid()))?;
    let starter = nrec(&["list", &starter.to_string_lossy(), "--uv"])?.expect_code(2)?;
    assert!(starter.stdout.is_empty());
    assert!(starter.stderr.contains("libnode.so"), "{}", starter.stderr);
    workload.go()?;
    workload.finish()?;
    Ok(())
}

#[test]
fn a_program_that_was_replaced_is_the_one_that_runs() -> Result<()> {
    let name = "a_program_that_was_replaced_is_the_one_that_runs";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let node = folder.path().canonicalize()?.join("node");
    std::fs::copy(require_program("node")?, &node)?;
    let mut workload = Workload::start_with(&node, "opens-mixed.js", folder.path(), &["--stay"])?;
    std::fs::remove_file(&node)?;
    // Another program takes its place.
    std::fs::copy(require_program("sh")?, &node)?;
    let list = |pid: u32| nrec(&["list", "-p", &pid.to_string(), "uv_fs_open"]);
    let outcome = list(workload.pid())?.expect_code(0)?;
    let line = outcome.stdout.trim_end();
    assert!(line.starts_with(&format!("uprobe:{}:uv_fs_open ", node.display())), "{line}");
    let recording = Recording::attach(workload.pid(), &["-e", line])?;
    workload.go()?;
    workload.finish_and_stay()?;
    let recorded = recording.stop()?.complete()?;
    assert!(events_of(&recorded.capture(), "probe")?.len() > 20);
    Ok(())
}

#[test]
fn nothing_to_list_is_wrong_use() -> Result<()> {
    let name = "nothing_to_list_is_wrong_use";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    for (words, said) in [
        (&["list"][..], "-p PID"),
        (&["list", "-p", NOBODY], "no process"),
        // kthreadd(9), always the second.
        (&["list", "-p", "2"], "thread of the kernel"),
        (&["list", "node", "no_such_*"], "no function fits 'no_such_*'"),
        (&["list", "node", "--uv", "fs_open"], "'*fs_open*'"),
        (&["list", "sh", "--uv"], "no function of libuv"),
        (&["list", "no-such-program"], "PATH"),
        (&["list", "/no/such/file"], "No such file"),
        (&["list", "/etc/passwd"], "not an ELF file"),
        (&["list", "-p", "1", "a", "b"], "only one PATTERN"),
    ] {
        let outcome = nrec(words)?.expect_code(2)?;
        assert!(outcome.stdout.is_empty(), "{words:?}: {}", outcome.stdout);
        let stderr = outcome.stderr.to_lowercase();
        assert!(stderr.contains(&said.to_lowercase()), "{words:?}: {stderr}");
    }
    Ok(())
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() -> Result<()> {
    let name = "a_reader_that_has_seen_enough_is_no_failure";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let mut command = Command::new(binaries::nrec()?);
    command.args(["list", "node"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let mut reader = BufReader::new(child.stdout.take().context("no output")?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    drop(reader);
    let status = wait_for("the end of the list", || Ok(child.try_wait()?))?;
    assert!(first.starts_with("uprobe:") && status.code() == Some(0), "{status}: {first}");
    Ok(())
}
