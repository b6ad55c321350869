//! The report for programs. Keys are documented in docs/report-json.md and only ever added.

mod details;
mod operations;

use std::collections::HashMap;
use std::io::{self, Write};

use formats::capture::Remark;
use formats::text::clean_string;
use serde::Serialize;

use self::details::{Call, ModuleResolution, Pool, Slow};
use self::operations::{Opens, OpensTotal, Operations, OperationsTotal, counts, opens, operations};
use super::frames::{JsonFrame, cmdline, comm};
use super::{CpuReport, ProbeReport, Report};
use crate::aggregate::cpu::{FunctionShare, InnermostShare, LineShare};
use crate::aggregate::losses::EventCount;
use crate::aggregate::quality::Named;
use crate::profile::{FrameId, JsNames, Profile, Reason};

/// Stands for a path that the kernel could not read.
pub const UNREADABLE_PATH: &str = "(not readable)";
/// Longest remark, event name or source that is shown, characters.
const TEXT_CHARS: usize = 4096;

#[derive(Serialize)]
struct Top<'r> {
    schema: &'static str,
    capture: CaptureInfo<'r>,
    stacks: Quality,
    opens: Vec<Opens<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    opens_total: Option<OpensTotal>,
    operations: Vec<Operations<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operations_total: Option<OperationsTotal>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    probes: Vec<Probe<'r>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    slowest: Vec<Slow<'r>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    calls: Vec<Call<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module_resolution: Option<ModuleResolution<'r>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pools: Vec<Pool<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<Cpu<'r>>,
    remarks: Vec<RemarkInfo>,
}

#[derive(Serialize)]
struct CaptureInfo<'r> {
    duration_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_wall_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<String>,
    processes: Vec<ProcessInfo>,
    events: u64,
    lost: u64,
    dropped: u64,
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    js: Option<&'static str>,
    problems: &'r [String],
    by_event: Vec<EventInfo>,
}

#[derive(Serialize)]
struct ProcessInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comm: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmdline: Option<String>,
}

#[derive(Serialize)]
struct EventInfo {
    event: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    set: String,
    samples: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    without_stack: Option<u64>,
    lost: u64,
    dropped: u64,
}

#[derive(Serialize)]
struct NamedFrames {
    total: u64,
    named: u64,
}

#[derive(Serialize)]
struct Quality {
    js_frames: NamedFrames,
    native_frames: NamedFrames,
    kernel_frames: NamedFrames,
    inferred_frames: u64,
    read_later: u64,
    unresolved: Vec<Unresolved>,
}

#[derive(Serialize)]
struct Unresolved {
    reason: &'static str,
    frames: u64,
    sentence: &'static str,
    remedy: &'static str,
}

#[derive(Serialize)]
struct Probe<'r> {
    event: String,
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    without_stack: Option<u64>,
    stacks: Vec<ProbeStack<'r>>,
}

#[derive(Serialize)]
struct ProbeStack<'r> {
    count: u64,
    frames: Vec<JsonFrame<'r>>,
}

#[derive(Serialize)]
struct Cpu<'r> {
    samples: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    period_ns: Option<u64>,
    functions: Vec<Function<'r>>,
}

#[derive(Serialize)]
struct Function<'r> {
    self_samples: u64,
    total_samples: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    innermost_samples: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lines: Vec<LineInfo>,
    #[serde(flatten)]
    frame: JsonFrame<'r>,
}

#[derive(Serialize)]
struct LineInfo {
    line: u32,
    samples: u64,
}

#[derive(Serialize)]
struct RemarkInfo {
    code: String,
    text: String,
    count: u64,
}

/// Writes the report as one JSON document. `top` bounds paths, stacks of a path, and functions.
///
/// # Errors
/// What writing says.
pub fn write(report: &Report<'_>, top: Option<usize>, out: &mut dyn Write) -> io::Result<()> {
    let top = top.unwrap_or(usize::MAX);
    let (lost, dropped) = report.lost();
    let document = Top {
        schema: "nanalyze.report/1",
        capture: CaptureInfo {
            duration_ns: report.duration_ns(),
            start_wall_ns: Some(report.capture.meta.start_wall_ns).filter(|&ns| ns > 0),
            kernel: Some(clean_string(report.capture.meta.kernel.as_bytes(), TEXT_CHARS))
                .filter(|text| !text.is_empty()),
            processes: report
                .capture
                .processes
                .iter()
                .map(|process| ProcessInfo {
                    pid: (process.pid > 0).then_some(process.pid),
                    comm: comm(process),
                    cmdline: cmdline(process),
                })
                .filter(|process| process.pid.is_some())
                .collect(),
            events: report.events.iter().map(|event| event.samples).sum(),
            lost,
            dropped,
            complete: report.problems.is_empty(),
            js: js(report.js_names),
            problems: &report.problems,
            by_event: report.events.iter().map(event).collect(),
        },
        stacks: Quality {
            js_frames: named(report.quality.js),
            native_frames: named(report.quality.native),
            kernel_frames: named(report.quality.kernel),
            inferred_frames: report.quality.inferred,
            read_later: report.quality.read_later,
            unresolved: report
                .quality
                .unresolved
                .iter()
                .map(|&(reason, frames)| unresolved(reason, frames, report.js_names))
                .collect(),
        },
        opens: report.open_paths().take(top).map(|path| opens(path, report, top)).collect(),
        opens_total: report.opens.map(|opens| OpensTotal {
            paths: report.open_paths().count(),
            opens: counts(opens),
            results_without_open: report.results_without_open,
        }),
        operations: report
            .operations
            .iter()
            .take(top)
            .map(|row| operations(row, report, top))
            .collect(),
        operations_total: report.opens.map(|_recorded| OperationsTotal {
            rows: report.operations.len(),
            operations: counts(report.all_operations),
            bytes: report.bytes,
            results_without_operation: report.results_without_operation,
        }),
        slowest: details::slowest(report, top),
        calls: details::calls(report, top),
        module_resolution: details::module_resolution(report, top),
        pools: details::pools(report, top),
        probes: report.probes.iter().map(|hits| probe(hits, &report.profile, top)).collect(),
        cpu: report.cpu.as_ref().map(|cpu| self::cpu(cpu, &report.profile, top)),
        remarks: report.capture.remarks.iter().map(remark).collect(),
    };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    out.write_all(b"\n")
}

fn cpu<'r>(cpu: &CpuReport, profile: &'r Profile, top: usize) -> Cpu<'r> {
    let javascript: HashMap<FrameId, &InnermostShare> =
        cpu.javascript.iter().map(|inner| (inner.share.frame, inner)).collect();
    let function = |share: &FunctionShare| {
        let inner = javascript.get(&share.frame);
        let lines = inner.map(|inner| inner.lines.as_slice()).unwrap_or_default();
        Some(Function {
            self_samples: share.self_samples,
            total_samples: share.total_samples,
            innermost_samples: inner.map(|inner| inner.share.self_samples),
            lines: lines
                .iter()
                .map(|&LineShare { line, samples }| LineInfo { line, samples })
                .collect(),
            frame: JsonFrame::new(profile.get(share.frame)?),
        })
    };
    Cpu {
        samples: cpu.samples,
        source: clean_string(cpu.source.as_bytes(), TEXT_CHARS),
        period_ns: cpu.period_ns,
        functions: cpu.functions.iter().take(top).filter_map(function).collect(),
    }
}

/// Where JavaScript names came from, for programs.
fn js(names: JsNames) -> Option<&'static str> {
    match names {
        JsNames::Unknown => None,
        JsNames::Heap | JsNames::HeapRefused => Some("heap"),
        JsNames::Map => Some("map"),
        JsNames::Off => Some("off"),
    }
}

fn event(event: &EventCount) -> EventInfo {
    EventInfo {
        event: clean_string(event.event.as_bytes(), TEXT_CHARS),
        set: clean_string(event.set.as_bytes(), TEXT_CHARS),
        samples: event.samples,
        without_stack: Some(event.without_stack).filter(|&hits| hits > 0),
        lost: event.lost,
        dropped: event.dropped,
    }
}

fn named(named: Named) -> NamedFrames {
    NamedFrames { total: named.total, named: named.named }
}

fn unresolved(reason: Reason, frames: u64, names: JsNames) -> Unresolved {
    Unresolved {
        reason: reason.key(),
        frames,
        sentence: reason.sentence(),
        remedy: reason.remedy(names),
    }
}

fn probe<'r>(probe: &ProbeReport, profile: &'r Profile, top: usize) -> Probe<'r> {
    let stacks = probe.stacks.iter().take(top);
    Probe {
        event: clean_string(probe.event.as_bytes(), TEXT_CHARS),
        count: probe.count,
        without_stack: Some(probe.not_taken).filter(|&hits| hits > 0),
        stacks: stacks
            .map(|&(stack, count)| ProbeStack { count, frames: JsonFrame::stack(profile, stack) })
            .collect(),
    }
}

fn remark(remark: &Remark) -> RemarkInfo {
    RemarkInfo {
        code: clean_string(remark.code.as_bytes(), TEXT_CHARS),
        text: clean_string(remark.text.as_bytes(), TEXT_CHARS),
        count: remark.count,
    }
}
