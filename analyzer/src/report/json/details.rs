//! Calls, the slowest operations, module resolution and the thread pool as JSON has them. Keys are
//! documented in docs/report-json.md and only ever added.

use std::borrow::Cow;
use std::collections::BTreeMap;

use formats::text::Clean;
use serde::Serialize;

use super::operations::{Counts, counts, shown};
use crate::aggregate::pool::Waits;
use crate::asked::MODULE_RESOLUTION;
use crate::join::errno;
use crate::join::pool::JobKind;
use crate::profile::FrameId;
use crate::report::Report;
use crate::report::frames::JsonFrame;

#[derive(Serialize)]
pub(super) struct Slow<'r> {
    operation: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_path_bytes: Option<String>,
    time_ns: u64,
    latency_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    work_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    syscall_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loop_ns: Option<u64>,
    #[serde(rename = "async", skip_serializing_if = "Option::is_none")]
    asynchronous: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    folded: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<JsonFrame<'r>>,
}

#[derive(Serialize)]
pub(super) struct Call<'r> {
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<JsonFrame<'r>>,
    #[serde(flatten)]
    operations: Counts,
    by_descriptor: u64,
    by_operation: &'r BTreeMap<&'static str, u64>,
    errors: &'r BTreeMap<Cow<'static, str>, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    total_ns: u64,
    blocked_ns: u64,
}

#[derive(Serialize)]
pub(super) struct ModuleResolution<'r> {
    #[serde(flatten)]
    operations: Counts,
    concluded: u64,
    modules: u64,
    missing: Vec<Missing<'r>>,
}

#[derive(Serialize)]
struct Missing<'r> {
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<&'r str>,
    tried: Vec<String>,
    frames: Vec<JsonFrame<'r>>,
}

#[derive(Serialize)]
pub(super) struct Pool<'r> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    threads: u64,
    jobs: u64,
    window_ns: u64,
    all_busy_ns: u64,
    busy_ns: u64,
    waiting_for_thread: WaitsInfo,
    waiting_while_all_busy_ns: u64,
    waiting_for_loop: WaitsInfo,
    too_small: bool,
    work: Vec<Work<'r>>,
}

#[derive(Serialize)]
struct WaitsInfo {
    count: u64,
    over_1ms: u64,
    over_10ms: u64,
    total_ns: u64,
    max_ns: u64,
}

#[derive(Serialize)]
struct Work<'r> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<String>,
    jobs: u64,
    busy_ns: u64,
    frames: Vec<JsonFrame<'r>>,
}

fn line<'r>(report: &'r Report<'_>, line: Option<FrameId>) -> Option<JsonFrame<'r>> {
    line.and_then(|line| report.profile.get(line)).map(JsonFrame::new)
}

pub(super) fn slowest<'r>(report: &'r Report<'_>, top: usize) -> Vec<Slow<'r>> {
    let known = |number: u32| Some(number).filter(|&number| number > 0);
    let slow = |&place: &usize| {
        let operation = report.joined.get(place)?;
        let asked = report.askers.get(place);
        let (path, path_bytes) = operation.path.map(shown).unzip();
        let (new_path, new_path_bytes) = operation.new_path.map(shown).unzip();
        Some(Slow {
            operation: operation.name,
            path,
            path_bytes: path_bytes.flatten(),
            new_path,
            new_path_bytes: new_path_bytes.flatten(),
            time_ns: operation.start_ns,
            latency_ns: operation.latency_ns?,
            worker: operation.parts.worker,
            queue_ns: operation.parts.queue_ns,
            work_ns: operation.parts.work_ns,
            syscall_ns: operation.parts.syscall_ns,
            loop_ns: operation.parts.loop_ns,
            asynchronous: operation.asynchronous,
            errno: operation.errno().map(errno::name),
            pid: known(operation.pid),
            tid: known(operation.tid),
            call: report.askers.name(asked.call),
            asked_by: asked.asked_by(),
            folded: asked.folded.map(|_| MODULE_RESOLUTION),
            line: line(report, crate::asked::line(&report.profile, asked.stack())),
        })
    };
    report.slowest.iter().take(top).filter_map(slow).collect()
}

pub(super) fn calls<'r>(report: &'r Report<'_>, top: usize) -> Vec<Call<'r>> {
    let calls = report.calls.iter().take(top);
    calls
        .map(|(site, sum)| Call {
            call: report.askers.name(site.call),
            line: line(report, site.line),
            operations: counts(sum.opens),
            by_descriptor: sum.by_descriptor,
            by_operation: &sum.names,
            errors: &sum.errors,
            bytes: sum.bytes,
            total_ns: sum.total_ns,
            blocked_ns: sum.blocked_ns,
        })
        .collect()
}

pub(super) fn module_resolution<'r>(
    report: &'r Report<'_>,
    top: usize,
) -> Option<ModuleResolution<'r>> {
    let modules = Some(&report.askers.modules).filter(|modules| modules.operations.count > 0)?;
    let missing = modules.missing.iter().take(top);
    Some(ModuleResolution {
        operations: counts(modules.operations),
        concluded: modules.concluded,
        modules: modules.files,
        missing: missing
            .map(|search| Missing {
                count: search.count,
                call: report.askers.name(report.askers.get(search.place).call),
                tried: search.tried.iter().map(|path| Clean(path).to_string()).collect(),
                frames: JsonFrame::stack(&report.profile, search.stack),
            })
            .collect(),
    })
}

pub(super) fn pools<'r>(report: &'r Report<'_>, top: usize) -> Vec<Pool<'r>> {
    let waits = |waits: Waits| {
        let Waits { count, over_1ms, over_10ms, total_ns, max_ns } = waits;
        WaitsInfo { count, over_1ms, over_10ms, total_ns, max_ns }
    };
    let kind = |kind: JobKind| match kind {
        JobKind::File => "file",
        JobKind::Queued => "queued",
        JobKind::Lookup => "lookup",
    };
    let pools = report.pools.iter().take(top);
    pools
        .map(|pool| Pool {
            pid: Some(pool.pid).filter(|&pid| pid > 0),
            threads: pool.workers,
            jobs: pool.jobs,
            window_ns: pool.window_ns,
            all_busy_ns: pool.all_busy_ns,
            busy_ns: pool.busy_ns,
            waiting_for_thread: waits(pool.queue),
            waiting_while_all_busy_ns: pool.queue_full_ns,
            waiting_for_loop: waits(pool.event_loop),
            too_small: pool.is_too_small(),
            work: pool
                .loads
                .iter()
                .take(top)
                .map(|load| Work {
                    kind: kind(load.kind),
                    call: crate::asked::call(&report.profile, load.stack),
                    jobs: load.jobs,
                    busy_ns: load.busy_ns,
                    frames: JsonFrame::stack(&report.profile, load.stack),
                })
                .collect(),
        })
        .collect()
}
