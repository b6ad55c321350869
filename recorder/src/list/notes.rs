//! What is not listed, and why: for standard error. Collects while files are searched; must not
//! decide what is listed.

use std::collections::BTreeSet;
use std::fs::File;

use formats::elf::{ElfError, ElfInfo};
use formats::text::Clean;

use super::functions::Verdict;
use super::{Choice, ListError, ListPlan, Source, files};
use crate::process::objects::{MappedFile, Objects};

/// Files or functions that are named in one sentence.
const NAMED: usize = 6;

/// Everything there is to explain. Names are neutralised when they are printed.
#[derive(Debug, Default)]
pub(super) struct Notes {
    unreadable: Vec<String>,
    damaged: Vec<(String, String)>,
    no_elf: Vec<(String, Option<String>)>,
    unwritable_paths: Vec<String>,
    stripped: Vec<String>,
    bare: Vec<String>,
    indirect: BTreeSet<String>,
    labels: BTreeSet<String>,
    no_code: BTreeSet<String>,
    unwritable: BTreeSet<String>,
    near: BTreeSet<String>,
}

impl Notes {
    /// A file could not be opened.
    pub(super) fn unreadable(&mut self, object: &MappedFile) {
        self.unreadable.push(path(object));
    }

    /// A file is not one whose symbols are read.
    pub(super) fn no_elf(&mut self, object: &MappedFile, file: &File, error: &ElfError) {
        match error {
            ElfError::NotElf => self.no_elf.push((path(object), files::interpreter(file))),
            other => self.damaged.push((path(object), other.to_string())),
        }
    }

    /// No EVENT can name the file.
    pub(super) fn unwritable_path(&mut self, object: &MappedFile) {
        self.unwritable_paths.push(path(object));
    }

    /// A file was searched.
    pub(super) fn symbols(&mut self, object: &MappedFile, elf: &ElfInfo) {
        match (elf.has_symtab, elf.has_dynsym) {
            (true, _) => {}
            (false, true) => self.stripped.push(path(object)),
            (false, false) => self.bare.push(path(object)),
        }
    }

    /// A function fits and cannot be probed.
    pub(super) fn left_out(&mut self, symbol: &str, verdict: Verdict) {
        let list = match verdict {
            Verdict::Indirect => &mut self.indirect,
            Verdict::Label => &mut self.labels,
            Verdict::NoCode => &mut self.no_code,
            Verdict::Unwritable => &mut self.unwritable,
            Verdict::Probeable => return,
        };
        list.insert(symbol.to_owned());
    }

    /// A name does not fit, but has the pattern in it.
    pub(super) fn near(&mut self, name: &str) {
        self.near.insert(name.to_owned());
    }

    /// A file that should have been searched was not.
    pub(super) fn is_incomplete(&self) -> bool {
        !(self.unreadable.is_empty() && self.damaged.is_empty() && self.unwritable_paths.is_empty())
    }

    /// The error, where there is only one file and it has no symbols for us.
    pub(super) fn only_file(&mut self) -> Option<ListError> {
        if let Some((path, interpreter)) = self.no_elf.pop() {
            let cause = match interpreter {
                Some(program) => format!("a script; the program that runs it is '{program}'"),
                None => "not an ELF file: neither a program nor a library".to_owned(),
            };
            return Some(ListError::NoSymbols { path, cause });
        }
        let (path, cause) = self.damaged.pop()?;
        Some(ListError::NoSymbols { path, cause })
    }

    /// Sentences for people. Without lines, why there are none comes first.
    pub(super) fn texts(&self, plan: &ListPlan, empty: bool, objects: &Objects) -> Vec<String> {
        let mut texts = Vec::new();
        if empty {
            texts.push(nothing(plan, objects));
            if let Some(pattern) = plan.pattern.as_ref().filter(|_| !self.near.is_empty()) {
                texts.push(format!(
                    "{} have '{1}' in their name; '*{1}*' shows them: {2}",
                    count(self.near.len(), "function"),
                    Clean(pattern.text()),
                    few(&self.near)
                ));
            }
            texts.extend(elsewhere(plan, objects));
        }
        let mut say = |files: &[String], text: &str| {
            if !files.is_empty() {
                texts.push(format!("{text}: {}", files.join(", ")));
            }
        };
        say(
            &self.stripped,
            "stripped, so only the functions that it exports are known (a build with symbols has \
             the others)",
        );
        say(&self.bare, "has no symbols at all (a build with symbols has them)");
        say(
            &self.unreadable,
            "cannot be read, or is not the file that the process runs (run as root; restart a \
             process whose files were replaced)",
        );
        say(&self.unwritable_paths, "no EVENT can name this file, because of its path");
        for (path, cause) in &self.damaged {
            texts.push(format!("{path}: {cause}"));
        }
        let no_elf: Vec<&str> = self.no_elf.iter().map(|(path, _script)| path.as_str()).collect();
        if !no_elf.is_empty() {
            texts.push(format!("not an ELF file, so it has no symbols: {}", no_elf.join(", ")));
        }
        for (list, why) in [
            (
                &self.indirect,
                "code there runs once and chooses the function that is then called (IFUNC), so a \
                 probe sees no calls",
            ),
            (&self.labels, "their symbols have no size, so they may be data among the code"),
            (&self.no_code, "no instruction there can be probed"),
            (&self.unwritable, "an EVENT cannot hold the name"),
        ] {
            if !list.is_empty() {
                let left_out = count(list.len(), "function");
                texts.push(format!("{left_out} left out, {why}: {}", few(list)));
            }
        }
        texts
    }
}

fn nothing(plan: &ListPlan, objects: &Objects) -> String {
    let what = match plan.choice {
        Choice::Functions => "no function",
        Choice::Uv => "no function of libuv (uv_*)",
        Choice::Catalogue => "no function of the catalogue",
    };
    let fits = match &plan.pattern {
        Some(pattern) => format!(" fits '{}'", Clean(pattern.text())),
        None => " can be probed".to_owned(),
    };
    let place = match (&plan.source, objects.get(0)) {
        (Source::File(_), Some(object)) => path(object),
        (Source::Process(pid), _) => {
            format!("the {} that process {pid} has mapped", count(objects.iter().count(), "file"))
        }
        (Source::File(name), None) => name.to_string_lossy().into_owned(),
    };
    format!("{what}{fits} in {place}")
}

/// Where else it may be: a program that is only a starter has its code in libraries.
fn elsewhere(plan: &ListPlan, objects: &Objects) -> Option<String> {
    match plan.source {
        Source::File(_) => {
            let elf = objects.get(0)?.elf.as_ref().filter(|elf| !elf.needed.is_empty())?;
            Some(format!(
                "its libraries were not searched (list one by its path, or a running process with \
                 -p PID): {}",
                few(&elf.needed)
            ))
        }
        Source::Process(_) if plan.choice != Choice::Functions => {
            Some("is it Node.js? nrec doctor -p PID says what the process is".to_owned())
        }
        Source::Process(_) => None,
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn few<'a>(names: impl IntoIterator<Item = &'a String> + Clone) -> String {
    let named: Vec<&str> = names.clone().into_iter().take(NAMED).map(String::as_str).collect();
    match names.into_iter().count().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

fn path(object: &MappedFile) -> String {
    let deleted = if object.deleted { " (replaced since)" } else { "" };
    format!("{}{deleted}", String::from_utf8_lossy(&object.path))
}
