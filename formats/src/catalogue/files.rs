//! libuv's file functions: each begins an operation that ends in `uv_fs_req_cleanup`.
//!
//! Arguments are those of include/uv.h, `int uv_fs_X(uv_loop_t*, uv_fs_t* req, …, uv_fs_cb cb)`.
//! Compared with the system calls of Node 16, 18, 20, 22, 24 and 26.

use super::{Argument, CLEANUP, Entry, Gives, Operation, Role};
use crate::capture::FieldType;

pub(super) const VERSIONS: &str = "libuv 1.43 to 1.52 (Node 16 to 26)";
/// All that begin an operation but opens, which are paced by themselves: what else a program does
/// to its files must not cost opens their stacks.
pub(super) const OPERATIONS: Option<&str> = Some("uv_fs_*");
/// The second path of an operation, which needs an event of its own: one string an event.
pub(super) const NEW_PATHS: Option<&str> = Some("uv_fs_*.new");

const fn number(name: &'static str, fetch: &'static str, role: Role) -> Argument {
    Argument { name, fetch, kind: FieldType::Signed, role }
}

const fn callback(fetch: &'static str) -> Argument {
    Argument { name: "cb", fetch, kind: FieldType::Hex, role: Role::Callback }
}

const REQUEST: Argument =
    Argument { name: "req", fetch: "%si:x64", kind: FieldType::Hex, role: Role::Request };
const PATH: Argument =
    Argument { name: "path", fetch: "+0(%dx):ustring", kind: FieldType::String, role: Role::Path };
const NEW_PATH: Argument = Argument {
    name: "new",
    fetch: "+0(%cx):ustring",
    kind: FieldType::String,
    role: Role::NewPath,
};
const DIRECTORY: Argument =
    Argument { name: "dir", fetch: "%dx:x64", kind: FieldType::Hex, role: Role::Directory };
const FILE: Argument = number("file", "%dx:s32", Role::Descriptor);
const MODE: Argument = number("mode", "%cx:s32", Role::Mode);
// `result` of a request that has been used before: Node reads a file to its end, and closes it, with one.
const BEFORE: Argument = number("before", "+88(%si):s64", Role::Before);
const UID: Argument = number("uid", "%cx:s32", Role::Number);
const GID: Argument = number("gid", "%r8:s32", Role::Number);

// By the number of arguments between the request and the callback.
const PATH_ONLY: &[Argument] = &[REQUEST, callback("%cx:x64"), PATH];
const PATH_AND_MODE: &[Argument] = &[REQUEST, MODE, callback("%r8:x64"), PATH];
const TWO_PATHS: &[Argument] = &[REQUEST, callback("%r8:x64"), PATH];
const OWNED_PATH: &[Argument] = &[REQUEST, UID, GID, callback("%r9:x64"), PATH];
const FILE_ONLY: &[Argument] = &[REQUEST, FILE, callback("%cx:x64")];
const FILE_TO_CLOSE: &[Argument] = &[REQUEST, FILE, BEFORE, callback("%cx:x64")];
const DIRECTORY_ONLY: &[Argument] = &[REQUEST, DIRECTORY, callback("%cx:x64")];
// The length is that of the first buffer; `bytes` of the result is of all.
const BUFFERS: &[Argument] = &[
    REQUEST,
    FILE,
    number("nbufs", "%r8:u32", Role::Number),
    number("len", "+8(%cx):u64", Role::Number),
    number("off", "%r9:s64", Role::Number),
    BEFORE,
    callback("$stack1:x64"),
];

const fn operation(
    function: &'static str,
    (name, fs_type, gives): (&'static str, i64, Gives),
    arguments: &'static [Argument],
) -> Entry {
    Entry {
        event: function,
        function,
        through: None,
        set: "fs",
        group: OPERATIONS,
        operation: Some(Operation { name, fs_type, gives }),
        arguments,
        filter: None,
        may_slide: true,
        stack: true,
        versions: VERSIONS,
    }
}

const fn new_path(event: &'static str, function: &'static str) -> Entry {
    Entry {
        event,
        function,
        through: None,
        set: "fs",
        group: NEW_PATHS,
        operation: None,
        arguments: &[REQUEST, NEW_PATH],
        filter: None,
        may_slide: true,
        stack: false,
        versions: VERSIONS,
    }
}

/// Opens first, results last: what is armed first is what is last here.
pub(super) const ENTRIES: [Entry; 39] = [
    Entry {
        group: None,
        ..operation(
            "uv_fs_open",
            ("open", 1, Gives::Descriptor),
            &[
                REQUEST,
                number("flags", "%cx:s32", Role::OpenFlags),
                number("mode", "%r8:s32", Role::Mode),
                callback("%r9:x64"),
                PATH,
            ],
        )
    },
    operation("uv_fs_close", ("close", 2, Gives::Nothing), FILE_TO_CLOSE),
    operation("uv_fs_read", ("read", 3, Gives::Bytes), BUFFERS),
    operation("uv_fs_write", ("write", 4, Gives::Bytes), BUFFERS),
    operation("uv_fs_stat", ("stat", 6, Gives::Nothing), PATH_ONLY),
    operation("uv_fs_lstat", ("lstat", 7, Gives::Nothing), PATH_ONLY),
    operation("uv_fs_fstat", ("fstat", 8, Gives::Nothing), FILE_ONLY),
    operation(
        "uv_fs_ftruncate",
        ("ftruncate", 9, Gives::Nothing),
        &[REQUEST, FILE, number("size", "%cx:s64", Role::Number), callback("%r8:x64")],
    ),
    operation("uv_fs_utime", ("utime", 10, Gives::Nothing), PATH_ONLY),
    operation("uv_fs_futime", ("futime", 11, Gives::Nothing), FILE_ONLY),
    operation(
        "uv_fs_access",
        ("access", 12, Gives::Nothing),
        &[REQUEST, number("mode", "%cx:s32", Role::AccessMode), callback("%r8:x64"), PATH],
    ),
    operation("uv_fs_chmod", ("chmod", 13, Gives::Nothing), PATH_AND_MODE),
    operation(
        "uv_fs_fchmod",
        ("fchmod", 14, Gives::Nothing),
        &[REQUEST, FILE, MODE, callback("%r8:x64")],
    ),
    operation("uv_fs_fsync", ("fsync", 15, Gives::Nothing), FILE_ONLY),
    operation("uv_fs_fdatasync", ("fdatasync", 16, Gives::Nothing), FILE_ONLY),
    operation("uv_fs_unlink", ("unlink", 17, Gives::Nothing), PATH_ONLY),
    operation("uv_fs_rmdir", ("rmdir", 18, Gives::Nothing), PATH_ONLY),
    operation("uv_fs_mkdir", ("mkdir", 19, Gives::Nothing), PATH_AND_MODE),
    operation("uv_fs_mkdtemp", ("mkdtemp", 20, Gives::Nothing), PATH_ONLY),
    operation("uv_fs_rename", ("rename", 21, Gives::Nothing), TWO_PATHS),
    operation(
        "uv_fs_scandir",
        ("scandir", 22, Gives::Entries),
        &[REQUEST, number("flags", "%cx:s32", Role::Number), callback("%r8:x64"), PATH],
    ),
    operation("uv_fs_link", ("link", 23, Gives::Nothing), TWO_PATHS),
    operation(
        "uv_fs_symlink",
        ("symlink", 24, Gives::Nothing),
        &[REQUEST, number("flags", "%r8:s32", Role::Number), callback("%r9:x64"), PATH],
    ),
    operation("uv_fs_readlink", ("readlink", 25, Gives::Nothing), PATH_ONLY),
    operation("uv_fs_chown", ("chown", 26, Gives::Nothing), OWNED_PATH),
    operation(
        "uv_fs_fchown",
        ("fchown", 27, Gives::Nothing),
        &[REQUEST, FILE, UID, GID, callback("%r9:x64")],
    ),
    operation("uv_fs_realpath", ("realpath", 28, Gives::Nothing), PATH_ONLY),
    operation(
        "uv_fs_copyfile",
        ("copyfile", 29, Gives::Nothing),
        &[REQUEST, number("flags", "%r8:s32", Role::CopyFlags), callback("%r9:x64"), PATH],
    ),
    operation("uv_fs_lchown", ("lchown", 30, Gives::Nothing), OWNED_PATH),
    operation("uv_fs_opendir", ("opendir", 31, Gives::Nothing), PATH_ONLY),
    operation("uv_fs_readdir", ("readdir", 32, Gives::Entries), DIRECTORY_ONLY),
    operation("uv_fs_closedir", ("closedir", 33, Gives::Nothing), DIRECTORY_ONLY),
    operation("uv_fs_statfs", ("statfs", 34, Gives::Nothing), PATH_ONLY),
    operation("uv_fs_lutime", ("lutime", 36, Gives::Nothing), PATH_ONLY),
    new_path("uv_fs_rename.new", "uv_fs_rename"),
    new_path("uv_fs_link.new", "uv_fs_link"),
    new_path("uv_fs_symlink.new", "uv_fs_symlink"),
    new_path("uv_fs_copyfile.new", "uv_fs_copyfile"),
    // void uv_fs_req_cleanup(uv_fs_t* req): called once an operation has its result, synchronous
    // or not. uv_fs_t: fs_type at 64, cb at 80, result at 88, ptr at 96.
    Entry {
        event: CLEANUP,
        function: CLEANUP,
        through: None,
        set: "fs",
        group: None,
        operation: None,
        arguments: &[
            Argument { name: "req", fetch: "%di:x64", kind: FieldType::Hex, role: Role::Request },
            number("type", "+64(%di):s32", Role::Type),
            callback("+80(%di):x64"),
            number("result", "+88(%di):s64", Role::Result),
            Argument {
                name: "ptr",
                fetch: "+96(%di):x64",
                kind: FieldType::Hex,
                role: Role::Address,
            },
        ],
        filter: None,
        may_slide: true,
        stack: false,
        versions: VERSIONS,
    },
];
