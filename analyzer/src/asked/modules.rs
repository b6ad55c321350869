//! Module resolution: which operations are part of it, how many modules came of it, and which were not
//! found. It must not know how a stack reads, only who asked.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::Asked;
use crate::aggregate::operations::OpenCount;
use crate::join::operations::Operation;
use crate::profile::{FrameId, Profile, ResolvedFrame, ResolvedStackId};

/// How it is known that an operation is a part of module resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Folded {
    /// Node's module loader is in its stack.
    ByStack,
    /// It is about a file that the loader opened.
    ByHandle,
    /// No stack was taken of it, and the loader did the same to the same path, or to one below
    /// `node_modules`.
    ByPath,
}

impl Folded {
    /// The value of `folded_by` in JSON.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::ByStack => "stack",
            Self::ByHandle => "descriptor",
            Self::ByPath => "path",
        }
    }
}

/// Modules that one place of the program asked for and did not get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Stack that asked.
    pub stack: ResolvedStackId,
    /// Index into [`super::Askers`]' rows: one of its operations, whose call is that of all.
    pub place: usize,
    /// How often.
    pub count: u64,
    /// Paths that were tried at the first time, in their order, each once.
    pub tried: Vec<Vec<u8>>,
}

/// All of module resolution.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Modules {
    /// The operations.
    pub operations: OpenCount,
    /// Of these, the ones without a stack of their own.
    pub concluded: u64,
    /// Files that were loaded.
    pub files: u64,
    /// What was not found.
    pub missing: Vec<Missing>,
}

/// Steps of the loader that look for a file; the last one of a search tells whether it was found.
const LOOKING: [&str; 4] = ["stat", "lstat", "readlink", "realpath"];
/// How the names of files end that are loaded as modules.
const ENDINGS: [&[u8]; 6] = [b".js", b".cjs", b".mjs", b".json", b".node", b".ts"];
const PACKAGE: &[u8] = b"package.json";
const FOLDER: &[u8] = b"/node_modules";
/// Where a module without a path is looked for at last (Node's `Module._initPaths`).
const LAST_FOLDERS: [&[u8]; 3] = [b"/.node_modules", b"/.node_libraries", b"/lib/node"];

/// Decides on the operations of which no stack was taken because there were too many at once. What
/// failed is only folded where nobody but the loader is known to look.
pub(super) fn conclude(operations: &[Operation<'_>], taken: &[bool], rows: &mut [Asked]) {
    let mut by_path: HashMap<(&str, Option<&[u8]>), bool> = HashMap::new();
    let mut any = false;
    let with_stack = operations.iter().zip(&*rows).zip(taken).filter(|(_row, taken)| **taken);
    for ((operation, asked), _taken) in with_stack {
        let folded = asked.folded.is_some();
        any |= folded;
        let all = by_path.entry((operation.name, operation.path)).or_insert(true);
        *all &= folded;
    }
    if !any {
        return;
    }
    for place in 0..operations.len() {
        let Some(operation) = operations.get(place).filter(|_| taken.get(place) == Some(&false))
        else {
            continue;
        };
        let folded = if let Some(opener) = operation.opened_by {
            rows.get(opener).and_then(|opener| opener.folded).map(|_| Folded::ByHandle)
        } else {
            let known = by_path.get(&(operation.name, operation.path)).copied();
            known.unwrap_or_else(|| is_likely(operation)).then_some(Folded::ByPath)
        };
        if let Some(asked) = rows.get_mut(place) {
            asked.folded = folded;
        }
    }
}

/// Whether an operation without a stack is what the loader does.
fn is_likely(operation: &Operation<'_>) -> bool {
    let Some(path) = operation.path.filter(|_| operation.asynchronous == Some(false)) else {
        return false;
    };
    let is_inside = path.windows(FOLDER.len() + 1).any(|part| part == b"/node_modules/");
    let is_package = path.ends_with(PACKAGE);
    match operation.name {
        "stat" => is_inside || path.ends_with(FOLDER),
        "lstat" => operation.errno().is_none() && (is_inside || path.ends_with(FOLDER)),
        "open" if operation.errno().is_none() => is_inside && (is_package || is_module_file(path)),
        "open" => is_package,
        _ => false,
    }
}

fn is_module_file(path: &[u8]) -> bool {
    ENDINGS.iter().any(|ending| path.ends_with(ending))
}

fn is_package(operation: &Operation<'_>) -> bool {
    operation.path.is_some_and(|path| path.ends_with(PACKAGE))
}

/// What is known of the paths of each process, whoever found out. The loader remembers for a while what it
/// has looked at, and does not look again.
#[derive(Default)]
struct Seen<'c> {
    there: HashSet<(u32, &'c [u8])>,
    missing: HashSet<(u32, &'c [u8])>,
}

impl<'c> Seen<'c> {
    fn of(operations: &[Operation<'c>]) -> Self {
        let mut seen = Self::default();
        for operation in operations {
            let Some(path) = operation.path.filter(|_| operation.opened_by.is_none()) else {
                continue;
            };
            match operation.errno() {
                Some(_) => seen.missing.insert((operation.process, path)),
                None => operation.result.is_some() && seen.there.insert((operation.process, path)),
            };
        }
        seen
    }

    /// Whether a search that ended with a path that is not there has found nothing.
    fn has_failed(&self, process: u32, tried: &[Vec<u8>]) -> bool {
        let is_last = |folder: &[u8]| tried.last().is_some_and(|path| path.ends_with(folder));
        let is_to_the_end = LAST_FOLDERS.iter().any(|folder| is_last(folder));
        let mut candidates = tried.iter().filter(|path| !is_module_folder(path)).peekable();
        if candidates.peek().is_none() {
            return is_to_the_end;
        }
        candidates.all(|path| {
            let stem = ENDINGS.iter().find_map(|ending| path.strip_suffix(*ending));
            let stem = stem.unwrap_or(path);
            let all = |set: &HashSet<(u32, &[u8])>| {
                ENDINGS.iter().any(|ending| set.contains(&(process, &[stem, *ending].concat()[..])))
            };
            let is_there = self.there.contains(&(process, stem)) || all(&self.there);
            !is_there && (is_to_the_end || all(&self.missing))
        })
    }
}

/// Whether modules are looked for in a folder of this name: its absence says nothing of one module.
#[must_use]
pub fn is_module_folder(path: &[u8]) -> bool {
    path.ends_with(FOLDER) || LAST_FOLDERS.iter().any(|folder| path.ends_with(folder))
}

/// A search that is under way on a thread.
struct Search {
    asker: ResolvedStackId,
    call: Option<u32>,
    process: u32,
    place: usize,
    found: bool,
    is_loading: bool,
    /// Whether every step has a stack.
    is_whole: bool,
    tried: Vec<Vec<u8>>,
}

impl Modules {
    pub(super) fn of(
        operations: &[Operation<'_>],
        rows: &[Asked],
        taken: &[bool],
        profile: &Profile,
    ) -> Self {
        let folded = || operations.iter().zip(rows).filter(|(_, asked)| asked.folded.is_some());
        let is_concluded = |(asked, taken): &(&Asked, &bool)| asked.folded.is_some() && !**taken;
        let files: HashSet<_> = folded()
            .map(|(operation, _)| operation)
            .filter(|o| o.is_open() && !is_package(o) && o.result.is_some_and(|fd| fd >= 0))
            .map(|operation| operation.path)
            .collect();
        let mut modules = Self {
            operations: OpenCount::of(folded().map(|(operation, _)| operation)),
            concluded: rows.iter().zip(taken).filter(is_concluded).count() as u64,
            files: files.len() as u64,
            missing: Vec::new(),
        };
        let mut searches: HashMap<(u32, u32), Search> = HashMap::new();
        let seen = Seen::of(operations);
        let mut missing = Found { profile, seen, places: HashMap::new(), all: Vec::new() };
        for (place, (operation, asked)) in operations.iter().zip(rows).enumerate() {
            let thread = (operation.process, operation.tid);
            let Some(how) = asked.folded else { continue };
            if taken.get(place) == Some(&false) || how == Folded::ByPath {
                // What was found may be in it.
                if let Some(search) = searches.get_mut(&thread) {
                    search.is_whole = false;
                }
                continue;
            }
            let asker = program(profile, asked.stack());
            let is_looking = LOOKING.contains(&operation.name);
            let goes_on = searches.get(&thread).is_some_and(|search| {
                // The same from its beginning: it has failed, and is asked for again.
                let is_again = search.tried.first().map(Vec::as_slice) == operation.path;
                let is_new = is_looking && (search.is_loading || is_again);
                (search.asker, search.call) == (asker, asked.call) && !is_new
            });
            if !goes_on {
                let search = Search {
                    asker,
                    call: asked.call,
                    process: operation.process,
                    place,
                    found: true,
                    is_loading: false,
                    is_whole: true,
                    tried: Vec::new(),
                };
                missing.extend(searches.insert(thread, search));
            }
            let Some(search) = searches.get_mut(&thread) else { continue };
            if is_looking && operation.result.is_some() {
                search.found = operation.errno().is_none();
                let path = operation.path.unwrap_or_default().to_vec();
                if !search.found && !search.tried.contains(&path) {
                    search.tried.push(path);
                }
            } else if operation.is_open() && !is_package(operation) {
                search.found = operation.errno().is_none();
                search.is_loading = true;
            }
        }
        let mut rest: Vec<Search> = searches.into_values().collect();
        rest.sort_by_key(|search| search.place);
        for search in rest {
            missing.extend(Some(search));
        }
        modules.missing = missing.all;
        modules
    }
}

/// What was not found, by the place of the program that asked.
struct Found<'p, 'c> {
    profile: &'p Profile,
    seen: Seen<'c>,
    places: HashMap<(Option<FrameId>, BTreeSet<Vec<u8>>), usize>,
    all: Vec<Missing>,
}

impl Found<'_, '_> {
    fn extend(&mut self, search: Option<Search>) {
        let is_vain = |search: &Search| {
            let Search { found, is_whole, process, ref tried, .. } = *search;
            !found && is_whole && self.seen.has_failed(process, tried)
        };
        let Some(search) = search.filter(is_vain) else { return };
        let frame = self.profile.node(search.asker).map(|(_, frame)| frame);
        let tried: BTreeSet<Vec<u8>> = search.tried.iter().cloned().collect();
        let place = *self.places.entry((frame, tried)).or_insert(self.all.len());
        match self.all.get_mut(place) {
            Some(missing) => missing.count += 1,
            None => self.all.push(Missing {
                stack: search.asker,
                place: search.place,
                count: 1,
                tried: search.tried,
            }),
        }
    }
}

/// The part of a stack from the program's innermost frame outwards.
fn program(profile: &Profile, stack: ResolvedStackId) -> ResolvedStackId {
    let mut at = stack;
    while let Some((parent, frame)) = profile.node(at) {
        if profile.get(frame).is_some_and(ResolvedFrame::is_application) {
            return at;
        }
        at = parent;
    }
    at
}
