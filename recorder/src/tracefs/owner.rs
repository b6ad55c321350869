//! Who an event group belongs to: `nrec_PID_STARTTIME`.
//!
//! The start time makes the name outlive re-used process ids. Numbers mean something only within
//! one pid namespace, so a recorder outside the first one adds `_nINODE` of its namespace, and a
//! group is judged only from the namespace it names.

use super::{TracefsError, file_error};
use std::path::Path;

/// Inode of the first pid namespace (include/linux/proc_ns.h, PROC_PID_INIT_INO).
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// A recorder, as event group names tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Process id, in the recorder's own pid namespace.
    pub pid: u32,
    /// Start time in clock ticks since boot (proc_pid_stat(5), field 22).
    pub start_ticks: u64,
    /// Inode of the pid namespace, unless it is the first one.
    pub namespace: Option<u64>,
}

impl Owner {
    /// This process.
    ///
    /// # Errors
    /// [`TracefsError::File`] or [`TracefsError::Content`] when /proc does not tell.
    pub fn ourselves() -> Result<Self, TracefsError> {
        let path = Path::new("/proc/self/stat");
        let stat = std::fs::read_to_string(path).map_err(file_error("read", path))?;
        let pid = std::process::id();
        match parse_stat(&stat) {
            // A /proc of another pid namespace shows another number for us.
            Some((shown, _, start_ticks)) if shown == pid => {
                Ok(Self { pid, start_ticks, namespace: own_namespace() })
            }
            _ => Err(TracefsError::Content { path: path.to_owned() }),
        }
    }

    /// The name of its event group.
    pub fn group(&self) -> String {
        let Self { pid, start_ticks, .. } = self;
        match self.namespace {
            None => format!("nrec_{pid}_{start_ticks}"),
            Some(inode) => format!("nrec_{pid}_{start_ticks}_n{inode}"),
        }
    }

    /// Reads an owner from the name of a group; `None` for a group that is not ours.
    pub fn parse(group: &str) -> Option<Self> {
        let mut parts = group.strip_prefix("nrec_")?.split('_');
        let pid = parts.next()?.parse().ok()?;
        let start_ticks = parts.next()?.parse().ok()?;
        let namespace = match parts.next() {
            None => None,
            Some(part) => Some(part.strip_prefix('n')?.parse().ok()?),
        };
        let owner = Self { pid, start_ticks, namespace };
        // Printing it again refuses signs, leading zeros and further parts.
        (parts.next().is_none() && owner.group() == group).then_some(owner)
    }

    /// Whether this recorder still runs; `None` when it lives in another pid namespace, where
    /// its number says nothing to us.
    pub fn is_alive(&self) -> Option<bool> {
        if self.namespace != own_namespace() {
            return None;
        }
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid));
        // An ended recorder that nobody reaped (state Z or X) holds no event any more.
        Some(stat.ok().as_deref().and_then(parse_stat).is_some_and(|(_, state, ticks)| {
            ticks == self.start_ticks && !matches!(state, 'Z' | 'X')
        }))
    }
}

fn own_namespace() -> Option<u64> {
    let link = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let inode = link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()?;
    (inode != FIRST_PID_NAMESPACE).then_some(inode)
}

/// Process id, state and start time from a `stat` file. The name in brackets may hold anything,
/// brackets and spaces included, so the fields are counted from its last bracket.
fn parse_stat(stat: &str) -> Option<(u32, char, u64)> {
    let (before, after) = (stat.split_once(" (")?.0, stat.rsplit_once(") ")?.1);
    let mut fields = after.split(' ');
    let state = fields.next()?.chars().next()?;
    // State is field 3, the start time field 22: 18 fields lie between them.
    Some((before.parse().ok()?, state, fields.nth(18)?.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_refused() {
        for namespace in [None, Some(4_026_532_000)] {
            let owner = Owner { pid: 12, start_ticks: 3456, namespace };
            assert_eq!(Owner::parse(&owner.group()), Some(owner));
        }
        for foreign in [
            "probe_node",
            "nrec",
            "nrec_",
            "nrec_1",
            "nrec_a_1",
            "nrec_1_2_3",
            "nrec_1_2_n3_4",
            "nrec_+1_2",
            "nrec_01_2",
            "xnrec_1_2",
            "nrec_sys",
            "nrec_1_2_n",
        ] {
            assert_eq!(Owner::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn hostile_process_names_do_not_shift_the_fields() {
        let stat = "7 (a) S (b) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 999 20\n";
        assert_eq!(parse_stat(stat), Some((7, 'R', 999)));
        assert_eq!(parse_stat("7 (a) R 1 2"), None);
    }

    #[test]
    fn we_are_alive_and_our_predecessor_is_not() {
        let us = Owner::ourselves().unwrap();
        assert_eq!(us.is_alive(), Some(true));
        assert_eq!(Owner { start_ticks: us.start_ticks + 1, ..us }.is_alive(), Some(false));
        assert_eq!(Owner { pid: u32::MAX, ..us }.is_alive(), Some(false));
        assert_eq!(Owner { namespace: Some(1), ..us }.is_alive(), None);
    }
}
