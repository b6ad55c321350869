//! Appends a capture: interns, collects columns, and writes one data chunk a flush.
//!
//! Memory is bounded by [`TableLimits`] and by [`CaptureWriter::wants_flush`]; nothing is kept of
//! what has been written but the tables of the current epoch.

use std::io::{self, Write};

use super::chunk::{ChunkHeader, ChunkKind, file_header};
use super::encoding::Encoder;
use super::model::{
    End, EventDef, Frame, Function, Holding, JitBatch, LineEnds, Loss, Mapping, Meta, Object,
    Process, ProcessEnd, Remark, Script, Symbol, Thread,
};
use super::sections::{self, tag};
use super::tables::{StackId, TableLimits, Tables};
use crate::limits::Limits;

/// Level at which chunks are compressed: the columns are small, so speed matters little here.
const ZSTD_LEVEL: i32 = 3;
/// Unwritten bytes of samples at which a flush is due before its time.
const FLUSH_BYTES: usize = 1 << 20;

/// An argument of a sample on its way into the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValue<'a> {
    /// An integer; signed ones sign-extended.
    Int(u64),
    /// A string or an array's bytes.
    Bytes(&'a [u8]),
    /// The kernel could not read it.
    Missing,
}

/// What has been written so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteStats {
    /// Bytes of the file.
    pub bytes: u64,
    /// Samples in it.
    pub samples: u64,
    /// Chunks in it.
    pub chunks: u32,
    /// How often the tables were full and began anew.
    pub epochs: u32,
}

/// Columns of one event since the last flush. Each column is its own encoder, so that like stands
/// beside like when the chunk is compressed.
#[derive(Debug, Default)]
struct Columns {
    event: u32,
    count: u64,
    time: Encoder,
    thread: Encoder,
    stack: Encoder,
    fields: Vec<(Encoder, u64)>,
    last: (u64, u64, u64),
}

/// Rows that wait for the next flush; each table counts the rows already written.
#[derive(Debug, Default)]
struct Pending<R> {
    rows: Vec<R>,
    written: u64,
}

impl<R: sections::Row> Pending<R> {
    fn push(&mut self, row: R) -> u32 {
        self.rows.push(row);
        (self.written + self.rows.len() as u64 - 1) as u32
    }

    fn put(&mut self, to: &mut Encoder, tag: u64) {
        sections::rows(to, tag, self.written, &self.rows);
        self.written += self.rows.len() as u64;
        self.rows.clear();
    }
}

/// Writes a capture to `W`, chunk by chunk.
pub struct CaptureWriter<W> {
    out: W,
    compressor: zstd::bulk::Compressor<'static>,
    limits: TableLimits,
    tables: Tables,
    epoch: u32,
    columns: Vec<Columns>,
    objects: Pending<Object>,
    processes: Pending<Process>,
    threads: Pending<Thread>,
    ends: Pending<ProcessEnd>,
    holdings: Pending<Holding>,
    mappings: Pending<Mapping>,
    symbols: Pending<Symbol>,
    functions: Pending<Function>,
    scripts: Pending<Script>,
    line_ends: Pending<LineEnds>,
    losses: Pending<Loss>,
    jit: Encoder,
    json: Encoder,
    stats: WriteStats,
    base_time: u64,
}

impl<W> std::fmt::Debug for CaptureWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaptureWriter").field("stats", &self.stats).finish_non_exhaustive()
    }
}

impl<W: Write> CaptureWriter<W> {
    /// Writes the file header and the first chunk.
    ///
    /// # Errors
    /// What writing to `out` says.
    pub fn create(mut out: W, meta: &Meta, limits: TableLimits) -> io::Result<Self> {
        let header = file_header();
        out.write_all(&header)?;
        let mut writer = Self {
            out,
            compressor: zstd::bulk::Compressor::new(ZSTD_LEVEL)?,
            limits,
            tables: Tables::default(),
            epoch: 0,
            columns: Vec::new(),
            objects: Pending::default(),
            processes: Pending::default(),
            threads: Pending::default(),
            ends: Pending::default(),
            holdings: Pending::default(),
            mappings: Pending::default(),
            symbols: Pending::default(),
            functions: Pending::default(),
            scripts: Pending::default(),
            line_ends: Pending::default(),
            losses: Pending::default(),
            jit: Encoder::default(),
            json: Encoder::default(),
            stats: WriteStats { bytes: header.len() as u64, ..WriteStats::default() },
            base_time: meta.start_ns,
        };
        let json = serde_json::to_vec(meta)?;
        writer.chunk(ChunkKind::META, &json)?;
        writer.out.flush()?;
        Ok(writer)
    }

    /// Adds an object and returns its index.
    pub fn object(&mut self, object: Object) -> u32 {
        self.objects.push(object)
    }

    /// Adds a process image and returns its index.
    pub fn process(&mut self, process: Process) -> u32 {
        self.processes.push(process)
    }

    /// Adds a thread and returns its index.
    pub fn thread(&mut self, thread: Thread) -> u32 {
        self.threads.push(thread)
    }

    /// Adds what a process had before its operations were recorded.
    pub fn holding(&mut self, holding: Holding) {
        self.holdings.push(holding);
    }

    /// Adds a mapping.
    pub fn mapping(&mut self, mapping: Mapping) {
        self.mappings.push(mapping);
    }

    /// Says that a process image ended.
    pub fn process_end(&mut self, end: ProcessEnd) {
        self.ends.push(end);
    }

    /// Adds a symbol.
    pub fn symbol(&mut self, symbol: Symbol) {
        self.symbols.push(symbol);
    }

    /// Adds a JavaScript function and returns its index.
    pub fn function(&mut self, function: Function) -> u32 {
        self.functions.push(function)
    }

    /// Adds a JavaScript source and returns its index.
    pub fn script(&mut self, script: Script) -> u32 {
        self.scripts.push(script)
    }

    /// Says where the lines of a script end.
    pub fn line_ends(&mut self, lines: LineEnds) {
        self.line_ends.push(lines);
    }

    /// Adds losses.
    pub fn loss(&mut self, loss: Loss) {
        self.losses.push(loss);
    }

    /// Adds what a JIT map gained.
    pub fn jit(&mut self, batch: &JitBatch) {
        sections::jit(&mut self.jit, batch);
    }

    /// Defines an event.
    ///
    /// # Errors
    /// Never in practice; JSON of plain strings cannot fail.
    pub fn event(&mut self, event: &EventDef) -> io::Result<()> {
        self.json_section(tag::EVENTS, event)
    }

    /// Adds a remark.
    ///
    /// # Errors
    /// As [`Self::event`].
    pub fn remark(&mut self, remark: &Remark) -> io::Result<()> {
        self.json_section(tag::REMARKS, remark)
    }

    fn json_section<T: serde::Serialize>(&mut self, tag: u64, value: &T) -> io::Result<()> {
        self.json.uint(tag);
        self.json.string(&serde_json::to_vec(value)?);
        Ok(())
    }

    /// The stack that has `frame` called by `parent`. Stacks are built from the root to the leaf.
    pub fn stack(&mut self, parent: StackId, frame: Frame) -> StackId {
        self.tables.push(parent, frame)
    }

    /// Number of the current epoch: a [`StackId`] is good only within the epoch that made it.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Adds a sample.
    pub fn sample(
        &mut self,
        event: u32,
        time_ns: u64,
        thread: u32,
        stack: StackId,
        fields: &[FieldValue<'_>],
    ) {
        let at = match self.columns.iter().position(|c| c.event == event) {
            Some(at) => at,
            None => {
                let last = (self.base_time, 0, 0);
                let fields = fields.iter().map(|_field| (Encoder::default(), 0)).collect();
                self.columns.push(Columns { event, last, fields, ..Columns::default() });
                self.columns.len() - 1
            }
        };
        let Some(columns) = self.columns.get_mut(at) else { return };
        columns.count += 1;
        columns.time.delta(&mut columns.last.0, time_ns);
        columns.thread.delta(&mut columns.last.1, u64::from(thread));
        columns.stack.delta(&mut columns.last.2, u64::from(stack.0));
        for ((column, last), value) in columns.fields.iter_mut().zip(fields) {
            let word = match *value {
                FieldValue::Int(value) => value,
                FieldValue::Bytes(bytes) => u64::from(self.tables.string(bytes)),
                FieldValue::Missing => 0,
            };
            column.delta(last, word);
        }
        self.stats.samples += 1;
    }

    /// Whether so much waits that it should be written before the second is over.
    #[must_use]
    pub fn wants_flush(&self) -> bool {
        self.jit.len() > FLUSH_BYTES
            // A name is up to some kilobytes long.
            || self.functions.rows.len() + self.scripts.rows.len() > FLUSH_BYTES / 256
            || self.holdings.rows.iter().map(|row| row.target.len()).sum::<usize>() > FLUSH_BYTES
            || self.line_ends.rows.iter().map(|lines| lines.ends.len()).sum::<usize>() > FLUSH_BYTES
            || self.columns.iter().map(|c| c.count).sum::<u64>() > (FLUSH_BYTES / 16) as u64
            || self.tables.over(&self.limits)
    }

    /// Where it is written to, for what is no writing.
    pub fn output(&mut self) -> &mut W {
        &mut self.out
    }

    /// What has been written so far.
    #[must_use]
    pub fn stats(&self) -> WriteStats {
        self.stats
    }

    /// Writes all that waits as one chunk.
    ///
    /// # Errors
    /// What writing to the output says. The capture stays readable up to the chunk before.
    pub fn flush(&mut self) -> io::Result<()> {
        let mut payload = Encoder::default();
        payload.uint(u64::from(self.epoch));
        payload.uint(self.base_time);
        let head = payload.len();
        let (strings, frames, stacks) = self.tables.bases();
        self.objects.put(&mut payload, tag::OBJECTS);
        self.processes.put(&mut payload, tag::PROCESSES);
        self.threads.put(&mut payload, tag::THREADS);
        self.holdings.put(&mut payload, tag::HOLDINGS);
        self.mappings.put(&mut payload, tag::MAPPINGS);
        self.scripts.put(&mut payload, tag::SCRIPTS);
        self.functions.put(&mut payload, tag::FUNCTIONS);
        self.line_ends.put(&mut payload, tag::LINE_ENDS);
        payload.raw(self.json.bytes());
        payload.raw(self.jit.bytes());
        sections::rows(&mut payload, tag::STRINGS, strings, &self.tables.new_strings);
        sections::rows(&mut payload, tag::FRAMES, frames, &self.tables.new_frames);
        sections::rows(&mut payload, tag::STACKS, stacks, &self.tables.new_stacks);
        self.symbols.put(&mut payload, tag::SYMBOLS);
        self.losses.put(&mut payload, tag::LOSSES);
        self.ends.put(&mut payload, tag::ENDS);
        let mut newest = self.base_time;
        for columns in self.columns.drain(..) {
            newest = newest.max(columns.last.0);
            let mut body = Encoder::default();
            body.uint(u64::from(columns.event));
            body.uint(columns.count);
            body.uint(columns.fields.len() as u64);
            body.string(columns.time.bytes());
            body.string(columns.thread.bytes());
            body.string(columns.stack.bytes());
            for (column, _last) in &columns.fields {
                body.string(column.bytes());
            }
            sections::section(&mut payload, tag::SAMPLES, &body);
        }
        self.json.clear();
        self.jit.clear();
        self.tables.flushed();
        self.base_time = newest;
        if payload.len() > head {
            self.chunk(ChunkKind::DATA, payload.bytes())?;
        }
        if self.tables.over(&self.limits) {
            self.tables.reset();
            self.epoch += 1;
            self.stats.epochs = self.epoch;
        }
        self.out.flush()
    }

    /// Writes what waits and the last chunk.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub fn finish(mut self, end: &End) -> io::Result<(W, WriteStats)> {
        self.flush()?;
        let json = serde_json::to_vec(end)?;
        self.chunk(ChunkKind::END, &json)?;
        self.out.flush()?;
        Ok((self.out, self.stats))
    }

    fn chunk(&mut self, kind: ChunkKind, payload: &[u8]) -> io::Result<()> {
        let limit = Limits::default().chunk_bytes;
        if payload.len() > limit {
            // No reader would take it.
            let text = format!("a chunk of {} bytes is over the limit of {limit}", payload.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let packed = self.compressor.compress(payload)?;
        let compressed = packed.len() < payload.len();
        let stored = if compressed { packed.as_slice() } else { payload };
        let header = ChunkHeader {
            kind,
            compressed,
            sequence: self.stats.chunks,
            stored_len: stored.len() as u32,
            raw_len: payload.len() as u32,
            payload_crc: crc32c::crc32c(stored),
        };
        // One write a chunk: a kill between two writes would leave a header without its payload.
        let mut bytes = Vec::with_capacity(super::CHUNK_HEADER_BYTES + stored.len());
        bytes.extend_from_slice(&header.encode());
        bytes.extend_from_slice(stored);
        self.out.write_all(&bytes)?;
        self.stats.bytes += bytes.len() as u64;
        self.stats.chunks += 1;
        Ok(())
    }
}
