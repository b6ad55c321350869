//! The reader's side of one perf ring buffer.
//!
//! Positions are byte counts that only grow, as in the kernel's `data_head` and `data_tail`.
//! [`Ring::refresh`] reads the kernel's head once; [`Ring::peek`] looks at records up to it
//! without giving anything back; [`Ring::consume_to`] gives space back. So a caller can look at
//! the first record of many rings, take the oldest, and stop anywhere. Records borrow the ring,
//! hence none can outlive the space it lies in. Must not know what records mean.
//!
//! Protocol: include/uapi/linux/perf_event.h, `struct perf_event_mmap_page`, and the comment in
//! kernel/events/ring_buffer.c, `perf_output_put_handle`. The mapping is writable, so the kernel
//! never writes between tail and head: it drops and counts records instead.

use super::perf::PerfFd;
use super::perf_error::PerfError;
use super::record::{HEADER_BYTES, RawRecord, RecordBytes};
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use perf_event_open_sys::bindings::perf_event_mmap_page;
use std::mem::offset_of;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// What lies in a ring is not a chain of records.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RingError {
    /// A record's size cannot be true.
    #[error("bad record at ring position {position}: {size} bytes of {available} available")]
    BadRecord {
        /// Where the record begins.
        position: u64,
        /// Size its header gives.
        size: usize,
        /// Bytes between it and the head.
        available: u64,
    },
    /// Head and tail are further apart than the ring is long.
    #[error("bad ring head {head}: the tail is {tail} and the ring holds {capacity} bytes")]
    BadHead {
        /// Head the kernel published.
        head: u64,
        /// Our tail.
        tail: u64,
        /// Bytes of data area.
        capacity: u64,
    },
    /// A position outside what may be read or consumed.
    #[error("bad ring position {position}: readable are {tail} to {head}")]
    BadPosition {
        /// Position asked for.
        position: u64,
        /// First readable byte.
        tail: u64,
        /// First byte not readable yet.
        head: u64,
    },
}

/// Where the memory of a ring comes from.
#[derive(Debug)]
enum Backing {
    /// `mmap` of an event, unmapped on drop.
    Mapped,
    /// Ordinary memory, for tests; held so that it lives as long as the ring.
    #[cfg(test)]
    Heap { _memory: Vec<u64> },
}

/// The reader's side of a perf ring buffer.
#[derive(Debug)]
pub struct Ring {
    /// First byte of the control page; `page_bytes + capacity` bytes are valid.
    base: NonNull<u8>,
    page_bytes: usize,
    /// Bytes of data area, a power of two.
    capacity: usize,
    /// First byte not yet given back.
    tail: u64,
    /// The kernel's head as of the last refresh.
    head: u64,
    backing: Backing,
}

// SAFETY: the memory belongs to this value alone on our side, and what the kernel shares with us
// is read through an atomic head; which of our threads does it makes no difference.
unsafe impl Send for Ring {}

/// Bytes of a memory page of this machine.
pub fn page_bytes() -> usize {
    // sysconf(_SC_PAGESIZE) cannot fail on Linux; 4096 is the least page of any architecture.
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|bytes| usize::try_from(bytes).ok())
        .unwrap_or(4096)
}

impl Ring {
    /// Maps a ring of `data_pages` pages (a power of two) onto `event`.
    ///
    /// # Errors
    /// [`PerfError::RingSize`], or [`PerfError::Map`]: EPERM beyond `perf_event_mlock_kb`, EINVAL
    /// for an inheriting event opened on any CPU, EBUSY for a second ring of one event.
    pub fn map(event: &PerfFd, data_pages: usize) -> Result<Self, PerfError> {
        let page_bytes = page_bytes();
        let refused =
            |errno| PerfError::Map { event: event.attr().source.name(), pages: data_pages, errno };
        if !data_pages.is_power_of_two() {
            return Err(PerfError::RingSize { pages: data_pages });
        }
        let length = data_pages
            .checked_add(1)
            .and_then(|pages| pages.checked_mul(page_bytes))
            .and_then(NonZeroUsize::new)
            .ok_or_else(|| refused(Errno::EOVERFLOW))?;
        if !event.claim_ring() {
            return Err(refused(Errno::EBUSY));
        }
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new shared mapping at an address of the kernel's choice; it overlaps nothing
        // of ours. perf refuses to be truncated, so it cannot fault later.
        let mapped =
            unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, event.as_fd(), 0) };
        let base = mapped
            .map_err(|errno| {
                // A smaller ring may still fit.
                event.release_ring();
                refused(errno)
            })?
            .cast();
        let capacity = length.get() - page_bytes;
        Ok(Self { base, page_bytes, capacity, tail: 0, head: 0, backing: Backing::Mapped })
    }

    /// Bytes of data area.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// First byte not yet given back to the kernel.
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// First byte not readable as of the last refresh.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Reads how far the kernel has written; records up to there can be peeked at from now on.
    ///
    /// # Errors
    /// [`RingError::BadHead`] when the kernel's value cannot be true; nothing changes then.
    pub fn refresh(&mut self) -> Result<u64, RingError> {
        // ATOMICS: pairs with the write barrier between data and data_head, kernel/events/
        // ring_buffer.c, perf_output_put_handle (B matches C). Read once a round.
        let head =
            self.control(offset_of!(perf_event_mmap_page, data_head)).load(Ordering::Acquire);
        let capacity = self.capacity as u64;
        if head.checked_sub(self.tail).is_none_or(|ahead| ahead > capacity) {
            return Err(RingError::BadHead { head, tail: self.tail, capacity });
        }
        self.head = head;
        Ok(head)
    }

    /// The record at `position`, or `None` at the head. Gives nothing back.
    ///
    /// # Errors
    /// [`RingError::BadPosition`] outside tail to head, [`RingError::BadRecord`] when the size
    /// found there is below 8 or reaches beyond the head.
    pub fn peek(&self, position: u64) -> Result<Option<RawRecord<'_>>, RingError> {
        if position == self.head {
            return Ok(None);
        }
        if position < self.tail || position > self.head {
            let (tail, head) = (self.tail, self.head);
            return Err(RingError::BadPosition { position, tail, head });
        }
        let available = self.head - position;
        let bad = |size| RingError::BadRecord { position, size, available };
        if available < HEADER_BYTES as u64 {
            return Err(bad(0));
        }
        let header: [u8; HEADER_BYTES] =
            self.bytes(position, HEADER_BYTES).array(0).ok_or(bad(0))?;
        let [t0, t1, t2, t3, m0, m1, s0, s1] = header;
        let size = usize::from(u16::from_ne_bytes([s0, s1]));
        if size < HEADER_BYTES || size as u64 > available {
            return Err(bad(size));
        }
        Ok(Some(RawRecord {
            position,
            type_: u32::from_ne_bytes([t0, t1, t2, t3]),
            misc: u16::from_ne_bytes([m0, m1]),
            bytes: self.bytes(position, size),
        }))
    }

    /// The records from the tail to the head; ends after the first error.
    pub fn records(&self) -> Records<'_> {
        Records { ring: self, position: self.tail }
    }

    /// Gives the space before `position` back to the kernel.
    ///
    /// # Errors
    /// [`RingError::BadPosition`] outside tail to head; nothing changes then.
    pub fn consume_to(&mut self, position: u64) -> Result<(), RingError> {
        if position < self.tail || position > self.head {
            let (tail, head) = (self.tail, self.head);
            return Err(RingError::BadPosition { position, tail, head });
        }
        self.tail = position;
        // ATOMICS: our reads of the data come before the kernel may overwrite it; pairs with the
        // control dependency on data_tail in kernel/events/ring_buffer.c,
        // __perf_output_begin (A matches D).
        self.control(offset_of!(perf_event_mmap_page, data_tail))
            .store(position, Ordering::Release);
        Ok(())
    }

    /// Gives everything up to the head back unread, after a [`RingError::BadRecord`], and
    /// returns how many bytes that were.
    pub fn discard(&mut self) -> u64 {
        let bytes = self.head - self.tail;
        // Tail and head are always valid positions.
        match self.consume_to(self.head) {
            Ok(()) => bytes,
            Err(_) => 0,
        }
    }

    /// A u64 of the control page.
    fn control(&self, offset: usize) -> &AtomicU64 {
        // Both callers pass a field of perf_event_mmap_page, which the control page contains.
        let place = self.base.as_ptr().wrapping_add(offset).cast::<u64>();
        // SAFETY: the field is 8-byte aligned (the base is page aligned) and within the mapped
        // control page, which lives as long as self; both sides access it atomically only.
        unsafe { AtomicU64::from_ptr(place) }
    }

    /// `len` bytes at `position`; the caller has checked tail <= position, position+len <= head.
    fn bytes(&self, position: u64, len: usize) -> RecordBytes<'_> {
        // The capacity is a power of two, so the remainder fits a usize.
        let start = (position & (self.capacity as u64 - 1)) as usize;
        let first = len.min(self.capacity - start);
        RecordBytes::new(self.area(start, first), self.area(0, len - first))
    }

    /// `len` bytes of the data area from `start`.
    fn area(&self, start: usize, len: usize) -> &[u8] {
        debug_assert!(start + len <= self.capacity, "outside the data area");
        let place = self.base.as_ptr().wrapping_add(self.page_bytes + start);
        // SAFETY: start + len <= capacity, so the range is mapped; it lies between tail and the
        // acquired head, where the kernel no longer writes until consume_to, which needs &mut.
        unsafe { std::slice::from_raw_parts(place, len) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if matches!(self.backing, Backing::Mapped) {
            // SAFETY: exactly the range that mmap returned; no slice of it can outlive self.
            let unmapped = unsafe { munmap(self.base.cast(), self.page_bytes + self.capacity) };
            debug_assert_eq!(unmapped, Ok(()));
        }
    }
}

/// Iterator over the records of a ring, see [`Ring::records`].
#[derive(Debug)]
pub struct Records<'a> {
    ring: &'a Ring,
    position: u64,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RawRecord<'a>, RingError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.ring.peek(self.position) {
            Ok(None) => None,
            Ok(Some(record)) => {
                self.position = record.next_position();
                Some(Ok(record))
            }
            Err(error) => {
                self.position = self.ring.head;
                Some(Err(error))
            }
        }
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
