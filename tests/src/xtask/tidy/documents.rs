//! Rules for README.md and docs/*.md: what they name exists.

use std::collections::BTreeSet;

use super::{Finding, TextFile};

const README_LINES: usize = 200;

/// Tasks that the README must name, since people and CI call them from there.
const README_COMMANDS: [&str; 2] = ["cargo xtask demo", "cargo xtask test"];

/// Names that begin so are paths in this repository.
const TOP_FOLDERS: [&str; 8] =
    ["recorder/", "analyzer/", "formats/", "fixtures/", "tests/", "docs/", ".ci/", ".cargo/"];

/// Applies the rules of this module.
pub(crate) fn check(files: &[TextFile]) -> Vec<Finding> {
    let known = known_paths(files);
    let mut findings = check_readme(files);
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for (index, line) in file.text.lines().enumerate() {
            let place = format!("{}:{}", file.path, index + 1);
            for link in relative_links(line) {
                let target = resolve(&file.path, link);
                if !target.as_ref().is_some_and(|target| known.contains(target)) {
                    findings.push(Finding::Failure(format!("{place}: {link} does not exist")));
                }
            }
            for name in named_paths(line).filter(|name| !known.contains(*name)) {
                findings.push(Finding::Failure(format!("{place}: `{name}` does not exist")));
            }
        }
    }
    findings
}

fn check_readme(files: &[TextFile]) -> Vec<Finding> {
    let Some(readme) = files.iter().find(|file| file.path == "README.md") else {
        return vec![Finding::Failure("there is no README.md".to_owned())];
    };
    let mut findings = Vec::new();
    let lines = readme.text.lines().count();
    if lines >= README_LINES {
        findings.push(Finding::Failure(format!(
            "README.md has {lines} lines, {README_LINES} are too many"
        )));
    }
    for command in README_COMMANDS.iter().filter(|command| !readme.text.contains(**command)) {
        findings.push(Finding::Failure(format!("README.md does not name `{command}`")));
    }
    findings
}

// All files, and all their folders with and without a slash at the end.
fn known_paths(files: &[TextFile]) -> BTreeSet<String> {
    let mut known = BTreeSet::from([String::new()]);
    for file in files {
        known.insert(file.path.clone());
        for (at, _) in file.path.match_indices('/') {
            known.insert(file.path[..at].to_owned());
            known.insert(file.path[..=at].to_owned());
        }
    }
    known
}

// The targets of `[text](target)` that are neither elsewhere nor in the same file.
fn relative_links(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("](").filter_map(move |(at, opening)| {
        let rest = &line[at + opening.len()..];
        let target = rest[..rest.find(')')?].split([' ', '#']).next()?;
        let elsewhere = target.contains("://") || target.starts_with("mailto:");
        (!target.is_empty() && !elsewhere).then_some(target)
    })
}

// Paths in `code` that begin at the root of the repository: `recorder/src/sys`, `docs/x.md:12`.
fn named_paths(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2).filter_map(|code| {
        let is_path = TOP_FOLDERS.iter().any(|folder| code.starts_with(folder))
            && !code.contains([' ', '*', '<', '>', '{', '$', '…']);
        let path = code.split([':', '#']).next()?;
        is_path.then_some(path)
    })
}

// `None` if the link leads out of the repository.
fn resolve(from: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.trim_end_matches('/').split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    const README: &str = "# nrec\n`cargo xtask demo` and `cargo xtask test`\n";

    fn findings(extra: &[TextFile], document: &str) -> usize {
        let mut files = vec![file("README.md", README), file("docs/a.md", document)];
        files.extend(extra.iter().map(|extra| file(&extra.path, &extra.text)));
        check(&files).len()
    }

    #[test]
    fn links_are_resolved_from_their_document() {
        assert_eq!(
            findings(&[], "[up](../README.md) [here](a.md#part) [top](#part) [dir](../docs/)"),
            0
        );
        assert_eq!(findings(&[], "[web](https://example.org/x) [mail](mailto:a@example.org)"), 0);
        assert_eq!(findings(&[], "[gone](b.md)"), 1);
        assert_eq!(findings(&[], "[out](../../b.md) [one](a.md) [two](c.md)"), 2);
        assert_eq!(findings(&[file("docs/b.md", "")], "[back](b.md \"title\")"), 0);
    }

    #[test]
    fn paths_in_code_are_resolved_from_the_root() {
        let source = [file("recorder/src/sys/ring.rs", "")];
        assert_eq!(findings(&source, "`recorder/src/sys/ring.rs:12`, `recorder/src`"), 0);
        assert_eq!(findings(&source, "`recorder/src/sys/` and `recorder/src/gone.rs`"), 1);
        assert_eq!(findings(&source, "`docs/*.md`, `cargo test`, `formats/NAME` no"), 1);
        assert_eq!(findings(&source, "recorder/src/gone.rs without code marks"), 0);
    }

    #[test]
    fn the_readme_is_short_and_names_the_commands() {
        assert_eq!(check(&[]).len(), 1);
        assert_eq!(check(&[file("README.md", "# nrec\n")]).len(), 2);
        let long = format!("{README}{}", "\n".repeat(200));
        assert_eq!(check(&[file("README.md", &long)]).len(), 1);
    }
}
