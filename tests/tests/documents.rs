//! What the documents say about the command line is what the programs answer to `--help`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use harness::binaries;
use harness::command::run;

/// Program, subcommand, long flag.
type Use = (String, String, String);

// Commands stand in `code` or in lines that are set off; ours begin with the program's name.
fn uses(text: &str) -> BTreeSet<Use> {
    let mut found = BTreeSet::new();
    for line in text.lines() {
        for code in line.split('`') {
            for program in ["nrec", "nanalyze"] {
                for (at, _) in code.match_indices(&format!("{program} ")) {
                    if code[..at].ends_with(|c: char| c.is_alphanumeric() || "/.-_".contains(c)) {
                        continue;
                    }
                    let mut words = code[at..].split([' ', '[', ']', '|', ',', ';', ')']).skip(1);
                    let Some(subcommand) = words.find(|word| !word.is_empty()) else { continue };
                    // What follows a lone `--` is another program's.
                    for flag in words.take_while(|word| *word != "--") {
                        let flag = flag.split(['=', '.']).next().unwrap_or(flag);
                        if flag.starts_with("--") && flag.len() > 2 {
                            found.insert((program.into(), subcommand.into(), flag.into()));
                        }
                    }
                }
            }
        }
    }
    found
}

#[test]
fn uses_are_found() {
    let text = "Run `nrec record -p 7 --duration 5s -- node --inspect`, or\n\
                \x20   nanalyze report FILE [--json] [--top N]\n\
                the file my-nrec --no and `xnrec --no`";
    let flags: Vec<_> = uses(text).into_iter().map(|(_, _, flag)| flag).collect();
    assert_eq!(flags, ["--json", "--top", "--duration"]);
}

fn documents() -> Result<Vec<PathBuf>> {
    let mut files = vec![binaries::repository().join("README.md")];
    for entry in fs::read_dir(binaries::repository().join("docs"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            files.push(path);
        }
    }
    Ok(files)
}

#[test]
fn every_flag_in_the_documents_exists() -> Result<()> {
    let programs =
        BTreeMap::from([("nrec", binaries::nrec()?), ("nanalyze", binaries::nanalyze()?)]);
    let mut checked = 0;
    for file in documents()? {
        let text = fs::read_to_string(&file).context("cannot read a document")?;
        for (program, subcommand, flag) in uses(&text) {
            let binary = programs.get(program.as_str()).context("an unknown program")?;
            let help = run(Command::new(binary).args([&subcommand, "--help"]))?.expect_code(0);
            let help =
                help.with_context(|| format!("{}: {program} {subcommand}", file.display()))?;
            let known = help.stdout.split([' ', ',', '\n']).any(|word| word == flag);
            assert!(known, "{}: `{program} {subcommand}` has no {flag}", file.display());
            checked += 1;
        }
    }
    assert!(checked > 0, "no document names a flag");
    Ok(())
}

#[test]
fn what_is_not_known_of_file_operations_is_what_the_matrix_says() -> Result<()> {
    let script = binaries::fixture("workloads/file-matrix.js");
    let mut command = Command::new(binaries::require_program("node")?);
    let told = run(command.arg(script).arg("--table"))?.expect_code(0)?;
    let document = binaries::repository().join("docs/file-operations.md");
    let text = fs::read_to_string(document).context("cannot read the document")?;
    assert!(
        text.contains(&format!("\n\n{}\n## ", told.stdout)),
        "docs/file-operations.md needs what `node fixtures/workloads/file-matrix.js --table` prints"
    );
    Ok(())
}
