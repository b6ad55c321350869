//! How many descriptors this process may open. One event needs one descriptor per thread and CPU.
//!
//! Decides nothing: the caller computes the need and words the consequence.

use super::errno_text;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Highest value RLIMIT_NOFILE can take: proc_sys_fs(5).
const NR_OPEN: &str = "/proc/sys/fs/nr_open";

/// The limit could not be read or changed.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
#[error("cannot {operation} the limit of open files: {}", errno_text(*errno))]
pub struct LimitError {
    operation: &'static str,
    errno: Errno,
}

/// RLIMIT_NOFILE, in descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFiles {
    /// What holds now.
    pub soft: u64,
    /// How far `soft` may be raised without privileges.
    pub hard: u64,
}

/// Reads the limit.
///
/// # Errors
/// [`LimitError`].
pub fn open_files() -> Result<OpenFiles, LimitError> {
    getrlimit(Resource::RLIMIT_NOFILE)
        .map(|(soft, hard)| OpenFiles { soft, hard })
        .map_err(|errno| LimitError { operation: "read", errno })
}

/// Raises the limit to at least `wanted` descriptors, as far as allowed, and returns what holds
/// then: compare `soft` with `wanted`. Never lowers anything.
///
/// # Errors
/// [`LimitError`] when it cannot be read, or not even be raised up to the hard limit.
pub fn raise_open_files(wanted: u64) -> Result<OpenFiles, LimitError> {
    let now = open_files()?;
    if wanted <= now.soft {
        return Ok(now);
    }
    if wanted > now.hard {
        let most = std::fs::read_to_string(NR_OPEN).ok().and_then(|text| text.trim().parse().ok());
        let target = wanted.min(most.unwrap_or(now.hard));
        // Beyond the hard limit needs CAP_SYS_RESOURCE; without it the hard limit must do.
        if target > now.hard && setrlimit(Resource::RLIMIT_NOFILE, target, target).is_ok() {
            return open_files();
        }
    }
    setrlimit(Resource::RLIMIT_NOFILE, wanted.min(now.hard), now.hard)
        .map_err(|errno| LimitError { operation: "raise", errno })?;
    open_files()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raising_never_lowers() {
        let before = open_files().unwrap();
        assert_eq!(raise_open_files(1).unwrap(), before);
        let after = raise_open_files(before.hard).unwrap();
        assert_eq!(after.soft, before.hard);
        assert!(raise_open_files(u64::MAX - 1).unwrap().soft >= after.soft);
    }
}
