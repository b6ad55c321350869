//! Builds a [`Capture`] out of chunks: follows the tables' epochs, and never trusts an index or a
//! length. Where chunks begin and end is known to [`super::reader`].

use std::collections::HashMap;

use foldhash::quality::RandomState;

use super::chunk::{ChunkHeader, ChunkKind, MAGIC};
use super::contents::{Capture, Samples};
use super::encoding::{Corrupt, Decoder};
use super::model::{Frame, Marker};
use super::reader::CaptureReader;
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
    let mut reader = CaptureReader::new(limits);
    reader.feed(bytes)?;
    reader.finish()
}

/// Global indexes of the current epoch's local ones.
#[derive(Debug, Default)]
pub(super) struct Epoch {
    number: u64,
    pub(super) strings: Vec<u32>,
    pub(super) frames: Vec<u32>,
    pub(super) stacks: Vec<u32>,
}

/// How many of their first rows tables have given up: later rows count from there.
#[derive(Debug, Default)]
pub(super) struct Gone {
    pub(super) mappings: usize,
    pub(super) ends: usize,
    pub(super) losses: usize,
    pub(super) symbols: usize,
    pub(super) line_ends: usize,
}

/// A capture on its way out of its chunks.
pub(super) struct Assembly {
    limits: Limits,
    pub(super) capture: Capture,
    pub(super) epoch: Epoch,
    pub(super) strings: HashMap<Box<[u8]>, u32, RandomState>,
    pub(super) frames: HashMap<Frame, u32, RandomState>,
    pub(super) stacks: HashMap<(u32, u32), u32, RandomState>,
    /// Samples that the capture holds.
    pub(super) samples: usize,
    /// Rows that the capture holds no more.
    pub(super) gone: Gone,
    /// The tables hold strings, frames and stacks of an epoch that is over.
    pub(super) outlived: bool,
}

impl Assembly {
    pub(super) fn new(limits: Limits) -> Self {
        let capture =
            Capture { strings: vec![Box::default()], stacks: vec![(0, 0)], ..Capture::default() };
        let mut assembly = Self {
            limits,
            capture,
            epoch: Epoch::default(),
            strings: HashMap::default(),
            frames: HashMap::default(),
            stacks: HashMap::default(),
            samples: 0,
            gone: Gone::default(),
            outlived: false,
        };
        assembly.start_epoch(0);
        assembly
    }

    fn start_epoch(&mut self, number: u64) {
        // Local index 0 of strings and stacks is "none" in every epoch.
        self.epoch = Epoch { number, strings: vec![0], frames: Vec::new(), stacks: vec![0] };
    }

    /// `None` when the chunk is damaged.
    pub(super) fn chunk(&mut self, header: &ChunkHeader, stored: &[u8]) -> Option<()> {
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
            self.outlived = true;
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
        let limits = &self.limits;
        let capture = &mut self.capture;
        let gone = &self.gone;
        match tag {
            tag::OBJECTS => append(&mut capture.objects, 0, body, limits)?,
            tag::PROCESSES => append(&mut capture.processes, 0, body, limits)?,
            tag::THREADS => append(&mut capture.threads, 0, body, limits)?,
            tag::HOLDINGS => append(&mut capture.holdings, 0, body, limits)?,
            tag::MAPPINGS => append(&mut capture.mappings, gone.mappings, body, limits)?,
            tag::SCRIPTS => append(&mut capture.scripts, 0, body, limits)?,
            tag::LINE_ENDS => append(&mut capture.line_ends, gone.line_ends, body, limits)?,
            tag::FUNCTIONS => append(&mut capture.functions, 0, body, limits)?,
            tag::SYMBOLS => append(&mut capture.symbols, gone.symbols, body, limits)?,
            tag::LOSSES => append(&mut capture.losses, gone.losses, body, limits)?,
            tag::ENDS => append(&mut capture.ends, gone.ends, body, limits)?,
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
        let (first, rows) = sections::read_rows::<Box<[u8]>>(body, 0, &self.limits)?;
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
        let (first, rows) = sections::read_rows::<Frame>(body, 0, &self.limits)?;
        let damaged = self.frame(Frame::Marker(Marker::DAMAGED));
        fill(&mut self.epoch.frames, first, damaged)?;
        for row in rows {
            let global = self.frame(row);
            self.epoch.frames.push(global);
        }
        Ok(())
    }

    fn stacks(&mut self, body: &[u8]) -> Result<(), Corrupt> {
        let (first, rows) = sections::read_rows::<(u32, u32)>(body, 0, &self.limits)?;
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
        self.samples = self.samples.saturating_add(count);
        if self.samples > self.limits.samples {
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

/// Adds rows to a table that has given up its first `gone`.
fn append<R: Row + Default + Clone>(
    table: &mut Vec<R>,
    gone: usize,
    body: &[u8],
    limits: &Limits,
) -> Result<(), Corrupt> {
    let (first, rows) = sections::read_rows::<R>(body, gone, limits)?;
    fill(table, first, R::default())?;
    table.extend(rows);
    Ok(())
}

fn json<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Corrupt> {
    serde_json::from_slice(body).map_err(|_syntax| Corrupt { what: "JSON is damaged", at: 0 })
}
