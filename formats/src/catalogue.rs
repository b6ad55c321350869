//! Functions that are worth a probe, as data: where their arguments lie, and what they are called.
//!
//! To support one more function is to add one [`Entry`] and its test. Registers follow the System V
//! AMD64 calling convention (arguments in di, si, dx, cx, r8, r9, then the stack); structure offsets
//! are libuv's `uv_fs_t` (include/uv.h), equal in libuv 1.43 to 1.52 (Node 16 to 26).

use crate::capture::FieldType;

mod files;
mod libc;
mod outside;
mod pool;

pub use libc::{LIBC, LIBC_FILE};
pub use outside::{LOAD_FAILED, THROWING, THROWN};
pub use pool::{
    FILE_DONE, FILE_WORK, FS_REQUEST_TO_WORK, LOOKUP_WORK, QUEUE, QUEUE_REQUEST_TO_WORK,
    QUEUED_WORK, WAKE_LOOP,
};

/// What an argument means to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The request, by which the parts of one operation are joined.
    Request,
    /// The callback; zero where the caller waits for the result.
    Callback,
    /// The path that is acted on.
    Path,
    /// The second path of a rename, link or copy.
    NewPath,
    /// An open file's descriptor.
    Descriptor,
    /// A directory that `uv_fs_opendir` gave, an address.
    Directory,
    /// The open folder that a relative path is in, or `AT_FDCWD` (openat(2)).
    Folder,
    /// Flags of open(2).
    OpenFlags,
    /// Flags of `uv_fs_copyfile` (include/uv.h, `UV_FS_COPYFILE_EXCL` and following).
    CopyFlags,
    /// What access(2) asks for.
    AccessMode,
    /// Permission bits.
    Mode,
    /// A number without another meaning here: a length, an offset, an owner.
    Number,
    /// The work item of the thread pool that a request has within it (`struct uv__work`).
    Work,
    /// The event loop that a work item's result goes to.
    Loop,
    /// A handle of an event loop, which it may have within it.
    Handle,
    /// `uv_fs_type` of the operation.
    Type,
    /// What a result points to: of a directory that was opened, its address.
    Address,
    /// The result: what the operation gives, or the error number negated.
    Result,
    /// The result that the request still holds of the operation before, where that was not given up.
    Before,
    /// Where the thread's stack ends, the return address included at a call and not at its return.
    StackTop,
    /// What a function returns: 0, or the error number negated.
    Status,
    /// What a function returns: how many, or -1 where it failed.
    Count,
    /// What a function returns: whether it did something. If not, there may have been nothing to do.
    Done,
    /// What a function returns: an address, 0 where it failed.
    Pointer,
    /// What a function returns: the kind of a file (`std::filesystem::file_type`), -1 where there is
    /// none, 0 where it failed otherwise.
    FileType,
    /// A function returns, and does not say how it went.
    Nothing,
}

/// One argument: its name and how the kernel fetches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argument {
    /// Name, also the key in the output.
    pub name: &'static str,
    /// Fetch argument in the kernel's syntax (Documentation/trace/uprobetracer.rst), with its type.
    pub fetch: &'static str,
    /// How people read it.
    pub kind: FieldType,
    /// What it means.
    pub role: Role,
}

/// One function of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The event's name in the capture: the symbol, unless two entries share one.
    pub event: &'static str,
    /// Symbol.
    pub function: &'static str,
    /// How it is found in a file without its symbol.
    pub through: Option<Through>,
    /// The named set that arms it.
    pub set: &'static str,
    /// Entries with the same name here are armed as one dynamic event with many sites: a hundred
    /// events take ten seconds to remove, a hundred sites of one event take no longer than one.
    pub group: Option<&'static str>,
    /// What it does, as people call it, and its `uv_fs_type`; absent where it begins no operation.
    pub operation: Option<Operation>,
    /// Arguments. At most one string, and it comes last: the kernel lets a string of 4096 bytes or
    /// more overwrite its neighbour.
    pub arguments: &'static [Argument],
    /// Kernel filter on the arguments, if any.
    pub filter: Option<&'static str>,
    /// The early branches of this function only leave it on a null request, so a probe may slide
    /// over them to the first `push %rbp`.
    pub may_slide: bool,
    /// Whether the callchain is worth its cost here.
    pub stack: bool,
    /// Versions for which the arguments were compared with what the system calls said.
    pub versions: &'static str,
}

impl Entry {
    /// Whether the probe is at the function's return: only there is what it returns.
    #[must_use]
    pub fn is_return(&self) -> bool {
        self.arguments.iter().any(|argument| argument.fetch.starts_with("$retval"))
    }
}

/// A function without an exported symbol, found through an exported one that hands its address to
/// another as an argument: `strip` leaves the code that does so as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Through {
    /// The exported function.
    pub exported: &'static str,
    /// Which argument of a call within it the address is.
    pub argument: CodeArgument,
}

/// A code address that a function gives away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeArgument {
    /// The fourth argument (%rcx) of a call whose fifth is a code address too.
    Fourth,
    /// The fifth argument (%r8) of a call whose fourth is a code address too.
    Fifth,
    /// The address of a function that goes on to a pointer kept 16 bytes before its own argument
    /// points (`uv_work_t.work_cb` before `work_req`).
    Trampoline,
}

/// What a function that begins an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// Name, as Node's `fs` has it.
    pub name: &'static str,
    /// `uv_fs_type` (include/uv.h) that the request carries at its end; negative where there is no
    /// request.
    pub fs_type: i64,
    /// What a result that is no error tells.
    pub gives: Gives,
}

/// What the result of an operation is, where it is no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gives {
    /// Nothing but success.
    Nothing,
    /// A file descriptor.
    Descriptor,
    /// A number of bytes.
    Bytes,
    /// A number of directory entries.
    Entries,
}

/// `uv_fs_type` of an open (include/uv.h, `UV_FS_OPEN`).
pub const UV_FS_OPEN: i64 = 1;

/// Event that carries the result of every operation.
pub const CLEANUP: &str = "uv_fs_req_cleanup";

/// All entries; those of a set in the opposite order of their arming.
pub fn entries() -> impl Iterator<Item = &'static Entry> + Clone {
    let parts: [&'static [Entry]; 7] = [
        &pool::SUBMISSIONS,
        &outside::ENTRIES,
        &files::ENTRIES,
        &outside::ENDS,
        &pool::STEPS,
        &libc::ENTRIES,
        &libc::ENDS,
    ];
    parts.into_iter().flatten()
}

/// The entries of a named set.
pub fn set(name: &str) -> impl Iterator<Item = &'static Entry> + '_ {
    entries().filter(move |entry| entry.set == name)
}

/// The entries that are armed under one name, the group's or their event's.
pub fn armed_as(name: &str) -> impl Iterator<Item = &'static Entry> + '_ {
    entries().filter(move |entry| entry.group.unwrap_or(entry.event) == name)
}

/// Whether a recording of a set lacks something worth telling without what is armed under this name.
/// Not every version of Node has the rest, or needs it.
#[must_use]
pub fn is_needed(name: &str) -> bool {
    armed_as(name).any(|entry| files::ENTRIES.contains(entry))
}

/// The entry with this event name.
#[must_use]
pub fn entry(event: &str) -> Option<&'static Entry> {
    entries().find(|entry| entry.event == event)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn entries_keep_the_kernels_rules() {
        for entry in entries() {
            let strings = entry.arguments.iter().filter(|a| a.fetch.ends_with("ustring"));
            assert!(strings.count() <= 1, "{}: more than one string", entry.event);
            for (at, argument) in entry.arguments.iter().enumerate() {
                let is_string = argument.kind == FieldType::String;
                assert_eq!(is_string, argument.fetch.ends_with(":ustring"), "{}", argument.name);
                assert!(!is_string || at + 1 == entry.arguments.len(), "string is not last");
                assert!(argument.name.len() <= 32);
            }
            // Of a group, the group's name is the event's.
            assert!(entry.group.is_some() || entry.function.len() < 64);
        }
    }

    #[test]
    fn entries_have_names_of_their_own() {
        let names: HashSet<_> = entries().map(|entry| entry.event).collect();
        assert_eq!(names.len(), entries().count());
        let operations: Vec<_> = entries().filter_map(|entry| entry.operation).collect();
        let types: HashSet<_> = operations.iter().map(|operation| operation.fs_type).collect();
        assert_eq!(types.len(), operations.len());
        assert_eq!(entry("uv_fs_open").unwrap().operation.unwrap().fs_type, UV_FS_OPEN);
        assert_eq!(entry("uv_fs_nothing"), None);
    }

    #[test]
    fn members_of_a_group_agree() {
        for a in entries().filter(|entry| entry.group.is_some()) {
            for b in entries().filter(|b| b.group == a.group) {
                let of = |e: &Entry| (e.set, e.filter, e.may_slide, e.stack, e.is_return());
                assert_eq!(of(a), of(b), "{} and {}", a.event, b.event);
                for argument in a.arguments {
                    let other = b.arguments.iter().find(|other| other.name == argument.name);
                    let type_of = |a: &Argument| a.fetch.rsplit(':').next();
                    let is_equal = |other: &Argument| type_of(other) == type_of(argument);
                    assert!(other.is_none_or(is_equal), "{}: {}", b.event, argument.name);
                }
            }
        }
    }
}
