//! The rules of the repository that no compiler checks. A rule is one function from the files (or the
//! dependency graph) to findings, with a test in which it is broken.
//!
//! The rules must not know where the files come from: they get paths and texts.

mod documents;
mod edges;
mod sources;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use harness::binaries::repository;

use crate::steps::workspace_metadata;

/// A file of the repository: tracked, or new and not ignored.
#[derive(Debug)]
pub(crate) struct TextFile {
    /// Relative to the repository's root.
    pub(crate) path: String,
    /// Bytes that are not UTF-8 are replaced.
    pub(crate) text: String,
}

/// Something that a rule says about a place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// To be looked at.
    Warning(String),
    /// To be changed before the change is good.
    Failure(String),
}

/// Applies all rules and prints what they find.
pub(crate) fn run() -> Result<()> {
    let files = repository_files()?;
    let mut findings = sources::check(&files);
    findings.extend(documents::check(&files));
    findings.extend(edges::check(&workspace_metadata()?)?);
    let mut failures = 0;
    for finding in &findings {
        match finding {
            Finding::Warning(text) => println!("warning: {text}"),
            Finding::Failure(text) => {
                println!("error: {text}");
                failures += 1;
            }
        }
    }
    if failures > 0 {
        bail!("{failures} rules are broken");
    }
    Ok(())
}

fn repository_files() -> Result<Vec<TextFile>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(repository())
        .output()
        .context("cannot start git")?;
    if !output.status.success() {
        bail!("`git ls-files`: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let names = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
    let names: BTreeSet<_> = names.split('\0').filter(|name| !name.is_empty()).collect();
    let mut files = Vec::new();
    for name in names {
        let path = repository().join(name);
        // A file that is deleted but still in the index, and a link, have no text of their own.
        if path.is_symlink() || !path.is_file() {
            continue;
        }
        let bytes = fs::read(&path).with_context(|| format!("cannot read {name}"))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        files.push(TextFile { path: name.to_owned(), text });
    }
    Ok(files)
}

#[cfg(test)]
pub(crate) fn file(path: &str, text: &str) -> TextFile {
    TextFile { path: path.to_owned(), text: text.to_owned() }
}
