//! Rules for every text file and for Rust sources.

use super::{Finding, TextFile};

/// Above this, a source file probably does two things.
const WARN_LINES: usize = 500;
/// Above this, it certainly does.
const FAIL_LINES: usize = 700;

/// Where unsafe code may stand.
const UNSAFE_FOLDER: &str = "recorder/src/sys/";

/// Applies the rules of this module.
pub(crate) fn check(files: &[TextFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        findings.extend(check_unfinished(file));
        findings.extend(check_machine_paths(file));
        if has_extension(file, &["rs"]) {
            findings.extend(check_length(file));
            findings.extend(check_module_doc(file));
            findings.extend(check_unsafe(file));
        }
    }
    findings
}

fn has_extension(file: &TextFile, extensions: &[&str]) -> bool {
    file.path.rsplit_once('.').is_some_and(|(_, extension)| extensions.contains(&extension))
}

fn check_length(file: &TextFile) -> Option<Finding> {
    let lines = file.text.lines().count();
    let text = format!("{} has {lines} lines: split it by concept", file.path);
    match lines {
        _ if lines > FAIL_LINES => Some(Finding::Failure(text)),
        _ if lines > WARN_LINES => Some(Finding::Warning(text)),
        _ => None,
    }
}

fn check_module_doc(file: &TextFile) -> Option<Finding> {
    let first = file.text.lines().map(str::trim).find(|line| !line.is_empty())?;
    // `//!` alone on the first line says nothing.
    let says_something = first.strip_prefix("//!").is_some_and(|doc| !doc.trim().is_empty());
    (!says_something).then(|| {
        Finding::Failure(format!("{} does not begin with a module doc, `//! …`", file.path))
    })
}

fn check_unsafe(file: &TextFile) -> Vec<Finding> {
    if file.path.starts_with(UNSAFE_FOLDER) {
        return Vec::new();
    }
    let has_unsafe = |line: &str| {
        let code = line.split("//").next().unwrap_or("");
        let keyword = concat!("un", "safe");
        ["{", "fn ", "impl ", "trait ", "extern "]
            .iter()
            .any(|next| code.contains(&format!("{keyword} {next}")))
    };
    let lines = file.text.lines().enumerate().filter(|(_, line)| has_unsafe(line));
    lines
        .map(|(index, _)| {
            let place = format!("{}:{}", file.path, index + 1);
            Finding::Failure(format!("{place}: unsafe code belongs under {UNSAFE_FOLDER}"))
        })
        .collect()
}

fn check_unfinished(file: &TextFile) -> Vec<Finding> {
    if !has_extension(file, &["rs", "js", "md", "toml", "sh", "json", "yml"]) {
        return Vec::new();
    }
    // Put together here, so that this file does not break its own rule.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("to", "do!(")];
    let marked = |line: &str| marks.iter().any(|mark| contains_word(line, mark));
    let lines = file.text.lines().enumerate().filter(|(_, line)| marked(line));
    lines
        .map(|(index, _)| Finding::Failure(format!("{}:{}: unfinished", file.path, index + 1)))
        .collect()
}

fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let joins = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        !joins(before) && (word.ends_with('(') || !joins(after))
    })
}

/// Folders that exist on one machine or for one person only.
const MACHINE_FOLDERS: [&str; 3] = ["root", "home", "work"];

fn check_machine_paths(file: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        for folder in MACHINE_FOLDERS {
            let path = format!("/{folder}/");
            // In `https://host/home/` it is a part of a longer name.
            let begins_here = |(at, _): (usize, &str)| {
                !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-/~*>})]".contains(c))
            };
            if line.match_indices(&path).any(begins_here) {
                let place = format!("{}:{}", file.path, index + 1);
                findings.push(Finding::Failure(format!("{place}: a path below /{folder}")));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    fn failures(path: &str, text: &str) -> usize {
        let findings = check(&[file(path, text)]);
        findings.iter().filter(|finding| matches!(finding, Finding::Failure(_))).count()
    }

    #[test]
    fn a_good_file_has_no_finding() {
        assert_eq!(check(&[file("formats/src/a.rs", "//! What it does.\n\nfn a() {}\n")]), []);
    }

    #[test]
    fn long_files() {
        let lines = |count: usize| format!("//! Doc.\n{}", "\n".repeat(count - 1));
        assert_eq!(check(&[file("a.rs", &lines(500))]), []);
        assert!(matches!(check(&[file("a.rs", &lines(501))])[..], [Finding::Warning(_)]));
        assert!(matches!(check(&[file("a.rs", &lines(701))])[..], [Finding::Failure(_)]));
        assert_eq!(check(&[file("a.json", &lines(701))]), []);
    }

    #[test]
    fn module_docs() {
        assert_eq!(failures("a.rs", "use std::fs;\n//! Late.\n"), 1);
        assert_eq!(failures("a.rs", "//!\n//! Doc.\n"), 1);
        assert_eq!(failures("a.rs", "\n//! Doc.\n"), 0);
    }

    #[test]
    fn unsafe_code() {
        let text = format!("//! Doc.\nfn a() {{ {} {{ b() }} }}\n", "unsafe");
        assert_eq!(failures("analyzer/src/a.rs", &text), 1);
        assert_eq!(failures("recorder/src/session.rs", &text), 1);
        assert_eq!(failures("recorder/src/sys/ring.rs", &text), 0);
        assert_eq!(failures("a.rs", "//! Doc.\n#![forbid(unsafe_code)]\n// unsafe words\n"), 0);
    }

    #[test]
    fn unfinished_work() {
        let mark = concat!("TO", "DO");
        assert_eq!(failures("docs/a.md", &format!("# A\n{mark}: write it\n")), 1);
        assert_eq!(failures("docs/a.md", &format!("# A\n{mark}S and MAS{mark}\n")), 0);
        assert_eq!(failures("a.rs", &format!("//! Doc.\n{}!()\n", concat!("to", "do"))), 1);
    }

    #[test]
    fn paths_of_one_machine() {
        for folder in MACHINE_FOLDERS {
            assert_eq!(failures("docs/a.md", &format!("see `/{folder}/x`\n")), 1);
            assert_eq!(failures("a.json", &format!("\"/{folder}/x\"\n")), 1);
            assert_eq!(failures("docs/a.md", &format!("https://host.org/{folder}/x\n")), 0);
        }
    }
}
