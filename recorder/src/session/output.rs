//! The capture file on disk: created with mode 0600, an older one kept beside it, and undone when
//! the recording could not begin.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::error::RecordError;

/// A capture file that is being begun beside its final name: whatever was recorded before is
/// touched only when the new recording runs.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    begun: PathBuf,
}

impl Output {
    /// Creates the file under a name of its own in the folder of `path`.
    ///
    /// # Errors
    /// The file cannot be created, or something that is no regular file is in the place of `path`.
    pub fn create(path: &Path) -> Result<(Self, File), RecordError> {
        let failed = |cause| RecordError::Output { path: path.to_owned(), cause };
        if fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            let text = "it exists and is not a regular file";
            return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, text)));
        }
        let begun = with_suffix(path, &format!(".begun-{}", std::process::id()));
        // O_EXCL: nobody can put a link in the way.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&begun);
        Ok((Self { path: path.to_owned(), begun }, file.map_err(failed)?))
    }

    /// Gives the file its name. An older capture becomes `path.old`, whose name is returned.
    ///
    /// # Errors
    /// A name cannot be changed.
    pub fn publish(&self) -> Result<Option<PathBuf>, RecordError> {
        let failed = |cause| RecordError::Output { path: self.path.clone(), cause };
        let old = with_suffix(&self.path, ".old");
        let kept = match fs::rename(&self.path, &old) {
            Ok(()) => Some(old),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        fs::rename(&self.begun, &self.path).map_err(failed)?;
        Ok(kept)
    }

    /// Undoes the creation: nothing has been recorded.
    pub fn abandon(&self) {
        // The message that follows is about the recording, not about this clean-up.
        let _left_behind = fs::remove_file(&self.begun);
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_old_capture_is_kept_and_a_failed_start_touches_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("capture.nrec");
        let old = folder.path().join("capture.nrec.old");
        fs::write(&path, "second").unwrap();
        fs::write(&old, "first").unwrap();
        let (output, _file) = Output::create(&path).unwrap();
        output.abandon();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read(&old).unwrap(), b"first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);

        let (output, mut file) = Output::create(&path).unwrap();
        file.write_all(b"third").unwrap();
        assert_eq!(output.publish().unwrap(), Some(old.clone()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read(&path).unwrap(), b"third");
        assert_eq!(fs::read(&old).unwrap(), b"second");
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
