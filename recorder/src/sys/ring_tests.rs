//! The ring on ordinary memory, with a writer that follows the kernel's protocol.

use super::*;

const PAGE: usize = 4096;

impl Ring {
    /// A ring on the heap whose positions begin at `start`.
    fn on_heap(data_pages: usize, start: u64) -> Self {
        assert!(data_pages.is_power_of_two());
        // A Vec, not a Box: moving a Box would invalidate the pointer under Rust's aliasing rules.
        let mut memory = vec![0u64; (1 + data_pages) * PAGE / 8];
        let base = NonNull::new(memory.as_mut_ptr().cast()).unwrap();
        let ring = Self {
            base,
            page_bytes: PAGE,
            capacity: data_pages * PAGE,
            tail: start,
            head: start,
            backing: Backing::Heap { _memory: memory },
        };
        ring.publish(start);
        ring
    }

    fn publish(&self, head: u64) {
        self.control(offset_of!(perf_event_mmap_page, data_head)).store(head, Ordering::Release);
    }

    fn shared(&self, offset: usize) -> u64 {
        self.control(offset).load(Ordering::Acquire)
    }

    /// Writes `bytes` as the kernel would; false (nothing written) when there is no room.
    fn write(&self, bytes: &[u8]) -> bool {
        let head = self.shared(offset_of!(perf_event_mmap_page, data_head));
        let tail = self.shared(offset_of!(perf_event_mmap_page, data_tail)).max(self.tail);
        if head - tail + bytes.len() as u64 > self.capacity as u64 {
            return false;
        }
        for (index, byte) in bytes.iter().enumerate() {
            let at = usize::try_from((head + index as u64) % self.capacity as u64).unwrap();
            // SAFETY: within the data area, outside tail..head, hence borrowed by nobody.
            unsafe { self.base.as_ptr().wrapping_add(PAGE + at).write(*byte) };
        }
        self.publish(head + bytes.len() as u64);
        true
    }
}

fn record(type_: u32, misc: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = type_.to_ne_bytes().to_vec();
    bytes.extend(misc.to_ne_bytes());
    bytes.extend(u16::try_from(HEADER_BYTES + body.len()).unwrap().to_ne_bytes());
    bytes.extend(body);
    bytes
}

fn bytes_of(record: &RawRecord<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    record.bytes.append_to(&mut out);
    out
}

#[test]
fn peeking_gives_nothing_back() {
    let mut ring = Ring::on_heap(1, 0);
    let (one, two) = (record(9, 2, &[1; 16]), record(3, 0, &[2; 8]));
    assert!(ring.write(&one) && ring.write(&two));
    assert_eq!(ring.peek(0), Ok(None), "not visible before the refresh");
    ring.refresh().unwrap();
    for _ in 0..2 {
        let seen: Vec<_> = ring.records().map(|r| bytes_of(&r.unwrap())).collect();
        assert_eq!(seen, [one.clone(), two.clone()]);
    }
    assert_eq!(ring.shared(offset_of!(perf_event_mmap_page, data_tail)), 0);
    let next = ring.peek(0).unwrap().unwrap().next_position();
    ring.consume_to(next).unwrap();
    assert_eq!(ring.shared(offset_of!(perf_event_mmap_page, data_tail)), 24);
    let rest = ring.peek(next).unwrap().unwrap();
    assert_eq!((rest.type_, rest.misc, rest.position), (3, 0, 24));
    assert_eq!(ring.peek(0), Err(RingError::BadPosition { position: 0, tail: 24, head: 40 }));
}

/// Every start position at which a record can wrap, the header included.
#[test]
fn wraps_at_every_byte() {
    let body: Vec<u8> = (0..56).collect();
    let one = record(9, 0x4001, &body);
    for before_end in 0..=one.len() {
        let start = (3 * PAGE - before_end) as u64;
        let mut ring = Ring::on_heap(1, start);
        assert!(ring.write(&one));
        ring.refresh().unwrap();
        let seen = ring.peek(start).unwrap().unwrap();
        assert_eq!((seen.type_, seen.misc), (9, 0x4001));
        assert_eq!(bytes_of(&seen), one, "{before_end} bytes before the end");
        assert_eq!(seen.body().len(), body.len());
    }
}

#[test]
fn a_long_run_loses_and_repeats_nothing() {
    let mut ring = Ring::on_heap(2, 8 * 4095);
    let (mut written, mut read, mut refused) = (0u64, 0u64, 0);
    while read < 5000 {
        // Sizes vary so that records wrap at different places.
        let mut body = written.to_ne_bytes().to_vec();
        body.resize(8 + 8 * usize::try_from(written % 29).unwrap(), 0xee);
        if ring.write(&record(9, 0, &body)) {
            written += 1;
            continue;
        }
        refused += 1;
        ring.refresh().unwrap();
        // Take about half of what is there, as a merge that stops early does.
        let stop = ring.tail() + (ring.head() - ring.tail()) / 2;
        let mut position = ring.tail();
        while position < stop {
            let seen = ring.peek(position).unwrap().unwrap();
            assert_eq!(seen.body().u64_at(0), Some(read));
            read += 1;
            position = seen.next_position();
        }
        ring.consume_to(position).unwrap();
    }
    assert!(refused > 10, "the ring was never full: the test shows nothing");
}

#[test]
fn impossible_sizes_are_errors_not_panics() {
    for (size, extra) in [(0u16, 8), (7, 8), (u16::MAX, 8), (24, 8)] {
        let mut ring = Ring::on_heap(1, 0);
        let mut bytes = record(9, 0, &vec![0; extra]);
        bytes[6..8].copy_from_slice(&size.to_ne_bytes());
        assert!(ring.write(&bytes));
        ring.refresh().unwrap();
        let error = RingError::BadRecord { position: 0, size: size.into(), available: 16 };
        assert_eq!(ring.peek(0), Err(error));
        assert_eq!(ring.records().collect::<Vec<_>>(), [Err(error)], "the iterator ends");
        assert_eq!(ring.discard(), 16);
        assert!(ring.write(&record(1, 0, &[0; 8])));
        ring.refresh().unwrap();
        assert_eq!(ring.records().count(), 1, "readable again after the discard");
    }
}

#[test]
fn a_cut_header_is_an_error() {
    let mut ring = Ring::on_heap(1, 0);
    assert!(ring.write(&[1, 2, 3]));
    ring.refresh().unwrap();
    assert_eq!(ring.peek(0), Err(RingError::BadRecord { position: 0, size: 0, available: 3 }));
}

#[test]
fn an_impossible_head_changes_nothing() {
    let mut ring = Ring::on_heap(1, 100);
    for head in [99, 101 + PAGE as u64, u64::MAX] {
        ring.publish(head);
        let capacity = PAGE as u64;
        assert_eq!(ring.refresh(), Err(RingError::BadHead { head, tail: 100, capacity }));
        assert_eq!((ring.head(), ring.tail()), (100, 100));
    }
    assert_eq!(
        ring.consume_to(101),
        Err(RingError::BadPosition { position: 101, tail: 100, head: 100 })
    );
}
