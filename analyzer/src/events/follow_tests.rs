//! Captures that come piece by piece against the events of the whole.

use std::io::Cursor;
use std::sync::{Arc, Mutex};

use formats::capture::{Frame, Loss, Tier, read};

use super::*;
use crate::aggregate::operations::PathFilter;
use crate::testing::CaptureBuilder;

const IDLE: Duration = Duration::from_secs(60);

/// Bytes that come one piece at a time; then it blocks no one.
struct Pieces {
    bytes: Vec<u8>,
    size: usize,
    at: usize,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let rest = &self.bytes[self.at..];
        let length = rest.len().min(self.size).min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        self.at += length;
        Ok(length)
    }
}

/// A program that opens, reads and closes, one round each flush.
fn recorded(rounds: u64) -> Vec<u8> {
    let mut build = CaptureBuilder::new();
    let t = build.process(10, &[10, 11]);
    let script = build.script("/app/server.js", &[20, 40, 60]);
    for round in 0..rounds {
        let name = format!("handler{}", round % 3);
        let function = build.function(script + 1, &name, 1);
        let place = Frame::Js { function, position: 25, tier: Tier::TURBOFAN, inlined: false };
        let stack = build.stack(&[place]);
        build.operations_by(stack);
        let time = 1_000_000 + round * 1_000;
        let path = format!("/data/{round}");
        // The result of each open comes a flush later, and its file is used meanwhile.
        build.open(t[0], time, 0x100 + round % 2, &path, true, stack);
        build.operation(t[0], time + 10, "uv_fs_read", 0x200, &[("file", 7.into())]);
        build.cleanup_of(t[0], time + 20, 0x200, 5, 3);
        build.operation(t[0], time + 30, "uv_fs_stat", 0x300, &[("path", "/none".into())]);
        build.cleanup_of(t[0], time + 40, 0x300, -2, 6);
        build.operation(t[0], time + 50, "uv_fs_close", 0x400, &[("file", 7.into())]);
        build.cleanup_of(t[0], time + 60, 0x400, 0, 2);
        build.writer().loss(Loss { event: 2, time_ns: time, lost: 1, dropped: 0 });
        build.writer().flush().unwrap();
        build.cleanup(t[1], time + 900, 0x100 + round % 2, 7);
    }
    build.finish_bytes()
}

fn lines(text: &[u8]) -> Vec<String> {
    let mut lines: Vec<_> =
        String::from_utf8(text.to_vec()).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn plans() -> Vec<EventsPlan> {
    let failed = PathFilter { failed: true, ..PathFilter::default() };
    vec![
        EventsPlan::default(),
        EventsPlan { json: true, stacks: true, ..EventsPlan::default() },
        EventsPlan { filter: failed, ..EventsPlan::default() },
    ]
}

#[test]
fn what_comes_in_pieces_is_printed_as_the_whole_is() {
    let bytes = recorded(20);
    let whole = read(&bytes, &Limits::default()).unwrap();
    for plan in plans() {
        let mut want = Vec::new();
        let style = Style::default();
        super::super::write(&whole, &plan, &Originals::default(), style, &mut want).unwrap();
        assert!(!want.is_empty());
        for size in [1, 97, 1 << 16] {
            let mut got = Vec::new();
            let source = Pieces { bytes: bytes.clone(), size, at: 0 };
            let followed = follow(source, IDLE, &plan, style, &mut got).unwrap();
            assert_eq!(lines(&got), lines(&want), "pieces of {size}");
            assert!(followed.capture.read.complete());
            assert_eq!((followed.completed, followed.failed), (80, 20));
            let lost: u64 = followed.capture.losses.iter().map(|loss| loss.lost).sum();
            assert_eq!((lost, followed.without_result), (20, 0));
        }
    }
}

/// What has been written, while it goes on.
#[derive(Debug, Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn lines_come_before_the_end_and_a_closed_source_ends() {
    let bytes = recorded(4);
    let (reader, mut writer) = io::pipe().unwrap();
    let out = Shared::default();
    let mut follower_out = out.clone();
    let following = std::thread::spawn(move || {
        let plan = EventsPlan::default();
        follow(reader, Duration::from_millis(1), &plan, Style::default(), &mut follower_out)
    });
    // All but the last chunk of data and the end.
    writer.write_all(&bytes[..bytes.len() - 200]).unwrap();
    while !String::from_utf8(out.0.lock().unwrap().clone()).unwrap().contains("/data/1") {
        std::thread::yield_now();
    }
    drop(writer);
    let followed = following.join().unwrap().unwrap();
    assert!(!followed.capture.read.ended && followed.capture.read.torn_tail);
    assert!(followed.completed > 4);
}

#[test]
fn other_bytes_and_closed_outputs_are_told() {
    let plan = EventsPlan::default();
    let run = |bytes: &[u8], out: &mut dyn Write| {
        follow(Cursor::new(bytes.to_vec()), IDLE, &plan, Style::default(), out)
    };
    let error = run(b"PERFILE2 and so on", &mut Vec::new()).unwrap_err();
    assert!(matches!(error, FollowError::Capture(ReadError::NotACapture)), "{error}");
    assert!(matches!(run(b"", &mut Vec::new()), Err(FollowError::Capture(_))));
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let error = run(&recorded(2), &mut Closed).unwrap_err();
    assert!(matches!(&error, FollowError::Write(e) if e.kind() == io::ErrorKind::BrokenPipe));
}

#[test]
fn a_file_that_grows_is_waited_for() {
    let bytes = recorded(3);
    let path = std::env::temp_dir().join(format!("nanalyze-follow-{}", std::process::id()));
    std::fs::write(&path, &bytes[..300]).unwrap();
    let source = Growing::new(File::open(&path).unwrap());
    let (mut file, rest) =
        (std::fs::OpenOptions::new().append(true).open(&path).unwrap(), bytes[300..].to_vec());
    let writing = std::thread::spawn(move || {
        rest.chunks(500).for_each(|piece| {
            file.write_all(piece).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        });
    });
    let plan = EventsPlan::default();
    let followed = follow(source, IDLE, &plan, Style::default(), &mut Vec::new()).unwrap();
    writing.join().unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(followed.capture.read.complete());
    assert_eq!(followed.completed, 12);
}
