//! Opened perf events: one owned descriptor each.
//!
//! Must not know rings' contents, policy or printing. Semantics: `perf_event_open(2)` and
//! kernel/events/core.c. Every descriptor is close-on-exec, so no launched command inherits it.

use super::attr::{ATTR_BYTES, EventAttr, EventSource, SampleRate};
use super::perf_error::{PerfError, means_no_such_pmu};
use nix::errno::Errno;
use perf_event_open_sys as raw;
use raw::bindings as abi;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// What `read(2)` on an event returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Occurrences counted, those of inherited tasks included.
    pub value: u64,
    /// The kernel's identifier of the event, as found in its records.
    pub id: u64,
    /// Samples that found no place in the ring; absent before Linux 6.0.
    pub lost: Option<u64>,
}

/// An open perf event. Closing it (drop) removes it and what its children inherited.
#[derive(Debug)]
pub struct PerfFd {
    fd: OwnedFd,
    attr: EventAttr,
    counts_lost: bool,
    /// Two readers of one ring would give back what the other still looks at.
    ring_claimed: AtomicBool,
}

impl PerfFd {
    /// Opens `attr` for thread `pid` (0 = this process, -1 = all) on `cpu` (-1 = any).
    ///
    /// # Errors
    /// [`PerfError::Open`] with the kernel's answer; see its `remedy`.
    pub fn open(attr: &EventAttr, pid: i32, cpu: i32) -> Result<Self, PerfError> {
        let opened = match Self::open_once(attr, pid, cpu, true) {
            // Kernels before 6.0 refuse PERF_FORMAT_LOST; nothing else differs in the retry.
            Err(Errno::EINVAL) => Self::open_once(attr, pid, cpu, false).map(|fd| (fd, false)),
            other => other.map(|fd| (fd, true)),
        };
        match opened {
            Ok((fd, counts_lost)) => {
                let ring_claimed = AtomicBool::new(false);
                Ok(Self { fd, attr: *attr, counts_lost, ring_claimed })
            }
            Err(errno) => Err(PerfError::Open { event: attr.source.name(), pid, cpu, errno }),
        }
    }

    fn open_once(attr: &EventAttr, pid: i32, cpu: i32, with_lost: bool) -> Result<OwnedFd, Errno> {
        let mut kernel_attr = attr.to_kernel(with_lost);
        let flags = u64::from(abi::PERF_FLAG_FD_CLOEXEC);
        // SAFETY: the pointer is to a live, fully initialised perf_event_attr whose `size` field
        // is its own size; the kernel reads it and at most writes `size` back before returning
        // (kernel/events/core.c, perf_copy_attr). Sampling writes only to rings that we map.
        let fd = unsafe { raw::perf_event_open(&raw mut kernel_attr, pid, cpu, -1, flags) };
        if fd < 0 {
            return Err(Errno::last());
        }
        // SAFETY: the kernel has just returned this descriptor to us; nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// The description this event was opened with.
    pub fn attr(&self) -> &EventAttr {
        &self.attr
    }

    /// The `perf_event_attr` as the kernel got it, for the capture (native byte order).
    pub fn attr_bytes(&self) -> [u8; ATTR_BYTES] {
        let kernel_attr = self.attr.to_kernel(self.counts_lost);
        // SAFETY: perf_event_attr is a C structure of integers without padding (the kernel
        // compares its tail with zero, so it has none by design) and every byte is initialised;
        // the array has the same size by ATTR_BYTES.
        unsafe { std::mem::transmute(kernel_attr) }
    }

    /// True for the first caller only: who may map this event's ring.
    pub(super) fn claim_ring(&self) -> bool {
        !self.ring_claimed.swap(true, Ordering::Relaxed)
    }

    /// Undoes [`Self::claim_ring`] when the ring could not be mapped.
    pub(super) fn release_ring(&self) {
        self.ring_claimed.store(false, Ordering::Relaxed);
    }

    /// Starts counting.
    ///
    /// # Errors
    /// [`PerfError::Control`].
    pub fn enable(&self) -> Result<(), PerfError> {
        // SAFETY: the descriptor is an open perf event; the request takes an integer.
        let answer = unsafe { raw::ioctls::ENABLE(self.fd.as_raw_fd(), 0) };
        self.control(answer, "enable counting")
    }

    /// Stops counting.
    ///
    /// # Errors
    /// [`PerfError::Control`].
    pub fn disable(&self) -> Result<(), PerfError> {
        // SAFETY: the descriptor is an open perf event; the request takes an integer.
        let answer = unsafe { raw::ioctls::DISABLE(self.fd.as_raw_fd(), 0) };
        self.control(answer, "disable counting")
    }

    /// Starts or stops counting, also in the tasks that inherited this event.
    ///
    /// # Errors
    /// [`PerfError::Control`].
    pub fn switch(&self, on: bool) -> Result<(), PerfError> {
        if on { self.enable() } else { self.disable() }
    }

    /// The identifier that this event's records carry.
    ///
    /// # Errors
    /// [`PerfError::Control`].
    pub fn id(&self) -> Result<u64, PerfError> {
        let mut id = 0u64;
        // SAFETY: the request writes one u64 to the pointer, which is live and writable.
        let answer = unsafe { raw::ioctls::ID(self.fd.as_raw_fd(), &raw mut id) };
        self.control(answer, "read the identifier")?;
        Ok(id)
    }

    /// Sends this event's records to the ring of `owner`. Both must be on the same CPU and clock.
    ///
    /// # Errors
    /// [`PerfError::Control`]; EINVAL when the CPUs differ or `self` has a ring of its own.
    pub fn set_output(&self, owner: &Self) -> Result<(), PerfError> {
        // SAFETY: both are open perf events; the kernel takes its own reference to the ring.
        let answer = unsafe { raw::ioctls::SET_OUTPUT(self.fd.as_raw_fd(), owner.fd.as_raw_fd()) };
        self.control(answer, "redirect the records")
    }

    /// Lets only matching occurrences of a tracepoint through.
    ///
    /// # Errors
    /// [`PerfError::Filter`]; EINVAL for an unknown field or a NUL byte in the text.
    pub fn set_filter(&self, filter: &str) -> Result<(), PerfError> {
        let refused = |errno| PerfError::Filter {
            filter: filter.to_owned(),
            event: self.attr.source.name(),
            errno,
        };
        let text = CString::new(filter).map_err(|_nul| refused(Errno::EINVAL))?;
        // SAFETY: the pointer is to a live NUL-terminated string that the kernel only copies
        // (kernel/events/core.c, perf_event_set_filter: strndup_user).
        let answer =
            unsafe { raw::ioctls::SET_FILTER(self.fd.as_raw_fd(), text.as_ptr().cast_mut()) };
        if answer < 0 { Err(refused(Errno::last())) } else { Ok(()) }
    }

    /// Reads the count, the identifier and the number of lost samples.
    ///
    /// # Errors
    /// [`PerfError::Control`], [`PerfError::ShortCount`] (an event in error state reads 0 bytes).
    pub fn read_counts(&self) -> Result<Counts, PerfError> {
        // perf_event.h, struct read_format without PERF_FORMAT_GROUP: value, id, lost.
        let mut bytes = [0u8; 24];
        let wanted = if self.counts_lost { 24 } else { 16 };
        let got = nix::unistd::read(&self.fd, &mut bytes[..wanted])
            .map_err(|errno| self.control_error("read the count", errno))?;
        if got != wanted {
            return Err(PerfError::ShortCount { event: self.attr.source.name(), got, wanted });
        }
        let [value, id, lost] = [0, 8, 16].map(|at| {
            let mut word = [0u8; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_ne_bytes(word)
        });
        Ok(Counts { value, id, lost: self.counts_lost.then_some(lost) })
    }

    fn control(&self, answer: i32, operation: &'static str) -> Result<(), PerfError> {
        if answer < 0 { Err(self.control_error(operation, Errno::last())) } else { Ok(()) }
    }

    fn control_error(&self, operation: &'static str, errno: Errno) -> PerfError {
        PerfError::Control { operation, event: self.attr.source.name(), errno }
    }
}

impl AsFd for PerfFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Hardware cycles where the machine has such a counter, else the kernel's CPU clock.
///
/// Only answers that mean "no such counter" choose the clock. A missing permission chooses
/// cycles, so that the real open fails with its reason instead of measuring something else.
pub fn best_cpu_source() -> EventSource {
    let trial = EventAttr {
        rate: SampleRate::Frequency(1),
        disabled: true,
        exclude_kernel: true,
        ..EventAttr::new(EventSource::CpuCycles)
    };
    match PerfFd::open(&trial, 0, -1) {
        Err(error) if error.errno().is_some_and(means_no_such_pmu) => EventSource::CpuClock,
        _ => EventSource::CpuCycles,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opening for a task that cannot exist fails everywhere, with or without privileges.
    #[test]
    fn impossible_task_names_itself() {
        let attr = EventAttr { exclude_kernel: true, ..EventAttr::new(EventSource::Dummy) };
        let error = PerfFd::open(&attr, i32::MAX, -1).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("cannot open perf event dummy for thread 2147483647 on any cpu: ")
        );
    }

    #[test]
    fn attr_bytes_begin_with_type_and_size() {
        let attr = EventAttr { exclude_kernel: true, ..EventAttr::new(EventSource::Dummy) };
        let Ok(event) = PerfFd::open(&attr, 0, -1) else {
            // No perf events at all here (seccomp, paranoid 4): nothing to check.
            return;
        };
        let bytes = event.attr_bytes();
        assert_eq!(bytes[0..4], abi::PERF_TYPE_SOFTWARE.to_ne_bytes());
        assert_eq!(usize::from(bytes[4]), ATTR_BYTES);
        assert_eq!(event.read_counts().unwrap().id, event.id().unwrap());
    }
}
