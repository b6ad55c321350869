//! Where the bytes of a capture go: a file, whoever reads along through a pipe, or both.
//!
//! A reader may be slower than the target: what the pipe does not take waits here, and the session
//! leaves its rings alone until it has gone. So memory stays bounded, and what is too much is lost
//! where losses are counted: in the rings. It must not know what the bytes mean.

use std::fs::File;
use std::io::{self, ErrorKind, PipeWriter, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Bytes that a pipe shall hold; the kernel's default is 64 KiB, and it allows this much to everybody
/// (fs.pipe-max-size).
const PIPE_BYTES: i32 = 1 << 20;

/// The output of a recording.
#[derive(Debug)]
pub struct Sink {
    file: Option<File>,
    reader: Option<Reader>,
}

/// Somebody who reads along.
#[derive(Debug)]
struct Reader {
    pipe: PipeWriter,
    /// What the pipe has not taken yet, from `sent` on.
    waiting: Vec<u8>,
    sent: usize,
    /// The other side was closed.
    gone: bool,
}

impl Sink {
    /// A file, a pipe, or both.
    ///
    /// # Errors
    /// The pipe's flags cannot be set.
    pub fn new(file: Option<File>, pipe: Option<PipeWriter>) -> io::Result<Self> {
        let reader = match pipe {
            Some(pipe) => {
                fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
                // A smaller pipe does, with more turns.
                let _smaller = fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
                Some(Reader { pipe, waiting: Vec::new(), sent: 0, gone: false })
            }
            None => None,
        };
        Ok(Self { file, reader })
    }

    /// Gives the reader of what waits as much as it takes now. `true`: nothing waits any more.
    pub fn push(&mut self) -> bool {
        self.reader.as_mut().is_none_or(Reader::push)
    }

    /// Gives the reader the rest, for as long as it goes on taking some of it within `patience`.
    /// `false`: it has stopped to.
    pub fn push_all(&mut self, patience: Duration) -> bool {
        let Some(reader) = &mut self.reader else { return true };
        let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        while !reader.push() {
            let mut fds = [PollFd::new(reader.pipe.as_fd(), PollFlags::POLLOUT)];
            match poll(&mut fds, patience) {
                Ok(0) => return false,
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(_unusable) => return false,
            }
        }
        true
    }
}

impl Reader {
    fn push(&mut self) -> bool {
        while !self.gone
            && let Some(rest) = self.waiting.get(self.sent..).filter(|rest| !rest.is_empty())
        {
            match self.pipe.write(rest) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                // Whoever polls the pipe learns of it.
                Err(_closed) => self.gone = true,
            }
        }
        self.waiting.clear();
        self.waiting.shrink_to(PIPE_BYTES as usize);
        self.sent = 0;
        true
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.file {
            Some(file) => file.write(bytes)?,
            None => bytes.len(),
        };
        if let Some(reader) = &mut self.reader {
            reader.waiting.extend_from_slice(bytes.get(..written).unwrap_or(bytes));
            reader.push();
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_slow_reader_is_waited_for_and_one_that_left_is_not() {
        let (mut reader, writer) = io::pipe().unwrap();
        let file = tempfile::tempfile().unwrap();
        let mut sink = Sink::new(Some(file.try_clone().unwrap()), Some(writer)).unwrap();
        let bytes: Vec<u8> = (0..3 << 20).map(|at: u32| at as u8).collect();
        sink.write_all(&bytes).unwrap();
        assert!(!sink.push() && !sink.push_all(Duration::from_millis(1)));
        let mut read = vec![0; bytes.len()];
        let taken = std::thread::spawn(move || {
            reader.read_exact(&mut read).unwrap();
            (reader, read)
        });
        assert!(sink.push_all(Duration::from_secs(60)));
        let (reader, read) = taken.join().unwrap();
        assert_eq!(read, bytes);
        drop(reader);
        sink.write_all(b"end").unwrap();
        assert!(sink.push() && sink.push_all(Duration::ZERO));
        assert_eq!(file.metadata().unwrap().len(), bytes.len() as u64 + 3);
    }
}
