//! Whether a probe is hit so often that copying and reading a stack at each hit would be too much.
//!
//! Pure. Such a probe is *hot*: each hit is still recorded, but a stack is taken of one in
//! [`ONE_IN`]. Knows neither events nor rings.

/// Of so many hits of a hot probe one has a stack. A prime: hits come in patterns (open, stat, read,
/// close), and no step of a pattern shall be passed over for ever.
pub const ONE_IN: u64 = 61;
/// Hits a second of which the recorder takes every stack for as long as it likes. A stack costs it
/// 20 to 40 µs: 5000 are a fifth of a CPU.
pub const STEADY: u64 = 5000;
/// What one hit takes of the time that is saved up, nanoseconds.
const PRICE_NS: u64 = 1_000_000_000 / STEADY;
/// Time that can be saved up: a burst of so many hits keeps its stacks, however short it is. The ring
/// of a CPU holds about 1000 of 16 KiB.
const SAVED_NS: u64 = 1000 * PRICE_NS;
/// Hits a second below which a hot probe has cooled.
const COOL: u64 = 2500;
/// Over what time that is measured, nanoseconds.
const COOLING_NS: u64 = 1_000_000_000;

/// The rate of one probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    hot: bool,
    since_ns: u64,
    hits_then: u64,
    saved_ns: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { hot: false, since_ns: 0, hits_then: 0, saved_ns: SAVED_NS }
    }
}

impl Pace {
    /// Takes the number of all hits so far. `Some` when the probe has become hot (`true`) or has
    /// cooled (`false`).
    pub fn update(&mut self, now_ns: u64, hits: u64) -> Option<bool> {
        let elapsed = now_ns.saturating_sub(self.since_ns);
        let new = hits.saturating_sub(self.hits_then);
        if self.hot {
            if elapsed < COOLING_NS {
                return None;
            }
            // Hits a second are `new / elapsed * 10^9`; neither factor is bounded.
            let rate = u128::from(new) * 1_000_000_000 / u128::from(elapsed);
            *self = Self { since_ns: now_ns, hits_then: hits, ..*self };
            if rate >= u128::from(COOL) {
                return None;
            }
            *self = Self { hot: false, saved_ns: SAVED_NS, ..*self };
            return Some(false);
        }
        let saved = self.saved_ns.saturating_add(elapsed).min(SAVED_NS);
        let left = saved.checked_sub(new.saturating_mul(PRICE_NS));
        *self = Self {
            hot: left.is_none(),
            since_ns: now_ns,
            hits_then: hits,
            saved_ns: left.unwrap_or(0),
        };
        self.hot.then_some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When a probe with these hits in each millisecond heats and cools.
    fn changes(hits_a_ms: impl Iterator<Item = u64>) -> Vec<(u64, bool)> {
        let (mut pace, mut hits, mut changes) = (Pace::default(), 0, Vec::new());
        for (ms, rate) in (0..).zip(hits_a_ms) {
            hits += rate;
            // Looked at each 20 ms, as the recorder does.
            let change = if ms % 20 == 0 { pace.update(ms * 1_000_000, hits) } else { None };
            changes.extend(change.map(|hot| (ms, hot)));
        }
        changes
    }

    #[test]
    fn a_probe_heats_quickly_and_cools_slowly() {
        let rates = [0, 4, 100, 3, 1];
        let changes = changes((0..8000).map(|ms| rates[ms / 1600]));
        let [(heated, true), (cooled, false)] = changes[..] else { panic!("{changes:?}") };
        assert!((3200..=3240).contains(&heated), "{changes:?}");
        assert!((6400..=8000).contains(&cooled), "{changes:?}");
    }

    #[test]
    fn a_burst_keeps_its_stacks() {
        assert_eq!(changes((0..1000).map(|ms| if ms == 500 { 900 } else { 0 })), []);
        assert_eq!(changes((0..60_000).map(|_ms| 4)), []);
        assert_eq!(changes((0..1000).map(|ms| u64::from(ms == 500) * 3000)), [(500, true)]);
    }

    #[test]
    fn any_numbers_are_survived() {
        let mut pace = Pace::default();
        for (now, hits) in [(u64::MAX, u64::MAX), (0, 0), (5, u64::MAX), (u64::MAX, 1)] {
            let _changed = pace.update(now, hits);
        }
    }
}
