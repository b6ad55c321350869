//! Output formats, one a file. Each sees the finished profile and a writer, nothing else, and gives the
//! same bytes for the same input.

pub mod flamegraph;
