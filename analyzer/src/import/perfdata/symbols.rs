//! Names of native functions, for the file offsets that occur: from files of this machine whose
//! identity fits the recorded one, by build-id or, where there is none, by inode.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use formats::capture::{Frame, Object, Symbol};
use formats::elf::{ElfInfo, SymbolIndex};
use formats::limits::Limits;
use object::ReadCache;

use super::files::O_NONBLOCK;
use super::layout::u32_at;
use super::remarks::Remarks;
use super::world::{Inode, World};

/// Where distributions put debug files, by build-id.
const DEBUG_ROOT: &str = "/usr/lib/debug/.build-id";
/// `struct build_id_event`: record header, pid, 24 bytes for the id, path.
const BUILD_ID_AT: usize = 12;
const PATH_AT: usize = 36;
/// The id's length stands behind its 20 bytes if this bit of `misc` is set, else it is 20
/// (`PERF_RECORD_MISC_BUILD_ID_SIZE`, include/uapi/linux/perf_event.h).
const MISC_BUILD_ID_SIZE: u16 = 1 << 15;
/// `PERF_RECORD_MISC_CPUMODE_MASK` and `PERF_RECORD_MISC_KERNEL`.
const MISC_CPU_MODE: u16 = 7;
const MISC_KERNEL: u16 = 1;

/// Build-ids that `perf record` looked up when it ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct BuildIds {
    /// The kernel's.
    pub(super) kernel: Option<Vec<u8>>,
    by_path: HashMap<Vec<u8>, Vec<u8>>,
}

impl BuildIds {
    /// Reads the section HEADER_BUILD_ID, as far as it is sound.
    pub(super) fn parse(mut section: &[u8]) -> Self {
        let mut ids = Self::default();
        while let Some(rest) = ids.read_one(section) {
            section = rest;
        }
        ids
    }

    fn read_one<'a>(&mut self, section: &'a [u8]) -> Option<&'a [u8]> {
        let misc_and_size = u32_at(section, 4)?;
        let (misc, size) = (misc_and_size as u16, (misc_and_size >> 16) as usize);
        let (record, rest) = section.split_at_checked(size)?;
        let id = record.get(BUILD_ID_AT..PATH_AT)?;
        let length =
            if misc & MISC_BUILD_ID_SIZE != 0 { usize::from(*id.get(20)?).min(20) } else { 20 };
        let id = id.get(..length)?.to_vec();
        let path = record.get(PATH_AT..)?.split(|byte| *byte == 0).next()?;
        if misc & MISC_CPU_MODE == MISC_KERNEL {
            // Modules are named by path; the kernel itself is in brackets, or a vmlinux.
            if path.starts_with(b"[kernel.kallsyms]") || path.ends_with(b"vmlinux") {
                self.kernel.get_or_insert(id);
            }
        } else {
            self.by_path.insert(path.to_vec(), id);
        }
        Some(rest)
    }
}

/// Symbols for the native addresses that occur. Completes the objects' build-ids and flags.
pub(super) fn find(
    world: &mut World,
    frames: &[Frame],
    build_ids: &BuildIds,
    limits: &Limits,
    remarks: &mut Remarks,
) -> Vec<Symbol> {
    let mut wanted: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
    for frame in frames {
        if let Frame::Native { object, offset, call } = frame {
            // The return address itself serves where V8 returns to a function's first byte.
            let places = wanted.entry(*object).or_default();
            places.insert(*offset);
            places.insert(offset.wrapping_sub(u64::from(*call)));
        }
    }
    for object in &mut world.objects {
        if object.build_id.is_empty()
            && let Some(id) = build_ids.by_path.get(&object.path)
        {
            object.build_id.clone_from(id);
        }
    }
    let mut symbols = Vec::new();
    for (index, offsets) in wanted {
        let inode = world.inodes.get(index as usize).copied().flatten();
        let Some(object) = world.objects.get_mut(index as usize) else { continue };
        match Source::open(object, inode) {
            Ok(source) => {
                // perf record -z and pipes look no build-ids up.
                if let Some(id) = source.info.build_id.as_ref().filter(|_| !source.unverified) {
                    object.build_id.clone_from(id);
                }
                if source.unverified {
                    remarks.add("object-unverified", 1, || {
                        "the file of a mapping has no build-id to compare: its names may be of \
                         another version"
                            .into()
                    });
                }
                if !source.has_symtab {
                    object.flags |= Object::STRIPPED;
                }
                source.names(index, &offsets, limits, &mut symbols);
            }
            Err(Missing::Replaced) => {
                object.flags |= Object::DELETED;
                remarks.add("object-replaced", 1, || {
                    "a file is not the one that was recorded (build-id or inode differ)".into()
                });
            }
            Err(Missing::Unreadable) => object.flags |= Object::UNREADABLE,
        }
    }
    symbols
}

/// Why there are no names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// There is no such file, or it is no ELF file.
    Unreadable,
    /// A file of that name is another one.
    Replaced,
}

/// The file that gives names, and the layout by which its addresses are found.
struct Source {
    info: ElfInfo,
    index: SymbolIndex,
    names: ReadCache<File>,
    has_symtab: bool,
    unverified: bool,
}

impl Source {
    fn open(object: &Object, inode: Option<Inode>) -> Result<Self, Missing> {
        let mut missing = Missing::Unreadable;
        let mut first: Option<Self> = None;
        if let Some(path) = own_path(object) {
            match Self::open_one(&path, object, inode) {
                Ok(source) if source.has_symtab => return Ok(source),
                Ok(source) => first = Some(source),
                Err(error) => missing = error,
            }
        }
        let mut object = object.clone();
        if let Some(id) = first.as_ref().and_then(|source| source.info.build_id.as_ref()) {
            object.build_id.clone_from(id);
        }
        for path in by_build_id(&object.build_id) {
            match Self::open_one(&path, &object, None) {
                // A stripped file may have its names in a debug file; the layout is that of the mapped one.
                Ok(source) if source.has_symtab => {
                    return Ok(match first {
                        Some(mapped) => Self { info: mapped.info, ..source },
                        None => source,
                    });
                }
                Ok(source) => _ = first.get_or_insert(source),
                Err(Missing::Replaced) => missing = Missing::Replaced,
                Err(Missing::Unreadable) => {}
            }
        }
        first.ok_or(missing)
    }

    fn open_one(path: &Path, object: &Object, inode: Option<Inode>) -> Result<Self, Missing> {
        // A path of another machine may name anything here; a FIFO must not make us wait.
        let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path);
        let file = file.map_err(|_| Missing::Unreadable)?;
        let metadata = file.metadata().map_err(|_| Missing::Unreadable)?;
        if !metadata.is_file() {
            return Err(Missing::Unreadable);
        }
        let data = ReadCache::new(file);
        let info = ElfInfo::parse(&data).map_err(|_| Missing::Unreadable)?;
        let mut unverified = false;
        match (&info.build_id, inode) {
            (Some(id), _) if !object.build_id.is_empty() => {
                if *id != object.build_id {
                    return Err(Missing::Replaced);
                }
            }
            (None, _) if !object.build_id.is_empty() => return Err(Missing::Replaced),
            // Overlay file systems show one device to stat(2) and another to the kernel's records.
            (_, Some(inode)) if inode.number != 0 => {
                if inode.number != metadata.ino() {
                    return Err(Missing::Replaced);
                }
            }
            _ => unverified = true,
        }
        let index = SymbolIndex::build(&data).map_err(|_| Missing::Unreadable)?;
        let has_symtab = info.has_symtab;
        Ok(Self { info, index, names: data, has_symtab, unverified })
    }

    fn names(&self, object: u32, offsets: &BTreeSet<u64>, limits: &Limits, out: &mut Vec<Symbol>) {
        let mut last = None;
        for &offset in offsets {
            let Some(svma) = self.info.file_offset_to_svma(offset) else { continue };
            let Some(hit) = self.index.lookup(svma).filter(|hit| Some(hit.svma) != last) else {
                continue;
            };
            // A symbol's start is as far before the address in the file as it is in memory.
            let Some(start) = offset.checked_sub(svma - hit.svma) else { continue };
            let Ok(name) = self.index.read_name(&self.names, hit.name, limits.string_bytes) else {
                continue;
            };
            last = Some(hit.svma);
            out.push(Symbol { object, start, size: hit.size.max(svma - hit.svma + 1), name });
        }
    }
}

/// Where the object was, if it may still be there.
fn own_path(object: &Object) -> Option<PathBuf> {
    let usable = object.flags & Object::DELETED == 0 && object.path.starts_with(b"/");
    usable.then(|| PathBuf::from(OsStr::from_bytes(&object.path)))
}

/// Files that may be an object or its debug file, the best first.
fn by_build_id(id: &[u8]) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    if let Some((head, tail)) = hex(id) {
        paths.push(PathBuf::from(format!("{DEBUG_ROOT}/{head}/{tail}.debug")));
        paths.extend(["elf", "vdso", "debug"].iter().filter_map(|name| cached(id, name)));
    }
    paths
}

/// A file of the cache that `perf record` fills: by default `~/.debug`.
pub(super) fn cached(build_id: &[u8], name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("PERF_BUILDID_DIR").map(PathBuf::from);
    let root = root.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".debug")))?;
    let (head, tail) = hex(build_id)?;
    Some(root.join(".build-id").join(head).join(tail).join(name))
}

/// First byte and the rest in hexadecimal.
fn hex(id: &[u8]) -> Option<(String, String)> {
    let text = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (head, tail) = id.split_at_checked(1)?;
    (!tail.is_empty()).then(|| (text(head), text(tail)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(misc: u16, id: [u8; 24], path: &str) -> Vec<u8> {
        let mut out = 67u32.to_le_bytes().to_vec();
        out.extend(misc.to_le_bytes());
        let size = PATH_AT + path.len() + 1;
        out.extend((size as u16).to_le_bytes());
        out.extend((-1i32).to_le_bytes());
        out.extend(id);
        out.extend(path.as_bytes());
        out.push(0);
        out
    }

    #[test]
    fn build_ids_are_read_with_and_without_length() {
        let mut sized = [7; 24];
        sized[20] = 8;
        let section = [
            record(MISC_KERNEL, [1; 24], "[kernel.kallsyms]"),
            record(2 | MISC_BUILD_ID_SIZE, sized, "/bin/short"),
            record(2, [3; 24], "/bin/long"),
        ]
        .concat();
        let ids = BuildIds::parse(&section);
        assert_eq!(ids.kernel, Some(vec![1; 20]));
        assert_eq!(ids.by_path[&b"/bin/short"[..]], [7; 8]);
        assert_eq!(ids.by_path[&b"/bin/long"[..]], [3; 20]);
        for end in 0..section.len() {
            assert!(BuildIds::parse(&section[..end]).by_path.len() < 2);
        }
    }

    #[test]
    fn this_program_is_found_only_with_its_own_build_id() {
        let path = std::env::current_exe().unwrap();
        let own = std::fs::read(&path).unwrap();
        let id = ElfInfo::parse(own.as_slice()).unwrap().build_id;
        let mut object = Object { path: path.as_os_str().as_bytes().to_vec(), ..Object::default() };
        let inode = std::fs::metadata(&path).unwrap().ino();
        let at = |number| Some(Inode { major: 0, minor: 0, number });
        assert!(Source::open(&object, at(inode)).is_ok_and(|source| !source.unverified));
        assert!(matches!(Source::open(&object, at(inode + 1)), Err(Missing::Replaced)));
        assert!(Source::open(&object, None).is_ok_and(|source| source.unverified));
        object.build_id = vec![1; 20];
        assert!(matches!(Source::open(&object, at(inode)), Err(Missing::Replaced)));
        if let Some(id) = id {
            object.build_id = id;
            assert!(Source::open(&object, None).is_ok_and(|source| !source.unverified));
        }
    }
}
