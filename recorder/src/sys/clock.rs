//! The two clocks of a capture: monotonic, in which every record is stamped, and wall.

use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};

/// Both clocks read at the same moment, to within the time the reading took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockPair {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub monotonic_ns: u64,
    /// CLOCK_REALTIME, nanoseconds since 1970-01-01 00:00 UTC.
    pub wall_ns: u64,
    /// Half the time the reading took, nanoseconds: how wrong the pair can be.
    pub uncertainty_ns: u64,
}

/// CLOCK_MONOTONIC in nanoseconds, the clock of all records.
///
/// # Errors
/// The kernel's answer; cannot fail on Linux.
pub fn monotonic_ns() -> Result<u64, Errno> {
    read(ClockId::CLOCK_MONOTONIC)
}

/// CLOCK_REALTIME in nanoseconds since 1970.
///
/// # Errors
/// The kernel's answer; cannot fail on Linux.
pub fn wall_ns() -> Result<u64, Errno> {
    read(ClockId::CLOCK_REALTIME)
}

/// Reads both clocks as close together as a few tries get.
///
/// # Errors
/// The kernel's answer; cannot fail on Linux.
pub fn clock_pair() -> Result<ClockPair, Errno> {
    let mut best: Option<ClockPair> = None;
    // A pre-emption between the readings spoils a try; the best of five is good.
    for _ in 0..5 {
        let before = monotonic_ns()?;
        let wall_ns = wall_ns()?;
        let uncertainty_ns = monotonic_ns()?.saturating_sub(before) / 2;
        let pair = ClockPair { monotonic_ns: before + uncertainty_ns, wall_ns, uncertainty_ns };
        if best.is_none_or(|known| uncertainty_ns < known.uncertainty_ns) {
            best = Some(pair);
        }
    }
    best.ok_or(Errno::EINVAL)
}

fn read(clock: ClockId) -> Result<u64, Errno> {
    let time = clock_gettime(clock)?;
    // Both are positive: seconds since boot or 1970.
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec()).unwrap_or(0);
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_lies_between_two_readings() {
        let before = monotonic_ns().unwrap();
        let pair = clock_pair().unwrap();
        assert!((before..=monotonic_ns().unwrap()).contains(&pair.monotonic_ns));
        let wall =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
        assert!(wall.abs_diff(u128::from(pair.wall_ns)) < 60_000_000_000);
    }
}
