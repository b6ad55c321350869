//! Where things are: the built `nrec` and `nanalyze`, the fixtures, Node.
//!
//! It must not build anything: the task runner does that before the tests start.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Names the folder of the two binaries, for a build that lies outside the workspace's target folder.
pub const BINARY_FOLDER_VARIABLE: &str = "NREC_TEST_BIN_DIR";

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}

/// A file or folder below `fixtures/`.
#[must_use]
pub fn fixture(relative: &str) -> PathBuf {
    repository().join("fixtures").join(relative)
}

/// The recorder, `nrec`.
///
/// # Errors
/// If it is not built.
pub fn nrec() -> Result<PathBuf> {
    binary("nrec")
}

/// The analyzer, `nanalyze`.
///
/// # Errors
/// If it is not built.
pub fn nanalyze() -> Result<PathBuf> {
    binary("nanalyze")
}

/// An example program of the recorder that is built with it.
///
/// # Errors
/// If it is not built.
pub fn example(name: &str) -> Result<PathBuf> {
    binary(&format!("examples/{name}"))
}

/// The first executable file called `name` in the folders of `PATH`.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|candidate| candidate.is_file())
}

/// A program that a test cannot do without.
///
/// # Errors
/// If it is not in `PATH`.
pub fn require_program(name: &str) -> Result<PathBuf> {
    find_program(name)
        .with_context(|| format!("cannot find the program {name}: run `cargo xtask setup` as root"))
}

fn binary(name: &str) -> Result<PathBuf> {
    let folder = match env::var_os(BINARY_FOLDER_VARIABLE) {
        Some(folder) => PathBuf::from(folder),
        None => folder_of_this_build()?,
    };
    let file = folder.join(name);
    if !file.is_file() {
        bail!("cannot find {name} in {}: run `cargo xtask test`", folder.display());
    }
    Ok(file)
}

// A test lies in target/PROFILE/deps, the task runner in target/PROFILE; so do our binaries.
fn folder_of_this_build() -> Result<PathBuf> {
    let this = env::current_exe().context("cannot find the running test")?;
    let folder = this.parent().context("the running test has no folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(folder.to_path_buf())
}
