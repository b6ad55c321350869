//! The files that are searched: one by name, or all whose code a process has mapped. It must not
//! read symbols.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use formats::procmaps;

use super::ListError;
use crate::process::objects::{Identity, Objects, Sighting};
use crate::process::procfs;
use crate::session::error::RecordError;
use crate::sys::{errno_of, errno_text};

/// The files that a process has mapped executable, opened through its own mappings.
pub(super) fn of_process(pid: u32) -> Result<Objects, ListError> {
    let missing = || ListError::Process(RecordError::NoSuchProcess { pid }.to_string());
    if !procfs::alive(pid) {
        return Err(missing());
    }
    if let Some(leader) = procfs::thread_group(pid).filter(|leader| *leader != pid) {
        let error = RecordError::IsThread { tid: pid, pid: leader };
        return Err(ListError::Process(error.to_string()));
    }
    let maps = match procfs::read(&format!("/proc/{pid}/maps")) {
        Ok(maps) if maps.is_empty() && procfs::alive(pid) => {
            return Err(ListError::Process(format!(
                "process {pid} runs no program: it is a thread of the kernel"
            )));
        }
        Ok(maps) => maps,
        Err(_gone) if !procfs::alive(pid) => return Err(missing()),
        Err(error) => {
            return Err(ListError::Process(format!(
                "process {pid} is not ours to look at: {}; run as root, or as its user",
                errno_text(errno_of(&error))
            )));
        }
    };
    let mut objects = Objects::default();
    let maps = procmaps::parse_maps(&maps);
    for entry in maps.entries.iter().filter(|entry| entry.exec && entry.is_file()) {
        let mut path = entry.path.as_deref().unwrap_or_default().to_vec();
        if entry.deleted {
            path.extend_from_slice(b" (deleted)");
        }
        let device = (entry.dev_major, entry.dev_minor);
        let identity = Identity { device, inode: entry.inode, path };
        objects.intern(identity, Sighting { pid, start: entry.start, end: entry.end });
    }
    Ok(objects)
}

/// A file by its path, or by a name that is looked up as a shell does.
pub(super) fn of_name(name: &OsStr) -> Result<Objects, ListError> {
    let found = if name.as_bytes().contains(&b'/') {
        Some(PathBuf::from(name))
    } else {
        in_search_path(name).or_else(|| Path::new(name).exists().then(|| PathBuf::from(name)))
    };
    let Some(found) = found else { return Err(ListError::NoProgram { name: name.to_owned() }) };
    // A process that runs it maps it under its real name: links are followed.
    let unreadable = |path: &Path, error: &std::io::Error| ListError::Unreadable {
        path: path.to_owned(),
        cause: errno_text(errno_of(error)),
    };
    let path = found.canonicalize().map_err(|error| unreadable(&found, &error))?;
    if !path.is_file() {
        let cause = "not a regular file".to_owned();
        return Err(ListError::Unreadable { path, cause });
    }
    let mut objects = Objects::default();
    let index = objects.intern_path(&path);
    if index.and_then(|index| objects.get(index)).and_then(|object| object.file()).is_none() {
        let cause = match File::open(&path) {
            Err(error) => errno_text(errno_of(&error)),
            Ok(_now) => "it changed meanwhile".to_owned(),
        };
        return Err(ListError::Unreadable { path, cause });
    }
    Ok(objects)
}

fn in_search_path(name: &OsStr) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|candidate| {
        candidate
            .metadata()
            .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    })
}

/// The program that a script names in its first line.
pub(super) fn interpreter(file: &File) -> Option<String> {
    let mut first = [0; 256];
    let read = file.read_at(&mut first, 0).ok()?;
    let line = first.get(..read)?.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_ascii_whitespace();
    let program = words.next()?;
    // `#!/usr/bin/env -S node --flag`: what env starts is meant.
    let program = match program.rsplit('/').next() {
        Some("env") => words.find(|word| !word.starts_with('-') && !word.contains('='))?,
        _ => program,
    };
    Some(program.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_interpreter_of_a_script_is_found() {
        for (text, want) in [
            ("#!/usr/bin/env node\nx", Some("node")),
            ("#!/usr/bin/env -S A=b node --x\n", Some("node")),
            ("#! /bin/sh -e\n", Some("/bin/sh")),
            ("#!\n", None),
            ("\x7fELF", None),
            ("", None),
        ] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            assert_eq!(interpreter(&file).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn names_are_looked_up_as_by_a_shell() {
        let sh = of_name("sh".as_ref()).unwrap();
        let real = Path::new("/bin/sh").canonicalize().unwrap();
        assert_eq!(sh.get(0).unwrap().path, real.as_os_str().as_bytes());
        let error = |name: &str| of_name(name.as_ref()).unwrap_err().to_string();
        assert!(error("no-such-program-anywhere").contains("PATH"));
        assert!(error("/no/such/file").contains("/no/such/file"));
        assert!(error("/").contains("not a regular file"));
        assert!(error("/dev/null").contains("not a regular file"));
    }

    #[test]
    fn this_process_has_mapped_itself() {
        let objects = of_process(std::process::id()).unwrap();
        let own = std::env::current_exe().unwrap().canonicalize().unwrap();
        assert!(objects.iter().any(|(_, o)| o.path == own.as_os_str().as_bytes()));
        // Above the kernel's largest pid (PID_MAX_LIMIT, 2^22).
        assert!(of_process(4_194_311).unwrap_err().to_string().contains("no process"));
    }
}
