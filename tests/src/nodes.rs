//! The official builds of Node.js that `cargo xtask setup` puts below `target/`: one for each V8 that
//! the recorder reads. Their versions and hashes are in `fixtures/nodes/package-lock.json`.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};

use crate::binaries::repository;
use crate::kernel::{KernelTurn, note_inapplicable, skip, take_turn};

/// The major versions.
pub const VERSIONS: [u32; 6] = [16, 18, 20, 22, 24, 26];

/// Where they are.
#[must_use]
pub fn folder() -> PathBuf {
    repository().join("target").join("nodes")
}

/// Whether these builds run on this machine.
#[must_use]
pub fn is_possible() -> bool {
    cfg!(all(target_os = "linux", target_arch = "x86_64"))
}

/// The `node` of a major version.
///
/// # Errors
/// If it has not been installed.
pub fn find(version: u32) -> Result<PathBuf> {
    let node = folder().join(format!("node_modules/node-{version}/bin/node"));
    if !node.is_file() {
        bail!("Node.js {version} is not in {}: run `cargo xtask setup`", folder().display());
    }
    Ok(node)
}

/// Like [`take_turn`], for a test that needs the `node` of a major version.
///
/// # Errors
/// Like [`take_turn`]; a `node` that is missing is a skip like any other.
pub fn take_turn_with(
    test: &str,
    version: u32,
    programs: &[&str],
) -> Result<Option<(KernelTurn, PathBuf)>> {
    if !is_possible() {
        note_inapplicable(test, &anyhow!("these builds are for Linux on x86-64"))?;
        return Ok(None);
    }
    let node = match find(version) {
        Ok(node) => node,
        Err(reason) => {
            skip(test, &reason)?;
            return Ok(None);
        }
    };
    Ok(take_turn(test, programs)?.map(|turn| (turn, node)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_names_each_version() {
        let lock = include_str!("../../fixtures/nodes/package-lock.json");
        let lock: serde_json::Value = serde_json::from_str(lock).unwrap();
        for version in VERSIONS {
            let package = &lock["packages"][format!("node_modules/node-{version}")];
            let number = package["version"].as_str().unwrap();
            assert!(number.starts_with(&format!("{version}.")), "{version}: {number}");
            assert!(package["integrity"].as_str().is_some_and(|hash| hash.starts_with("sha512-")));
        }
    }
}
