//! The doctor's page: aligned, short, and safe for a terminal. Knows nothing of what was examined.

use std::io::{self, Write};

use formats::text::clean_string;

use super::{Finding, Level};

/// Columns of the page: what a terminal beside an editor has.
const WIDTH: usize = 100;
/// Longest text that is shown, characters; a hostile path is cut here.
const MAX_TEXT: usize = 1000;

/// Prints findings for people: a mark, the subject, the text, and below it what helps.
///
/// # Errors
/// What writing says.
pub fn print(findings: &[Finding], out: &mut dyn Write) -> io::Result<()> {
    let clean = |text: &str| clean_string(text.as_bytes(), MAX_TEXT);
    let subjects: Vec<String> = findings.iter().map(|finding| clean(&finding.subject)).collect();
    let column = subjects.iter().map(|subject| subject.chars().count()).max().unwrap_or(0);
    let indent = 2 + 2 + column + 2;
    for (finding, subject) in findings.iter().zip(&subjects) {
        let mark = match finding.level {
            Level::Good => "ok",
            Level::Limited => "--",
            Level::Bad => "!!",
        };
        write!(out, "{mark}  {subject:column$}  ")?;
        paragraph(out, &clean(&finding.text), indent)?;
        if let Some(remedy) = &finding.remedy {
            write!(out, "{:indent$}> ", "")?;
            paragraph(out, &clean(remedy), indent + 2)?;
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let verdict = match (count(Level::Bad), count(Level::Limited)) {
        (0, 0) => "Nothing stands in the way.".to_owned(),
        (0, limited) => format!("Recording works; {limited} marked -- will be missing something."),
        (bad, 0) => format!("{bad} marked !! stand in the way."),
        (bad, limited) => {
            format!("{bad} marked !! stand in the way, {limited} marked -- limit what is seen.")
        }
    };
    writeln!(out, "\n{verdict}")
}

/// Writes words from column `indent` on, with further lines beginning there too. A word that is
/// longer than a line stays whole, so that it can be copied.
fn paragraph(out: &mut dyn Write, text: &str, indent: usize) -> io::Result<()> {
    let mut at = indent;
    for (index, word) in words(text).enumerate() {
        let width = word.chars().count();
        if index > 0 && at + 1 + width > WIDTH {
            write!(out, "\n{:indent$}{word}", "")?;
            at = indent + width;
        } else {
            let space = if index == 0 { "" } else { " " };
            write!(out, "{space}{word}")?;
            at += width + space.len();
        }
    }
    writeln!(out)
}

/// Words between spaces; an assignment in quotes, `NAME='a b'`, is one, so that it can be copied.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let space = text.find(' ').unwrap_or(text.len());
        let end = match text.find("='") {
            Some(at) if at < space => {
                let close = text[at + 2..].find('\'').map_or(0, |close| at + 2 + close);
                close + text[close..].find(' ').unwrap_or(text.len() - close)
            }
            _ => space,
        };
        let (word, tail) = text.split_at(end);
        rest = tail.strip_prefix(' ');
        Some(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(findings: &[Finding]) -> String {
        let mut out = Vec::new();
        print(findings, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_align_and_remedies_follow() {
        let findings = [
            Finding::good("kernel", "6.18"),
            Finding::limited("JavaScript", "none", "start it with flags"),
            Finding::bad("tracefs", "closed", None),
        ];
        assert_eq!(
            page(&findings),
            "ok  kernel      6.18\n\
             --  JavaScript  none\n\
             \x20               > start it with flags\n\
             !!  tracefs     closed\n\
             \n1 marked !! stand in the way, 1 marked -- limit what is seen.\n"
        );
        assert!(page(&findings[..1]).ends_with("\nNothing stands in the way.\n"));
    }

    #[test]
    fn long_texts_are_wrapped_and_hostile_ones_neutralised() {
        let sixty = "word ".repeat(60);
        let text = page(&[Finding::good("s", sixty.trim_end())]);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert_eq!(text.matches("word").count(), 60);
        let text = page(&[Finding::good("s\u{1b}[2J", "a\nok  b\u{202e}")]);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
        let split: Vec<_> = words("it's  A='b c' d A='b c").collect();
        assert_eq!(split, ["it's", "", "A='b c'", "d", "A='b", "c"]);
        assert!(page(&[Finding::good("s", "x".repeat(1 << 20))]).len() < 2 * MAX_TEXT);
    }
}
