//! What an operation on an open file or directory is about: the path that it was opened by.
//!
//! The result of an open is seen late: Node runs the callback, which may use the descriptor, before
//! it gives up the request. So a descriptor belongs to an open from the open's *beginning* on (where it is
//! seen, that of the pool thread's work), unless an earlier open of the same number has not been closed yet. Descriptors from before the recording
//! are what /proc said of them when it began, unless a recorded open can have given them.

use std::collections::{HashMap, HashSet, VecDeque};

use formats::capture::Holding;

use super::operations::Operation;

/// Operations that give a handle, and those that take it away.
pub(super) const OPENING: [&str; 2] = ["open", "opendir"];
pub(super) const CLOSING: [&str; 2] = ["close", "closedir"];

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
    /// Place of the operation that opened it; `None` for one from before the recording.
    opener: Option<usize>,
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
        // What gives a number away that was taken says that it had been closed: a socket, whose end
        // is not seen here, or a file by something that is not libuv.
        if self.current.is_none_or(|current| current.opener.is_none()) {
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

/// What is open when all operations have begun.
#[derive(Debug, Default)]
pub(super) struct Alive {
    /// By the places of the operations that opened it.
    pub(super) openers: HashSet<usize>,
    /// From before the recording: process and descriptor.
    pub(super) held: HashSet<(u32, i64)>,
}

/// Gives operations on handles their paths, and tells what is open then. `addresses` are what opening a directory gave, by the
/// operation's place; `operations` are in the order of their beginning.
pub(super) fn name<'c>(
    operations: &mut [Operation<'c>],
    addresses: &HashMap<usize, u64>,
    holdings: impl Iterator<Item = &'c Holding> + Clone,
) -> Alive {
    let mut lives: HashMap<Handle, Lives<'c>> = HashMap::new();
    let mut held = held(operations, holdings);
    let mut order: Vec<(u64, usize)> = operations
        .iter()
        .enumerate()
        .map(|(place, operation)| (moment(operation), place))
        .collect();
    order.sort_unstable();
    for (moment_ns, place) in order {
        let Some(operation) = operations.get_mut(place) else { continue };
        while let Some((_, handle, life)) = held.pop_if(|(from, ..)| *from <= moment_ns) {
            lives.entry(handle).or_default().begin(life);
        }
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
            lives.advance(moment_ns);
            lives.begin(Life { path: operation.path, opener: Some(place), known_ns });
            continue;
        }
        let file = operation.descriptor.map(|number| Handle::File(operation.process, number));
        let directory = || Some(Handle::Directory(operation.process, operation.directory?));
        let Some(handle) = file.or_else(directory) else { continue };
        let Some(lives) = lives.get_mut(&handle) else { continue };
        lives.advance(moment_ns);
        operation.path = lives.current.and_then(|life| life.path);
        operation.opened_by = lives.current.and_then(|life| life.opener);
        operation.path_from_proc = lives.current.is_some_and(|life| life.opener.is_none());
        if CLOSING.contains(&operation.name) {
            lives.end();
        }
    }
    let mut alive = Alive::default();
    let known = lives.iter().flat_map(|(handle, lives)| {
        lives.current.iter().chain(&lives.next).map(move |life| (*handle, *life))
    });
    for (handle, life) in known.chain(held.into_iter().map(|(_, handle, life)| (handle, life))) {
        match (life.opener, handle) {
            (Some(place), _) => drop(alive.openers.insert(place)),
            (None, Handle::File(process, number)) => drop(alive.held.insert((process, number))),
            (None, Handle::Directory(..)) => {}
        }
    }
    alive
}

/// When an operation is certain not to have given or taken a handle before: one that waits for a pool thread
/// has done nothing yet, and its number may be another file's meanwhile.
fn moment(operation: &Operation<'_>) -> u64 {
    let changes = OPENING.contains(&operation.name) || CLOSING.contains(&operation.name);
    let waited = operation.parts.queue_ns.filter(|_| changes);
    operation.start_ns.saturating_add(waited.unwrap_or(0))
}

/// The handles from before the recording, with the time from which each is certainly what /proc said;
/// the first one last.
///
/// /proc was read when the probes were armed, so that a number can be that of a recorded open. One that
/// was closed before is another one now.
fn held<'c>(
    operations: &[Operation<'_>],
    holdings: impl Iterator<Item = &'c Holding> + Clone,
) -> Vec<(u64, Handle, Life<'c>)> {
    let looked: HashMap<u32, u64> = holdings.clone().map(|h| (h.process, h.time_ns)).collect();
    let (mut opened, mut closed) = (HashSet::new(), HashSet::new());
    for operation in operations {
        let before = looked.get(&operation.process).is_some_and(|&at| operation.start_ns < at);
        let given = operation.result.filter(|&result| operation.is_open() && result >= 0);
        if let Some(number) = given.filter(|_| before) {
            opened.insert(Handle::File(operation.process, number));
        }
        if let Some(number) = operation.descriptor.filter(|_| before)
            && CLOSING.contains(&operation.name)
        {
            let handle = Handle::File(operation.process, number);
            // An open that is closed has nothing to do with what is there later.
            opened.remove(&handle);
            closed.insert(handle);
        }
    }
    let life = |holding: &'c Holding| {
        let number = holding.number.checked_sub(1)?;
        let handle = Handle::File(holding.process, i64::from(number));
        let from = if closed.contains(&handle) { holding.time_ns } else { 0 };
        let path = Some(holding.target.as_slice());
        (!opened.contains(&handle)).then_some((
            from,
            handle,
            Life { path, opener: None, known_ns: from },
        ))
    };
    let mut held: Vec<_> = holdings.filter_map(life).collect();
    held.sort_by_key(|&(from, ..)| std::cmp::Reverse(from));
    held
}
