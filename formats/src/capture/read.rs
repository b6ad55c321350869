//! Reads a capture from any bytes: steps over damage, follows the tables' epochs, and never trusts
//! an index or a length.

use std::collections::HashMap;

use foldhash::quality::RandomState;

use super::chunk::{
    CHUNK_HEADER_BYTES, ChunkHeader, ChunkKind, FILE_HEADER_BYTES, FORMAT_VERSION, MAGIC, SYNC,
    file_header_intact, file_version,
};
use super::contents::{Capture, Samples};
use super::encoding::{Corrupt, Decoder};
use super::model::{Frame, Marker};
use super::sections::{self, Row, tag};
use crate::limits::Limits;

/// More rows than this cannot be missing between two chunks: an index beyond is damage.
const MAX_GAP: usize = 1 << 20;

/// Why bytes cannot be read as a capture at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The first bytes are something else.
    #[error("not a capture: the file does not begin with the mark of an nrec capture")]
    NotACapture,
    /// The file ends before its first chunk.
    #[error("the capture is empty: {bytes} bytes, no readable chunk")]
    Empty {
        /// Length of the file.
        bytes: usize,
    },
    /// Written by a later version.
    #[error("capture format version {found} is newer than {known}, the newest this program reads")]
    TooNew {
        /// Version in the file.
        found: u16,
        /// Newest version known here.
        known: u16,
    },
}

/// Whether these first bytes belong to a capture.
#[must_use]
pub fn is_capture(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// Reads a whole capture.
///
/// # Errors
/// Only where nothing can be read; damage inside is told in [`Capture::read`].
pub fn read(bytes: &[u8], limits: &Limits) -> Result<Capture, ReadError> {
    let version = file_version(bytes).ok_or(ReadError::NotACapture)?;
    if file_header_intact(bytes) && version > FORMAT_VERSION {
        return Err(ReadError::TooNew { found: version, known: FORMAT_VERSION });
    }
    let mut reader = Reader::new(limits);
    if !file_header_intact(bytes) {
        reader.capture.read.damaged_bytes += FILE_HEADER_BYTES as u64;
    }
    let mut at = FILE_HEADER_BYTES;
    let mut next_sequence = 0u32;
    let mut chunks = 0u64;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(header) = ChunkHeader::decode(rest) else {
            let skipped = next_header(rest);
            let report = &mut reader.capture.read;
            if skipped.is_none() && rest.len() < CHUNK_HEADER_BYTES {
                report.torn_tail = true;
            }
            let skipped = skipped.unwrap_or(rest.len());
            report.damaged_bytes += skipped as u64;
            at += skipped;
            continue;
        };
        reader.capture.read.missing_chunks +=
            u64::from(header.sequence.saturating_sub(next_sequence));
        next_sequence = header.sequence.saturating_add(1);
        let body = CHUNK_HEADER_BYTES..CHUNK_HEADER_BYTES + header.stored_len as usize;
        let Some(stored) = rest.get(body.clone()) else {
            // The length is vouched for by the header's checksum: the file ends in this chunk.
            reader.capture.read.torn_tail = true;
            reader.capture.read.damaged_bytes += rest.len() as u64;
            break;
        };
        at += body.end;
        chunks += 1;
        if reader.chunk(&header, stored).is_none() {
            reader.capture.read.damaged_chunks += 1;
        }
    }
    if chunks == 0 {
        return Err(ReadError::Empty { bytes: bytes.len() });
    }
    Ok(reader.capture)
}

/// Distance to the next intact chunk header, not counting the first byte.
fn next_header(bytes: &[u8]) -> Option<usize> {
    (1..bytes.len().checked_sub(CHUNK_HEADER_BYTES)? + 1).find(|&at| {
        bytes
            .get(at..)
            .is_some_and(|rest| rest.starts_with(&SYNC) && ChunkHeader::decode(rest).is_some())
    })
}

/// Global indexes of the current epoch's local ones.
#[derive(Debug, Default)]
struct Epoch {
    number: u64,
    strings: Vec<u32>,
    frames: Vec<u32>,
    stacks: Vec<u32>,
}

struct Reader<'l> {
    limits: &'l Limits,
    capture: Capture,
    epoch: Epoch,
    strings: HashMap<Box<[u8]>, u32, RandomState>,
    frames: HashMap<Frame, u32, RandomState>,
    stacks: HashMap<(u32, u32), u32, RandomState>,
    total_samples: usize,
}

impl<'l> Reader<'l> {
    fn new(limits: &'l Limits) -> Self {
        let capture =
            Capture { strings: vec![Box::default()], stacks: vec![(0, 0)], ..Capture::default() };
        let mut reader = Self {
            limits,
            capture,
            epoch: Epoch::default(),
            strings: HashMap::default(),
            frames: HashMap::default(),
            stacks: HashMap::default(),
            total_samples: 0,
        };
        reader.start_epoch(0);
        reader
    }

    fn start_epoch(&mut self, number: u64) {
        // Local index 0 of strings and stacks is "none" in every epoch.
        self.epoch = Epoch { number, strings: vec![0], frames: Vec::new(), stacks: vec![0] };
    }

    /// `None` when the chunk is damaged.
    fn chunk(&mut self, header: &ChunkHeader, stored: &[u8]) -> Option<()> {
        if crc32c::crc32c(stored) != header.payload_crc
            || header.raw_len as usize > self.limits.chunk_bytes
        {
            return None;
        }
        let unpacked;
        let payload = if header.compressed {
            unpacked = zstd::bulk::decompress(stored, header.raw_len as usize).ok()?;
            unpacked.as_slice()
        } else {
            stored
        };
        match header.kind {
            ChunkKind::META => self.capture.meta = serde_json::from_slice(payload).ok()?,
            ChunkKind::END => {
                self.capture.end = Some(serde_json::from_slice(payload).ok()?);
                self.capture.read.ended = true;
            }
            ChunkKind::DATA => return self.data(payload).ok(),
            _ => self.capture.read.unknown_chunks += 1,
        }
        Some(())
    }

    fn data(&mut self, payload: &[u8]) -> Result<(), Corrupt> {
        let mut from = Decoder::new(payload);
        let epoch = from.uint()?;
        let base_time = from.uint()?;
        if epoch != self.epoch.number {
            self.start_epoch(epoch);
        }
        while from.remaining() > 0 {
            let tag = from.uint()?;
            let body = from.string(self.limits.chunk_bytes)?;
            if self.section(tag, body, base_time).is_err() {
                self.capture.read.damaged_sections += 1;
            }
        }
        Ok(())
    }

    fn section(&mut self, tag: u64, body: &[u8], base_time: u64) -> Result<(), Corrupt> {
        let limits = self.limits;
        let capture = &mut self.capture;
        match tag {
            tag::OBJECTS => append(&mut capture.objects, body, limits)?,
            tag::PROCESSES => append(&mut capture.processes, body, limits)?,
            tag::THREADS => append(&mut capture.threads, body, limits)?,
            tag::MAPPINGS => append(&mut capture.mappings, body, limits)?,
            tag::SCRIPTS => append(&mut capture.scripts, body, limits)?,
            tag::LINE_ENDS => append(&mut capture.line_ends, body, limits)?,
            tag::FUNCTIONS => append(&mut capture.functions, body, limits)?,
            tag::SYMBOLS => append(&mut capture.symbols, body, limits)?,
            tag::LOSSES => append(&mut capture.losses, body, limits)?,
            tag::ENDS => append(&mut capture.ends, body, limits)?,
            tag::EVENTS => capture.events.push(json(body)?),
            tag::REMARKS => capture.remarks.push(json(body)?),
            tag::JIT => capture.jit.push(sections::read_jit(body, limits)?),
            tag::STRINGS => self.strings(body)?,
            tag::FRAMES => self.frames(body)?,
            tag::STACKS => self.stacks(body)?,
            tag::SAMPLES => self.samples(body, base_time)?,
            _ => capture.read.unknown_sections += 1,
        }
        Ok(())
    }

    fn strings(&mut self, body: &[u8]) -> Result<(), Corrupt> {
        let (first, rows) = sections::read_rows::<Box<[u8]>>(body, self.limits)?;
        // The writer counts strings from 1.
        fill(&mut self.epoch.strings, first + 1, 0)?;
        for row in rows {
            let next = self.capture.strings.len() as u32;
            let global = *self.strings.entry(row).or_insert_with_key(|key| {
                self.capture.strings.push(key.clone());
                next
            });
            self.epoch.strings.push(global);
        }
        Ok(())
    }

    fn frames(&mut self, body: &[u8]) -> Result<(), Corrupt> {
        let (first, rows) = sections::read_rows::<Frame>(body, self.limits)?;
        let damaged = self.frame(Frame::Marker(Marker::DAMAGED));
        fill(&mut self.epoch.frames, first, damaged)?;
        for row in rows {
            let global = self.frame(row);
            self.epoch.frames.push(global);
        }
        Ok(())
    }

    fn stacks(&mut self, body: &[u8]) -> Result<(), Corrupt> {
        let (first, rows) = sections::read_rows::<(u32, u32)>(body, self.limits)?;
        let damaged_frame = self.frame(Frame::Marker(Marker::DAMAGED));
        let damaged = self.stack(0, damaged_frame);
        fill(&mut self.epoch.stacks, first + 1, damaged)?;
        for (parent, frame) in rows {
            let parent = self.epoch.stacks.get(parent as usize).copied().unwrap_or(damaged);
            let frame = self.epoch.frames.get(frame as usize).copied().unwrap_or(damaged_frame);
            let global = self.stack(parent, frame);
            self.epoch.stacks.push(global);
        }
        Ok(())
    }

    fn frame(&mut self, frame: Frame) -> u32 {
        let next = self.capture.frames.len() as u32;
        *self.frames.entry(frame).or_insert_with(|| {
            self.capture.frames.push(frame);
            next
        })
    }

    fn stack(&mut self, parent: u32, frame: u32) -> u32 {
        let next = self.capture.stacks.len() as u32;
        *self.stacks.entry((parent, frame)).or_insert_with(|| {
            self.capture.stacks.push((parent, frame));
            next
        })
    }

    fn samples(&mut self, body: &[u8], base_time: u64) -> Result<(), Corrupt> {
        let mut from = Decoder::new(body);
        let event = from.u32()?;
        let count = from.count()?;
        let fields = from.count()?;
        self.total_samples = self.total_samples.saturating_add(count);
        if self.total_samples > self.limits.samples {
            return Err(from.corrupt("samples over the limit"));
        }
        let limit = self.limits.chunk_bytes;
        let time_ns = column(from.string(limit)?, count, base_time)?;
        let mut thread = column(from.string(limit)?, count, 0)?;
        let mut stack = column(from.string(limit)?, count, 0)?;
        let is_string = |field: usize| {
            use super::model::FieldType::{Bytes, String};
            self.capture
                .event(event)
                .and_then(|def| def.fields.get(field))
                .is_some_and(|def| matches!(def.kind, String | Bytes))
        };
        let mut columns = Vec::with_capacity(fields);
        for field in 0..fields {
            let mut values = column(from.string(limit)?, count, 0)?;
            if is_string(field) {
                for value in &mut values {
                    *value = global(&self.epoch.strings, *value).map_or(0, u64::from);
                }
            }
            columns.push(values);
        }
        let damaged_frame = self.frame(Frame::Marker(Marker::DAMAGED));
        let damaged = self.stack(0, damaged_frame);
        let into = match self.capture.samples.iter().position(|s| s.event == event) {
            Some(at) => at,
            None => {
                self.capture.samples.push(Samples { event, ..Samples::default() });
                self.capture.samples.len() - 1
            }
        };
        let Some(into) = self.capture.samples.get_mut(into) else { return Ok(()) };
        // A chunk with another number of arguments than the first is damage; columns stay equal.
        if into.is_empty() {
            into.fields = vec![Vec::new(); fields];
        } else if into.fields.len() != fields {
            return Err(from.corrupt("number of arguments changed"));
        }
        into.time_ns.extend(time_ns);
        into.thread.extend(thread.drain(..).map(|v| u32::try_from(v).unwrap_or(u32::MAX)));
        let stacks = &self.epoch.stacks;
        into.stack.extend(stack.drain(..).map(|v| global(stacks, v).unwrap_or(damaged)));
        for (into, column) in into.fields.iter_mut().zip(columns) {
            into.extend(column);
        }
        Ok(())
    }
}

fn global(table: &[u32], local: u64) -> Option<u32> {
    usize::try_from(local).ok().and_then(|local| table.get(local)).copied()
}

fn column(bytes: &[u8], count: usize, base: u64) -> Result<Vec<u64>, Corrupt> {
    let mut from = Decoder::new(bytes);
    if count > from.remaining() {
        return Err(from.corrupt("column ends early"));
    }
    let mut last = base;
    (0..count).map(|_row| from.delta(&mut last)).collect()
}

/// Brings a table to `first` entries where a chunk before is missing.
fn fill<T: Clone>(table: &mut Vec<T>, first: usize, missing: T) -> Result<(), Corrupt> {
    let gap = first.checked_sub(table.len()).filter(|&gap| gap <= MAX_GAP);
    let Some(gap) = gap else {
        return Err(Corrupt { what: "table index out of range", at: 0 });
    };
    table.extend(std::iter::repeat_n(missing, gap));
    Ok(())
}

fn append<R: Row + Default + Clone>(
    table: &mut Vec<R>,
    body: &[u8],
    limits: &Limits,
) -> Result<(), Corrupt> {
    let (first, rows) = sections::read_rows::<R>(body, limits)?;
    fill(table, first, R::default())?;
    table.extend(rows);
    Ok(())
}

fn json<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Corrupt> {
    serde_json::from_slice(body).map_err(|_syntax| Corrupt { what: "JSON is damaged", at: 0 })
}
