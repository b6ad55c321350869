//! Names of code that was made at run time: perf maps, jitdump files, and what `perf inject --jit` made
//! of them. Only entries that cover an address which occurs are kept.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use formats::capture::{Frame, JitBatch, JitEntry};
use formats::elf::{ElfInfo, SymbolIndex};
use formats::limits::Limits;
use formats::perfmap::PerfMapParser;
use object::ReadCache;

use super::files::{Refused, open_trusted};
use super::jitdump;
use super::remarks::Remarks;
use super::world::{Injected, World};

/// Bytes of one file that `perf inject` wrote; it holds one function.
const MAX_INJECTED_BYTES: u64 = 64 << 20;

/// What the times of the records mean.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// They are CLOCK_MONOTONIC, as those of jitdump files.
    pub(super) monotonic: bool,
    /// The last one.
    pub(super) end_ns: u64,
}

/// Addresses of one process that lie in code made at run time, ascending.
pub(super) struct Addresses(Vec<u64>);

impl Addresses {
    /// In any order, with repetitions.
    pub(super) fn new(mut addresses: Vec<u64>) -> Self {
        addresses.sort_unstable();
        addresses.dedup();
        Self(addresses)
    }

    /// Whether an entry is of any use.
    pub(super) fn any_in(&self, start: u64, size: u64) -> bool {
        let at = self.0.partition_point(|address| *address < start);
        self.0.get(at).is_some_and(|address| address - start < size)
    }
}

/// All entries, in time order.
pub(super) fn find(
    world: &World,
    frames: &[Frame],
    clock: Clock,
    limits: &Limits,
    remarks: &mut Remarks,
) -> Vec<JitBatch> {
    let mut wanted: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for frame in frames {
        if let Frame::Jit { process, address, call } = frame {
            wanted.entry(*process).or_default().push(address.wrapping_sub(u64::from(*call)));
        }
    }
    let mut batches = Vec::new();
    for (process, addresses) in wanted {
        let addresses = Addresses::new(addresses);
        batches.extend(perf_map(world, process, &addresses, clock, limits, remarks));
        let dumps = world.dumps.iter().filter(|(owner, _)| *owner == process);
        for (_, path) in dumps {
            let path = PathBuf::from(OsStr::from_bytes(path));
            batches.extend(dump(&path, process, &addresses, clock, limits, remarks));
        }
        for injected in world.injected.iter().filter(|injected| injected.process == process) {
            if addresses.any_in(injected.start, injected.length) {
                batches.extend(injected_code(injected, limits, remarks));
            }
        }
    }
    // Stable: of one time, what was written later stays later.
    batches.sort_by_key(|batch| batch.seen_ns);
    batches
}

/// The perf map of a process, as one batch: it tells no times.
fn perf_map(
    world: &World,
    process: u32,
    addresses: &Addresses,
    clock: Clock,
    limits: &Limits,
    remarks: &mut Remarks,
) -> Option<JitBatch> {
    let owner = world.processes.get(process as usize)?;
    let path = PathBuf::from(format!("/tmp/perf-{}.map", owner.pid));
    let mut file = opened(&path, "jit-map-refused", limits, remarks)?;
    let mut parser = PerfMapParser::new(limits.jit_line_bytes);
    let mut entries = Vec::new();
    let mut piece = vec![0; 1 << 18];
    let mut read = 0;
    while read < limits.jit_map_bytes {
        let size = match file.read(&mut piece) {
            Ok(0) => break,
            Ok(size) => size,
            Err(error) => {
                remarks.add("jit-map-read", 1, || format!("cannot read a JIT map: {error}"));
                break;
            }
        };
        read += size as u64;
        parser.push(piece.get(..size)?, |entry| {
            if addresses.any_in(entry.start, entry.size) {
                entries.push(JitEntry {
                    start: entry.start,
                    size: entry.size,
                    name: entry.name.to_vec(),
                });
            }
        });
    }
    parser.finish();
    remarks.add("jit-map-bad-lines", parser.bad_lines() + parser.long_lines(), || {
        "lines of a JIT map are no entries".into()
    });
    remarks.add("jit-map-without-times", 1, || {
        "a perf map tells no times: where addresses were used again, a function may have the name of a \
         later one"
            .into()
    });
    Some(JitBatch { process, after_ns: 0, seen_ns: clock.end_ns, entries })
}

/// The entries of a jitdump file, each with its time.
fn dump(
    path: &Path,
    process: u32,
    addresses: &Addresses,
    clock: Clock,
    limits: &Limits,
    remarks: &mut Remarks,
) -> Vec<JitBatch> {
    let Some(file) = opened(path, "jitdump-refused", limits, remarks) else { return Vec::new() };
    let found = match jitdump::read(file, addresses, limits) {
        Ok(found) => found,
        Err(error) => {
            remarks.add("jitdump-damaged", 1, || format!("cannot read a jitdump file: {error}"));
            return Vec::new();
        }
    };
    remarks.add("jitdump-damaged", found.bad, || "records of a jitdump file are damaged".into());
    let timed = clock.monotonic && !found.own_clock;
    remarks.add("jitdump-clock", u64::from(!timed), || {
        "the times of a jitdump file cannot be compared; record with perf record -k CLOCK_MONOTONIC"
            .into()
    });
    let batch = |(time_ns, entry)| JitBatch {
        process,
        after_ns: if timed { time_ns } else { 0 },
        seen_ns: if timed { time_ns } else { clock.end_ns },
        entries: vec![entry],
    };
    found.entries.into_iter().map(batch).collect()
}

/// The one function of a file that `perf inject --jit` wrote.
fn injected_code(injected: &Injected, limits: &Limits, remarks: &mut Remarks) -> Option<JitBatch> {
    let path = PathBuf::from(OsStr::from_bytes(&injected.path));
    let name = open_trusted(&path, MAX_INJECTED_BYTES).ok().and_then(|file| {
        let data = ReadCache::new(file);
        let info = ElfInfo::parse(&data).ok()?;
        let index = SymbolIndex::build(&data).ok()?;
        let hit = index.lookup(info.file_offset_to_svma(injected.offset)?)?;
        index.read_name(&data, hit.name, limits.jit_line_bytes).ok()
    });
    let Some(name) = name else {
        remarks.add("injected-code", 1, || {
            "a file that perf inject --jit wrote is gone or damaged".into()
        });
        return None;
    };
    let entry = JitEntry { start: injected.start, size: injected.length, name };
    let time_ns = injected.time_ns;
    Some(JitBatch {
        process: injected.process,
        after_ns: time_ns,
        seen_ns: time_ns,
        entries: vec![entry],
    })
}

/// Opens a file that may be used; one that is there but may not is a remark.
fn opened(path: &Path, code: &'static str, limits: &Limits, remarks: &mut Remarks) -> Option<File> {
    match open_trusted(path, limits.jit_map_bytes) {
        Ok(file) => Some(file),
        Err(Refused::Absent) => None,
        Err(refused) => {
            let shown = formats::text::clean_string(path.as_os_str().as_encoded_bytes(), 256);
            remarks.add(code, 1, || format!("{shown} is not used: {refused}"));
            None
        }
    }
}
