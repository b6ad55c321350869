//! The folder that relative paths are in: the process's working folder when the recording began, and
//! what it changed to since. It must not look at any file.

use std::collections::HashMap;

use formats::capture::Holding;

use super::operations::Operation;

/// What `chdir` is called.
pub(super) const CHANGE: &str = "chdir";
/// What looks for a name without a slash in other folders.
const SEARCHES: &str = "dlopen";
/// Operations whose first path is the text of a link.
const NOT_PATHS: [&str; 2] = ["symlink", "create_symlink"];
/// What /proc puts behind the path of something that has been removed (proc(5)).
const REMOVED: &[u8] = b" (deleted)";

/// A working folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    path: Vec<u8>,
    /// No part of the path is a link, so that `..` can be told without looking.
    is_plain: bool,
}

impl Folder {
    /// Its path.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// A path in this folder; `None` for what is not relative.
    #[must_use]
    pub fn resolve(&self, path: &[u8]) -> Option<Vec<u8>> {
        (!path.is_empty() && !path.starts_with(b"/")).then(|| self.join(path).0)
    }

    /// The path, and whether all of it was going up.
    fn join(&self, mut path: &[u8]) -> (Vec<u8>, bool) {
        let mut folder = self.path.as_slice();
        while let Some((first, rest)) = first_name(path) {
            match first {
                b"." => {}
                b".." if self.is_plain => {
                    let above = folder.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
                    folder = folder.get(..above).unwrap_or_default();
                }
                _ => break,
            }
            path = rest;
        }
        let slash: &[u8] = if folder.ends_with(b"/") && !path.is_empty() { b"" } else { b"/" };
        match (folder, path) {
            (b"", b"") => (b"/".to_vec(), true),
            (folder, b"") => (folder.to_vec(), true),
            (folder, path) => ([folder, slash, path].concat(), false),
        }
    }

    /// What `chdir(path)` leads to.
    fn change(&self, path: &[u8]) -> Self {
        let (path, went_up) = self.join(path);
        Self { path, is_plain: self.is_plain && went_up }
    }
}

/// The first name of a relative path, and what follows it.
fn first_name(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    let end = path.iter().position(|&byte| byte == b'/').unwrap_or(path.len());
    let (first, rest) = path.split_at_checked(end)?;
    let next = rest.iter().position(|&byte| byte != b'/').unwrap_or(rest.len());
    Some((first, rest.get(next..)?))
}

/// Tells each operation the folder it was in, and gives the folders. `operations` are in the order of
/// their beginning.
pub(super) fn assign<'h>(
    operations: &mut [Operation<'_>],
    holdings: impl Iterator<Item = &'h Holding>,
) -> Vec<Folder> {
    let looks = holdings.filter(|holding| holding.number == 0);
    let looks: HashMap<u32, &Holding> = looks.map(|holding| (holding.process, holding)).collect();
    let ended = |change: &Operation<'_>| {
        change.start_ns.saturating_add(change.latency_ns.unwrap_or_default())
    };
    let changes = |o: &Operation<'_>| o.name == CHANGE && o.result.is_some_and(|r| r >= 0);
    // /proc was read when the probes were armed: what had been changed by then is in what it said.
    let mut since: HashMap<u32, u64> = HashMap::new();
    for change in operations.iter().filter(|operation| changes(operation)) {
        if looks.get(&change.process).is_some_and(|look| ended(change) <= look.time_ns) {
            since.insert(change.process, ended(change));
        }
    }
    let mut folders = Vec::new();
    let mut current: HashMap<u32, u32> = HashMap::new();
    let mut begun: HashMap<u32, u32> = HashMap::new();
    for operation in operations {
        let process = operation.process;
        let from = since.get(&process).copied().unwrap_or(0);
        if let Some(look) = looks.get(&process).filter(|_| operation.start_ns >= from)
            && !begun.contains_key(&process)
        {
            let known = look.target.starts_with(b"/") && !look.target.ends_with(REMOVED);
            begun.insert(process, folders.len() as u32);
            if known {
                current.insert(process, folders.len() as u32);
                folders.push(Folder { path: look.target.clone(), is_plain: true });
            }
        }
        let at = current.get(&process).copied();
        let is_path = |path: &[u8]| match operation.name {
            SEARCHES => path.contains(&b'/'),
            name => !NOT_PATHS.contains(&name),
        };
        if operation.descriptor.is_none()
            && operation.folder.is_none()
            && operation.path.is_some_and(is_path)
        {
            operation.folder = at;
        }
        if !changes(operation) || operation.start_ns < from {
            continue;
        }
        let path = operation.path.unwrap_or_default();
        let before = at.and_then(|at| folders.get(at as usize));
        let next = match (path, before) {
            ([b'/', ..], _) => Some(Folder { path: path.to_vec(), is_plain: false }),
            ([_, ..], Some(before)) => Some(Folder::change(before, path)),
            _ => None,
        };
        match next {
            Some(next) if Some(&next) == before => {}
            Some(next) => {
                current.insert(process, folders.len() as u32);
                folders.push(next);
            }
            None => drop(current.remove(&process)),
        }
    }
    folders
}

#[cfg(test)]
#[path = "folders_tests.rs"]
mod tests;
