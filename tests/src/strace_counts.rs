//! Counts the system calls that `strace -f -o FILE` writes, by thread, call and error.
//!
//! Pure: it must not run anything.

use std::collections::BTreeMap;

use crate::strace_log::split_tid;

/// How often each thread made each call with each error; `""` is none.
pub type Counts = BTreeMap<(u32, String, String), u64>;

/// Counts a whole log: a call counts when it ends.
#[must_use]
pub fn count_calls(text: &str) -> Counts {
    let mut counts = Counts::new();
    for line in text.lines() {
        let Some((tid, rest)) = split_tid(line) else { continue };
        if let Some((name, error)) = ended(rest) {
            *counts.entry((tid, name.to_owned(), error.to_owned())).or_default() += 1;
        }
    }
    counts
}

/// Call and error of a line on which a call ends.
fn ended(rest: &str) -> Option<(&str, &str)> {
    if rest.ends_with("<unfinished ...>") || rest.starts_with("+++") || rest.starts_with("---") {
        return None;
    }
    let name = match rest.strip_prefix("<... ") {
        Some(resumed) => resumed.split_once(" resumed>")?.0,
        None => rest.split_once('(')?.0,
    };
    // The last, as arguments may hold the same; the text behind an error does not.
    let (_call, result) = rest.rsplit_once(" = ")?;
    let error = match result.strip_prefix("-1 ").or_else(|| result.strip_prefix("? ")) {
        Some(failure) => failure.split_whitespace().next()?,
        None if result.starts_with('?') => return None,
        None => "",
    };
    Some((name, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_when_they_end() {
        let log = "\
10 openat(AT_FDCWD, \"/a = b\", O_RDONLY|O_CLOEXEC) = -1 ENOENT (No such file or directory)
10 openat(AT_FDCWD, \"/a = b\", O_RDONLY|O_CLOEXEC) = 17</a>
10 read(17,  <unfinished ...>
11 futex(0x1, FUTEX_WAIT_PRIVATE, 0, NULL <unfinished ...>
10 <... read resumed>\"x\", 1) = 1
11 <... futex resumed>) = ? ERESTARTSYS (To be restarted if SA_RESTART is set)
10 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, -1, 0) = 0x7f0000000000
10 --- SIGCHLD {si_signo=SIGCHLD} ---
10 exit_group(0)     = ?
10 +++ exited with 0 +++
strace: Process 12 attached
";
        let counts: Vec<_> = count_calls(log).into_iter().collect();
        let of = |tid: u32, name: &str, error: &str| ((tid, name.to_owned(), error.to_owned()), 1);
        let want = [
            of(10, "mmap", ""),
            of(10, "openat", ""),
            of(10, "openat", "ENOENT"),
            of(10, "read", ""),
            of(11, "futex", "ERESTARTSYS"),
        ];
        assert_eq!(counts, want);
    }
}
