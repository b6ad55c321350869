//! Writer against reader: what goes in comes out; cut anywhere or flipped anywhere, nothing panics
//! and nothing is invented.

use super::*;
use crate::limits::Limits;
use proptest::prelude::*;

fn event() -> EventDef {
    EventDef {
        id: 3,
        name: "uv_fs_open".into(),
        set: "fs".into(),
        source: "uprobe".into(),
        fields: vec![
            FieldDef { name: "req".into(), kind: FieldType::Hex },
            FieldDef { name: "path".into(), kind: FieldType::String },
            FieldDef { name: "res".into(), kind: FieldType::Signed },
        ],
        period_ns: None,
    }
}

/// A small capture with every table in it, three flushes, and an end.
pub(super) fn sample_capture(limits: TableLimits, per_flush: u64) -> Vec<u8> {
    let meta = Meta { recorder: "test".into(), start_ns: 1_000, ..Meta::default() };
    let mut writer = CaptureWriter::create(Vec::new(), &meta, limits).unwrap();
    writer.event(&event()).unwrap();
    let object = writer.object(Object { path: b"/usr/bin/node".to_vec(), ..Object::default() });
    let process = writer.process(Process { pid: 7, comm: b"node".to_vec(), ..Process::default() });
    let thread = writer.thread(Thread { process, tid: 8 });
    let script = writer.script(Script {
        process,
        name: b"/app/a.js".to_vec(),
        source_url: b"a.js".to_vec(),
        source_map_url: b"a.js.map".to_vec(),
        line_offset: 1,
        column_offset: 62,
    });
    writer.line_ends(LineEnds { script, ends: vec![10, 11, 400] });
    let function = writer.function(Function { script: script + 1, name: b"f".to_vec(), start: 3 });
    for flush in 0..3u64 {
        for i in 0..per_flush {
            let n = flush * per_flush + i;
            let frames = [
                Frame::Native { object, offset: 0x1000, call: true },
                Frame::Jit { process, address: 0x7f00_0000_0000 + n % 5, call: true },
                Frame::Js { function, position: n as u32 % 7, tier: Tier::MAGLEV, inlined: true },
                Frame::Nameless(NoName::MOVED),
                Frame::Kernel { address: 0xffff_ffff_8100_0000, call: false },
                Frame::Unmapped { address: n },
            ];
            let stack = frames.iter().fold(StackId::default(), |at, &f| writer.stack(at, f));
            let path = format!("/tmp/file-{}", n % 4);
            let fields = [
                FieldValue::Int(0xdead_0000 + n),
                if n % 6 == 5 { FieldValue::Missing } else { FieldValue::Bytes(path.as_bytes()) },
                FieldValue::Int(-2i64 as u64),
            ];
            writer.sample(3, 2_000 + n * 10, thread, stack, &fields);
        }
        writer.jit(&JitBatch {
            process,
            after_ns: flush,
            seen_ns: flush + 1,
            entries: vec![JitEntry {
                start: 0x7f00_0000_0000,
                size: 64,
                name: b"JS:~f a.js".to_vec(),
            }],
        });
        writer.symbol(Symbol { object, start: 0xf00, size: 0x200, name: b"main".to_vec() });
        let target = b"/etc/hosts".to_vec();
        writer.holding(Holding { process, number: flush as u32, time_ns: 900, target });
        writer.mapping(Mapping { process, object, start: 1, end: 2, offset: 3, time_ns: 4 });
        writer.loss(Loss { event: 3, time_ns: flush, lost: 1, dropped: 0 });
        writer.remark(&Remark { code: "x".into(), text: "y".into(), count: flush }).unwrap();
        writer.flush().unwrap();
    }
    writer.process_end(ProcessEnd { process, time_ns: 9_000 });
    let end = End { reason: "duration".into(), end_ns: 9_999, exit_status: None };
    writer.finish(&end).unwrap().0
}

#[test]
fn what_is_written_is_read() {
    let bytes = sample_capture(TableLimits::default(), 10);
    let capture = read(&bytes, &Limits::default()).unwrap();
    assert!(capture.read.complete(), "{:?}", capture.read);
    assert_eq!(capture.meta.start_ns, 1_000);
    assert_eq!(capture.end_ns(), 9_999);
    let samples = &capture.samples[0];
    assert_eq!(samples.len(), 30);
    for n in 0..30u64 {
        let at = n as usize;
        assert_eq!(samples.time_ns[at], 2_000 + n * 10);
        assert_eq!(samples.fields[0][at], 0xdead_0000 + n);
        let path = (n % 6 != 5).then(|| format!("/tmp/file-{}", n % 4));
        assert_eq!(capture.string(samples.fields[1][at]), path.as_deref().map(str::as_bytes));
        assert_eq!(samples.fields[2][at] as i64, -2);
        let frames: Vec<_> = capture.stack_frames(samples.stack[at]).collect();
        assert_eq!(frames.len(), 6);
        assert_eq!(frames[0], Frame::Unmapped { address: n });
        assert_eq!(frames[2], Frame::Nameless(NoName::MOVED));
        let (position, tier) = (n as u32 % 7, Tier::MAGLEV);
        assert_eq!(frames[3], Frame::Js { function: 0, position, tier, inlined: true });
        assert_eq!(frames[5], Frame::Native { object: 0, offset: 0x1000, call: true });
    }
    assert_eq!(capture.jit.len(), 3);
    assert_eq!(capture.holdings.len(), 3);
    let target = b"/etc/hosts".to_vec();
    assert_eq!(capture.holdings[2], Holding { process: 0, number: 2, time_ns: 900, target });
    assert_eq!(capture.line_ends, [LineEnds { script: 0, ends: vec![10, 11, 400] }]);
    let script = &capture.scripts[0];
    assert_eq!((script.line_offset, script.column_offset), (1, 62));
    assert_eq!(
        (&script.source_url[..], &script.source_map_url[..]),
        (&b"a.js"[..], &b"a.js.map"[..])
    );
    assert_eq!(capture.functions, [Function { script: 1, name: b"f".to_vec(), start: 3 }]);
    assert_eq!((capture.symbols.len(), capture.losses.len(), capture.remarks.len()), (3, 3, 3));
}

#[test]
fn full_tables_begin_a_new_epoch_and_lose_nothing() {
    let tiny = TableLimits { strings: 2, string_bytes: 64, frames: 4, stacks: 4 };
    let capture = read(&sample_capture(tiny, 10), &Limits::default()).unwrap();
    let whole = read(&sample_capture(TableLimits::default(), 10), &Limits::default()).unwrap();
    let stacks = |c: &Capture| {
        let ids = c.samples[0].stack.clone();
        ids.iter().map(|&id| c.stack_frames(id).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    assert_eq!(stacks(&capture), stacks(&whole));
}

#[test]
fn cut_at_every_byte() {
    let bytes = sample_capture(TableLimits::default(), 4);
    let whole = read(&bytes, &Limits::default()).unwrap();
    for cut in 0..bytes.len() {
        match read(&bytes[..cut], &Limits::default()) {
            Ok(capture) => {
                assert!(!capture.read.complete(), "cut at {cut} reads as complete");
                if let Some(samples) = capture.samples.first() {
                    let n = samples.len();
                    assert_eq!(samples.time_ns[..], whole.samples[0].time_ns[..n]);
                }
            }
            Err(error) => assert!(cut < 400, "cut at {cut}: {error}"),
        }
    }
}

#[test]
fn a_damaged_chunk_costs_only_itself() {
    let bytes = sample_capture(TableLimits::default(), 4);
    // The second data chunk is the third chunk of the file.
    let second = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(b"NCHK")).nth(2).unwrap();
    let mut damaged = bytes.clone();
    damaged[second + CHUNK_HEADER_BYTES + 3] ^= 0x55;
    let capture = read(&damaged, &Limits::default()).unwrap();
    assert_eq!(capture.read.damaged_chunks, 1);
    assert_eq!(capture.samples[0].len(), 8);
    let whole = read(&bytes, &Limits::default()).unwrap();
    assert_eq!(capture.samples[0].time_ns[4..], whole.samples[0].time_ns[8..]);
    // What the lost chunk defined is marked, what the others defined still reads.
    let last = capture.stack_frames(capture.samples[0].stack[7]).next().unwrap();
    assert_eq!(last, Frame::Unmapped { address: 11 });
}

#[test]
fn other_files_are_refused() {
    assert_eq!(read(b"PERFILE2 and so on", &Limits::default()), Err(ReadError::NotACapture));
    assert_eq!(read(b"", &Limits::default()), Err(ReadError::NotACapture));
    let mut newer = sample_capture(TableLimits::default(), 1);
    newer[8..10].copy_from_slice(&9u16.to_le_bytes());
    let crc = crc32c::crc32c(&newer[..12]).to_le_bytes();
    newer[12..16].copy_from_slice(&crc);
    assert_eq!(
        read(&newer, &Limits::default()),
        Err(ReadError::TooNew { found: 9, known: FORMAT_VERSION })
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn flipped_bytes_are_noticed(at in 16usize.., flip in 1u8.., cases in 0u8..3) {
        let mut bytes = sample_capture(TableLimits::default(), 2);
        let length = bytes.len();
        for round in 0..=usize::from(cases) {
            bytes[16 + at.wrapping_mul(round + 1) % (length - 16)] ^= flip;
        }
        let changed = bytes != sample_capture(TableLimits::default(), 2);
        if let Ok(capture) = read(&bytes, &Limits::default()) {
            prop_assert_eq!(capture.read.complete(), !changed);
        }
    }

    #[test]
    fn any_payload_is_survived(payload in prop::collection::vec(any::<u8>(), 0..300)) {
        // A forged chunk: the checksums are right, the contents are not.
        let mut bytes = chunk::file_header().to_vec();
        let header = chunk::ChunkHeader {
            kind: ChunkKind::DATA, compressed: false, sequence: 0,
            stored_len: payload.len() as u32, raw_len: payload.len() as u32,
            payload_crc: crc32c::crc32c(&payload),
        };
        bytes.extend(header.encode());
        bytes.extend(&payload);
        let capture = read(&bytes, &Limits::default()).unwrap();
        for samples in &capture.samples {
            prop_assert!(samples.stack.iter().all(|&s| (s as usize) < capture.stacks.len()));
        }
    }
}

#[test]
fn places_of_character_offsets() {
    // "ab\n\ncd" has 6 characters.
    let lines = LineEnds { script: 0, ends: vec![2, 3, 6] };
    let places = [(0, (0, 0)), (2, (0, 2)), (3, (1, 0)), (4, (2, 0)), (6, (2, 2))];
    for (offset, place) in places {
        assert_eq!(lines.place(offset), Some(place), "offset {offset}");
    }
    assert_eq!(lines.place(7), None);
    assert_eq!(LineEnds::default().place(0), None);
}
