//! The capture file: appended only, self-describing, versioned. `docs/capture-format.md` is the
//! written form of what this module does; a change here changes that page and its history.
//!
//! A file is a 16-byte file header and then chunks. A chunk is the unit of loss: each has a sync
//! mark, a kind, lengths and two checksums, so that a reader can step over a damaged one and say
//! what is missing. A data chunk holds sections; each section names the first table index it
//! defines, hence a lost chunk never shifts the meaning of a later one.
//!
//! Invariants: the writer needs no seek; the reader accepts any bytes, within
//! [`Limits`](crate::limits::Limits); an unknown chunk kind or section tag is skipped and counted.

mod chunk;
mod contents;
mod encoding;
mod model;
mod read;
mod reader;
mod retain;
mod sections;
mod tables;
mod write;

#[cfg(test)]
mod growing_tests;
#[cfg(test)]
mod tests;

pub use chunk::{CHUNK_HEADER_BYTES, ChunkKind, FILE_HEADER_BYTES, FORMAT_VERSION, MAGIC};
pub use contents::{Capture, ReadReport, Samples};
pub use encoding::{Corrupt, Decoder, Encoder};
pub use model::*;
pub use read::{ReadError, is_capture, read};
pub use reader::CaptureReader;
pub use retain::Moved;
pub use tables::{StackId, TableLimits};
pub use write::{CaptureWriter, FieldValue, WriteStats};
