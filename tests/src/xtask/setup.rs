//! Brings a fresh machine to where `demo` and `test` can run. Says nothing when nothing is to be done.
//!
//! What needs root is done only by root; otherwise the command to run is named. Nothing is ever
//! installed that the tests do not use: there is no browser in the list, since the SVG is checked as text.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use harness::binaries::{find_program, fixture, repository};
use harness::kernel::TRACEFS;
use harness::{foreign, nodes};
use nix::mount::{MsFlags, mount};
use nix::unistd::geteuid;

use crate::steps::{announce, run_visibly};

/// Program, and the Debian package that holds it.
const TEST_PROGRAMS: [(&str, &str); 3] =
    [("strace", "strace"), ("perf", "linux-perf"), ("readelf", "binutils")];

/// What a fresh machine lacks, all of it.
pub(crate) fn everything() -> Result<()> {
    application()?;
    tracefs()?;
    test_programs()?;
    for folder in ["v8-truth", "lab", "field"] {
        told(&format!("the packages of fixtures/{folder}"), install_packages(&fixture(folder)));
    }
    if nodes::is_possible() {
        told("other versions of Node.js", other_nodes());
    }
    foreign_node();
    Ok(())
}

// What only some tests need: each of them says itself that it is missing.
fn told(what: &str, result: Result<()>) {
    if let Err(error) = result {
        println!("cannot install {what}: {error:#}");
    }
}

/// Node, npm, and the packages of the fixture application.
pub(crate) fn application() -> Result<()> {
    for program in ["node", "npm"] {
        if find_program(program).is_none() {
            bail!(
                "{program} is not in PATH: install Node.js 18 or newer with npm, from \
                 https://nodejs.org or with `apt-get install nodejs npm`"
            );
        }
    }
    install_packages(&fixture("app"))
}

// What the lock file of a folder says, once. No package's own script is run.
fn install_packages(folder: &Path) -> Result<()> {
    let lock = fs::read(folder.join("package-lock.json")).context("cannot read the lock file")?;
    // The stamp is the lock file of the installed packages.
    let stamp = folder.join("node_modules/.installed-lock");
    if fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    let name = folder.strip_prefix(repository()).unwrap_or(folder);
    announce(&format!("npm ci in {}", name.display()));
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
    run_visibly(npm.current_dir(folder).stdin(Stdio::null()))?;
    fs::write(&stamp, lock).context("cannot write the stamp of the installed packages")
}

// Nearly 1 GB: below target/, where `cargo clean` removes it.
fn other_nodes() -> Result<()> {
    let (from, to) = (fixture("nodes"), nodes::folder());
    fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
    for file in ["package.json", "package-lock.json", ".npmrc"] {
        fs::copy(from.join(file), to.join(file)).with_context(|| format!("cannot copy {file}"))?;
    }
    install_packages(&to)
}

/// tracefs, which holds the dynamic events.
pub(crate) fn tracefs() -> Result<()> {
    if Path::new(TRACEFS).join("dynamic_events").exists() {
        return Ok(());
    }
    if !geteuid().is_root() {
        println!("tracefs is not to be seen; as root: mount -t tracefs tracefs {TRACEFS}");
        return Ok(());
    }
    announce("mounting tracefs");
    mount(Some("tracefs"), TRACEFS, Some("tracefs"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("cannot mount tracefs at {TRACEFS}"))
}

// A failure here is told, not returned: each test that needs a program says so itself.
fn test_programs() -> Result<()> {
    let is_missing = |program: &str| find_program(program).is_none();
    let missing: Vec<_> =
        TEST_PROGRAMS.iter().filter(|row| is_missing(row.0)).map(|row| row.1).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    if !geteuid().is_root() || find_program("apt-get").is_none() {
        println!("some tests need more programs; as root on Debian: apt-get install {packages}");
        return Ok(());
    }
    announce(&format!("apt-get install {packages}"));
    let mut install = vec!["install", "-y", "--no-install-recommends"];
    install.extend(&missing);
    for words in [&["update", "-q"][..], &install] {
        let mut command = Command::new("apt-get");
        command.args(words).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        if let Err(error) = run_visibly(command.stdout(Stdio::null())) {
            println!("cannot install {packages}: {error:#}");
            break;
        }
    }
    Ok(())
}

// Debian's Node.js 18, unpacked below target/ and not installed. A failure is told by its tests.
fn foreign_node() {
    if !foreign::is_possible() || foreign::DebianNode::find().is_ok() {
        return;
    }
    announce("unpacking Debian's Node.js 18, whose libuv is a stripped shared library");
    if let Err(error) = foreign::DebianNode::unpack() {
        println!("cannot unpack Debian's Node.js: {error:#}");
    }
}
