//! Patterns for paths. It must not look at any file.

/// A pattern for a whole path: `*` is any text, slashes included, `?` any one byte, `[a-z]` and
/// `[!a-z]` one of a set, `\` takes the next byte as it is. A pattern without any of these and
/// without a `/` in front is a name: it also fits where it is the end of the path after a `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    pattern: Vec<u8>,
    parts: Vec<Part>,
    is_name: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Byte(u8),
    Any,
    Text,
    Set { not: bool, ranges: Vec<(u8, u8)> },
}

impl Glob {
    /// Reads a pattern. A `[` without its `]` is an ordinary byte.
    #[must_use]
    pub fn new(pattern: &[u8]) -> Self {
        let mut parts: Vec<Part> = Vec::new();
        let mut rest = pattern;
        while let Some((&first, tail)) = rest.split_first() {
            rest = tail;
            parts.push(match first {
                // Several stars are one: it keeps matching fast.
                b'*' if parts.last() == Some(&Part::Text) => continue,
                b'*' => Part::Text,
                b'?' => Part::Any,
                b'\\' => match tail.split_first() {
                    Some((&literal, tail)) => {
                        rest = tail;
                        Part::Byte(literal)
                    }
                    None => Part::Byte(b'\\'),
                },
                b'[' => match set(tail) {
                    Some((part, tail)) => {
                        rest = tail;
                        part
                    }
                    None => Part::Byte(b'['),
                },
                other => Part::Byte(other),
            });
        }
        let is_name = !pattern.is_empty()
            && !pattern.starts_with(b"/")
            && parts.iter().all(|part| matches!(part, Part::Byte(_)));
        Self { pattern: pattern.to_vec(), parts, is_name }
    }

    /// The pattern as it was given.
    #[must_use]
    pub fn pattern(&self) -> &[u8] {
        &self.pattern
    }

    /// Whether the path fits: all of it, or its end if the pattern is a name.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        // A name has one part a byte.
        let end = path.len().checked_sub(self.parts.len()).filter(|_at| self.is_name);
        let end = end.and_then(|at| path.split_at_checked(at));
        end.is_some_and(|(folder, name)| folder.ends_with(b"/") && self.fits(name))
            || self.fits(path)
    }

    fn fits(&self, path: &[u8]) -> bool {
        let (mut at, mut part) = (0, 0);
        // Where to go on if a star is made to take one byte more: only the last star matters.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            let fits = match (self.parts.get(part), path.get(at)) {
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
                Some((from, star)) if from < path.len() => {
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
    let end = 1 + text.get(1..)?.iter().position(|&b| b == b']')?;
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
    fn patterns_fit_whole_paths() {
        let table = [
            ("/etc/hosts", "/etc/hosts", true),
            ("/etc", "/etc/hosts", false),
            ("*.json", "/app/config/local.json", true),
            ("/app/*/local.json", "/app/a/b/local.json", true),
            ("*/node_modules/*", "/app/node_modules/x/index.js", true),
            ("*/node_modules/*", "/app/index.js", false),
            ("/tmp/?", "/tmp/a", true),
            ("/tmp/?", "/tmp/", false),
            ("/tmp/[a-c]*", "/tmp/bee", true),
            ("/tmp/[!a-c]*", "/tmp/bee", false),
            ("/tmp/[]x]", "/tmp/]", true),
            ("/tmp/[a", "/tmp/[a", true),
            ("/tmp/\\*", "/tmp/*", true),
            ("/tmp/\\*", "/tmp/a", false),
            ("", "", true),
            ("*", "", true),
            ("**a**", "bab", true),
            ("hosts", "/etc/hosts", true),
            ("etc/hosts", "/etc/hosts", true),
            ("hosts", "hosts", true),
            ("hosts", "/etc/myhosts", false),
            ("hosts", "/hosts/a", false),
            ("/hosts", "/etc/hosts", false),
            ("host?", "/etc/hosts", false),
            ("a\\*", "/etc/a*", true),
            ("", "/etc/", false),
        ];
        for (pattern, path, want) in table {
            assert_eq!(
                Glob::new(pattern.as_bytes()).matches(path.as_bytes()),
                want,
                "{pattern} {path}"
            );
        }
        // Polynomial at the most: this ends at once.
        let pattern = "a*".repeat(100);
        assert!(!Glob::new(pattern.as_bytes()).matches(&[b'a'; 10_000].map(|b| b ^ 3)));
        assert!(!Glob::new(format!("{pattern}b").as_bytes()).matches(&vec![b'a'; 10_000]));
    }
}
