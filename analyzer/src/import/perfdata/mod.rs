//! Import of `perf.data`, as `perf record` writes it: to a file, through a pipe, compressed or not.
//!
//! The crate `linux-perf-data` reads and sorts the records. It trusts the lengths in a file, so
//! nothing reaches it unchecked: `layout` reads the headers itself, and `gate` lets only records
//! through whose lengths hold. Samples are decoded in `sample`, because the crate's decoder
//! multiplies a length from the file before it checks it.
//!
//! A capture of ours holds everything; a `perf.data` file holds addresses only. Names are therefore
//! looked for on this machine (`symbols`, `kernel`, `jit`), and only in files whose identity
//! (build-id, owner) fits. What is missing becomes a remark of the capture, never an error.
//! It must not know how stacks are symbolised or shown. Tests: `tests.rs`, `tests/perf_script/`.

mod builder;
mod events;
mod files;
mod gate;
mod jit;
mod jitdump;
mod kernel;
mod layout;
mod meta;
mod remarks;
mod sample;
mod stacks;
mod symbols;
#[cfg(test)]
mod tests;
mod tracing;
mod world;

use std::path::Path;

use formats::capture::Capture;
use formats::limits::Limits;
use linux_perf_data::PerfFileReader;

/// Why a `perf.data` file cannot be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file cannot be opened.
    #[error("cannot open perf.data file {path}")]
    Open {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file cannot be read any further.
    #[error("cannot read perf.data file {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file says something that no `perf record` writes, or that we do not support.
    #[error("cannot read perf.data file {path}: {reason}")]
    Unusable {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The records cannot be separated from each other.
    #[error("cannot read the records of perf.data file {path}")]
    Records {
        /// The file.
        path: String,
        /// What the reader says.
        source: linux_perf_data::Error,
    },
}

/// Whether a file that begins with these bytes is a `perf.data` file.
#[must_use]
pub fn is_perf_data(start: &[u8]) -> bool {
    start.starts_with(layout::MAGIC) || start.starts_with(layout::MAGIC_BIG_ENDIAN)
}

/// Reads a `perf.data` file and whatever on this machine gives names to its addresses.
///
/// # Errors
/// [`ImportError`] when the file cannot be opened or is no usable `perf.data` file. A file that is cut
/// short or lacks parts is read as far as it goes; the capture says so.
pub fn load(path: &Path, limits: &Limits) -> Result<Capture, ImportError> {
    let shown = formats::text::clean_string(path.as_os_str().as_encoded_bytes(), 512);
    let source = |source| ImportError::Read { path: shown.clone(), source };
    let file = std::fs::File::open(path)
        .map_err(|source| ImportError::Open { path: shown.clone(), source })?;
    let layout = layout::Layout::read(&file, limits).map_err(|error| match error {
        layout::LayoutError::Read(e) => source(e),
        layout::LayoutError::Unusable(reason) => {
            ImportError::Unusable { path: shown.clone(), reason }
        }
    })?;
    let gate = gate::Gate::new(file, layout, limits).map_err(source)?;
    let shared = gate.shared();
    let records = |source| ImportError::Records { path: shown.clone(), source };
    let PerfFileReader { mut perf_file, mut record_iter } =
        PerfFileReader::parse_pipe(gate).map_err(records)?;
    let mut builder = builder::Builder::new(perf_file.event_attributes(), shared, limits);
    // A record that cannot be read ends the import, not the program: what came before is kept.
    loop {
        match record_iter.next_record(&mut perf_file) {
            Ok(Some(record)) => builder.record(&record),
            Ok(None) => break,
            Err(error) => {
                builder.broken(&error);
                break;
            }
        }
    }
    Ok(builder.finish())
}
