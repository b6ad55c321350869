//! Where a map is, and what its sources are called: addresses and paths, and the only place that
//! opens a file of the target. It must not know what is in a map.
//!
//! Addresses are the target's, so they are not to be trusted: only regular files below the folder that
//! the user named are read, and of these only as much as a map may hold.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::mappings::sextet;

/// Largest map and script that is read, bytes. The map of TypeScript's own compiler is 15 MiB.
const MAX_BYTES: u64 = 64 << 20;

/// How a script names its map (V8's src/parsing/scanner.cc, `TryToParseMagicComment`).
const COMMENT: [&[u8]; 2] = [b"//# sourceMappingURL=", b"//@ sourceMappingURL="];

/// What keeps a map from being used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// The address holds what no address of a file holds.
    #[error("its address holds control characters")]
    ControlCharacters,
    /// The address is on the web, for one.
    #[error("its address is not that of a file")]
    NoFile,
    /// A relative address, and nothing that it is relative to.
    #[error("the script has no path")]
    NoBase,
    /// Inline, but damaged.
    #[error("its base 64 is damaged")]
    Base64,
    /// A folder, a device, a pipe.
    #[error("it is not a regular file")]
    Irregular,
    /// Larger than a map may be.
    #[error("it is larger than {} MiB", MAX_BYTES >> 20)]
    TooLarge,
    /// Opening or reading failed.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
}

/// Where a map is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Location {
    /// In the address itself.
    Inline(Vec<u8>),
    /// At this path of the target.
    Path(Vec<u8>),
}

/// Path of a script that is a file.
pub(super) fn script_path(name: &[u8]) -> Option<Vec<u8>> {
    let path = match name.strip_prefix(b"file://") {
        Some(path) => percent_decoded(path),
        None => name.to_vec(),
    };
    let sound = path.starts_with(b"/") && !path.iter().any(u8::is_ascii_control);
    sound.then(|| normal(&path))
}

/// Where the map at an address is, as the script at `base` means it.
pub(super) fn locate(url: &[u8], base: Option<&[u8]>) -> Result<Location, FileError> {
    if url.iter().any(u8::is_ascii_control) {
        return Err(FileError::ControlCharacters);
    }
    if let Some(data) = url.strip_prefix(b"data:") {
        return inline(data);
    }
    let path = match url.strip_prefix(b"file://") {
        Some(path) => path,
        None if has_scheme(url) || url.starts_with(b"//") => return Err(FileError::NoFile),
        None => url,
    };
    let end = path.iter().position(|b| matches!(b, b'?' | b'#')).unwrap_or(path.len());
    let path = percent_decoded(path.get(..end).unwrap_or_default());
    if path.iter().any(|&b| b.is_ascii_control()) {
        return Err(FileError::ControlCharacters);
    }
    if path.starts_with(b"/") {
        return Ok(Location::Path(normal(&path)));
    }
    Ok(Location::Path(beside(base.ok_or(FileError::NoBase)?, &path)))
}

/// The name of a source as people know it: a path, or what the map says if that is no file's name.
pub(super) fn source_name(source: &str, base: Option<&[u8]>) -> Vec<u8> {
    let source = source.as_bytes();
    match (source.strip_prefix(b"file://"), base) {
        (Some(path), _) => normal(&percent_decoded(path)),
        (None, _) if has_scheme(source) => source.to_vec(),
        (None, _) if source.starts_with(b"/") => normal(source),
        (None, Some(base)) => beside(base, source),
        (None, None) => source.to_vec(),
    }
}

/// Reads a file of the target below `root`.
pub(super) fn read(root: &Path, path: &[u8]) -> Result<Vec<u8>, FileError> {
    let path = below(root, path);
    // Looked at before it is opened: opening a pipe would wait for its writer.
    if !fs::metadata(&path).map_err(FileError::Read)?.is_file() {
        return Err(FileError::Irregular);
    }
    let file = File::open(&path).map_err(FileError::Read)?;
    if !file.metadata().map_err(FileError::Read)?.is_file() {
        return Err(FileError::Irregular);
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(FileError::Read)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(FileError::TooLarge);
    }
    Ok(bytes)
}

/// A path of the target as it is found here.
pub(super) fn below(root: &Path, path: &[u8]) -> PathBuf {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    root.join(OsStr::from_bytes(path))
}

/// The address of its map that a script's text names: the last one counts.
pub(super) fn named_in(text: &[u8]) -> Option<&[u8]> {
    text.rsplit(|&b| b == b'\n').find_map(|line| {
        let at = COMMENT.iter().find_map(|comment| {
            let at = line.windows(comment.len()).rposition(|window| window == *comment)?;
            Some(at + comment.len())
        })?;
        let url = line.get(at..)?.trim_ascii();
        (!url.is_empty() && !url.iter().any(u8::is_ascii_whitespace)).then_some(url)
    })
}

fn inline(data: &[u8]) -> Result<Location, FileError> {
    let comma = data.iter().position(|&b| b == b',').ok_or(FileError::NoFile)?;
    let (kind, data) = data.split_at_checked(comma).ok_or(FileError::NoFile)?;
    let data = percent_decoded(data.get(1..).unwrap_or_default());
    if !kind.ends_with(b";base64") {
        return Ok(Location::Inline(data));
    }
    let digits = data.iter().rposition(|&b| b != b'=').map_or(0, |last| last + 1);
    let mut bytes = Vec::with_capacity(digits / 4 * 3);
    for group in data.get(..digits).unwrap_or_default().chunks(4) {
        let mut bits = 0u32;
        for at in 0..4 {
            let value = group.get(at).map_or(Some(0), |&digit| sextet(digit));
            bits = bits << 6 | u32::from(value.ok_or(FileError::Base64)?);
        }
        let [_, a, b, c] = bits.to_be_bytes();
        // One digit alone makes no byte.
        bytes.extend([a, b, c].into_iter().take(group.len() - 1));
    }
    Ok(Location::Inline(bytes))
}

/// Whether an address begins with a scheme (RFC 3986, section 3.1).
fn has_scheme(url: &[u8]) -> bool {
    let Some(colon) = url.iter().position(|&b| b == b':') else { return false };
    let scheme = url.get(..colon).unwrap_or_default();
    let fits = |b: &u8| b.is_ascii_alphanumeric() || b"+-.".contains(b);
    scheme.first().is_some_and(u8::is_ascii_alphabetic) && scheme.iter().all(fits)
}

/// A path that is relative to the folder of another.
fn beside(base: &[u8], path: &[u8]) -> Vec<u8> {
    let folder = base.iter().rposition(|&b| b == b'/').map_or(0, |at| at + 1);
    normal(&[base.get(..folder).unwrap_or_default(), path].concat())
}

/// A path without `.` and `..`: it never leads above the root.
fn normal(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut normal = Vec::with_capacity(path.len());
    for part in parts {
        normal.push(b'/');
        normal.extend(part);
    }
    normal
}

fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let hex = |at: usize| char::from(*after.get(at)?).to_digit(16);
        match (*first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(url: &str, base: Option<&str>) -> String {
        match locate(url.as_bytes(), base.map(str::as_bytes)) {
            Ok(Location::Inline(data)) => format!("inline {}", String::from_utf8(data).unwrap()),
            Ok(Location::Path(path)) => String::from_utf8(path).unwrap(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn maps_are_where_the_script_says() {
        let script = script_path(b"file:///srv/my%20app/dist/a.js").unwrap();
        assert_eq!(script, b"/srv/my app/dist/a.js");
        let script = Some("/srv/app/dist/a.js");
        for (url, want) in [
            ("a.js.map", "/srv/app/dist/a.js.map"),
            ("./maps/a.js.map?v=1#x", "/srv/app/dist/maps/a.js.map"),
            ("../a%20b.map", "/srv/app/a b.map"),
            ("../../../../../etc/passwd", "/etc/passwd"),
            ("/abs/a.map", "/abs/a.map"),
            ("file:///abs/./a.map", "/abs/a.map"),
            ("https://cdn.example/a.map", "its address is not that of a file"),
            ("//cdn.example/a.map", "its address is not that of a file"),
            ("a\u{1b}.map", "its address holds control characters"),
            ("a%00.map", "its address holds control characters"),
            ("data:application/json;charset=utf-8;base64,eyJhIjoxfQ==", "inline {\"a\":1}"),
            ("data:application/json;base64,eyJhIjoxMn0", "inline {\"a\":12}"),
            ("data:application/json,%7B%7D", "inline {}"),
            ("data:application/json;base64,e*==", "its base 64 is damaged"),
            ("data:nothing", "its address is not that of a file"),
        ] {
            assert_eq!(located(url, script), want, "{url}");
        }
        assert_eq!(located("a.map", None), "the script has no path");
        assert_eq!(located("/a.map", None), "/a.map");
        for none in ["", "[eval]", "node:fs", "evalmachine.<anonymous>", "https://x/a.js", "/a\n"] {
            assert_eq!(script_path(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn sources_are_beside_their_map() {
        let base = Some(&b"/srv/app/dist/a.js.map"[..]);
        for (source, want) in [
            ("../src/a.ts", "/srv/app/src/a.ts"),
            ("/abs/a.ts", "/abs/a.ts"),
            ("file:///abs/a%20b.ts", "/abs/a b.ts"),
            ("webpack://shop/./src/a.ts", "webpack://shop/./src/a.ts"),
        ] {
            assert_eq!(source_name(source, base), want.as_bytes());
        }
        assert_eq!(source_name("a.ts", None), b"a.ts");
    }

    #[test]
    fn the_last_comment_counts() {
        let text = b"f();\n//# sourceMappingURL=old.map\nx //@ sourceMappingURL=new.map \n\n";
        assert_eq!(named_in(text), Some(&b"new.map"[..]));
        assert_eq!(named_in(b"//# sourceMappingURL=two words"), None);
        assert_eq!(named_in(b""), None);
    }

    #[test]
    fn only_regular_files_below_the_folder_are_read() {
        let root = std::env::temp_dir().join(format!("nanalyze-maps-{}", std::process::id()));
        fs::create_dir_all(root.join("srv/folder")).unwrap();
        fs::write(root.join("srv/a.map"), b"x").unwrap();
        assert_eq!(read(&root, b"/srv/a.map").unwrap(), b"x");
        assert!(matches!(read(&root, b"/srv/folder"), Err(FileError::Irregular)));
        assert!(matches!(read(&root, b"/srv/none"), Err(FileError::Read(_))));
        let large = File::create(root.join("srv/large")).unwrap();
        large.set_len(MAX_BYTES + 1).unwrap();
        assert!(matches!(read(&root, b"/srv/large"), Err(FileError::TooLarge)));
        assert!(matches!(read(Path::new("/dev"), b"/null"), Err(FileError::Irregular)));
        fs::remove_dir_all(&root).unwrap();
    }
}
