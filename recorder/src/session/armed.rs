//! Perf events that have been asked of the kernel, and the probes among them whose stacks are taken as
//! often as their rate allows.

use std::ops::Range;

use super::decoder::{Decoder, Role};
use super::pace::Pace;
use crate::sys::attr::EventAttr;
use crate::sys::perf::PerfFd;
use crate::sys::perf_error::PerfError;
use crate::tracefs::DynamicEvent;

/// One event that has been asked of the kernel, with all its descriptors.
#[derive(Debug)]
pub(super) struct Armed {
    pub(super) attr: EventAttr,
    pub(super) filter: Option<&'static str>,
    pub(super) decoder: Option<Decoder>,
    pub(super) fds: Vec<PerfFd>,
    pub(super) lost: u64,
    /// Whether it counts now.
    pub(super) enabled: bool,
    /// Closed after the descriptors: the kernel does not remove an event that is in use.
    pub(super) dynamic: Option<DynamicEvent>,
}

impl Armed {
    /// Whether it counts while its probe is hot, or is not.
    pub(super) fn counts_when(&self, hot: bool) -> bool {
        self.decoder.as_ref().is_none_or(|decoder| (decoder.role == Role::Each) != hot)
    }

    /// Switches all descriptors, and with each what its task's children inherited.
    pub(super) fn switch(&mut self, on: bool) -> Result<(), PerfError> {
        self.enabled = on;
        for fd in &self.fds {
            fd.switch(on)?;
        }
        Ok(())
    }
}

/// A probe whose stacks are taken as its rate allows, with its range among the armed events.
#[derive(Debug)]
pub(super) struct Paced {
    pub(super) event: u32,
    pub(super) armed: Range<usize>,
    pub(super) pace: Pace,
}
