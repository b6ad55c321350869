//! What a mapped file says of itself: the version of Node and of V8 in it. Nothing of it is run.

use std::fs::File;
use std::os::unix::fs::FileExt;

use formats::elf::ElfInfo;
use object::read::ReadCache;
use object::{Object as _, ObjectSymbol as _};

/// The inspector's greeting (node's src/inspector_socket_server.cc, "node.js/" NODE_VERSION), which
/// is in the read-only data of every build with an inspector, stripped or not.
const GREETING: &[u8] = b"node.js/v";
/// Longest version after it: three numbers.
const MAX_VERSION: usize = 24;
/// Bytes read in one go.
const PIECE: usize = 1 << 20;
/// Most that is searched of one file, bytes. Node's own program is about 100 MB.
const MAX_SEARCH: u64 = 512 << 20;

/// V8's version numbers: exported variables of type int, initialised in the file
/// (V8's src/utils/version.cc).
const V8_PARTS: [&[u8]; 4] = [
    b"_ZN2v88internal7Version6major_E",
    b"_ZN2v88internal7Version6minor_E",
    b"_ZN2v88internal7Version6build_E",
    b"_ZN2v88internal7Version6patch_E",
];
/// Larger numbers are not a version.
const MAX_PART: u32 = 100_000;

/// V8's version, `None` for a file that does not export it.
pub(super) fn v8_version(file: &File, elf: &ElfInfo) -> Option<String> {
    let cache = ReadCache::new(file);
    let parsed = object::read::elf::ElfFile64::<object::LittleEndian, _>::parse(&cache).ok()?;
    let mut places = [None; V8_PARTS.len()];
    for symbol in parsed.dynamic_symbols() {
        let Ok(name) = symbol.name_bytes() else { continue };
        if let Some(at) = V8_PARTS.iter().position(|part| *part == name) {
            places[at] = elf.svma_to_file_offset(symbol.address());
        }
    }
    let mut parts = Vec::new();
    for place in places {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, place?).ok()?;
        parts.push(Some(u32::from_le_bytes(bytes)).filter(|part| *part < MAX_PART)?.to_string());
    }
    Some(parts.join("."))
}

/// Node's version without the `v`, `None` for a file that does not hold it.
pub(super) fn node_version(file: &File, elf: &ElfInfo) -> Option<String> {
    let mut left = MAX_SEARCH;
    elf.segments.iter().find_map(|segment| {
        let length = segment.file_size.min(left);
        left -= length;
        search(file, segment.file_offset, length)
    })
}

fn search(file: &File, start: u64, length: u64) -> Option<String> {
    let overlap = GREETING.len() + MAX_VERSION;
    let mut piece = vec![0; PIECE + overlap];
    let mut at = 0;
    while at < length {
        let want = (length - at).min(piece.len() as u64) as usize;
        let read = file.read_at(piece.get_mut(..want)?, start.checked_add(at)?).ok()?;
        if let Some(version) = version_in(piece.get(..read)?) {
            return Some(version);
        }
        if read < want {
            return None;
        }
        // The next piece begins with the end of this one: the text may lie across.
        at += PIECE as u64;
    }
    None
}

/// The first version after a greeting. What follows it need not be a NUL: linkers merge strings.
fn version_in(bytes: &[u8]) -> Option<String> {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|&byte| byte == b'n') {
        rest = rest.get(at..)?;
        if let Some(tail) = rest.strip_prefix(GREETING) {
            let end = tail.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.');
            let text = tail.get(..end.unwrap_or(tail.len()).min(MAX_VERSION))?;
            let text = std::str::from_utf8(text).ok()?.trim_end_matches('.');
            let numbers: Vec<_> = text.split('.').map(str::parse::<u32>).collect();
            if numbers.len() == 3 && numbers.iter().all(Result::is_ok) {
                return Some(text.to_owned());
            }
        }
        rest = rest.get(1..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_and_others_not() {
        for (bytes, want) in [
            (&b"\0node.js/v20.20.2\0"[..], Some("20.20.2")),
            (b"node.js/v24.21.0Protocol-Version../src", Some("24.21.0")),
            (b"nnode.js/vX node.js/v1.2 node.js/v26.0.0-nightly", Some("26.0.0")),
            (b"node.js/v1.2.3.4", None),
            (b"node.js/v99999999999.1.1", None),
            (b"node.js/v", None),
            (b"", None),
        ] {
            assert_eq!(version_in(bytes).as_deref(), want, "{bytes:?}");
        }
    }

    #[test]
    fn a_version_across_two_pieces_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        for before in [0, PIECE - 5, PIECE, PIECE + 20, 2 * PIECE + 3] {
            let mut bytes = vec![b'n'; before];
            bytes.extend_from_slice(b"node.js/v18.1.0\0");
            std::fs::write(&path, &bytes).unwrap();
            let file = File::open(&path).unwrap();
            let found = search(&file, 0, bytes.len() as u64);
            assert_eq!(found.as_deref(), Some("18.1.0"), "after {before}");
            assert_eq!(search(&file, 0, before as u64), None);
        }
    }
}
