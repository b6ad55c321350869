//! One record as it lies in a ring: its header, its bytes, its time and event.
//!
//! Reads only what is at fixed positions; decoding bodies belongs to others. Relies on every
//! event being opened by [`super::attr`], which fixes the leading and trailing fields. Layout:
//! include/uapi/linux/perf_event.h, `struct perf_event_header` and `enum perf_event_type`.

use linux_perf_event_reader::RawData;
use perf_event_open_sys::bindings::PERF_RECORD_SAMPLE;

/// Bytes of `struct perf_event_header`: u32 type, u16 misc, u16 size.
pub const HEADER_BYTES: usize = 8;

/// The bytes of a record: two pieces when it wraps round the end of its ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordBytes<'a> {
    first: &'a [u8],
    second: &'a [u8],
}

impl<'a> RecordBytes<'a> {
    /// Joins two pieces; `second` is empty unless the record wraps.
    pub fn new(first: &'a [u8], second: &'a [u8]) -> Self {
        Self { first, second }
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.first.len() + self.second.len()
    }

    /// True without any byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The two pieces, in order.
    pub fn pieces(&self) -> [&'a [u8]; 2] {
        [self.first, self.second]
    }

    /// `LEN` bytes from `offset`, if the record is that long.
    pub fn array<const LEN: usize>(&self, offset: usize) -> Option<[u8; LEN]> {
        if offset.checked_add(LEN)? > self.len() {
            return None;
        }
        // All but a few records lie in one piece.
        if let Some(bytes) = self.first.get(offset..offset + LEN) {
            return bytes.try_into().ok();
        }
        let mut out = [0u8; LEN];
        for (index, byte) in out.iter_mut().enumerate() {
            let at = offset + index;
            *byte = *self.first.get(at).or_else(|| self.second.get(at - self.first.len()))?;
        }
        Some(out)
    }

    /// The native-endian u64 at `offset`.
    pub fn u64_at(&self, offset: usize) -> Option<u64> {
        self.array(offset).map(u64::from_ne_bytes)
    }

    /// The native-endian u32 at `offset`.
    pub fn u32_at(&self, offset: usize) -> Option<u32> {
        self.array(offset).map(u32::from_ne_bytes)
    }

    /// The bytes from `offset` on; empty when the record is shorter.
    pub fn tail(&self, offset: usize) -> Self {
        match offset.checked_sub(self.first.len()) {
            None => Self { first: &self.first[offset..], second: self.second },
            Some(rest) => Self { first: self.second.get(rest..).unwrap_or(&[]), second: &[] },
        }
    }

    /// Appends the bytes to `out`.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.first);
        out.extend_from_slice(self.second);
    }

    /// The same bytes for `linux-perf-event-reader`.
    pub fn raw_data(&self) -> RawData<'a> {
        if self.second.is_empty() {
            RawData::Single(self.first)
        } else {
            RawData::Split(self.first, self.second)
        }
    }
}

/// A record in a ring, not yet consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawRecord<'a> {
    /// Where it begins, as the ring's ever-growing byte count.
    pub position: u64,
    /// `PERF_RECORD_*`.
    pub type_: u32,
    /// `PERF_RECORD_MISC_*`.
    pub misc: u16,
    /// The whole record, header included.
    pub bytes: RecordBytes<'a>,
}

impl<'a> RawRecord<'a> {
    /// Where the next record begins.
    pub fn next_position(&self) -> u64 {
        self.position + self.bytes.len() as u64
    }

    /// What follows the header.
    pub fn body(&self) -> RecordBytes<'a> {
        self.bytes.tail(HEADER_BYTES)
    }

    /// True for a sample.
    pub fn is_sample(&self) -> bool {
        self.type_ == PERF_RECORD_SAMPLE
    }
}

/// CLOCK_MONOTONIC nanoseconds and event identifier of `record`.
///
/// A sample has them in front: header, identifier, ip, {pid, tid}, time. Every other record of
/// the kernel ends with sample_id when the event has `sample_id_all`: {pid, tid}, time,
/// identifier. `None` when the record is too short or has no sample_id.
pub fn record_time_and_id(record: &RawRecord<'_>, has_sample_id_all: bool) -> Option<(u64, u64)> {
    let bytes = &record.bytes;
    if record.is_sample() {
        return Some((bytes.u64_at(HEADER_BYTES + 24)?, bytes.u64_at(HEADER_BYTES)?));
    }
    // Header and 24 bytes of sample_id are the least such a record can have.
    if !has_sample_id_all || bytes.len() < HEADER_BYTES + 24 {
        return None;
    }
    Some((bytes.u64_at(bytes.len() - 16)?, bytes.u64_at(bytes.len() - 8)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use perf_event_open_sys::bindings::PERF_RECORD_LOST;

    fn words(type_: u32, body: &[u64]) -> Vec<u8> {
        let size = u16::try_from(HEADER_BYTES + body.len() * 8).unwrap();
        let mut bytes = type_.to_ne_bytes().to_vec();
        bytes.extend([0, 0]);
        bytes.extend(size.to_ne_bytes());
        bytes.extend(body.iter().flat_map(|word| word.to_ne_bytes()));
        bytes
    }

    fn record(type_: u32, bytes: &[u8], split: usize) -> RawRecord<'_> {
        let (first, second) = bytes.split_at(split);
        RawRecord { position: 0, type_, misc: 0, bytes: RecordBytes::new(first, second) }
    }

    #[test]
    fn time_and_id_wherever_the_record_wraps() {
        let sample = words(PERF_RECORD_SAMPLE, &[7, 0xaaaa, 0xbbbb, 1234, 5]);
        let lost = words(PERF_RECORD_LOST, &[7, 3, 0xbbbb, 999, 8]);
        for split in 0..=sample.len() {
            let raw = record(PERF_RECORD_SAMPLE, &sample, split);
            assert_eq!(record_time_and_id(&raw, true), Some((1234, 7)), "split {split}");
            let raw = record(PERF_RECORD_LOST, &lost, split);
            assert_eq!(record_time_and_id(&raw, true), Some((999, 8)), "split {split}");
            assert_eq!(record_time_and_id(&raw, false), None);
        }
    }

    #[test]
    fn short_records_have_no_time() {
        let sample = words(PERF_RECORD_SAMPLE, &[7, 1, 2]);
        assert_eq!(record_time_and_id(&record(PERF_RECORD_SAMPLE, &sample, 0), true), None);
        let lost = words(PERF_RECORD_LOST, &[7, 1]);
        assert_eq!(record_time_and_id(&record(PERF_RECORD_LOST, &lost, 0), true), None);
    }

    #[test]
    fn pieces_read_like_one() {
        let whole: Vec<u8> = (0..40).collect();
        for split in 0..=40 {
            let bytes = RecordBytes::new(&whole[..split], &whole[split..]);
            for from in 0..=44 {
                let mut copy = Vec::new();
                bytes.tail(from).append_to(&mut copy);
                assert_eq!(copy, whole.get(from..).unwrap_or(&[]));
            }
            assert_eq!(bytes.u32_at(36), Some(u32::from_ne_bytes([36, 37, 38, 39])));
            assert_eq!(bytes.u32_at(37), None);
            assert_eq!(bytes.u64_at(usize::MAX), None);
        }
    }
}
