//! One sample record: the fields that are of use here, by the event's sample format.
//!
//! Layout: include/uapi/linux/perf_event.h, PERF_RECORD_SAMPLE, little endian. What follows the raw
//! data (branches, registers, user stack) is not read. Pure; survives any bytes.

use linux_perf_data::linux_perf_event_reader::{ReadFormat, SampleFormat};

/// What a sample says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sample<'a> {
    /// Instruction pointer.
    pub(super) ip: Option<u64>,
    /// Process id.
    pub(super) pid: Option<u32>,
    /// Thread id.
    pub(super) tid: Option<u32>,
    /// Nanoseconds of the event's clock.
    pub(super) time_ns: Option<u64>,
    /// Callchain with context markers, 8 bytes an entry.
    pub(super) callchain: &'a [u8],
    /// Raw data of a tracepoint.
    pub(super) raw: &'a [u8],
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn bytes(&mut self, size: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(size)?;
        self.0 = tail;
        Some(head)
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?))
    }

    fn skip(&mut self, words: u64) -> Option<()> {
        self.bytes(usize::try_from(words.checked_mul(8)?).ok()?).map(|_bytes| ())
    }
}

impl<'a> Sample<'a> {
    /// Decodes the body of a sample record; `read` is the event's `read_format`. `None` when it is shorter than its format and counts say.
    pub(super) fn parse(body: &'a [u8], format: SampleFormat, read: u64) -> Option<Self> {
        let mut at = Cursor(body);
        let mut sample = Self::default();
        let has = |bit| format.contains(bit);
        if has(SampleFormat::IDENTIFIER) {
            at.skip(1)?;
        }
        if has(SampleFormat::IP) {
            sample.ip = Some(at.u64()?);
        }
        if has(SampleFormat::TID) {
            sample.pid = Some(at.u32()?);
            sample.tid = Some(at.u32()?);
        }
        if has(SampleFormat::TIME) {
            sample.time_ns = Some(at.u64()?);
        }
        let words = [
            SampleFormat::ADDR,
            SampleFormat::ID,
            SampleFormat::STREAM_ID,
            SampleFormat::CPU,
            SampleFormat::PERIOD,
        ];
        at.skip(words.into_iter().filter(|&bit| has(bit)).count() as u64)?;
        if has(SampleFormat::READ) {
            skip_read(&mut at, read)?;
        }
        if has(SampleFormat::CALLCHAIN) {
            let entries = usize::try_from(at.u64()?).ok()?;
            sample.callchain = at.bytes(entries.checked_mul(8)?)?;
        }
        if has(SampleFormat::RAW) {
            let size = at.u32()? as usize;
            sample.raw = at.bytes(size)?;
        }
        Some(sample)
    }
}

/// `PERF_FORMAT_LOST` of include/uapi/linux/perf_event.h; newer than the reader crate.
const READ_FORMAT_LOST: u64 = 1 << 4;

/// Skips `struct read_format`: of one event, or of a group (see perf_event_open(2)).
fn skip_read(at: &mut Cursor<'_>, read: u64) -> Option<()> {
    let has = |bit: ReadFormat| u64::from(read & bit.bits() != 0);
    let times = has(ReadFormat::TOTAL_TIME_ENABLED) + has(ReadFormat::TOTAL_TIME_RUNNING);
    let lost = u64::from(read & READ_FORMAT_LOST != 0);
    let per_event = 1 + has(ReadFormat::ID) + lost;
    if read & ReadFormat::GROUP.bits() != 0 {
        let events = at.u64()?;
        at.skip(times)?;
        at.skip(events.checked_mul(per_event)?)
    } else {
        at.skip(times + per_event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::perfdata::tests::noise;

    fn body(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn fields_follow_the_format() {
        let format = SampleFormat::IDENTIFIER
            | SampleFormat::IP
            | SampleFormat::TID
            | SampleFormat::TIME
            | SampleFormat::CPU
            | SampleFormat::PERIOD
            | SampleFormat::READ
            | SampleFormat::CALLCHAIN;
        let read = ReadFormat::GROUP | ReadFormat::ID | ReadFormat::TOTAL_TIME_ENABLED;
        let read = read.bits() | READ_FORMAT_LOST;
        let tid = 7 | 8 << 32;
        let words = [99, 0x1000, tid, 5, 0, 1, 2, 60, 10, 11, 0, 12, 13, 0, 2, 0x1000, 0x2000];
        let bytes = body(&words);
        let sample = Sample::parse(&bytes, format, read).unwrap();
        assert_eq!((sample.pid, sample.tid, sample.time_ns), (Some(7), Some(8), Some(5)));
        assert_eq!(sample.ip, Some(0x1000));
        assert_eq!(sample.callchain, body(&[0x1000, 0x2000]));
        for cut in 0..bytes.len() {
            assert_eq!(Sample::parse(&bytes[..cut], format, read), None, "cut at {cut}");
        }
    }

    #[test]
    fn a_huge_count_is_refused() {
        for count in [u64::MAX, 1 << 61, (1 << 61) + 1, 3] {
            let bytes = body(&[count, 1, 2]);
            let sample = Sample::parse(&bytes, SampleFormat::CALLCHAIN, 0);
            assert_eq!(sample, None, "{count:#x}");
        }
    }

    #[test]
    fn any_bytes_are_survived() {
        for seed in 0..2000 {
            let bytes = noise(seed, 200);
            let bits = |at| crate::import::perfdata::layout::u64_at(&bytes, at).unwrap();
            let format = SampleFormat::from_bits_truncate(bits(0));
            let _sample = Sample::parse(bytes.get(16..).unwrap(), format, bits(8));
        }
    }
}
