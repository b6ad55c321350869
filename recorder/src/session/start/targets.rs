//! Whom a recording is of: that they exist, all their threads, and what appears while they are armed.

use std::collections::HashSet;

use crate::process::procfs;
use crate::session::arm::Arms;
use crate::session::drain;
use crate::session::error::RecordError;
use crate::session::ingest::Ingest;
use crate::session::sink::Sink;
use crate::sys::pidfd::PidFd;

/// How often new threads are looked for while arming.
const PASSES: usize = 4;

/// That it is there, and a process.
pub(super) fn check(pid: u32) -> Result<(), RecordError> {
    if !procfs::alive(pid) {
        return Err(RecordError::NoSuchProcess { pid });
    }
    match procfs::thread_group(pid) {
        Some(leader) if leader != pid => Err(RecordError::IsThread { tid: pid, pid: leader }),
        _ => Ok(()),
    }
}

/// Each process that was asked for, once, with its descendants where they are followed, and never
/// this program itself: recording its own work it would never come to an end of it.
pub(super) fn everybody(asked: &[u32], with_children: bool) -> Vec<u32> {
    let mut seen = HashSet::from([std::process::id()]);
    let families =
        asked.iter().flat_map(|&pid| if with_children { procfs::family(pid) } else { vec![pid] });
    families.filter(|&pid| seen.insert(pid)).collect()
}

/// Opens the events on every thread. Threads and children that appear meanwhile either inherit,
/// which their FORK record tells, or are opened in a later pass.
pub(super) fn open(
    arms: &mut Arms,
    ingest: &mut Ingest<Sink>,
    asked: &[u32],
    with_children: bool,
    now: u64,
) -> Result<usize, RecordError> {
    let mut opened = 0;
    let mut inherited = HashSet::new();
    for pass in 0..PASSES {
        let mut found = 0;
        for pid in everybody(asked, with_children) {
            let threads = procfs::threads(pid);
            let new: Vec<u32> = threads
                .into_iter()
                .filter(|tid| !arms.is_open(*tid) && !inherited.contains(tid))
                .collect();
            if pass > 0 && !new.is_empty() && ingest.world.process(pid).is_none() {
                ingest.adopt(pid, now);
            }
            for tid in new {
                found += usize::from(arms.open_thread(ingest, tid, 0)?);
            }
            if pass == 0 {
                // What was mapped between the first look and the first event.
                ingest.world.read_mappings(&mut ingest.writer, pid, now);
            }
        }
        opened += found;
        if pass > 0 && found == 0 {
            break;
        }
        // A FORK record is written when the clone is complete, a moment after /proc shows it.
        std::thread::sleep(std::time::Duration::from_millis(5));
        inherited = drain::inherited_threads(&mut arms.rings);
    }
    Ok(opened)
}

/// What tells that they end.
pub(super) fn watch(pids: &[u32]) -> Vec<PidFd> {
    pids.iter().filter_map(|&pid| PidFd::open(pid as i32).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_comes_once_and_never_this_program() {
        let us = std::process::id();
        let parent = procfs::facts(us).unwrap().parent;
        let pids = everybody(&[parent, us, parent], true);
        assert_eq!(pids.iter().filter(|&&pid| pid == parent).count(), 1);
        assert!(!pids.contains(&us));
        assert_eq!(everybody(&[parent, parent], false), [parent]);
    }
}
