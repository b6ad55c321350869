//! Reads what `strace -f -y -o FILE -e trace=open,openat` writes, with or without the stacks of `-k`.
//!
//! Pure: it must not run anything.

use std::collections::HashMap;

use crate::truth::Open;

/// One finished open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedOpen {
    /// The thread that made the system call.
    pub tid: u32,
    /// The path as the program gave it, and the errno name if the call failed.
    pub open: Open,
    /// The functions on the stack, innermost first; empty without `-k`.
    pub stack: Vec<String>,
}

impl TracedOpen {
    /// Whether the call was made on behalf of `uv_fs_open`, by the calling thread or by the pool.
    /// Says nothing without `-k`.
    #[must_use]
    pub fn is_libuvs(&self) -> bool {
        self.stack.iter().any(|function| function == "uv__fs_work")
    }
}

/// A log that was read to its end.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct StraceLog {
    /// The opens in the order in which they ended.
    pub opens: Vec<TracedOpen>,
    /// Lines that look like an open and could not be read: a test must insist on 0.
    pub unreadable: Vec<String>,
    /// Opens whose end is not in the log, because the thread was killed or the trace stopped.
    pub unfinished: usize,
}

/// Reads a whole log.
#[must_use]
pub fn parse_log(text: &str) -> StraceLog {
    let mut log = StraceLog::default();
    let mut begun: HashMap<u32, String> = HashMap::new();
    for line in text.lines() {
        if let Some(function) = parse_stack_line(line) {
            if let Some(last) = log.opens.last_mut() {
                last.stack.push(function.to_owned());
            }
            continue;
        }
        let Some((tid, rest)) = split_tid(line) else { continue };
        let whole = if let Some(begin) = rest.strip_suffix("<unfinished ...>") {
            if is_open(rest) {
                begun.insert(tid, begin.trim_end().to_owned());
            }
            continue;
        } else if let Some(end) = parse_resumed(rest) {
            let Some(begin) = begun.remove(&tid) else {
                log.unreadable.push(line.to_owned());
                continue;
            };
            begin + end
        } else if is_open(rest) {
            rest.to_owned()
        } else {
            continue;
        };
        match parse_call(&whole) {
            Some(Ended::With(open)) => log.opens.push(TracedOpen { tid, open, stack: Vec::new() }),
            Some(Ended::Never) => log.unfinished += 1,
            None => log.unreadable.push(line.to_owned()),
        }
    }
    log.unfinished += begun.len();
    log
}

enum Ended {
    With(Open),
    Never,
}

fn is_open(call: &str) -> bool {
    call.starts_with("open(") || call.starts_with("openat(")
}

pub(crate) fn split_tid(line: &str) -> Option<(u32, &str)> {
    let (tid, rest) = line.split_once(char::is_whitespace)?;
    Some((tid.parse().ok()?, rest.trim_start()))
}

// ` > /usr/bin/node(uv__fs_work+0xc7c) [0x14b03cc]`; a C++ name has parentheses of its own.
fn parse_stack_line(line: &str) -> Option<&str> {
    let rest = line.strip_prefix(" > ")?;
    let (object_and_function, _address) = rest.rsplit_once(" [").unwrap_or((rest, ""));
    let inside = object_and_function.split_once('(').map_or("", |(_, inside)| inside);
    Some(inside.rsplit_once("+0x").map_or(inside, |(function, _)| function))
}

// `<... openat resumed>) = 3</path>`
fn parse_resumed(rest: &str) -> Option<&str> {
    let rest = rest.strip_prefix("<... ")?;
    let rest = rest.strip_prefix("openat").or_else(|| rest.strip_prefix("open"))?;
    rest.strip_prefix(" resumed>")
}

fn parse_call(call: &str) -> Option<Ended> {
    let (_directory, quoted) = call.split_once('"')?;
    let (path, rest) = unescape(quoted)?;
    // The path in `<…>` that -y adds to the result may itself contain ` = `: take the first.
    let (_flags, result) = rest.split_once(") = ").or_else(|| split_at_padding(rest))?;
    let path = String::from_utf8_lossy(&path).into_owned();
    if result.starts_with('?') {
        return Some(Ended::Never);
    }
    let error = match result.strip_prefix("-1 ") {
        Some(failure) => Some(failure.split_whitespace().next()?.to_owned()),
        None => {
            let digits = result.split(|c: char| !c.is_ascii_digit()).next()?;
            let _descriptor: u32 = digits.parse().ok()?;
            None
        }
    };
    Some(Ended::With(Open { path, error }))
}

// Short calls are padded: `open("a", O_RDONLY)     = 3`.
fn split_at_padding(rest: &str) -> Option<(&str, &str)> {
    let (flags, after) = rest.split_once(')')?;
    Some((flags, after.trim_start().strip_prefix("= ")?))
}

// strace(1), option -x: C escapes, octal by default. A string that was cut ends with `"...`, which
// would be a wrong path: refused.
pub(crate) fn unescape(quoted: &str) -> Option<(Vec<u8>, &str)> {
    let bytes = quoted.as_bytes();
    let mut path = Vec::new();
    let mut at = 0;
    loop {
        match *bytes.get(at)? {
            b'"' => break,
            b'\\' => {
                let (byte, length) = unescape_one(bytes.get(at + 1..)?)?;
                path.push(byte);
                at += 1 + length;
            }
            byte => {
                path.push(byte);
                at += 1;
            }
        }
    }
    let rest = quoted.get(at + 1..)?;
    if rest.starts_with("...") {
        return None;
    }
    Some((path, rest))
}

fn unescape_one(after: &[u8]) -> Option<(u8, usize)> {
    let simple = match *after.first()? {
        b'n' => b'\n',
        b't' => b'\t',
        b'r' => b'\r',
        b'v' => 0x0b,
        b'f' => 0x0c,
        b'"' => b'"',
        b'\\' => b'\\',
        b'0'..=b'7' => {
            let digits = after.iter().take(3).take_while(|byte| (b'0'..=b'7').contains(byte));
            let (value, length) = digits
                .fold((0_u32, 0), |(value, n), digit| (value * 8 + u32::from(digit - b'0'), n + 1));
            return Some((u8::try_from(value).ok()?, length));
        }
        b'x' => {
            let digits = std::str::from_utf8(after.get(1..3)?).ok()?;
            return Some((u8::from_str_radix(digits, 16).ok()?, 3));
        }
        _ => return None,
    };
    Some((simple, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &str, error: Option<&str>) -> Open {
        Open { path: path.to_owned(), error: error.map(str::to_owned) }
    }

    fn only(text: &str) -> TracedOpen {
        let mut log = parse_log(text);
        assert_eq!((log.opens.len(), log.unreadable.len(), log.unfinished), (1, 0, 0), "{log:?}");
        log.opens.remove(0)
    }

    #[test]
    fn a_success_and_a_failure() {
        let traced =
            only("8295  openat(AT_FDCWD</tmp>, \"/tmp/a\", O_RDONLY|O_CLOEXEC) = 19</tmp/a>\n");
        assert_eq!((traced.tid, traced.open), (8295, open("/tmp/a", None)));
        let line =
            "7 openat(AT_FDCWD</tmp>, \"x\", O_WRONLY|O_CREAT, 0666) = -1 ENOENT (No such …)";
        assert_eq!(only(line).open, open("x", Some("ENOENT")));
        assert_eq!(only("7 open(\"a\", O_RDONLY)        = 3</a>").open, open("a", None));
    }

    #[test]
    fn escapes_of_paths() {
        let line = r#"7 openat(AT_FDCWD, "\305\274\"\\\n\33[1\x1b", O_RDONLY) = 3"#;
        assert_eq!(only(line).open, open("ż\"\\\n\u{1b}[1\u{1b}", None));
        let line = r#"7 openat(AT_FDCWD, "/a) = -1 EIO", O_RDONLY) = 3</a) = 4>"#;
        assert_eq!(only(line).open, open("/a) = -1 EIO", None));
    }

    #[test]
    fn interrupted_lines_are_joined_by_thread() {
        let text = "1 openat(AT_FDCWD, \"a\", O_RDONLY <unfinished ...>\n\
                    2 openat(AT_FDCWD, \"b\", O_RDONLY <unfinished ...>\n\
                    1 <... openat resumed>) = 3</a>\n\
                    2 <... openat resumed>) = -1 ELOOP (Too many levels of symbolic links)\n";
        let log = parse_log(text);
        let opens: Vec<_> = log.opens.iter().map(|traced| (traced.tid, &traced.open)).collect();
        assert_eq!(opens, [(1, &open("a", None)), (2, &open("b", Some("ELOOP")))]);
    }

    #[test]
    fn what_has_no_end_is_counted() {
        let text = "1 openat(AT_FDCWD, \"a\", O_RDONLY <unfinished ...>\n\
                    2 openat(AT_FDCWD, \"b\", O_RDONLY) = ? ERESTARTSYS (To be restarted)\n\
                    1 +++ killed by SIGKILL +++\n";
        let log = parse_log(text);
        assert_eq!((log.opens.len(), log.unreadable.len(), log.unfinished), (0, 0, 2));
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let cut = "1 openat(AT_FDCWD, \"abc\"..., O_RDONLY) = 3\n";
        assert_eq!(parse_log(cut).unreadable.len(), 1);
        let orphan = "1 <... openat resumed>) = 3</a>\n";
        assert_eq!(parse_log(orphan).unreadable.len(), 1);
        let noise = "1 +++ exited with 0 +++\n1 --- SIGCHLD {si_signo=SIGCHLD} ---\n";
        assert_eq!(parse_log(noise), StraceLog::default());
    }

    #[test]
    fn stacks_follow_the_call_they_belong_to() {
        let text = "1 openat(AT_FDCWD, \"a\", O_RDONLY) = 3</a>\n \
                    > /usr/lib/libc.so.6(__open64+0xd0) [0xf8090]\n \
                    > /usr/bin/node(uv__fs_work+0xc7c) [0x14b03cc]\n \
                    > /usr/bin/node(node::fs::Open(v8::Info<v8::Value> const&)+0x29c) [0x8bdb1c]\n \
                    > unexpected_backtracing_error [0x7f0888008f30]\n\
                    1 openat(AT_FDCWD, \"b\", O_RDONLY) = 4</b>\n \
                    > /usr/lib/libc.so.6(fopen64+0x1d) [0xf8090]\n";
        let log = parse_log(text);
        assert_eq!(log.opens[0].stack[1], "uv__fs_work");
        assert_eq!(log.opens[0].stack[2], "node::fs::Open(v8::Info<v8::Value> const&)");
        assert!(log.opens[0].is_libuvs() && !log.opens[1].is_libuvs());
    }
}
