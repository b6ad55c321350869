//! Running cargo and other programs in the repository, visibly.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use harness::binaries::repository;
use serde_json::Value;

/// Cargo, as the one that runs this task.
pub(crate) fn cargo(words: &[&str]) -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(words).current_dir(repository()).stdin(Stdio::null());
    command
}

/// Says what runs.
pub(crate) fn announce(what: &str) {
    println!("== {what}");
}

/// Runs a program with its output on the terminal; any failure is an error.
pub(crate) fn run_visibly(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        bail!("`{name} {}` ended with {status}", words.join(" "));
    }
    Ok(())
}

/// What `cargo metadata` says about the workspace, without the dependencies from elsewhere.
pub(crate) fn workspace_metadata() -> Result<Value> {
    let words = ["metadata", "--format-version=1", "--no-deps"];
    let output = cargo(&words).stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("`cargo metadata` ended with {}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("`cargo metadata` did not print JSON")
}

/// The workspace's target folder, wherever the environment or a configuration puts it.
pub(crate) fn target_folder() -> Result<PathBuf> {
    let metadata = workspace_metadata()?;
    let folder = metadata.get("target_directory").and_then(Value::as_str);
    Ok(PathBuf::from(folder.context("`cargo metadata` names no target folder")?))
}
