//! The tasks of this repository: `cargo xtask NAME`. Without a name: the list.
//!
//! A task is one row of [`TASKS`] and one module.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a task reports on the terminal")]

mod bench;
mod demo;
mod setup;
mod steps;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::{Result, bail};

struct Task {
    name: &'static str,
    help: &'static str,
    run: fn() -> Result<ExitCode>,
}

const TASKS: &[Task] = &[
    Task {
        name: "demo",
        help: "records the fixture application under load, prints the report, draws the flamegraph",
        run: || demo::run().map(success),
    },
    Task {
        name: "test",
        help: "format, lints, tests, tidy, tests on the real kernel; NREC_REQUIRE_KERNEL=1: no skips",
        run: test::run,
    },
    Task {
        name: "bench",
        help: "cost of a recording against perf on the same work; NREC_BENCH_ROUNDS=N: N rounds",
        run: || bench::run().map(success),
    },
    Task {
        name: "bench names",
        help: "the part of it about JavaScript names without flags",
        run: || bench::run_names().map(success),
    },
    Task {
        name: "bench files",
        help: "file operations: a busy server beside strace and bpftrace; 100 000 operations a second",
        run: || bench::run_files().map(success),
    },
    Task {
        name: "bench soak",
        help: "ten minutes under load: memory, losses, names; NREC_SOAK_MINUTES=N: N minutes",
        run: || bench::run_soak().map(success),
    },
    Task {
        name: "setup",
        help: "installs what demo and test need: npm packages, tracefs, strace, perf",
        run: || setup::everything().map(success),
    },
    Task {
        name: "ci",
        help: "test without skips, and the documentation without warnings",
        run: test::run_ci,
    },
    Task {
        name: "tidy",
        help: "the rules of the repository that no compiler checks",
        run: || tidy::run().map(success),
    },
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run_task(&words) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn success((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

fn run_task(words: &[String]) -> Result<ExitCode> {
    let name = words.join(" ");
    if matches!(name.as_str(), "" | "help" | "-h" | "--help") {
        print!("{}", help());
        return Ok(ExitCode::SUCCESS);
    }
    match TASKS.iter().find(|task| task.name == name) {
        Some(task) => (task.run)(),
        None => bail!("there is no task {name:?}\n{}", help()),
    }
}

fn help() -> String {
    let row = |task: &Task| format!("    {:11} {}\n", task.name, task.help);
    format!("cargo xtask TASK\n{}", TASKS.iter().map(row).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_in_the_help_and_an_unknown_one_is_an_error() {
        assert!(TASKS.iter().all(|task| help().contains(task.name)));
        assert!(run_task(&["no-such-task".to_owned()]).is_err());
        assert!(run_task(&[]).is_ok());
    }
}
