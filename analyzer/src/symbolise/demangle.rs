//! Symbol names as people write them: C++ and Rust demangled, everything bounded. It must not know
//! where a symbol came from.
//!
//! C++ functions are shown without parameter list and return type (`node::fs::Open`, not
//! `node::fs::Open(v8::FunctionCallbackInfo<v8::Value> const&)`): a report has one line a frame, and
//! overloads rarely matter there. Rust names are shown without their hash.

use std::fmt::{self, Write};

use formats::text::clean_string;

use super::FUNCTION_CHARS;

/// Longer names are shown mangled: demangling takes time beyond proportion.
const MANGLED_BYTES: usize = 4096;
/// Nesting that is followed in a mangled name; real ones stay below 50.
const RECURSION: u32 = 128;

/// The readable, neutralised name of a symbol.
pub(super) fn demangle(name: &[u8]) -> String {
    let readable = std::str::from_utf8(name)
        .ok()
        .filter(|text| text.len() <= MANGLED_BYTES)
        .and_then(|text| rust(text).or_else(|| cpp(text)));
    clean_string(readable.as_ref().map_or(name, String::as_bytes), FUNCTION_CHARS)
}

fn rust(name: &str) -> Option<String> {
    // The old Rust scheme is also valid C++; only the hash at its end tells them apart.
    let legacy = name.starts_with("_ZN") && {
        let base = name.split_once('.').map_or(name, |(base, _suffix)| base);
        base.strip_suffix('E').and_then(|base| base.get(base.len().checked_sub(19)?..)).is_some_and(
            |hash| {
                hash.strip_prefix("17h")
                    .is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
            },
        )
    };
    if !legacy && !name.starts_with("_R") {
        return None;
    }
    let demangled = rustc_demangle::try_demangle(name).ok()?;
    bounded(|out| write!(out, "{demangled:#}"))
}

fn cpp(name: &str) -> Option<String> {
    if !name.starts_with("_Z") && !name.starts_with("__Z") {
        return None;
    }
    let parse = cpp_demangle::ParseOptions::default().recursion_limit(RECURSION);
    let symbol = cpp_demangle::Symbol::new_with_options(name.as_bytes(), &parse).ok()?;
    let options = cpp_demangle::DemangleOptions::default()
        .no_params()
        .no_return_type()
        .recursion_limit(RECURSION);
    bounded(|out| symbol.structured_demangle(out, &options))
}

/// Runs a demangler whose output may be very much longer than its input, and stops it in time.
fn bounded(run: impl FnOnce(&mut Bounded) -> fmt::Result) -> Option<String> {
    let mut out = Bounded(String::new());
    let result = run(&mut out);
    // What was written before the bound was reached is shown, with the mark of a cut name.
    (result.is_ok() || out.full()).then_some(out.0).filter(|text| !text.is_empty())
}

struct Bounded(String);

impl Bounded {
    fn full(&self) -> bool {
        self.0.len() > FUNCTION_CHARS
    }
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.full() {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
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
