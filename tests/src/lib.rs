//! What the real-kernel tests and the task runner share: the built binaries, Node workloads, other
//! observers (`strace`), and the reading of our JSON.
//!
//! It knows the two binaries only by their command line and their output. It must not use the
//! product's crates: a test that compares our code with our code proves little.

pub mod accounts;
pub mod binaries;
pub mod call_sites;
pub mod capture;
pub mod command;
pub mod events;
pub mod foreign;
pub mod http;
pub mod kernel;
pub mod matrix;
pub mod nodes;
pub mod perf;
pub mod recording;
pub mod report;
pub mod schema;
pub mod scribble;
pub mod strace;
pub mod strace_calls;
pub mod strace_counts;
pub mod strace_log;
pub mod transcript;
pub mod truth;
pub mod workload;
