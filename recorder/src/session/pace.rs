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
/// Most hits of a burst that keeps its stacks, however short it is.
const BURST_MOST: u64 = 1000;
/// Fewest: a ring that does not hold as many loses some, which is said; a probe that is hit now and
/// then must not be taken for a hot one.
const BURST_LEAST: u64 = 16;
/// What a sample takes beside the copy of its stack, bytes: registers, the kernel's part of the
/// callchain, arguments with a path.
const BESIDE_STACK: u64 = 600;
/// Hits a second below which a hot probe has cooled.
const COOL: u64 = 2500;
/// Over what time that is measured, nanoseconds.
const COOLING_NS: u64 = 1_000_000_000;

/// Hits that may come at once and still have all their stacks: what a ring of `ring_bytes` holds. It
/// is emptied when a quarter is full, so a longer burst finds room, too.
#[must_use]
pub fn burst(ring_bytes: u64, stack_bytes: u32) -> u64 {
    let hits = ring_bytes / (u64::from(stack_bytes) + BESIDE_STACK);
    hits.clamp(BURST_LEAST, BURST_MOST)
}

/// The rate of one probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    hot: bool,
    since_ns: u64,
    hits_then: u64,
    saved_ns: u64,
    /// Time that can be saved up: that of a burst.
    most_ns: u64,
}

impl Pace {
    /// Of a probe that has not been hit; so many hits at once keep their stacks, see [`burst`].
    #[must_use]
    pub fn new(burst: u64) -> Self {
        let most_ns = burst.saturating_mul(PRICE_NS);
        Self { hot: false, since_ns: 0, hits_then: 0, saved_ns: most_ns, most_ns }
    }

    /// A ring fills faster than it is emptied: the probe becomes hot at once, whatever it has saved up.
    /// `true` when it was not hot before.
    pub fn press(&mut self, now_ns: u64, hits: u64) -> bool {
        let pressed = !self.hot;
        if pressed {
            *self = Self { hot: true, since_ns: now_ns, hits_then: hits, saved_ns: 0, ..*self };
        }
        pressed
    }

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
            *self = Self { hot: false, saved_ns: self.most_ns, ..*self };
            return Some(false);
        }
        let saved = self.saved_ns.saturating_add(elapsed).min(self.most_ns);
        let left = saved.checked_sub(new.saturating_mul(PRICE_NS));
        *self = Self {
            hot: left.is_none(),
            since_ns: now_ns,
            hits_then: hits,
            saved_ns: left.unwrap_or(0),
            ..*self
        };
        self.hot.then_some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When a probe with room for 1000 stacks and with these hits in each millisecond heats and cools.
    fn changes(hits_a_ms: impl Iterator<Item = u64>) -> Vec<(u64, bool)> {
        let (mut pace, mut hits, mut changes) = (Pace::new(1000), 0, Vec::new());
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
    fn a_burst_is_what_a_ring_holds() {
        for (ring_bytes, stack_bytes, hits) in [
            (16 << 20, 16 << 10, 987),
            (2 << 20, 16 << 10, 123),
            (512 << 10, 16 << 10, 30),
            (64 << 10, 63 << 10, 16),
            (16 << 20, 1 << 10, 1000),
            (0, 0, 16),
            (u64::MAX, u32::MAX, 1000),
        ] {
            assert_eq!(burst(ring_bytes, stack_bytes), hits, "{ring_bytes} {stack_bytes}");
            let taken = hits * (u64::from(stack_bytes) + BESIDE_STACK);
            assert!(hits == BURST_LEAST || taken <= ring_bytes, "{ring_bytes} {stack_bytes}");
        }
    }

    #[test]
    fn a_small_ring_keeps_few_stacks_of_a_burst() {
        for burst in [16, 61, 493] {
            let (mut kept, mut hot) = (Pace::new(burst), Pace::new(burst));
            assert_eq!(kept.update(1_000_000, burst), None);
            assert_eq!(hot.update(1_000_000, burst + 6), Some(true));
            // As many again when it has rested as long as they cost, not before.
            let rested = 1_000_000 + burst * PRICE_NS;
            assert_eq!({ kept }.update(rested, burst * 2), None);
            assert_eq!(kept.update(rested / 2, burst * 2), Some(true));
        }
    }

    #[test]
    fn a_ring_that_fills_makes_a_probe_hot_at_once() {
        let mut pace = Pace::new(1000);
        assert_eq!(pace.update(1_000_000, 10), None);
        assert!(pace.press(2_000_000, 10));
        assert!(!pace.press(3_000_000, 10));
        assert_eq!(pace.update(4_000_000, 500), None);
        assert_eq!(pace.update(2_000_000 + COOLING_NS, 1000), Some(false));
    }

    #[test]
    fn any_numbers_are_survived() {
        let mut pace = Pace::new(u64::MAX);
        for (now, hits) in [(u64::MAX, u64::MAX), (0, 0), (5, u64::MAX), (u64::MAX, 1)] {
            let _changed = pace.update(now, hits);
        }
    }
}
