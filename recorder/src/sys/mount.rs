//! Mounting tracefs where a machine has none mounted.

use super::errno_text;
use nix::errno::Errno;
use nix::libc;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// tracefs could not be mounted.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("cannot mount tracefs on {}: {}", path.display(), errno_text(*errno))]
pub struct MountError {
    /// Where.
    pub path: PathBuf,
    /// The kernel's answer; ENODEV = built without tracing, EPERM = not root.
    pub errno: Errno,
}

/// Mounts tracefs on `path`, an existing folder.
///
/// # Errors
/// [`MountError`].
pub fn mount_tracefs(path: &Path) -> Result<(), MountError> {
    let refused = |errno| MountError { path: path.to_owned(), errno };
    let target =
        CString::new(path.as_os_str().as_bytes()).map_err(|_nul| refused(Errno::EINVAL))?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let (source, kind) = (c"tracefs".as_ptr(), c"tracefs".as_ptr());
    // SAFETY: three live NUL-terminated strings that the kernel only reads; tracefs takes no data.
    let answer = unsafe { libc::mount(source, target.as_ptr(), kind, flags, std::ptr::null()) };
    if answer < 0 { Err(refused(Errno::last())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_folder_is_named() {
        let error = mount_tracefs(Path::new("/nonexistent/tracing")).unwrap_err();
        assert!(matches!(error.errno, Errno::ENOENT | Errno::EPERM), "{error}");
        assert!(error.to_string().starts_with("cannot mount tracefs on /nonexistent/tracing: "));
    }
}
