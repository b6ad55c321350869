//! The kernel's tracepoints of system calls: which are armed for what was asked, and what they let
//! through. Pure: opens nothing.
//!
//! While anybody records system calls, each task of the machine enters and leaves the kernel by its
//! slower path, and what a filter rejects costs twice as much again. Measured on 6.18 with a system
//! call of 167 ns: 217 ns in a process that is not recorded, 384 to 549 ns where both tracepoints
//! are armed and their filters reject it, 1490 ns where both are recorded. So beside file operations the
//! main thread, on which JavaScript runs, is not armed at all.

use std::borrow::Cow;

use formats::syscalls::{ENTER, EXIT, FAILED, FIRST_INTERNAL, NOT_YET, SET};
use nix::libc;

/// Group of the tracepoints in tracefs. Their `format` has `id`, the number of the call, and at the
/// exit `ret`; include/trace/events/syscalls.h.
pub const GROUP: &str = "raw_syscalls";
/// Perf events on one thread beside file operations.
pub const POOL_EVENTS: u64 = 2;

/// Calls by which probes work and that no program makes: `uretprobe` and `uprobe` of x86-64
/// (arch/x86/entry/syscalls/syscall_64.tbl). When they return, the kernel has put another number, or
/// none (-1), in their place.
const OF_PROBES: [i64; 2] = if cfg!(target_arch = "x86_64") { [335, 336] } else { [-1, -1] };

/// Whose system calls are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Those of all threads.
    Everybody,
    /// Those of each thread but the main one, without futex: the part of an asynchronous operation
    /// that a pool thread spends in the kernel.
    OtherThreads,
}

/// One tracepoint to arm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracepoint {
    /// Event id in the capture.
    pub event: u32,
    /// Event name in the capture.
    pub name: &'static str,
    /// Set in the capture.
    pub set: &'static str,
    /// Name in tracefs.
    pub tracepoint: &'static str,
    /// Fields that are kept.
    pub fields: &'static [&'static str],
    /// What the kernel lets through.
    pub filter: Option<Cow<'static, str>>,
    /// Whether each hit has a stack.
    pub stack: bool,
}

/// The tracepoints, results before calls: what is armed first must not miss the end of what is armed
/// later.
#[must_use]
pub fn tracepoints(whose: Whose, first_event: u32) -> Vec<Tracepoint> {
    let exit = |event, name, filter: Option<String>, stack| Tracepoint {
        event,
        name,
        set: SET,
        tracepoint: "sys_exit",
        fields: &["id", "ret"],
        filter: filter.map(Cow::Owned),
        stack,
    };
    let plain = exit(first_event, EXIT, None, false);
    let enter = |event, filter: String, of: &Tracepoint| Tracepoint {
        event,
        name: ENTER,
        tracepoint: "sys_enter",
        fields: &["id"],
        filter: Some(Cow::Owned(filter)),
        ..of.clone()
    };
    let programs = OF_PROBES.map(|number| format!("id != {number}")).join(" && ");
    match whose {
        Whose::Everybody => {
            let (failed, others) = by_result();
            let enter = enter(first_event + 2, programs, &plain);
            let failed = format!("id >= 0 && {failed}");
            let failed = exit(first_event + 1, FAILED, Some(failed), true);
            let others = format!("id >= 0 && ({others})");
            vec![Tracepoint { filter: Some(others.into()), ..plain }, failed, enter]
        }
        Whose::OtherThreads => {
            let filter = format!("id != {}", libc::SYS_futex);
            let exit = Tracepoint {
                set: "fs",
                filter: Some(format!("id >= 0 && {filter}").into()),
                ..plain
            };
            let enter = enter(first_event + 1, format!("{programs} && {filter}"), &exit);
            vec![exit, enter]
        }
    }
}

/// Filters of calls that failed, and of all others: each call fits exactly one.
fn by_result() -> (String, String) {
    let (mut failed, mut others) = (
        format!("ret < 0 && ret > -{FIRST_INTERNAL}"),
        format!("ret >= 0 || ret <= -{FIRST_INTERNAL}"),
    );
    for errno in NOT_YET {
        failed.push_str(&format!(" && ret != -{errno}"));
        others.push_str(&format!(" || ret == -{errno}"));
    }
    (failed, others)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's grammar as far as it is used here: comparisons of `ret`, joined by one operator.
    fn lets_through(filter: &str, ret: i64) -> bool {
        let filter = filter.strip_prefix("id >= 0 && ").unwrap();
        let filter = filter.trim_start_matches('(').trim_end_matches(')');
        let fits = |comparison: &str| {
            let words: Vec<&str> = comparison.split(' ').collect();
            let [_ret, operator, number] = words[..] else { panic!("{comparison}") };
            let number: i64 = number.parse().unwrap();
            match operator {
                "<" => ret < number,
                ">" => ret > number,
                "<=" => ret <= number,
                ">=" => ret >= number,
                "==" => ret == number,
                "!=" => ret != number,
                _ => panic!("{comparison}"),
            }
        };
        match filter.contains("||") {
            true => filter.split(" || ").any(fits),
            false => filter.split(" && ").all(fits),
        }
    }

    #[test]
    fn each_result_is_recorded_once() {
        let armed = tracepoints(Whose::Everybody, 7);
        let filters: Vec<_> = armed.iter().filter_map(|t| t.filter.as_deref()).collect();
        let [others, failed, _enter] = filters[..] else { panic!("{filters:?}") };
        for ret in -4200..=10 {
            let is_failure = lets_through(failed, ret);
            assert_ne!(lets_through(others, ret), is_failure, "{ret}");
            assert_eq!(is_failure, formats::syscalls::is_failure(ret), "{ret}");
        }
        let events: Vec<_> = armed.iter().map(|t| (t.event, t.name, t.stack)).collect();
        let want = [(7, "sys_exit", false), (8, "sys_exit.failed", true), (9, "sys_enter", false)];
        assert_eq!(events, want);
    }

    #[test]
    fn beside_file_operations_nothing_has_a_stack() {
        let armed = tracepoints(Whose::OtherThreads, 7);
        assert_eq!(armed.len() as u64, POOL_EVENTS);
        assert!(armed.iter().all(|t| !t.stack && t.set == "fs" && t.filter.is_some()));
    }
}
