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
mod sample;
pub mod syscalls;
pub mod sysno;

use formats::capture::EventDef;

/// The set of file operations.
const FILES: &str = "fs";

/// Whether the samples of an event are told by the operations that they are parts of. So are system
/// calls that were only recorded to tell how long operations were in the kernel.
#[must_use]
pub fn is_part(event: &EventDef) -> bool {
    operations::is_part(event) || (event.set == FILES && syscalls::is_part(event))
}
