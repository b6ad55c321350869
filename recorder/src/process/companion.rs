//! `nanalyze`, started beside a recording to read along. It must not know what it is told to do.

use std::ffi::{OsStr, OsString};
use std::io::{self, PipeReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::launch;

/// The program's name.
const PROGRAM: &str = "nanalyze";

/// Why nobody can read along.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompanionError {
    /// There is no such program.
    #[error("nanalyze is neither beside this program{} nor in PATH", beside.as_ref().map(|path| format!(" ({})", path.display())).unwrap_or_default())]
    Missing {
        /// Where it would be.
        beside: Option<PathBuf>,
    },
    /// It cannot be started.
    #[error("cannot start {}: {cause}", path.display())]
    Start {
        /// The program.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

impl CompanionError {
    /// What the user can do about it.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Missing { .. } => Some(
                "put nanalyze beside nrec, which prints through it; or record into a file (nrec \
                 record), and read that where nanalyze is",
            ),
            Self::Start { .. } => None,
        }
    }
}

/// Finds the program: beside this one, as both are installed together, else in PATH.
///
/// # Errors
/// It is in neither place.
pub fn find() -> Result<PathBuf, CompanionError> {
    let own = std::env::current_exe().ok();
    let beside = own.and_then(|own| Some(own.parent()?.join(PROGRAM)));
    if let Some(path) = beside.as_ref().filter(|path| path.is_file()) {
        return Ok(path.clone());
    }
    launch::which(OsStr::new(PROGRAM)).ok_or(CompanionError::Missing { beside })
}

/// Starts the program with `input` as its standard input.
///
/// # Errors
/// The system refuses.
pub fn start(
    path: PathBuf,
    arguments: &[OsString],
    input: PipeReader,
) -> Result<Child, CompanionError> {
    Command::new(&path)
        .args(arguments)
        .stdin(Stdio::from(input))
        // Ctrl-C ends the recording; what has completed by then is still to be printed.
        .process_group(0)
        .spawn()
        .map_err(|cause| CompanionError::Start { path, cause })
}
