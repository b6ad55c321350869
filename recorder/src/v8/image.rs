//! V8 inside a program file: its version, its constants, where its builtins lie.
//!
//! Reads symbols and data of the file only; knows no process.

use std::collections::HashMap;
use std::ops::Range;

use formats::elf::for_each_symbol_with_prefix;
use object::read::elf::ElfFile64;
use object::read::{ReadCache, ReadCacheOps, ReadRef};
use object::{LittleEndian, Object, ObjectSegment};

use super::layout::{Layout, LayoutError, Symbols, Version};

/// Prefix of V8's constants for debuggers.
const PREFIX: &[u8] = b"v8dbg_";
/// `v8::internal::Version`'s members.
const VERSION: [(&[u8], usize); 3] = [
    (b"_ZN2v88internal7Version6major_E", 0),
    (b"_ZN2v88internal7Version6minor_E", 1),
    (b"_ZN2v88internal7Version6build_E", 2),
];
/// What the names of those begin with.
const VERSION_PREFIX: &[u8] = b"_ZN2v88internal7Version6";
/// `v8::internal::interpreter::Bytecodes::kBytecodeSizes`.
const BYTECODE_SIZES: &[u8] = b"_ZN2v88internal11interpreter9Bytecodes14kBytecodeSizesE";
/// Longest table of bytecode sizes that is believed: three scales of 256 bytecodes.
const MAX_BYTECODE_SIZES: u64 = 3 * 256;
/// First byte of the embedded builtins.
const BLOB: &[u8] = b"v8_Default_embedded_blob_code_";
/// The same up to V8 10, where the name above is a pointer to it.
const BLOB_DATA: &[u8] = b"v8_Default_embedded_blob_code_data_";
/// Number of their bytes, u32.
const BLOB_SIZE: &[u8] = b"v8_Default_embedded_blob_code_size_";

/// A file that contains V8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What the file says of it.
    pub symbols: Symbols,
    /// How its heap is laid out; absent when the table has no row for the version.
    pub layout: Option<Layout>,
    /// File offsets of the embedded builtins; absent in a stripped file.
    pub builtins: Option<Range<u64>>,
}

impl Image {
    /// Looks for V8 in a file. `None` when it is not there, exports no constants, or the file is no
    /// ELF file.
    ///
    /// # Errors
    /// [`LayoutError`] when it is there and cannot be read.
    pub fn find<R: ReadCacheOps>(file: R) -> Result<Option<Self>, LayoutError> {
        let cache = ReadCache::new(file);
        match Found::read(&cache) {
            Some(found) => found.into_image().map(Some),
            None => Ok(None),
        }
    }
}

#[derive(Default)]
struct Found {
    version: [Option<u32>; 3],
    constants: HashMap<String, i64>,
    bytecode_sizes: Vec<u8>,
    blob: Option<u64>,
    blob_data: Option<u64>,
    blob_size: Option<u32>,
}

impl Found {
    fn read<'data, R: ReadRef<'data>>(data: R) -> Option<Self> {
        let elf = ElfFile64::<LittleEndian, R>::parse(data).ok()?;
        let mut found = Self::default();
        // The tables are read as a whole: name by name a read of the file each would take a second.
        let take = |name: &[u8], value: u64, size: u64| {
            if let Some(constant) = name.strip_prefix(PREFIX) {
                let Some(number) = i32_at(data, &elf, value) else { return };
                let name = String::from_utf8_lossy(constant).into_owned();
                found.constants.insert(name, number.into());
            } else if let Some((_, index)) = VERSION.iter().find(|(wanted, _)| *wanted == name) {
                found.version[*index] = i32_at(data, &elf, value).map(i32::cast_unsigned);
            } else if name == BYTECODE_SIZES && size <= MAX_BYTECODE_SIZES {
                found.bytecode_sizes =
                    bytes_at(data, &elf, value, size).unwrap_or_default().to_vec();
            } else if name == BLOB {
                found.blob = found.blob.or(file_offset(&elf, value));
            } else if name == BLOB_DATA {
                found.blob_data = file_offset(&elf, value);
            } else if name == BLOB_SIZE {
                found.blob_size = i32_at(data, &elf, value).map(i32::cast_unsigned);
            }
        };
        let prefixes = [PREFIX, VERSION_PREFIX, BYTECODE_SIZES, BLOB];
        for_each_symbol_with_prefix(data, &prefixes, take).ok()?;
        // Without the constants it is one that tells nothing of itself.
        (found.version[0].is_some() && !found.constants.is_empty()).then_some(found)
    }

    fn into_image(self) -> Result<Image, LayoutError> {
        let [major, minor, build] = self.version.map(Option::unwrap_or_default);
        let version = Version { major, minor, build };
        let symbols =
            Symbols { version, constants: self.constants, bytecode_sizes: self.bytecode_sizes };
        let layout = match Layout::new(&symbols) {
            Err(LayoutError::Unknown { .. }) => None,
            other => Some(other?),
        };
        let builtins = self
            .blob_data
            .or(self.blob)
            .zip(self.blob_size)
            .map(|(start, size)| start..start.saturating_add(size.into()));
        Ok(Image { symbols, layout, builtins })
    }
}

/// Bytes of the file at an address. Not by the segment's data: a cached reader would read all of it.
fn bytes_at<'data, R: ReadRef<'data>>(
    data: R,
    elf: &ElfFile64<'data, LittleEndian, R>,
    address: u64,
    length: u64,
) -> Option<&'data [u8]> {
    let last = address.checked_add(length.checked_sub(1)?)?;
    let offset = file_offset(elf, address)?;
    let whole = file_offset(elf, last)? == offset.checked_add(length - 1)?;
    data.read_bytes_at(offset, length).ok().filter(|_| whole)
}

/// A number in the file's data; zero where the file has no byte for it (`.bss`).
fn i32_at<'data, R: ReadRef<'data>>(
    data: R,
    elf: &ElfFile64<'data, LittleEndian, R>,
    address: u64,
) -> Option<i32> {
    if let Some(bytes) = bytes_at(data, elf, address, 4) {
        return Some(i32::from_le_bytes(bytes.try_into().ok()?));
    }
    let inside = |from: u64, size: u64| address >= from && address.saturating_add(4) <= from + size;
    elf.segments().any(|segment| inside(segment.address(), segment.size())).then_some(0)
}

fn file_offset<'data, R: ReadRef<'data>>(
    elf: &ElfFile64<'data, LittleEndian, R>,
    address: u64,
) -> Option<u64> {
    elf.segments().find_map(|segment| {
        let within = address.checked_sub(segment.address())?;
        let (offset, size) = segment.file_range();
        (within < size).then(|| offset + within)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_without_v8_has_none() {
        let own = std::fs::File::open("/proc/self/exe").unwrap();
        assert_eq!(Image::find(own), Ok(None));
        assert_eq!(Image::find(std::io::Cursor::new(b"no elf".to_vec())), Ok(None));
    }
}
