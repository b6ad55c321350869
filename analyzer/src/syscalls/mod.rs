//! The `syscalls` command: which system calls took the time, which failed and for whom, which were
//! slow. What `strace -c` and `syscount -x` tell, and who asked. It must not compute anything but what
//! [`SyscallsReport`] holds; how it is shown is the business of [`text`] and [`json`].

pub mod json;
pub mod text;

#[cfg(test)]
mod tests;

use formats::capture::Capture;

use crate::aggregate::losses;
use crate::aggregate::syscalls::{self, CallFilter, Counted};
use crate::join;
use crate::profile::Profile;
use crate::source_map::Originals;
use crate::symbolise::Symboliser;

/// Everything that the command shows.
#[derive(Debug)]
pub struct SyscallsReport<'c> {
    /// The capture.
    pub capture: &'c Capture,
    /// Its stacks.
    pub profile: Profile,
    /// Which calls were asked for.
    pub filter: CallFilter,
    /// Those calls.
    pub counted: Counted<'c>,
    /// All calls of the capture.
    pub calls: u64,
    /// Of these, those that failed.
    pub failed: u64,
    /// Exits without an entry.
    pub exits_alone: u64,
    /// What makes the capture incomplete.
    pub problems: Vec<String>,
}

/// There is nothing to tell.
#[derive(Debug, thiserror::Error)]
#[error(
    "no system calls in the capture: it needs nrec record -e syscalls (beside -e fs only those of pool \
     threads are recorded)"
)]
pub struct NoSyscalls;

impl<'c> SyscallsReport<'c> {
    /// Gathers it; `slowest` bounds the list of slow calls.
    ///
    /// # Errors
    /// System calls were not recorded.
    pub fn new(
        capture: &'c Capture,
        (filter, slowest): (CallFilter, usize),
        originals: &Originals,
    ) -> Result<Self, NoSyscalls> {
        if !join::syscalls::are_recorded(capture) {
            return Err(NoSyscalls);
        }
        let operations = join::operations::join(capture);
        let mut found = join::syscalls::join(capture);
        join::syscalls::attribute(&mut found.calls, &operations);
        let mut symboliser = Symboliser::new(capture, originals);
        let bounds = (filter, slowest);
        let counted = syscalls::count(capture, &found, &operations, &mut symboliser, bounds);
        Ok(Self {
            capture,
            profile: symboliser.into_profile(),
            filter,
            counted,
            calls: found.calls.len() as u64,
            failed: found.calls.iter().filter(|call| call.failed()).count() as u64,
            exits_alone: found.exits_alone,
            problems: losses::problems(capture),
        })
    }

    /// Recorded time in nanoseconds.
    #[must_use]
    pub fn duration_ns(&self) -> u64 {
        self.capture.end_ns().saturating_sub(self.capture.meta.start_ns)
    }
}
