//! The files whose code is mapped: opened while they can be, so that they can be named later even
//! if the process, its container or the file is gone.
//!
//! The file that is opened is the file that is mapped: through `/proc/PID/map_files` where the
//! kernel allows, else by path under the target's root with the inode compared.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use formats::capture::{Object, Symbol};
use formats::elf::{ElfInfo, SymbolIndex};
use formats::limits::Limits;
use object::read::ReadCache;

/// Files kept open at the same time. A Node process maps about ten.
const MAX_OPEN: usize = 512;

/// What tells two mapped files apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Major and minor device number.
    pub device: (u32, u32),
    /// Inode number; 0 for things that are not files.
    pub inode: u64,
    /// Path as the target sees it.
    pub path: Vec<u8>,
}

/// Where a mapping was seen, to open its file.
#[derive(Debug, Clone, Copy)]
pub struct Sighting {
    /// Process.
    pub pid: u32,
    /// First address of the mapping.
    pub start: u64,
    /// First address after it.
    pub end: u64,
}

/// Files of at least so many bytes have symbols that take long to read: some 100 000 in Node, 0.1 s.
const LARGE: u64 = 8 << 20;
/// What the kernel appends to the path of a removed file.
const DELETED: &[u8] = b" (deleted)";

/// A mapped file.
#[derive(Debug)]
pub struct MappedFile {
    /// Path as the target sees it.
    pub path: Vec<u8>,
    /// What the ELF headers say; absent when it could not be opened or is no ELF file.
    pub elf: Option<ElfInfo>,
    /// Whether it had been removed or replaced.
    pub deleted: bool,
    /// What the target's mappings call it; absent for an image that is no file.
    pub identity: Option<Identity>,
    image: Option<Image>,
    symbols: Option<SymbolIndex>,
    named: HashSet<u64>,
}

/// The bytes of a mapped file.
#[derive(Debug)]
enum Image {
    File(File),
    Memory(Vec<u8>),
}

/// All mapped files by index, which is also their index in the capture.
#[derive(Debug, Default)]
pub struct Objects {
    by_identity: HashMap<Identity, u32>,
    files: Vec<MappedFile>,
    open: usize,
    /// Symbols that were read before their file was mapped, by device and inode.
    read: HashMap<(u64, u64), SymbolIndex>,
}

impl Objects {
    /// Index of the file behind a mapping, and the capture's row when it is new.
    pub fn intern(&mut self, identity: Identity, at: Sighting) -> (u32, Option<Object>) {
        if let Some(&index) = self.by_identity.get(&identity) {
            return (index, None);
        }
        let index = self.files.len() as u32;
        let file = self.open_file(&identity, at);
        let row = file.row();
        self.files.push(file);
        self.by_identity.insert(identity, index);
        (index, Some(row))
    }

    /// Takes in a file that is not mapped yet. `None` when it cannot be opened.
    pub fn intern_path(&mut self, path: &Path) -> Option<u32> {
        let metadata = std::fs::metadata(path).ok()?;
        let path = path.as_os_str().as_bytes().to_vec();
        let identity = Identity { device: (0, 0), inode: metadata.ino(), path };
        Some(self.intern(identity, Sighting { pid: 0, start: 0, end: 0 }).0)
    }

    /// Adds an image that is not a file, such as the vDSO.
    pub fn intern_image(&mut self, name: &[u8], image: Vec<u8>) -> (u32, Option<Object>) {
        let identity = Identity { device: (0, 0), inode: 0, path: name.to_vec() };
        if let Some(&index) = self.by_identity.get(&identity) {
            return (index, None);
        }
        let index = self.files.len() as u32;
        let elf = ElfInfo::parse(image.as_slice()).ok();
        let image = Some(Image::Memory(image));
        let path = name.to_vec();
        let file = MappedFile {
            path,
            elf,
            deleted: false,
            identity: None,
            image,
            symbols: None,
            named: HashSet::new(),
        };
        let row = file.row();
        self.files.push(file);
        self.by_identity.insert(identity, index);
        (index, Some(row))
    }

    /// Adds the stand-in for the kernel.
    pub fn intern_kernel(&mut self) -> (u32, Object) {
        let (index, _row) = self.intern_image(b"[kernel.kallsyms]", Vec::new());
        let path = b"[kernel.kallsyms]".to_vec();
        (index, Object { path, flags: Object::KERNEL, ..Object::default() })
    }

    /// A file by index.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&MappedFile> {
        self.files.get(index as usize)
    }

    /// Reads the symbols of large files at once, not when the first of them is needed: while it is
    /// done nobody empties the rings.
    pub fn read_large(&mut self) {
        for file in &mut self.files {
            let size = file.file().and_then(|file| file.metadata().ok()).map(|data| data.len());
            if size.is_some_and(|size| size >= LARGE) {
                file.symbols(0, std::iter::empty(), &Limits::default(), |_none| {});
            }
        }
    }

    /// Takes over the symbols that were read of files which will be mapped here.
    pub fn expect(&mut self, others: &mut Self) {
        for file in &mut others.files {
            let read = file.device_and_inode().zip(file.symbols.take());
            self.read.extend(read);
        }
    }

    /// A file by index, to be read.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut MappedFile> {
        self.files.get_mut(index as usize)
    }

    /// All files with their indexes.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &MappedFile)> {
        self.files.iter().enumerate().map(|(index, file)| (index as u32, file))
    }

    fn open_file(&mut self, identity: &Identity, at: Sighting) -> MappedFile {
        let deleted = identity.path.ends_with(DELETED);
        let path = identity.path.strip_suffix(DELETED).unwrap_or(&identity.path).to_vec();
        let mut file = MappedFile {
            path,
            elf: None,
            deleted,
            identity: Some(identity.clone()),
            image: None,
            symbols: None,
            named: HashSet::new(),
        };
        if self.open >= MAX_OPEN || identity.inode == 0 {
            return file;
        }
        if let Some(opened) = open_mapped(identity, &file.path, at) {
            file.elf = ElfInfo::parse(&ReadCache::new(&opened)).ok();
            file.image = Some(Image::File(opened));
            self.open += 1;
        }
        file.symbols = file.device_and_inode().and_then(|file| self.read.remove(&file));
        file
    }
}

/// Opens the file behind a mapping.
pub fn open_mapped(identity: &Identity, path: &[u8], at: Sighting) -> Option<File> {
    let Sighting { pid, start, end } = at;
    let exact = PathBuf::from(format!("/proc/{pid}/map_files/{start:x}-{end:x}"));
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    let relative = path.strip_prefix("/").unwrap_or(path);
    let in_root = PathBuf::from(format!("/proc/{pid}/root")).join(relative);
    // The last one serves processes that have ended already; a container's files differ in inode.
    [exact, in_root, path.to_owned()].iter().find_map(|candidate| {
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY)
            .open(candidate)
            .ok()?;
        let metadata = opened.metadata().ok()?;
        // On overlay file systems the device differs from the one in the mapping, the inode
        // of a lower file does not; hence only the inode is compared.
        (metadata.is_file() && metadata.ino() == identity.inode).then_some(opened)
    })
}

impl MappedFile {
    /// The capture's row for it.
    fn row(&self) -> Object {
        let mut flags = 0;
        if self.deleted {
            flags |= Object::DELETED;
        }
        match &self.elf {
            None => flags |= Object::UNREADABLE,
            Some(elf) if !elf.has_symtab => flags |= Object::STRIPPED,
            Some(_) => {}
        }
        let build_id = self.elf.as_ref().and_then(|elf| elf.build_id.clone()).unwrap_or_default();
        Object { path: self.path.clone(), build_id, flags }
    }

    /// The open file, when there is one.
    #[must_use]
    pub fn file(&self) -> Option<&File> {
        match &self.image {
            Some(Image::File(file)) => Some(file),
            _ => None,
        }
    }

    /// Device and inode of the open file, which tell whether two files are one.
    #[must_use]
    pub fn device_and_inode(&self) -> Option<(u64, u64)> {
        let metadata = self.file()?.metadata().ok()?;
        Some((metadata.dev(), metadata.ino()))
    }

    /// Symbols that cover these file offsets and have not been asked for before. With `true` the
    /// offset is that of the byte before a return address; where that is in no symbol, the return
    /// address itself is taken: V8 returns to the first byte of some builtins.
    pub fn symbols(
        &mut self,
        index: u32,
        offsets: impl Iterator<Item = (u64, bool)>,
        limits: &Limits,
        mut found: impl FnMut(Symbol),
    ) {
        let (Some(elf), Some(image)) = (&self.elf, &self.image) else { return };
        match image {
            Image::File(file) => {
                let cache = ReadCache::new(file);
                let names = Names { elf, symbols: &mut self.symbols, named: &mut self.named };
                names.resolve(&cache, index, offsets, limits, &mut found);
            }
            Image::Memory(bytes) => {
                let names = Names { elf, symbols: &mut self.symbols, named: &mut self.named };
                names.resolve(bytes.as_slice(), index, offsets, limits, &mut found);
            }
        }
    }
}

struct Names<'a> {
    elf: &'a ElfInfo,
    symbols: &'a mut Option<SymbolIndex>,
    named: &'a mut HashSet<u64>,
}

impl Names<'_> {
    fn resolve<'data, R: object::ReadRef<'data>>(
        self,
        data: R,
        index: u32,
        offsets: impl Iterator<Item = (u64, bool)>,
        limits: &Limits,
        found: &mut dyn FnMut(Symbol),
    ) {
        if self.symbols.is_none() {
            // A file whose table is damaged has no names; it is not looked at twice.
            *self.symbols = SymbolIndex::build(data).ok();
        }
        let Some(symbols) = self.symbols else { return };
        for (offset, call) in offsets {
            let Some(svma) = self.elf.file_offset_to_svma(offset) else { continue };
            let returned_to = || symbols.lookup(svma + 1).filter(|_hit| call);
            let Some(hit) = symbols.lookup(svma).or_else(returned_to) else { continue };
            if !self.named.insert(hit.svma) {
                continue;
            }
            let Ok(name) = symbols.read_name(data, hit.name, limits.string_bytes) else { continue };
            let start = offset.wrapping_sub(svma.wrapping_sub(hit.svma));
            found(Symbol { object: index, start, size: hit.size.max(1), name });
        }
    }
}
