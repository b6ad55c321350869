//! Debian's own Node.js 18: libuv and V8 are shared libraries there, and all of it is stripped.
//!
//! The packages are unpacked below `target/`, not installed: nothing else on the machine changes.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::unistd::geteuid;

use crate::binaries::{find_program, repository};
use crate::command::run;
use crate::kernel::{KernelTurn, note_inapplicable, take_turn};

/// All that Node.js 18 of Debian 12 needs beyond what a Debian with any Node has.
const PACKAGES: [&str; 12] = [
    "libbrotli1",
    "libc-ares2",
    "libicu72",
    "libnghttp2-14",
    "libnode108",
    "libssl3",
    "libuv1",
    "node-acorn",
    "node-busboy",
    "node-cjs-module-lexer",
    "node-undici",
    "zlib1g",
];
/// Where Debian's packages for x86-64 put libraries.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// A file of the unpacked tree that says that all of it is there.
const STAMP: &str = "complete";

// Node 18 of Debian reads some of its own JavaScript from /usr/share/nodejs, by absolute path: a
// private mount namespace puts it there. `exec`: the process id stays.
const START: &str = r#"set -e
root=$0
if [ ! -d /usr/share/nodejs ]; then
    mount -t tmpfs tmpfs /usr/share
    mkdir /usr/share/nodejs
fi
mount --bind "$root/usr/share/nodejs" /usr/share/nodejs
LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu exec "$root/usr/bin/node" "$@""#;

/// The unpacked packages.
#[derive(Debug)]
pub struct DebianNode {
    root: PathBuf,
}

impl DebianNode {
    /// The packages that `cargo xtask setup` has unpacked.
    ///
    /// # Errors
    /// If it has not.
    pub fn find() -> Result<Self> {
        let root = folder();
        if !root.join(STAMP).is_file() {
            bail!("Debian's Node.js is not in {}: run `cargo xtask setup` as root", root.display());
        }
        Ok(Self { root })
    }

    /// Fetches and unpacks the packages.
    ///
    /// # Errors
    /// If apt-get or dpkg fails.
    pub fn unpack() -> Result<Self> {
        let root = folder();
        // What an interrupted attempt left.
        drop(fs::remove_dir_all(&root));
        let archives = root.join("archives");
        fs::create_dir_all(&archives).context("cannot make a folder for the packages")?;
        let node = match node_package() {
            Ok(package) => package,
            Err(_no_lists) => {
                must(Command::new("apt-get").args(["update", "-q"]))?;
                node_package()?
            }
        };
        // apt-get wants to give the download to its own user, who may not enter every folder.
        let options = ["-q", "-o", "Acquire::Retries=3", "-o", "APT::Sandbox::User=root"];
        let mut download = Command::new("apt-get");
        download.current_dir(&archives).args(options).arg("download");
        must(download.arg(node).args(PACKAGES))?;
        for archive in fs::read_dir(&archives)? {
            must(Command::new("dpkg").arg("-x").arg(archive?.path()).arg(&root))?;
        }
        fs::remove_dir_all(&archives)?;
        fs::write(root.join(STAMP), "")?;
        Ok(Self { root })
    }

    /// A command that runs this Node with these words in a mount namespace of its own.
    #[must_use]
    pub fn command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", START]).arg(&self.root).args(words);
        command
    }

    /// The shared libuv.
    #[must_use]
    pub fn libuv(&self) -> PathBuf {
        self.root.join(LIBRARIES).join("libuv.so.1.0.0")
    }
}

/// Whether these packages belong to this machine: Debian 12 on x86-64, and we are root.
#[must_use]
pub fn is_possible() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let says = |line: &str| release.lines().any(|other| other == line);
    says("ID=debian")
        && says("VERSION_ID=\"12\"")
        && Path::new("/").join(LIBRARIES).is_dir()
        && geteuid().is_root()
        && ["apt-get", "dpkg", "unshare"].iter().all(|program| find_program(program).is_some())
}

/// The turn of a test that needs this Node. On another system there is none: that is told and
/// counted, and no failure.
///
/// # Errors
/// If the packages are not unpacked, or like [`take_turn`].
pub fn debian_turn(test: &str) -> Result<Option<(KernelTurn, DebianNode)>> {
    if !is_possible() {
        note_inapplicable(test, &anyhow!("these packages are of Debian 12, and unpacked by root"))?;
        return Ok(None);
    }
    let Some(turn) = take_turn(test, &["unshare"])? else { return Ok(None) };
    Ok(Some((turn, DebianNode::find()?)))
}

fn folder() -> PathBuf {
    repository().join("target").join("debian-node")
}

// Another Node of that name may come from elsewhere: take the version of libnode108, Debian's own.
fn node_package() -> Result<String> {
    let outcome = must(Command::new("apt-cache").args(["madison", "libnode108"]))?;
    let version = outcome.lines().find_map(|line| line.split('|').nth(1));
    Ok(format!("nodejs={}", version.context("apt knows no libnode108")?.trim()))
}

fn must(command: &mut Command) -> Result<String> {
    Ok(run(command)?.expect_code(0)?.stdout)
}
