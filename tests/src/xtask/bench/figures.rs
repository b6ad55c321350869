//! Figures of several rounds, and how a table shows them. It must not know what was measured.

use std::time::Duration;

/// Makes a bench shorter or longer: so many rounds of each part that asks for it.
const ROUNDS_VARIABLE: &str = "NREC_BENCH_ROUNDS";

/// How many rounds there are to be: as the environment says, or otherwise `usual`.
pub(crate) fn rounds(usual: usize) -> usize {
    let wanted = std::env::var(ROUNDS_VARIABLE).ok().and_then(|text| text.parse().ok());
    wanted.filter(|rounds| *rounds > 0).unwrap_or(usual)
}

/// The median of some rounds, with the least and the greatest value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    /// `None` if there are no values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = values.len() / 2;
        let upper = *values.get(at)?;
        let median =
            if values.len() % 2 == 1 { upper } else { f64::midpoint(*values.get(at - 1)?, upper) };
        Some(Self { median, least: *values.first()?, most: *values.last()? })
    }

    /// Of times, in seconds.
    pub(crate) fn of_times(times: impl IntoIterator<Item = Duration>) -> Option<Self> {
        Self::of(times.into_iter().map(|time| time.as_secs_f64()))
    }
}

/// `median (least..greatest)`, or a dash.
pub(crate) fn shown(spread: Option<Spread>, decimals: usize) -> String {
    spread.map_or("-".to_owned(), |Spread { median, least, most }| {
        format!("{median:.decimals$} ({least:.decimals$}..{most:.decimals$})")
    })
}

/// The median alone, or a dash.
pub(crate) fn plain(spread: Option<Spread>, decimals: usize) -> String {
    spread.map_or("-".to_owned(), |spread| format!("{:.decimals$}", spread.median))
}

/// The ratio of two medians, or a dash.
pub(crate) fn ratio(upper: Option<Spread>, lower: Option<Spread>) -> String {
    match (upper, lower) {
        (Some(upper), Some(lower)) if lower.median > 0.0 => {
            let ratio = upper.median / lower.median;
            // Two digits that say something.
            if ratio.abs() < 0.1 { format!("{ratio:.4}") } else { format!("{ratio:.2}") }
        }
        _ => "-".to_owned(),
    }
}

/// A size or a number as a float; exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "a figure for people, far below 2^53")]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let odd = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!(odd, Spread { median: 2.0, least: 1.0, most: 3.0 });
        let even = Spread::of([4.0, 1.0]);
        assert_eq!(shown(even, 1), "2.5 (1.0..4.0)");
        assert_eq!((plain(even, 1).as_str(), plain(None, 1).as_str()), ("2.5", "-"));
        assert_eq!((Spread::of([]), shown(None, 1).as_str()), (None, "-"));
        assert_eq!(ratio(Some(odd), even), "0.80");
        assert_eq!(ratio(Some(odd), Spread::of([500.0])), "0.0040");
        assert_eq!(ratio(Some(odd), Spread::of([0.0])), "-");
    }
}
