//! Reads what `strace -f -y -s 8192 -e trace=%file,clone,clone3,fork,vfork -o FILE` writes: every
//! system call that takes a path, who made it, and which program that was.
//!
//! Pure: it must not run anything.

use std::collections::HashMap;

use crate::strace_log::{split_tid, unescape};

/// What strace is to trace for this.
pub const TRACE: &str = "trace=%file,clone,clone3,fork,vfork";

/// A system call that took a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathCall {
    /// The thread that made it.
    pub tid: u32,
    /// What it does, by libuv's name of it: `openat` is an `open`, `statx` a `stat` or `lstat`.
    pub kind: String,
    /// The paths as the program gave them.
    pub paths: Vec<String>,
    /// `ENOENT`, if it failed.
    pub error: Option<String>,
    /// Of a `readlink` that did not fail, what the link says.
    pub link: Option<String>,
    /// The program that the thread ran; absent before the log's first `execve` of it.
    pub program: Option<String>,
}

/// A log that was read to its end.
#[derive(Debug, Default)]
pub struct PathCalls {
    /// In the order in which they ended.
    pub calls: Vec<PathCall>,
    /// Lines that could not be read: a test must insist on none.
    pub unreadable: Vec<String>,
}

/// Reads a whole log.
#[must_use]
pub fn parse_calls(text: &str) -> PathCalls {
    let mut log = PathCalls::default();
    let mut begun: HashMap<u32, String> = HashMap::new();
    let mut whole: Vec<(u32, String)> = Vec::new();
    for line in text.lines() {
        let Some((tid, rest)) = split_tid(line) else { continue };
        if rest.starts_with("+++") || rest.starts_with("---") {
            continue;
        }
        if let Some(begin) = rest.strip_suffix("<unfinished ...>") {
            begun.insert(tid, begin.trim_end().to_owned());
        } else if let Some((_, end)) =
            rest.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>"))
        {
            match begun.remove(&tid) {
                Some(begin) => whole.push((tid, begin + end)),
                None => log.unreadable.push(line.to_owned()),
            }
        } else {
            whole.push((tid, rest.to_owned()));
        }
    }
    let parents = parents(&whole);
    let mut programs: HashMap<u32, String> = HashMap::new();
    for (tid, text) in whole {
        let name = text.split('(').next().unwrap_or_default();
        if is_clone(name) || ends_never(&text) {
            continue;
        }
        let Some(mut call) = parse_call(tid, &text) else {
            log.unreadable.push(format!("{tid} {text}"));
            continue;
        };
        call.program = program_of(tid, &programs, &parents);
        if call.kind == "execve" && call.error.is_none() {
            programs.extend(call.paths.first().map(|path| (tid, path.clone())));
        }
        // A call on a descriptor alone: `statx(3</a>, "", AT_EMPTY_PATH)`.
        if call.paths.iter().any(|path| !path.is_empty()) || call.kind == "getcwd" {
            log.calls.push(call);
        }
    }
    log
}

fn is_clone(name: &str) -> bool {
    matches!(name, "clone" | "clone3" | "fork" | "vfork")
}

// The thread was killed in it: `= ?`.
fn ends_never(call: &str) -> bool {
    call.trim_end().ends_with("= ?")
}

// Who made which thread or process, by what clone and its kin returned.
fn parents(calls: &[(u32, String)]) -> HashMap<u32, u32> {
    let child = |(parent, text): &(u32, String)| {
        let is_made = is_clone(text.split('(').next()?);
        let child = text.rsplit_once("= ")?.1.trim().parse().ok()?;
        is_made.then_some((child, *parent))
    };
    calls.iter().filter_map(child).collect()
}

// What the nearest ancestor runs that has started a program in this log.
fn program_of(
    tid: u32,
    programs: &HashMap<u32, String>,
    parents: &HashMap<u32, u32>,
) -> Option<String> {
    let mut tid = tid;
    for _ in 0..parents.len() + 1 {
        if let Some(program) = programs.get(&tid) {
            return Some(program.clone());
        }
        tid = *parents.get(&tid)?;
    }
    None
}

fn parse_call(tid: u32, text: &str) -> Option<PathCall> {
    let (name, mut rest) = text.split_once('(')?;
    let mut paths = Vec::new();
    for _ in 0..path_count(name) {
        let (path, after) = quoted(rest)?;
        paths.push(path);
        rest = after;
    }
    let link = quoted(rest).filter(|_| name.starts_with("readlink")).map(|(link, _)| link);
    // The last: a path in what the call gave back may hold anything, but no ` = ` that is followed
    // by a number or `-1 E…` and ends the line.
    let result = rest.rsplit_once(" = ").map_or("", |(_, result)| result);
    let result = if result.is_empty() { rest.rsplit_once("= ")?.1 } else { result };
    let error = match result.strip_prefix("-1 ") {
        Some(failure) => Some(failure.split_whitespace().next()?.to_owned()),
        None => None,
    };
    Some(PathCall { tid, kind: kind(name, rest), paths, error, link, program: None })
}

// The next string, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (_, quoted) = text.split_once('"')?;
    let (path, after) = unescape(quoted)?;
    Some((String::from_utf8_lossy(&path).into_owned(), after))
}

// How many of a call's arguments are paths that the program gave.
fn path_count(name: &str) -> usize {
    match name {
        "getcwd" => 0,
        "rename" | "renameat" | "renameat2" | "link" | "linkat" | "symlink" | "symlinkat" => 2,
        _ => 1,
    }
}

fn kind(name: &str, arguments: &str) -> String {
    let has = |flag: &str| arguments.contains(flag);
    let follows = !has("AT_SYMLINK_NOFOLLOW");
    let kind = match name {
        "open" | "openat" | "creat" => "open",
        "stat" | "statx" | "newfstatat" if follows => "stat",
        "lstat" | "statx" | "newfstatat" => "lstat",
        "faccessat" | "faccessat2" => "access",
        "unlinkat" if has("AT_REMOVEDIR") => "rmdir",
        "unlinkat" => "unlink",
        "mkdirat" => "mkdir",
        "renameat" | "renameat2" => "rename",
        "linkat" => "link",
        "symlinkat" => "symlink",
        "readlinkat" => "readlink",
        "fchmodat" => "chmod",
        "fchownat" if follows => "chown",
        "fchownat" => "lchown",
        "utime" | "utimes" | "utimensat" | "futimesat" if follows => "utime",
        "utimensat" => "lutime",
        other => other,
    };
    kind.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> PathCall {
        let mut log = parse_calls(text);
        assert_eq!((log.calls.len(), log.unreadable.len()), (1, 0), "{log:?}");
        log.calls.remove(0)
    }

    fn seen(text: &str) -> (String, Vec<String>, Option<String>) {
        let call = only(text);
        (call.kind, call.paths, call.error)
    }

    #[test]
    fn calls_have_the_names_of_libuvs_functions() {
        let one = |kind: &str, path: &str| (kind.to_owned(), vec![path.to_owned()], None);
        let statx =
            "7 statx(AT_FDCWD</a>, \"/b\", AT_STATX_SYNC_AS_STAT, STATX_ALL, {stx_mask=1}) = 0";
        assert_eq!(seen(statx), one("stat", "/b"));
        let lstat = statx.replace("AS_STAT", "AS_STAT|AT_SYMLINK_NOFOLLOW");
        assert_eq!(seen(&lstat), one("lstat", "/b"));
        assert_eq!(seen("7 openat(AT_FDCWD</>, \"c\", O_RDONLY) = 3</c = 4>"), one("open", "c"));
        let link = "7 readlink(\"/l\", \"/to\", 99) = 3";
        assert_eq!((seen(link), only(link).link), (one("readlink", "/l"), Some("/to".into())));
        assert_eq!(seen("7 getcwd(\"/a\", 99) = 3"), ("getcwd".into(), Vec::new(), None));
        assert_eq!(seen("7 unlinkat(3</d>, \"x\", AT_REMOVEDIR) = 0"), one("rmdir", "x"));
        assert_eq!(seen("7 access(\"/x\", F_OK)    = 0"), one("access", "/x"));
        let failed = "7 rename(\"/a\", \"/b\") = -1 ENOENT (No such file or directory)";
        let two = vec!["/a".to_owned(), "/b".to_owned()];
        assert_eq!(seen(failed), ("rename".into(), two, Some("ENOENT".into())));
    }

    #[test]
    fn a_call_on_a_descriptor_takes_no_path() {
        let log =
            parse_calls("7 newfstatat(4</a>, \"\", {st_mode=1}, AT_EMPTY_PATH) = 0\n7 +++ x +++");
        assert!(log.calls.is_empty() && log.unreadable.is_empty());
    }

    #[test]
    fn children_run_what_their_parents_ran_until_they_start_a_program() {
        let text = "1 execve(\"/bin/node\", [\"node\"], 0x1 /* 3 vars */) = 0\n\
                    1 clone3({flags=CLONE_VM, child_tid=0x7 => {parent_tid=[2]}, 88) = 2\n\
                    2 access(\"/a\", F_OK) = 0\n\
                    1 vfork( <unfinished ...>\n\
                    3 execve(\"/bin/sh\", [\"sh\"], 0x1 /* 3 vars */ <unfinished ...>\n\
                    1 <... vfork resumed>)              = 3\n\
                    3 <... execve resumed>)             = 0\n\
                    3 access(\"/b\", F_OK) = 0\n\
                    9 access(\"/c\", F_OK) = 0\n";
        let log = parse_calls(text);
        assert_eq!(log.unreadable, Vec::<String>::new());
        let ran: Vec<_> = log
            .calls
            .iter()
            .filter(|call| call.kind == "access")
            .map(|call| (call.tid, call.program.as_deref()))
            .collect();
        assert_eq!(ran, [(2, Some("/bin/node")), (3, Some("/bin/sh")), (9, None)]);
        assert_eq!(log.calls[1].program.as_deref(), Some("/bin/node"), "who started the shell");
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let cut = "1 access(\"abc\"..., F_OK) = 0\n";
        assert_eq!(parse_calls(cut).unreadable.len(), 1);
        assert_eq!(parse_calls("1 <... access resumed>) = 0\n").unreadable.len(), 1);
        assert!(parse_calls("1 access(\"/a\", F_OK) = ?\n").unreadable.is_empty());
    }
}
