//! Bounded reads of another process's memory.
//!
//! One system call reads many places. Memory that is not there is an answer, not an error: the
//! target runs while we look. Must not know what the bytes mean.

use super::errno_text;
use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use std::io::IoSliceMut;

/// Places in one batch at most (the kernel's UIO_MAXIOV, include/uapi/linux/uio.h).
pub const MAX_READS: usize = 1024;

/// Bytes in one batch at most: more would keep the target's mmap lock too long.
pub const MAX_BYTES: usize = 1 << 20;

/// Memory of a process could not be read at all.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum VmError {
    /// Not permitted (EPERM), or no such process (ESRCH).
    #[error("cannot read memory of process {pid}: {}", errno_text(*errno))]
    Refused {
        /// Process asked for.
        pid: i32,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The batch exceeds [`MAX_READS`] or [`MAX_BYTES`].
    #[error("cannot read {reads} places of {bytes} bytes in all of process {pid}: too much")]
    TooMuch {
        /// Process asked for.
        pid: i32,
        /// Places asked for.
        reads: usize,
        /// Bytes asked for.
        bytes: usize,
    },
}

/// One place to read.
#[derive(Debug)]
pub struct RemoteRead<'a> {
    /// Address in the other process.
    pub address: u64,
    /// Where its bytes go.
    pub buffer: &'a mut [u8],
    /// How many bytes of `buffer` were filled; set by [`read_batch`].
    pub filled: usize,
}

impl<'a> RemoteRead<'a> {
    /// `buffer.len()` bytes at `address`.
    pub fn new(address: u64, buffer: &'a mut [u8]) -> Self {
        Self { address, buffer, filled: 0 }
    }

    /// True when the whole buffer was filled.
    pub fn is_complete(&self) -> bool {
        self.filled == self.buffer.len()
    }
}

/// Reads all places of process `pid` and returns how many were filled completely. The others
/// have `filled` bytes: what was mapped before the fault.
///
/// # Errors
/// [`VmError`]; buffers may be partly filled then.
pub fn read_batch(pid: i32, reads: &mut [RemoteRead<'_>]) -> Result<usize, VmError> {
    let bytes: usize = reads.iter().map(|read| read.buffer.len()).sum();
    if reads.len() > MAX_READS || bytes > MAX_BYTES {
        return Err(VmError::TooMuch { pid, reads: reads.len(), bytes });
    }
    for read in reads.iter_mut() {
        read.filled = 0;
    }
    // The kernel stops at the first place it cannot read: go on behind it.
    let mut rest = &mut *reads;
    while !rest.is_empty() {
        let done = read_prefix(pid, rest)?;
        rest = rest.get_mut(done..).unwrap_or_default();
    }
    Ok(reads.iter().filter(|read| read.is_complete()).count())
}

/// One system call. Returns how many places are finished: those filled and the one that faulted.
fn read_prefix(pid: i32, reads: &mut [RemoteRead<'_>]) -> Result<usize, VmError> {
    let remote: Vec<RemoteIoVec> = reads
        .iter()
        .map(|read| RemoteIoVec {
            // Addresses of a 64-bit target fit; elsewhere the read faults at a wrong address.
            base: usize::try_from(read.address).unwrap_or(usize::MAX),
            len: read.buffer.len(),
        })
        .collect();
    let mut local: Vec<IoSliceMut<'_>> =
        reads.iter_mut().map(|read| IoSliceMut::new(read.buffer)).collect();
    let mut got = match process_vm_readv(Pid::from_raw(pid), &mut local, &remote) {
        Ok(got) => got,
        // EINVAL: an address beyond the address space.
        Err(Errno::EFAULT | Errno::EINVAL | Errno::ENOMEM) => 0,
        Err(errno) => return Err(VmError::Refused { pid, errno }),
    };
    for (index, read) in reads.iter_mut().enumerate() {
        read.filled = got.min(read.buffer.len());
        got -= read.filled;
        if !read.is_complete() {
            return Ok(index + 1);
        }
    }
    Ok(reads.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_pid() -> i32 {
        nix::unistd::getpid().as_raw()
    }

    #[test]
    fn faults_cost_only_their_own_place() {
        let (first, last) = (*b"first", *b"last!");
        let (mut a, mut b, mut c, mut d) = ([0u8; 5], [9u8; 8], [9u8; 8], [0u8; 5]);
        let mut reads = [
            RemoteRead::new(first.as_ptr() as u64, &mut a),
            RemoteRead::new(16, &mut b),
            RemoteRead::new(u64::MAX - 4, &mut c),
            RemoteRead::new(last.as_ptr() as u64, &mut d),
        ];
        assert_eq!(read_batch(own_pid(), &mut reads), Ok(2));
        assert_eq!(reads.each_ref().map(|read| read.filled), [5, 0, 0, 5]);
        assert_eq!((&a, &d), (b"first", b"last!"));
    }

    #[test]
    fn too_much_and_no_such_process() {
        let mut big = vec![0u8; MAX_BYTES + 1];
        let error = read_batch(own_pid(), &mut [RemoteRead::new(0, &mut big)]).unwrap_err();
        assert!(matches!(error, VmError::TooMuch { reads: 1, .. }));
        let error = read_batch(i32::MAX, &mut [RemoteRead::new(16, &mut [0; 4])]).unwrap_err();
        assert_eq!(error, VmError::Refused { pid: i32::MAX, errno: Errno::ESRCH });
        assert_eq!(read_batch(own_pid(), &mut []), Ok(0));
    }
}
