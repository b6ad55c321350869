//! Sets what we say of a run against the system calls that `strace` saw in it: each operation has the
//! calls that it consists of, and each call that took a path belongs to an operation or to a class
//! of calls that are known not to be ours to see.

mod classes;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write as _;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::report::original_path;
use crate::strace_calls::PathCall;
use classes::{NO_NODE, class};

/// How the calls of a run are accounted for.
#[derive(Debug, Default)]
pub struct Account {
    /// Calls that took a path.
    pub calls: usize,
    /// Those that are part of an operation, by its name.
    pub operations: BTreeMap<String, usize>,
    /// Those of each class.
    pub classes: BTreeMap<&'static str, usize>,
    /// Calls of neither.
    pub missing: Vec<String>,
    /// Operations without their calls.
    pub invented: Vec<String>,
}

impl Account {
    /// Opens an account of the calls of a run, and of the operations that took a path: the `args` of
    /// our events, with the thread that asked.
    #[must_use]
    pub fn of(calls: &[PathCall], operations: &[(u32, Value)]) -> Self {
        let mut matching = Matching::new(calls);
        let mut account = Self { calls: calls.len(), ..Self::default() };
        // Who made the calls of an operation is known, or looked for among what is left.
        for is_known in [true, false] {
            for (tid, args) in operations {
                let by = made_by(*tid, args);
                if by.is_some() != is_known || args.get("fd").is_some() {
                    continue;
                }
                let Some(ways) = ways(args) else { continue };
                let name = args["operation"].as_str().unwrap_or("?").to_owned();
                let found = ways.iter().find_map(|steps| matching.find_all(by, steps));
                match found.map(|found| matching.take(&found)) {
                    Some(found) => *account.operations.entry(name).or_default() += found,
                    None => account.invented.push(format!("thread {tid}: {args}")),
                }
            }
        }
        for (call, _) in calls.iter().zip(&matching.taken).filter(|(_, taken)| !**taken) {
            match class(call) {
                Some(class) => *account.classes.entry(class).or_default() += 1,
                None => account.missing.push(format!("{call:?}")),
            }
        }
        account
    }

    /// Calls that are part of an operation.
    #[must_use]
    pub fn of_operations(&self) -> usize {
        self.operations.values().sum()
    }

    /// The figures, one line a class.
    #[must_use]
    pub fn figures(&self) -> String {
        #[expect(clippy::cast_precision_loss, reason = "counts of one test run")]
        let percent = |count: usize, of: usize| count as f64 * 100.0 / of.max(1) as f64;
        let accounted = self.calls - self.missing.len();
        let own = self.of_operations();
        let by_node = self.calls - self.classes.get(NO_NODE).copied().unwrap_or(0);
        let mut text = format!(
            "{} calls with a path, {accounted} accounted for ({:.2} %): {own} in operations, \
             {:.2} % of Node's {by_node}",
            self.calls,
            percent(accounted, self.calls),
            percent(own, by_node)
        );
        for (class, count) in &self.classes {
            // Writing to a string cannot fail.
            write!(text, "; {count} {class}").unwrap_or_default();
        }
        write!(text, "; {} operations invented", self.invented.len()).unwrap_or_default();
        text
    }

    /// Fails if a call is missing, or an operation invented.
    ///
    /// # Errors
    /// With the first of them.
    pub fn check(&self) -> Result<()> {
        if self.missing.is_empty() && self.invented.is_empty() {
            return Ok(());
        }
        let some = |all: &[String]| all.iter().take(20).cloned().collect::<Vec<_>>().join("\n  ");
        bail!(
            "{}\nmissing:\n  {}\ninvented:\n  {}",
            self.figures(),
            some(&self.missing),
            some(&self.invented)
        );
    }
}

/// The thread that makes an operation's calls: one of the pool, or the one that asked.
fn made_by(asked: u32, args: &Value) -> Option<u32> {
    let worker = args["worker"].as_u64().and_then(|tid| u32::try_from(tid).ok());
    worker.or_else(|| (args["async"] != true).then_some(asked))
}

/// One call that an operation makes.
#[derive(Debug)]
struct Wanted {
    kind: String,
    paths: Vec<String>,
    error: Option<String>,
}

/// The calls that an operation consists of, and the others of which it may consist where it failed;
/// `None` for one without a path.
fn ways(args: &Value) -> Option<Vec<Vec<Wanted>>> {
    let text = |key: &str| args.get(key).and_then(Value::as_str);
    let path = original_path(text("path")?, text("path_bytes"))?;
    let new = text("new_path").and_then(|new| original_path(new, text("new_path_bytes")));
    let error = text("errno").map(str::to_owned);
    let wanted = |kind: &str, paths: &[&str], error: Option<&String>| Wanted {
        kind: kind.to_owned(),
        paths: paths.iter().map(|&path| path.to_owned()).collect(),
        error: error.cloned(),
    };
    let only = |wanted| Some(vec![vec![wanted]]);
    match (text("operation")?, new) {
        // Nothing by itself: the loader's work, and the stats of a timer.
        ("dlopen" | "watchFile", _) => Some(vec![Vec::new()]),
        // scandir(3) and opendir(3).
        ("scandir" | "opendir", _) => only(wanted("open", &[&path], error.as_ref())),
        // Opens both files, and does not get to the second where the first is not there.
        ("copyfile", Some(new)) => {
            let both = |last| vec![wanted("open", &[&path], None), wanted("open", &[&new], last)];
            let mut ways = vec![both(None)];
            if error.is_some() {
                ways.insert(0, both(error.as_ref()));
                ways.push(vec![wanted("open", &[&path], error.as_ref())]);
            }
            Some(ways)
        }
        (name, Some(new)) => only(wanted(name, &[&path, &new], error.as_ref())),
        (name, None) => only(wanted(name, &[&path], error.as_ref())),
    }
}

type Key = (Option<u32>, String, Vec<String>, Option<String>);

fn components(path: &str) -> impl DoubleEndedIterator<Item = String> + '_ {
    path.split('/').filter(|part| !matches!(*part, "" | ".")).map(str::to_owned)
}

/// The calls that no operation has claimed yet.
struct Matching {
    places: HashMap<Key, VecDeque<usize>>,
    made: Vec<(usize, u32, String)>,
    /// What links say, by the place of the call.
    links: HashMap<usize, String>,
    taken: Vec<bool>,
}

impl Matching {
    fn new(calls: &[PathCall]) -> Self {
        let mut places: HashMap<Key, VecDeque<usize>> = HashMap::new();
        let mut made = Vec::new();
        for (at, call) in calls.iter().enumerate() {
            for by in [Some(call.tid), None] {
                let key = (by, call.kind.clone(), call.paths.clone(), call.error.clone());
                places.entry(key).or_default().push_back(at);
            }
            if call.kind == "mkdir" && call.error.is_none() {
                made.extend(call.paths.first().map(|path| (at, call.tid, path.clone())));
            }
        }
        let link = |(at, call): (usize, &PathCall)| Some((at, call.link.clone()?));
        let links = calls.iter().enumerate().filter_map(link).collect();
        Self { places, made, links, taken: vec![false; calls.len()] }
    }

    /// Claims calls; how many.
    fn take(&mut self, found: &[usize]) -> usize {
        for (at, taken) in self.taken.iter_mut().enumerate() {
            *taken |= found.contains(&at);
        }
        found.len()
    }

    /// Calls for all steps of an operation.
    fn find_all(&mut self, by: Option<u32>, steps: &[Wanted]) -> Option<Vec<usize>> {
        match steps {
            [Wanted { kind, paths, error }] if kind == "realpath" => {
                self.find_links(by, paths.first()?, error.as_ref())
            }
            [Wanted { kind, paths, error: None }] if kind == "mkdtemp" => {
                Some(vec![self.find_made(by, paths.first()?)?])
            }
            _ => steps.iter().map(|step| self.find(by, step)).collect(),
        }
    }

    fn find(&mut self, by: Option<u32>, step: &Wanted) -> Option<usize> {
        let key = (by, step.kind.clone(), step.paths.clone(), step.error.clone());
        let waiting = self.places.get_mut(&key)?;
        while waiting.front().is_some_and(|at| self.taken.get(*at) == Some(&true)) {
            waiting.pop_front();
        }
        waiting.front().copied()
    }

    /// realpath(3): each component is read as if it were a link, and what a link says comes in its
    /// place. What it says from the root on begins anew.
    fn find_links(
        &mut self,
        by: Option<u32>,
        path: &str,
        error: Option<&String>,
    ) -> Option<Vec<usize>> {
        let mut rest: VecDeque<String> = components(path).collect();
        let mut real = String::new();
        let mut found = Vec::new();
        while let Some(component) = rest.pop_front() {
            if component == ".." {
                real.truncate(real.rfind('/').unwrap_or(0));
                continue;
            }
            let full = format!("{real}/{component}");
            let read = |error: Option<&str>| Wanted {
                kind: "readlink".to_owned(),
                paths: vec![full.clone()],
                error: error.map(str::to_owned),
            };
            if let Some(at) = self.find(by, &read(Some("EINVAL"))) {
                found.push(at);
                real = full;
            } else if let Some(at) = self.find(by, &read(None)) {
                found.push(at);
                let link = self.links.get(&at)?;
                if link.starts_with('/') {
                    real.clear();
                }
                components(link).rev().for_each(|component| rest.push_front(component));
            } else {
                found.push(self.find(by, &read(error.map(String::as_str)))?);
                return error.map(|_| found);
            }
        }
        error.is_none().then_some(found)
    }

    // mkdtemp(3): the six X at the end become something else.
    fn find_made(&self, by: Option<u32>, template: &str) -> Option<usize> {
        let begin = template.strip_suffix("XXXXXX")?;
        let fits = |(at, tid, path): &&(usize, u32, String)| {
            let is_free = self.taken.get(*at) == Some(&false);
            let is_by = by.is_none_or(|by| by == *tid);
            is_free && is_by && path.len() == template.len() && path.starts_with(begin)
        };
        self.made.iter().find(fits).map(|(at, _, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn call(tid: u32, kind: &str, path: &str, error: Option<&str>) -> PathCall {
        PathCall {
            tid,
            kind: kind.to_owned(),
            paths: vec![path.to_owned()],
            error: error.map(str::to_owned),
            link: None,
            program: Some("/usr/bin/node".to_owned()),
        }
    }

    #[test]
    fn a_run_that_is_told_as_it_was_is_accounted_for() {
        let calls = [
            call(1, "open", "/etc/ld.so.cache", None),
            call(1, "stat", "/a", Some("ENOENT")),
            call(2, "open", "/b", None),
            call(2, "mkdir", "/t-Ab3dEf", None),
        ];
        let operations = [
            (1, json!({"operation": "stat", "async": false, "path": "/a", "errno": "ENOENT"})),
            (1, json!({"operation": "scandir", "async": true, "path": "/b", "result": 3})),
            (1, json!({"operation": "mkdtemp", "async": true, "path": "/t-XXXXXX", "result": 0})),
            (1, json!({"operation": "read", "async": true, "path": "/b", "fd": 3, "result": 0})),
        ];
        let account = Account::of(&calls, &operations);
        account.check().unwrap();
        assert_eq!((account.calls, account.of_operations()), (4, 3));
        assert_eq!(account.classes, BTreeMap::from([("the dynamic loader", 1)]));
    }

    #[test]
    fn what_is_missing_invented_or_another_threads_is_told() {
        let stat = json!({"operation": "stat", "async": false, "path": "/a", "result": 0});
        let calls = [call(1, "stat", "/a", None)];
        assert!(Account::of(&calls, &[(1, stat.clone())]).check().is_ok());
        let account = Account::of(&calls, &[]);
        assert_eq!((account.missing.len(), account.invented.len()), (1, 0));
        let account = Account::of(&calls, &[(1, stat.clone()), (1, stat.clone())]);
        assert_eq!((account.missing.len(), account.invented.len()), (0, 1));
        let account = Account::of(&calls, &[(2, stat.clone())]);
        assert_eq!((account.missing.len(), account.invented.len()), (1, 1));
        let pooled =
            json!({"operation": "stat", "async": true, "worker": 1, "path": "/a", "result": 0});
        assert!(Account::of(&calls, &[(2, pooled.clone())]).check().is_ok());
        assert!(Account::of(&[call(3, "stat", "/a", None)], &[(2, pooled)]).check().is_err());
        let failed = json!({"operation": "stat", "async": false, "path": "/a", "errno": "EIO"});
        assert!(Account::of(&calls, &[(1, failed)]).check().is_err());
        let lstat = json!({"operation": "lstat", "async": false, "path": "/a", "result": 0});
        assert!(Account::of(&calls, &[(1, lstat)]).check().is_err());
    }

    #[test]
    fn a_copy_opens_two_files() {
        let copy = json!({"operation": "copyfile", "async": false, "path": "/a", "new_path": "/b", "result": 0});
        let calls = [call(1, "open", "/a", None), call(1, "open", "/b", None)];
        assert_eq!(Account::of(&calls, &[(1, copy.clone())]).of_operations(), 2);
        assert!(Account::of(&calls[..1], &[(1, copy.clone())]).check().is_err());
        let calls = [call(1, "open", "/a", Some("ENOENT"))];
        assert!(Account::of(&calls, &[(1, copy)]).check().is_err());
        let failed = json!({"operation": "copyfile", "async": false, "path": "/a", "new_path": "/b", "errno": "ENOENT"});
        assert_eq!(Account::of(&calls, &[(1, failed)]).of_operations(), 1);
    }

    #[test]
    fn a_real_path_reads_each_component() {
        let link = |path: &str, to: &str| PathCall {
            link: Some(to.to_owned()),
            ..call(1, "readlink", path, None)
        };
        let plain = |path: &str| call(1, "readlink", path, Some("EINVAL"));
        let real = |path: &str, error: Option<&str>| {
            let mut args = json!({"operation": "realpath", "async": false, "path": path});
            args["errno"] = error.into();
            (1, args)
        };
        let calls =
            [plain("/a"), link("/a/b", "../c/d"), plain("/c"), plain("/c/d"), plain("/c/d/e")];
        let account = Account::of(&calls, &[real("/a/b/e", None)]);
        account.check().unwrap();
        assert_eq!(account.of_operations(), 5);
        assert!(Account::of(&calls[..4], &[real("/a/b/e", None)]).check().is_err());
        let calls = [plain("/a"), call(1, "readlink", "/a/x", Some("ENOENT"))];
        Account::of(&calls, &[real("/a/x/y", Some("ENOENT"))]).check().unwrap();
        assert!(Account::of(&calls, &[real("/a/x/y", None)]).check().is_err());
    }

    #[test]
    fn children_that_are_no_node_are_a_class() {
        let mut other = call(1, "open", "/anything", None);
        other.program = Some("/bin/sh".to_owned());
        let account = Account::of(&[other], &[]);
        assert_eq!(account.classes, BTreeMap::from([("a child that is no Node", 1)]));
    }
}
