//! Sizes as they are typed. Pure: it knows no option.

use crate::session::budget::RING_ASKED;

/// Least user stack that is copied, bytes: a few frames.
const LEAST_STACK: u32 = 1 << 10;
/// Most: a record's size has 16 bits (struct perf_event_header), and the rest of it needs its part.
const MOST_STACK: u32 = 63 << 10;

/// A size such as `16k` or `8192`, in bytes.
pub(super) fn parse_stack_size(text: &str) -> Result<u32, String> {
    match u32::try_from(parse_size(text)?) {
        Ok(bytes @ LEAST_STACK..=MOST_STACK) => Ok(bytes.next_multiple_of(8)),
        _ => Err(format!("{text} is not between {LEAST_STACK} and {MOST_STACK} bytes")),
    }
}

/// A size such as `64m`, in bytes.
pub(super) fn parse_ring_size(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text)?;
    let is_allowed = RING_ASKED.contains(&bytes);
    is_allowed.then_some(bytes).ok_or_else(|| format!("{text} is not between 64k and 1g"))
}

fn parse_size(text: &str) -> Result<u64, String> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit_at);
    let unit = match unit {
        "" => Some(1),
        "k" | "K" => Some(1 << 10),
        "m" | "M" => Some(1 << 20),
        "g" | "G" => Some(1 << 30),
        _ => None,
    };
    let number = digits.parse::<u64>().ok();
    let bytes = number.zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    bytes.ok_or_else(|| format!("'{text}' is not a size: write it as 16k, 8m or 8192"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(parse_stack_size("16k"), Ok(16384));
        assert_eq!(parse_stack_size("8191"), Ok(8192));
        for bad in ["", "k", "64k", "1023", "-1", "9999999k", "16m"] {
            assert!(parse_stack_size(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_ring_size("64k"), Ok(64 << 10));
        assert_eq!(parse_ring_size("1G"), Ok(1 << 30));
        for bad in ["", "m", "63k", "2g", "64mb", "-1", "99999999999999999999g", "99999999999g"] {
            assert!(parse_ring_size(bad).is_err(), "{bad}");
        }
    }
}
