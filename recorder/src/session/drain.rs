//! Empties the rings in time order, without copying a record.
//!
//! Each CPU has its own ring, so records of one process lie in several. Only what is older than the
//! start of a round is taken: whatever caused a record (a mapping before a sample in it) is then in
//! some ring already, and the round puts both in order.

use std::collections::HashSet;

use crate::sys::record::{RawRecord, record_time_and_id};
use crate::sys::ring::{Ring, RingError};

/// `PERF_RECORD_FORK` (include/uapi/linux/perf_event.h).
const FORK: u32 = 7;

/// Where one record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    time_ns: u64,
    ring: u32,
    position: u64,
    id: u64,
}

/// Keeps its memory from round to round.
#[derive(Debug, Default)]
pub struct Drain {
    order: Vec<Place>,
}

impl Drain {
    /// Hands over every record up to `until_ns` in time order and gives the space back. Returns how
    /// many there were.
    ///
    /// # Errors
    /// A ring holds something that is no record; the records before it have been handed over.
    pub fn round(
        &mut self,
        rings: &mut [Ring],
        until_ns: u64,
        mut take: impl FnMut(&RawRecord<'_>, u64, u64),
    ) -> Result<usize, RingError> {
        self.order.clear();
        let mut problem = None;
        let mut ends = Vec::with_capacity(rings.len());
        for (index, ring) in rings.iter_mut().enumerate() {
            if let Err(error) = ring.refresh() {
                problem = Some(error);
            }
            let mut end = ring.tail();
            for record in ring.records() {
                let record = match record {
                    Ok(record) => record,
                    Err(error) => {
                        problem = Some(error);
                        // Nothing behind a broken header can be found: start anew at the head.
                        end = ring.head();
                        break;
                    }
                };
                // Every event is opened with sample_id_all, so a record without a time is unknown
                // to us; it is taken at once.
                let (time_ns, id) = record_time_and_id(&record, true).unwrap_or((0, 0));
                if time_ns > until_ns {
                    break;
                }
                let position = record.position;
                end = record.next_position();
                self.order.push(Place { time_ns, ring: index as u32, position, id });
            }
            ends.push(end);
        }
        self.order.sort_unstable();
        for place in &self.order {
            let Some(ring) = rings.get(place.ring as usize) else { continue };
            if let Ok(Some(record)) = ring.peek(place.position) {
                take(&record, place.time_ns, place.id);
            }
        }
        for (ring, end) in rings.iter_mut().zip(ends) {
            ring.consume_to(end)?;
        }
        problem.map_or(Ok(self.order.len()), Err)
    }
}

/// Threads that the kernel has opened events for, by their FORK records. Consumes nothing.
pub fn inherited_threads(rings: &mut [Ring]) -> HashSet<u32> {
    let mut threads = HashSet::new();
    for ring in rings {
        if ring.refresh().is_err() {
            continue;
        }
        // struct: pid, ppid, tid, ptid.
        let forks = ring.records().flatten().filter(|record| record.type_ == FORK);
        threads.extend(forks.filter_map(|record| record.body().u32_at(8)));
    }
    threads
}
