//! Every byte and text format that the recorder and the analyzer share.
//!
//! Pure: nothing here opens a file, reads a clock, starts a thread or knows of a process. Every
//! reader takes [`limits::Limits`] and survives any bytes. The one contact between `nrec` and
//! `nanalyze` is the capture file, [`capture`].

pub mod capture;
pub mod catalogue;
pub mod demangle;
pub mod duration;
pub mod elf;
pub mod kallsyms;
pub mod limits;
pub mod perfmap;
pub mod probe;
pub mod procmaps;
pub mod space;
pub mod syscalls;
pub mod text;
pub mod tracepoint;
pub mod wildcard;
