//! What Node does to files without libuv's `uv_fs_*`: C++'s `std::filesystem`, which carries `fs.cpSync`
//! from Node 22 on and `fs.rmSync` from 24 on, `dlopen`, `chdir`, and watching.
//!
//! These have no request and no cleanup. Their results come from return probes, which are safe here:
//! their callers are C++, never JIT code, and none of those whose return is probed throws: of each
//! function of `std::filesystem` only the overload with a `std::error_code&` is probed, which the other
//! one calls. The constructor of `directory_iterator` does throw, so its return is not probed.
//! What that error was is not in a register at the return; Node tells it when it makes the exception
//! ([`THROWN`]). The stack's top tells calls within a call.

use super::files::NEW_PATHS;
use super::{Argument, Entry, Gives, Operation, Role};
use crate::capture::FieldType;

/// The first two letters of the call in whose name Node throws an error of `std::filesystem`.
pub const THROWING: [[u8; 2]; 2] = [*b"cp", *b"rm"];
/// Event that tells that a `dlopen` failed.
pub const LOAD_FAILED: &str = "dlerror";
/// Event that tells which error an operation without libuv ended with.
pub const THROWN: &str = "node::ErrnoException";

/// All that begin an operation.
const CALLS: Option<&str> = Some("outside libuv");
/// All returns.
const RETURNS: Option<&str> = Some("outside libuv, returns");
const FILESYSTEM: &str = "Node 22, 24, 26 (libstdc++)";
const LIBRARY: &str = "Node 16 to 26 (glibc 2.36)";
const WATCHING: &str = "libuv 1.43 to 1.52 (Node 16 to 26)";

const fn text(name: &'static str, fetch: &'static str, role: Role) -> Argument {
    Argument { name, fetch, kind: FieldType::String, role }
}

/// After the return address is pushed at the call, taken off at the return.
const STACK_TOP: Argument =
    Argument { name: "sp", fetch: "$stack:x64", kind: FieldType::Hex, role: Role::StackTop };

// A `std::filesystem::path` begins with a `std::string`, which begins with the address of its text.
const FIRST_PATH: &[Argument] = &[STACK_TOP, text("path", "+0(+0(%di)):ustring", Role::Path)];
// Of a method, and of what gives a value by memory, the first argument is the place.
const SECOND_PATH: &[Argument] = &[STACK_TOP, text("path", "+0(+0(%si)):ustring", Role::Path)];
const FIRST_TEXT: &[Argument] = &[STACK_TOP, text("path", "+0(%di):ustring", Role::Path)];
const THIRD_TEXT: &[Argument] = &[STACK_TOP, text("path", "+0(%dx):ustring", Role::Path)];
const NEW_SECOND: &[Argument] = &[STACK_TOP, text("new", "+0(+0(%si)):ustring", Role::NewPath)];

const fn returned(name: &'static str, fetch: &'static str, role: Role) -> Argument {
    Argument { name, fetch, kind: FieldType::Signed, role }
}

const STATUS: &[Argument] = &[STACK_TOP, returned("status", "$retval:s32", Role::Status)];
const DONE: &[Argument] = &[STACK_TOP, returned("done", "$retval:u8", Role::Done)];
const COUNT: &[Argument] = &[STACK_TOP, returned("count", "$retval:s64", Role::Count)];
const MINUS_ONE: &[Argument] = &[STACK_TOP, returned("failed", "$retval:s32", Role::Count)];
const FILE_TYPE: &[Argument] = &[STACK_TOP, returned("type", "$retval:s8", Role::FileType)];
const NOTHING: &[Argument] = &[STACK_TOP, returned("nothing", "$retval:u8", Role::Nothing)];

const fn call(
    event: &'static str,
    function: &'static str,
    (name, number): (&'static str, i64),
    arguments: &'static [Argument],
    versions: &'static str,
) -> Entry {
    // No `uv_fs_type`.
    let operation = Operation { name, fs_type: -number, gives: Gives::Nothing };
    Entry {
        event,
        function,
        through: None,
        set: "fs",
        group: CALLS,
        operation: Some(operation),
        arguments,
        filter: None,
        // Early branches are part of the work here.
        may_slide: false,
        stack: true,
        versions,
    }
}

const fn result(
    event: &'static str,
    function: &'static str,
    arguments: &'static [Argument],
) -> Entry {
    Entry {
        group: RETURNS,
        operation: None,
        stack: false,
        ..call(event, function, ("", 0), arguments, "as the call")
    }
}

const fn new_path(event: &'static str, function: &'static str) -> Entry {
    Entry { group: NEW_PATHS, may_slide: true, ..result(event, function, NEW_SECOND) }
}

// Symbols, by the Itanium C++ ABI.
const REMOVE_ALL: &str = "_ZNSt10filesystem10remove_allERKNS_7__cxx114pathERSt10error_code";
const REMOVE: &str = "_ZNSt10filesystem6removeERKNS_7__cxx114pathERSt10error_code";
const COPY_FILE: &str =
    "_ZNSt10filesystem9copy_fileERKNS_7__cxx114pathES3_NS_12copy_optionsERSt10error_code";
const CREATE_DIRECTORIES: &str =
    "_ZNSt10filesystem18create_directoriesERKNS_7__cxx114pathERSt10error_code";
const CREATE_DIRECTORY: &str =
    "_ZNSt10filesystem16create_directoryERKNS_7__cxx114pathERSt10error_code";
const CREATE_SYMLINK: &str =
    "_ZNSt10filesystem14create_symlinkERKNS_7__cxx114pathES3_RSt10error_code";
const COPY_SYMLINK: &str = "_ZNSt10filesystem12copy_symlinkERKNS_7__cxx114pathES3_RSt10error_code";
const RENAME: &str = "_ZNSt10filesystem6renameERKNS_7__cxx114pathES3_RSt10error_code";
const PERMISSIONS: &str =
    "_ZNSt10filesystem11permissionsERKNS_7__cxx114pathENS_5permsENS_12perm_optionsERSt10error_code";
const STATUS_OF: &str = "_ZNSt10filesystem6statusERKNS_7__cxx114pathERSt10error_code";
const SYMLINK_STATUS: &str = "_ZNSt10filesystem14symlink_statusERKNS_7__cxx114pathERSt10error_code";
const READ_SYMLINK: &str = "_ZNSt10filesystem12read_symlinkERKNS_7__cxx114pathERSt10error_code";
const DIRECTORY: &str = "_ZNSt10filesystem7__cxx1118directory_iteratorC1ERKNS0_4pathENS_17directory_optionsEPSt10error_code";

/// What begins an operation.
pub(super) const ENTRIES: [Entry; 18] = [
    call("std::filesystem::remove_all", REMOVE_ALL, ("remove_all", 1), FIRST_PATH, FILESYSTEM),
    call("std::filesystem::remove", REMOVE, ("remove", 2), FIRST_PATH, FILESYSTEM),
    call("std::filesystem::copy_file", COPY_FILE, ("copy_file", 3), FIRST_PATH, FILESYSTEM),
    call(
        "std::filesystem::create_directories",
        CREATE_DIRECTORIES,
        ("create_directories", 4),
        FIRST_PATH,
        FILESYSTEM,
    ),
    call(
        "std::filesystem::create_directory",
        CREATE_DIRECTORY,
        ("create_directory", 5),
        FIRST_PATH,
        FILESYSTEM,
    ),
    call(
        "std::filesystem::create_symlink",
        CREATE_SYMLINK,
        ("create_symlink", 6),
        FIRST_PATH,
        FILESYSTEM,
    ),
    call(
        "std::filesystem::copy_symlink",
        COPY_SYMLINK,
        ("copy_symlink", 7),
        FIRST_PATH,
        FILESYSTEM,
    ),
    call("std::filesystem::rename", RENAME, ("rename", 8), FIRST_PATH, FILESYSTEM),
    call("std::filesystem::permissions", PERMISSIONS, ("permissions", 9), FIRST_PATH, FILESYSTEM),
    call("std::filesystem::status", STATUS_OF, ("status", 10), FIRST_PATH, FILESYSTEM),
    call(
        "std::filesystem::symlink_status",
        SYMLINK_STATUS,
        ("symlink_status", 11),
        FIRST_PATH,
        FILESYSTEM,
    ),
    call(
        "std::filesystem::read_symlink",
        READ_SYMLINK,
        ("read_symlink", 12),
        SECOND_PATH,
        FILESYSTEM,
    ),
    call(
        "std::filesystem::directory_iterator",
        DIRECTORY,
        ("directory_iterator", 13),
        SECOND_PATH,
        FILESYSTEM,
    ),
    // void* dlopen(const char* path, int): process.dlopen, so every add-on. It looks at its return
    // address for whose RUNPATH to search, so its return must not be probed.
    call("dlopen", "dlopen", ("dlopen", 14), FIRST_TEXT, LIBRARY),
    // int uv_chdir(const char*): process.chdir. int chdir(const char*): add-ons.
    call("uv_chdir", "uv_chdir", ("chdir", 15), FIRST_TEXT, WATCHING),
    call("chdir", "chdir", ("chdir", 16), FIRST_TEXT, LIBRARY),
    // int uv_fs_event_start(handle, cb, const char* path, flags): fs.watch.
    call("uv_fs_event_start", "uv_fs_event_start", ("watch", 17), THIRD_TEXT, WATCHING),
    // int uv_fs_poll_start(handle, cb, const char* path, unsigned interval): fs.watchFile.
    call("uv_fs_poll_start", "uv_fs_poll_start", ("watchFile", 18), THIRD_TEXT, WATCHING),
];

/// Second paths, the errors that Node throws, and returns.
pub(super) const ENDS: [Entry; 22] = [
    new_path("std::filesystem::copy_file.new", COPY_FILE),
    new_path("std::filesystem::create_symlink.new", CREATE_SYMLINK),
    new_path("std::filesystem::copy_symlink.new", COPY_SYMLINK),
    new_path("std::filesystem::rename.new", RENAME),
    // char* dlerror(void): Node asks after a dlopen that failed, and only then.
    Entry {
        group: NEW_PATHS,
        may_slide: true,
        versions: LIBRARY,
        ..result(LOAD_FAILED, LOAD_FAILED, &[STACK_TOP])
    },
    // Local<Value> ErrnoException(Isolate*, int errorno, const char* syscall, …)
    Entry {
        group: NEW_PATHS,
        may_slide: true,
        versions: WATCHING,
        ..result(
            THROWN,
            "_ZN4node14ErrnoExceptionEPN2v87IsolateEiPKcS4_S4_",
            &[
                returned("error", "%si:s32", Role::Status),
                // Two letters: `cp` and `rm` are looked for.
                returned("call", "+0(%dx):u16", Role::Number),
            ],
        )
    },
    result("std::filesystem::remove_all.return", REMOVE_ALL, COUNT),
    result("std::filesystem::remove.return", REMOVE, DONE),
    result("std::filesystem::copy_file.return", COPY_FILE, DONE),
    result("std::filesystem::create_directories.return", CREATE_DIRECTORIES, DONE),
    result("std::filesystem::create_directory.return", CREATE_DIRECTORY, DONE),
    result("std::filesystem::create_symlink.return", CREATE_SYMLINK, NOTHING),
    result("std::filesystem::copy_symlink.return", COPY_SYMLINK, NOTHING),
    result("std::filesystem::rename.return", RENAME, NOTHING),
    result("std::filesystem::permissions.return", PERMISSIONS, NOTHING),
    result("std::filesystem::status.return", STATUS_OF, FILE_TYPE),
    result("std::filesystem::symlink_status.return", SYMLINK_STATUS, FILE_TYPE),
    result("std::filesystem::read_symlink.return", READ_SYMLINK, NOTHING),
    result("uv_chdir.return", "uv_chdir", STATUS),
    result("chdir.return", "chdir", MINUS_ONE),
    result("uv_fs_event_start.return", "uv_fs_event_start", STATUS),
    result("uv_fs_poll_start.return", "uv_fs_poll_start", STATUS),
];
