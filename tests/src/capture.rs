//! The bytes of a capture without its compression, to search them.
//!
//! It knows of docs/capture-format.md only what chunks are.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// Bytes of the file header.
const FILE_HEADER: usize = 16;
/// Bytes of a chunk's header.
const CHUNK_HEADER: usize = 32;
/// Above what a recorder writes in one chunk.
const MOST_BYTES: usize = 1 << 28;

/// The payloads of all chunks, decompressed.
///
/// # Errors
/// If the file is not a whole capture.
pub fn payloads(capture: &Path) -> Result<Vec<Vec<u8>>> {
    let file = std::fs::read(capture).context("cannot read the capture")?;
    let mut rest = file.get(FILE_HEADER..).context("no file header")?;
    let mut payloads = Vec::new();
    while !rest.is_empty() {
        ensure!(rest.starts_with(b"NCHK"), "no chunk where one should begin");
        let flags = field(rest, 6, 2)?;
        let stored = rest.get(CHUNK_HEADER..CHUNK_HEADER + field(rest, 12, 4)?);
        let stored = stored.context("a chunk is cut short")?;
        payloads.push(match flags {
            0 => stored.to_vec(),
            _ => zstd::bulk::decompress(stored, MOST_BYTES).context("cannot decompress")?,
        });
        rest = &rest[CHUNK_HEADER + stored.len()..];
    }
    Ok(payloads)
}

fn field(bytes: &[u8], at: usize, length: usize) -> Result<usize> {
    let bytes = bytes.get(at..at + length).context("a chunk header is cut short")?;
    Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte)))
}

/// Whether the bytes occur anywhere.
#[must_use]
pub fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_compressed_payloads_are_read() {
        let text = b"something that is repeated, repeated, repeated, repeated".as_slice();
        let packed = zstd::bulk::compress(text, 3).unwrap();
        let mut file = vec![0; FILE_HEADER];
        for (flags, payload) in [(0_u8, text), (1, &packed)] {
            let mut header = [0; CHUNK_HEADER];
            header[..4].copy_from_slice(b"NCHK");
            header[6] = flags;
            header[12..16].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
            file.extend(header);
            file.extend(payload);
        }
        let place = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(place.path(), &file).unwrap();
        let read = payloads(place.path()).unwrap();
        assert!(read.iter().all(|payload| payload == text) && read.len() == 2);
        assert!(contains(&read[1], b"repeated") && !contains(&read[1], b"secret"));
        std::fs::write(place.path(), &file[..file.len() - 1]).unwrap();
        assert!(payloads(place.path()).is_err());
    }
}
