//! `nrec list`: what can be probed in a file, or in all files whose code a process has mapped. Each
//! line is an EVENT that `nrec record -e` takes and that can be armed.
//!
//! `files` opens what is searched, `functions` reads symbols and judges them, `pattern` and
//! `demangle` compare names, `notes` explains what is not there. Reads only; it must not know
//! sessions or dynamic events. Tests: below, and on the real kernel in `tests/tests/kernel_list.rs`.

mod files;
mod functions;
mod notes;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use formats::demangle;
use formats::text::clean_string;
use formats::wildcard::Wildcard;

use functions::Search;

/// Longest readable name in a comment, characters.
const COMMENT_CHARS: usize = 1000;

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The files that a process has mapped.
    Process(u32),
    /// One file: a path, or the name of a program.
    File(OsString),
}

/// Which functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// All.
    Functions,
    /// Those of libuv.
    Uv,
    /// Those whose arguments are known.
    Catalogue,
}

/// What to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPlan {
    /// Where to look.
    pub source: Source,
    /// Which functions.
    pub choice: Choice,
    /// Only names that fit, mangled or readable.
    pub pattern: Option<Wildcard>,
    /// Whether C++ and Rust names follow in readable form.
    pub demangle: bool,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Sorted, each once; empty when nothing fits.
    pub lines: Vec<String>,
    /// What is not listed and why; without lines also why there are none.
    pub notes: Vec<String>,
    /// A file could not be searched.
    pub incomplete: bool,
}

/// There is nothing to search.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// The process is not there, is none, or is somebody else's.
    #[error("{0}")]
    Process(String),
    /// A name that is neither a program nor a file.
    #[error("no program '{}' in PATH and no such file here: write its path", name.display())]
    NoProgram {
        /// As asked for.
        name: OsString,
    },
    /// The file cannot be opened.
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable {
        /// File.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// The file has no symbols that we read.
    #[error("{path}: {cause}")]
    NoSymbols {
        /// File.
        path: String,
        /// Why, and what helps.
        cause: String,
    },
}

/// Looks for what can be probed.
///
/// # Errors
/// There is nothing to search, see [`ListError`]. That nothing fits is a listing without lines.
pub fn list(plan: &ListPlan) -> Result<Listing, ListError> {
    let objects = match &plan.source {
        Source::Process(pid) => files::of_process(*pid)?,
        Source::File(name) => files::of_name(name)?,
    };
    let mut search = Search::new(plan);
    for (_index, object) in objects.iter() {
        search.file(object);
    }
    if let Source::File(_) = plan.source
        && let Some(error) = search.notes.only_file()
    {
        return Err(error);
    }
    let line = |(event, symbol): (String, &str)| match plan
        .demangle
        .then(|| demangle::readable(symbol))
        .flatten()
    {
        Some(readable) => {
            format!("{event}  # {}", clean_string(readable.full.as_bytes(), COMMENT_CHARS))
        }
        None => event,
    };
    let mut lines: Vec<String> = search.events().into_iter().map(line).collect();
    lines.sort_unstable();
    lines.dedup();
    let notes = search.notes.texts(plan, lines.is_empty(), &objects);
    Ok(Listing { lines, notes, incomplete: search.notes.is_incomplete() })
}

/// Prints the lines.
///
/// # Errors
/// What writing says.
pub fn print(listing: &Listing, out: &mut dyn Write) -> io::Result<()> {
    let mut out = io::BufWriter::new(out);
    for line in &listing.lines {
        writeln!(out, "{line}")?;
    }
    out.flush()
}
