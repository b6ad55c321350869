//! The outer layer: file header and chunk headers. Knows nothing of what a payload means.
//!
//! All integers are little endian.
//!
//! ```text
//! file header, 16 bytes:  "NRECCAP\n"  u16 version  u16 0  u32 crc32c of the first 12 bytes
//! chunk header, 32 bytes: "NCHK"  u16 kind  u16 flags  u32 sequence  u32 stored_len
//!                         u32 raw_len  u32 payload_crc32c  u32 0  u32 crc32c of the first 28 bytes
//! payload:                stored_len bytes (zstd when flag bit 0 is set)
//! ```

/// First eight bytes of a capture. The line feed catches transfers that mangle line ends.
pub const MAGIC: [u8; 8] = *b"NRECCAP\n";
/// Version of the format: a reader refuses a larger one, see docs/capture-format.md.
pub const FORMAT_VERSION: u16 = 2;
/// Length of the file header in bytes.
pub const FILE_HEADER_BYTES: usize = 16;
/// Length of a chunk header in bytes.
pub const CHUNK_HEADER_BYTES: usize = 32;
/// Mark at the start of each chunk, by which a reader finds its way after damage.
pub(super) const SYNC: [u8; 4] = *b"NCHK";
/// Flag: the payload is a zstd frame.
pub(super) const FLAG_ZSTD: u16 = 1;

/// What a chunk holds. Open: a kind that this version does not know is skipped and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkKind(pub u16);

impl ChunkKind {
    /// The recording's own description, JSON ([`super::Meta`]). First chunk of a file.
    pub const META: Self = Self(1);
    /// Sections of tables and samples.
    pub const DATA: Self = Self(2);
    /// How the recording ended, JSON ([`super::End`]). Last chunk of a complete file.
    pub const END: Self = Self(3);
}

/// A decoded chunk header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkHeader {
    pub(super) kind: ChunkKind,
    pub(super) compressed: bool,
    pub(super) sequence: u32,
    pub(super) stored_len: u32,
    pub(super) raw_len: u32,
    pub(super) payload_crc: u32,
}

/// The file header's bytes.
pub(super) fn file_header() -> [u8; FILE_HEADER_BYTES] {
    let mut out = [0; FILE_HEADER_BYTES];
    out[..8].copy_from_slice(&MAGIC);
    out[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    let crc = crc32c::crc32c(&out[..12]);
    out[12..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Version in a file header, or `None` where these bytes do not start a capture.
pub(super) fn file_version(bytes: &[u8]) -> Option<u16> {
    let header = bytes.first_chunk::<FILE_HEADER_BYTES>()?;
    (header.starts_with(&MAGIC)).then(|| u16::from_le_bytes([header[8], header[9]]))
}

/// Whether the file header is undamaged.
pub(super) fn file_header_intact(bytes: &[u8]) -> bool {
    bytes.first_chunk::<FILE_HEADER_BYTES>().is_some_and(|header| {
        crc32c::crc32c(&header[..12]).to_le_bytes()
            == [header[12], header[13], header[14], header[15]]
    })
}

impl ChunkHeader {
    pub(super) fn encode(&self) -> [u8; CHUNK_HEADER_BYTES] {
        let mut out = [0; CHUNK_HEADER_BYTES];
        out[..4].copy_from_slice(&SYNC);
        out[4..6].copy_from_slice(&self.kind.0.to_le_bytes());
        out[6..8].copy_from_slice(&(if self.compressed { FLAG_ZSTD } else { 0 }).to_le_bytes());
        out[8..12].copy_from_slice(&self.sequence.to_le_bytes());
        out[12..16].copy_from_slice(&self.stored_len.to_le_bytes());
        out[16..20].copy_from_slice(&self.raw_len.to_le_bytes());
        out[20..24].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32c::crc32c(&out[..28]);
        out[28..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Decodes a header that starts at the first byte; `None` where there is none or it is damaged.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<CHUNK_HEADER_BYTES>()?;
        if !header.starts_with(&SYNC) {
            return None;
        }
        let word = |at: usize| {
            let mut four = [0; 4];
            four.copy_from_slice(header.get(at..at + 4).unwrap_or(&[0; 4]));
            u32::from_le_bytes(four)
        };
        if crc32c::crc32c(&header[..28]) != word(28) {
            return None;
        }
        let kind_and_flags = word(4);
        Some(Self {
            kind: ChunkKind(kind_and_flags as u16),
            compressed: (kind_and_flags >> 16) as u16 & FLAG_ZSTD != 0,
            sequence: word(8),
            stored_len: word(12),
            raw_len: word(16),
            payload_crc: word(20),
        })
    }
}
