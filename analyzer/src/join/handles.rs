//! What an operation on an open file or directory is about: the path that it was opened by.
//!
//! The result of an open is seen late: Node runs the callback, which may use the descriptor, before
//! it gives up the request. So a descriptor belongs to an open from the open's *beginning* on, unless
//! an earlier open of the same number has not been closed yet. Descriptors from before the recording
//! have no path.

use std::collections::{HashMap, VecDeque};

use super::operations::Operation;

/// Operations that give a handle, and those that take it away.
const OPENING: [&str; 2] = ["open", "opendir"];
const CLOSING: [&str; 2] = ["close", "closedir"];

/// A handle within a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Handle {
    File(u32, i64),
    Directory(u32, u64),
}

/// One life of a handle.
#[derive(Debug, Clone, Copy)]
struct Life<'c> {
    path: Option<&'c [u8]>,
    /// Place of the operation that opened it.
    opener: usize,
    /// When the handle was certainly this one.
    known_ns: u64,
}

/// The lives of one handle that have begun.
#[derive(Debug, Default)]
struct Lives<'c> {
    current: Option<Life<'c>>,
    next: VecDeque<Life<'c>>,
}

impl<'c> Lives<'c> {
    fn begin(&mut self, life: Life<'c>) {
        if self.current.is_none() {
            self.current = Some(life);
        } else {
            self.next.push_back(life);
        }
    }

    /// A later open has had this handle as its result: the earlier one was closed unseen.
    fn advance(&mut self, now_ns: u64) {
        while let Some(next) = self.next.front().copied().filter(|next| next.known_ns <= now_ns) {
            self.next.pop_front();
            self.current = Some(next);
        }
    }

    fn end(&mut self) {
        self.current = self.next.pop_front();
    }
}

/// Gives operations on handles their paths. `addresses` are what opening a directory gave, by the
/// operation's place; `operations` are in the order of their beginning.
pub(super) fn name(operations: &mut [Operation<'_>], addresses: &HashMap<usize, u64>) {
    let mut lives: HashMap<Handle, Lives<'_>> = HashMap::new();
    for (place, operation) in operations.iter_mut().enumerate() {
        if OPENING.contains(&operation.name) {
            let Some(result) = operation.result.filter(|&result| result >= 0) else { continue };
            let handle = if operation.is_open() {
                Handle::File(operation.process, result)
            } else if let Some(&address) = addresses.get(&place) {
                Handle::Directory(operation.process, address)
            } else {
                continue;
            };
            let latency = operation.latency_ns.unwrap_or_default();
            let known_ns = operation.start_ns.saturating_add(latency);
            let lives = lives.entry(handle).or_default();
            lives.advance(operation.start_ns);
            lives.begin(Life { path: operation.path, opener: place, known_ns });
            continue;
        }
        let file = operation.descriptor.map(|number| Handle::File(operation.process, number));
        let directory = || Some(Handle::Directory(operation.process, operation.directory?));
        let Some(handle) = file.or_else(directory) else { continue };
        let Some(lives) = lives.get_mut(&handle) else { continue };
        lives.advance(operation.start_ns);
        operation.path = lives.current.and_then(|life| life.path);
        operation.opened_by = lives.current.map(|life| life.opener);
        if CLOSING.contains(&operation.name) {
            lives.end();
        }
    }
}
