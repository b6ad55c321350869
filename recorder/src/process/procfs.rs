//! Facts about a process, read from /proc (proc(5)). Reads only; everything it returns belongs to
//! somebody else and may be gone or changed a moment later.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

/// Most that is read of one /proc file, in bytes. A maps file of 100 000 lines is about 10 MB.
const READ_LIMIT: u64 = 64 << 20;
/// Most that is kept of a command line, in bytes.
const CMDLINE_LIMIT: usize = 4096;

/// What /proc tells about a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Process id as this program sees it.
    pub pid: u32,
    /// Parent's process id.
    pub parent: u32,
    /// Name, without the line feed.
    pub comm: Vec<u8>,
    /// Arguments, separated by NUL.
    pub cmdline: Vec<u8>,
    /// Value of NODE_OPTIONS, empty when it is not set or not readable.
    pub node_options: Vec<u8>,
    /// Process id in the innermost pid namespace: what the process calls itself.
    pub inner_pid: u32,
    /// Effective user id.
    pub uid: u32,
    /// Whether its root directory is another than this program's.
    pub other_root: bool,
}

impl Facts {
    /// What can be said of a process that has ended before it was looked at: its files are taken
    /// to be where this program's are, and to belong to this program's user.
    #[must_use]
    pub fn of_ended(pid: u32, comm: &[u8]) -> Self {
        let uid = nix::unistd::geteuid().as_raw();
        Self { pid, inner_pid: pid, comm: comm.to_vec(), uid, ..Self::default() }
    }
}

/// Reads a whole /proc file, up to the limit.
///
/// # Errors
/// As open(2) and read(2).
pub fn read(path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(READ_LIMIT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads what /proc tells about `pid`.
///
/// # Errors
/// The process does not exist, or is not ours to look at.
pub fn facts(pid: u32) -> io::Result<Facts> {
    let status = read(&format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        String::from_utf8_lossy(&status)
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned))
            .unwrap_or_default()
    };
    let number = |text: Option<&str>| text.and_then(|t| t.parse().ok()).unwrap_or_default();
    let mut comm = read(&format!("/proc/{pid}/comm")).unwrap_or_default();
    comm.truncate(comm.trim_ascii_end().len());
    let mut cmdline = read(&format!("/proc/{pid}/cmdline")).unwrap_or_default();
    cmdline.truncate(CMDLINE_LIMIT);
    while cmdline.last() == Some(&0) {
        cmdline.pop();
    }
    let inner = field("NSpid");
    Ok(Facts {
        pid,
        parent: number(Some(field("PPid").trim())),
        comm,
        cmdline,
        node_options: environment(pid, b"NODE_OPTIONS=").unwrap_or_default(),
        inner_pid: inner.split_whitespace().last().and_then(|p| p.parse().ok()).unwrap_or(pid),
        uid: number(field("Uid").split_whitespace().nth(1)),
        other_root: other_root(pid).unwrap_or(false),
    })
}

/// One variable of the environment that the process was started with.
fn environment(pid: u32, name: &[u8]) -> Option<Vec<u8>> {
    let bytes = read(&format!("/proc/{pid}/environ")).ok()?;
    let value = bytes.split(|&b| b == 0).find_map(|entry| entry.strip_prefix(name))?;
    Some(value.iter().copied().take(CMDLINE_LIMIT).collect())
}

/// Whether `pid` has another root directory than this program: a container, a chroot.
fn other_root(pid: u32) -> Option<bool> {
    let theirs = std::fs::metadata(format!("/proc/{pid}/root")).ok()?;
    let ours = std::fs::metadata("/proc/self/root").ok()?;
    Some((theirs.dev(), theirs.ino()) != (ours.dev(), ours.ino()))
}

/// The process that a thread or process id belongs to.
#[must_use]
pub fn thread_group(tid: u32) -> Option<u32> {
    let status = read(&format!("/proc/{tid}/status")).ok()?;
    let text = String::from_utf8_lossy(&status);
    text.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
}

/// Whether the process exists (a zombie does not run any more and does not count).
#[must_use]
pub fn alive(pid: u32) -> bool {
    state(pid).is_some_and(|state| state != b'Z' && state != b'X')
}

/// The state letter in /proc/PID/stat. The name before it may hold any bytes, parentheses too.
fn state(pid: u32) -> Option<u8> {
    let stat = read(&format!("/proc/{pid}/stat")).ok()?;
    let after = stat.iter().rposition(|&b| b == b')')?;
    stat.get(after + 2).copied()
}

/// Thread ids of a process, in ascending order. Empty when it is gone.
#[must_use]
pub fn threads(pid: u32) -> Vec<u32> {
    let mut tids = numbers(&format!("/proc/{pid}/task"));
    tids.sort_unstable();
    tids
}

/// The process and all its descendants that exist now, the process first.
#[must_use]
pub fn family(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> =
        numbers("/proc").into_iter().filter_map(|p| Some((p, parent(p)?))).collect();
    let mut family = vec![pid];
    let mut at = 0;
    while let Some(&one) = family.get(at) {
        for &(child, parent) in &parents {
            if parent == one && !family.contains(&child) {
                family.push(child);
            }
        }
        at += 1;
    }
    family
}

fn parent(pid: u32) -> Option<u32> {
    let stat = read(&format!("/proc/{pid}/stat")).ok()?;
    let after = stat.iter().rposition(|&b| b == b')')?;
    let rest = std::str::from_utf8(stat.get(after + 2..)?).ok()?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

fn numbers(directory: &str) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_known() {
        let pid = std::process::id();
        let facts = facts(pid).unwrap();
        assert_eq!(facts.pid, pid);
        assert_eq!(facts.inner_pid, pid);
        assert!(!facts.other_root);
        assert!(alive(pid));
        assert!(threads(pid).contains(&pid));
        assert!(family(facts.parent).contains(&pid));
    }

    #[test]
    fn a_process_that_is_not_there() {
        let none = 4_194_304 + 7; // above the kernel's largest pid (PID_MAX_LIMIT, 2^22)
        assert!(facts(none).is_err());
        assert!(!alive(none));
        assert!(threads(none).is_empty());
        assert_eq!(family(none), [none]);
    }
}
