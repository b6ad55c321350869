//! Listing without privileges: this program, this process, and files made for it.

use std::path::Path;

use formats::probe::{EventSpec, ProbeKind};

use super::*;

/// A function of this program that must be found.
#[inline(never)]
fn landmark() -> u32 {
    std::hint::black_box(7)
}

const LANDMARK: &str = "recorder::list::tests::landmark";

fn own_program() -> PathBuf {
    std::env::current_exe().unwrap().canonicalize().unwrap()
}

fn functions(source: Source, pattern: Option<&str>) -> ListPlan {
    let pattern = pattern.map(|text: &str| Wildcard::new(text.as_bytes()));
    ListPlan { source, choice: Choice::Functions, pattern, demangle: false }
}

fn in_file(path: &Path, pattern: Option<&str>) -> Listing {
    list(&functions(Source::File(path.into()), pattern)).unwrap()
}

#[test]
fn every_line_is_an_event_sorted_and_once() {
    assert_eq!(landmark(), 7);
    let own = own_program();
    let listing = in_file(&own, None);
    assert!(listing.lines.len() > 1000, "{} lines", listing.lines.len());
    assert!(listing.lines.is_sorted_by(|a, b| a < b));
    for line in &listing.lines {
        let Ok(EventSpec::Probe(spec)) = line.parse() else { panic!("{line}") };
        assert_eq!((spec.kind, spec.offset, spec.file.as_deref()), {
            (ProbeKind::Entry, 0, own.to_str())
        });
    }
    assert!(!listing.incomplete);
}

#[test]
fn readable_names_fit_with_or_without_namespaces() {
    let own = own_program();
    let whole = in_file(&own, Some(LANDMARK));
    let [line] = whole.lines.as_slice() else { panic!("{whole:?}") };
    assert!(line.contains("landmark"), "{line}");
    for pattern in ["landmark", "tests::landmark", "recorder::list::*mark", "*list*landmark*"] {
        assert!(in_file(&own, Some(pattern)).lines.contains(line), "{pattern}");
    }
    // The middle of a word is no name.
    assert!(!in_file(&own, Some("mark")).lines.contains(line));
    let plan = ListPlan { demangle: true, ..functions(Source::File(own.into()), Some(LANDMARK)) };
    assert_eq!(list(&plan).unwrap().lines, [format!("{line}  # {LANDMARK}")]);
}

#[test]
fn the_files_of_a_process_are_searched() {
    let own = in_file(&own_program(), Some(LANDMARK));
    let process = Source::Process(std::process::id());
    assert_eq!(list(&functions(process.clone(), Some(LANDMARK))).unwrap().lines, own.lines);
    let libc = list(&functions(process, Some("getpid"))).unwrap();
    let libc: Vec<_> = libc.lines.iter().filter(|line| line.contains("/libc.so")).collect();
    assert_eq!(libc.len(), 1, "{libc:?}");
}

#[test]
fn nothing_is_explained() {
    let own = own_program();
    let nothing = in_file(&own, Some("landmar"));
    assert_eq!(nothing.lines, [""; 0]);
    assert!(nothing.notes[0].contains("no function fits 'landmar' in"), "{:?}", nothing.notes);
    assert!(nothing.notes[1].contains("'*landmar*'"), "{:?}", nothing.notes);
    assert!(nothing.notes.iter().any(|note| note.contains("libc.so")), "{:?}", nothing.notes);
    let uv = ListPlan { choice: Choice::Uv, ..functions(Source::File(own.into()), None) };
    let uv = list(&uv).unwrap();
    assert!(uv.lines.is_empty() && uv.notes[0].contains("libuv"), "{:?}", uv.notes);
}

/// Overwrites the types of the sections that `which` names by index and type.
fn retype(file: &mut [u8], which: impl Fn(u32) -> bool) {
    // e_shoff, e_shentsize, e_shnum and sh_type: elf(5).
    let number = |file: &[u8], at: usize, bytes: usize| {
        let mut all = [0; 8];
        all[..bytes].copy_from_slice(&file[at..at + bytes]);
        u64::from_le_bytes(all) as usize
    };
    let (start, size, count) = (number(file, 40, 8), number(file, 58, 2), number(file, 60, 2));
    for section in (0..count).map(|index| start + index * size + 4) {
        if which(number(file, section, 4) as u32) {
            file[section..section + 4].copy_from_slice(&[0; 4]);
        }
    }
}

#[test]
fn stripped_foreign_and_strange_files_are_explained() {
    const SYMTAB: u32 = 2;
    const DYNSYM: u32 = 11;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap().join("program");
    let libc = list(&functions(Source::Process(std::process::id()), Some("getpid"))).unwrap();
    let libc = libc.lines.iter().find(|line| line.contains("/libc.so")).unwrap();
    let libc = libc.strip_prefix("uprobe:").unwrap().strip_suffix(":getpid").unwrap();
    let whole = std::fs::read(libc).unwrap();

    let mut stripped = whole.clone();
    retype(&mut stripped, |kind| kind == SYMTAB);
    std::fs::write(&path, &stripped).unwrap();
    let listing = in_file(&path, Some("getpid"));
    assert_eq!(listing.lines, [format!("uprobe:{}:getpid", path.display())]);
    assert!(listing.notes.iter().any(|note| note.starts_with("stripped")), "{:?}", listing.notes);

    let mut bare = whole.clone();
    retype(&mut bare, |kind| [SYMTAB, DYNSYM].contains(&kind));
    std::fs::write(&path, &bare).unwrap();
    let listing = in_file(&path, Some("getpid"));
    assert!(listing.lines.is_empty());
    assert!(listing.notes.iter().any(|note| note.contains("no symbols")), "{:?}", listing.notes);

    let mut foreign = whole.clone();
    foreign[18] = 183; // EM_AARCH64
    for (bytes, words) in [
        (&foreign[..], "another machine"),
        (&whole[..5000], "cannot read"),
        (b"#!/usr/bin/env node\n", "a script; the program that runs it is 'node'"),
        (b"text", "not an ELF file"),
        (b"", "not an ELF file"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = list(&functions(Source::File(path.clone().into()), None)).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_file_with_a_strange_path_is_called_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("it's here");
    std::fs::create_dir(&path).unwrap();
    let path = path.join("program");
    std::fs::copy(own_program(), &path).unwrap();
    let lines = in_file(&path, Some(LANDMARK)).lines;
    assert!(lines.len() == 1 && lines[0].starts_with("uprobe:program:"), "{lines:?}");
}

#[test]
fn indirect_functions_are_left_out() {
    let process = Source::Process(std::process::id());
    let listing = list(&functions(process, Some("memcpy"))).unwrap();
    let in_libc = listing.lines.iter().any(|line| line.contains("/libc.so"));
    let told = listing.notes.iter().any(|note| note.contains("IFUNC") && note.contains("memcpy"));
    // glibc chooses memcpy at start on this architecture; other C libraries have just one.
    assert!(in_libc != told, "{listing:?}");
}

struct Closed;

impl Write for Closed {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_closed_pipe_is_told_apart() {
    let listing = Listing { lines: vec!["x".into(); 3], ..Listing::default() };
    assert_eq!(print(&listing, &mut Closed).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    let mut out = Vec::new();
    print(&listing, &mut out).unwrap();
    assert_eq!(out, b"x\nx\nx\n");
}
