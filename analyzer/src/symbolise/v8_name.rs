//! Names as V8 writes them into a perf map, taken apart. It must not know addresses or times.
//!
//! `TAG:MARK NAME FILE:LINE[:COLUMN]` (V8's src/logging/log.cc, `CodeEventLogger::NameBuffer` and
//! `ComputeMarker`). Tags are `JS` from Node 20 on, `LazyCompile`, `Function`, `Script`, `Eval` before
//! and beside it. Node 16 and 18 write no column. The mark is the tier; tiers are merged.

use formats::text::clean_string;

use super::{FILE_CHARS, FUNCTION_CHARS};
use crate::profile::{Kind, Reason, ResolvedFrame};

/// Tags of JavaScript functions.
const JS_TAGS: [&[u8]; 5] = [b"JS:", b"LazyCompile:", b"Function:", b"Script:", b"Eval:"];
/// Tags of V8's own code.
const BUILTIN_TAGS: [&[u8]; 4] = [b"Builtin:", b"BytecodeHandler:", b"Stub:", b"Handler:"];
/// Tier marks, the longer before their beginnings: OSR, then Turbofan `*`, Maglev `+`, Sparkplug `^`
/// and the interpreter `~`; a `'` says that code is shared between contexts.
const MARKS: [&[u8]; 10] = [b"o*'", b"o+'", b"o*", b"o+", b"*'", b"+'", b"*", b"+", b"^", b"~"];
/// How a file name begins when it is no absolute path: Node's own modules, URLs, and the names that
/// Node gives to code without a file.
const FILE_BEGINS: [&[u8]; 14] = [
    b"/",
    b"node:",
    b"file://",
    b"http://",
    b"https://",
    b"webpack:",
    b"webpack-internal:",
    b"wasm://",
    b"data:",
    b"blob:",
    b"evalmachine.",
    b"[eval",
    b"[worker eval",
    b"REPL",
];
/// Longest part of a regular expression that is shown.
const PATTERN_CHARS: usize = 80;

/// Name given to a function that has none.
pub(super) const ANONYMOUS: &str = "(anonymous)";
/// The builtin that runs every interpreted function: its name says nothing of the function.
pub(super) const INTERPRETER_ENTRY: &[u8] = b"InterpreterEntryTrampoline";

/// The frame that a map entry's name describes.
pub(super) fn parse(name: &[u8]) -> ResolvedFrame {
    if let Some(rest) = strip_any(name, &JS_TAGS) {
        return match strip_any(rest, &MARKS) {
            Some(text) => js(text),
            // WebAssembly goes by the same tag, without a mark.
            None => wasm(rest).unwrap_or_else(|| js(rest)),
        };
    }
    if let Some(rest) = strip_any(name, &BUILTIN_TAGS) {
        return builtin(rest);
    }
    // Others' maps (regular expressions, .NET, Java, …) are shown as they stand.
    let max = if name.starts_with(b"RegExp:") { PATTERN_CHARS } else { FUNCTION_CHARS };
    ResolvedFrame::named(Kind::Jit, clean_string(name, max))
}

/// The frame of a V8 builtin, by its name without prefix.
pub(super) fn builtin(name: &[u8]) -> ResolvedFrame {
    if name == INTERPRETER_ENTRY {
        return ResolvedFrame::nameless(Kind::Js, Reason::InterpretedWithoutName);
    }
    ResolvedFrame::named(Kind::Builtin, clean_string(name, FUNCTION_CHARS))
}

/// A function name as reports show it.
pub(super) fn function_name(name: &[u8]) -> String {
    if name.is_empty() { ANONYMOUS.to_owned() } else { clean_string(name, FUNCTION_CHARS) }
}

fn js(text: &[u8]) -> ResolvedFrame {
    let (text, line, column) = position(text);
    let (name, file) = split(text);
    ResolvedFrame {
        file: (!file.is_empty()).then(|| clean_string(file, FILE_CHARS)),
        line,
        column,
        defined_line: line,
        defined_column: column,
        ..ResolvedFrame::named(Kind::Js, function_name(name))
    }
}

/// `wasm-function[3]-3-turbofan`: name, index and tier.
fn wasm(text: &[u8]) -> Option<ResolvedFrame> {
    let (rest, tier) = cut_last(text, b'-')?;
    let (name, _index) = cut_last(rest, b'-')?;
    matches!(tier, b"liftoff" | b"turbofan" | b"interpreter")
        .then(|| ResolvedFrame::named(Kind::Jit, clean_string(name, FUNCTION_CHARS)))
}

/// Takes `:LINE` or `:LINE:COLUMN` off the end.
fn position(text: &[u8]) -> (&[u8], Option<u32>, Option<u32>) {
    let Some((rest, last)) = number(text) else { return (text, None, None) };
    match number(rest) {
        Some((rest, line)) => (rest, positive(line), positive(last)),
        None => (rest, positive(last), None),
    }
}

/// Takes `:NUMBER` off the end.
fn number(text: &[u8]) -> Option<(&[u8], u32)> {
    let (rest, digits) = cut_last(text, b':')?;
    let value = std::str::from_utf8(digits).ok()?.parse().ok()?;
    digits.iter().all(u8::is_ascii_digit).then_some((rest, value))
}

/// V8 counts lines and columns from 1; 0 is "not known".
fn positive(value: u32) -> Option<u32> {
    (value > 0).then_some(value)
}

/// Divides `NAME FILE`. Either may hold spaces, so this is a judgement: a name may well be
/// `GET /users` or `get size`, while file names that begin a part with ` /` are not to be expected.
fn split(text: &[u8]) -> (&[u8], &[u8]) {
    if let Some(file) = text.strip_prefix(b" ") {
        return (b"", file);
    }
    let begins_file = |at: usize| {
        let rest = text.get(at + 1..).unwrap_or_default();
        rest.is_empty() || FILE_BEGINS.iter().any(|begin| rest.starts_with(begin))
    };
    let spaces = || (0..text.len()).filter(|&at| text.get(at) == Some(&b' '));
    // A file that is not named in full: the name is one word, or two for an accessor.
    let words = 1 + usize::from(text.starts_with(b"get ") || text.starts_with(b"set "));
    let at = spaces().rfind(|&at| begins_file(at)).or_else(|| spaces().take(words).last());
    match at {
        Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default()),
        None => (text, b""),
    }
}

fn cut_last(text: &[u8], mark: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().rposition(|&b| b == mark)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

fn strip_any<'t>(text: &'t [u8], beginnings: &[&[u8]]) -> Option<&'t [u8]> {
    beginnings.iter().find_map(|begin| text.strip_prefix(*begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &str) -> String {
        let frame = parse(name.as_bytes());
        let place = frame.place().unwrap_or_default();
        format!("{}|{}|{place}", frame.kind.key(), frame.label())
    }

    #[test]
    fn names_of_node_16_to_26() {
        // Lines of real maps (Node 20.20.2), and the older tags of 16 and 18.
        let table = [
            ("JS:~hot /tmp/a.js:5:13", "js|hot|/tmp/a.js:5:13"),
            ("JS:^hot /tmp/a.js:5:13", "js|hot|/tmp/a.js:5:13"),
            ("JS:+hot /tmp/a.js:5:13", "js|hot|/tmp/a.js:5:13"),
            ("JS:*hot /tmp/a.js:5:13", "js|hot|/tmp/a.js:5:13"),
            ("JS:+'hot /tmp/a.js:5:13", "js|hot|/tmp/a.js:5:13"),
            ("JS:*'hot /tmp/a.js:5:13", "js|hot|/tmp/a.js:5:13"),
            ("JS:o+hot /tmp/a.js:5:13", "js|hot|/tmp/a.js:5:13"),
            ("JS:o*hot /tmp/a.js:5:13", "js|hot|/tmp/a.js:5:13"),
            ("JS:o*'hot /tmp/a.js:5:13", "js|hot|/tmp/a.js:5:13"),
            ("JS:~ /tmp/a.js:1:38", "js|(anonymous)|/tmp/a.js:1:38"),
            ("JS:* /tmp/a.js:1:38", "js|(anonymous)|/tmp/a.js:1:38"),
            ("JS:~o /tmp/a.js:1:38", "js|o|/tmp/a.js:1:38"),
            ("Eval:~ node:internal/fs/streams:1:1", "js|(anonymous)|node:internal/fs/streams:1:1"),
            ("Eval:~ :1:1", "js|(anonymous)|"),
            ("JS:~ev :1:13", "js|ev|"),
            ("Script:~ my script.js:1:1", "js|(anonymous)|my script.js:1:1"),
            ("JS:~inVm my script.js:1:16", "js|inVm|my script.js:1:16"),
            ("JS:~get size my script.js:1:16", "js|get size|my script.js:1:16"),
            ("JS:~inVm evalmachine.<anonymous>:1:15", "js|inVm|evalmachine.<anonymous>:1:15"),
            ("JS:~get prop /tmp/a.js:1:49", "js|get prop|/tmp/a.js:1:49"),
            ("JS:~GET /users /tmp/a.js:1:25", "js|GET /users|/tmp/a.js:1:25"),
            ("JS:~weird name /tmp/a.js:1:111", "js|weird name|/tmp/a.js:1:111"),
            ("JS:~inSpace /tmp/sp ace/m od.js:1:32", "js|inSpace|/tmp/sp ace/m od.js:1:32"),
            ("JS:~ /tmp/a /b.js:1:32", "js|(anonymous)|/tmp/a /b.js:1:32"),
            ("JS:~esm file:///tmp/e.mjs:1:20", "js|esm|file:///tmp/e.mjs:1:20"),
            ("JS:~#priv /tmp/a.js:7:16", "js|#priv|/tmp/a.js:7:16"),
            ("JS:~<static_initializer> /a.js:7:29", "js|<static_initializer>|/a.js:7:29"),
            ("JS:~ [eval]-wrapper:6:14", "js|(anonymous)|[eval]-wrapper:6:14"),
            ("JS:~inEval [eval]:1:16", "js|inEval|[eval]:1:16"),
            ("LazyCompile:~handle /srv/app.js:12", "js|handle|/srv/app.js:12"),
            ("LazyCompile:*handle node:events:12", "js|handle|node:events:12"),
            ("Function:^handle file:///srv/app.mjs:12", "js|handle|file:///srv/app.mjs:12"),
            ("Script:~ /srv/app.js", "js|(anonymous)|/srv/app.js"),
            ("LazyCompile:~a:b /srv/x:8080/app.js:12", "js|a:b|/srv/x:8080/app.js:12"),
            ("JS:wasm-function[0]-0-turbofan", "jit|wasm-function[0]|"),
            ("Function:add-12-liftoff", "jit|add|"),
            ("RegExp:ab+c", "jit|RegExp:ab+c|"),
            ("Stub:js-to-wasm:ii:i", "builtin|js-to-wasm:ii:i|"),
            ("Builtin:ArrayMap", "builtin|ArrayMap|"),
            ("BytecodeHandler:LdaZero.Wide", "builtin|LdaZero.Wide|"),
            ("Builtin:InterpreterEntryTrampoline", "js|[interpreted, no name]|"),
            (
                "instance void [app] A::b(string)[Optimized]",
                "jit|instance void [app] A::b(string)[Optimized]|",
            ),
            ("JS:~", "js|(anonymous)|"),
            ("JS:", "js|(anonymous)|"),
            ("JS:~f /a.js:0:0", "js|f|/a.js"),
            ("JS:~f /a.js:99999999999:1", "js|f|/a.js:99999999999:1"),
        ];
        for (name, want) in table {
            assert_eq!(shown(name), want, "{name}");
        }
    }

    #[test]
    fn hostile_names_are_neutralised_and_bounded() {
        let frame = parse(b"JS:~\x1b[2Jf\xe2\x80\xae /tmp/\x9b\xff.js:1:2");
        assert_eq!(frame.function, "\\x1b[2Jf\\u{202e}");
        assert_eq!(frame.file.as_deref(), Some("/tmp/\\x9b\\xff.js"));
        let mut long = b"JS:~".to_vec();
        long.extend(vec![b'x'; 1 << 20]);
        long.extend(b" /");
        long.extend(vec![b'y'; 1 << 20]);
        let frame = parse(&long);
        assert_eq!(frame.function.chars().count(), FUNCTION_CHARS);
        assert_eq!(frame.file.map(|f| f.chars().count()), Some(FILE_CHARS));
    }
}
