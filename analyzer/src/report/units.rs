//! Numbers as people read them. It must not know what they count.

/// Nanoseconds with a unit and about three digits.
#[must_use]
pub fn duration(ns: u64) -> String {
    let scaled = |unit: f64, name: &str| {
        let value = ns as f64 / unit;
        let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
        format!("{value:.digits$} {name}")
    };
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => scaled(1e3, "µs"),
        1_000_000..1_000_000_000 => scaled(1e6, "ms"),
        _ => scaled(1e9, "s"),
    }
}

/// A part of a whole in percent.
#[must_use]
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    let value = part as f64 * 100.0 / whole as f64;
    // All but a little is not all: 99.97 must not read as 100.
    let value = if part < whole { value.min(99.99) } else { value };
    if value > 99.9 && part < whole { format!("{value:.2}%") } else { format!("{value:.1}%") }
}

/// A result of a system call: what is no small number is an address.
#[must_use]
pub fn result(result: i64) -> String {
    if (-4096..=1 << 40).contains(&result) { result.to_string() } else { format!("{result:#x}") }
}

/// `1 open`, `2 opens`.
#[must_use]
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Date and time of day in UTC of nanoseconds since 1970.
#[must_use]
pub fn date(wall_ns: u64) -> String {
    let seconds = wall_ns / 1_000_000_000;
    let days = seconds / 86_400;
    // Days to a civil date (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {} UTC", clock(wall_ns))
}

/// Time of day in UTC of nanoseconds since 1970, in whole seconds.
#[must_use]
pub fn clock(wall_ns: u64) -> String {
    let rest = wall_ns / 1_000_000_000 % 86_400;
    format!("{:02}:{:02}:{:02}", rest / 3_600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units() {
        for (ns, want) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (12_345, "12.3 µs"),
            (123_456, "123 µs"),
            (9_999_000, "10.0 ms"),
            (30_000_000_000, "30.0 s"),
            (600_000_000_000, "600 s"),
        ] {
            assert_eq!(duration(ns), want);
        }
        for (part, whole, want) in [
            (1, 2, "50.0%"),
            (0, 5, "0.0%"),
            (5, 5, "100.0%"),
            (99_999, 100_000, "99.99%"),
            (1, 0, "-"),
        ] {
            assert_eq!(percent(part, whole), want);
        }
        assert_eq!(counted(1, "open", "opens"), "1 open");
        assert_eq!((result(17), result(0x7f00_1234_5000)), ("17".into(), "0x7f0012345000".into()));
    }

    #[test]
    fn dates_are_civil() {
        for (seconds, want) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_700_000_000, "2023-11-14 22:13:20 UTC"),
            (1_767_225_599, "2025-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(date(seconds * 1_000_000_000), want);
        }
    }
}
