//! Opening files that somebody else may have put there: `/tmp` is everybody's.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// `O_NOFOLLOW` (kernel tree, arch/arm64/include/uapi/asm/fcntl.h, include/uapi/asm-generic/fcntl.h).
const O_NOFOLLOW: i32 = if cfg!(target_arch = "aarch64") { 0o100_000 } else { 0o400_000 };
/// `O_NONBLOCK`: a planted FIFO must not make us wait for its writer.
pub(super) const O_NONBLOCK: i32 = 0o4000;

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("there is none")]
    Absent,
    #[error("it cannot be opened: {0}")]
    Open(io::Error),
    #[error("it is not a regular file")]
    NotRegular,
    #[error("it belongs to user {0}, not to you or root")]
    Owner(u32),
    #[error("it has {0} bytes, more than are read")]
    TooLarge(u64),
}

/// Opens a regular file that belongs to us or to root (the rule of `perf`), follows no symbolic link
/// at the end of the path, and refuses more than `max_bytes`.
pub(super) fn open_trusted(path: &Path, max_bytes: u64) -> Result<File, Refused> {
    let file = OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path);
    let file = file.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Refused::Absent,
        _ => Refused::Open(error),
    })?;
    let metadata = file.metadata().map_err(Refused::Open)?;
    if !metadata.is_file() {
        return Err(Refused::NotRegular);
    }
    let owner = metadata.uid();
    if owner != 0 && own_user() != Some(owner) {
        return Err(Refused::Owner(owner));
    }
    if metadata.len() > max_bytes {
        return Err(Refused::TooLarge(metadata.len()));
    }
    Ok(file)
}

/// Our effective user id: the kernel gives the files of `/proc/self` to it.
fn own_user() -> Option<u32> {
    std::fs::metadata("/proc/self").ok().map(|metadata| metadata.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_folders_and_large_files_are_refused() {
        let folder = std::env::temp_dir().join(format!("nanalyze-files-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let plain = folder.join("plain");
        std::fs::write(&plain, b"12345").unwrap();
        std::os::unix::fs::symlink(&plain, folder.join("link")).unwrap();
        assert!(open_trusted(&plain, 5).is_ok());
        assert!(matches!(open_trusted(&plain, 4), Err(Refused::TooLarge(5))));
        assert!(matches!(open_trusted(&folder.join("link"), 5), Err(Refused::Open(_))));
        assert!(matches!(open_trusted(&folder, 5), Err(Refused::NotRegular)));
        assert!(matches!(open_trusted(&folder.join("none"), 5), Err(Refused::Absent)));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
