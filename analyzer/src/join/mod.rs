//! Samples put together to what the user's program did. A join knows events by name and arguments by
//! name, never by position, and nothing of how its result is shown.

pub mod errno;
pub mod flags;
pub mod folders;
mod giving;
mod handles;
pub mod joining;
pub mod operations;
mod outside;
mod part;
pub mod pool;
pub mod syscalls;
pub mod sysno;
