//! Symbol names as a report has them: demangled where that is possible, neutralised, and not long.
//!
//! C++ functions are shown without parameter list and return type (`node::fs::Open`, not
//! `node::fs::Open(v8::FunctionCallbackInfo<v8::Value> const&)`): a report has one line a frame, and
//! overloads rarely matter there. Rust names are shown without their hash.

use formats::demangle;
use formats::text::clean_string;

use super::FUNCTION_CHARS;

/// The readable, neutralised name of a symbol.
pub(super) fn demangle(name: &[u8]) -> String {
    let readable = std::str::from_utf8(name).ok().and_then(demangle::name);
    clean_string(readable.as_ref().map_or(name, String::as_bytes), FUNCTION_CHARS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpp_and_rust_names() {
        let table = [
            ("uv_fs_open", "uv_fs_open"),
            ("_ZN4node2fs4OpenERKN2v820FunctionCallbackInfoINS1_5ValueEEE", "node::fs::Open"),
            ("_ZN2v88internal4Heap8ScavengeEv", "v8::internal::Heap::Scavenge"),
            (
                "_ZNSt6vectorIiSaIiEE9push_backEOi",
                "std::vector<int, std::allocator<int> >::push_back",
            ),
            ("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE", "core::fmt::Write::write_fmt"),
            ("_RNvCs15kBYyAo9fc_7mycrate7example", "mycrate::example"),
            ("_Znonsense", "_Znonsense"),
            ("_Z", "_Z"),
            ("__libc_start_main", "__libc_start_main"),
        ];
        for (name, want) in table {
            assert_eq!(demangle(name.as_bytes()), want);
        }
        assert!(demangle(b"_ZN1a3fooEv.cold").starts_with("a::foo"));
    }

    #[test]
    fn hostile_names_end() {
        // Each substitution doubles the output.
        let mut name = "_Z1fSt4pairI".to_owned();
        for _level in 0..40 {
            name.push_str("St4pairI");
        }
        name.push_str("ii");
        for level in 0..40 {
            name.push_str("ES");
            name.push(char::from(b'0' + level % 10));
            name.push('_');
        }
        assert!(demangle(name.as_bytes()).chars().count() <= FUNCTION_CHARS);
        let deep = format!("_Z1f{}", "P".repeat(100_000));
        assert!(demangle(deep.as_bytes()).chars().count() <= FUNCTION_CHARS);
        assert_eq!(demangle(b"\x1b[31m\xff"), "\\x1b[31m\\xff");
    }
}
