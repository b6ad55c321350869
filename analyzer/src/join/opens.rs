//! Opens: the entry of `uv_fs_open` joined with the `uv_fs_req_cleanup` of the same request, which
//! carries the result of synchronous and asynchronous opens alike.
//!
//! The memory of a request is used again and again, so the latest entry wins. A request belongs to a
//! process; submission and result may happen on different threads. It must not resolve stacks.

use std::collections::HashMap;

use formats::capture::{Capture, EventDef, Samples};
use formats::catalogue::UV_FS_OPEN;

/// Event that begins an open.
pub const OPEN: &str = "uv_fs_open";
/// Event that carries the result.
pub const CLEANUP: &str = "uv_fs_req_cleanup";

/// One open of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation<'c> {
    /// The path as given; `None` where the kernel could not read it.
    pub path: Option<&'c [u8]>,
    /// Flags as in open(2).
    pub flags: Option<i64>,
    /// Mode as in open(2).
    pub mode: Option<i64>,
    /// Whether a callback was given, so that a pool thread opens the file.
    pub asynchronous: Option<bool>,
    /// When it was asked for, CLOCK_MONOTONIC nanoseconds.
    pub start_ns: u64,
    /// Until the result was given up, nanoseconds; `None` without a result.
    pub latency_ns: Option<u64>,
    /// The file descriptor, or the error number negated.
    pub result: Option<i64>,
    /// Process id.
    pub pid: u32,
    /// Thread that asked.
    pub tid: u32,
    /// Stack that asked, an index into the capture's stacks.
    pub stack: u32,
}

impl Operation<'_> {
    /// The error number, if it failed.
    #[must_use]
    pub fn errno(&self) -> Option<i64> {
        self.result.filter(|&result| result < 0).map(i64::saturating_neg)
    }
}

/// What the join found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Opens<'c> {
    /// All opens, by time of their beginning.
    pub operations: Vec<Operation<'c>>,
    /// Results whose beginning is not in the capture: it was under way when recording started, or
    /// its record was lost.
    pub results_without_open: u64,
}

/// Whether the samples of this event are halves of opens.
#[must_use]
pub fn is_half(event: &EventDef) -> bool {
    let has = |name: &str| event.fields.iter().any(|field| field.name == name);
    match event.name.as_str() {
        OPEN => has("req") && has("path"),
        CLEANUP => has("req") && has("result"),
        _ => false,
    }
}

/// Joins all opens of a capture.
#[must_use]
pub fn join(capture: &Capture) -> Opens<'_> {
    let halves: Vec<Half<'_>> =
        capture.samples.iter().filter_map(|s| Half::new(capture, s)).collect();
    let mut order: Vec<(u64, usize, usize)> = Vec::new();
    for (at, half) in halves.iter().enumerate() {
        order.extend(half.samples.time_ns.iter().enumerate().map(|(row, &time)| (time, at, row)));
    }
    order.sort_unstable();
    let mut opens = Opens::default();
    let mut waiting: HashMap<(u32, u64), usize> = HashMap::new();
    for (time, at, row) in order {
        let Some(half) = halves.get(at) else { continue };
        let thread = half.samples.thread.get(row).copied().unwrap_or(u32::MAX);
        let owner = capture.threads.get(thread as usize);
        let process = owner.map_or(u32::MAX, |thread| thread.process);
        let Some(request) = half.value(half.request, row) else { continue };
        if half.begins {
            waiting.insert((process, request), opens.operations.len());
            opens.operations.push(Operation {
                path: half.value(half.path, row).and_then(|index| capture.string(index)),
                flags: half.value(half.flags, row).map(|value| value as i64),
                mode: half.value(half.mode, row).map(|value| value as i64),
                asynchronous: half.value(half.callback, row).map(|callback| callback != 0),
                start_ns: time,
                latency_ns: None,
                result: None,
                pid: capture.processes.get(process as usize).map_or(0, |process| process.pid),
                tid: owner.map_or(0, |thread| thread.tid),
                stack: half.samples.stack.get(row).copied().unwrap_or(0),
            });
            continue;
        }
        // Cleanups of other operations pass where the kernel did not filter them.
        if half.value(half.kind, row).is_some_and(|kind| kind as i64 != UV_FS_OPEN) {
            continue;
        }
        let begun = waiting.remove(&(process, request));
        match begun.and_then(|at| opens.operations.get_mut(at)) {
            Some(operation) => {
                operation.latency_ns = Some(time.saturating_sub(operation.start_ns));
                operation.result = half.value(half.result, row).map(|value| value as i64);
            }
            None => opens.results_without_open += 1,
        }
    }
    opens
}

/// The samples of one of the two events, with the places of the arguments.
struct Half<'c> {
    samples: &'c Samples,
    begins: bool,
    request: Option<usize>,
    path: Option<usize>,
    flags: Option<usize>,
    mode: Option<usize>,
    callback: Option<usize>,
    kind: Option<usize>,
    result: Option<usize>,
}

impl<'c> Half<'c> {
    fn new(capture: &'c Capture, samples: &'c Samples) -> Option<Self> {
        let event = capture.event(samples.event).filter(|event| is_half(event))?;
        let place = |name: &str| event.fields.iter().position(|field| field.name == name);
        Some(Self {
            samples,
            begins: event.name == OPEN,
            request: place("req"),
            path: place("path"),
            flags: place("flags"),
            mode: place("mode"),
            callback: place("cb"),
            kind: place("type"),
            result: place("result"),
        })
    }

    fn value(&self, place: Option<usize>, row: usize) -> Option<u64> {
        self.samples.fields.get(place?)?.get(row).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::CaptureBuilder;

    #[test]
    fn requests_are_joined_whatever_is_between() {
        let mut build = CaptureBuilder::new();
        let one = build.process(10, &[10, 11]);
        let two = build.process(20, &[20]);
        // Synchronous, asynchronous with the result on another thread, the same request at once in
        // another process, reused memory, a cleanup of something older, and one left pending.
        build.cleanup(one[0], 90, 0x1000, 7);
        build.open(one[0], 100, 0x1000, "/sync", false, 0);
        build.open(two[0], 105, 0x1000, "/other", false, 0);
        build.cleanup(one[0], 110, 0x1000, -2);
        build.cleanup(two[0], 130, 0x1000, 3);
        build.open(one[0], 200, 0x2000, "/async", true, 0);
        build.open(one[0], 210, 0x1000, "/again", false, 0);
        build.cleanup(one[0], 215, 0x1000, 5);
        build.cleanup(one[1], 290, 0x2000, 19);
        build.open(one[0], 300, 0x3000, "/overwritten", true, 0);
        build.open(one[0], 310, 0x3000, "/pending", true, 0);
        let capture = build.finish();
        let opens = join(&capture);
        let got: Vec<_> = opens
            .operations
            .iter()
            .map(|o| {
                let path = std::str::from_utf8(o.path.unwrap()).unwrap();
                (path, o.pid, o.asynchronous.unwrap(), o.result, o.latency_ns, o.errno())
            })
            .collect();
        assert_eq!(
            got,
            [
                ("/sync", 10, false, Some(-2), Some(10), Some(2)),
                ("/other", 20, false, Some(3), Some(25), None),
                ("/async", 10, true, Some(19), Some(90), None),
                ("/again", 10, false, Some(5), Some(5), None),
                ("/overwritten", 10, true, None, None, None),
                ("/pending", 10, true, None, None, None),
            ]
        );
        assert_eq!(opens.results_without_open, 1);
    }

    #[test]
    fn fields_count_by_name_and_may_be_missing() {
        let mut build = CaptureBuilder::with_fields(
            &["path", "extra", "req"],
            &["result", "other", "req", "type"],
        );
        let threads = build.process(10, &[10]);
        build.open(threads[0], 100, 0x1000, "/a", true, 0);
        build.cleanup_of(threads[0], 101, 0x1000, -13, 6);
        build.cleanup(threads[0], 110, 0x1000, -13);
        let capture = build.finish();
        let opens = join(&capture).operations;
        assert_eq!(opens.len(), 1);
        assert_eq!((opens[0].result, opens[0].latency_ns), (Some(-13), Some(10)));
        assert_eq!((opens[0].flags, opens[0].asynchronous), (None, None));
    }
}
