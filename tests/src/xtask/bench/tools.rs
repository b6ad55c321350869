//! The programs of others that the bench compares with: perf's build-id folder, inferno's two
//! programs, bpftrace. None of them is needed by the product or its tests.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use harness::binaries::find_program;
use tempfile::TempDir;

use crate::steps::{announce, cargo, run_visibly, target_folder};

/// The version that the analyzer draws with, too.
const INFERNO_VERSION: &str = "0.12.8";

/// Where they are.
#[derive(Debug)]
pub(crate) struct Tools {
    /// The release build of nrec and nanalyze.
    release: PathBuf,
    /// Folder of `inferno-collapse-perf` and `inferno-flamegraph`; `None` if they cannot be had.
    pub(crate) inferno: Option<PathBuf>,
    // perf copies each new binary into such a folder; its own is in the user's home.
    build_ids: TempDir,
}

impl Tools {
    /// Finds or installs them.
    pub(crate) fn gather() -> Result<Self> {
        let target = target_folder()?;
        let root = target.join("tools");
        let folder = root.join("bin");
        let mut inferno = Some(folder.clone());
        if !folder.join("inferno-flamegraph").is_file() {
            announce("installing the programs of inferno, once");
            let words = ["install", "inferno", "--version", INFERNO_VERSION, "--locked", "--quiet"];
            if let Err(error) = run_visibly(cargo(&words).arg("--root").arg(&root)) {
                println!("inferno cannot be installed, so perf's pictures are missing: {error:#}");
                inferno = None;
            }
        }
        Ok(Self { release: target.join("release"), inferno, build_ids: tempfile::tempdir()? })
    }

    /// perf, with a build-id folder that goes when the bench ends.
    pub(crate) fn perf(&self, words: &[&str]) -> Command {
        let mut command = Command::new("perf");
        command.arg("--buildid-dir").arg(self.build_ids.path()).args(words);
        command
    }

    /// The recorder.
    pub(crate) fn nrec(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.release.join("nrec"));
        command.args(words);
        command
    }

    /// The analyzer.
    pub(crate) fn nanalyze(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.release.join("nanalyze"));
        command.args(words);
        command
    }

    /// bpftrace, if it is installed.
    pub(crate) fn bpftrace() -> Option<PathBuf> {
        find_program("bpftrace")
    }
}
