//! Lines of a text that arrives in pieces, with bounded memory. It must not know what a line means.

/// Splits pieces of a text into lines. A line that a piece ends in the middle of is kept for the
/// next piece; a line above the limit is thrown away up to its end and counted.
#[derive(Debug, Clone)]
pub struct Lines {
    max_line: usize,
    torn: Vec<u8>,
    skipping: bool,
    long_lines: u64,
}

impl Lines {
    /// `max_line`: longest line that is given out, bytes, without its newline. No more than that is
    /// ever held in memory.
    pub fn new(max_line: usize) -> Self {
        Self { max_line, torn: Vec::new(), skipping: false, long_lines: 0 }
    }

    /// Calls `f` with every line that `bytes` completes, without the newline.
    pub fn push(&mut self, mut bytes: &[u8], mut f: impl FnMut(&[u8])) {
        while let Some(at) = bytes.iter().position(|b| *b == b'\n') {
            let (line, rest) = bytes.split_at(at);
            bytes = rest.get(1..).unwrap_or_default();
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if self.torn.len().saturating_add(line.len()) > self.max_line {
                self.long_lines += 1;
                self.torn.clear();
            } else if self.torn.is_empty() {
                f(line);
            } else {
                self.torn.extend_from_slice(line);
                f(&self.torn);
                self.torn.clear();
            }
        }
        if self.skipping {
            return;
        }
        if self.torn.len().saturating_add(bytes.len()) > self.max_line {
            self.long_lines += 1;
            self.torn.clear();
            self.skipping = true;
        } else {
            self.torn.extend_from_slice(bytes);
        }
    }

    /// Takes the last line if it had no newline, and forgets it.
    pub fn take_torn(&mut self) -> Option<Vec<u8>> {
        self.skipping = false;
        let torn = std::mem::take(&mut self.torn);
        (!torn.is_empty()).then_some(torn)
    }

    /// Lines thrown away because they were too long.
    pub fn long_lines(&self) -> u64 {
        self.long_lines
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_do_not_matter(text in "[ab\n]{0,200}", cuts in prop::collection::vec(0usize..200, 0..9), max in 0usize..9) {
            let mut want: Vec<&[u8]> = text.as_bytes().split(|b| *b == b'\n').collect();
            let torn = want.pop().unwrap();
            let long = want.iter().chain([&torn]).filter(|l| l.len() > max).count() as u64;
            want.retain(|l| l.len() <= max);

            let mut lines = Lines::new(max);
            let mut got: Vec<Vec<u8>> = Vec::new();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            for pair in cuts.windows(2) {
                lines.push(&text.as_bytes()[pair[0]..pair[1]], |l| got.push(l.to_vec()));
                prop_assert!(lines.torn.len() <= max);
            }
            prop_assert_eq!(got, want);
            prop_assert_eq!(lines.long_lines(), long);
            let kept = (!torn.is_empty() && torn.len() <= max).then(|| torn.to_vec());
            prop_assert_eq!(lines.take_torn(), kept);
        }
    }
}
