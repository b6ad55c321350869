//! Everything that must hold before a change is good, with one line of counts at the end.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};
use harness::binaries::BINARY_FOLDER_VARIABLE;
use harness::kernel::{REQUIRE_VARIABLE, SKIP_LOG_VARIABLE};

use crate::steps::{announce, cargo, run_visibly, target_folder};
use crate::{setup, tidy};

/// What has been checked.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    // Format, lints and the like count as one check each.
    fn add_check(&mut self, what: &str, result: Result<()>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(error) => {
                println!("FAILED {what}: {error:#}");
                self.failed += 1;
            }
        }
    }
}

/// `cargo xtask test`.
pub(crate) fn run() -> Result<ExitCode> {
    Ok(finish(check_all(&[])?))
}

/// `cargo xtask ci`.
pub(crate) fn run_ci() -> Result<ExitCode> {
    let mut counts = check_all(&[(REQUIRE_VARIABLE, "1")])?;
    announce("cargo doc");
    let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--quiet"]);
    counts.add_check("documentation", run_visibly(doc.env("RUSTDOCFLAGS", "-D warnings")));
    Ok(finish(counts))
}

// The last line of the output is the one with the counts: nothing is printed after it.
fn finish(counts: Counts) -> ExitCode {
    let Counts { passed, failed, skipped } = counts;
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    ExitCode::from(u8::from(failed > 0))
}

fn check_all(environment: &[(&str, &str)]) -> Result<Counts> {
    let mut counts = Counts::default();
    announce("setup");
    counts.add_check("setup", setup::everything());
    announce("cargo fmt");
    counts.add_check("format", run_visibly(&mut cargo(&["fmt", "--all", "--check"])));
    announce("cargo clippy");
    let words = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
    counts.add_check("lints", run_visibly(&mut cargo(&words)));
    announce("tidy");
    counts.add_check("tidy", tidy::run());
    announce("cargo build --release");
    let words = ["build", "--release", "--quiet", "-p", "recorder", "-p", "analyzer", "--bins"];
    let words = [&words[..], &["--example", "v8_truth"]].concat();
    counts.add_check("build", run_visibly(&mut cargo(&words)));
    announce("tests without the kernel");
    let pure = ["test", "--quiet", "--no-fail-fast", "-p", "formats", "-p", "recorder"];
    let pure = [&pure[..], &["-p", "analyzer"]].concat();
    counts.add(run_tests(cargo(&pure).envs(environment.iter().copied()))?);
    let own = ["test", "--quiet", "--no-fail-fast", "-p", "tests", "--lib", "--bins"];
    counts.add(run_tests(cargo(&own).envs(environment.iter().copied()))?);
    announce("tests on the kernel, of the binaries as they are released");
    let kernel = ["test", "--no-fail-fast", "-p", "tests", "--test", "*", "--", "--test-threads=1"];
    let mut kernel = cargo(&kernel);
    kernel.env(BINARY_FOLDER_VARIABLE, target_folder()?.join("release"));
    counts.add(run_tests(kernel.envs(environment.iter().copied()))?);
    Ok(counts)
}

// libtest knows no "skipped": such a test returns at once and writes a line to the log of skips.
fn run_tests(command: &mut Command) -> Result<Counts> {
    let log = tempfile::NamedTempFile::new().context("cannot make the log of skips")?;
    command.env(SKIP_LOG_VARIABLE, log.path()).stdout(Stdio::piped());
    // The message says enough; the frames are those of the harness.
    command.env("RUST_LIB_BACKTRACE", "0");
    let mut child = command.spawn().context("cannot start cargo")?;
    let stdout = child.stdout.take().context("cargo has no standard output")?;
    let mut counts = Counts::default();
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        println!("{line}");
        counts.add(parse_result_line(&line).unwrap_or_default());
    }
    let status = child.wait()?;
    if !status.success() && counts.failed == 0 {
        // It did not compile, or a test ended the whole process.
        counts.failed += 1;
    }
    let skipped = std::fs::read_to_string(log.path())?.lines().count();
    let skipped = u64::try_from(skipped)?;
    if skipped > counts.passed {
        bail!("{skipped} tests were skipped but only {} ran", counts.passed);
    }
    counts.passed -= skipped;
    counts.skipped += skipped;
    Ok(counts)
}

// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`
fn parse_result_line(line: &str) -> Option<Counts> {
    let rest = line.strip_prefix("test result: ")?;
    let (_, numbers) = rest.split_once(". ")?;
    let number = |name: &str| {
        let part = numbers.split("; ").find_map(|part| part.strip_suffix(name))?;
        part.trim().parse().ok()
    };
    Some(Counts {
        passed: number("passed")?,
        failed: number("failed")?,
        skipped: number("ignored")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_of_libtest() {
        let line = "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; \
                    finished in 0.00s";
        assert_eq!(parse_result_line(line), Some(Counts { passed: 3, failed: 2, skipped: 1 }));
        assert_eq!(parse_result_line("test a::b ... ok"), None);
    }

    fn run_script(script: &str) -> Counts {
        run_tests(Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn a_skip_is_not_a_pass_and_a_crash_is_a_failure() {
        let ok =
            "echo 'test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out'";
        let skip = format!("echo 'SKIPPED x: not root' >> $NREC_SKIP_LOG; {ok}");
        assert_eq!(run_script(&skip), Counts { passed: 2, failed: 0, skipped: 1 });
        let crash = format!("{ok}; exit 101");
        assert_eq!(run_script(&crash), Counts { passed: 3, failed: 1, skipped: 0 });
    }
}
