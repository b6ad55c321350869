//! Imports of hand-made and of damaged files. Against `perf script` see `tests/perf_script/`.

use std::path::PathBuf;

use formats::capture::{Capture, Frame};
use formats::limits::Limits;

use super::{ImportError, load};

/// Pseudo-random bytes (xorshift64*), the same for the same seed.
pub(super) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(length).collect()
}

fn words(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn record(kind: u32, misc: u16, body: &[u8]) -> Vec<u8> {
    let size = u16::try_from(body.len() + 8).unwrap();
    [&kind.to_le_bytes()[..], &misc.to_le_bytes(), &size.to_le_bytes(), body].concat()
}

/// `struct perf_event_attr`, version 0: cpu-clock at 99 Hz with ip, tid, time and callchain.
fn attr() -> Vec<u8> {
    let mut attr = vec![0; 64];
    attr[0] = 1; // PERF_TYPE_SOFTWARE, config 0: PERF_COUNT_SW_CPU_CLOCK
    attr[4] = 64;
    attr[16] = 99;
    attr[24] = 1 | 2 | 4 | 32; // IP, TID, TIME, CALLCHAIN
    attr[40..48].copy_from_slice(&(1u64 << 10 | 1 << 18).to_le_bytes()); // freq, sample_id_all
    attr
}

const TID: u64 = 7 | 8 << 32;

fn sample(time: u64, chain: &[u64]) -> Vec<u8> {
    let head = words(&[chain[1], TID, time, chain.len() as u64]);
    record(9, 2, &[head, words(chain)].concat())
}

fn mmap2(time: u64) -> Vec<u8> {
    let mut body = words(&[TID, 0x1000, 0x1000, 0x400, 3 << 32 | 1, 4711, 0]);
    body.extend(5u32.to_le_bytes()); // PROT_READ | PROT_EXEC
    body.extend(2u32.to_le_bytes());
    body.extend(b"/absent/app\0\0\0\0\0");
    body.extend(words(&[TID, time]));
    record(10, 2, &body)
}

fn lost(time: u64) -> Vec<u8> {
    record(2, 0, &words(&[0, 12, TID, time]))
}

/// A file with these records and no feature sections.
fn file(records: &[u8], data_size: u64) -> Vec<u8> {
    let attrs_at = 104;
    let data_at = attrs_at + 80;
    let mut out = super::layout::MAGIC.to_vec();
    out.extend(words(&[104, 80, attrs_at, 80, data_at, data_size, 0, 0, 0, 0, 0, 0]));
    out.extend(attr());
    out.extend(words(&[0, 0]));
    out.extend(records);
    out
}

fn records() -> Vec<u8> {
    const USER: u64 = -512_i64 as u64;
    [mmap2(1), sample(10, &[USER, 0x1010, 0x1020]), lost(15), sample(20, &[USER, 0x1010, 0x9000])]
        .concat()
}

struct Temporary(PathBuf);

impl Temporary {
    fn load(&self, bytes: &[u8], limits: &Limits) -> Result<Capture, ImportError> {
        std::fs::write(&self.0, bytes).unwrap();
        load(&self.0, limits)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

fn temporary(name: &str) -> Temporary {
    Temporary(std::env::temp_dir().join(format!("nanalyze-{name}-{}", std::process::id())))
}

fn assert_is_whole(capture: &Capture) {
    assert!(capture.read.complete(), "{:?} {:?}", capture.read, capture.remarks);
    let samples = &capture.samples[0];
    assert_eq!(samples.time_ns, [10, 20]);
    let frames: Vec<_> = capture.stack_frames(samples.stack[0]).collect();
    let native = |offset, call| Frame::Native { object: 0, offset, call };
    assert_eq!(frames, [native(0x410, false), native(0x420, true)]);
    let frames: Vec<_> = capture.stack_frames(samples.stack[1]).collect();
    assert_eq!(frames, [native(0x410, false), Frame::Unmapped { address: 0x9000 }]);
    assert_eq!(capture.losses.iter().map(|loss| loss.lost).sum::<u64>(), 12);
    assert_eq!((capture.events[0].set.as_str(), capture.meta.frequency), ("cpu", 99));
}

#[test]
fn a_file_and_a_pipe_say_the_same() {
    let temporary = temporary("forms");
    let records = records();
    let bytes = file(&records, records.len() as u64);
    assert_is_whole(&temporary.load(&bytes, &Limits::default()).unwrap());
    let mut pipe = super::layout::MAGIC.to_vec();
    pipe.extend(words(&[16]));
    pipe.extend(record(64, 0, &attr()));
    // Tracing data and AUX traces stand behind their records.
    pipe.extend(record(66, 0, &words(&[13])));
    pipe.extend([0xff; 16]);
    pipe.extend(&records[..mmap2(1).len()]);
    pipe.extend(record(71, 0, &words(&[24, 0, 0, 0, 0])));
    pipe.extend([0xff; 24]);
    pipe.extend(&records[mmap2(1).len()..]);
    assert_is_whole(&temporary.load(&pipe, &Limits::default()).unwrap());
}

#[test]
fn a_file_of_a_killed_perf_is_read_to_its_end() {
    let temporary = temporary("killed");
    let capture = temporary.load(&file(&records(), 0), &Limits::default()).unwrap();
    assert!(!capture.read.complete());
    assert_eq!(capture.samples[0].len(), 2);
    assert!(capture.remarks.iter().any(|remark| remark.code == "perf-data-torn"));
}

#[test]
fn every_cut_and_every_flipped_byte_is_survived() {
    let temporary = temporary("damage");
    let records = records();
    let bytes = file(&records, records.len() as u64);
    let mut read = 0;
    for cut in 0..bytes.len() {
        read += usize::from(temporary.load(&bytes[..cut], &Limits::default()).is_ok());
    }
    assert!(read > records.len() / 2, "{read}");
    for at in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            // What counts is that it comes back.
            let _read = temporary.load(&damaged, &Limits::default());
        }
    }
}

#[test]
fn lengths_that_do_not_hold_are_refused() {
    let temporary = temporary("lengths");
    // (offset in the header, value): sizes of an attribute, of the section, offset of the records.
    for (at, value) in [(16, 0u64), (16, u64::MAX), (32, u64::MAX), (24, u64::MAX), (40, u64::MAX)]
    {
        let mut bytes = file(&records(), 8);
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        let error = temporary.load(&bytes, &Limits::default()).unwrap_err();
        assert!(matches!(error, ImportError::Unusable { .. }), "{at} {value}: {error}");
    }
    // A record shorter than its own header ends the reading; a sample whose chain does not fit is counted.
    let huge = record(9, 2, &words(&[1, TID, 5, 1 << 61]));
    let short = [&huge[..], &records(), &9u64.to_le_bytes()].concat();
    let bytes = file(&short, short.len() as u64);
    let capture = temporary.load(&bytes, &Limits::default()).unwrap();
    assert_eq!(capture.samples[0].len(), 2);
    assert!(capture.read.damaged_sections >= 2 && capture.read.torn_tail);
    let error = temporary.load(b"2ELIFREP0123456789", &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("big-endian"), "{error}");
}

#[test]
fn a_build_id_longer_than_its_place_is_no_panic() {
    let temporary = temporary("build-id");
    let mut map = mmap2(1);
    map[5] |= 0x40; // PERF_RECORD_MISC_MMAP_BUILD_ID
    map[8 + 32] = 200;
    let all = [&map[..], &records()[mmap2(1).len()..]].concat();
    let capture = temporary.load(&file(&all, all.len() as u64), &Limits::default()).unwrap();
    assert_eq!(capture.read.damaged_sections, 1);
    assert_eq!(capture.samples[0].len(), 2);
}

#[test]
fn limits_hold() {
    let temporary = temporary("limits");
    let records = records();
    let bytes = file(&records, records.len() as u64);
    let mut limits = Limits::default();
    limits.samples = 1;
    let capture = temporary.load(&bytes, &limits).unwrap();
    assert_eq!(capture.samples[0].len(), 1);
    assert!(capture.remarks.iter().any(|remark| remark.code == "too-many-samples"));
}
