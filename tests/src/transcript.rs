//! Terminal transcripts in documents: the commands that stand in them, and whether what was printed
//! there still has the shape of what is printed now.
//!
//! Pure: it must not run anything.

use anyhow::{Result, bail};

/// Opens a transcript in Markdown.
const FENCE: &str = "```console";
/// A line of a transcript that stands for any number of lines.
const ANY_LINES: &str = "[…]";
/// What may follow a number and change with it.
const UNITS: [&str; 9] = ["ns", "µs", "ms", "s", "B", "KiB", "MiB", "GiB", "bytes"];

/// A command, and what a document says that it prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The command line behind the prompt.
    pub command: String,
    /// The lines below it.
    pub printed: Vec<String>,
}

/// The steps of all transcripts of a Markdown document: prompts are `$ ` and, for root, `# `.
#[must_use]
pub fn steps(markdown: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = markdown.lines();
    while lines.by_ref().any(|line| line == FENCE) {
        for line in lines.by_ref().take_while(|line| *line != "```") {
            let command = line.strip_prefix("$ ").or_else(|| line.strip_prefix("# "));
            match (command, steps.last_mut()) {
                (Some(command), _) => {
                    steps.push(Step { command: command.to_owned(), printed: Vec::new() });
                }
                (None, Some(step)) => step.printed.push(line.to_owned()),
                (None, None) => {}
            }
        }
    }
    steps
}

impl Step {
    /// Fails unless the printed lines have the shape of `real`.
    ///
    /// # Errors
    /// With the first line of the document that `real` does not have, and all of `real`.
    pub fn compare(&self, real: &str) -> Result<()> {
        let real_shapes: Vec<String> = real.lines().map(shape).collect();
        let mut rest = real_shapes.as_slice();
        let mut may_skip = false;
        for line in &self.printed {
            if line.trim() == ANY_LINES {
                may_skip = true;
                continue;
            }
            let wanted = shape(line);
            let at = if may_skip {
                rest.iter().position(|other| *other == wanted)
            } else {
                (rest.first() == Some(&wanted)).then_some(0)
            };
            let Some(at) = at else {
                bail!("`{}` no longer prints {line:?} there, but:\n{real}", self.command);
            };
            rest = rest.get(at + 1..).unwrap_or_default();
            may_skip = false;
        }
        if let Some(line) = rest.first().filter(|_| !may_skip) {
            bail!("`{}` prints more, from {line:?} on:\n{real}", self.command);
        }
        Ok(())
    }
}

/// What stays of a line when another day and another machine print it: `#` stands for numbers with
/// their units and for the kernel's release, a folded part of a stack is `…`, and padding is one blank.
fn shape(line: &str) -> String {
    let mut shape = String::new();
    let mut before = "";
    for word in line.split_whitespace() {
        if word.starts_with('…') {
            shape.push_str(" …");
            break;
        }
        let follows_number = before.ends_with(|c: char| c.is_ascii_digit());
        if follows_number && UNITS.contains(&word.trim_end_matches([',', ':', '>'])) {
            // `1.14 ms>` and `99 µs>` end alike.
            shape.push_str(word.trim_start_matches(char::is_alphanumeric));
        } else if before == "Linux" {
            shape.push_str(" #");
        } else {
            shape.push(' ');
            shape.push_str(&without_numbers(word));
        }
        before = word;
    }
    shape
}

fn without_numbers(word: &str) -> String {
    let mut text = String::new();
    for c in word.chars() {
        match c {
            '0'..='9' if text.ends_with('#') => {}
            '0'..='9' => text.push('#'),
            c => text.push(c),
        }
    }
    while text.contains("#.#") {
        text = text.replace("#.#", "#");
    }
    // `35.5µs` of one run is `1.2ms` in the next.
    for unit in UNITS.iter().filter(|unit| unit.ends_with('s')) {
        for end in ["", ")"] {
            if let Some(begin) = text.strip_suffix(&format!("#{unit}{end}")) {
                return format!("{begin}#{end}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "# A title\n\n```text\n$ not this\n```\n\n```console\n$ a --b c\none  1.5 ms\n\
        [\u{2026}]\nend\n# d\n```\nbetween\n```console\n$ e\n```\n";

    #[test]
    fn commands_and_what_they_print() {
        let steps = steps(DOCUMENT);
        let commands: Vec<_> = steps.iter().map(|step| step.command.as_str()).collect();
        assert_eq!(commands, ["a --b c", "d", "e"]);
        assert_eq!(steps[0].printed, ["one  1.5 ms", "[…]", "end"]);
        assert!(steps[2].printed.is_empty());
    }

    #[test]
    fn what_changes_from_day_to_day_is_no_difference() {
        assert_eq!(shape("  3   3  231 µs   open /etc/x"), shape("1 10 1.14 ms open /etc/x"));
        assert_eq!(shape("<1.14 ms> async"), shape("<99 µs> async"));
        assert_eq!(shape("queue 83.4µs (syscalls 5µs) x"), shape("queue 1.6ms (syscalls 2ms) x"));
        assert_eq!(shape("on Linux 6.18.44-a-b9"), shape("on Linux 6.1"));
        assert_eq!(shape("  … Node: open, 6 native"), shape("… Node: readFile"));
        assert_ne!(shape("open /etc/x  ENOENT 3"), shape("open /etc/x  EACCES 3"));
        assert_ne!(shape("open /etc/x"), shape("open /etc/y"));
        assert_ne!(shape("3 samples"), shape("3 opens"));
    }

    #[test]
    fn a_line_that_is_gone_new_or_moved_is_a_difference() {
        let step = &steps(DOCUMENT)[0];
        assert!(step.compare("one 7 s\nx\ny\nend\n").is_ok());
        assert!(step.compare("one 7 s\nend\n").is_ok());
        for other in ["one 7 s\nx\n", "two 7 s\nend\n", "x\none 7 s\nend\n", "one 7 s\nend\nx\n"] {
            assert!(step.compare(other).is_err(), "{other}");
        }
    }
}
