//! What the user sees while recording: messages, and on a terminal one live line.

use std::io::{IsTerminal, Write};

use formats::text::Clean;

/// Where messages go: standard error, as results go to standard output.
#[derive(Debug)]
pub struct Console {
    live: bool,
    line_shown: bool,
}

impl Default for Console {
    fn default() -> Self {
        Self { live: std::io::stderr().is_terminal(), line_shown: false }
    }
}

/// Numbers of the live line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Seconds since the start.
    pub seconds: f64,
    /// Samples so far.
    pub samples: u64,
    /// Samples a second since the last line.
    pub rate: f64,
    /// Records that the kernel lost.
    pub lost: u64,
    /// Bytes of the capture.
    pub bytes: u64,
}

impl Console {
    /// Messages only: the terminal shows results, which a live line would be among.
    #[must_use]
    pub fn of_messages() -> Self {
        Self { live: false, line_shown: false }
    }

    /// Says a sentence, below the live line.
    pub fn say(&mut self, text: &str) {
        self.clear();
        // There is nobody to tell when standard error is closed. Names of the target may be in the
        // text: they must not act on the terminal.
        let _closed = writeln!(std::io::stderr(), "nrec: {}", Clean::text(text));
    }

    /// Renews the live line.
    pub fn progress(&mut self, now: Progress) {
        if !self.live {
            return;
        }
        let Progress { seconds, samples, rate, lost, bytes } = now;
        let size = size(bytes);
        let _closed = write!(
            std::io::stderr(),
            "\r\x1b[Knrec: {seconds:.0} s, {samples} events ({rate:.0}/s), {lost} lost, {size}"
        );
        self.line_shown = true;
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.line_shown) {
            let _closed = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// Bytes for people.
#[must_use]
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}
