//! Perf events that have been asked of the kernel, and the probes among them whose stacks are taken as
//! often as their rate allows.

use std::borrow::Cow;
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
    pub(super) filter: Option<Cow<'static, str>>,
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

    /// Switches all descriptors, and with each what its task's children inherited. One that cannot
    /// be switched keeps no other from it; the first error is returned.
    pub(super) fn switch(&mut self, on: bool) -> Result<(), PerfError> {
        self.enabled = on;
        every(&self.fds, |fd| fd.switch(on))
    }
}

/// A probe whose stacks are taken as its rate allows, with its range among the armed events.
#[derive(Debug)]
pub(super) struct Paced {
    pub(super) event: u32,
    pub(super) armed: Range<usize>,
    /// Begins when the rings are mapped: how many stacks they hold is not known before.
    pub(super) pace: Option<Pace>,
}

/// Switches the events of one probe, so that each hit has its stack, or of a hot one few have.
pub(super) fn take_stacks(armed: &mut [Armed], hot: bool) -> Result<(), PerfError> {
    // On first, then off: a hit that both record is recognised, one that neither does is lost.
    every([true, false], |on| {
        let concerned = armed.iter_mut().filter(|armed| armed.counts_when(hot) == on);
        every(concerned, |armed| armed.switch(on))
    })
}

/// Does it with each, whatever fails, and returns the first error.
pub(super) fn every<T, E>(
    all: impl IntoIterator<Item = T>,
    each: impl FnMut(T) -> Result<(), E>,
) -> Result<(), E> {
    // Unlike `try_for_each`, `fold` ends with the last.
    all.into_iter().map(each).fold(Ok(()), Result::and)
}

#[cfg(test)]
mod tests {
    use super::every;

    #[test]
    fn one_that_fails_keeps_no_other_from_its_turn() {
        let mut seen = Vec::new();
        let result = every(0..6, |number| {
            seen.push(number);
            if number % 2 == 1 { Err(number) } else { Ok(()) }
        });
        assert_eq!((result, seen), (Err(1), vec![0, 1, 2, 3, 4, 5]));
        assert_eq!(every(0..3, |_number| Ok::<_, ()>(())), Ok(()));
    }
}
