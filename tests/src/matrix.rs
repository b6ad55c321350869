//! The matrix of `fixtures/workloads/file-matrix.js`: what each call comes to, by the workload's own
//! data and log, against the operations of a capture.
//!
//! A call that is listed as not wholly knowable is compared like any other: what is listed and works
//! is a difference too. It must not know any function of Node.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::events::Event;
use crate::report::Frame;
use crate::truth::{Compared, compare_whole_stack};

/// Where the functions of the workload are.
const OWN_FILES: &str = "/fixtures/workloads/";
/// The context of the calls that are made once each: these are the cells.
const PLAIN: &str = "loop of the test";

/// One call, by the workload.
#[derive(Debug, Deserialize)]
pub struct Cell {
    /// The function of Node, in words.
    pub cell: String,
    /// `sync`, `callback`, `promise` or `other`.
    pub way: String,
    /// Below what it was called.
    pub context: String,
    /// The function that called.
    pub function: String,
    /// The path that only this call is about.
    pub path: String,
    /// The error that it ended with.
    pub error: Option<String>,
    /// The error that it was to end with.
    pub declared_error: Option<String>,
    /// The call sites that the target saw, innermost first.
    pub sites: Vec<Value>,
    /// What it comes to.
    pub operations: Vec<Step>,
}

/// One operation of a call, or several that are alike.
#[derive(Debug, Deserialize)]
pub struct Step {
    operation: String,
    path: String,
    new_path: Option<String>,
    error: Option<String>,
    bytes: Option<u64>,
    least: usize,
    most: Option<usize>,
    has_result: bool,
    has_duration: bool,
    asked: Asker,
    function: String,
}

/// What tells which function asked for an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Asker {
    /// Its own stack, at the place that was noted.
    Stack,
    /// Its own stack, at another place of the function.
    Elsewhere,
    /// The stack of the call on the same descriptor that it is a step of, or of whoever opened it.
    Descriptor,
    /// Nothing.
    Nothing,
    /// The operation is not seen at all.
    Unseen,
}

impl Step {
    fn is(&self, event: &Event) -> bool {
        let text = |name: &str| event.args.get(name).and_then(Value::as_str);
        let has_result = text("errno").is_some() || event.args.get("result").is_some();
        text("operation") == Some(&self.operation)
            && text("path") == Some(&self.path)
            && text("new_path") == self.new_path.as_deref()
            && text("errno") == self.error.as_deref()
            && has_result == self.has_result
            && self.bytes.is_none_or(|bytes| event.args["bytes"].as_u64() == Some(bytes))
            && self.is_asked(application(&event.frames), application(&event.asker_frames))
    }

    fn is_asked(&self, own: Option<&str>, opener: Option<&str>) -> bool {
        let function = Some(self.function.as_str());
        match self.asked {
            Asker::Stack | Asker::Elsewhere => own == function,
            Asker::Descriptor => own.is_none() && opener == function,
            Asker::Nothing => own.is_none() && opener.is_none(),
            Asker::Unseen => false,
        }
    }

    /// Whether everything about it can be known.
    fn is_known(&self) -> bool {
        self.has_duration && !matches!(self.asked, Asker::Nothing | Asker::Unseen)
    }
}

/// The innermost function of the workload.
fn application(frames: &[Frame]) -> Option<&str> {
    let own = |frame: &&Frame| frame.file.as_ref().is_some_and(|file| file.contains(OWN_FILES));
    frames.iter().find(own)?.function.as_deref()
}

/// Counts of one comparison.
#[derive(Debug, Default)]
pub struct Figures {
    /// Cells of which everything is right.
    pub right: usize,
    /// Cells that are right but for what is listed as not to be known.
    pub listed: usize,
    /// Cells with a difference.
    pub wrong: usize,
    /// Calls below other things than the loop of the test.
    pub nested: usize,
    /// Operations that were compared.
    pub operations: usize,
    /// Of them those of which nothing tells who asked.
    pub without_asker: usize,
    /// Of them those without a result.
    pub without_result: usize,
    /// Of them those with a result, but not when it came.
    pub without_duration: usize,
    /// Asynchronous operations whose stack is the target's own, frame by frame.
    pub asynchronous_stacks: usize,
    /// The same of synchronous ones.
    pub synchronous_stacks: usize,
    /// Frames of all these stacks.
    pub frames: usize,
    /// Stacks of which less is told, and nothing wrong: V8 had moved a function meanwhile.
    pub less: usize,
    /// The differences, in words.
    pub differences: String,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} cells right, {} right but for what is listed, {} wrong; {} more calls below other \
             things; {} operations, {} without asker, {} without result, {} without duration; equal to Error().stack: {} \
             asynchronous and {} synchronous stacks, {} frames; less is told of {} stacks",
            self.right,
            self.listed,
            self.wrong,
            self.nested,
            self.operations,
            self.without_asker,
            self.without_result,
            self.without_duration,
            self.asynchronous_stacks,
            self.synchronous_stacks,
            self.frames,
            self.less,
        )
    }
}

/// Reads the workload's log.
///
/// # Errors
/// If a call is not told as it should be.
pub fn read_log(said: &[Value]) -> Result<Vec<Cell>> {
    let calls = said.iter().filter(|record| record.get("cell").is_some());
    calls
        .map(|call| Cell::deserialize(call).with_context(|| format!("not a call: {call}")))
        .collect()
}

/// Compares all calls with the operations on paths below `folder`.
#[must_use]
pub fn compare(cells: &[Cell], events: &[Event], folder: &Path) -> Figures {
    let mut of_call: HashMap<String, Vec<&Event>> = HashMap::new();
    for event in events {
        let path = event.args.get("path").and_then(Value::as_str);
        if let Some(number) = path.and_then(|path| number_of(path, folder)) {
            of_call.entry(number).or_default().push(event);
        }
    }
    let mut figures = Figures::default();
    for cell in cells {
        let seen = number_of(&cell.path, folder).and_then(|number| of_call.remove(&number));
        let mut differences = String::new();
        cell.compare(&seen.unwrap_or_default(), &mut figures, &mut differences);
        for step in cell.operations.iter().filter(|step| step.asked == Asker::Unseen) {
            let is_it = |event: &&Event| {
                let name = event.args.get("operation").and_then(Value::as_str);
                name.is_some_and(|name| name.ends_with(&step.operation))
            };
            if let Some(event) = events.iter().find(is_it) {
                differences.push_str(&format!("  was not to be seen: {}\n", told(event)));
            }
        }
        let is_known = cell.operations.iter().all(Step::is_known);
        let count = match (differences.is_empty(), cell.context == PLAIN, is_known) {
            (false, ..) => &mut figures.wrong,
            (true, false, _) => &mut figures.nested,
            (true, true, true) => &mut figures.right,
            (true, true, false) => &mut figures.listed,
        };
        *count += 1;
        if !differences.is_empty() {
            let Cell { cell: name, way, context, .. } = cell;
            let text = format!("{name}, {way}, below {context}:\n{differences}");
            figures.differences.push_str(&text);
        }
    }
    for event in of_call.into_values().flatten() {
        figures.differences.push_str(&format!("  belongs to no call: {}\n", told(event)));
    }
    figures
}

/// Whether a path is one that a call is about.
#[must_use]
pub fn is_of_call(path: &str, folder: &Path) -> bool {
    number_of(path, folder).is_some()
}

// Names of the workload begin with the number of the call; what follows may be a part of the call.
fn number_of(path: &str, folder: &Path) -> Option<String> {
    let below = Path::new(path).strip_prefix(folder).ok()?;
    let below = below.strip_prefix("absent").unwrap_or(below).to_str()?;
    let (number, _) = below.split_once('-')?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.to_owned())
}

fn told(event: &Event) -> String {
    let asker = application(&event.frames).or_else(|| application(&event.asker_frames));
    format!("{} asked by {asker:?}", event.args)
}

impl Cell {
    fn compare(&self, events: &[&Event], figures: &mut Figures, differences: &mut String) {
        let mut tell = |text: String| differences.push_str(&format!("  {text}\n"));
        if self.error != self.declared_error {
            tell(format!("it ended with {:?}, not {:?}", self.error, self.declared_error));
        }
        let mut left = events.to_vec();
        for step in &self.operations {
            let mut taken = Vec::new();
            left.retain(|event| {
                let is_taken = step.most.is_none_or(|most| taken.len() < most) && step.is(event);
                if is_taken {
                    taken.push(*event);
                }
                !is_taken
            });
            if taken.len() < step.least {
                tell(format!("{} of {}: {step:?}", taken.len(), step.least));
            }
            figures.operations += taken.len();
            figures.without_asker += usize::from(step.asked == Asker::Nothing) * taken.len();
            figures.without_result += usize::from(!step.has_result) * taken.len();
            let without_duration = step.has_result && !step.has_duration;
            figures.without_duration += usize::from(without_duration) * taken.len();
            for event in taken {
                if let Err(difference) = self.compare_event(step, event, figures) {
                    tell(format!("{}: {difference:#}", told(event)));
                }
            }
        }
        for event in left {
            tell(format!("not a part of it: {}", told(event)));
        }
    }

    fn compare_event(&self, step: &Step, event: &Event, figures: &mut Figures) -> Result<()> {
        let is_own = step.function == self.function;
        let is_async = event.args["async"].as_bool().context("is it asynchronous?")?;
        ensure!(!(is_own && self.way == "sync" && is_async), "it is no asynchronous call");
        let has_duration = event.args.get("latency_ns").is_some_and(Value::is_u64);
        if step.has_result && has_duration != step.has_duration {
            bail!("is it known how long it took? {has_duration}");
        }
        if is_own && step.asked == Asker::Stack {
            let count = match (compare_whole_stack(&self.sites, &event.frames)?, is_async) {
                (Compared::Less, _) => &mut figures.less,
                (Compared::Equal(frames), is_async) => {
                    figures.frames += frames;
                    match is_async {
                        true => &mut figures.asynchronous_stacks,
                        false => &mut figures.synchronous_stacks,
                    }
                }
            };
            *count += 1;
        }
        Ok(())
    }
}

/// How often an operation on a path happens, at least and at most, and how often it fails.
pub type Counts = BTreeMap<(String, String, String), (usize, usize, usize)>;

/// What a table of all operations has to say of the calls, by operation and paths.
#[must_use]
pub fn counts(cells: &[Cell]) -> Counts {
    let mut counts = Counts::new();
    for step in cells.iter().flat_map(|cell| &cell.operations) {
        let new_path = step.new_path.clone().unwrap_or_default();
        let key = (step.operation.clone(), step.path.clone(), new_path);
        let (least, most, failed) = counts.entry(key).or_default();
        *least += step.least;
        *most = most.saturating_add(step.most.unwrap_or(usize::MAX));
        *failed += if step.error.is_some() { step.least } else { 0 };
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cell(steps: &Value) -> Cell {
        let site =
            json!({"function": "f", "file": "/x/fixtures/workloads/a.js", "line": 1, "column": 2});
        let call = json!({"cell": "stat", "way": "sync", "context": PLAIN, "function": "f",
            "path": "/d/0001-f", "sites": [site], "operations": steps});
        read_log(&[json!({"ready": 1}), call]).unwrap().remove(0)
    }

    fn step(asked: &str, has_result: bool) -> Value {
        json!([{"operation": "stat", "path": "/d/0001-f", "least": 1, "most": 1, "asked": asked,
            "has_result": has_result, "has_duration": has_result, "function": "f"}])
    }

    fn event(function: &str, line: u64, more: &Value) -> Event {
        let mut args = json!({"operation": "stat", "path": "/d/0001-f", "async": false,
            "latency_ns": 5, "result": 0});
        let changed = more.as_object().unwrap().clone();
        args.as_object_mut().unwrap().extend(changed);
        let frame = json!({"kind": "js", "function": function, "line": line, "column": 2,
            "file": "/x/fixtures/workloads/a.js"});
        let frames = if function.is_empty() { json!([]) } else { json!([frame]) };
        let event = json!({"event": "fs", "time_ns": 1, "pid": 1, "tid": 1, "args": args,
            "frames": frames});
        serde_json::from_value(event).unwrap()
    }

    fn figures(steps: &Value, events: &[Event]) -> (usize, usize, usize) {
        let figures = compare(&[cell(steps)], events, Path::new("/d"));
        (figures.right, figures.listed, figures.wrong)
    }

    #[test]
    fn a_cell_is_right_or_each_difference_is_told() {
        let known = step("stack", true);
        let good = || event("f", 1, &json!({}));
        assert_eq!(figures(&known, &[good()]), (1, 0, 0));
        assert_eq!(figures(&known, &[]), (0, 0, 1));
        assert_eq!(figures(&known, &[good(), good()]), (0, 0, 1));
        for wrong in [
            event("g", 1, &json!({})),
            event("f", 2, &json!({})),
            event("", 0, &json!({})),
            event("f", 1, &json!({"errno": "ENOENT"})),
            event("f", 1, &json!({"path": "/d/0001-f.new"})),
            event("f", 1, &json!({"async": true})),
            event("f", 1, &json!({"latency_ns": null})),
        ] {
            assert_eq!(figures(&known, &[wrong]), (0, 0, 1));
        }
    }

    #[test]
    fn what_is_listed_must_not_work() {
        let nobody = step("nothing", true);
        assert_eq!(figures(&nobody, &[event("", 0, &json!({}))]), (0, 1, 0));
        assert_eq!(figures(&nobody, &[event("f", 1, &json!({}))]), (0, 0, 1));
        let mut hidden = step("unseen", true);
        hidden[0]["least"] = 0.into();
        assert_eq!(figures(&hidden, &[]), (0, 1, 0));
        assert_eq!(figures(&hidden, &[event("f", 1, &json!({}))]), (0, 0, 1));
        let mut unknown = event("f", 1, &json!({}));
        unknown.args.as_object_mut().unwrap().remove("result");
        assert_eq!(figures(&step("stack", false), &[unknown]), (0, 1, 0));
        assert_eq!(figures(&step("stack", false), &[event("f", 1, &json!({}))]), (0, 0, 1));
    }

    #[test]
    fn an_operation_of_no_call_is_told() {
        let other = event("f", 1, &json!({"path": "/d/absent/0002-g/x"}));
        let figures = compare(&[], &[other], Path::new("/d"));
        assert!(figures.differences.contains("belongs to no call"), "{}", figures.differences);
    }
}
