//! The events of a capture that is still being written: each operation is printed when it is complete,
//! by the code that prints those of a whole capture.
//!
//! Memory is bounded however long it goes on: samples are dropped once joined, and tables begin anew
//! with the recorder's epochs (see [`formats::capture::CaptureReader`]). It must not know where the
//! bytes come from but that they may take their time.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use formats::capture::{Capture, CaptureReader, ReadError, Samples};
use formats::limits::Limits;

use super::Events;
use crate::join::joining::{Completed, Joining, Patience};
use crate::join::operations::Operation;
use crate::plan::EventsPlan;
use crate::report::style::Style;
use crate::source_map::Originals;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 1 << 16;
/// Pieces that wait at most: a writer that is faster than this is held up by its pipe.
const PIECES: usize = 16;
/// How often a file is looked at for what it has gained.
const LOOK: Duration = Duration::from_millis(50);

/// Why a capture cannot be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// Its bytes cannot be read.
    #[error(transparent)]
    Read(io::Error),
    /// They are no capture.
    #[error(transparent)]
    Capture(#[from] ReadError),
    /// What is found cannot be written.
    #[error(transparent)]
    Write(io::Error),
}

/// What was followed to its end.
#[derive(Debug)]
pub struct Followed {
    /// The capture, of which samples and most tables are gone; losses and what was read of it are not.
    pub capture: Capture,
    /// Operations that had a result.
    pub completed: u64,
    /// Of these, those that failed.
    pub failed: u64,
    /// Operations of which no result was seen.
    pub without_result: u64,
}

/// A file that grows: its end is where to wait for more.
#[derive(Debug)]
pub struct Growing {
    file: File,
    read: u64,
}

impl Growing {
    /// From the file's beginning on.
    #[must_use]
    pub fn new(file: File) -> Self {
        Self { file, read: 0 }
    }
}

impl Read for Growing {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.file.read(into)?;
            if read > 0 {
                self.read += read as u64;
                return Ok(read);
            }
            let metadata = self.file.metadata()?;
            if !metadata.is_file() {
                return Ok(0);
            }
            if metadata.len() < self.read {
                return Err(io::Error::other("the file has become shorter while it was read"));
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Reads a capture from `source` until its end or until the source is closed, and writes the events
/// that the plan asks for. When nothing has come for `idle`, what is complete is not held any longer:
/// more than the time after which the recorder writes what it has.
///
/// # Errors
/// Reading or writing fails, or the bytes are no capture.
pub fn follow(
    source: impl Read + Send + 'static,
    idle: Duration,
    plan: &EventsPlan,
    style: Style,
    out: &mut dyn Write,
) -> Result<Followed, FollowError> {
    let (to, pieces) = sync_channel(PIECES);
    // It ends with its source, with the first piece that nobody takes, or with the program.
    let _reading = std::thread::spawn(move || read_on(source, &to));
    let printer = Printer { plan, style, out, completed: 0, failed: 0, without_result: 0 };
    let mut follower = Follower {
        reader: CaptureReader::new(&Limits::default()),
        joining: Joining::new(Patience::LIVE),
        printer,
    };
    follower.run(&pieces, idle)?;
    follower.finish()
}

/// Hands over what is read, piece by piece.
fn read_on(mut source: impl Read, to: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let read = source.read(&mut piece);
        let read = match read {
            Ok(0) => return,
            Ok(length) => {
                piece.truncate(length);
                Ok(piece)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = read.is_err();
        if to.send(read).is_err() || failed {
            return;
        }
    }
}

struct Follower<'p> {
    reader: CaptureReader,
    joining: Joining,
    printer: Printer<'p>,
}

impl Follower<'_> {
    fn run(
        &mut self,
        pieces: &Receiver<io::Result<Vec<u8>>>,
        idle: Duration,
    ) -> Result<(), FollowError> {
        let mut chunks = 0;
        loop {
            match pieces.recv_timeout(idle) {
                Ok(piece) => {
                    self.reader.feed(&piece.map_err(FollowError::Read)?)?;
                    if self.reader.chunks() != chunks {
                        chunks = self.reader.chunks();
                        self.take()?;
                    }
                    if self.reader.capture().read.ended {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    let capture = self.reader.capture();
                    let completed = self.joining.completed_while_idle(capture);
                    self.printer.show(capture, &completed, &[])?;
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Takes what the chunks that have come hold.
    fn take(&mut self) -> Result<(), FollowError> {
        let samples = self.reader.take_samples();
        let capture = self.reader.capture();
        self.joining.take(capture, &samples);
        for end in &capture.ends {
            self.joining.process_ended(end.process);
        }
        let completed = self.joining.completed(capture);
        self.printer.show(capture, &completed, &samples)?;
        self.reader.settle();
        if self.reader.has_outlived() {
            let (strings, stacks) = self.joining.in_use();
            let moved = self.reader.forget(strings, stacks);
            self.joining.moved(&moved);
        }
        Ok(())
    }

    /// Writes what is under way, which has no result.
    fn finish(self) -> Result<Followed, FollowError> {
        let Self { reader, joining, mut printer } = self;
        let completed = joining.finish(reader.capture());
        printer.show(reader.capture(), &completed, &[])?;
        let Printer { completed, failed, without_result, .. } = printer;
        Ok(Followed { capture: reader.finish()?, completed, failed, without_result })
    }
}

struct Printer<'p> {
    plan: &'p EventsPlan,
    style: Style,
    out: &'p mut dyn Write,
    completed: u64,
    failed: u64,
    without_result: u64,
}

impl Printer<'_> {
    fn show(
        &mut self,
        capture: &Capture,
        completed: &Completed<'_>,
        samples: &[Samples],
    ) -> Result<(), FollowError> {
        for operation in completed.found.operations.iter().skip(completed.from) {
            self.completed += u64::from(operation.result.is_some());
            self.failed += u64::from(operation.errno().is_some());
            self.without_result += u64::from(operation.result.is_none());
        }
        let folders = &completed.found.folders;
        let takes = |operation: &Operation<'_>| self.plan.filter.takes(operation, folders);
        let (operations, from) = chosen(completed, takes);
        // System calls are joined in whole captures only.
        let calls = &[];
        let events = Events { capture, operations: &operations, from, folders, calls, samples };
        let written = events
            .write(self.plan, &Originals::default(), self.style, &mut *self.out)
            .map_err(FollowError::Write)?;
        if written.events > 0 {
            self.out.flush().map_err(FollowError::Write)?;
        }
        Ok(())
    }
}

/// The operations that will be shown, with those before them that opened what these are about: only
/// these are worth the work of finding out who asked.
fn chosen<'c>(
    completed: &Completed<'c>,
    takes: impl Fn(&Operation<'c>) -> bool,
) -> (Vec<Operation<'c>>, usize) {
    let all = &completed.found.operations;
    let shown: Vec<usize> =
        (completed.from..all.len()).filter(|&at| all.get(at).is_some_and(&takes)).collect();
    let mut before: Vec<usize> = shown
        .iter()
        .filter_map(|&at| all.get(at)?.opened_by)
        .filter(|at| shown.binary_search(at).is_err())
        .collect();
    before.sort_unstable();
    before.dedup();
    let from = before.len();
    let order: Vec<usize> = before.into_iter().chain(shown).collect();
    let places: HashMap<usize, usize> =
        order.iter().enumerate().map(|(now, &was)| (was, now)).collect();
    let operations = order.iter().filter_map(|&at| all.get(at)).map(|operation| Operation {
        opened_by: operation.opened_by.and_then(|at| places.get(&at).copied()),
        ..*operation
    });
    (operations.collect(), from)
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
