//! Bad input gives a clear error or a visible, counted remark: never a panic, never a probe that
//! stays behind.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use harness::kernel::{left_dynamic_events, take_turn};
use harness::recording::{Recorded, Recording, nrec};
use harness::report::{Report, nanalyze};
use harness::truth::{compare, said_opens};
use harness::workload::{Workload, perf_map};
use nix::mount::{MsFlags, mount, umount};

// The kernel's largest possible pid is 2^22, include/linux/threads.h PID_MAX_LIMIT.
const NO_PID: &str = "4194305";

fn record_mixed_opens() -> Result<Recorded> {
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start("opens-mixed.js", folder.path(), &[])?;
    let recording = Recording::attach(workload.pid(), &["-e", "fs"])?;
    workload.go()?;
    workload.finish()?;
    recording.stop()?.complete()
}

// Long enough for several chunks.
fn record_many_opens() -> Result<Recorded> {
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start("open-loop.js", folder.path(), &["count=200000"])?;
    let recording = Recording::attach(workload.pid(), &["-e", "fs"])?;
    workload.go()?;
    workload.finish()?;
    recording.stop()
}

#[test]
fn a_process_that_does_not_exist_is_refused() -> Result<()> {
    let name = "a_process_that_does_not_exist_is_refused";
    let Some(_turn) = take_turn(name, &[])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("capture.nrec").to_string_lossy().into_owned();
    let outcome =
        nrec(&["record", "-p", NO_PID, "-o", &file, "--duration", "1s"])?.expect_code(2)?;
    assert!(outcome.stderr.contains(NO_PID), "{}", outcome.stderr);
    assert!(outcome.stdout.is_empty(), "{}", outcome.stdout);
    assert!(left_dynamic_events()?.is_empty());
    Ok(())
}

#[test]
fn a_function_that_does_not_exist_is_refused() -> Result<()> {
    let name = "a_function_that_does_not_exist_is_refused";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let workload = Workload::start("opens-mixed.js", folder.path(), &[])?;
    let pid = workload.pid().to_string();
    let file = folder.path().join("capture.nrec").to_string_lossy().into_owned();
    let event = "uprobe:node:uv_no_such_function";
    let words = ["record", "-p", &pid, "-e", event, "-o", &file, "--duration", "1s"];
    let outcome = nrec(&words)?.expect_code(2)?;
    assert!(outcome.stderr.contains("uv_no_such_function"), "{}", outcome.stderr);
    assert!(left_dynamic_events()?.is_empty());
    Ok(())
}

#[test]
fn what_is_not_a_capture_is_refused() -> Result<()> {
    let name = "what_is_not_a_capture_is_refused";
    let Some(_turn) = take_turn(name, &[])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let text = folder.path().join("text");
    fs::write(&text, "This is not a capture.\n".repeat(1000))?;
    let empty = folder.path().join("empty");
    fs::write(&empty, "")?;
    let absent = folder.path().join("absent");
    for subcommand in ["report", "events", "info"] {
        for file in [&text, &empty, &absent, &folder.path().to_path_buf()] {
            let outcome = nanalyze(&[subcommand], file)?.expect_code(2)?;
            let named = outcome.stderr.contains(&*file.to_string_lossy());
            assert!(named && outcome.stdout.is_empty(), "{subcommand}: {}", outcome.stderr);
        }
    }
    Ok(())
}

#[test]
fn a_capture_that_is_cut_short_is_read_to_the_cut() -> Result<()> {
    let name = "a_capture_that_is_cut_short_is_read_to_the_cut";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let recorded = record_many_opens()?;
    let whole = fs::read(recorded.capture())?;
    let torn = recorded.capture().with_extension("torn");
    let mut random = Random::default();
    let mut most_events = 0;
    for length in (0..50).map(|_| random.below(whole.len())) {
        fs::write(&torn, &whole[..length])?;
        let outcome = nanalyze(&["report", "--json"], &torn)?;
        assert!(!outcome.stderr.is_empty(), "nothing is said about a cut at {length}");
        // Shorter than the first chunk, which says what is recorded, it is no capture any more.
        if outcome.status.code() == Some(2) {
            assert!(outcome.stdout.is_empty(), "{length}: {}", outcome.stdout);
            continue;
        }
        let report = Report::parse(&outcome.expect_code(1)?.stdout)?;
        assert!(!report.capture.complete, "the first {length} bytes are said to be complete");
        most_events = most_events.max(report.capture.events);
    }
    assert!(most_events > 0, "no cut left anything");
    Ok(())
}

// xorshift64 (Marsaglia, Xorshift RNGs, 2003), always from the same seed: a failure comes back.
struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or(0) % limit
    }
}

#[test]
fn a_capture_with_flipped_bits_does_no_harm() -> Result<()> {
    let name = "a_capture_with_flipped_bits_does_no_harm";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let recorded = record_mixed_opens()?;
    let whole = fs::read(recorded.capture())?;
    let flipped = recorded.capture().with_extension("flipped");
    let mut random = Random::default();
    for _ in 0..50 {
        let mut bytes = whole.clone();
        let at = random.below(whole.len());
        bytes[at] ^= 1 << random.below(8);
        fs::write(&flipped, &bytes)?;
        let outcome = nanalyze(&["report", "--json"], &flipped)?;
        let code = outcome.status.code();
        assert!(matches!(code, Some(1 | 2)), "a flipped bit at {at} gives {code:?}");
    }
    Ok(())
}

fn check_refused_map(change: impl Fn(&Path) -> Result<()>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start_mapped("error-stack.js", folder.path(), &["rounds=1"])?;
    let map = perf_map(u64::from(workload.pid()));
    change(&map)?;
    let recording = Recording::attach(workload.pid(), &["-e", "fs", "--js=map"])?;
    workload.go()?;
    workload.finish()?;
    let recorded = recording.stop()?;
    let outcome = nanalyze(&["report", "--json"], &recorded.capture())?;
    let report = Report::parse(&outcome.stdout)?;
    assert_eq!(report.stacks.js_frames.named, 0, "names were taken from somebody else's file");
    let reasons = &report.stacks.unresolved;
    assert!(reasons.iter().any(|entry| entry.reason.contains("map")), "{reasons:?}");
    assert!(recorded.outcome.stderr.contains("map"), "{}", recorded.outcome.stderr);
    Ok(())
}

#[test]
fn a_map_that_is_a_symlink_is_not_followed() -> Result<()> {
    let name = "a_map_that_is_a_symlink_is_not_followed";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let elsewhere = tempfile::tempdir()?;
    let target = elsewhere.path().join("map");
    check_refused_map(|map| {
        fs::rename(map, &target).or_else(|_| fs::copy(map, &target).map(drop))?;
        drop(fs::remove_file(map));
        symlink(&target, map).context("cannot make the symlink")
    })
}

#[test]
fn a_map_of_another_owner_is_not_read() -> Result<()> {
    let name = "a_map_of_another_owner_is_not_read";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    // Any user but the target's: 65534 is nobody.
    check_refused_map(|map| chown(map, Some(65534), None).context("cannot change the owner"))
}

// V8 itself cuts names at 4 KiB (kUtf8BufferSize in src/logging/log.cc); others may write this file.
#[test]
fn long_and_broken_lines_of_a_map_are_counted() -> Result<()> {
    let name = "long_and_broken_lines_of_a_map_are_counted";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start_mapped("error-stack.js", folder.path(), &["rounds=1"])?;
    let map = perf_map(u64::from(workload.pid()));
    let lines = format!("1000 10 JS:~{} a.js:1:1\nno line of a map\n", "n".repeat(1 << 20));
    fs::OpenOptions::new().append(true).open(&map)?.write_all(lines.as_bytes())?;
    let recording = Recording::attach(workload.pid(), &["-e", "fs"])?;
    workload.go()?;
    workload.finish()?;
    let report = Report::of(&recording.stop()?.complete()?.capture())?;
    let counted = report.remarks.iter().find(|remark| remark.code == "jit-bad-lines");
    assert!(counted.is_some_and(|remark| remark.count >= 2), "{:?}", report.remarks);
    Ok(())
}

struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(place: &Path, size: &str) -> Result<Self> {
        let options = format!("size={size}");
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("tmpfs"), place, Some("tmpfs"), flags, Some(options.as_str()))
            .context("cannot mount a small tmpfs")?;
        Ok(Self(place.to_path_buf()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        umount(&self.0).ok();
    }
}

#[test]
fn a_full_disk_ends_the_file_and_not_the_target() -> Result<()> {
    let name = "a_full_disk_ends_the_file_and_not_the_target";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let place = tempfile::tempdir()?;
    let _disk = SmallDisk::mount(place.path(), "64k")?;
    let capture = place.path().join("capture.nrec");
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start("open-loop.js", folder.path(), &["count=300000"])?;
    let recording = Recording::attach_to_file(workload.pid(), &["-e", "fs"], &capture)?;
    workload.go()?;
    workload.finish()?;
    let outcome = recording.stop()?.outcome;
    assert!(matches!(outcome.status.code(), Some(1 | 2)), "{}", outcome.status);
    assert!(outcome.stderr.to_lowercase().contains("space"), "{}", outcome.stderr);
    assert!(left_dynamic_events()?.is_empty());
    let outcome = nanalyze(&["report", "--json"], &capture)?.expect_code(1)?;
    assert!(!Report::parse(&outcome.stdout)?.capture.complete);
    Ok(())
}

#[test]
fn hostile_names_reach_no_terminal_and_no_browser() -> Result<()> {
    let name = "hostile_names_reach_no_terminal_and_no_browser";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut workload = Workload::start("hostile-names.js", folder.path(), &[])?;
    let recording = Recording::attach(workload.pid(), &["-e", "fs"])?;
    workload.go()?;
    let said = workload.finish()?;
    let recorded = recording.stop()?;
    let truth = said_opens(&said);
    let report = Report::of(&recorded.capture())?;
    compare("the report", &truth, &report.open_counts_below(folder.path()))?;
    let svg = recorded.capture().with_extension("svg").to_string_lossy().into_owned();
    let questions: [&[&str]; 5] = [
        &["report"],
        &["report", "--json"],
        &["events", "--stacks"],
        &["info"],
        &["flamegraph", "-e", "fs", "-o", &svg],
    ];
    for words in questions {
        let outcome = nanalyze(words, &recorded.capture())?;
        check_harmless(&format!("{words:?}"), &outcome.stdout);
        check_harmless(&format!("{words:?}, stderr"), &outcome.stderr);
    }
    let svg = fs::read_to_string(&svg)?;
    check_harmless("the flamegraph", &svg.replace('\t', " "));
    assert!(!svg.contains("<script>alert(1)"), "a name became markup");
    assert!(svg.len() < 1 << 20, "the flamegraph has {} bytes", svg.len());
    Ok(())
}

// Control characters move the cursor or change colours; U+202A..U+202E and U+2066..U+2069 reverse
// the reading order (Unicode Standard Annex 9).
fn check_harmless(what: &str, text: &str) {
    let harmful = |c: &char| {
        (c.is_control() && *c != '\n')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let found = text.chars().find(harmful);
    assert!(found.is_none(), "{what} contains {found:?}");
    assert!(!text.contains("\n7f0000000000 10 JS:~forged"), "{what}: a line was forged");
}
