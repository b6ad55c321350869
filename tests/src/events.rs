//! The JSON lines of `nanalyze events --json --stacks`.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::report::{Frame, nanalyze, original_path};
use crate::truth::{Open, Opens, count};

/// One event.
#[derive(Debug, Deserialize)]
pub struct Event {
    /// The event's name.
    pub event: String,
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// The process.
    pub pid: u64,
    /// The thread.
    pub tid: u64,
    /// What was fetched or joined.
    pub args: Value,
    /// The stack, leaf first.
    #[serde(default)]
    pub frames: Vec<Frame>,
    /// The stack that opened the file, leaf first, where the own stack does not tell who asked.
    #[serde(default)]
    pub asker_frames: Vec<Frame>,
}

impl Event {
    /// The open that this event is, if it has a path: `args.path`, and `args.errno` if it failed.
    #[must_use]
    pub fn open(&self) -> Option<Open> {
        let bytes = self.args.get("path_bytes").and_then(Value::as_str);
        let path = original_path(self.args.get("path")?.as_str()?, bytes)?;
        let error = self.args.get("errno").and_then(Value::as_str).map(str::to_owned);
        Some(Open { path, error })
    }
}

/// The opens of a complete capture, with their stacks.
///
/// # Errors
/// If the analyzer fails or a line is not an event.
pub fn file_events(capture: &Path) -> Result<Vec<Event>> {
    let is_open = |event: &Event| event.args.get("operation").is_some_and(|name| name == "open");
    Ok(events_of(capture, "fs")?.into_iter().filter(is_open).collect())
}

/// The samples of one event in a complete capture, with their stacks.
///
/// # Errors
/// If the analyzer fails or a line is not an event.
pub fn events_of(capture: &Path, event: &str) -> Result<Vec<Event>> {
    let words = ["events", "-e", event, "--json", "--stacks"];
    let outcome = nanalyze(&words, capture)?.expect_code(0)?;
    parse_events(&outcome.stdout)
}

/// The event with this path.
///
/// # Errors
/// If there is none, or more than one.
pub fn only_event_of<'a>(events: &'a [Event], path: &Value) -> Result<&'a Event> {
    let mut found = events.iter().filter(|event| event.args.get("path") == Some(path));
    let event = found.next().with_context(|| format!("no event has the path {path}"))?;
    ensure!(found.next().is_none(), "two events have the path {path}");
    Ok(event)
}

/// Reads JSON lines.
///
/// # Errors
/// If a line is not an event.
pub fn parse_events(lines: &str) -> Result<Vec<Event>> {
    let parse = |line| serde_json::from_str(line).with_context(|| format!("not an event: {line}"));
    lines.lines().map(parse).collect()
}

/// The opens below a folder.
#[must_use]
pub fn open_counts_below(events: &[Event], folder: &Path) -> Opens {
    let opens = events.iter().filter_map(Event::open);
    count(opens.filter(|open| crate::truth::is_below(open, folder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_event() {
        let line = r#"{"event":"fs.open","time_ns":5,"pid":1,"tid":2,
            "args":{"path":"/a/b","errno":"ENOENT"},"frames":[{"kind":"js","function":"f"}]}"#;
        let events = parse_events(&line.replace('\n', "")).unwrap();
        assert_eq!(events[0].frames[0].function.as_deref(), Some("f"));
        let opens = open_counts_below(&events, Path::new("/a"));
        assert_eq!(opens.values().sum::<u64>(), 1);
        assert!(parse_events("{\"event\":1}").is_err());
    }
}
