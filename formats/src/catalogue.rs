//! Functions that are worth a probe, as data: where their arguments lie, and what they are called.
//!
//! To support one more function is to add one [`Entry`] and its test. Registers follow the System V
//! AMD64 calling convention (arguments in di, si, dx, cx, r8, r9); structure offsets are libuv's
//! `uv_fs_t` (include/uv.h), equal in libuv 1.43 to 1.52 (Node 16 to 26).

use crate::capture::FieldType;

/// One argument: its name and how the kernel fetches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argument {
    /// Name, also the key in the output.
    pub name: &'static str,
    /// Fetch argument in the kernel's syntax (Documentation/trace/uprobetracer.rst), with its type.
    pub fetch: &'static str,
    /// How people read it.
    pub kind: FieldType,
}

/// One function of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Symbol, which is also the event's name.
    pub function: &'static str,
    /// The named set that arms it.
    pub set: &'static str,
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
}

const fn argument(name: &'static str, fetch: &'static str, kind: FieldType) -> Argument {
    Argument { name, fetch, kind }
}

/// `uv_fs_type` of an open (include/uv.h, `UV_FS_OPEN`).
pub const UV_FS_OPEN: i64 = 1;

/// All entries.
pub const ENTRIES: &[Entry] = &[
    // int uv_fs_open(uv_loop_t*, uv_fs_t* req, const char* path, int flags, int mode, uv_fs_cb)
    Entry {
        function: "uv_fs_open",
        set: "fs",
        arguments: &[
            argument("req", "%si:x64", FieldType::Hex),
            argument("flags", "%cx:s32", FieldType::Signed),
            argument("mode", "%r8:s32", FieldType::Signed),
            argument("cb", "%r9:x64", FieldType::Hex),
            argument("path", "+0(%dx):ustring", FieldType::String),
        ],
        filter: None,
        may_slide: true,
        stack: true,
    },
    // void uv_fs_req_cleanup(uv_fs_t* req): called once an operation has its result, synchronous
    // or not. uv_fs_t: fs_type at 64, cb at 80, result at 88.
    Entry {
        function: "uv_fs_req_cleanup",
        set: "fs",
        arguments: &[
            argument("req", "%di:x64", FieldType::Hex),
            argument("type", "+64(%di):s32", FieldType::Signed),
            argument("result", "+88(%di):s64", FieldType::Signed),
        ],
        filter: Some("type == 1"),
        may_slide: true,
        stack: false,
    },
];

/// The entries of a named set.
pub fn set(name: &str) -> impl Iterator<Item = &'static Entry> + '_ {
    ENTRIES.iter().filter(move |entry| entry.set == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_keep_the_kernels_rules() {
        for entry in ENTRIES {
            let strings = entry.arguments.iter().filter(|a| a.fetch.ends_with("ustring"));
            assert!(strings.count() <= 1, "{}: more than one string", entry.function);
            for (at, argument) in entry.arguments.iter().enumerate() {
                let is_string = argument.kind == FieldType::String;
                assert_eq!(is_string, argument.fetch.ends_with(":ustring"), "{}", argument.name);
                assert!(!is_string || at + 1 == entry.arguments.len(), "string is not last");
                assert!(argument.name.len() <= 32);
            }
            assert!(entry.function.len() < 64);
        }
    }

    #[test]
    fn the_open_filter_is_the_open_type() {
        let cleanup = ENTRIES.iter().find(|e| e.function == "uv_fs_req_cleanup").unwrap();
        assert_eq!(cleanup.filter, Some(format!("type == {UV_FS_OPEN}").as_str()));
    }
}
