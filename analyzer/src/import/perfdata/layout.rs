//! Header of a `perf.data` file: which events, where the records are, which sections follow.
//!
//! Layout: kernel tree, tools/perf/Documentation/perf.data-file-format.txt and tools/perf/util/header.h.
//! All numbers are little endian. Every offset and length is checked against the file before
//! anything is allocated. Knows nothing of records.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use formats::limits::Limits;
use linux_perf_data::Feature;

/// First bytes of a little-endian file, version 2 (`PERF_MAGIC2`).
pub(super) const MAGIC: &[u8; 8] = b"PERFILE2";
/// The same, written on a big-endian machine.
pub(super) const MAGIC_BIG_ENDIAN: &[u8; 8] = b"2ELIFREP";
/// Bytes of `struct perf_file_header`: magic, two sizes, three sections, 256 feature bits.
const FILE_HEADER_BYTES: u64 = 104;
/// Bytes of `struct perf_pipe_file_header`.
const PIPE_HEADER_BYTES: u64 = 16;
/// Bytes of `struct perf_file_section`: offset and size.
const SECTION_BYTES: usize = 16;
/// Smallest `struct perf_event_attr` (`PERF_ATTR_SIZE_VER0`).
const ATTR_MIN_BYTES: usize = 64;
/// Largest attribute that is believed; version 8 has 136 bytes.
const ATTR_MAX_BYTES: usize = 4096;
/// Events that are read at most.
const MAX_EVENTS: usize = 4096;
/// Ids of all events together at most: there is one a CPU, thread and event.
const MAX_IDS: u64 = 4 << 20;
/// Bits in the header's feature set (`HEADER_FEAT_BITS`).
const FEATURE_BITS: u32 = 256;
/// Sections that are of use here; the others are not even read.
const WANTED: &[Feature] = &[
    Feature::TRACING_DATA,
    Feature::BUILD_ID,
    Feature::OSRELEASE,
    Feature::VERSION,
    Feature::ARCH,
    Feature::NRCPUS,
    Feature::CMDLINE,
    Feature::EVENT_DESC,
    Feature::SAMPLE_TIME,
    Feature::CLOCK_DATA,
];

/// Why the header cannot be used.
#[derive(Debug)]
pub(super) enum LayoutError {
    Read(io::Error),
    Unusable(String),
}

impl LayoutError {
    fn unusable(reason: impl Into<String>) -> Self {
        Self::Unusable(reason.into())
    }
}

/// One event as the header describes it.
#[derive(Debug)]
pub(super) struct EventHeader {
    /// `struct perf_event_attr`, exactly as long as it says itself.
    pub(super) attr: Vec<u8>,
    /// Ids that the kernel gave to its file descriptors.
    pub(super) ids: Vec<u64>,
}

/// What the header says.
#[derive(Debug)]
pub(super) struct Layout {
    /// Events; empty for a pipe, where records define them.
    pub(super) events: Vec<EventHeader>,
    /// The records, in bytes of the file.
    pub(super) data: Range<u64>,
    /// Whether this was written through a pipe: the records carry what is in `features` otherwise.
    pub(super) pipe: bool,
    /// `perf record` did not live to write the header's sizes: everything after the records is missing.
    pub(super) torn: bool,
    /// Sections by feature number.
    pub(super) features: BTreeMap<u32, Vec<u8>>,
    /// Sections that were left out because they do not fit in the file or in the limits.
    pub(super) bad_sections: u64,
}

/// Whether a feature section is of use here.
pub(super) fn is_wanted(feature: u32) -> bool {
    WANTED.iter().any(|wanted| wanted.0 == feature)
}

impl Layout {
    /// Reads the header and the sections that matter.
    pub(super) fn read(file: &File, limits: &Limits) -> Result<Self, LayoutError> {
        let length = file.metadata().map_err(LayoutError::Read)?.len();
        let start = read_range(file, 0..PIPE_HEADER_BYTES, length)?
            .ok_or_else(|| LayoutError::unusable("it is shorter than a header"))?;
        if start.starts_with(MAGIC_BIG_ENDIAN) {
            return Err(LayoutError::unusable("it is big-endian, only little-endian is supported"));
        }
        if !start.starts_with(MAGIC) {
            return Err(LayoutError::unusable("it does not begin with PERFILE2"));
        }
        if u64_at(&start, 8) == Some(PIPE_HEADER_BYTES) {
            return Ok(Self {
                events: Vec::new(),
                data: PIPE_HEADER_BYTES..length,
                pipe: true,
                torn: false,
                features: BTreeMap::new(),
                bad_sections: 0,
            });
        }
        let header = read_range(file, 0..FILE_HEADER_BYTES, length)?
            .ok_or_else(|| LayoutError::unusable("it is shorter than a header"))?;
        let section = |at| section_at(&header, at).unwrap_or_default();
        let attr_size = u64_at(&header, 16).unwrap_or_default();
        let events = read_events(file, section(24), attr_size, length)?;
        let (data_start, data_size) = section(40);
        // perf writes the size when it ends; one that was killed leaves 0.
        let torn = data_size == 0;
        let end = if torn { Some(length) } else { data_start.checked_add(data_size) };
        let data = match end {
            Some(end) if data_start <= end && data_start <= length => data_start..end.min(length),
            _ => return Err(LayoutError::unusable("its records lie outside the file")),
        };
        let cut = end.is_some_and(|end| end > length);
        let mut layout = Self {
            events,
            data,
            pipe: false,
            torn: torn || cut,
            features: BTreeMap::new(),
            bad_sections: 0,
        };
        if !layout.torn {
            layout.read_features(file, header.get(72..104).unwrap_or_default(), length, limits)?;
        }
        Ok(layout)
    }

    /// Behind the records: one (offset, size) pair for every feature bit that is set, in bit order.
    fn read_features(
        &mut self,
        file: &File,
        bits: &[u8],
        length: u64,
        limits: &Limits,
    ) -> Result<(), LayoutError> {
        let is_set = |bit: &u32| {
            let byte = bits.get((bit / 8) as usize).copied().unwrap_or_default();
            byte >> (bit % 8) & 1 == 1
        };
        let features: Vec<u32> = (0..FEATURE_BITS).filter(is_set).collect();
        let table = self.data.end..self.data.end + (features.len() * SECTION_BYTES) as u64;
        let Some(table) = read_range(file, table, length)? else {
            self.torn = true;
            return Ok(());
        };
        for (place, feature) in features.into_iter().enumerate().filter(|(_, f)| is_wanted(*f)) {
            let (offset, size) = section_at(&table, place * SECTION_BYTES).unwrap_or_default();
            let range = offset..offset.saturating_add(size);
            let fits = size <= limits.chunk_bytes as u64;
            match if fits { read_range(file, range, length)? } else { None } {
                Some(bytes) => _ = self.features.insert(feature, bytes),
                None => self.bad_sections += 1,
            }
        }
        Ok(())
    }
}

/// The attribute section: entries of `attr_size` bytes, the last 16 of which say where the ids are.
fn read_events(
    file: &File,
    (offset, size): (u64, u64),
    attr_size: u64,
    length: u64,
) -> Result<Vec<EventHeader>, LayoutError> {
    let bad = || LayoutError::unusable("its event descriptions are damaged");
    let entry = usize::try_from(attr_size)
        .ok()
        .filter(|size| {
            (ATTR_MIN_BYTES + SECTION_BYTES..=ATTR_MAX_BYTES + SECTION_BYTES).contains(size)
        })
        .ok_or_else(bad)?;
    if size / attr_size > MAX_EVENTS as u64 {
        return Err(bad());
    }
    let range = offset..offset.saturating_add(size);
    let section = read_range(file, range, length)?.ok_or_else(bad)?;
    let (mut events, mut id_count) = (Vec::new(), 0);
    for entry in section.chunks_exact(entry) {
        let (attr, ids) = entry.split_at(entry.len() - SECTION_BYTES);
        let attr = sized_attr(attr).ok_or_else(bad)?.to_vec();
        let (offset, size) = section_at(ids, 0).ok_or_else(bad)?;
        id_count += size / 8;
        if id_count > MAX_IDS {
            return Err(bad());
        }
        let ids = read_range(file, offset..offset.saturating_add(size), length)?.ok_or_else(bad)?;
        events.push(EventHeader { attr, ids: ids.chunks_exact(8).filter_map(le_u64).collect() });
    }
    if events.is_empty() { Err(LayoutError::unusable("it describes no event")) } else { Ok(events) }
}

/// The attribute at the start of `bytes`, as long as its own `size` field says; 0 means version 0.
pub(super) fn sized_attr(bytes: &[u8]) -> Option<&[u8]> {
    let size = match u32_at(bytes, 4)? as usize {
        0 => ATTR_MIN_BYTES,
        size => size,
    };
    bytes.get(..size).filter(|_| size >= ATTR_MIN_BYTES)
}

/// The bytes of a range; `None` when it does not lie in the file.
fn read_range(file: &File, range: Range<u64>, length: u64) -> Result<Option<Vec<u8>>, LayoutError> {
    let size = range.end.checked_sub(range.start).filter(|_| range.end <= length);
    let Some(size) = size.and_then(|size| usize::try_from(size).ok()) else { return Ok(None) };
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, range.start).map_err(LayoutError::Read)?;
    Ok(Some(bytes))
}

fn section_at(bytes: &[u8], at: usize) -> Option<(u64, u64)> {
    Some((u64_at(bytes, at)?, u64_at(bytes, at + 8)?))
}

fn le_u64(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// Little-endian u64 at `at`.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    le_u64(bytes.get(at..at.checked_add(8)?)?)
}

/// Little-endian u32 at `at`.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}
