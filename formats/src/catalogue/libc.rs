//! The C library's functions that take a path: what native add-ons and other libraries call. Node
//! itself calls them through libuv, so that they are a set of their own, and what libuv calls is a
//! step of libuv's operation.
//!
//! As in [`super::outside`] a call and its return belong together by where the stack ends. Callers are
//! C and C++, never JIT code. Many of the functions are points of cancellation: a thread that is cancelled in
//! one (`pthread_cancel`) is unwound, which a return probe keeps from its clean-up. So the set is armed only
//! where it is asked for by name. The error number is kept per thread by
//! the C library, where no probe can read it. Compared with the system calls for glibc 2.36; glibc up to
//! 2.32 calls `__xstat64` what later is `stat64`, and keeps the old name.

use super::{Argument, Entry, Gives, Operation, Role};
use crate::capture::FieldType;

/// The set, and the dynamic event of its calls.
pub const LIBC: &str = "libc";
/// How the file is called in which they are looked for, without its version.
pub const LIBC_FILE: &str = "libc";

const CALLS: Option<&str> = Some(LIBC);
const RETURNS: Option<&str> = Some("libc, returns");
const NEW_PATHS: Option<&str> = Some("libc, second paths");

const fn number(name: &'static str, fetch: &'static str, role: Role) -> Argument {
    Argument { name, fetch, kind: FieldType::Signed, role }
}

const fn text(name: &'static str, fetch: &'static str, role: Role) -> Argument {
    Argument { name, fetch, kind: FieldType::String, role }
}

const STACK_TOP: Argument =
    Argument { name: "sp", fetch: "$stack:x64", kind: FieldType::Hex, role: Role::StackTop };
const FOLDER: Argument = number("dirfd", "%di:s32", Role::Folder);
const FIRST: Argument = text("path", "+0(%di):ustring", Role::Path);
const SECOND: Argument = text("path", "+0(%si):ustring", Role::Path);

const PATH: &[Argument] = &[STACK_TOP, FIRST];
const PATH_AND_MODE: &[Argument] = &[STACK_TOP, number("mode", "%si:s32", Role::Mode), FIRST];
const ACCESS: &[Argument] = &[STACK_TOP, number("mode", "%si:s32", Role::AccessMode), FIRST];
const OPEN: &[Argument] = &[
    STACK_TOP,
    number("flags", "%si:s32", Role::OpenFlags),
    number("mode", "%dx:s32", Role::Mode),
    FIRST,
];
const OPEN_AT: &[Argument] = &[
    STACK_TOP,
    FOLDER,
    number("flags", "%dx:s32", Role::OpenFlags),
    number("mode", "%cx:s32", Role::Mode),
    SECOND,
];
const AT: &[Argument] = &[STACK_TOP, FOLDER, SECOND];
const ACCESS_AT: &[Argument] =
    &[STACK_TOP, FOLDER, number("mode", "%dx:s32", Role::AccessMode), SECOND];
const VERSIONED: &[Argument] = &[STACK_TOP, SECOND];

const DESCRIPTOR: &[Argument] = &[STACK_TOP, number("fd", "$retval:s32", Role::Descriptor)];
const POINTER: &[Argument] = &[STACK_TOP, number("pointer", "$retval:s64", Role::Pointer)];
const STATUS: &[Argument] = &[STACK_TOP, number("failed", "$retval:s32", Role::Count)];
const LENGTH: &[Argument] = &[STACK_TOP, number("length", "$retval:s64", Role::Count)];
const NEW: &[Argument] = &[STACK_TOP, text("new", "+0(%si):ustring", Role::NewPath)];

const fn call(
    event: &'static str,
    function: &'static str,
    (name, number): (&'static str, i64),
    arguments: &'static [Argument],
) -> Entry {
    let gives = if number < 110 { Gives::Descriptor } else { Gives::Nothing };
    Entry {
        event,
        function,
        through: None,
        set: LIBC,
        group: CALLS,
        operation: Some(Operation { name, fs_type: -number, gives }),
        arguments,
        filter: None,
        may_slide: false,
        stack: true,
        versions: "glibc 2.36",
    }
}

const fn result(
    event: &'static str,
    function: &'static str,
    arguments: &'static [Argument],
) -> Entry {
    let entry = call(event, function, ("", 0), arguments);
    Entry { group: RETURNS, operation: None, stack: false, ..entry }
}

const fn new_path(event: &'static str, function: &'static str) -> Entry {
    Entry { group: NEW_PATHS, ..result(event, function, NEW) }
}

/// What begins an operation. Numbers below 110 give a descriptor.
pub(super) const ENTRIES: [Entry; 34] = [
    call("libc.open64", "open64", ("open", 100), OPEN),
    call("libc.open", "open", ("open", 101), OPEN),
    call("libc.openat64", "openat64", ("open", 102), OPEN_AT),
    call("libc.openat", "openat", ("open", 103), OPEN_AT),
    call("libc.creat64", "creat64", ("open", 104), PATH_AND_MODE),
    call("libc.fopen64", "fopen64", ("fopen", 110), PATH),
    call("libc.fopen", "fopen", ("fopen", 111), PATH),
    call("libc.freopen64", "freopen64", ("fopen", 112), PATH),
    call("libc.opendir", "opendir", ("opendir", 113), PATH),
    call("libc.__xstat64", "__xstat64", ("stat", 114), VERSIONED),
    call("libc.__lxstat64", "__lxstat64", ("lstat", 115), VERSIONED),
    call("libc.stat64", "stat64", ("stat", 116), PATH),
    call("libc.stat", "stat", ("stat", 117), PATH),
    call("libc.lstat64", "lstat64", ("lstat", 118), PATH),
    call("libc.lstat", "lstat", ("lstat", 119), PATH),
    call("libc.fstatat64", "fstatat64", ("stat", 120), AT),
    call("libc.fstatat", "fstatat", ("stat", 121), AT),
    call("libc.statx", "statx", ("stat", 122), AT),
    call("libc.access", "access", ("access", 123), ACCESS),
    call("libc.faccessat", "faccessat", ("access", 124), ACCESS_AT),
    call("libc.mkdir", "mkdir", ("mkdir", 125), PATH_AND_MODE),
    call("libc.rmdir", "rmdir", ("rmdir", 126), PATH),
    call("libc.unlink", "unlink", ("unlink", 127), PATH),
    call("libc.unlinkat", "unlinkat", ("unlink", 128), AT),
    call("libc.remove", "remove", ("remove", 129), PATH),
    call("libc.rename", "rename", ("rename", 130), PATH),
    call("libc.link", "link", ("link", 131), PATH),
    call("libc.symlink", "symlink", ("symlink", 132), PATH),
    call("libc.readlink", "readlink", ("readlink", 133), PATH),
    call("libc.realpath", "realpath", ("realpath", 134), PATH),
    call("libc.chmod", "chmod", ("chmod", 135), PATH_AND_MODE),
    call("libc.truncate64", "truncate64", ("truncate", 136), PATH),
    call("libc.truncate", "truncate", ("truncate", 137), PATH),
    call("libc.mkdtemp", "mkdtemp", ("mkdtemp", 138), PATH),
];

/// Second paths and returns.
pub(super) const ENDS: [Entry; 37] = [
    new_path("libc.rename.new", "rename"),
    new_path("libc.link.new", "link"),
    new_path("libc.symlink.new", "symlink"),
    result("libc.open64.return", "open64", DESCRIPTOR),
    result("libc.open.return", "open", DESCRIPTOR),
    result("libc.openat64.return", "openat64", DESCRIPTOR),
    result("libc.openat.return", "openat", DESCRIPTOR),
    result("libc.creat64.return", "creat64", DESCRIPTOR),
    result("libc.fopen64.return", "fopen64", POINTER),
    result("libc.fopen.return", "fopen", POINTER),
    result("libc.freopen64.return", "freopen64", POINTER),
    result("libc.opendir.return", "opendir", POINTER),
    result("libc.__xstat64.return", "__xstat64", STATUS),
    result("libc.__lxstat64.return", "__lxstat64", STATUS),
    result("libc.stat64.return", "stat64", STATUS),
    result("libc.stat.return", "stat", STATUS),
    result("libc.lstat64.return", "lstat64", STATUS),
    result("libc.lstat.return", "lstat", STATUS),
    result("libc.fstatat64.return", "fstatat64", STATUS),
    result("libc.fstatat.return", "fstatat", STATUS),
    result("libc.statx.return", "statx", STATUS),
    result("libc.access.return", "access", STATUS),
    result("libc.faccessat.return", "faccessat", STATUS),
    result("libc.mkdir.return", "mkdir", STATUS),
    result("libc.rmdir.return", "rmdir", STATUS),
    result("libc.unlink.return", "unlink", STATUS),
    result("libc.unlinkat.return", "unlinkat", STATUS),
    result("libc.remove.return", "remove", STATUS),
    result("libc.rename.return", "rename", STATUS),
    result("libc.link.return", "link", STATUS),
    result("libc.symlink.return", "symlink", STATUS),
    result("libc.readlink.return", "readlink", LENGTH),
    result("libc.realpath.return", "realpath", POINTER),
    result("libc.chmod.return", "chmod", STATUS),
    result("libc.truncate64.return", "truncate64", STATUS),
    result("libc.truncate.return", "truncate", STATUS),
    result("libc.mkdtemp.return", "mkdtemp", POINTER),
];
