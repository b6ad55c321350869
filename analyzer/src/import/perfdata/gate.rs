//! The one way by which bytes of a file reach the record reader: a stream of whole records, each of
//! a kind that is needed and with lengths that hold.
//!
//! The stream is always in the form of a pipe, which needs no seeking: for a file, the header's
//! events are put in front as records. User records with a payload behind them (tracing data, AUX
//! traces) never pass; what is of use in them goes to [`Shared`]. Knows no sample.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::rc::Rc;

use formats::limits::Limits;
use linux_perf_data::Feature;

use super::layout::{self, EventHeader, Layout, MAGIC, u32_at, u64_at};

/// Bytes of `struct perf_event_header`: type u32, misc u16, size u16.
const RECORD_HEADER: usize = 8;
/// Build-id records kept at most, bytes; each is below 64 KiB.
const MAX_BUILD_ID_BYTES: usize = 16 << 20;

/// Record types: `enum perf_event_type` of include/uapi/linux/perf_event.h, from 64 on
/// `enum perf_user_event_type` of tools/lib/perf/include/perf/event.h.
mod kind {
    pub(super) const MMAP: u32 = 1;
    pub(super) const LOST: u32 = 2;
    pub(super) const COMM: u32 = 3;
    pub(super) const EXIT: u32 = 4;
    pub(super) const THROTTLE: u32 = 5;
    pub(super) const FORK: u32 = 7;
    pub(super) const SAMPLE: u32 = 9;
    pub(super) const MMAP2: u32 = 10;
    pub(super) const LOST_SAMPLES: u32 = 13;
    pub(super) const HEADER_ATTR: u32 = 64;
    pub(super) const HEADER_TRACING_DATA: u32 = 66;
    pub(super) const HEADER_BUILD_ID: u32 = 67;
    pub(super) const FINISHED_ROUND: u32 = 68;
    pub(super) const AUXTRACE: u32 = 71;
    pub(super) const HEADER_FEATURE: u32 = 80;
    pub(super) const COMPRESSED: u32 = 81;
    pub(super) const COMPRESSED2: u32 = 83;
}

/// What stood beside the records.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Sections by feature number.
    pub(super) features: BTreeMap<u32, Vec<u8>>,
    /// Which event each HEADER_ATTR record describes; empty when each describes one of its own.
    pub(super) attr_events: Vec<usize>,
    /// `read_format` of each HEADER_ATTR record: the record reader drops the bits it does not know.
    pub(super) read_formats: Vec<u64>,
    /// The file ends inside a record, or `perf record` did not finish it.
    pub(super) torn: bool,
    /// Records and sections that were left out because their lengths do not hold.
    pub(super) bad_records: u64,
    /// Why reading ended early.
    pub(super) failure: Option<io::Error>,
}

/// Reads a file and gives out a stream of checked records.
#[derive(Debug)]
pub(super) struct Gate {
    input: BufReader<File>,
    /// Bytes of the record section that are not read yet.
    remaining: u64,
    section_limit: u64,
    pipe: bool,
    ready: Vec<u8>,
    taken: usize,
    shared: Rc<RefCell<Shared>>,
}

impl Gate {
    pub(super) fn new(mut file: File, layout: Layout, limits: &Limits) -> io::Result<Self> {
        file.seek(SeekFrom::Start(layout.data.start))?;
        let mut ready = MAGIC.to_vec();
        ready.extend(16u64.to_le_bytes());
        let (mut attr_events, mut read_formats) = (Vec::new(), Vec::new());
        for (index, event) in layout.events.iter().enumerate() {
            let records = push_event(&mut ready, event);
            attr_events.extend(std::iter::repeat_n(index, records));
            read_formats.extend(std::iter::repeat_n(read_format(&event.attr), records));
        }
        let shared = Shared {
            features: layout.features,
            attr_events,
            read_formats,
            torn: layout.torn,
            bad_records: layout.bad_sections,
            failure: None,
        };
        Ok(Self {
            input: BufReader::with_capacity(256 << 10, file),
            remaining: layout.data.end - layout.data.start,
            section_limit: limits.chunk_bytes as u64,
            pipe: layout.pipe,
            ready,
            taken: 0,
            shared: Rc::new(RefCell::new(shared)),
        })
    }

    /// What stands beside the records; filled while they are read.
    pub(super) fn shared(&self) -> Rc<RefCell<Shared>> {
        Rc::clone(&self.shared)
    }

    /// Puts the next record that passes into `ready`. `false` at the end.
    fn refill(&mut self) -> io::Result<bool> {
        self.ready.clear();
        self.taken = 0;
        while self.remaining > 0 {
            let Some(header) = self.take(RECORD_HEADER as u64)? else { break };
            let record_type = u32_at(&header, 0).unwrap_or_default();
            let size = u64::from(u32_at(&header, 4).unwrap_or_default() >> 16);
            let Some(body_size) = size.checked_sub(RECORD_HEADER as u64) else {
                // Without a length nothing behind it can be found.
                self.shared.borrow_mut().bad_records += 1;
                self.end_torn();
                break;
            };
            let Some(body) = self.take(body_size)? else { break };
            if self.admit(record_type, &header, &body)? {
                self.ready.extend(header);
                self.ready.extend(body);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a record is handed on; what is kept or skipped instead is dealt with here.
    fn admit(&mut self, record_type: u32, header: &[u8], body: &[u8]) -> io::Result<bool> {
        match record_type {
            kind::MMAP
            | kind::LOST
            | kind::COMM
            | kind::EXIT
            | kind::FORK
            | kind::SAMPLE
            | kind::MMAP2
            | kind::LOST_SAMPLES
            | kind::THROTTLE
            | kind::FINISHED_ROUND
            | kind::COMPRESSED
            | kind::COMPRESSED2 => Ok(true),
            kind::HEADER_ATTR => {
                let sound = self.pipe && layout::sized_attr(body).is_some();
                self.count_bad(!sound);
                if sound {
                    self.shared.borrow_mut().read_formats.push(read_format(body));
                }
                Ok(sound)
            }
            kind::HEADER_FEATURE => {
                let (Some(feature), Some(data)) = (u64_at(body, 0), body.get(8..)) else {
                    self.count_bad(true);
                    return Ok(false);
                };
                if let Some(feature) = u32::try_from(feature).ok().filter(|f| layout::is_wanted(*f))
                {
                    self.shared.borrow_mut().features.insert(feature, data.to_vec());
                }
                Ok(false)
            }
            kind::HEADER_TRACING_DATA => {
                // The data stands behind the record, rounded up to 8 bytes, and is not in its size.
                let size = u64::from(u32_at(body, 0).unwrap_or_default()).next_multiple_of(8);
                if size > self.section_limit {
                    self.count_bad(true);
                    self.skip(size)?;
                } else if let Some(data) = self.take(size)? {
                    self.shared.borrow_mut().features.insert(Feature::TRACING_DATA.0, data);
                }
                Ok(false)
            }
            kind::HEADER_BUILD_ID => {
                let mut shared = self.shared.borrow_mut();
                let section = shared.features.entry(Feature::BUILD_ID.0).or_default();
                // As a section has it: records one behind the other.
                if section.len() < MAX_BUILD_ID_BYTES {
                    section.extend(header);
                    section.extend(body);
                }
                Ok(false)
            }
            kind::AUXTRACE => {
                self.skip(u64_at(body, 0).unwrap_or_default())?;
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    fn count_bad(&self, bad: bool) {
        self.shared.borrow_mut().bad_records += u64::from(bad);
    }

    fn end_torn(&mut self) {
        self.remaining = 0;
        self.shared.borrow_mut().torn = true;
    }

    /// The next bytes; `None`, and the end, when the file has fewer.
    fn take(&mut self, size: u64) -> io::Result<Option<Vec<u8>>> {
        if size > self.remaining {
            self.end_torn();
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        match self.input.read_exact(&mut bytes) {
            Ok(()) => {
                self.remaining -= size;
                Ok(Some(bytes))
            }
            // The file became shorter while it was read.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                self.end_torn();
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    fn skip(&mut self, size: u64) -> io::Result<()> {
        match i64::try_from(size).ok().filter(|_| size <= self.remaining) {
            Some(step) => {
                self.input.seek_relative(step)?;
                self.remaining -= size;
            }
            None => self.end_torn(),
        }
        Ok(())
    }
}

/// The field `read_format` of a `struct perf_event_attr`.
fn read_format(attr: &[u8]) -> u64 {
    u64_at(attr, 32).unwrap_or_default()
}

/// An event as HEADER_ATTR records. A record has at most 64 KiB, so that an event with many ids (one
/// a CPU and thread) becomes several
/// records; [`super::events`] joins them again. Returns how many there are.
fn push_event(out: &mut Vec<u8>, event: &EventHeader) -> usize {
    let room = (usize::from(u16::MAX) - RECORD_HEADER - event.attr.len()) / 8;
    let mut ids = event.ids.chunks(room.max(1));
    let mut next = ids.next().unwrap_or_default();
    let mut records = 0;
    loop {
        records += 1;
        let size = RECORD_HEADER + event.attr.len() + next.len() * 8;
        out.extend(kind::HEADER_ATTR.to_le_bytes());
        out.extend(0u16.to_le_bytes());
        out.extend(u16::try_from(size).unwrap_or(u16::MAX).to_le_bytes());
        out.extend(&event.attr);
        next.iter().for_each(|id| out.extend(id.to_le_bytes()));
        match ids.next() {
            Some(more) => next = more,
            None => return records,
        }
    }
}

impl Read for Gate {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.ready.len() {
            match self.refill() {
                Ok(true) => {}
                Ok(false) => return Ok(0),
                // To the record reader a failing disk is the end of the file: what was read is kept.
                Err(error) => {
                    let mut shared = self.shared.borrow_mut();
                    shared.torn = true;
                    shared.failure = Some(error);
                    return Ok(0);
                }
            }
        }
        let rest = self.ready.get(self.taken..).unwrap_or_default();
        let size = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..size), rest.get(..size)) {
            to.copy_from_slice(from);
        }
        self.taken += size;
        Ok(size)
    }
}
