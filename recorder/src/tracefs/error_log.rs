//! The kernel's reason for refusing a line, from the tail of tracefs `error_log`.
//!
//! The file keeps the last eight errors of everybody, and some refusals add none: an entry counts
//! only if it repeats our very line. Format: kernel/trace/trace.c, tracing_log_err.

use super::Tracefs;

/// Why the kernel refused `line`, with the word it points at; `None` if it did not say.
pub fn reason_for(tracefs: &Tracefs, line: &str) -> Option<String> {
    let text = std::fs::read(tracefs.root().join("error_log")).ok()?;
    parse(&String::from_utf8_lossy(&text), line)
}

/// Finds the last entry for `line`:
/// ```text
/// [  123.456] trace_uprobe: error: Invalid register name
///   Command: p:g/x FILE:0x10 a=%foo
///                              ^
/// ```
fn parse(log: &str, line: &str) -> Option<String> {
    const COMMAND: &str = "  Command: ";
    let lines: Vec<&str> = log.lines().collect();
    let at = lines.iter().rposition(|text| text.strip_prefix(COMMAND) == Some(line))?;
    let (_, reason) = lines.get(at.checked_sub(1)?)?.split_once(" error: ")?;
    let mut reason = reason.trim_end_matches('.').to_owned();
    if let Some(first) = reason.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    let caret = lines.get(at + 1).and_then(|text| text.find('^'));
    let word = caret
        .and_then(|column| line.get(column.checked_sub(COMMAND.len())?..))
        .and_then(|rest| rest.split(' ').next())
        .filter(|word| !word.is_empty());
    Some(match word {
        Some(word) => format!("{reason} at '{word}'"),
        None => reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As printed by Linux 6.18.
    const LOG: &str = "\
[ 1958.889362] trace_uprobe: error: Invalid register name
  Command: p:nrec_sys/x /usr/bin/node:0x14b1c50 a=%foo
                                                  ^
[ 1958.889420] trace_uprobe: error: Failed to find the given file
  Command: p:nrec_sys/x /usr/bin/nodeXX:0x14b1c50 a=%di
                        ^
";

    #[test]
    fn the_entry_of_our_line_only() {
        let reason = |line| parse(LOG, line);
        assert_eq!(
            reason("p:nrec_sys/x /usr/bin/node:0x14b1c50 a=%foo").as_deref(),
            Some("invalid register name at '%foo'")
        );
        assert_eq!(
            reason("p:nrec_sys/x /usr/bin/nodeXX:0x14b1c50 a=%di").as_deref(),
            Some("failed to find the given file at '/usr/bin/nodeXX:0x14b1c50'")
        );
        assert_eq!(reason("p:nrec_sys/x /usr/bin/node:0x14b1c50"), None, "a stale entry");
        assert_eq!(parse("", "p:g/x"), None);
    }
}
