//! Untrusted text: made safe for a terminal ([`Clean`]), and cut into lines ([`Lines`]).
//!
//! File names, symbol names and command lines come from the target and may hold escape sequences
//! or marks that turn the reading direction. Nothing here knows what the text means; markup for SVG
//! and JSON is the business of whoever writes those. Tests are at the end.

mod lines;

use std::fmt::{self, Display, Write};

pub use lines::Lines;

/// Shows untrusted bytes so that they cannot act on a terminal.
///
/// - Control characters below U+0080 and bytes that are not UTF-8 become `\xNN`.
/// - Other control characters (C1), marks that turn or hide text (bidi controls, zero-width
///   characters, line and paragraph separators, invisible fillers, tags) become `\u{...}`.
/// - A backslash stays single, so that ordinary text reads as it is; it is doubled only before `x`,
///   `u`, another backslash, or something that is written as an escape. With that the original
///   bytes can always be told from the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clean<'a>(pub &'a [u8]);

impl<'a> Clean<'a> {
    /// The same for text that is known to be UTF-8.
    pub fn text(text: &'a str) -> Self {
        Self(text.as_bytes())
    }
}

impl Display for Clean<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for unit in Units(self.0) {
            unit.write(f)?;
        }
        Ok(())
    }
}

/// Cleans like [`Clean`] and cuts to at most `max_chars` characters, the last of which is then `…`.
/// An escape is never cut through.
pub fn clean_string(bytes: &[u8], max_chars: usize) -> String {
    let mut out = String::new();
    let mut used = 0;
    // Where to cut if the rest does not fit: the last place that leaves room for the mark.
    let mut cut = 0;
    for unit in Units(bytes) {
        if used < max_chars {
            cut = out.len();
        }
        let width = unit.width();
        if used + width > max_chars {
            if max_chars == 0 {
                return String::new();
            }
            // `cut` leaves one free place unless the text so far fills the line exactly.
            out.truncate(cut);
            out.push('…');
            return out;
        }
        // Writing to a String cannot fail.
        if unit.write(&mut out).is_err() {
            break;
        }
        used += width;
    }
    out
}

/// Whether a character may not reach a terminal as it is.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{AD}'                                       // soft hyphen
            | '\u{61C}' | '\u{200E}' | '\u{200F}'          // direction marks
            | '\u{202A}'..='\u{202E}'                      // embeddings and overrides
            | '\u{2066}'..='\u{2069}'                      // isolates
            | '\u{200B}'..='\u{200D}'                      // zero width
            | '\u{2028}' | '\u{2029}'                      // line, paragraph separator
            | '\u{2060}'..='\u{2065}' | '\u{206A}'..='\u{206F}'
            | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}'
            | '\u{115F}' | '\u{1160}' | '\u{3164}' | '\u{FFA0}' | '\u{180E}' // invisible letters
            | '\u{E0000}'..='\u{E007F}'                    // tags
        )
}

/// What is written as one piece.
#[derive(Clone, Copy)]
enum Unit {
    Char(char),
    DoubledBackslash,
    Byte(u8),
    Escaped(char),
}

impl Unit {
    fn write(self, out: &mut impl Write) -> fmt::Result {
        match self {
            Self::Char(c) => out.write_char(c),
            Self::DoubledBackslash => out.write_str("\\\\"),
            Self::Byte(b) => write!(out, "\\x{b:02x}"),
            Self::Escaped(c) => write!(out, "\\u{{{:x}}}", u32::from(c)),
        }
    }

    /// Characters that [`write`](Self::write) makes.
    fn width(self) -> usize {
        match self {
            Self::Char(_) => 1,
            Self::DoubledBackslash => 2,
            Self::Byte(_) => 4,
            // Backslash, u, two braces and the digits.
            Self::Escaped(c) => 4 + (u32::from(c).max(1).ilog2() as usize / 4 + 1),
        }
    }
}

/// Cuts bytes into pieces.
struct Units<'a>(&'a [u8]);

impl Units<'_> {
    /// The next character, or the byte that cannot begin one, and the bytes it takes.
    fn peek(bytes: &[u8]) -> Option<(Result<char, u8>, usize)> {
        let first = *bytes.first()?;
        if first.is_ascii() {
            return Some((Ok(char::from(first)), 1));
        }
        let head = bytes.get(..4).unwrap_or(bytes);
        let valid = match std::str::from_utf8(head) {
            Ok(s) => s,
            Err(e) => head
                .get(..e.valid_up_to())
                .and_then(|v| std::str::from_utf8(v).ok())
                .unwrap_or_default(),
        };
        Some(valid.chars().next().map_or((Err(first), 1), |c| (Ok(c), c.len_utf8())))
    }
}

impl Iterator for Units<'_> {
    type Item = Unit;

    fn next(&mut self) -> Option<Unit> {
        let (piece, len) = Self::peek(self.0)?;
        self.0 = self.0.get(len..).unwrap_or_default();
        Some(match piece {
            Err(byte) => Unit::Byte(byte),
            Ok('\\') => match Self::peek(self.0) {
                Some((Err(_) | Ok('\\' | 'x' | 'u'), _)) => Unit::DoubledBackslash,
                Some((Ok(c), _)) if is_hostile(c) => Unit::DoubledBackslash,
                _ => Unit::Char('\\'),
            },
            Ok(c) if !is_hostile(c) => Unit::Char(c),
            Ok(c) if c.is_ascii() => Unit::Byte(c as u8),
            Ok(c) => Unit::Escaped(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shows_hostile_text_as_escapes() {
        let table: &[(&[u8], &str)] = &[
            (b"/etc/passwd", "/etc/passwd"),
            (
                "/data/\u{e9}t\u{e9}/\u{65e5}\u{672c}".as_bytes(),
                "/data/\u{e9}t\u{e9}/\u{65e5}\u{672c}",
            ),
            (b"\x1b[31mred\x07", "\\x1b[31mred\\x07"),
            (b"a\nb\tc\rd\x7f\0", "a\\x0ab\\x09c\\x0dd\\x7f\\x00"),
            ("\u{202e}txt.exe".as_bytes(), "\\u{202e}txt.exe"),
            ("\u{85}\u{9b}31m".as_bytes(), "\\u{85}\\u{9b}31m"),
            (
                "a\u{200b}b\u{feff}c\u{2028}d\u{61c}".as_bytes(),
                "a\\u{200b}b\\u{feff}c\\u{2028}d\\u{61c}",
            ),
            (b"\xff\xfe\xc3", "\\xff\\xfe\\xc3"),
            (b"\xe2\x82", "\\xe2\\x82"),
            (b"C:\\dir\\n", "C:\\dir\\n"),
            (b"literal \\x1b", "literal \\\\x1b"),
            (b"\\\x1b", "\\\\\\x1b"),
            (b"\\\\a\\", "\\\\\\a\\"),
            (b"<script>", "<script>"),
        ];
        for (input, want) in table {
            assert_eq!(Clean(input).to_string(), *want, "{input:?}");
        }
        assert_eq!(Clean::text("a\u{2067}").to_string(), "a\\u{2067}");
    }

    #[test]
    fn cuts_on_whole_pieces() {
        let table: &[(&[u8], usize, &str)] = &[
            (b"abc", 3, "abc"),
            (b"abcd", 3, "ab\u{2026}"),
            (b"abc", 0, ""),
            (b"", 0, ""),
            (b"abc", 1, "\u{2026}"),
            (b"a", 1, "a"),
            (b"ab\x1b", 6, "ab\\x1b"),
            (b"ab\x1b", 5, "ab\u{2026}"),
            (b"ab\x1bc", 6, "ab\u{2026}"),
            ("\u{65e5}\u{672c}\u{8a9e}".as_bytes(), 2, "\u{65e5}\u{2026}"),
        ];
        for (input, max, want) in table {
            assert_eq!(clean_string(input, *max), *want, "{input:?} {max}");
        }
    }

    /// Reads the output back, by the rule in the documentation of [`Clean`].
    fn unclean(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let tail = &rest[c.len_utf8()..];
            if c == '\\' && tail.starts_with('\\') {
                out.push(b'\\');
                rest = &tail[1..];
            } else if c == '\\' && tail.starts_with('x') {
                out.push(u8::from_str_radix(&tail[1..3], 16).unwrap());
                rest = &tail[3..];
            } else if c == '\\' && tail.starts_with('u') {
                let end = tail.find('}').unwrap();
                let code = u32::from_str_radix(&tail[2..end], 16).unwrap();
                out.extend(char::from_u32(code).unwrap().to_string().as_bytes());
                rest = &tail[end + 1..];
            } else {
                out.extend(c.to_string().as_bytes());
                rest = tail;
            }
        }
        out
    }

    fn is_safe(text: &str) -> bool {
        !text.chars().any(|c| {
            c.is_control()
                || matches!(u32::from(c), 0x202a..=0x202e | 0x2066..=0x2069 | 0x200b..=0x200f
                    | 0x61c | 0x2028 | 0x2029 | 0xfeff)
        })
    }

    fn hostile_bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            any::<Vec<u8>>(),
            any::<String>().prop_map(String::into_bytes),
            prop::sample::select(vec![
                "\\", "\\x", "\\u{", "\u{202e}", "\u{9b}", "\x1b[", "\u{200d}"
            ])
            .prop_map(|s| s.as_bytes().to_vec()),
        ];
        prop::collection::vec(piece, 0..8).prop_map(|v| v.concat())
    }

    proptest! {
        #[test]
        fn output_is_safe_and_can_be_read_back(bytes in hostile_bytes()) {
            let clean = Clean(&bytes).to_string();
            prop_assert!(is_safe(&clean));
            prop_assert_eq!(unclean(&clean), bytes);
        }

        #[test]
        fn cut_output_is_safe_and_short(bytes in hostile_bytes(), max in 0usize..40) {
            let whole = Clean(&bytes).to_string();
            let cut = clean_string(&bytes, max);
            prop_assert!(is_safe(&cut));
            prop_assert!(cut.chars().count() <= max);
            if whole.chars().count() <= max {
                prop_assert_eq!(cut, whole);
            } else if max > 0 {
                prop_assert!(whole.starts_with(cut.strip_suffix('…').unwrap()));
            }
        }
    }
}
