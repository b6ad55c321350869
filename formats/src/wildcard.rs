//! Patterns for names and paths, as a shell has them. It must not know what is compared, and looks at
//! no file.

/// A pattern for a whole text: `*` is any text, `/` included, `?` any one byte, `[a-z]` and `[!a-z]` one of a
/// set, `\` takes the next byte as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wildcard {
    text: Vec<u8>,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Byte(u8),
    Any,
    Text,
    Set { not: bool, ranges: Vec<(u8, u8)> },
}

impl Wildcard {
    /// Reads a pattern. A `[` without its `]` is an ordinary byte.
    #[must_use]
    pub fn new(text: &[u8]) -> Self {
        let mut parts: Vec<Part> = Vec::new();
        let mut rest = text;
        while let Some((&first, tail)) = rest.split_first() {
            rest = tail;
            let part = match first {
                b'*' => Part::Text,
                b'?' => Part::Any,
                b'[' => match set(tail) {
                    Some((part, tail)) => {
                        rest = tail;
                        part
                    }
                    None => Part::Byte(first),
                },
                b'\\' => match tail.split_first() {
                    Some((&next, tail)) => {
                        rest = tail;
                        Part::Byte(next)
                    }
                    None => Part::Byte(first),
                },
                _ => Part::Byte(first),
            };
            // Several stars are one: it keeps matching fast.
            if part != Part::Text || parts.last() != Some(&Part::Text) {
                parts.push(part);
            }
        }
        Self { text: text.to_vec(), parts }
    }

    /// The pattern as it was given.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The text that alone fits, where there is one.
    #[must_use]
    pub fn literal(&self) -> Option<Vec<u8>> {
        let byte = |part: &Part| match part {
            Part::Byte(byte) => Some(*byte),
            Part::Any | Part::Text | Part::Set { .. } => None,
        };
        self.parts.iter().map(byte).collect()
    }

    /// Whether the whole text fits.
    #[must_use]
    pub fn fits(&self, text: &[u8]) -> bool {
        let (mut at, mut part) = (0, 0);
        // Where to go on if a star is made to take one byte more: only the last star matters.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            let fits = match (self.parts.get(part), text.get(at)) {
                (None, None) => return true,
                (Some(Part::Text), _) => {
                    retry = Some((at, part));
                    part += 1;
                    continue;
                }
                (Some(one), Some(&byte)) => one.takes(byte),
                _ => false,
            };
            if fits {
                at += 1;
                part += 1;
                continue;
            }
            match retry.take() {
                Some((from, star)) if from < text.len() => {
                    retry = Some((from + 1, star));
                    at = from + 1;
                    part = star + 1;
                }
                _ => return false,
            }
        }
    }
}

impl Part {
    fn takes(&self, byte: u8) -> bool {
        match self {
            Self::Byte(literal) => *literal == byte,
            Self::Any => true,
            Self::Text => false,
            Self::Set { not, ranges } => {
                ranges.iter().any(|&(low, high)| (low..=high).contains(&byte)) != *not
            }
        }
    }
}

fn set(text: &[u8]) -> Option<(Part, &[u8])> {
    let (not, text) = match text.strip_prefix(b"!").or_else(|| text.strip_prefix(b"^")) {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    // A `]` in the first place belongs to the set.
    let end = 1 + text.get(1..)?.iter().position(|&byte| byte == b']')?;
    let mut rest = text.get(..end)?;
    let mut ranges = Vec::new();
    while let Some((&low, tail)) = rest.split_first() {
        rest = tail;
        match tail {
            [b'-', high, after @ ..] => {
                ranges.push((low, *high));
                rest = after;
            }
            _ => ranges.push((low, low)),
        }
    }
    Some((Part::Set { not, ranges }, text.get(end + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_texts() {
        for (pattern, text, want) in [
            ("uv_fs_*", "uv_fs_open", true),
            ("uv_fs_*", "uv__fs_open", false),
            ("*open", "uv_fs_open", true),
            ("open", "uv_fs_open", false),
            ("uv_fs_?pen", "uv_fs_open", true),
            ("uv_fs_open?", "uv_fs_open", false),
            ("uv_fs_[a-o]*", "uv_fs_open", true),
            ("uv_fs_[!a-o]*", "uv_fs_open", false),
            ("uv_fs_[^a-o]*", "uv_fs_read", true),
            ("node::*::Open", "node::fs::Open", true),
            ("*operator\\[\\]*", "a::operator[](int)", true),
            ("a[", "a[", true),
            ("[]x]", "]", true),
            ("a\\", "a\\", true),
            ("**a**", "bab", true),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
        ] {
            let fits = Wildcard::new(pattern.as_bytes()).fits(text.as_bytes());
            assert_eq!(fits, want, "{pattern} {text}");
        }
        // Polynomial at the most: this ends at once.
        let stars = format!("{}b", "a*".repeat(100));
        assert!(!Wildcard::new(stars.as_bytes()).fits(&[b'a'; 10_000]));
    }

    #[test]
    fn only_a_pattern_without_special_characters_is_literal() {
        assert_eq!(Wildcard::new(b"uv_fs_open").literal(), Some(b"uv_fs_open".to_vec()));
        assert_eq!(Wildcard::new(b"a\\*").literal(), Some(b"a*".to_vec()));
        for special in ["uv*", "u?", "[u]"] {
            assert_eq!(Wildcard::new(special.as_bytes()).literal(), None, "{special}");
        }
    }
}
