//! Empties the rings in time order, without copying a record.
//!
//! Each CPU has its own ring, so records of one process lie in several. Only what is older than the
//! start of a round is taken: whatever caused a record (a mapping before a sample in it) is then in
//! some ring already, and the round puts both in order.

use std::collections::HashSet;

use crate::sys::record::{RawRecord, record_time_and_id};
use crate::sys::ring::{Ring, RingError};

/// Space is given back in the midst of a round when it has become so much, bytes: what is taken can
/// take long, and the kernel writes on meanwhile.
const GIVE_BACK: u64 = 256 << 10;
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
    /// For each place the position up to which its ring can be given back after it.
    done: Vec<u64>,
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
        done_after(&self.order, &ends, &mut self.done);
        for (place, &done) in self.order.iter().zip(&self.done) {
            let Some(ring) = rings.get_mut(place.ring as usize) else { continue };
            if let Ok(Some(record)) = ring.peek(place.position) {
                take(&record, place.time_ns, place.id);
            }
            if done.saturating_sub(ring.tail()) >= GIVE_BACK {
                ring.consume_to(done)?;
            }
        }
        for (ring, end) in rings.iter_mut().zip(ends) {
            ring.consume_to(end)?;
        }
        problem.map_or(Ok(self.order.len()), Err)
    }
}

/// Up to where a ring can be given back when a place and all before it in the order have been taken: to
/// its first place that has not. `ends` are where the rings' last places end.
fn done_after(order: &[Place], ends: &[u64], done: &mut Vec<u64>) {
    let mut first = ends.to_vec();
    done.clear();
    for place in order.iter().rev() {
        let Some(first) = first.get_mut(place.ring as usize) else {
            // No place without its ring; it would give nothing back.
            done.push(0);
            continue;
        };
        done.push(*first);
        *first = place.position.min(*first);
    }
    done.reverse();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn place(time_ns: u64, ring: u32, position: u64) -> Place {
        Place { time_ns, ring, position, id: 0 }
    }

    #[test]
    fn nothing_is_given_back_before_it_is_taken() {
        // In ring 1 the times are not in the order of the positions.
        let order =
            [place(1, 0, 0), place(2, 1, 100), place(3, 0, 10), place(4, 1, 80), place(5, 1, 120)];
        let (ends, mut done) = ([30, 130], vec![9; 3]);
        done_after(&order, &ends, &mut done);
        assert_eq!(done, [10, 80, 30, 120, 130]);
        for (at, place) in order.iter().enumerate() {
            for later in order.iter().skip(at + 1).filter(|later| later.ring == place.ring) {
                assert!(done[at] <= later.position, "{place:?} gives {later:?} back");
            }
        }
        done_after(&[], &ends, &mut done);
        assert!(done.is_empty());
    }
}
