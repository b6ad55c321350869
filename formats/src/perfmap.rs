//! The perf map (`/tmp/perf-PID.map`): the JIT compiler's own list of what it put where.
//!
//! One line an entry, `ADDR SIZE NAME`, numbers in hexadecimal (kernel tree,
//! tools/perf/Documentation/jit-interface.txt). The file grows while the target runs, so the parser
//! takes it in pieces. It must not open the file, and it must not interpret names: addresses are
//! reused, and only whoever reads the file knows when an entry became true.

use crate::text::Lines;

/// Longest line that is believed by default, bytes.
pub const DEFAULT_MAX_LINE: usize = 64 << 10;

/// One entry. It lives only as long as the piece it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerfMapEntry<'a> {
    /// First address of the code, in the target's address space.
    pub start: u64,
    /// Bytes of code, never 0.
    pub size: u64,
    /// Name as the target wrote it: any bytes but newline, spaces included.
    pub name: &'a [u8],
}

/// Reads a perf map as it grows.
#[derive(Debug, Clone)]
pub struct PerfMapParser {
    lines: Lines,
    entries: u64,
    bad_lines: u64,
}

impl Default for PerfMapParser {
    fn default() -> Self {
        Self::new(DEFAULT_MAX_LINE)
    }
}

impl PerfMapParser {
    /// `max_line`: longest line that is believed, bytes without newline; also all the memory that
    /// the parser holds between two pieces.
    pub fn new(max_line: usize) -> Self {
        Self { lines: Lines::new(max_line), entries: 0, bad_lines: 0 }
    }

    /// Calls `f` with every entry whose line ends within `bytes`.
    pub fn push(&mut self, bytes: &[u8], mut f: impl FnMut(PerfMapEntry<'_>)) {
        let Self { lines, entries, bad_lines } = self;
        lines.push(bytes, |line| match parse_line(line) {
            Some(entry) => {
                *entries += 1;
                f(entry);
            }
            None => *bad_lines += 1,
        });
    }

    /// Ends the file. A last line without newline is not believed, because its name may be cut: it
    /// is counted as bad. Says whether there was one.
    pub fn finish(&mut self) -> bool {
        let torn = self.lines.take_torn().is_some();
        self.bad_lines += u64::from(torn);
        torn
    }

    /// Entries given out.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Lines that are no entry: no numbers, no name, size 0, an end beyond 64 bits, or torn at the
    /// end.
    pub fn bad_lines(&self) -> u64 {
        self.bad_lines
    }

    /// Lines skipped because they were above the limit.
    pub fn long_lines(&self) -> u64 {
        self.lines.long_lines()
    }
}

fn parse_line(line: &[u8]) -> Option<PerfMapEntry<'_>> {
    let (start, rest) = hex_field(line)?;
    let (size, name) = hex_field(rest)?;
    start.checked_add(size)?;
    // A symbol of no bytes can contain no address; it would only hide its neighbours.
    (size != 0 && !name.is_empty()).then_some(PerfMapEntry { start, size, name })
}

/// A hexadecimal number, with or without `0x`, and what follows the one space behind it.
fn hex_field(text: &[u8]) -> Option<(u64, &[u8])> {
    let space = text.iter().take(24).position(|b| *b == b' ')?;
    let (digits, rest) = text.split_at(space);
    let digits = digits.strip_prefix(b"0x").or(digits.strip_prefix(b"0X")).unwrap_or(digits);
    if digits.is_empty() {
        return None;
    }
    let mut value = 0u64;
    for digit in digits {
        let digit = char::from(*digit).to_digit(16)?;
        value = value.checked_mul(16)?.checked_add(u64::from(digit))?;
    }
    Some((value, rest.get(1..)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Owned = (u64, u64, Vec<u8>);

    fn parse(parser: &mut PerfMapParser, bytes: &[u8]) -> Vec<Owned> {
        let mut got = Vec::new();
        parser.push(bytes, |e| got.push((e.start, e.size, e.name.to_vec())));
        got
    }

    #[test]
    fn reads_what_node_and_others_write() {
        let table = [
            (
                "3ef414c0 398 JS:~handle /srv/app.js:12:7",
                Some((0x3ef4_14c0, 0x398, "JS:~handle /srv/app.js:12:7")),
            ),
            ("0x3EF4 0XaB Builtin:Abort", Some((0x3ef4, 0xab, "Builtin:Abort"))),
            ("00007f1234567890 10  two  spaces ", Some((0x7f12_3456_7890, 0x10, " two  spaces "))),
            ("ffffffffffffffff 0 x", None),
            ("ffffffffffffffff 1 x", None),
            ("10000000000000000 1 x", None),
            ("10 0 nothing", None),
            ("10 20 ", None),
            ("10 20", None),
            ("0x 20 a", None),
            ("", None),
            ("-1 2 a", None),
            ("+1 2 a", None),
            ("zz 2 a", None),
        ];
        for (line, want) in table {
            let mut parser = PerfMapParser::default();
            let got = parse(&mut parser, format!("{line}\n").as_bytes());
            let want: Vec<Owned> =
                want.iter().map(|(a, s, n)| (*a, *s, n.as_bytes().to_vec())).collect();
            assert_eq!(got, want, "{line:?}");
            assert_eq!(parser.bad_lines(), u64::from(want.is_empty()), "{line:?}");
        }
    }

    #[test]
    fn goes_on_after_garbage_and_long_lines() {
        let mut parser = PerfMapParser::new(100);
        let mut text = b"\xff\x00garbage\n10 20 a\xff\x1bb\n".to_vec();
        text.extend(b"30 40 ".iter().chain(&[b'x'; 1 << 20]));
        text.extend(b"\n50 60 c\n70 80 torn");
        let mut got = Vec::new();
        for piece in text.chunks(7) {
            got.extend(parse(&mut parser, piece));
        }
        assert_eq!(got, [(0x10, 0x20, b"a\xff\x1bb".to_vec()), (0x50, 0x60, b"c".to_vec())]);
        assert_eq!((parser.entries(), parser.bad_lines(), parser.long_lines()), (2, 1, 1));
        assert!(parser.finish());
        assert!(!parser.finish());
        assert_eq!(parser.bad_lines(), 2);
    }

    proptest! {
        #[test]
        fn survives_any_bytes(pieces in prop::collection::vec(any::<Vec<u8>>(), 0..9), max in 0usize..40) {
            let mut parser = PerfMapParser::new(max);
            for piece in &pieces {
                parser.push(piece, |e| assert!(e.size > 0 && e.start.checked_add(e.size).is_some()));
            }
            let ends = pieces.concat().iter().filter(|b| **b == b'\n').count() as u64;
            let seen = parser.entries() + parser.bad_lines() + parser.long_lines();
            prop_assert!(seen == ends || seen == ends + 1);
        }

        #[test]
        fn reads_back_what_is_printed(
            entries in prop::collection::vec((any::<u32>(), 1u64..1 << 40, "[^\n]{1,30}"), 0..20),
            piece in 1usize..50,
        ) {
            let text: String =
                entries.iter().map(|(a, s, n)| format!("{a:x} {s:x} {n}\n")).collect();
            let mut parser = PerfMapParser::default();
            let mut got = Vec::new();
            for piece in text.as_bytes().chunks(piece) {
                got.extend(parse(&mut parser, piece));
            }
            let want: Vec<Owned> = entries
                .iter()
                .map(|(a, s, n)| (u64::from(*a), *s, n.as_bytes().to_vec()))
                .collect();
            prop_assert_eq!(got, want);
        }
    }
}
