//! Times on a command line.

use std::time::Duration;

/// A time such as `10ms`, `1.5s`, `2m`, or `10`, which is seconds.
///
/// # Errors
/// What is wrong with it, and how to write it.
pub fn parse(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic() || c == 'µ').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let scale = match unit {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("unknown unit '{unit}': use us, ms, s, m or h")),
    };
    let number: f64 = number.parse().map_err(|_syntax| format!("'{text}' is not a time"))?;
    let seconds = number * scale;
    if seconds.is_finite() && seconds > 0.0 && seconds < 1e9 {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(format!("'{text}' is not a time above zero"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let time = |text| parse(text).map(|d| d.as_millis());
        assert_eq!(time("500ms"), Ok(500));
        assert_eq!(time("10"), Ok(10_000));
        assert_eq!(time("1.5m"), Ok(90_000));
        for bad in ["", "s", "-1s", "0", "3d", "1e400s", "nan"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
