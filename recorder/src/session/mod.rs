//! One recording from the first descriptor to the last chunk.
//!
//! ```text
//! start    decides what is armed and opens it          javascript, arm, attrs, syscalls, budget, output
//! run      one poll loop: wait, drain, flush, stop     drain, pace, sink, status, summary
//! ingest   ordered records -> world, stacks, capture   decoder, world, heap, stacks, hits, naming
//! ```

pub mod arm;
mod armed;
pub mod attrs;
pub mod budget;
pub mod decoder;
pub mod define;
pub mod drain;
pub mod error;
pub mod heap;
pub mod hits;
pub mod ingest;
pub mod javascript;
pub mod life;
pub mod naming;
pub mod output;
pub mod pace;
pub mod run;
mod single;
pub mod sink;
pub mod stacks;
pub mod start;
pub mod status;
pub mod summary;
pub mod syscalls;
pub mod world;

pub use error::RecordError;
pub use run::NOT_READ;
pub use start::{record, record_for};
pub use summary::{StopReason, Summary};
