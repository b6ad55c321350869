//! Jitdump files (kernel tree, tools/perf/Documentation/jitdump-specification.txt), through the reader
//! of `linux-perf-data`. That one panics on a record shorter than its header and reserves whatever
//! length a record states, so the lengths are checked in a pass of their own first.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use formats::capture::JitEntry;
use formats::limits::Limits;
use linux_perf_data::Endianness;
use linux_perf_data::jitdump::{JitDumpReader, JitDumpRecord, JitDumpRecordType};

use super::jit::Addresses;
use super::layout::u32_at;

/// Bytes of the file header.
const HEADER_BYTES: u64 = 40;
/// Headers are longer in no known version; the reader buffers this much.
const MAX_HEADER_BYTES: u64 = 4096;
/// Bytes of a record's header: type u32, size u32, time u64.
const RECORD_BYTES: u64 = 16;
/// `JITDUMP_FLAGS_ARCH_TIMESTAMP`: times are those of the processor, not CLOCK_MONOTONIC.
const ARCH_TIMESTAMP: u64 = 1;

/// What a file gave.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Times and entries in the order of the file.
    pub(super) entries: Vec<(u64, JitEntry)>,
    /// Records that are damaged.
    pub(super) bad: u64,
    /// Times are of another clock than CLOCK_MONOTONIC.
    pub(super) own_clock: bool,
}

/// Reads the entries that cover one of the addresses.
pub(super) fn read(mut file: File, addresses: &Addresses, limits: &Limits) -> io::Result<Found> {
    let length = sound_length(&mut file, limits)?;
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    file.seek(SeekFrom::Start(0))?;
    let mut found = Found::default();
    found.bad += u64::from(length < file.metadata()?.len());
    let reader = JitDumpReader::new(file.take(length));
    let mut reader = reader.map_err(|error| invalid(error.to_string()))?;
    if reader.endian() != Endianness::LittleEndian {
        return Err(invalid("it is big-endian".to_owned()));
    }
    found.own_clock = reader.header().flags & ARCH_TIMESTAMP != 0;
    // Size and name by code index, for code that is moved later.
    let mut loaded: HashMap<u64, (u64, Vec<u8>)> = HashMap::new();
    while let Some(raw) = reader.next_record()? {
        let time = raw.timestamp;
        // Debug and unwinding records reserve what they state, and are not needed.
        let used = [JitDumpRecordType::JIT_CODE_LOAD, JitDumpRecordType::JIT_CODE_MOVE];
        if !used.contains(&raw.record_type) {
            continue;
        }
        let (start, size, name) = match raw.parse() {
            Ok(JitDumpRecord::CodeLoad(load)) => {
                let mut name = load.function_name.as_slice().into_owned();
                name.truncate(limits.jit_line_bytes);
                let size = load.code_bytes.len() as u64;
                if loaded.len() < limits.table_entries {
                    loaded.insert(load.code_index, (size, name.clone()));
                }
                (load.code_addr, size, name)
            }
            Ok(JitDumpRecord::CodeMove(moved)) => {
                let Some((size, name)) = loaded.get(&moved.code_index) else {
                    found.bad += 1;
                    continue;
                };
                (moved.new_code_addr, *size, name.clone())
            }
            _ => {
                found.bad += 1;
                continue;
            }
        };
        if addresses.any_in(start, size) && found.entries.len() < limits.table_entries {
            found.entries.push((time, JitEntry { start, size, name }));
        }
    }
    Ok(found)
}

/// How much of the file consists of whole records of possible length. A runtime that still lives, or
/// was killed, leaves a cut last record.
fn sound_length(file: &mut File, limits: &Limits) -> io::Result<u64> {
    let length = file.metadata()?.len().min(limits.jit_map_bytes);
    let mut reader = BufReader::with_capacity(64 << 10, file);
    let mut start = [0; 16];
    reader.read_exact(&mut start)?;
    let header = u64::from(u32_at(&start, 8).unwrap_or_default());
    if !(HEADER_BYTES..=MAX_HEADER_BYTES).contains(&header) || header > length {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its header is damaged"));
    }
    let mut at = header;
    reader.seek(SeekFrom::Start(at))?;
    while at + RECORD_BYTES <= length {
        let mut record = [0; RECORD_BYTES as usize];
        reader.read_exact(&mut record)?;
        let size = u64::from(u32_at(&record, 4).unwrap_or_default());
        if size < RECORD_BYTES || at + size > length {
            break;
        }
        at += size;
        let body = i64::try_from(size - RECORD_BYTES).unwrap_or_default();
        reader.seek_relative(body)?;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, time: u64, body: &[u8]) -> Vec<u8> {
        let size = (16 + body.len()) as u32;
        [&kind.to_le_bytes()[..], &size.to_le_bytes(), &time.to_le_bytes(), body].concat()
    }

    fn load(index: u64, start: u64, name: &str) -> Vec<u8> {
        let mut body = vec![0; 8];
        for word in [start, start, 16, index] {
            body.extend(word.to_le_bytes());
        }
        body.extend(name.as_bytes());
        body.push(0);
        body.extend([0x90; 16]);
        body
    }

    fn dump() -> Vec<u8> {
        let mut out = b"DTiJ".to_vec();
        for word in [1u32, 40, 62, 0, 7] {
            out.extend(word.to_le_bytes());
        }
        out.extend([0; 16]);
        out.extend(record(0, 5, &load(1, 0x1000, "first")));
        // A debug record that states more entries than memory has.
        out.extend(record(2, 6, &[[0; 8], [0x7f; 8]].concat()));
        let mut moved = vec![0; 8];
        for word in [0x1000u64, 0x1000, 0x2000, 16, 1] {
            moved.extend(word.to_le_bytes());
        }
        out.extend(record(1, 9, &moved));
        out
    }

    fn read_bytes(bytes: &[u8], name: &str) -> io::Result<Found> {
        let path = std::env::temp_dir().join(format!("nanalyze-{name}-{}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        let file = File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        read(file, &Addresses::new(vec![0x1008, 0x2008]), &Limits::default())
    }

    #[test]
    fn loads_and_moves_have_their_times() {
        let found = read_bytes(&dump(), "jitdump-whole").unwrap();
        let seen: Vec<_> = found.entries.iter().map(|(t, e)| (*t, e.start, e.size)).collect();
        assert_eq!(seen, [(5, 0x1000, 16), (9, 0x2000, 16)]);
        assert!(found.entries.iter().all(|(_, entry)| entry.name == b"first"));
        assert_eq!((found.bad, found.own_clock), (0, false));
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_survived() {
        let whole = dump();
        for cut in 0..whole.len() {
            if let Ok(found) = read_bytes(&whole[..cut], "jitdump-cut") {
                assert!(found.bad > 0 || found.entries.len() < 2, "cut at {cut}");
            }
        }
        for at in 0..whole.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                // What counts is that it comes back.
                let _read = read_bytes(&bytes, "jitdump-flip");
            }
        }
    }
}
