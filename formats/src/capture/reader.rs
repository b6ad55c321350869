//! Finds the chunks in bytes that come piece by piece: steps over damage, keeps of a chunk that is
//! not whole yet what has come, and knows when the bytes cannot be a capture at all.
//!
//! A whole file is one piece. It must not know what a chunk means; that is [`super::read`].

use super::chunk::{
    CHUNK_HEADER_BYTES, ChunkHeader, FILE_HEADER_BYTES, FORMAT_VERSION, MAGIC, SYNC,
    file_header_intact, file_version,
};
use super::contents::Capture;
use super::read::{Assembly, ReadError};
use super::retain::Retained;
use crate::limits::Limits;

/// More memory than this is given back when what it held has been taken.
const KEPT_BYTES: usize = 1 << 20;

/// Reads a capture while it grows: each piece of bytes adds what is new.
///
/// Memory: the capture so far, and at most one chunk.
pub struct CaptureReader {
    limits: Limits,
    pub(super) assembly: Assembly,
    /// The bytes of a chunk that is not whole yet.
    kept: Vec<u8>,
    /// The file header has been read.
    begun: bool,
    /// The last bytes belonged to no chunk, and no chunk has begun since.
    searching: bool,
    pub(super) retained: Retained,
    bytes: usize,
    chunks: u64,
    next_sequence: u32,
}

impl std::fmt::Debug for CaptureReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaptureReader")
            .field("bytes", &self.bytes)
            .field("chunks", &self.chunks)
            .finish_non_exhaustive()
    }
}

impl CaptureReader {
    /// Nothing has been read.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            limits: *limits,
            assembly: Assembly::new(*limits),
            kept: Vec::new(),
            begun: false,
            searching: false,
            retained: Retained::default(),
            bytes: 0,
            chunks: 0,
            next_sequence: 0,
        }
    }

    /// Takes the bytes that follow. What they complete is in [`Self::capture`]; a chunk whose end has
    /// not come yet waits for it.
    ///
    /// # Errors
    /// The bytes are no capture, or one of a later version; there is no use in going on.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), ReadError> {
        self.bytes = self.bytes.saturating_add(bytes.len());
        if self.kept.is_empty() {
            let taken = self.take(bytes)?;
            self.kept.extend_from_slice(bytes.get(taken..).unwrap_or_default());
            return Ok(());
        }
        let mut kept = std::mem::take(&mut self.kept);
        kept.extend_from_slice(bytes);
        let taken = self.take(&kept)?;
        kept.drain(..taken);
        if kept.len() < KEPT_BYTES {
            kept.shrink_to(KEPT_BYTES);
        }
        self.kept = kept;
        Ok(())
    }

    /// What has been read so far. Its `read` says nothing about bytes that still wait for their
    /// chunk's end: that may be about to come.
    #[must_use]
    pub fn capture(&self) -> &Capture {
        &self.assembly.capture
    }

    /// Chunks that have been read.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    /// No bytes will follow.
    ///
    /// # Errors
    /// Nothing in the bytes can be read.
    pub fn finish(mut self) -> Result<Capture, ReadError> {
        if !self.begun {
            return Err(ReadError::NotACapture);
        }
        if self.chunks == 0 {
            return Err(ReadError::Empty { bytes: self.bytes });
        }
        let report = &mut self.assembly.capture.read;
        report.damaged_bytes += self.kept.len() as u64;
        report.torn_tail |= !self.kept.is_empty() && !self.searching;
        Ok(self.assembly.capture)
    }

    /// Takes all that is whole, and gives how many bytes that are.
    fn take(&mut self, bytes: &[u8]) -> Result<usize, ReadError> {
        let mut at = 0;
        if !self.begun {
            if bytes.len() < FILE_HEADER_BYTES {
                let may_be = MAGIC.starts_with(bytes) || bytes.starts_with(&MAGIC);
                return if may_be { Ok(0) } else { Err(ReadError::NotACapture) };
            }
            self.begin(bytes)?;
            at = FILE_HEADER_BYTES;
        }
        while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= CHUNK_HEADER_BYTES) {
            let Some(header) = self.header(rest) else {
                let skipped = self.next_header(rest);
                // A header may begin in the last bytes, and end in those that come next.
                let skipped = skipped.unwrap_or(rest.len() - CHUNK_HEADER_BYTES + 1);
                self.assembly.capture.read.damaged_bytes += skipped as u64;
                self.searching = true;
                at += skipped;
                continue;
            };
            self.searching = false;
            let body = CHUNK_HEADER_BYTES..CHUNK_HEADER_BYTES + header.stored_len as usize;
            let Some(stored) = rest.get(body.clone()) else { break };
            let missing = header.sequence.saturating_sub(self.next_sequence);
            self.assembly.capture.read.missing_chunks += u64::from(missing);
            self.next_sequence = header.sequence.saturating_add(1);
            self.chunks += 1;
            at += body.end;
            if self.assembly.chunk(&header, stored).is_none() {
                self.assembly.capture.read.damaged_chunks += 1;
            }
        }
        Ok(at)
    }

    fn begin(&mut self, bytes: &[u8]) -> Result<(), ReadError> {
        let version = file_version(bytes).ok_or(ReadError::NotACapture)?;
        let intact = file_header_intact(bytes);
        if intact && version > FORMAT_VERSION {
            return Err(ReadError::TooNew { found: version, known: FORMAT_VERSION });
        }
        if !intact {
            self.assembly.capture.read.damaged_bytes += FILE_HEADER_BYTES as u64;
        }
        self.begun = true;
        Ok(())
    }

    /// The header that starts at the first byte. One of a payload that no writer makes is damage:
    /// nobody shall wait, and keep memory, for four gigabytes that a few bytes announce.
    fn header(&self, bytes: &[u8]) -> Option<ChunkHeader> {
        let limit = self.limits.chunk_bytes;
        ChunkHeader::decode(bytes).filter(|header| header.stored_len as usize <= limit)
    }

    /// Distance to the next intact chunk header, not counting the first byte.
    fn next_header(&self, bytes: &[u8]) -> Option<usize> {
        (1..bytes.len().checked_sub(CHUNK_HEADER_BYTES)? + 1).find(|&at| {
            bytes
                .get(at..)
                .is_some_and(|rest| rest.starts_with(&SYNC) && self.header(rest).is_some())
        })
    }
}
