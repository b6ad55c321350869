//! `nanalyze`: reads a capture (or a perf.data) and says what happened. Everything behind the
//! binary's `main`.
//!
//! `run` -> `load` -> `symbolise` -> `join` -> `aggregate` -> `report`, `events`, `emit`. Nothing
//! here records, opens a perf event or touches tracefs; the only contact with the recorder is the
//! capture file. An output format sees finished results and a writer. Only `source_map` reads
//! files of the target, and only if it is asked to.

pub mod aggregate;
pub mod asked;
pub mod cli;
pub mod emit;
pub mod events;
pub mod graph;
pub mod import;
pub mod info;
pub mod join;
pub mod load;
pub mod plan;
pub mod profile;
pub mod reason;
pub mod report;
pub mod run;
pub mod source_map;
pub mod symbolise;
pub mod syscalls;

#[cfg(test)]
mod testing;
