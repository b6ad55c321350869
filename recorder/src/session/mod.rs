//! One recording from the first descriptor to the last chunk.
//!
//! ```text
//! start    decides what is armed and opens it          arm, budget, output
//! run      one poll loop: wait, drain, flush, stop     drain, status
//! ingest   ordered records -> world, stacks, capture   world, stacks, naming
//! ```

pub mod arm;
pub mod attrs;
pub mod budget;
pub mod drain;
pub mod error;
pub mod heap;
pub mod hits;
pub mod ingest;
pub mod javascript;
pub mod naming;
pub mod output;
pub mod pace;
pub mod run;
pub mod stacks;
pub mod start;
pub mod status;
pub mod world;

pub use error::RecordError;
pub use run::{StopReason, Summary};
pub use start::record;
