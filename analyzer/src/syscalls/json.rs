//! System calls for programs. Keys are documented in docs/report-json.md and only ever added.

use std::borrow::Cow;
use std::io::{self, Write};

use formats::text::Clean;
use serde::Serialize;

use super::SyscallsReport;
use crate::aggregate::losses;
use crate::aggregate::operations::Latency;
use crate::aggregate::syscalls::{CallCount, Failure, NotYet, Purpose, Slow, Work};
use crate::join::errno;
use crate::profile::Profile;
use crate::report::frames::{JsonFrame, hex};

/// Slow calls unless `--top` says otherwise.
pub const SLOWEST: usize = 100;

#[derive(Serialize)]
struct Top<'r> {
    schema: &'static str,
    capture: CaptureInfo<'r>,
    calls: u64,
    failed: u64,
    exits_alone: u64,
    threads: u64,
    by_call: Vec<ByCall<'r>>,
    failures: Vec<FailureInfo<'r>>,
    not_yet: Vec<NotYetInfo<'r>>,
    slowest: Vec<SlowInfo<'r>>,
}

#[derive(Serialize)]
struct CaptureInfo<'r> {
    duration_ns: u64,
    lost: u64,
    dropped: u64,
    complete: bool,
    problems: &'r [String],
}

#[derive(Serialize)]
struct ByCall<'r> {
    syscall: &'r str,
    number: i64,
    waiting: bool,
    count: u64,
    errors: u64,
    unfinished: u64,
    total_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ns: Option<LatencyInfo>,
}

#[derive(Serialize)]
struct LatencyInfo {
    p50: u64,
    p99: u64,
    max: u64,
}

#[derive(Serialize, Default)]
struct For<'r> {
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<Cow<'r, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_path: Option<Cow<'r, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_path_bytes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool_work: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<&'r str>,
}

#[derive(Serialize)]
struct FailureInfo<'r> {
    syscall: &'r str,
    number: i64,
    errno: &'r str,
    count: u64,
    #[serde(flatten)]
    purpose: For<'r>,
    stacks: Vec<Stack<'r>>,
}

#[derive(Serialize)]
struct Stack<'r> {
    count: u64,
    frames: Vec<JsonFrame<'r>>,
}

#[derive(Serialize)]
struct NotYetInfo<'r> {
    syscall: &'r str,
    errno: &'r str,
    count: u64,
}

#[derive(Serialize)]
struct SlowInfo<'r> {
    syscall: &'r str,
    number: i64,
    time_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tid: Option<u32>,
    #[serde(flatten)]
    purpose: For<'r>,
    frames: Vec<JsonFrame<'r>>,
}

/// Writes one JSON document. `top` bounds calls, failures and the stacks of a failure.
///
/// # Errors
/// What writing says.
pub fn write(
    report: &SyscallsReport<'_>,
    top: Option<usize>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let top = top.unwrap_or(usize::MAX);
    let events = losses::by_event(report.capture);
    let counted = &report.counted;
    let profile = &report.profile;
    let document = Top {
        schema: "nanalyze.syscalls/1",
        capture: CaptureInfo {
            duration_ns: report.duration_ns(),
            lost: events.iter().fold(0, |sum, event| sum.saturating_add(event.lost)),
            dropped: events.iter().fold(0, |sum, event| sum.saturating_add(event.dropped)),
            complete: report.problems.is_empty(),
            problems: &report.problems,
        },
        calls: report.calls,
        failed: report.failed,
        exits_alone: report.exits_alone,
        threads: counted.threads,
        by_call: counted.calls.iter().take(top).map(by_call).collect(),
        failures: counted.failures.iter().take(top).map(|f| failure(f, profile, top)).collect(),
        not_yet: counted.not_yet.iter().map(not_yet).collect(),
        slowest: counted.slowest.iter().map(|call| slow(call, profile)).collect(),
    };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    out.write_all(b"\n")
}

fn by_call(row: &CallCount) -> ByCall<'_> {
    let latency = |Latency { p50, p99, max }| LatencyInfo { p50, p99, max };
    ByCall {
        syscall: &row.name,
        number: row.number,
        waiting: row.waits,
        count: row.count,
        errors: row.errors,
        unfinished: row.unfinished,
        total_ns: row.total_ns,
        latency_ns: row.latency.map(latency),
    }
}

fn failure<'r>(row: &'r Failure<'_>, profile: &'r Profile, top: usize) -> FailureInfo<'r> {
    let stacks = row.stacks.iter().take(top);
    FailureInfo {
        syscall: &row.name,
        number: row.number,
        errno: &row.errno,
        count: row.count,
        purpose: purpose(&row.purpose),
        stacks: stacks
            .map(|&(stack, count)| Stack { count, frames: JsonFrame::stack(profile, stack) })
            .collect(),
    }
}

fn not_yet(row: &NotYet) -> NotYetInfo<'_> {
    NotYetInfo { syscall: &row.name, errno: &row.errno, count: row.count }
}

fn slow<'r>(row: &'r Slow<'_>, profile: &'r Profile) -> SlowInfo<'r> {
    let errno = row.call.errno();
    SlowInfo {
        syscall: &row.name,
        number: row.call.number,
        time_ns: row.call.start_ns,
        duration_ns: row.call.duration_ns,
        result: row.call.result.filter(|_| errno.is_none()),
        errno: errno.map(errno::name),
        tid: Some(row.call.tid).filter(|&tid| tid > 0),
        purpose: purpose(&row.purpose),
        frames: JsonFrame::stack(profile, row.stack),
    }
}

fn purpose<'r>(purpose: &'r Purpose<'_>) -> For<'r> {
    match purpose {
        Purpose::Operation { name, path, new_path, call } => {
            let (path, path_bytes) = text(*path);
            let (new_path, new_path_bytes) = text(*new_path);
            let call = call.as_deref();
            let operation = Some(*name);
            For { operation, path, path_bytes, new_path, new_path_bytes, call, ..For::default() }
        }
        Purpose::Job(work) => {
            let work = match work {
                Work::File => "file",
                Work::Queued => "queued",
                Work::Lookup => "lookup",
            };
            For { pool_work: Some(work), ..For::default() }
        }
        Purpose::Function(name) => For { function: Some(name), ..For::default() },
        Purpose::Unknown => For::default(),
    }
}

/// A path as it can be shown, and its bytes where it had to be changed.
fn text(path: Option<&[u8]>) -> (Option<Cow<'_, str>>, Option<String>) {
    let Some(path) = path else { return (None, None) };
    let shown = Clean(path).to_string();
    let bytes = (shown.as_bytes() != path).then(|| hex(path));
    (Some(shown.into()), bytes)
}
