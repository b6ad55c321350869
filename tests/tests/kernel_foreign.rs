//! Targets that are not as one would build them: stripped, with a shared libuv, in a container.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use harness::binaries::{fixture, require_program};
use harness::command::run;
use harness::events::file_events;
use harness::foreign::{DebianNode, debian_turn};
use harness::kernel::take_turn;
use harness::recording::{Recorded, Recording, record_command};
use harness::report::Report;
use harness::truth::{Opens, compare, is_below, said_opens};
use harness::workload::{PERF_FLAGS, Workload, perf_map};

// Every open in the report, and on the stack of each with `part` in its path a function of `script` with its line.
fn check(
    recorded: &Recorded,
    folder: &Path,
    part: &str,
    truth: &Opens,
    script: &str,
) -> Result<()> {
    let report = Report::of(&recorded.capture())?;
    compare("the report", truth, &report.open_counts_below(folder))?;
    for event in file_events(&recorded.capture())? {
        if !event.open().is_some_and(|open| is_below(&open, folder) && open.path.contains(part)) {
            continue;
        }
        let named = event.frames.iter().any(|frame| {
            let is_file = frame.file.as_deref().is_some_and(|file| file.ends_with(script));
            is_file && frame.kind == "js" && frame.function.is_some() && frame.line.is_some()
        });
        assert!(
            named,
            "no function of {script} on the stack of {:?}: {:#?}",
            event.args, event.frames
        );
    }
    Ok(())
}

#[test]
fn a_stripped_node_is_recorded_by_its_exported_functions() -> Result<()> {
    let name = "a_stripped_node_is_recorded_by_its_exported_functions";
    let Some(_turn) = take_turn(name, &["node", "strip"])? else { return Ok(()) };
    let place = tempfile::tempdir()?;
    let node = place.path().join("node");
    let mut strip = Command::new("strip");
    run(strip.arg("-o").arg(&node).arg(require_program("node")?))?.expect_code(0)?;
    fs::set_permissions(&node, fs::Permissions::from_mode(0o755))?;
    let files = place.path().join("files");
    fs::create_dir(&files)?;
    let mut workload = Workload::start_with(&node, "opens-mixed.js", &files, &["--stay"])?;
    let recording = Recording::attach(workload.pid(), &["-e", "fs"])?;
    workload.go()?;
    let said = workload.finish_and_stay()?;
    let recorded = recording.stop()?.complete()?;
    check(&recorded, &files, "", &said_opens(&said), "opens-mixed.js")?;

    // What is not exported cannot be probed, and the message says what would help.
    let workload = Workload::start_with(&node, "open-loop.js", &files, &[])?;
    let refused = Recording::attach(workload.pid(), &["-e", "uprobe:node:uv__fs_work"]);
    let text = refused.err().map(|error| format!("{error:#}")).context("it was accepted")?;
    assert!(text.contains("stripped") && text.contains("symbols"), "{text}");
    Ok(())
}

fn words(flags: &[&str], script: &str, folder: &Path, more: &[&str]) -> Vec<std::ffi::OsString> {
    let mut words: Vec<std::ffi::OsString> = flags.iter().map(Into::into).collect();
    words.push(fixture("workloads").join(script).into());
    words.push(folder.into());
    words.extend(more.iter().map(Into::into));
    words
}

#[test]
fn a_shared_and_stripped_libuv_is_found_in_a_running_process() -> Result<()> {
    let name = "a_shared_and_stripped_libuv_is_found_in_a_running_process";
    let Some((_turn, node)) = debian_turn(name)? else { return Ok(()) };
    check_running(&node, &[])
}

#[test]
fn a_perf_map_names_the_functions_of_a_node_with_shared_libraries() -> Result<()> {
    let name = "a_perf_map_names_the_functions_of_a_node_with_shared_libraries";
    let Some((_turn, node)) = debian_turn(name)? else { return Ok(()) };
    check_running(&node, &PERF_FLAGS)
}

fn check_running(node: &DebianNode, flags: &[&str]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut command = node.command(words(flags, "opens-mixed.js", folder.path(), &["--stay"]));
    let mut workload = Workload::start_command(&mut command)?;
    let maps = fs::read_to_string(format!("/proc/{}/maps", workload.pid()))?;
    assert!(maps.contains(&*node.libuv().to_string_lossy()), "another libuv is mapped: {maps}");
    let recording = Recording::attach(workload.pid(), &["-e", "fs"])?;
    workload.go()?;
    let said = workload.finish_and_stay()?;
    let recorded = recording.stop()?.complete()?;
    check(&recorded, folder.path(), "", &said_opens(&said), "opens-mixed.js")
}

#[test]
fn a_shared_and_stripped_libuv_is_found_when_it_is_loaded() -> Result<()> {
    let name = "a_shared_and_stripped_libuv_is_found_when_it_is_loaded";
    let Some((_turn, node)) = debian_turn(name)? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let command = node.command(words(&[], "children.js", folder.path(), &["--now"]));
    let (recorded, said) = record_command(&["-e", "fs"], &command)?;
    check(&recorded.complete()?, folder.path(), "parent-", &said_opens(&said), "children.js")
}

#[test]
fn a_perf_map_that_begins_while_recording_is_read() -> Result<()> {
    let name = "a_perf_map_that_begins_while_recording_is_read";
    let Some((_turn, node)) = debian_turn(name)? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    // Not the workload with worker threads: in Node 18 each of them begins the perf map anew. The
    // children that a shell starts have no flags, hence no names.
    let command = node.command(words(&PERF_FLAGS, "children.js", folder.path(), &["--now"]));
    let (recorded, said) = record_command(&["-e", "fs", "--js=map"], &command)?;
    check(&recorded.complete()?, folder.path(), "parent-", &said_opens(&said), "children.js")
}

// A root, a /tmp and process ids of its own. chroot instead of pivot_root: the same to an observer.
const CONTAINER: &str = r#"set -e
root=$0 node=$1 workloads=$2; shift 2
for folder in usr workloads tmp proc dev; do mkdir -p "$root/$folder"; done
for link in bin lib lib64 sbin; do
    if [ -L "/$link" ]; then ln -s "usr/$link" "$root/$link"; else mkdir "$root/$link"; mount --bind "/$link" "$root/$link"; fi
done
mount --bind /usr "$root/usr"
mount --bind "$workloads" "$root/workloads"
mount --bind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mkdir "$root/tmp/files"
: > "$root/node"
mount --bind "$node" "$root/node"
exec chroot "$root" /node "$@""#;

#[test]
fn a_process_in_a_container_is_recorded_from_outside() -> Result<()> {
    let name = "a_process_in_a_container_is_recorded_from_outside";
    let Some(_turn) = take_turn(name, &["node", "unshare", "chroot"])? else { return Ok(()) };
    check_container(&[])
}

#[test]
fn the_perf_map_of_a_container_is_read_from_outside() -> Result<()> {
    let name = "the_perf_map_of_a_container_is_read_from_outside";
    let Some(_turn) = take_turn(name, &["node", "unshare", "chroot"])? else { return Ok(()) };
    check_container(&PERF_FLAGS)
}

fn check_container(flags: &[&str]) -> Result<()> {
    let root = tempfile::tempdir()?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", CONTAINER]);
    command.arg(root.path()).arg(fs::canonicalize(require_program("node")?)?);
    command.arg(fixture("workloads")).args(flags);
    command.args(["/workloads/opens-mixed.js", "/tmp/files", "--stay"]);
    let mut workload = Workload::start_command(&mut command)?;
    let pid = workload.node_pid()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let inner = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let inner: u64 =
        inner.and_then(|ids| ids.split_whitespace().last()?.parse().ok()).context("no NSpid")?;
    assert_ne!(u64::from(pid), inner, "it has no process ids of its own");
    // A perf map is in the container's /tmp or nowhere.
    assert!(!perf_map(u64::from(pid)).exists() && !perf_map(inner).exists());
    let recording = Recording::attach(pid, &["-e", "fs"])?;
    workload.go()?;
    let said = workload.finish_and_stay()?;
    let recorded = recording.stop()?.complete()?;
    check(&recorded, Path::new("/tmp/files"), "", &said_opens(&said), "opens-mixed.js")
}
