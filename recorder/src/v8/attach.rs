//! Finds out what JavaScript engine a process runs, and whether it can be read: for attaching, and
//! for people who want to know why not.

use std::fs::File;
use std::io;

use formats::procmaps::{MapsEntry, parse_maps};
use nix::errno::Errno;

use super::V8;
use super::denied::Denial;
use super::engine::Engine;
use super::image::Image;
use super::layout::{Basis, LayoutError, Version};
use super::regions::V8File;
use crate::process::objects::{self, Identity, Sighting};
use crate::process::procfs;
use crate::sys::errno_text;
use crate::sys::vm::VmError;

/// A process's V8 cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// Its mappings cannot be read.
    #[error("cannot read mappings of process {pid}: {cause}")]
    Maps {
        /// Process asked for.
        pid: u32,
        /// Why.
        cause: io::Error,
    },
    /// It may not be read.
    #[error("cannot read memory of process {pid}: {}", denial.reason())]
    Denied {
        /// Process asked for.
        pid: u32,
        /// Why.
        denial: Denial,
    },
    /// No file that it has mapped contains V8 or another engine that we know of.
    #[error("cannot find V8 in process {pid}")]
    NoV8 {
        /// Process asked for.
        pid: u32,
    },
    /// It has another engine, or a V8 that tells nothing of itself.
    #[error("cannot read JavaScript of process {pid}: it runs {}", engine.description())]
    Foreign {
        /// Process asked for.
        pid: u32,
        /// What it has.
        engine: Engine,
    },
    /// V8 is there and cannot be read.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Its memory may not be read.
    #[error(transparent)]
    Memory(#[from] VmError),
}

impl AttachError {
    /// What helps, where something does.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Denied { denial, .. } => Some(denial.remedy()),
            Self::NoV8 { .. } => None,
            Self::Foreign { engine: Engine::Bun, .. } => {
                Some("Bun's JavaScript cannot be named; native frames and probes work")
            }
            Self::Foreign { engine: Engine::Deno, .. } => {
                Some("start it with --v8-flags=--perf-basic-prof")
            }
            Self::Foreign { .. } => Some("start it with --js-flags=--perf-basic-prof"),
            Self::Layout(error) => Some(error.remedy()),
            Self::Maps { .. } | Self::Memory(_) => Some("see whether the process still runs"),
        }
    }

    /// A process that may not be read is told from one that has ended.
    fn of_memory(pid: u32, error: VmError) -> Self {
        match error {
            VmError::Refused { errno: Errno::EPERM | Errno::EACCES, .. } => {
                Self::Denied { pid, denial: Denial::of(pid) }
            }
            other => Self::Memory(other),
        }
    }
}

/// A V8 that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// V8's version.
    pub version: Version,
    /// The mapped file that contains it.
    pub file: Vec<u8>,
    /// Where the layout of its objects is known from.
    pub basis: Basis,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let file = String::from_utf8_lossy(&self.file);
        write!(f, "V8 {} in {file}: object layout {}", self.version, self.basis)
    }
}

/// Says what the process's engine is, without keeping it.
///
/// # Errors
/// [`AttachError`]: why its JavaScript cannot be named, with [`AttachError::remedy`].
pub fn look(pid: u32) -> Result<Found, AttachError> {
    V8::attach(pid).map(|v8| v8.found().clone())
}

/// What was found in the mapped files of a process.
pub(super) struct Located {
    pub(super) image: Image,
    pub(super) file: V8File,
    pub(super) path: Vec<u8>,
    pub(super) maps: Vec<u8>,
}

/// Looks for V8 in all files that process `pid` executes.
pub(super) fn locate(pid: u32) -> Result<Located, AttachError> {
    let maps = read_maps(pid).map_err(|cause| match cause.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EACCES | Errno::EPERM) => AttachError::Denied { pid, denial: Denial::of(pid) },
        _ => AttachError::Maps { pid, cause },
    })?;
    if maps.is_empty() {
        // It has ended and waits for its parent, or it is one of the kernel's.
        return Err(AttachError::Maps { pid, cause: Errno::ESRCH.into() });
    }
    let mut seen: Vec<(u32, u32, u64)> = Vec::new();
    let mut others = Vec::new();
    for entry in parse_maps(&maps).entries.iter().filter(|e| e.exec && e.is_file()) {
        let key = (entry.dev_major, entry.dev_minor, entry.inode);
        if seen.contains(&key) {
            continue;
        }
        seen.push(key);
        let Some(file) = open_mapped(pid, entry) else { continue };
        let Some(image) = Image::find(&file)? else {
            others.push(file);
            continue;
        };
        let file = V8File {
            device: (entry.dev_major, entry.dev_minor),
            inode: entry.inode,
            builtins: image.builtins.clone(),
        };
        let path = entry.path.as_deref().unwrap_or_default().to_vec();
        return Ok(Located { image, file, path, maps });
    }
    // Only who has no V8 pays for this: a tenth of a second for a browser's 200 MB.
    match others.iter().find_map(Engine::find) {
        Some(engine) => Err(AttachError::Foreign { pid, engine }),
        None => Err(AttachError::NoV8 { pid }),
    }
}

/// Whether the process may be read at all, tried on a place that is surely mapped: permission
/// shows now, not as frames without names.
pub(super) fn try_reading(pid: u32, maps: &[u8]) -> Result<(), AttachError> {
    let mut byte = [0u8; 1];
    let address = parse_maps(maps).entries.first().map_or(0, |entry| entry.start);
    let mut places = [crate::sys::vm::RemoteRead::new(address, &mut byte)];
    crate::sys::vm::read_batch(pid.cast_signed(), &mut places)
        .map_err(|error| AttachError::of_memory(pid, error))?;
    Ok(())
}

pub(super) fn read_maps(pid: u32) -> io::Result<Vec<u8>> {
    procfs::read(&format!("/proc/{pid}/maps"))
}

/// Opens the file behind a mapping: the mapped one, not what has its name now.
fn open_mapped(pid: u32, entry: &MapsEntry<'_>) -> Option<File> {
    let path = entry.path.as_deref()?;
    let device = (entry.dev_major, entry.dev_minor);
    let identity = Identity { device, inode: entry.inode, path: path.to_vec() };
    objects::open_mapped(&identity, path, Sighting { pid, start: entry.start, end: entry.end })
}

/// The sentence for an attach error's cause, for people.
pub fn reason(error: &AttachError) -> String {
    match error {
        AttachError::Memory(VmError::Refused { errno, .. }) => errno_text(*errno),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_javascript_has_no_v8() {
        let error = look(std::process::id()).unwrap_err();
        // The unit tests of `engine` contain its marks.
        assert!(matches!(error, AttachError::NoV8 { .. } | AttachError::Foreign { .. }), "{error}");
    }

    #[test]
    fn a_process_that_has_ended_is_not_one_that_is_forbidden() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let error = look(pid).unwrap_err();
        assert!(matches!(error, AttachError::Maps { .. }), "{error}");
        let gone = VmError::Refused { pid: 1, errno: Errno::ESRCH };
        assert!(matches!(AttachError::of_memory(1, gone), AttachError::Memory(_)));
        let forbidden = VmError::Refused { pid: 1, errno: Errno::EPERM };
        let error = AttachError::of_memory(std::process::id(), forbidden);
        assert!(matches!(error, AttachError::Denied { .. }), "{error}");
        assert!(error.remedy().is_some());
    }
}
