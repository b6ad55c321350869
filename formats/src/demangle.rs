//! Symbol names as programmers wrote them: C++ and Rust, everything bounded. It must not know where
//! a symbol came from, and its output is not yet safe for a terminal.

use std::fmt::{self, Write};

/// Longer names stay mangled: demangling takes time beyond proportion.
const MANGLED_BYTES: usize = 4096;
/// Nesting that is followed in a mangled name; real ones stay below 50.
const RECURSION: u32 = 128;
/// Longest readable name, bytes: a mangled one can stand for gigabytes.
const READABLE_BYTES: usize = 4096;

/// A readable name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readable {
    /// With parameters, which tell overloads apart: `node::fs::Open(int)`.
    pub full: String,
    /// Without: `node::fs::Open`.
    pub name: String,
}

/// Both forms of a mangled name; `None` where it is not mangled, or stands for something too long.
#[must_use]
pub fn readable(symbol: &str) -> Option<Readable> {
    let name = name(symbol)?;
    let full = if is_rust(symbol) { name.clone() } else { cpp(symbol, true)? };
    Some(Readable { full, name })
}

/// The form without parameters, as [`readable`] has it.
#[must_use]
pub fn name(symbol: &str) -> Option<String> {
    if symbol.len() > MANGLED_BYTES {
        return None;
    }
    if !is_rust(symbol) {
        return cpp(symbol, false);
    }
    let demangled = rustc_demangle::try_demangle(symbol).ok()?;
    bounded(|out| write!(out, "{demangled:#}"))
}

fn is_rust(symbol: &str) -> bool {
    // The old Rust scheme is also valid C++; only the hash at its end tells them apart.
    let legacy = symbol.starts_with("_ZN") && {
        let base = symbol.split_once('.').map_or(symbol, |(base, _suffix)| base);
        let hash = base
            .strip_suffix('E')
            .and_then(|base| base.get(base.len().checked_sub(19)?..))
            .and_then(|hash| hash.strip_prefix("17h"));
        hash.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    legacy || symbol.starts_with("_R")
}

fn cpp(symbol: &str, parameters: bool) -> Option<String> {
    if !symbol.starts_with("_Z") && !symbol.starts_with("__Z") {
        return None;
    }
    let parse = cpp_demangle::ParseOptions::default().recursion_limit(RECURSION);
    let parsed = cpp_demangle::Symbol::new_with_options(symbol.as_bytes(), &parse).ok()?;
    let options =
        cpp_demangle::DemangleOptions::default().no_return_type().recursion_limit(RECURSION);
    let options = if parameters { options } else { options.no_params() };
    bounded(|out| parsed.structured_demangle(out, &options))
}

/// Runs a demangler whose output may be very much longer than its input, and stops it in time. A
/// name that is too long is not shown at all: a pattern would be compared with a part of it.
fn bounded(run: impl FnOnce(&mut Bounded) -> fmt::Result) -> Option<String> {
    let mut out = Bounded(String::new());
    run(&mut out).ok()?;
    Some(out.0).filter(|text| !text.is_empty())
}

struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > READABLE_BYTES {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The readable forms are those of binutils' c++filt, without return types.
    #[test]
    fn cpp_and_rust_names() {
        for (symbol, full, name) in [
            (
                "_ZN4node2fs4OpenERKN2v820FunctionCallbackInfoINS1_5ValueEEE",
                "node::fs::Open(v8::FunctionCallbackInfo<v8::Value> const&)",
                "node::fs::Open",
            ),
            ("_ZN1a1bEi", "a::b(int)", "a::b"),
            ("_ZN1aixEi", "a::operator[](int)", "a::operator[]"),
            (
                "_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE",
                "core::fmt::Write::write_fmt",
                "core::fmt::Write::write_fmt",
            ),
            ("_RNvCs15kBYyAo9fc_7mycrate7example", "mycrate::example", "mycrate::example"),
        ] {
            let readable = readable(symbol).unwrap();
            assert_eq!((readable.full.as_str(), readable.name.as_str()), (full, name));
        }
        for symbol in ["uv_fs_open", "", "_Z", "_Znonsense", "main.main"] {
            assert_eq!(readable(symbol), None, "{symbol}");
        }
    }

    #[test]
    fn hostile_names_end() {
        // Each substitution doubles the output.
        let mut symbol = "_Z1f".to_owned() + &"St4pairI".repeat(41) + "ii";
        for level in 0..40_u8 {
            symbol += &format!("ES{}_", level % 10);
        }
        for symbol in [symbol, format!("_Z1f{}", "P".repeat(100_000)), "_R".repeat(2000)] {
            if let Some(readable) = readable(&symbol) {
                assert!(readable.full.len() <= READABLE_BYTES);
            }
        }
    }
}
