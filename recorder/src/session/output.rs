//! The capture file on disk: created with mode 0600, an older one kept beside it, and undone when
//! the recording could not begin.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::error::RecordError;

/// A new capture file.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    old: Option<PathBuf>,
}

impl Output {
    /// Creates `path`; an existing regular file becomes `path.old`.
    ///
    /// # Errors
    /// The file cannot be created, or something that is no regular file is in its place.
    pub fn create(path: &Path) -> Result<(Self, File), RecordError> {
        let failed = |cause| RecordError::Output { path: path.to_owned(), cause };
        let old = match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_file() => {
                let mut name = path.as_os_str().to_owned();
                name.push(".old");
                let old = PathBuf::from(name);
                fs::rename(path, &old).map_err(failed)?;
                Some(old)
            }
            Ok(_) => {
                let text = "it exists and is not a regular file";
                return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, text)));
            }
            Err(_absent) => None,
        };
        let output = Self { path: path.to_owned(), old };
        // O_EXCL: nobody can put a link in the way between the look and the creation.
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(file) => Ok((output, file)),
            Err(cause) => {
                let error = failed(cause);
                output.restore_old();
                Err(error)
            }
        }
    }

    /// Undoes the creation: nothing has been recorded.
    pub fn abandon(self) {
        // The message that follows is about the recording, not about this clean-up.
        let _left_behind = fs::remove_file(&self.path);
        self.restore_old();
    }

    fn restore_old(&self) {
        if let Some(old) = &self.old {
            let _left_behind = fs::rename(old, &self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_old_capture_is_kept_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("capture.nrec");
        fs::write(&path, "first").unwrap();
        let (output, mut file) = Output::create(&path).unwrap();
        file.write_all(b"second").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read(folder.path().join("capture.nrec.old")).unwrap(), b"first");
        output.abandon();
        assert_eq!(fs::read(&path).unwrap(), b"first");
    }

    #[test]
    fn links_and_folders_are_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("capture.nrec");
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(matches!(Output::create(&path), Err(RecordError::Output { .. })));
        assert!(matches!(Output::create(folder.path()), Err(RecordError::Output { .. })));
        let missing = folder.path().join("no/such/folder");
        assert!(matches!(Output::create(&missing), Err(RecordError::Output { .. })));
    }
}
