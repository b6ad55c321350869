//! Flags of open(2), of copies and of access(2) as text. Numbers of open(2) are Linux's (include/uapi/asm-generic/fcntl.h); four bits
//! differ on arm64 (arch/arm64/include/uapi/asm/fcntl.h).

/// Access modes, the two lowest bits.
const ACCESS: [&str; 4] = ["O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"];
/// Flags; one that contains another's bits comes first.
const FLAGS: &[(u32, &str)] = &[
    (0o100, "O_CREAT"),
    (0o200, "O_EXCL"),
    (0o400, "O_NOCTTY"),
    (0o1000, "O_TRUNC"),
    (0o2000, "O_APPEND"),
    (0o4000, "O_NONBLOCK"),
    (0o4_010_000, "O_SYNC"),
    (0o10_000, "O_DSYNC"),
    (0o20_000, "O_ASYNC"),
    (0o20_200_000, "O_TMPFILE"),
    (0o40_000, "O_DIRECT"),
    (0o100_000, "O_LARGEFILE"),
    (0o200_000, "O_DIRECTORY"),
    (0o400_000, "O_NOFOLLOW"),
    (0o1_000_000, "O_NOATIME"),
    (0o2_000_000, "O_CLOEXEC"),
    (0o10_000_000, "O_PATH"),
];

/// Bit that creates a file, so that a mode has a meaning.
pub const O_CREAT: u32 = 0o100;

/// `O_RDONLY|O_CLOEXEC`; bits without a name in hexadecimal.
#[must_use]
pub fn text(flags: u32, arch: &str) -> String {
    let flags = if arch == "aarch64" { generic(flags) } else { flags };
    let mut parts: Vec<String> =
        ACCESS.get((flags & 3) as usize).map(|&name| name.to_owned()).into_iter().collect();
    let mut rest = flags & !3;
    for &(bits, name) in FLAGS {
        if rest & bits == bits {
            parts.push(name.to_owned());
            rest &= !bits;
        }
    }
    if rest != 0 {
        parts.push(format!("{rest:#x}"));
    }
    parts.join("|")
}

/// arm64 has O_DIRECTORY, O_NOFOLLOW, O_DIRECT and O_LARGEFILE at other places.
fn generic(flags: u32) -> u32 {
    const MOVED: [(u32, u32); 4] = [
        (0o40_000, 0o200_000),
        (0o100_000, 0o400_000),
        (0o200_000, 0o40_000),
        (0o400_000, 0o100_000),
    ];
    let kept = MOVED.iter().fold(flags, |flags, (from, _to)| flags & !from);
    MOVED.iter().filter(|(from, _to)| flags & from != 0).fold(kept, |kept, (_from, to)| kept | to)
}

/// Flags of a copy (include/uv.h, `UV_FS_COPYFILE_*`); absent where there is none.
#[must_use]
pub fn of_copy(flags: u32) -> Option<String> {
    const NAMES: [(u32, &str); 3] =
        [(1, "COPYFILE_EXCL"), (2, "COPYFILE_FICLONE"), (4, "COPYFILE_FICLONE_FORCE")];
    (flags != 0).then(|| named(flags, &NAMES))
}

/// What access(2) asks for (include/uapi/linux/fs.h and unistd.h).
#[must_use]
pub fn of_access(mode: u32) -> String {
    if mode == 0 {
        "F_OK".to_owned()
    } else {
        named(mode, &[(4, "R_OK"), (2, "W_OK"), (1, "X_OK")])
    }
}

/// Bits by name, those without one in hexadecimal.
fn named(bits: u32, names: &[(u32, &str)]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut rest = bits;
    for &(bit, name) in names {
        if bits & bit != 0 {
            parts.push(name.to_owned());
            rest &= !bit;
        }
    }
    if rest != 0 {
        parts.push(format!("{rest:#x}"));
    }
    parts.join("|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_have_their_names() {
        for (flags, want) in [
            (0, "O_RDONLY"),
            (0o2_000_000, "O_RDONLY|O_CLOEXEC"),
            (0o1101, "O_WRONLY|O_CREAT|O_TRUNC"),
            (0o2102, "O_RDWR|O_CREAT|O_APPEND"),
            (0o4_010_000, "O_RDONLY|O_SYNC"),
            (0o10_000, "O_RDONLY|O_DSYNC"),
            (0o20_200_002, "O_RDWR|O_TMPFILE"),
            (0o200_000, "O_RDONLY|O_DIRECTORY"),
            (1 << 30, "O_RDONLY|0x40000000"),
        ] {
            assert_eq!(text(flags, "x86_64"), want);
        }
        assert_eq!(text(0o40_000, "aarch64"), "O_RDONLY|O_DIRECTORY");
        assert_eq!(text(0o40_000, "x86_64"), "O_RDONLY|O_DIRECT");
    }

    #[test]
    fn flags_of_copies_and_access_have_their_names() {
        assert_eq!(of_copy(0), None);
        assert_eq!(of_copy(1).as_deref(), Some("COPYFILE_EXCL"));
        assert_eq!(of_copy(0xe).as_deref(), Some("COPYFILE_FICLONE|COPYFILE_FICLONE_FORCE|0x8"));
        assert_eq!((of_access(0), of_access(6)), ("F_OK".into(), "R_OK|W_OK".into()));
    }
}
