//! libuv's thread pool: who gave it work, when a pool thread took the work up and ended it, and when
//! the event loop took up the result.
//!
//! A request has its work item within it (`struct uv__work`, include/uv/threadpool.h: work at 0, done
//! at 8, loop at 16), so that the addresses of both differ by a constant: [`FS_REQUEST_TO_WORK`],
//! [`QUEUE_REQUEST_TO_WORK`]. A pool thread that has ended an item wakes the item's loop by
//! `uv_async_send` of a handle that lies within the loop (src/threadpool.c, `worker`), whatever the
//! item was; so no return probe is needed.

use super::files::{OPERATIONS, VERSIONS};
use super::{Argument, CodeArgument, Entry, Role, Through};
use crate::capture::FieldType;

/// Bytes from a `uv_fs_t` to its work item.
pub const FS_REQUEST_TO_WORK: u64 = 336;
/// Bytes from a `uv_work_t` to its work item.
pub const QUEUE_REQUEST_TO_WORK: u64 = 88;

/// Event by which a program gives work of its own to the pool.
pub const QUEUE: &str = "uv_queue_work";
/// Event of a pool thread that begins a file operation.
pub const FILE_WORK: &str = "uv__fs_work";
/// Event of a pool thread that begins the program's own work.
pub const QUEUED_WORK: &str = "uv__queue_work";
/// Event of a pool thread that begins to look up a host name.
pub const LOOKUP_WORK: &str = "uv__getaddrinfo_work";
/// Event by which a pool thread tells the loop that it has ended its work.
pub const WAKE_LOOP: &str = "uv_async_send";
/// Event of the loop that has taken up the result of a file operation.
pub const FILE_DONE: &str = "uv__fs_done";

/// All steps, in one dynamic event.
const GROUP: Option<&str> = Some("uv__work");

const fn address(name: &'static str, fetch: &'static str, role: Role) -> Argument {
    Argument { name, fetch, kind: FieldType::Hex, role }
}

/// `uv__fs_work` runs for synchronous operations too, whose callback is zero. They are of no
/// interest here, and filtered out in the kernel; what has no callback has a one in its place.
const FILTER: Option<&str> = Some("cb != 0");
const SOME_CALLBACK: Argument = address("cb", "\\1:x64", Role::Callback);
const WORK: Argument = address("work", "%di:x64", Role::Work);
const LOOP: Argument = address("loop", "+16(%di):x64", Role::Loop);

const fn step(
    function: &'static str,
    through: Option<Through>,
    arguments: &'static [Argument],
) -> Entry {
    Entry {
        event: function,
        function,
        through,
        set: "fs",
        group: GROUP,
        operation: None,
        arguments,
        filter: FILTER,
        may_slide: true,
        stack: false,
        versions: VERSIONS,
    }
}

/// int uv_queue_work(uv_loop_t*, uv_work_t* req, uv_work_cb work, uv_after_work_cb after)
pub(super) const SUBMISSIONS: [Entry; 1] = [Entry {
    event: QUEUE,
    function: QUEUE,
    through: None,
    set: "fs",
    group: OPERATIONS,
    operation: None,
    arguments: &[address("req", "%si:x64", Role::Request)],
    filter: None,
    may_slide: true,
    stack: true,
    versions: VERSIONS,
}];

/// Each has a work item as its only or first argument, but `uv_async_send` a handle.
pub(super) const STEPS: [Entry; 5] = [
    step(
        FILE_WORK,
        Some(Through { exported: "uv_fs_fsync", argument: CodeArgument::Fourth }),
        // uv_fs_t: cb at 80.
        &[WORK, LOOP, address("cb", "-256(%di):x64", Role::Callback)],
    ),
    step(
        QUEUED_WORK,
        Some(Through { exported: QUEUE, argument: CodeArgument::Trampoline }),
        &[WORK, LOOP, SOME_CALLBACK],
    ),
    step(
        LOOKUP_WORK,
        Some(Through { exported: "uv_getaddrinfo", argument: CodeArgument::Fourth }),
        &[WORK, LOOP, SOME_CALLBACK],
    ),
    step(WAKE_LOOP, None, &[address("handle", "%di:x64", Role::Handle), SOME_CALLBACK]),
    step(
        FILE_DONE,
        Some(Through { exported: "uv_fs_fsync", argument: CodeArgument::Fifth }),
        &[WORK, SOME_CALLBACK],
    ),
];
