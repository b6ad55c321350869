//! File operations as JSON has them. Keys are documented in docs/report-json.md and only ever added.

use std::borrow::Cow;
use std::collections::BTreeMap;

use formats::text::Clean;
use serde::Serialize;

use super::UNREADABLE_PATH;
use crate::aggregate::operations::{Latency, OpenCount, OpenStack, PathOperations};
use crate::asked::{Folded, MODULE_RESOLUTION};
use crate::report::Report;
use crate::report::frames::{JsonFrame, hex};

#[derive(Serialize)]
pub(super) struct OpensTotal {
    pub(super) paths: usize,
    #[serde(flatten)]
    pub(super) opens: Counts,
    pub(super) results_without_open: u64,
}

#[derive(Serialize)]
pub(super) struct OperationsTotal {
    pub(super) rows: usize,
    #[serde(flatten)]
    pub(super) operations: Counts,
    pub(super) bytes: u64,
    pub(super) results_without_operation: u64,
}

#[derive(Serialize)]
pub(super) struct Counts {
    count: u64,
    failed: u64,
    pending: u64,
    synchronous: u64,
    asynchronous: u64,
}

#[derive(Serialize)]
pub(super) struct Opens<'r> {
    path: Cow<'r, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    path_unreadable: bool,
    #[serde(flatten)]
    opens: Counts,
    #[serde(skip_serializing_if = "<[u32]>::is_empty")]
    pids: &'r [u32],
    errors: &'r BTreeMap<Cow<'static, str>, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ns: Option<LatencyInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    folded: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    folded_count: Option<u64>,
    stacks: Vec<Stack<'r>>,
}

#[derive(Serialize)]
pub(super) struct Operations<'r> {
    operation: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<Cow<'r, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    path_unreadable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_path_bytes: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    by_handle: bool,
    #[serde(flatten)]
    operations: Counts,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "<[u32]>::is_empty")]
    pids: &'r [u32],
    errors: &'r BTreeMap<Cow<'static, str>, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ns: Option<LatencyInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    folded: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    folded_count: Option<u64>,
    stacks: Vec<Stack<'r>>,
}

#[derive(Serialize)]
pub(super) struct LatencyInfo {
    p50: u64,
    p99: u64,
    max: u64,
}

#[derive(Serialize)]
pub(super) struct Stack<'r> {
    #[serde(flatten)]
    opens: Counts,
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    folded: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    folded_by: Option<&'static str>,
    frames: Vec<JsonFrame<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asker_frames: Option<Vec<JsonFrame<'r>>>,
}

pub(super) fn counts(opens: OpenCount) -> Counts {
    let OpenCount { count, failed, pending, synchronous, asynchronous } = opens;
    Counts { count, failed, pending, synchronous, asynchronous }
}

pub(super) fn opens<'r>(
    row: &'r PathOperations<'_>,
    report: &'r Report<'_>,
    top: usize,
) -> Opens<'r> {
    let Operations { path, path_bytes, path_unreadable, operations, .. } =
        operations_without_stacks(row);
    Opens {
        path: path.unwrap_or(Cow::Borrowed(UNREADABLE_PATH)),
        path_bytes,
        path_unreadable,
        opens: operations,
        pids: &row.pids,
        errors: &row.errors,
        latency_ns: row.latency.map(latency),
        folded: folded(row),
        folded_count: Some(row.folded).filter(|&count| count > 0),
        stacks: row.stacks.iter().take(top).map(|stack| stack_of(stack, report)).collect(),
    }
}

pub(super) fn operations<'r>(
    row: &'r PathOperations<'_>,
    report: &'r Report<'_>,
    top: usize,
) -> Operations<'r> {
    let stacks = row.stacks.iter().take(top).map(|stack| stack_of(stack, report)).collect();
    Operations { stacks, ..operations_without_stacks(row) }
}

fn operations_without_stacks<'r>(row: &'r PathOperations<'_>) -> Operations<'r> {
    let (path, path_bytes) = row.path.map(shown).unzip();
    let (new_path, new_path_bytes) = row.new_path.map(shown).unzip();
    Operations {
        operation: row.operation,
        path: path.map(Cow::Owned),
        path_bytes: path_bytes.flatten(),
        path_unreadable: row.path.is_none() && !row.by_handle,
        new_path,
        new_path_bytes: new_path_bytes.flatten(),
        by_handle: row.by_handle,
        operations: counts(row.opens),
        bytes: row.bytes,
        pids: &row.pids,
        errors: &row.errors,
        latency_ns: row.latency.map(latency),
        folded: folded(row),
        folded_count: Some(row.folded).filter(|&count| count > 0),
        stacks: Vec::new(),
    }
}

/// A path as it can be shown, and its bytes where it had to be changed.
pub(super) fn shown(path: &[u8]) -> (String, Option<String>) {
    let shown = Clean(path).to_string();
    let bytes = (shown.as_bytes() != path).then(|| hex(path));
    (shown, bytes)
}

fn latency(latency: Latency) -> LatencyInfo {
    let Latency { p50, p99, max } = latency;
    LatencyInfo { p50, p99, max }
}

fn stack_of<'r>(stack: &OpenStack, report: &'r Report<'_>) -> Stack<'r> {
    let OpenStack { asked, opens } = *stack;
    let profile = &report.profile;
    Stack {
        opens: counts(opens),
        call: report.askers.name(asked.call),
        asked_by: asked.asked_by(),
        folded: asked.folded.map(|_| MODULE_RESOLUTION),
        folded_by: asked.folded.map(Folded::key),
        frames: JsonFrame::stack(profile, asked.own),
        asker_frames: asked.asker.map(|stack| JsonFrame::stack(profile, stack)),
    }
}

/// Whether all operations of a row are steps of module resolution.
fn folded(row: &PathOperations<'_>) -> Option<&'static str> {
    (row.folded > 0 && row.folded == row.opens.count).then_some(MODULE_RESOLUTION)
}
