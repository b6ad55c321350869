//! `/proc/PID/maps` (proc_pid_maps(5)): which file is mapped where. It must not read the file or
//! judge the paths; they belong to the target and may hold anything.

use std::borrow::Cow;

/// One mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MapsEntry<'a> {
    /// First address.
    pub start: u64,
    /// Address behind the last byte, above `start`.
    pub end: u64,
    /// Readable.
    pub read: bool,
    /// Writable.
    pub write: bool,
    /// Executable.
    pub exec: bool,
    /// Shared with other processes (`s`), else private (`p`).
    pub shared: bool,
    /// Offset in the file of the first byte mapped.
    pub offset: u64,
    /// Device of the file, major number.
    pub dev_major: u32,
    /// Device of the file, minor number.
    pub dev_minor: u32,
    /// Inode of the file; 0 without a file.
    pub inode: u64,
    /// Path or pseudo path (`[heap]`), `None` for anonymous memory. Any bytes but NUL; newlines,
    /// which the kernel writes as `\012`, are newlines again. The kernel escapes nothing else, not
    /// even the backslash, so a path that really contains `\012` cannot be told apart.
    pub path: Option<Cow<'a, [u8]>>,
    /// The kernel said ` (deleted)`, which is not part of `path`. A file that is really called so
    /// looks the same.
    pub deleted: bool,
}

impl MapsEntry<'_> {
    /// Whether a file (also a deleted or memory file) stands behind the mapping.
    pub fn is_file(&self) -> bool {
        self.inode != 0 && self.path.as_ref().is_some_and(|p| p.starts_with(b"/"))
    }

    /// Whether this is the kernel's `[vdso]`.
    pub fn is_vdso(&self) -> bool {
        self.path.as_deref() == Some(b"[vdso]")
    }

    /// Whether this is the kernel's `[uprobes]` (kernel/events/uprobes.c, `xol_add_vma`). Its beginning
    /// is where functions with a return probe return to.
    pub fn is_uprobes(&self) -> bool {
        self.path.as_deref() == Some(b"[uprobes]")
    }
}

/// A whole maps file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Maps<'a> {
    /// The mappings in the order of the file, which is by address.
    pub entries: Vec<MapsEntry<'a>>,
    /// Lines that could not be understood.
    pub bad_lines: u64,
}

/// Reads a whole maps file. Bad lines are counted and left out.
pub fn parse_maps(text: &[u8]) -> Maps<'_> {
    let mut maps = Maps::default();
    for line in text.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        match parse_line(line) {
            Some(entry) => maps.entries.push(entry),
            None => maps.bad_lines += 1,
        }
    }
    maps
}

/// Reads one line without its newline: `start-end perms offset major:minor inode   path`.
/// `None` when it is not of that form.
pub fn parse_line(line: &[u8]) -> Option<MapsEntry<'_>> {
    let (range, rest) = split_once(line, b' ')?;
    let (start, end) = split_once(range, b'-')?;
    let (start, end) = (hex(start)?, hex(end)?);
    let (perms, rest) = split_once(rest, b' ')?;
    let [r, w, x, s] = *perms else { return None };
    let (offset, rest) = split_once(rest, b' ')?;
    let (device, rest) = split_once(rest, b' ')?;
    let (major, minor) = split_once(device, b':')?;
    // Anonymous memory ends with the inode and one space, or without it.
    let (inode, path) = split_once(rest, b' ').unwrap_or((rest, b""));
    let path = path.trim_ascii_start();
    // Only what the kernel can have added: it does so behind real paths alone.
    let undeleted = if path.starts_with(b"/") { path.strip_suffix(b" (deleted)") } else { None };
    if start >= end {
        return None;
    }
    Some(MapsEntry {
        start,
        end,
        read: flag(r, b'r')?,
        write: flag(w, b'w')?,
        exec: flag(x, b'x')?,
        shared: match s {
            b's' => true,
            b'p' => false,
            _ => return None,
        },
        offset: hex(offset)?,
        dev_major: u32::try_from(hex(major)?).ok()?,
        dev_minor: u32::try_from(hex(minor)?).ok()?,
        inode: decimal(inode)?,
        path: (!path.is_empty()).then(|| unescape(undeleted.unwrap_or(path))),
        deleted: undeleted.is_some(),
    })
}

fn flag(byte: u8, set: u8) -> Option<bool> {
    if byte == set {
        Some(true)
    } else if byte == b'-' {
        Some(false)
    } else {
        None
    }
}

fn split_once(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = text.iter().position(|b| *b == at)?;
    Some((text.get(..place)?, text.get(place + 1..)?))
}

fn hex(digits: &[u8]) -> Option<u64> {
    number(digits, 16)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    number(digits, 10)
}

/// Digits only: unlike `from_str_radix` it takes no sign.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| {
        let digit = char::from(*digit).to_digit(radix)?;
        value.checked_mul(u64::from(radix))?.checked_add(u64::from(digit))
    })
}

/// Turns `\012` back into a newline (`seq_path(m, file, "\n")` in the kernel's fs/proc/task_mmu.c).
fn unescape(path: &[u8]) -> Cow<'_, [u8]> {
    const NEWLINE: &[u8] = b"\\012";
    if !path.windows(NEWLINE.len()).any(|w| w == NEWLINE) {
        return Cow::Borrowed(path);
    }
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix(NEWLINE) {
            out.push(b'\n');
            rest = tail;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_the_kinds_of_mapping() {
        let text = b"00400000-00b6f000 r--p 00000000 fe:00 1234                               /usr/bin/node\n\
            00b6f000-00b71000 r-xp 0076f000 103:12 1234                              /usr/bin/node (deleted)\n\
            7f0000000000-7f0000021000 rw-p 00000000 00:00 0 \n\
            7ffd1000-7ffd2000 rw-s 00000000 00:05 99                         /dev/zero (deleted)\n\
            7fff0000-7fff1000 r-xp 00000000 00:00 0                          [vdso]\n\
            80000000-80001000 r-xp 00000000 fe:00 7                          /tmp/a b\\012c (deleted) (deleted)\n\
            ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n\
            90000000-90001000 rw-p 00000000 00:00 0                          [anon: a b (deleted)]\n\
            a0000000-a0001000 rw-p 00000000 00:00 0                          pseudo (deleted)\n";
        let maps = parse_maps(text);
        assert_eq!(maps.bad_lines, 0);
        let paths: Vec<_> = maps.entries.iter().map(|e| (e.path.as_deref(), e.deleted)).collect();
        assert_eq!(
            paths,
            [
                (Some(&b"/usr/bin/node"[..]), false),
                (Some(b"/usr/bin/node"), true),
                (None, false),
                (Some(b"/dev/zero"), true),
                (Some(b"[vdso]"), false),
                (Some(b"/tmp/a b\nc (deleted)"), true),
                (Some(b"[vsyscall]"), false),
                (Some(b"[anon: a b (deleted)]"), false),
                (Some(b"pseudo (deleted)"), false),
            ]
        );
        let code = &maps.entries[1];
        assert_eq!((code.start, code.end, code.offset), (0xb6_f000, 0xb7_1000, 0x76_f000));
        assert_eq!((code.dev_major, code.dev_minor, code.inode), (0x103, 0x12, 1234));
        assert!(code.read && !code.write && code.exec && !code.shared && code.is_file());
        assert!(maps.entries[3].shared && maps.entries[3].write);
        assert!(maps.entries[4].is_vdso() && !maps.entries[4].is_file());
    }

    #[test]
    fn counts_bad_lines_and_goes_on() {
        let bad = [
            "garbage",
            "1000-2000",
            "2000-1000 r--p 0 0:0 0",
            "1000-1000 r--p 0 0:0 0",
            "1000-2000 r--q 0 0:0 0",
            "1000-2000 rwx 0 0:0 0",
            "1000-2000 xwrp 0 0:0 0",
            "1000-2000 r--p 0 00 0",
            "1000-2000 r--p 0 0:0 -1",
            "1000-2000 r--p 0 0:0 ",
            "10000000000000000-20000000000000000 r--p 0 0:0 0",
            "+1000-2000 r--p 0 0:0 0",
        ];
        for line in bad {
            let text = format!("{line}\n1000-2000 r--p 0 0:0 0\n");
            let maps = parse_maps(text.as_bytes());
            assert_eq!((maps.entries.len(), maps.bad_lines), (1, 1), "{line:?}");
        }
    }

    #[test]
    fn reads_a_real_file() {
        let Ok(text) = std::fs::read("/proc/self/maps") else { return };
        let maps = parse_maps(&text);
        assert_eq!(maps.bad_lines, 0);
        let here = reads_a_real_file as fn() as usize as u64;
        let own = maps.entries.iter().find(|e| e.start <= here && here < e.end).unwrap();
        assert!(own.exec && own.is_file());
        let exe = std::env::current_exe().unwrap();
        assert_eq!(own.path.as_deref(), Some(exe.as_os_str().as_encoded_bytes()));
    }

    proptest! {
        #[test]
        fn survives_any_bytes(text in any::<Vec<u8>>()) {
            let lines = text.split(|b| *b == b'\n').filter(|l| !l.is_empty()).count() as u64;
            let maps = parse_maps(&text);
            prop_assert_eq!(maps.entries.len() as u64 + maps.bad_lines, lines);
        }

        #[test]
        fn any_path_is_read_back(name in "[^\0]{0,40}", deleted: bool) {
            // A name that looks like the kernel's own marks cannot be told from them.
            prop_assume!(!name.contains("\\012") && !name.ends_with(" (deleted)"));
            let suffix = if deleted { " (deleted)" } else { "" };
            let line =
                format!("1000-2000 r-xp 00003000 fe:01 77    /{}{suffix}", name.replace('\n', "\\012"));
            let entry = parse_line(line.as_bytes()).unwrap();
            let want = format!("/{name}");
            prop_assert_eq!(entry.path.as_deref(), Some(want.as_bytes()));
            prop_assert_eq!(entry.deleted, deleted);
            prop_assert_eq!(entry.inode, 77);
        }
    }
}
