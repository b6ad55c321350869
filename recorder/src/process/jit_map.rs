//! Follows a runtime's JIT map (`/tmp/perf-PID.map`) while it grows.
//!
//! The file belongs to the target: it is opened through the target's own root under the process id
//! that the target has there, only if it is a regular file of the target's user (or root's), never
//! through a symbolic link, and read up to a limit. What is refused is said, once.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

use formats::capture::{JitBatch, JitEntry};
use formats::limits::Limits;
use formats::perfmap::PerfMapParser;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;

use super::procfs::Facts;

/// Bytes read in one go, and at most what one batch holds of the file.
const PIECE: usize = 256 << 10;
/// Bytes read in one look: a map of hundreds of megabytes is taken in over several, so that what it
/// fills in memory can be written in between.
const LOOK_BYTES: u64 = 4 << 20;

/// Why a map is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Someone else's file.
    #[error(
        "{path} belongs to user {owner}, not to the target's user {expected} or root: not read"
    )]
    Owner {
        /// The map's path as the target sees it.
        path: String,
        /// Owner's user id.
        owner: u32,
        /// The target's user id.
        expected: u32,
    },
    /// A symbolic link.
    #[error("{path} is a symbolic link: not read")]
    Symlink {
        /// The map's path as the target sees it.
        path: String,
    },
    /// A directory, fifo, device …
    #[error("{path} is not a regular file: not read")]
    NotRegular {
        /// The map's path as the target sees it.
        path: String,
    },
    /// Longer than the limit.
    #[error("{path} is longer than {limit} bytes: the rest is not read")]
    TooLong {
        /// The map's path as the target sees it.
        path: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// The kernel said no.
    #[error("cannot open {path}: {cause}")]
    Unreadable {
        /// The map's path as the target sees it.
        path: String,
        /// Why.
        cause: String,
    },
}

/// One process's map.
#[derive(Debug)]
pub struct JitMap {
    process: u32,
    directory: Option<OwnedFd>,
    name: String,
    shown_path: String,
    uid: u32,
    limits: Limits,
    file: Option<File>,
    parser: PerfMapParser,
    offset: u64,
    last_look_ns: u64,
    restarts: u64,
    bad_lines_before: u64,
    refused: bool,
}

impl JitMap {
    /// Prepares to follow the map of a process. The directory is opened now, so that the map can be
    /// read even after the process, and its root with it, is gone.
    #[must_use]
    pub fn of(process: u32, facts: &Facts, limits: &Limits) -> Self {
        let folder = map_folder(facts);
        let directory = open_folder(facts, &folder);
        let name = format!("perf-{}.map", facts.inner_pid);
        Self {
            process,
            directory,
            shown_path: format!("{folder}/{name}"),
            name,
            uid: facts.uid,
            limits: *limits,
            file: None,
            parser: PerfMapParser::new(limits.jit_line_bytes),
            offset: 0,
            last_look_ns: 0,
            restarts: 0,
            bad_lines_before: 0,
            refused: false,
        }
    }

    /// Whether the file has been found and is being read.
    #[must_use]
    pub fn found(&self) -> bool {
        self.file.is_some()
    }

    /// Closes what is open: the process has ended and its last words are read.
    pub fn close(&mut self) {
        self.directory = None;
        self.file = None;
    }

    /// Lines that were not understood or too long.
    #[must_use]
    pub fn bad_lines(&self) -> u64 {
        self.bad_lines_before + self.parser.bad_lines() + self.parser.long_lines()
    }

    /// How often the file became shorter. Node 18 begins it anew for each worker thread, which
    /// destroys what the other threads write.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Reads what the map has gained and hands it over in batches. `now` is the time of this look.
    /// `true` says that there is more than one look takes.
    ///
    /// # Errors
    /// The file is refused or cannot be read; said once, later looks are silent.
    pub fn look(&mut self, now: u64, mut batch: impl FnMut(JitBatch)) -> Result<bool, Refusal> {
        if self.refused {
            return Ok(false);
        }
        if self.file.is_none() {
            self.file = self.open()?;
        }
        let Some(file) = &self.file else { return Ok(false) };
        let after_ns = self.last_look_ns;
        // The usual look finds nothing new: one fstat(2), and nothing is allocated.
        let length = file.metadata().map_or(self.offset, |metadata| metadata.len());
        if length < self.offset {
            self.restarts += 1;
            self.bad_lines_before += self.parser.bad_lines() + self.parser.long_lines();
            self.parser = PerfMapParser::new(self.limits.jit_line_bytes);
            self.offset = 0;
        }
        if length <= self.offset {
            self.last_look_ns = now;
            return Ok(false);
        }
        let enough = self.offset.saturating_add(LOOK_BYTES);
        let mut piece = vec![0; PIECE];
        while self.offset < enough {
            let length = match file.read_at(&mut piece, self.offset) {
                Ok(0) => {
                    self.last_look_ns = now;
                    return Ok(false);
                }
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_unreadable) => return Ok(false),
            };
            self.offset += length as u64;
            let mut entries = Vec::new();
            self.parser.push(piece.get(..length).unwrap_or_default(), |entry| {
                let name = entry.name.to_vec();
                entries.push(JitEntry { start: entry.start, size: entry.size, name });
            });
            if !entries.is_empty() {
                batch(JitBatch { process: self.process, after_ns, seen_ns: now, entries });
            }
            if self.offset >= self.limits.jit_map_bytes {
                self.refused = true;
                let limit = self.limits.jit_map_bytes;
                return Err(Refusal::TooLong { path: self.shown_path.clone(), limit });
            }
        }
        Ok(true)
    }

    fn open(&mut self) -> Result<Option<File>, Refusal> {
        let Some(directory) = &self.directory else { return Ok(None) };
        let flags = OFlag::O_RDONLY
            | OFlag::O_NOFOLLOW
            | OFlag::O_NONBLOCK
            | OFlag::O_CLOEXEC
            | OFlag::O_NOCTTY;
        let path = self.shown_path.clone();
        let refusal = match openat(directory.as_fd(), self.name.as_str(), flags, Mode::empty()) {
            Ok(fd) => {
                let file = File::from(fd);
                match self.judge(&file, path) {
                    Ok(()) => return Ok(Some(file)),
                    Err(refusal) => refusal,
                }
            }
            Err(nix::errno::Errno::ENOENT) => return Ok(None),
            Err(nix::errno::Errno::ELOOP) => Refusal::Symlink { path },
            Err(errno) => Refusal::Unreadable { path, cause: errno.desc().to_owned() },
        };
        self.refused = true;
        Err(refusal)
    }

    fn judge(&self, file: &File, path: String) -> Result<(), Refusal> {
        let metadata = file.metadata().map_err(|error| Refusal::Unreadable {
            path: path.clone(),
            cause: error.to_string(),
        })?;
        if !metadata.is_file() {
            return Err(Refusal::NotRegular { path });
        }
        if metadata.uid() != self.uid && metadata.uid() != 0 {
            return Err(Refusal::Owner { path, owner: metadata.uid(), expected: self.uid });
        }
        Ok(())
    }
}

/// Opens a folder below the target's root. Links on the way are followed inside that root only.
fn open_folder(facts: &Facts, folder: &str) -> Option<OwnedFd> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(nix::libc::O_DIRECTORY);
    let root = match options.open(format!("/proc/{}/root", facts.pid)) {
        Ok(root) => root,
        // The process has ended; its root is taken to have been ours, unless it was seen not to be.
        Err(_ended) if !facts.other_root => options.open("/").ok()?,
        Err(_ended) => return None,
    };
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root.as_fd(), folder.trim_start_matches('/'), how).ok()
}

/// Directory of the map: `/tmp`, or what `--perf-basic-prof-path` names (V8's flag-definitions.h).
/// Whether a process has a map that can be read.
#[must_use]
pub fn can_be_read(facts: &Facts) -> bool {
    matches!(JitMap::of(0, facts, &Limits::default()).open(), Ok(Some(_file)))
}

fn map_folder(facts: &Facts) -> String {
    let arguments = facts.cmdline.split(|&b| b == 0);
    let options = facts.node_options.split(|&b| b == b' ');
    arguments
        .chain(options)
        .filter_map(|argument| std::str::from_utf8(argument).ok())
        .find_map(|argument| {
            let normal = argument.replacen("--perf_basic_prof_path", "--perf-basic-prof-path", 1);
            let folder = normal.strip_prefix("--perf-basic-prof-path=")?.to_owned();
            let clean = folder.starts_with('/') && !folder.split('/').any(|part| part == "..");
            clean.then_some(folder)
        })
        .unwrap_or_else(|| "/tmp".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn map_in(folder: &std::path::Path, facts: &Facts) -> JitMap {
        let cmdline = format!("node\0--perf-basic-prof-path={}", folder.display()).into_bytes();
        JitMap::of(3, &Facts { cmdline, ..facts.clone() }, &Limits::default())
    }

    fn us() -> Facts {
        super::super::procfs::facts(std::process::id()).unwrap()
    }

    fn looked(map: &mut JitMap, now: u64) -> Result<Vec<JitBatch>, Refusal> {
        let mut batches = Vec::new();
        map.look(now, |batch| batches.push(batch)).map(|_more| batches)
    }

    #[test]
    fn a_growing_map_is_read_with_times() {
        let folder = tempfile::tempdir().unwrap();
        let facts = us();
        let mut map = map_in(folder.path(), &facts);
        assert_eq!(looked(&mut map, 5), Ok(vec![]));
        let mut file = File::create(folder.path().join(format!("perf-{}.map", facts.pid))).unwrap();
        file.write_all(b"1000 10 JS:~f a.js:1:1\n2000 20 JS:~g a.j").unwrap();
        let first = looked(&mut map, 10).unwrap();
        assert_eq!((first[0].after_ns, first[0].seen_ns, first[0].entries.len()), (0, 10, 1));
        file.write_all(b"s:2:1\nnonsense\n").unwrap();
        let second = looked(&mut map, 20).unwrap();
        assert_eq!((second[0].after_ns, second[0].seen_ns), (10, 20));
        assert_eq!(second[0].entries[0].name, b"JS:~g a.js:2:1");
        assert_eq!(map.bad_lines(), 1);
        assert_eq!(looked(&mut map, 30), Ok(vec![]));
    }

    #[test]
    fn a_map_that_begins_anew_is_read_anew() {
        let folder = tempfile::tempdir().unwrap();
        let facts = us();
        let mut map = map_in(folder.path(), &facts);
        let path = folder.path().join(format!("perf-{}.map", facts.pid));
        std::fs::write(&path, b"1000 10 JS:~f a.js:1:1\nnonsense\n2000 20 JS:~g a.js:2:1\n")
            .unwrap();
        assert_eq!(looked(&mut map, 10).unwrap()[0].entries.len(), 2);
        std::fs::write(&path, b"3000 10 JS:~h b.js:1:1\n").unwrap();
        let again = looked(&mut map, 20).unwrap();
        assert_eq!((again[0].entries[0].start, again[0].entries.len()), (0x3000, 1));
        assert_eq!((map.restarts(), map.bad_lines()), (1, 1));
    }

    #[test]
    fn what_is_not_the_targets_is_refused_once() {
        let folder = tempfile::tempdir().unwrap();
        let facts = us();
        let path = folder.path().join(format!("perf-{}.map", facts.pid));
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        let mut map = map_in(folder.path(), &facts);
        assert!(matches!(looked(&mut map, 1), Err(Refusal::Symlink { .. })));
        assert_eq!(looked(&mut map, 2), Ok(vec![]));

        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let mut map = map_in(folder.path(), &facts);
        assert!(matches!(looked(&mut map, 1), Err(Refusal::NotRegular { .. })));

        std::fs::remove_dir(&path).unwrap();
        File::create(&path).unwrap();
        // Another target user: the file is ours (or root's, which is always believed).
        let mut map = map_in(folder.path(), &Facts { uid: facts.uid + 1, ..facts.clone() });
        let refused = looked(&mut map, 1);
        if facts.uid == 0 {
            assert_eq!(refused, Ok(vec![]));
        } else {
            assert!(matches!(refused, Err(Refusal::Owner { .. })));
        }
    }

    #[test]
    fn a_large_map_is_taken_in_over_several_looks() {
        let folder = tempfile::tempdir().unwrap();
        let facts = us();
        let path = folder.path().join(format!("perf-{}.map", facts.pid));
        let line = format!("1000 10 {}\n", "n".repeat(1000));
        let lines = 2 * LOOK_BYTES as usize / line.len() + 10;
        std::fs::write(&path, line.repeat(lines)).unwrap();
        let mut map = map_in(folder.path(), &facts);
        let (mut entries, mut looks, mut more) = (0, 0, true);
        while more {
            looks += 1;
            // All entries are as old as before the first look, however many looks it takes.
            let counted = |batch: JitBatch| {
                assert_eq!(batch.after_ns, 0);
                entries += batch.entries.len();
            };
            more = map.look(looks, counted).unwrap();
        }
        assert_eq!((entries, looks), (lines, 3));
    }

    #[test]
    fn links_on_the_way_stay_inside_the_targets_root() {
        let folder = tempfile::tempdir().unwrap();
        let facts = us();
        let real = folder.path().join("real");
        std::fs::create_dir(&real).unwrap();
        std::fs::write(real.join(format!("perf-{}.map", facts.pid)), "1000 10 JS:~f a.js\n")
            .unwrap();
        std::os::unix::fs::symlink("real", folder.path().join("link")).unwrap();
        let mut map = map_in(&folder.path().join("link"), &facts);
        assert_eq!(looked(&mut map, 1).unwrap().len(), 1);
    }
}
