//! What really happened, as told by the workload or by `strace`, and its comparison with what we say.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::report::Frame;

/// One open: the path as given, and the errno name if it failed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Open {
    /// The path, not made absolute.
    pub path: String,
    /// `ENOENT`, or nothing if a descriptor came back.
    pub error: Option<String>,
}

/// How often each open happened.
pub type Opens = BTreeMap<Open, u64>;

/// Counts equal opens.
pub fn count(opens: impl IntoIterator<Item = Open>) -> Opens {
    let mut counts = Opens::new();
    for open in opens {
        *counts.entry(open).or_default() += 1;
    }
    counts
}

/// Whether the path lies in `folder`.
#[must_use]
pub fn is_below(open: &Open, folder: &Path) -> bool {
    Path::new(&open.path).starts_with(folder)
}

/// The opens in a workload's log: its records with the key `open`.
#[must_use]
pub fn said_opens(said: &[Value]) -> Opens {
    let open = |record: &Value| {
        let path = record.get("open")?.as_str()?.to_owned();
        let error = record.get("error").and_then(Value::as_str).map(str::to_owned);
        Some(Open { path, error })
    };
    count(said.iter().filter_map(open))
}

/// Fails unless `seen` is exactly `truth`: nothing missing, nothing invented.
///
/// # Errors
/// With every difference.
pub fn compare(observer: &str, truth: &Opens, seen: &Opens) -> Result<()> {
    if truth.is_empty() {
        bail!("nothing happened that {observer} could have seen");
    }
    let mut differences = String::new();
    for (open, times) in truth {
        let seen_times = seen.get(open).copied().unwrap_or(0);
        if seen_times != *times {
            writeln!(differences, "  {open:?}: {times} times in truth, seen {seen_times} times")?;
        }
    }
    for (open, times) in seen.iter().filter(|(open, _)| !truth.contains_key(open)) {
        writeln!(differences, "  {open:?}: never in truth, seen {times} times")?;
    }
    if !differences.is_empty() {
        bail!("{observer} differs from the truth:\n{differences}");
    }
    Ok(())
}

/// Fails unless the JavaScript frames of an event are the call sites that the target itself saw.
///
/// `sites` is the log of `error-stack.js`: the callers of its function `probe`, innermost first. In
/// the event, Node's `openSync` and `probe` itself lie on top of them. Frames that V8 adds for
/// `await` and frames of functions without JavaScript code (`Array.map`) are left out of both.
/// In Node's own scripts no names are compared: their functions' names are inferred in two ways.
///
/// # Errors
/// With both stacks.
pub fn compare_stack(sites: &[Value], frames: &[Frame], source: NameSource) -> Result<()> {
    let is_probe = |frame: &Frame| frame.function.as_deref() == Some("probe");
    match compare_below(sites, frames, source, is_probe, 1)? {
        Compared::Equal(_frames) => Ok(()),
        Compared::Less => bail!("some frames have no names or places: {frames:#?}"),
    }
}

/// Like [`compare_stack`], for a log whose innermost site is the call itself: that function's own
/// frame is compared as well, with line and column.
///
/// # Errors
/// With both stacks.
pub fn compare_whole_stack(sites: &[Value], frames: &[Frame]) -> Result<Compared> {
    let own = sites.first().and_then(described_site).map(|site| site.file);
    let is_own = |frame: &Frame| frame.file.as_deref() == own;
    compare_below(sites, frames, NameSource::Heap, is_own, 0)
}

/// How two stacks compare that do not contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// They have the same frames, this many.
    Equal(usize),
    /// Of some frames less was known when the recorder looked, and it says so: V8 had moved what tells
    /// the name, or the place within the function, so that the line is that where it begins; or what
    /// looked like a frame has no name.
    Less,
}

// Compares from `skip` frames below the first one that `is_first` on. Above it lies only Node.
fn compare_below(
    sites: &[Value],
    frames: &[Frame],
    source: NameSource,
    is_first: impl Fn(&Frame) -> bool,
    skip: usize,
) -> Result<Compared> {
    let truth: Vec<_> = sites.iter().filter_map(described_site).collect();
    let mut seen: Vec<_> = frames.iter().filter(|frame| frame.kind == "js").collect();
    let Some(first) = seen.iter().position(|frame| is_first(frame)) else {
        bail!("the stack has no frame of the function that called: {frames:#?}");
    };
    let is_others = |frame: &&Frame| frame.file.as_deref().is_some_and(|file| !is_nodes_own(file));
    if seen[..first].iter().any(is_others) {
        bail!("something of the application lies above the function that called: {seen:#?}");
    }
    seen.drain(..first + skip);
    let mut is_less = false;
    if seen.len() > truth.len() {
        // What is told of such a frame is that it is none that is known.
        let shown = seen.len();
        seen.retain(|frame| frame.unresolved.is_none());
        is_less = seen.len() < shown;
    }
    let agrees = |(site, frame): (&Site<'_>, &&Frame)| {
        let nodes_own = is_nodes_own(site.file);
        // The target cannot tell the column of `import()`.
        let at_column = site.column.is_none() || frame.column == site.column;
        let at_place = frame.line == site.line && at_column;
        let is_function = frame.file.as_deref() == Some(site.file)
            && (nodes_own || named(frame.function.as_deref()) == named(site.function));
        let at_beginning = (frame.line, frame.column) == (frame.defined_line, frame.defined_column);
        let is_equal = is_function && (source == NameSource::PerfMap || at_place);
        is_less |= !is_equal;
        is_equal || frame.unresolved.is_some() || (is_function && at_beginning)
    };
    if truth.len() != seen.len() || !truth.iter().zip(&seen).all(agrees) {
        bail!("the target saw {truth:#?}\nand we say {seen:#?}");
    }
    Ok(if is_less { Compared::Less } else { Compared::Equal(truth.len()) })
}

/// Where the names of JavaScript frames come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameSource {
    /// V8's perf map: the lines are those where the functions begin.
    PerfMap,
    /// V8's heap: the lines are those that are executed, and are compared, columns included.
    Heap,
}

#[derive(Debug)]
struct Site<'a> {
    function: Option<&'a str>,
    file: &'a str,
    line: Option<u64>,
    column: Option<u64>,
}

fn described_site(site: &Value) -> Option<Site<'_>> {
    let is_set = |key: &str| site.get(key).and_then(Value::as_bool).unwrap_or(false);
    if is_set("native") || is_set("async") {
        return None;
    }
    let number = |key: &str| site.get(key).and_then(Value::as_u64);
    Some(Site {
        function: site.get("function").and_then(Value::as_str),
        file: site.get("file")?.as_str()?,
        line: number("line"),
        column: number("column"),
    })
}

fn is_nodes_own(file: &str) -> bool {
    file.starts_with("node:")
}

fn named(function: Option<&str>) -> Option<&str> {
    function.filter(|name| *name != "(anonymous)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn open(path: &str, error: Option<&str>) -> Open {
        Open { path: path.to_owned(), error: error.map(str::to_owned) }
    }

    fn frame(kind: &str, function: &str, file: &str) -> Frame {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Frame {
            kind: kind.to_owned(),
            function: some(function),
            file: some(file),
            ..Frame::default()
        }
    }

    #[test]
    fn a_missing_an_invented_and_a_wrong_open_are_differences() {
        let truth = count([open("a", None), open("a", None), open("b", Some("ENOENT"))]);
        assert!(compare("x", &truth, &truth.clone()).is_ok());
        assert!(compare("x", &truth, &count([open("a", None), open("a", None)])).is_err());
        let wrong = count([open("a", None), open("a", None), open("b", None)]);
        let message = compare("x", &truth, &wrong).unwrap_err().to_string();
        assert!(
            message.contains("seen 0 times") && message.contains("never in truth"),
            "{message}"
        );
        let mut invented = truth.clone();
        invented.insert(open("c", None), 1);
        assert!(compare("x", &truth, &invented).is_err());
        assert!(compare("x", &Opens::new(), &Opens::new()).is_err());
    }

    #[test]
    fn the_log_of_a_workload_is_read() {
        let said =
            [json!({"ready": 1}), json!({"open": "a"}), json!({"open": "b", "error": "EIO"})];
        assert_eq!(said_opens(&said), count([open("a", None), open("b", Some("EIO"))]));
    }

    #[test]
    fn stacks_are_compared_frame_by_frame() {
        let sites = [
            json!({"function": "inner", "file": "/app.js"}),
            json!({"function": "map", "native": true}),
            json!({"file": "/app.js"}),
            json!({"function": "later", "file": "/app.js", "async": true}),
            json!({"function": "Module.load", "file": "node:loader"}),
        ];
        let good = [
            frame("native", "uv_fs_open", ""),
            frame("js", "openSync", "node:fs"),
            frame("js", "probe", "/app.js"),
            frame("js", "inner", "/app.js"),
            frame("builtin", "ArrayMap", ""),
            frame("js", "(anonymous)", "/app.js"),
            frame("js", "load", "node:loader"),
        ];
        let compare_stack = |sites: &[Value], frames: &[Frame]| {
            super::compare_stack(sites, frames, NameSource::PerfMap)
        };
        assert!(compare_stack(&sites, &good).is_ok());
        for index in 2..good.len() {
            if good[index].kind == "js" {
                let mut missing = good.to_vec();
                missing.remove(index);
                assert!(compare_stack(&sites, &missing).is_err(), "without frame {index}");
                let mut wrong = good.to_vec();
                wrong[index].file = Some("/other.js".to_owned());
                let is_wrong = compare_stack(&sites, &wrong).is_err();
                assert!(is_wrong || index == 2, "with another file in frame {index}");
            }
        }
        let mut renamed = good.to_vec();
        renamed[3].function = Some("outer".to_owned());
        assert!(compare_stack(&sites, &renamed).is_err());
    }

    #[test]
    fn frames_without_names_are_less_and_no_contradiction() {
        let site =
            |line: u64| json!({"function": "f", "file": "/app.js", "line": line, "column": 7});
        let at = |line| Frame {
            line: Some(line),
            column: Some(7),
            defined_line: Some(1),
            defined_column: Some(7),
            ..frame("js", "f", "/app.js")
        };
        let nameless = Frame { unresolved: Some("js-moved".to_owned()), ..frame("js", "", "") };
        let sites = [site(5), site(6)];
        let compare = |frames: &[Frame]| super::compare_whole_stack(&sites, frames).ok();
        assert_eq!(compare(&[at(5), at(6)]), Some(Compared::Equal(2)));
        assert_eq!(compare(&[at(5), at(1)]), Some(Compared::Less));
        assert_eq!(compare(&[at(5), nameless.clone()]), Some(Compared::Less));
        assert_eq!(compare(&[at(5), at(6), nameless.clone()]), Some(Compared::Less));
        assert_eq!(compare(&[at(5), at(7)]), None);
        assert_eq!(compare(&[at(4), at(6)]), None);
        assert_eq!(compare(&[at(5)]), None);
        assert_eq!(compare(&[at(5), at(6), at(6)]), None);
        assert_eq!(compare(&[nameless.clone(), nameless]), None);
    }

    #[test]
    fn names_from_the_heap_come_with_the_executing_place() {
        let sites = [json!({"function": "inner", "file": "/app.js", "line": 5, "column": 7})];
        let at = |line, column| {
            let inner = Frame { line, column, ..frame("js", "inner", "/app.js") };
            let frames = [frame("js", "probe", "/app.js"), inner];
            compare_stack(&sites, &frames, NameSource::Heap).is_ok()
        };
        assert!(at(Some(5), Some(7)));
        assert!(!at(Some(4), Some(7)) && !at(Some(5), Some(8)) && !at(None, None));
    }
}
