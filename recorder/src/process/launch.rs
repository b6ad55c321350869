//! Which files a command will run, before it runs: its program, the programs among its arguments
//! (`env A=1 /opt/node/bin/node`), the interpreter that a `#!` line names, their shared libraries, and
//! the `node` that a script may start. Probes are armed on them
//! before the first instruction; what is missed here is armed when it is mapped.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use formats::elf::ElfInfo;
use object::read::ReadCache;

/// Files looked at for one command.
const MAX_FILES: usize = 128;
/// Where the loader looks besides RUNPATH, LD_LIBRARY_PATH and /etc/ld.so.conf.d (ld.so(8)).
const DEFAULT_FOLDERS: [&str; 5] =
    ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/usr/lib"];

/// The files that a command is likely to map, its program first.
#[must_use]
pub fn files_of(command: &[OsString]) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut waiting: VecDeque<PathBuf> = VecDeque::new();
    waiting.extend(command.first().and_then(|program| which(program)));
    waiting.extend(which(OsStr::new("node")));
    let arguments = command.iter().skip(1).take(MAX_FILES);
    waiting.extend(arguments.filter_map(|word| which(word)).filter(|file| is_program(file)));
    while let Some(path) = waiting.pop_front() {
        let Ok(path) = path.canonicalize() else { continue };
        if found.contains(&path) || found.len() >= MAX_FILES {
            continue;
        }
        match first_bytes(&path).as_deref() {
            Some([0x7f, b'E', b'L', b'F', ..]) => waiting.extend(libraries(&path)),
            Some([b'#', b'!', line @ ..]) => waiting.extend(interpreter(line)),
            _ => continue,
        }
        found.push(path);
    }
    found
}

/// Looks a program up as execvp(3) does.
#[must_use]
pub fn which(program: &OsStr) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(program));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn is_program(file: &Path) -> bool {
    file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

fn first_bytes(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(256).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The program that a `#!` line names; through env(1) the one that env runs.
fn interpreter(line: &[u8]) -> Option<PathBuf> {
    let line = line.split(|&b| b == b'\n').next()?;
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let program = words.next()?;
    if !program.ends_with(b"/env") {
        return Some(PathBuf::from(OsStr::from_bytes(program)));
    }
    let name = words.find(|word| !word.starts_with(b"-") && !word.contains(&b'='))?;
    which(OsStr::from_bytes(name))
}

/// The shared libraries that a program asks for, as far as they are found.
fn libraries(path: &Path) -> Vec<PathBuf> {
    let Some(elf) = File::open(path).ok().and_then(|f| ElfInfo::parse(&ReadCache::new(f)).ok())
    else {
        return Vec::new();
    };
    let origin = path.parent().and_then(Path::to_str).unwrap_or("/");
    let expand = |folder: &str| folder.replace("$ORIGIN", origin).replace("${ORIGIN}", origin);
    let mut folders: Vec<String> = Vec::new();
    folders.extend(elf.runpath.iter().flat_map(|path| path.split(':')).map(expand));
    let environment = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    folders.extend(environment.split(':').filter(|f| !f.is_empty()).map(str::to_owned));
    folders.extend(configured_folders());
    folders.extend(DEFAULT_FOLDERS.iter().map(|&folder| folder.to_owned()));
    elf.needed
        .iter()
        .filter_map(|name| folders.iter().map(|f| Path::new(f).join(name)).find(|p| p.is_file()))
        .collect()
}

/// The folders of /etc/ld.so.conf.d.
fn configured_folders() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/etc/ld.so.conf.d") else { return Vec::new() };
    entries
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok())
        .flat_map(|text| text.lines().map(|l| l.trim().to_owned()).collect::<Vec<_>>())
        .filter(|line| line.starts_with('/'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_leads_to_its_interpreter_and_its_libraries() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("tool");
        std::fs::write(&script, "#!/usr/bin/env -S sh\nexit 0\n").unwrap();
        let files = files_of(&[script.clone().into_os_string()]);
        let shell = which(OsStr::new("sh")).unwrap().canonicalize().unwrap();
        assert_eq!(files[0], script.canonicalize().unwrap());
        assert!(files.contains(&shell), "{files:?}");
        assert!(files.iter().any(|f| f.to_string_lossy().contains("libc.so")), "{files:?}");
    }

    #[test]
    fn a_program_among_the_arguments_is_one_too() {
        let folder = tempfile::tempdir().unwrap();
        let (tool, data) = (folder.path().join("tool"), folder.path().join("data"));
        for file in [&tool, &data] {
            std::fs::write(file, "#!/bin/sh\n").unwrap();
        }
        std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
        let words = ["env", "A=1"].map(OsString::from);
        let command: Vec<OsString> =
            words.into_iter().chain([&tool, &data].map(|file| file.clone().into())).collect();
        let files = files_of(&command);
        assert_eq!(files[0], which(OsStr::new("env")).unwrap().canonicalize().unwrap());
        assert!(files.contains(&tool.canonicalize().unwrap()), "{files:?}");
        assert!(!files.contains(&data.canonicalize().unwrap()), "{files:?}");
    }

    #[test]
    fn what_is_not_there_is_nothing() {
        assert_eq!(which(OsStr::new("no-such-program-here")), None);
        assert_eq!(interpreter(b""), None);
        assert_eq!(interpreter(b" /bin/sh -e\n"), Some(PathBuf::from("/bin/sh")));
    }
}
