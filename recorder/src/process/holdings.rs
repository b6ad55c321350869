//! What a process has open when it is first looked at: its descriptors and its working directory, as
//! /proc links to them (proc(5)). Only the links are read: nothing of the target is opened, and no
//! file system is asked, which could hang.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// Descriptors that are looked at, and bytes of their targets that are kept: a server with more
/// sockets than that has no more files of interest among them.
const MAX_DESCRIPTORS: usize = 1 << 16;
const MAX_BYTES: usize = 8 << 20;

/// What a process holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Working directory.
    pub folder: Option<Vec<u8>>,
    /// Descriptors and what they are open to: a path, or a word such as `socket:[4711]`.
    pub descriptors: Vec<(u32, Vec<u8>)>,
    /// Why descriptors are missing.
    pub problem: Option<String>,
}

impl Holdings {
    /// Of a process, as /proc shows it now.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        Self::within(Path::new(&format!("/proc/{pid}")), pid, MAX_DESCRIPTORS, MAX_BYTES)
    }

    fn within(folder: &Path, pid: u32, most: usize, mut bytes: usize) -> Self {
        let link = |path: &Path| Some(fs::read_link(path).ok()?.into_os_string().into_vec());
        let mut found = Self { folder: link(&folder.join("cwd")), ..Self::default() };
        let entries = match fs::read_dir(folder.join("fd")) {
            Ok(entries) => entries,
            // A process that has ended has nothing open.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return found,
            Err(error) => {
                found.problem = Some(format!("cannot read /proc/{pid}/fd: {error}"));
                return found;
            }
        };
        for entry in entries.flatten() {
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let Some((number, target)) = number.zip(link(&entry.path())) else { continue };
            if found.descriptors.len() >= most || target.len() > bytes {
                found.problem = Some(format!(
                    "process {pid} has more descriptors than the {} that were looked at",
                    found.descriptors.len()
                ));
                break;
            }
            bytes -= target.len();
            found.descriptors.push((number, target));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn own_files_are_found() {
        let file = fs::File::open("/proc/self/exe").unwrap();
        let number = file.as_raw_fd() as u32;
        let found = Holdings::of(std::process::id());
        let own = std::env::current_exe().unwrap().into_os_string().into_vec();
        assert!(found.descriptors.contains(&(number, own)), "{found:?}");
        assert_eq!(found.problem, None);
        let folder = std::env::current_dir().unwrap();
        assert_eq!(found.folder, Some(folder.into_os_string().into_vec()));
    }

    #[test]
    fn too_many_are_cut_and_told() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("fd")).unwrap();
        for number in 0..5 {
            let link = folder.path().join(format!("fd/{number}"));
            std::os::unix::fs::symlink("socket:[1]", link).unwrap();
        }
        let found = Holdings::within(folder.path(), 7, 3, 1000);
        assert_eq!((found.descriptors.len(), found.folder), (3, None));
        assert!(found.problem.unwrap().contains("process 7 has more descriptors than the 3"));
        assert_eq!(Holdings::within(folder.path(), 7, 100, 25).descriptors.len(), 2);
        let gone = Holdings::within(&folder.path().join("none"), 7, 3, 1000);
        assert_eq!(gone, Holdings::default());
    }
}
