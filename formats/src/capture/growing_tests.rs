//! Captures that are read while they grow: every split of the bytes gives the same capture, and what
//! is forgotten on the way is not missed.

use proptest::prelude::*;

use super::tests::sample_capture;
use super::*;
use crate::limits::Limits;

fn in_pieces<'b>(pieces: impl IntoIterator<Item = &'b [u8]>) -> Result<Capture, ReadError> {
    let mut reader = CaptureReader::new(&Limits::default());
    for piece in pieces {
        reader.feed(piece)?;
    }
    reader.finish()
}

#[test]
fn every_split_gives_the_same_capture() {
    let bytes = sample_capture(TableLimits::default(), 3);
    let whole = read(&bytes, &Limits::default());
    assert!(whole.as_ref().unwrap().read.complete());
    for cut in 0..=bytes.len() {
        let (before, after) = bytes.split_at(cut);
        assert_eq!(in_pieces([before, after]), whole, "cut at {cut}");
    }
    for size in [1, 2, 7, 31, 32, 33, 100] {
        assert_eq!(in_pieces(bytes.chunks(size)), whole, "pieces of {size}");
    }
    let other = b"#!/bin/sh\nexit 0\n".as_slice();
    assert_eq!(in_pieces(other.chunks(3)), Err(ReadError::NotACapture));
    assert_eq!(in_pieces(bytes[..9].chunks(4)), Err(ReadError::NotACapture));
    assert_eq!(in_pieces([&bytes[..40]]), Err(ReadError::Empty { bytes: 40 }));
}

#[test]
fn what_has_not_come_yet_is_no_damage() {
    let bytes = sample_capture(TableLimits::default(), 3);
    let mut reader = CaptureReader::new(&Limits::default());
    let mut samples = 0;
    for byte in bytes.chunks(1) {
        reader.feed(byte).unwrap();
        let report = &reader.capture().read;
        assert!(!report.torn_tail && report.damaged_bytes == 0 && report.missing_chunks == 0);
        samples = samples.max(reader.capture().samples.first().map_or(0, Samples::len));
    }
    assert_eq!((samples, reader.chunks()), (9, 6));
    assert!(reader.capture().read.complete());
}

#[test]
fn a_length_that_no_writer_would_say_is_not_waited_for() {
    let bytes = sample_capture(TableLimits::default(), 3);
    let forged = chunk::ChunkHeader {
        kind: ChunkKind::DATA,
        compressed: false,
        sequence: 0,
        stored_len: u32::MAX,
        raw_len: u32::MAX,
        payload_crc: 0,
    };
    let mut reader = CaptureReader::new(&Limits::default());
    reader.feed(&bytes[..FILE_HEADER_BYTES]).unwrap();
    reader.feed(&forged.encode()).unwrap();
    reader.feed(&bytes[FILE_HEADER_BYTES..]).unwrap();
    let capture = reader.finish().unwrap();
    assert_eq!(capture.read.damaged_bytes, CHUNK_HEADER_BYTES as u64);
    assert!(capture.read.ended && capture.samples[0].len() == 9);
}

/// The samples of a capture with what they refer to: times, stacks as frames, strings.
type Told = Vec<(u64, Vec<Frame>, Option<Vec<u8>>)>;

fn told(capture: &Capture, samples: &[Samples]) -> Told {
    let rows = samples.iter().flat_map(|samples| (0..samples.len()).map(move |row| (samples, row)));
    rows.map(|(samples, row)| {
        let frames = capture.stack_frames(samples.stack[row]).collect();
        let path = capture.string(samples.fields[1][row]).map(<[u8]>::to_vec);
        (samples.time_ns[row], frames, path)
    })
    .collect()
}

#[test]
fn what_is_in_use_outlives_its_epoch_and_the_rest_does_not() {
    let tiny = TableLimits { strings: 2, string_bytes: 64, frames: 4, stacks: 4 };
    let bytes = sample_capture(tiny, 10);
    let whole = read(&bytes, &Limits::default()).unwrap();
    let mut reader = CaptureReader::new(&Limits::default());
    let mut held: Vec<Samples> = Vec::new();
    let mut seen = Told::new();
    let mut rows = 0;
    for piece in bytes.chunks(50) {
        reader.feed(piece).unwrap();
        let new = reader.take_samples();
        assert!(reader.capture().samples.is_empty());
        seen.extend(told(reader.capture(), &new));
        // One sample of each chunk is waited for.
        held.extend(new.into_iter().map(|samples| Samples {
            event: samples.event,
            time_ns: samples.time_ns[..1].to_vec(),
            thread: samples.thread[..1].to_vec(),
            stack: samples.stack[..1].to_vec(),
            fields: samples.fields.iter().map(|column| column[..1].to_vec()).collect(),
        }));
        if reader.has_outlived() {
            let before = told(reader.capture(), &held);
            let strings: Vec<u32> = held.iter().map(|held| held.fields[1][0] as u32).collect();
            let stacks: Vec<u32> = held.iter().map(|held| held.stack[0]).collect();
            let moved = reader.forget(strings, stacks);
            for held in &mut held {
                held.stack[0] = moved.stack(held.stack[0]);
                held.fields[1][0] = u64::from(moved.string(held.fields[1][0] as u32));
            }
            assert_eq!(told(reader.capture(), &held), before);
            assert!(!reader.has_outlived());
        }
        rows = rows.max(reader.capture().stacks.len());
    }
    assert_eq!(seen, told(&whole, &whole.samples));
    assert_eq!(held.len(), 3);
    assert!(rows < whole.stacks.len(), "{rows} of {}", whole.stacks.len());
}

#[test]
fn a_long_recording_is_settled() {
    let meta = Meta::default();
    let mut writer = CaptureWriter::create(Vec::new(), &meta, TableLimits::default()).unwrap();
    let process = writer.process(Process { pid: 7, ..Process::default() });
    let mut reader = CaptureReader::new(&Limits::default());
    let mut fed = 0;
    for round in 0..2_000u32 {
        writer.mapping(Mapping { process, ..Mapping::default() });
        writer.loss(Loss { event: round % 2, time_ns: 5, lost: 1, dropped: 2 });
        for at in 0..100u64 {
            let name = format!("f{at}").into_bytes();
            writer.symbol(Symbol { object: 0, start: at, size: 1, name });
        }
        let name = format!("/s{round}.js").into_bytes();
        let script = writer.script(Script { process, name, ..Script::default() });
        writer.function(Function { script: script + 1, name: b"f".to_vec(), start: 1 });
        writer.line_ends(LineEnds { script, ends: vec![10; 100] });
        let child = writer.process(Process { comm: b"child".to_vec(), ..Process::default() });
        let orphan = Script { process: child, name: b"/child.js".to_vec(), ..Script::default() };
        let orphan = writer.script(orphan);
        writer.line_ends(LineEnds { script: orphan, ends: vec![1] });
        writer.process_end(ProcessEnd { process: child, time_ns: 9 });
        writer.flush().unwrap();
        reader.feed(&writer.output()[fed..]).unwrap();
        fed = writer.output().len();
        reader.settle_within(100_000);
    }
    let capture = reader.capture();
    assert_eq!(capture.read, ReadReport::default());
    assert!(capture.mappings.is_empty() && capture.ends.is_empty());
    let sums: Vec<_> = capture.losses.iter().map(|l| (l.event, l.lost, l.dropped)).collect();
    assert_eq!(sums, [(0, 1000, 2000), (1, 1000, 2000)]);
    assert!(capture.symbols.len() < 200_000 - 100_000, "{}", capture.symbols.len());
    // Rows stay where they were, names of the latest are there, the oldest are gone.
    assert_eq!((capture.functions.len(), capture.scripts.len()), (2_000, 4_000));
    assert!(capture.line_ends.len() < 400, "{}", capture.line_ends.len());
    assert_eq!(capture.functions[1_999].name, b"f");
    assert_eq!(capture.scripts[3_998].name, b"/s1999.js");
    assert_eq!(capture.functions[0].name, b"(forgotten)");
    assert!(capture.processes[1].comm.is_empty());
    assert!(capture.line_ends.iter().all(|lines| lines.script as usize >= 2_000));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
    #[test]
    fn damage_is_the_same_in_pieces(
        at in 0usize..,
        flip in 0u8..,
        keep in 0usize..,
        sizes in prop::collection::vec(1usize..400, 1..20),
    ) {
        let mut bytes = sample_capture(TableLimits::default(), 2);
        let length = bytes.len();
        bytes[at % length] ^= flip;
        bytes.truncate(length - keep % 100);
        let whole = read(&bytes, &Limits::default());
        let mut rest = bytes.as_slice();
        let mut sizes = sizes.iter().cycle();
        let pieces = std::iter::from_fn(|| {
            let (piece, after) = rest.split_at(rest.len().min(*sizes.next()?));
            rest = after;
            (!piece.is_empty()).then_some(piece)
        });
        prop_assert_eq!(in_pieces(pieces.collect::<Vec<_>>()), whole);
    }
}
