//! File operations by the path they were about, and by the line of the program that asked for them.
//! It must not know how that line was found.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use super::operations::{Latency, OpenCount, PathFilter};
use crate::asked::{self, Askers};
use crate::join::errno;
use crate::join::operations::{Operation, Operations};
use crate::profile::{FrameId, Profile, ResolvedFrame, ResolvedStackId};

/// A call at a line of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CallSite {
    /// The call, for [`Askers::name`].
    pub call: Option<u32>,
    /// The line.
    pub line: Option<FrameId>,
}

/// Operations taken together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sum {
    /// How often each was done.
    pub names: BTreeMap<&'static str, u64>,
    /// All together.
    pub opens: OpenCount,
    /// Those that belong here by their descriptor only, not by their own stack.
    pub by_descriptor: u64,
    /// Failures by errno name.
    pub errors: BTreeMap<Cow<'static, str>, u64>,
    /// Bytes read or written.
    pub bytes: Option<u64>,
    /// Their latencies together, nanoseconds. Those of operations at the same time are added.
    pub total_ns: u64,
    /// Of that, in operations for which the thread stood still.
    pub blocked_ns: u64,
    /// Processes that did it, by their id; those that are known.
    pub pids: BTreeSet<u32>,
}

impl Sum {
    fn add(&mut self, operation: &Operation<'_>, is_inferred: bool) {
        self.by_descriptor += u64::from(is_inferred);
        *self.names.entry(operation.name).or_default() += 1;
        self.opens.add(operation);
        if let Some(number) = operation.errno() {
            *self.errors.entry(errno::name(number)).or_default() += 1;
        }
        if let Some(bytes) = operation.bytes() {
            self.bytes = Some(self.bytes.unwrap_or_default().saturating_add(bytes));
        }
        let took = operation.latency_ns.unwrap_or_default();
        self.total_ns = self.total_ns.saturating_add(took);
        if operation.asynchronous == Some(false) {
            self.blocked_ns = self.blocked_ns.saturating_add(took);
        }
        self.pids.extend(Some(operation.pid).filter(|&pid| pid > 0));
    }
}

/// All that was done to one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRow<'c> {
    /// The path; `None` where it is not known.
    pub path: Option<&'c [u8]>,
    /// The second path.
    pub new_path: Option<&'c [u8]>,
    /// Whether the path is not known because its open was not seen.
    pub by_handle: bool,
    /// What was done.
    pub sum: Sum,
    /// Of the operations with a result.
    pub latency: Option<Latency>,
    /// Who did it, the most frequent first.
    pub askers: Vec<(CallSite, Sum)>,
}

/// Operations that fit, without module resolution unless the filter opens it.
fn chosen<'o, 'c>(
    joined: &'o Operations<'c>,
    askers: &'o Askers,
    filter: &'o PathFilter,
    profile: &'o Profile,
) -> impl Iterator<Item = (&'o Operation<'c>, CallSite, bool)> {
    // Stacks are few beside operations.
    let mut lines: HashMap<ResolvedStackId, Option<FrameId>> = HashMap::new();
    let mut same: HashMap<ResolvedFrame, FrameId> = HashMap::new();
    joined.operations.iter().enumerate().filter_map(move |(place, operation)| {
        let asked = askers.get(place);
        let shown = filter.opens_modules() || asked.folded.is_none();
        let stack = asked.stack();
        let line = *lines.entry(stack).or_insert_with(|| {
            let line = asked::line(profile, stack)?;
            // Whether V8 has inlined it makes no other line of it.
            let frame = ResolvedFrame { inlined: false, ..profile.get(line)?.clone() };
            Some(*same.entry(frame).or_insert(line))
        });
        let site = CallSite { call: asked.call, line };
        let takes = shown && filter.takes(operation, &joined.folders);
        takes.then_some((operation, site, asked.asker.is_some()))
    })
}

/// Groups in the order of their first member.
struct Groups<K, V> {
    places: HashMap<K, usize>,
    all: Vec<(K, V)>,
}

impl<K: Copy + Eq + Hash, V: Default> Groups<K, V> {
    fn new() -> Self {
        Self { places: HashMap::new(), all: Vec::new() }
    }

    fn with(&mut self, key: K, change: impl FnOnce(&mut V)) {
        let next = self.all.len();
        let place = *self.places.entry(key).or_insert(next);
        if place == next {
            self.all.push((key, V::default()));
        }
        if let Some((_key, value)) = self.all.get_mut(place) {
            change(value);
        }
    }
}

/// By path, the most operations first.
#[must_use]
pub fn by_path<'c>(
    joined: &Operations<'c>,
    askers: &Askers,
    filter: &PathFilter,
    profile: &Profile,
) -> Vec<PathRow<'c>> {
    struct Row {
        sum: Sum,
        latencies: Vec<u64>,
        askers: Groups<CallSite, Sum>,
    }
    impl Default for Row {
        fn default() -> Self {
            Self { sum: Sum::default(), latencies: Vec::new(), askers: Groups::new() }
        }
    }
    let mut groups: Groups<_, Row> = Groups::new();
    for (operation, site, is_inferred) in chosen(joined, askers, filter, profile) {
        let by_handle = operation.path.is_none()
            && (operation.descriptor.is_some() || operation.directory.is_some());
        groups.with((operation.path, operation.new_path, by_handle), |row| {
            row.sum.add(operation, is_inferred);
            row.latencies.extend(operation.latency_ns);
            row.askers.with(site, |sum| sum.add(operation, is_inferred));
        });
    }
    let mut rows: Vec<PathRow<'c>> = groups
        .all
        .into_iter()
        .map(|((path, new_path, by_handle), row)| {
            let mut askers = row.askers.all;
            askers.sort_by_key(|(_site, sum)| Reverse(sum.opens.count));
            let (sum, latency) = (row.sum, Latency::of(row.latencies));
            PathRow { path, new_path, by_handle, sum, latency, askers }
        })
        .collect();
    rows.sort_by_key(|row| (Reverse(row.sum.opens.count), row.path, row.new_path));
    rows
}

/// By call and line of the program, those first that took the most time.
#[must_use]
pub fn by_call(
    joined: &Operations<'_>,
    askers: &Askers,
    filter: &PathFilter,
    profile: &Profile,
) -> Vec<(CallSite, Sum)> {
    let mut groups: Groups<CallSite, Sum> = Groups::new();
    for (operation, site, is_inferred) in chosen(joined, askers, filter, profile) {
        groups.with(site, |sum| sum.add(operation, is_inferred));
    }
    let mut rows = groups.all;
    rows.sort_by_key(|(_site, sum)| Reverse((sum.total_ns, sum.opens.count)));
    rows
}

/// The slowest operations that fit, by their place; the slowest first, at most `limit`.
#[must_use]
pub fn slowest(joined: &Operations<'_>, filter: &PathFilter, limit: usize) -> Vec<usize> {
    let operations = &joined.operations;
    let mut places: Vec<usize> = (0..operations.len())
        .filter(|&place| {
            let operation = operations.get(place);
            operation.is_some_and(|o| o.latency_ns.is_some() && filter.takes(o, &joined.folders))
        })
        .collect();
    let took = |place: &usize| operations.get(*place).and_then(|o| o.latency_ns);
    places.sort_by_key(|place| (Reverse(took(place)), *place));
    places.truncate(limit);
    places
}
