//! A frame and a process as JSON has them. Every missing value is absent.

use std::collections::HashMap;

use formats::capture::{Capture, Process};
use formats::text::clean_string;
use serde::Serialize;

use crate::profile::{Profile, ResolvedFrame, ResolvedStackId};

/// Longest command line that is shown, characters.
const CMDLINE_CHARS: usize = 4096;

/// One level of a stack.
#[derive(Debug, Serialize)]
pub struct JsonFrame<'p> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<&'p str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'p str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    defined_line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    defined_column: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generated_file: Option<&'p str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generated_line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generated_column: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    inlined: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<&'p str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unresolved: Option<&'static str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    inferred: bool,
}

impl<'p> JsonFrame<'p> {
    /// The frame as JSON has it.
    #[must_use]
    pub fn new(frame: &'p ResolvedFrame) -> Self {
        let generated = frame.generated.as_deref();
        let text = |text: &'p str| Some(text).filter(|text| !text.is_empty());
        Self {
            kind: frame.kind.key(),
            function: text(&frame.function),
            file: frame.file.as_deref().and_then(text),
            line: frame.line,
            column: frame.column,
            defined_line: frame.defined_line,
            defined_column: frame.defined_column,
            generated_file: generated.map(|place| place.file.as_str()),
            generated_line: generated.map(|place| place.line),
            generated_column: generated.map(|place| place.column),
            inlined: frame.inlined,
            module: frame.module.as_deref().and_then(text),
            unresolved: frame.unresolved.map(crate::profile::Reason::key),
            inferred: frame.inferred,
        }
    }

    /// The frames of a stack, leaf first.
    #[must_use]
    pub fn stack(profile: &'p Profile, stack: ResolvedStackId) -> Vec<Self> {
        profile.leaf_first(stack).map(Self::new).collect()
    }
}

/// The arguments of a process joined by one space; `None` where they are not known.
#[must_use]
pub fn cmdline(process: &Process) -> Option<String> {
    let text = process.cmdline.strip_suffix(b"\0").unwrap_or(&process.cmdline);
    let text: Vec<u8> = text.iter().map(|&b| if b == 0 { b' ' } else { b }).collect();
    Some(clean_string(&text, CMDLINE_CHARS)).filter(|text| !text.is_empty())
}

/// The short name of a process.
#[must_use]
pub fn comm(process: &Process) -> Option<String> {
    Some(clean_string(&process.comm, CMDLINE_CHARS)).filter(|text| !text.is_empty())
}

/// One entry a process: one that called exec has several images, and the last one is what people
/// know it by.
#[must_use]
pub fn last_images(capture: &Capture) -> Vec<&Process> {
    let processes = || capture.processes.iter().enumerate();
    let last: HashMap<u32, usize> = processes().map(|(at, process)| (process.pid, at)).collect();
    let is_last = |&(at, process): &(usize, &Process)| last.get(&process.pid) == Some(&at);
    processes().filter(is_last).map(|(_at, process)| process).collect()
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing to a String cannot fail.
        let _written = write!(out, "{byte:02x}");
        out
    })
}
