//! Values that hold for a stretch of time. It must not know what the values mean.

/// From when (inclusive) to when (exclusive, `u64::MAX` for ever) something holds, nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Span {
    pub(super) const ALWAYS: Self = Self { from: 0, to: u64::MAX };

    pub(super) fn holds(self, time: u64) -> bool {
        self.from <= time && (time < self.to || self.to == u64::MAX)
    }

    /// The common part of two spans that both hold at one moment.
    pub(super) fn and(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), to: self.to.min(other.to) }
    }
}

/// A value that changes at certain times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Timeline<T> {
    first: T,
    /// Time from which each later value holds, ascending.
    changes: Box<[(u64, T)]>,
}

impl<T: Copy + PartialEq> Timeline<T> {
    /// A value that never changes.
    pub(super) fn constant(value: T) -> Self {
        Self { first: value, changes: Box::default() }
    }

    /// `first` until the first change. Changes must be in time order; of several at one time the
    /// last counts.
    pub(super) fn new(first: T, changes: impl IntoIterator<Item = (u64, T)>) -> Self {
        let mut first = first;
        let mut kept: Vec<(u64, T)> = Vec::new();
        for (time, value) in changes {
            if kept.last().is_some_and(|&(last, _value)| last == time) {
                kept.pop();
            }
            let before = kept.last().map_or(first, |&(_time, value)| value);
            if time == 0 {
                first = value;
            } else if before != value {
                kept.push((time, value));
            }
        }
        Self { first, changes: kept.into_boxed_slice() }
    }

    /// The value at a time, and how long it holds around it.
    pub(super) fn at(&self, time: u64) -> (T, Span) {
        let after = self.changes.partition_point(|&(from, _value)| from <= time);
        let to = self.changes.get(after).map_or(u64::MAX, |&(from, _value)| from);
        match after.checked_sub(1).and_then(|at| self.changes.get(at)) {
            Some(&(from, value)) => (value, Span { from, to }),
            None => (self.first, Span { from: 0, to }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_hold_until_the_next_change() {
        let line = Timeline::new('a', [(0, 'b'), (10, 'b'), (20, 'c'), (20, 'd'), (30, 'e')]);
        for (time, value, from, to) in [
            (0, 'b', 0, 20),
            (19, 'b', 0, 20),
            (20, 'd', 20, 30),
            (29, 'd', 20, 30),
            (30, 'e', 30, u64::MAX),
            (u64::MAX, 'e', 30, u64::MAX),
        ] {
            assert_eq!(line.at(time), (value, Span { from, to }), "{time}");
            assert!(line.at(time).1.holds(time));
        }
        assert_eq!(Timeline::constant(1).at(5), (1, Span::ALWAYS));
    }
}
