//! How many descriptors and how much ring memory a recording takes, computed before anything is
//! armed.
//!
//! The kernel gives inherited events no ring unless each is bound to a CPU, so every event is
//! opened once a thread and CPU; all events of a CPU share that CPU's ring. 40 threads on 64 CPUs
//! with three events are 7680 descriptors and 128 MiB of rings.

use crate::sys::perf::PerfFd;
use crate::sys::perf_error::PerfError;
use crate::sys::ring::{Ring, page_bytes};

/// Least ring of one CPU when the kernel does not allow more locked memory, bytes.
pub const RING_FLOOR: usize = 64 << 10;
/// Ring memory over all CPUs, bytes.
const RING_TOTAL: u64 = 128 << 20;
/// Most ring memory of one CPU, bytes: with callchains about a second of 10 000 samples.
const RING_MOST: u64 = 8 << 20;
/// Most where stacks are copied: a second of 1000 samples with 16 KiB.
const RING_MOST_COPIED: u64 = 16 << 20;
/// Least ring memory of one CPU, bytes: some thousand samples with callchains.
const RING_LEAST: u64 = 512 << 10;
/// Ring memory of one CPU that can be asked for, bytes.
pub const RING_ASKED: std::ops::RangeInclusive<u64> = (64 << 10)..=(1 << 30);
/// Descriptors for everything that is not an event: mapped files, the capture, tracefs.
const OTHER_DESCRIPTORS: u64 = 1024;

/// Maps a ring, smaller where the kernel does not allow so much locked memory.
///
/// # Errors
/// The kernel refuses even [`RING_FLOOR`] bytes.
pub fn map_ring(fd: &PerfFd, pages: usize) -> Result<Ring, PerfError> {
    let mut pages = pages;
    loop {
        match Ring::map(fd, pages) {
            Err(error)
                if error.errno() == Some(nix::errno::Errno::EPERM)
                    && pages / 2 * page_bytes() >= RING_FLOOR =>
            {
                pages /= 2;
            }
            other => return other,
        }
    }
}

/// Says that the rings are smaller than asked for, where they are; bytes of all rings.
#[must_use]
pub fn shortage(asked: u64, mapped: u64) -> Option<String> {
    (mapped < asked).then(|| {
        format!(
            "the kernel allows only {} KiB of rings here, not {} KiB: losses are likelier; root, \
             CAP_IPC_LOCK or a higher kernel.perf_event_mlock_kb allows more",
            mapped >> 10,
            asked >> 10
        )
    })
}

/// What a recording needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Perf events a thread and CPU.
    pub events: u64,
    /// Threads that run now.
    pub threads: u64,
    /// CPUs.
    pub cpus: u64,
    /// Bytes of one CPU's ring, a power of two.
    pub ring_bytes: u64,
}

impl Budget {
    /// The same with rings of so many bytes each, up to the next power of two; `None` changes nothing.
    #[must_use]
    pub fn with_rings(self, asked: Option<u64>) -> Self {
        let asked = asked.map(|bytes| bytes.clamp(*RING_ASKED.start(), *RING_ASKED.end()));
        let ring_bytes = asked.map_or(self.ring_bytes, u64::next_power_of_two);
        Self { ring_bytes, ..self }
    }

    /// Computes it.
    #[must_use]
    pub fn new(events: u64, threads: u64, cpus: u64, copied_stacks: bool) -> Self {
        let most = if copied_stacks { RING_MOST_COPIED } else { RING_MOST };
        let share = (RING_TOTAL / cpus.max(1)).clamp(RING_LEAST, most);
        // The largest power of two that is not above the share.
        let ring_bytes = 1 << share.ilog2();
        Self { events, threads, cpus, ring_bytes }
    }

    /// Perf descriptors.
    #[must_use]
    pub fn descriptors(&self) -> u64 {
        self.events * self.threads * self.cpus
    }

    /// Descriptors that the process limit must allow.
    #[must_use]
    pub fn open_files(&self) -> u64 {
        self.descriptors() + OTHER_DESCRIPTORS
    }

    /// Bytes of all rings.
    #[must_use]
    pub fn ring_total(&self) -> u64 {
        self.ring_bytes * self.cpus
    }
}

impl std::fmt::Display for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { events, threads, cpus, ring_bytes } = *self;
        let counted =
            |count: u64, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        write!(
            f,
            "{} × {} × {} = {}, {} × {} KiB = {} MiB",
            counted(events, "event"),
            counted(threads, "thread"),
            counted(cpus, "CPU"),
            counted(self.descriptors(), "descriptor"),
            counted(cpus, "ring"),
            ring_bytes >> 10,
            self.ring_total() >> 20,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_big_host_stays_within_bounds() {
        let big = Budget::new(3, 40, 64, true);
        assert_eq!(big.descriptors(), 7680);
        assert_eq!(big.ring_bytes, 2 << 20);
        assert_eq!(big.ring_total(), 128 << 20);
        let text = big.to_string();
        assert!(text.contains("7680 descriptors") && text.contains("128 MiB"), "{text}");
    }

    #[test]
    fn rings_are_as_large_as_asked_for() {
        let budget = Budget::new(3, 1, 4, true);
        assert_eq!(budget.with_rings(None), budget);
        assert_eq!(budget.with_rings(Some(64 << 20)).ring_total(), 256 << 20);
        assert_eq!(budget.with_rings(Some(33 << 20)).ring_bytes, 64 << 20);
        assert_eq!(budget.with_rings(Some(1)).ring_bytes, 64 << 10);
        assert_eq!(budget.with_rings(Some(u64::MAX)).ring_bytes, 1 << 30);
    }

    #[test]
    fn smaller_rings_are_told() {
        assert_eq!(shortage(32 << 20, 32 << 20), None);
        let text = shortage(32 << 20, 768 << 10).unwrap();
        assert!(text.contains("only 768 KiB") && text.contains("not 32768 KiB"), "{text}");
    }

    #[test]
    fn rings_are_powers_of_two_within_their_bounds() {
        for cpus in 1..=2048 {
            let budget = Budget::new(1, 1, cpus, cpus % 2 == 0);
            assert!(budget.ring_bytes.is_power_of_two());
            assert!((RING_LEAST..=RING_MOST_COPIED).contains(&budget.ring_bytes));
            let most = RING_TOTAL.max(RING_LEAST * cpus);
            assert!(budget.ring_total() <= most, "{cpus} CPUs");
        }
    }
}
