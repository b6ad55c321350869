//! `nrec`: records what a process does, with the kernel's own means, into a capture file.
//!
//! `cli` reads arguments, `plan` is what they mean, `session` records, `probe` finds places,
//! `list` says what can be probed,
//! `process` knows processes, `tracefs` makes dynamic events, `v8` reads JavaScript stacks from
//! the heap of a running V8, and `sys` alone talks to the kernel in ways that the compiler cannot check.

// Kernel ids are i32 in one interface and u32 in the next, and counts of things in memory fit 32
// bits; each cast here is between such forms.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "pid, tid and index conversions between the kernel's own forms"
)]

pub mod cli;
pub mod doctor;
pub mod list;
pub mod plan;
pub mod probe;
pub mod process;
pub mod session;
#[expect(unsafe_code, reason = "the kernel boundary; every block says why it is valid")]
pub mod sys;
pub mod tracefs;
pub mod unwind;
pub mod v8;
