//! Calls that take a path and that no file operation makes, by who makes them.
//!
//! Measured with `strace -k` on an `npm install`. A class is as narrow as it can be: what fits into
//! none is a call that we missed.

use crate::strace_calls::PathCall;

/// A name, and what belongs to it.
type Class = (&'static str, fn(&PathCall) -> bool);

/// Calls that no file operation of libuv makes, by who makes them. The first that fits counts.
const CLASSES: [Class; 10] = [
    (NO_NODE, |call| !runs_node(call)),
    ("the start of a program", |call| call.kind == "execve"),
    ("the working directory", |call| matches!(call.kind.as_str(), "getcwd" | "chdir")),
    ("the dynamic loader", |call| {
        has(call, |path| path.starts_with("/etc/ld.so.") || is_library(path))
    }),
    ("OpenSSL's configuration and certificates", |call| {
        has(call, |path| path.starts_with("/etc/ssl/") || path.ends_with("/openssl.cnf"))
    }),
    ("ICU's time zone", |call| {
        has(call, |path| is_time_zone(path) || call.kind == "readlink" && is_above_time_zone(path))
    }),
    ("the resolver's configuration", |call| has(call, |path| RESOLVER.contains(&path))),
    ("/proc and /sys, for V8, libuv and malloc", |call| {
        has(call, |path| path.starts_with("/proc/") || path.starts_with("/sys/"))
    }),
    ("V8's own code in the binary", |call| {
        call.kind == "open" && has(call, |path| Some(path) == call.program.as_deref())
    }),
    ("devices", |call| has(call, |path| path.starts_with("/dev/"))),
];
/// The class of what Node did not do.
pub(super) const NO_NODE: &str = "a child that is no Node";
/// Files of resolv.conf(5) and c-ares (`ares_sysconfig_files.c`).
const RESOLVER: [&str; 6] = [
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/netsvc.conf",
    "/etc/svc.conf",
    "/etc/host.conf",
    "/etc/hosts",
];

/// The class of a call, if it has one.
pub(super) fn class(call: &PathCall) -> Option<&'static str> {
    CLASSES.iter().find(|(_, is)| is(call)).map(|(name, _)| *name)
}

fn runs_node(call: &PathCall) -> bool {
    call.program.as_deref().is_none_or(|program| program.rsplit('/').next() == Some("node"))
}

fn has(call: &PathCall, is: impl Fn(&str) -> bool) -> bool {
    call.paths.first().is_some_and(|path| is(path))
}

fn is_library(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.ends_with(".so") || name.contains(".so.")
}

fn is_time_zone(path: &str) -> bool {
    path.starts_with("/usr/share/zoneinfo") || matches!(path, "/etc/localtime" | "/etc/timezone")
}

// realpath(3) reads all folders above as if they were links.
fn is_above_time_zone(path: &str) -> bool {
    matches!(path, "/etc" | "/usr" | "/usr/share")
}
