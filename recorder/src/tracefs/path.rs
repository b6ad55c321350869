//! File names that the control file can carry.
//!
//! The kernel cuts a line into words at every byte its `isspace` accepts and drops what follows
//! a number sign (kernel/trace/trace.c, trace_parse_run_command; lib/argv_split.c). Its table
//! (lib/ctype.c) counts byte 0xa0 as a space, which UTF-8 names contain: "à" is c3 a0. A file
//! with such a name is reached through a descriptor: the kernel resolves the path once, when the
//! event is created, so the descriptor may be closed afterwards.

use super::TracefsError;
use nix::libc;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file in a spelling that is safe to write to the control file.
#[derive(Debug)]
pub struct ProbePath {
    spelling: PathBuf,
    original: PathBuf,
    /// Keeps `/proc/PID/fd/N` true until the event exists.
    _file: Option<File>,
}

impl ProbePath {
    /// `path` as it is.
    ///
    /// # Errors
    /// [`TracefsError::Path`] when the control file would misread it.
    pub fn direct(path: &Path) -> Result<Self, TracefsError> {
        match objection(path) {
            Some(reason) => Err(TracefsError::Path { path: path.to_owned(), reason }),
            None => Ok(Self { spelling: path.to_owned(), original: path.to_owned(), _file: None }),
        }
    }

    /// `path` as it is if that is safe, else through a descriptor of ours.
    ///
    /// # Errors
    /// [`TracefsError::File`] when the file cannot be opened, [`TracefsError::Path`] when it is
    /// not absolute.
    pub fn any(path: &Path) -> Result<Self, TracefsError> {
        match Self::direct(path) {
            Err(TracefsError::Path { reason, .. }) if reason != NOT_ABSOLUTE => {
                Self::through_descriptor(path)
            }
            other => other,
        }
    }

    /// `path` as `/proc/PID/fd/N` of the recorder.
    ///
    /// # Errors
    /// [`TracefsError::File`] when the file cannot be opened.
    pub fn through_descriptor(path: &Path) -> Result<Self, TracefsError> {
        // O_PATH: no permission to read is needed, and opening a FIFO or device does nothing.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_CLOEXEC)
            .open(path)
            .map_err(super::file_error("open", path))?;
        let spelling = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into();
        Ok(Self { spelling, original: path.to_owned(), _file: Some(file) })
    }

    /// The file mapped at `start..end` in process `pid`: right even when the name on disk now
    /// means another file. `original` is what messages show.
    pub fn map_files(pid: i32, start: u64, end: u64, original: &Path) -> Self {
        let spelling = format!("/proc/{pid}/map_files/{start:x}-{end:x}").into();
        Self { spelling, original: original.to_owned(), _file: None }
    }

    /// The executable of process `pid`, likewise.
    pub fn executable(pid: i32, original: &Path) -> Self {
        let spelling = format!("/proc/{pid}/exe").into();
        Self { spelling, original: original.to_owned(), _file: None }
    }

    /// What to write to the control file.
    pub fn spelling(&self) -> &Path {
        &self.spelling
    }

    /// The file as the user knows it.
    pub fn original(&self) -> &Path {
        &self.original
    }
}

const NOT_ABSOLUTE: &str = "the path is not absolute";

/// Why the control file would misread `path`.
fn objection(path: &Path) -> Option<&'static str> {
    let bytes = path.as_os_str().as_bytes();
    if !bytes.starts_with(b"/") {
        return Some(NOT_ABSOLUTE);
    }
    bytes.iter().find_map(|byte| match byte {
        b' ' | b'\t'..=b'\r' => Some("the name contains white space"),
        0xa0 => Some("the name contains byte 0xa0, which the kernel takes for a space"),
        b'#' => Some("the name contains '#', which begins a comment"),
        0..=0x1f | 0x7f => Some("the name contains a control character"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_kernel_misreads_are_refused() {
        for bad in ["/a b", "/a\tb", "/a\nb", "/voilà", "/a#b", "/a\x1bb", "/a\x7fb", "a", ""] {
            let error = ProbePath::direct(Path::new(bad)).unwrap_err();
            assert!(matches!(error, TracefsError::Path { .. }), "{bad:?}");
        }
        for good in ["/usr/bin/node", "/a:b(c)", "/ünïcode", "/a'b\"c"] {
            assert_eq!(ProbePath::direct(Path::new(good)).unwrap().spelling(), Path::new(good));
        }
    }

    #[test]
    fn the_detour_reaches_the_same_file() {
        use std::os::unix::fs::MetadataExt;
        let name = format!("nrec path voilà #{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, "x").unwrap();
        let detour = ProbePath::any(&path).unwrap();
        assert_eq!(objection(detour.spelling()), None);
        assert_eq!(detour.original(), path);
        let inode = |path: &Path| std::fs::metadata(path).unwrap().ino();
        assert_eq!(inode(detour.spelling()), inode(&path));
        std::fs::remove_file(path).unwrap();
        assert!(ProbePath::any(Path::new("relative path")).is_err());
    }
}
