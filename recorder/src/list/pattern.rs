//! Patterns for function names. It must not know where a name comes from or how it is mangled.

/// A pattern for a whole name: `*` is any text, `?` any one byte, `[a-z]` and `[!a-z]` one of a
/// set, `\` takes the next byte as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Byte(u8),
    Any,
    Text,
    Set { not: bool, ranges: Vec<(u8, u8)> },
}

impl Pattern {
    /// Reads a pattern. A `[` without its `]` is an ordinary byte.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut parts: Vec<Part> = Vec::new();
        let mut rest = text.as_bytes();
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
        Self { text: text.to_owned(), parts }
    }

    /// The pattern as it was given.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text that alone fits, where nothing in the pattern is special.
    #[must_use]
    pub fn plain(&self) -> Option<&str> {
        let special = |c| matches!(c, '*' | '?' | '[' | '\\');
        (!self.text.contains(special)).then_some(self.text.as_str())
    }

    /// Whether the whole name fits.
    #[must_use]
    pub fn fits(&self, name: &str) -> bool {
        let name = name.as_bytes();
        let (mut at, mut part) = (0, 0);
        // Where to go on if a star is made to take one byte more: only the last star matters.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            let fits = match (self.parts.get(part), name.get(at)) {
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
                Some((from, star)) if from < name.len() => {
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
    fn patterns_fit_whole_names() {
        for (pattern, name, want) in [
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
            assert_eq!(Pattern::new(pattern).fits(name), want, "{pattern} {name}");
        }
        // Polynomial at the most: this ends at once.
        assert!(!Pattern::new(&format!("{}b", "a*".repeat(100))).fits(&"a".repeat(10_000)));
    }

    #[test]
    fn only_a_pattern_without_special_characters_is_plain() {
        assert_eq!(Pattern::new("uv_fs_open").plain(), Some("uv_fs_open"));
        for special in ["uv*", "u?", "[u]", "u\\*"] {
            assert_eq!(Pattern::new(special).plain(), None, "{special}");
        }
    }
}
