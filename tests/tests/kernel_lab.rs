//! docs/lab.md: its commands are run as they stand there, on the application that it tells of, and
//! what they print has the shape of what it shows.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use harness::binaries::{self, fixture, repository};
use harness::command::{Outcome, Running, run, wait_for};
use harness::http::get;
use harness::kernel::{skip, take_turn};
use harness::transcript::{Step, steps};
use harness::workload::Workload;

/// Where the application lies in the document.
const DOCUMENT_FOLDER: &str = "/srv/lab";
/// Requests of the document's reader while it records.
const REQUESTS: usize = 3;
/// A screen of an 80 x 25 terminal.
const SCREEN_LINES: usize = 25;

/// `curl localhost:3000/about`.
fn path_of(words: &[&str]) -> Result<String> {
    let url = words.iter().find(|word| word.contains("localhost")).context("no URL")?;
    Ok(url.rsplit_once('/').map_or("/".to_owned(), |(_, path)| format!("/{path}")))
}

/// The command of the document, with our binaries, this process and a shorter sleep.
fn command(words: &[&str], pid: u32, folder: &Path) -> Result<Command> {
    let (program, words) = words.split_first().context("no command")?;
    let mut command = Command::new(match *program {
        "nrec" => binaries::nrec()?,
        "nanalyze" => binaries::nanalyze()?,
        other => bail!("the document runs {other}, which the test does not know"),
    });
    let mut before = "";
    for word in words {
        match before {
            "-p" => command.arg(pid.to_string()),
            "sleep" => command.arg("2"),
            _ => command.arg(word),
        };
        before = word;
    }
    command.current_dir(folder);
    Ok(command)
}

/// Runs a recorder, and sends the requests when it has armed: it starts the command then.
fn record(command: &mut Command, port: u16) -> Result<Outcome> {
    let mut running = Running::start(command)?;
    let children = format!("/proc/{0}/task/{0}/children", running.pid());
    wait_for("the recorder to arm its probes", || {
        if !running.is_running()? {
            bail!("the recorder ended early: {}", running.messages()?);
        }
        let children = fs::read_to_string(&children).unwrap_or_default();
        let is_sleep = |pid: &str| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "sleep\n")
        };
        Ok(children.split_whitespace().any(is_sleep).then_some(()))
    })?;
    for _ in 0..REQUESTS {
        get(port, "/about")?;
    }
    get(port, "/")?;
    running.finish()
}

/// What was printed, with the names that things have in the document.
fn printed(outcome: &Outcome) -> Result<String> {
    let text = outcome.stdout.clone() + &outcome.stderr;
    let (node, lab) = (binaries::require_program("node")?, fixture("lab"));
    let command_line = format!("{} {}", node.display(), lab.join("server.js").display());
    let text = text.replace(&command_line, "node server.js");
    Ok(text.replace(&*lab.to_string_lossy(), DOCUMENT_FOLDER))
}

/// The first screen names the file, the error and the line, which is the point of the whole.
fn check_first_screen(step: &Step, printed: &str) {
    let screen: Vec<&str> = printed.lines().take(SCREEN_LINES).collect();
    let has =
        |words: &[&str]| screen.iter().any(|line| words.iter().all(|word| line.contains(word)));
    let failure = has(&["/etc/app.conf", "ENOENT 3"]);
    let line = has(&["loadConfig", "lib/config.js:9:"]);
    assert!(failure && line, "the first screen of `{}`:\n{}", step.command, screen.join("\n"));
}

#[test]
fn the_lab_goes_as_its_document_says() -> Result<()> {
    let name = "the_lab_goes_as_its_document_says";
    let Some(_turn) = take_turn(name, &["node"])? else { return Ok(()) };
    if !fixture("lab/node_modules").exists() {
        let reason = anyhow::anyhow!("fixtures/lab has no packages: run `cargo xtask setup`");
        return skip(name, &reason);
    }
    let folder = tempfile::tempdir()?;
    let (server, port) = Workload::start_server(&fixture("lab/server.js"), &[])?;
    let document = fs::read_to_string(repository().join("docs/lab.md"))?;
    let mut reports = 0;
    for step in steps(&document) {
        let words: Vec<&str> = step.command.split_whitespace().collect();
        let output = match words.as_slice() {
            // Runs already.
            ["node", ..] => continue,
            ["curl", rest @ ..] => get(port, &path_of(rest)?)?,
            [program, subcommand, ..] => {
                let mut command = command(&words, server.pid(), folder.path())?;
                let outcome = match (*program, *subcommand) {
                    ("nrec", "record" | "watch") => record(&mut command, port)?,
                    _ => run(&mut command)?,
                };
                let printed = printed(&outcome.expect_no_crash()?.expect_code(0)?)?;
                if words.contains(&"report") {
                    check_first_screen(&step, &printed);
                    reports += 1;
                }
                printed
            }
            _ => bail!("what is `{}`?", step.command),
        };
        step.compare(&output)?;
    }
    assert!(reports > 0, "the document shows no report");
    let flames = fs::read_to_string(folder.path().join("flame.svg"))?;
    assert!(flames.contains("app.conf") && flames.contains("loadConfig"));
    Ok(())
}
