//! What the reader of a report must know about the import, counted by kind.

use std::collections::BTreeMap;

use formats::capture::Remark;

/// Remarks by their stable code.
#[derive(Debug, Default)]
pub(super) struct Remarks(BTreeMap<&'static str, (String, u64)>);

impl Remarks {
    /// Adds `count` to a remark. The sentence of the first one is kept; nothing is added for 0.
    pub(super) fn add(&mut self, code: &'static str, count: u64, text: impl FnOnce() -> String) {
        if count > 0 {
            self.0.entry(code).or_insert_with(|| (text(), 0)).1 += count;
        }
    }

    /// The remarks in the order of their codes.
    pub(super) fn finish(self) -> Vec<Remark> {
        self.0
            .into_iter()
            .map(|(code, (text, count))| Remark { code: code.to_owned(), text, count })
            .collect()
    }
}
