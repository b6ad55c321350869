//! File operations by what they did to which path: how many, how many failed and how, how long they
//! took, how many bytes they moved, and which stacks asked for them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::glob::Glob;
use crate::asked::{Asked, Askers};
use crate::join::errno;
use crate::join::folders::Folder;
use crate::join::operations::Operation;

/// Time from the call to the result, nanoseconds. Percentiles are exact (nearest rank).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// Half took at most this long.
    pub p50: u64,
    /// 99 of 100 took at most this long.
    pub p99: u64,
    /// The longest.
    pub max: u64,
}

impl Latency {
    pub(super) fn of(mut values: Vec<u64>) -> Option<Self> {
        values.sort_unstable();
        let rank = |percent: usize| values.get((values.len() * percent).div_ceil(100).max(1) - 1);
        Some(Self { p50: *rank(50)?, p99: *rank(99)?, max: *values.last()? })
    }
}

/// How often something was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenCount {
    /// All operations.
    pub count: u64,
    /// Those with an error.
    pub failed: u64,
    /// Those without a result in the capture.
    pub pending: u64,
    /// Those that blocked the calling thread.
    pub synchronous: u64,
    /// Those that a pool thread did.
    pub asynchronous: u64,
}

impl OpenCount {
    /// Adds what another count has counted.
    pub fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.failed += other.failed;
        self.pending += other.pending;
        self.synchronous += other.synchronous;
        self.asynchronous += other.asynchronous;
    }

    /// Counts operations.
    #[must_use]
    pub fn of<'o, 'c: 'o>(operations: impl IntoIterator<Item = &'o Operation<'c>>) -> Self {
        let mut count = Self::default();
        for operation in operations {
            count.add(operation);
        }
        count
    }

    /// Counts one more.
    pub fn add(&mut self, operation: &Operation<'_>) {
        self.count += 1;
        self.failed += u64::from(operation.errno().is_some());
        self.pending += u64::from(operation.result.is_none());
        self.synchronous += u64::from(operation.asynchronous == Some(false));
        self.asynchronous += u64::from(operation.asynchronous == Some(true));
    }
}

/// Who did it, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenStack {
    /// The stack, and what is known by it.
    pub asked: Asked,
    /// How often.
    pub opens: OpenCount,
}

/// What was done to one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathOperations<'c> {
    /// What was done: `open`, `stat`, ….
    pub operation: &'static str,
    /// Whether it was done to an open file or directory, whose path is the one it was opened by.
    pub by_handle: bool,
    /// The path as the target gave it; `None` where the kernel could not read it, or where the open
    /// was not seen.
    pub path: Option<&'c [u8]>,
    /// The second path of a rename, link or copy.
    pub new_path: Option<&'c [u8]>,
    /// Bytes read or written.
    pub bytes: Option<u64>,
    /// How often.
    pub opens: OpenCount,
    /// Failures by errno name.
    pub errors: BTreeMap<Cow<'static, str>, u64>,
    /// How many of them are steps of module resolution.
    pub folded: u64,
    /// Of the opens with a result.
    pub latency: Option<Latency>,
    /// Processes that opened it, by their id; those that are known.
    pub pids: Vec<u32>,
    /// The stacks, the most frequent first.
    pub stacks: Vec<OpenStack>,
}

/// Which operations to keep.
#[derive(Debug, Clone, Default)]
pub struct PathFilter {
    /// Only paths that fit.
    pub glob: Option<Glob>,
    /// Only paths of which an operation failed, and of those only the stacks that failed.
    pub failed: bool,
    /// Only operations that took at least so long, nanoseconds.
    pub slow_ns: Option<u64>,
    /// Module resolution in full.
    pub modules: bool,
}

impl PathFilter {
    /// Whether it can leave anything out.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.glob.is_some() || self.failed || self.slow_ns.is_some()
    }

    /// Whether module resolution is shown in full: who names a path wants to see it.
    #[must_use]
    pub fn opens_modules(&self) -> bool {
        self.modules || self.glob.is_some()
    }

    /// Whether path and latency of an operation fit.
    #[must_use]
    pub fn fits(&self, operation: &Operation<'_>, folders: &[Folder]) -> bool {
        let mut paths = [operation.path, operation.new_path].into_iter().flatten();
        // As it was given, or where it is.
        let matches = |glob: &Glob, path: &[u8]| {
            let resolved = || operation.resolved(path, folders);
            glob.matches(path) || resolved().is_some_and(|path| glob.matches(&path))
        };
        let long_enough = |least| operation.latency_ns.is_some_and(|took| took >= least);
        self.glob.as_ref().is_none_or(|glob| paths.any(|path| matches(glob, path)))
            && self.slow_ns.is_none_or(long_enough)
    }

    /// Whether the operation fits by itself: path, latency and result.
    #[must_use]
    pub fn takes(&self, operation: &Operation<'_>, folders: &[Folder]) -> bool {
        self.fits(operation, folders) && (!self.failed || operation.errno().is_some())
    }
}

/// What one line of a table is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key<'c> {
    operation: &'static str,
    by_handle: bool,
    path: Option<&'c [u8]>,
    new_path: Option<&'c [u8]>,
    is_folded: bool,
}

/// Operations by what they did and the path, the most frequent first. `split`: those that are steps
/// of module resolution are apart from those of the program.
#[must_use]
pub fn by_operation<'c>(
    operations: &[Operation<'c>],
    folders: &[Folder],
    askers: &Askers,
    filter: &PathFilter,
    split: bool,
) -> Vec<PathOperations<'c>> {
    let mut groups: HashMap<Key<'c>, Group> = HashMap::new();
    for (place, operation) in operations.iter().enumerate() {
        if !filter.fits(operation, folders) {
            continue;
        }
        let asked = askers.get(place);
        let key = Key {
            operation: operation.name,
            by_handle: operation.descriptor.is_some() || operation.directory.is_some(),
            path: operation.path,
            new_path: operation.new_path,
            is_folded: split && asked.folded.is_some(),
        };
        groups.entry(key).or_default().add(operation, asked);
    }
    let mut paths: Vec<PathOperations<'c>> = groups
        .into_iter()
        .filter(|(_key, group)| !filter.failed || group.opens.failed > 0)
        .map(|(key, group)| group.finish(key, filter.failed))
        .collect();
    let place = |row: &PathOperations<'c>| (row.path, row.operation, row.new_path);
    let order = |row: &PathOperations<'c>| (std::cmp::Reverse(row.opens.count), row.folded);
    paths.sort_by(|a, b| order(a).cmp(&order(b)).then_with(|| place(a).cmp(&place(b))));
    paths
}

#[derive(Default)]
struct Group {
    opens: OpenCount,
    errors: BTreeMap<Cow<'static, str>, u64>,
    latencies: Vec<u64>,
    pids: BTreeSet<u32>,
    bytes: Option<u64>,
    folded: u64,
    /// With the place in the order of first occurrence.
    stacks: HashMap<Asked, (usize, OpenCount)>,
}

impl Group {
    fn add(&mut self, operation: &Operation<'_>, asked: Asked) {
        self.opens.add(operation);
        self.folded += u64::from(asked.folded.is_some());
        let next = self.stacks.len();
        self.stacks.entry(asked).or_insert((next, OpenCount::default())).1.add(operation);
        self.latencies.extend(operation.latency_ns);
        if let Some(bytes) = operation.bytes() {
            self.bytes = Some(self.bytes.unwrap_or_default().saturating_add(bytes));
        }
        self.pids.extend(Some(operation.pid).filter(|&pid| pid > 0));
        if let Some(number) = operation.errno() {
            *self.errors.entry(errno::name(number)).or_default() += 1;
        }
    }

    fn finish(self, key: Key<'_>, failed: bool) -> PathOperations<'_> {
        let Key { operation, by_handle, path, new_path, is_folded: _ } = key;
        let Self { opens, errors, latencies, pids, bytes, folded, stacks } = self;
        let mut stacks: Vec<(usize, OpenStack)> = stacks
            .into_iter()
            .map(|(asked, (first, opens))| (first, OpenStack { asked, opens }))
            .filter(|(_first, stack)| !failed || stack.opens.failed > 0)
            .collect();
        stacks.sort_by_key(|&(first, stack)| (std::cmp::Reverse(stack.opens.count), first));
        let stacks = stacks.into_iter().map(|(_first, stack)| stack).collect();
        let (latency, pids) = (Latency::of(latencies), pids.into_iter().collect());
        PathOperations {
            operation,
            by_handle,
            path,
            new_path,
            bytes,
            opens,
            errors,
            folded,
            latency,
            pids,
            stacks,
        }
    }
}

#[cfg(test)]
mod tests {
    use formats::capture::Frame;

    use super::*;
    use crate::join::operations::join;
    use crate::testing::CaptureBuilder;

    #[test]
    fn percentiles_are_exact() {
        let of = |values: Vec<u64>| Latency::of(values).map(|l| (l.p50, l.p99, l.max));
        assert_eq!(of(vec![]), None);
        assert_eq!(of(vec![7]), Some((7, 7, 7)));
        assert_eq!(of(vec![9, 1]), Some((1, 9, 9)));
        assert_eq!(of((1..=100).collect()), Some((50, 99, 100)));
        assert_eq!(of((1..=1000).rev().collect()), Some((500, 990, 1000)));
    }

    #[test]
    fn paths_are_counted_with_their_stacks() {
        let mut build = CaptureBuilder::new();
        let t = build.process(10, &[10])[0];
        build.jit(0, 0, &[(0x1000, 16, b"JS:~a /a.js:1:1"), (0x2000, 16, b"JS:~b /a.js:2:1")]);
        let jit = |address| Frame::Jit { process: 0, address, call: false };
        let (a, b) = (build.stack(&[jit(0x1000)]), build.stack(&[jit(0x2000)]));
        for n in 0..10u64 {
            build.open(t, 100 + n * 10, 1, "/some", false, if n < 4 { a } else { b });
            build.cleanup(t, 101 + n * 11, 1, if n < 3 { -2 } else { 9 });
        }
        let other = build.process(20, &[20])[0];
        build.open(t, 300, 2, "/fine", true, a);
        build.cleanup(t, 310, 2, 4);
        build.open(other, 320, 3, "/fine", true, a);
        let capture = build.finish();
        let operations = join(&capture).operations;
        let none = crate::source_map::Originals::default();
        let mut s = crate::symbolise::Symboliser::new(&capture, &none);
        let askers = Askers::of(&operations, &mut s);
        let by_operation =
            |filter: &PathFilter| by_operation(&operations, &[], &askers, filter, false);
        let all = by_operation(&PathFilter::default());
        assert_eq!(all.len(), 2);
        let some = &all[0];
        assert_eq!(
            (some.path, some.opens.count, some.opens.failed),
            (Some(b"/some".as_slice()), 10, 3)
        );
        assert_eq!((some.opens.synchronous, some.opens.asynchronous), (10, 0));
        assert_eq!(some.errors.get("ENOENT"), Some(&3));
        assert_eq!(some.latency, Some(Latency { p50: 5, p99: 10, max: 10 }));
        let stacks: Vec<_> = some.stacks.iter().map(|s| (s.opens.count, s.opens.failed)).collect();
        assert_eq!(stacks, [(6, 0), (4, 3)]);
        assert_eq!((all[1].opens.pending, all[1].opens.asynchronous), (1, 2));
        assert_eq!((&some.pids[..], &all[1].pids[..]), (&[10][..], &[10, 20][..]));

        let filter = PathFilter { failed: true, ..PathFilter::default() };
        let failed = by_operation(&filter);
        assert_eq!((failed.len(), failed[0].opens.count, failed[0].stacks.len()), (1, 10, 1));
        let slow = PathFilter { slow_ns: Some(6), ..PathFilter::default() };
        let slow: Vec<_> = by_operation(&slow).iter().map(|row| row.opens.count).collect();
        assert_eq!(slow, [5, 1]);
        let filter = PathFilter { glob: Some(Glob::new(b"*fi*")), ..PathFilter::default() };
        assert_eq!(by_operation(&filter)[0].path, Some(b"/fine".as_slice()));
    }
}
