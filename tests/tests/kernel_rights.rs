//! What an ordinary user may record, what doctor says about it and about targets, and the memory
//! that a recording takes.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::binaries;
use harness::command::{Outcome, Running, run};
use harness::kernel::{left_dynamic_events, take_turn, tell};
use harness::recording::{Recording, nrec};
use harness::report::Report;
use harness::workload::Workload;
use nix::sys::resource::{Resource, getrlimit};
use tempfile::TempDir;

/// nobody, a user without any right (Debian Policy 9.2.2).
const NOBODY: u32 = 65534;

/// A folder of nobody's with the recorder in it: the build folder may be closed to others.
struct OrdinaryUser {
    folder: TempDir,
}

impl OrdinaryUser {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::copy(binaries::nrec()?, folder.path().join("nrec"))?;
        chown(folder.path(), Some(NOBODY), Some(NOBODY))?;
        Ok(Self { folder })
    }

    fn capture(&self) -> PathBuf {
        self.folder.path().join("capture.nrec")
    }

    fn nrec(&self, words: &[&str]) -> Result<Outcome> {
        let id = NOBODY.to_string();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
        command.arg(self.folder.path().join("nrec")).args(words).current_dir(self.folder.path());
        run(&mut command)?.expect_no_crash()
    }
}

#[test]
fn an_ordinary_user_is_told_what_is_not_permitted_and_what_helps() -> Result<()> {
    let name = "an_ordinary_user_is_told_what_is_not_permitted_and_what_helps";
    let Some(_turn) = take_turn(name, &["node", "setpriv"])? else { return Ok(()) };
    let user = OrdinaryUser::new()?;
    let roots = Running::start(Command::new("sleep").arg("1000"))?;
    let pid = roots.pid().to_string();
    for (what, words) in [
        ("root's process", &["record", "-e", "cpu", "-p", &pid, "--duration", "1s"][..]),
        ("root's process, by default", &["record", "-p", &pid, "--duration", "1s"]),
        ("probes on its own", &["record", "-e", "fs", "--", "node", "-e", "0"]),
        ("clean", &["clean"]),
    ] {
        let outcome = user.nrec(words)?.expect_code(2).context(what)?;
        let text = &outcome.stderr;
        assert!(text.contains("denied") || text.contains("not permitted"), "{what}: {text}");
        assert!(text.contains("what helps: ") && text.contains("root"), "{what}: {text}");
        assert!(!user.capture().exists(), "{what} left a capture");
        // What helps an ordinary user, and not what would help root.
        if text.contains("tracefs is") {
            assert!(text.contains("-e cpu works") && !text.contains("lockdown"), "{what}: {text}");
        }
    }
    assert!(left_dynamic_events()?.is_empty());
    Ok(())
}

#[test]
fn an_ordinary_user_may_sample_its_own_process() -> Result<()> {
    let name = "an_ordinary_user_may_sample_its_own_process";
    let Some(_turn) = take_turn(name, &["node", "setpriv"])? else { return Ok(()) };
    let user = OrdinaryUser::new()?;
    let busy = "function spin() { while (process.cpuUsage().user < 400_000); } spin()";
    let outcome = user.nrec(&["record", "-e", "cpu", "--", "node", "-e", busy])?;
    let level = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid")?;
    // 3 and 4 are patches of distributions: nobody may use perf events there.
    if level.trim().parse::<i32>()? > 2 {
        let outcome = outcome.expect_code(2)?;
        assert!(outcome.stderr.contains("what helps: "), "{}", outcome.stderr);
        return Ok(());
    }
    let outcome = outcome.expect_code(0)?;
    let report = Report::of(&user.capture())?;
    assert!(report.capture.events > 10, "{:?}", report.capture);
    let remarked = report.remarks.iter().any(|remark| remark.code == "small-rings");
    let said = outcome.stderr.contains("KiB of rings here");
    assert!(said == remarked, "said {said}, remarked {remarked}: {}", outcome.stderr);
    // The default of kernel.perf_event_mlock_kb is 516, a page and 512 KiB a CPU; a ring of copied
    // stacks has 2 MiB and more on any machine.
    let allowed = fs::read_to_string("/proc/sys/kernel/perf_event_mlock_kb")?;
    let locked = getrlimit(Resource::RLIMIT_MEMLOCK)?.0;
    let may_lock_little = allowed.trim().parse::<u64>()? <= 516 && locked <= 8 << 20;
    assert!(said || !may_lock_little || level.trim() == "-1", "{}", outcome.stderr);
    tell(&format!("nobody: small rings {said}"))
}

// In a mount namespace without tracefs; `before` are the words before the recorder's.
fn record_without_tracefs(pid: u32, before: &str, capture: &Path) -> Result<Outcome> {
    let script = format!(
        "umount -l /sys/kernel/debug/tracing 2>/dev/null
        umount -l /sys/kernel/tracing || exit 99
        exec {before} \"$0\" record -e fs -p {pid} --duration 200ms -o \"$1\""
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).arg(binaries::nrec()?).arg(capture);
    run(&mut command)?.expect_no_crash()
}

#[test]
fn tracefs_that_is_missing_is_mounted_or_asked_for() -> Result<()> {
    let name = "tracefs_that_is_missing_is_mounted_or_asked_for";
    let programs = ["node", "setpriv", "unshare", "umount"];
    let Some(_turn) = take_turn(name, &programs)? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let workload = Workload::start("opens-mixed.js", folder.path(), &[])?;
    let capture = folder.path().join("capture.nrec");
    record_without_tracefs(workload.pid(), "", &capture)?.expect_code(0)?;
    assert!(Report::of(&capture)?.capture.complete);

    let other = folder.path().join("other.nrec");
    let may_not_mount = "setpriv --bounding-set -sys_admin --inh-caps -sys_admin";
    let outcome = record_without_tracefs(workload.pid(), may_not_mount, &other)?.expect_code(2)?;
    let text = &outcome.stderr;
    assert!(text.contains("tracefs") && text.contains("what helps: "), "{text}");
    assert!(!other.exists());
    assert!(left_dynamic_events()?.is_empty());
    Ok(())
}

fn doctor(pid: u32) -> Result<String> {
    Ok(nrec(&["doctor", "-p", &pid.to_string()])?.expect_code(0)?.stdout)
}

fn check_says(text: &str, parts: &[&str]) {
    // The page is folded to its width.
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in parts {
        assert!(flat.contains(part), "no {part:?} in:\n{text}");
    }
}

#[test]
fn doctor_says_which_frames_will_have_names() -> Result<()> {
    let name = "doctor_says_which_frames_will_have_names";
    let Some(_turn) = take_turn(name, &["node", "setpriv"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let script = binaries::fixture("workloads/error-stack.js");
    let plain = |options: &str| -> Result<Workload> {
        let mut command = Command::new("node");
        command.arg(&script).arg(folder.path()).env("NODE_OPTIONS", options);
        Workload::start_command(&mut command)
    };
    let version = run(Command::new("node").arg("--version"))?.stdout;
    let version = format!("Node {}", version.trim().trim_start_matches('v'));

    let target = plain("")?;
    let by_heap = "all frames will have function, file and the line that runs";
    check_says(&doctor(target.pid())?, &[&version, "uv_fs_open", by_heap]);
    // What is said without the right to read memory.
    let mut limited = Command::new("setpriv");
    limited.args(["--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"]);
    limited.arg(binaries::nrec()?).args(["doctor", "-p", &target.pid().to_string()]);
    let text = run(&mut limited)?.expect_no_crash()?.stdout;
    check_says(&text, &[&version, "no frame will have a name", "cannot read memory"]);

    let target = plain("--perf-basic-prof --interpreted-frames-native-stack")?;
    let map = format!("/tmp/perf-{}.map", target.pid());
    check_says(
        &doctor(target.pid())?,
        &[&version, &map, "all frames will have names, from the perf map"],
    );

    let target = Running::start(Command::new("sleep").arg("1000"))?;
    check_says(&doctor(target.pid())?, &["not Node", "no libuv"]);

    // Above the kernel's PID_MAX_LIMIT, include/linux/threads.h.
    let outcome = nrec(&["doctor", "-p", "4194305"])?.expect_code(1)?;
    check_says(&outcome.stdout, &["no process 4194305"]);
    Ok(())
}

/// Anonymous memory in KiB: the rings are shared memory and count as RssShmem.
fn own_memory(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.context("the kernel does not say RssAnon")
}

#[test]
fn the_memory_of_a_recording_is_bounded_and_does_not_grow() -> Result<()> {
    const LIMIT_KIB: u64 = 64 << 10;
    const SECONDS: usize = 12;
    let name = "the_memory_of_a_recording_is_bounded_and_does_not_grow";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start("open-loop.js", folder.path(), &["count=1000000000"])?;
    let options = ["-e", "fs", "-e", "cpu", "-F", "999"];
    let recording = Recording::attach(workload.pid(), &options)?;
    workload.go()?;
    let mut seen = Vec::new();
    for _ in 0..SECONDS {
        std::thread::sleep(Duration::from_secs(1));
        seen.push(own_memory(recording.pid())?);
    }
    let recorded = recording.stop()?;
    // At this rate some may be lost: that is said, and not what is tested here.
    assert!(matches!(recorded.outcome.status.code(), Some(0 | 1)), "{:?}", recorded.outcome);
    assert!(samples_of(&recorded.capture())? > 100_000, "too few samples to prove anything");
    let (first, last) = (&seen[SECONDS / 3..SECONDS * 2 / 3], &seen[SECONDS * 2 / 3..]);
    let most = |part: &[u64]| part.iter().copied().max().unwrap_or_default();
    assert!(most(&seen) < LIMIT_KIB, "anonymous memory by second, KiB: {seen:?}");
    assert!(most(last) <= most(first) * 5 / 4, "it grows, KiB by second: {seen:?}");
    Ok(())
}

fn samples_of(capture: &Path) -> Result<u64> {
    let outcome = harness::report::nanalyze(&["report", "--json"], capture)?;
    Ok(Report::parse(&outcome.stdout)?.capture.events)
}
