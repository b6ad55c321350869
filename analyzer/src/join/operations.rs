//! File operations: first of all the entry of a `uv_fs_*` function joined with the `uv_fs_req_cleanup` of the same
//! request, which carries the result of synchronous and asynchronous operations alike.
//!
//! The memory of a request is used again and again, so the latest entry wins. A request belongs to a
//! process; submission and result may happen on different threads. How samples are put together is in
//! [`super::joining`]. It must not resolve stacks.

use formats::capture::Capture;
use formats::catalogue::{Gives, Role};

use super::folders::Folder;
use super::joining::{Joining, Patience};
pub use super::part::{is_beginning, is_part};
use super::pool::Job;

/// Event that begins an open.
pub const OPEN: &str = "uv_fs_open";
/// The operation's name of an open.
pub const OPEN_OPERATION: &str = "open";

/// One file operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation<'c> {
    /// What it does: `open`, `stat`, ….
    pub name: &'static str,
    /// The path as given; `None` where the kernel could not read it, or where there is none. Of an
    /// operation on an open file, the path that it was opened by.
    pub path: Option<&'c [u8]>,
    /// The file was open before the recording: the path is what /proc said when it began.
    pub path_from_proc: bool,
    /// The folder that a relative path is in, a place among [`Operations::folders`].
    pub folder: Option<u32>,
    /// The second path of a rename, link or copy.
    pub new_path: Option<&'c [u8]>,
    /// The open file that it is about.
    pub descriptor: Option<i64>,
    /// The open directory that it is about, an address.
    pub directory: Option<u64>,
    /// Flags, and what they mean.
    pub flags: Option<(i64, Role)>,
    /// Mode, and what it means.
    pub mode: Option<(i64, Role)>,
    /// Whether a callback was given, so that a pool thread does it.
    pub asynchronous: Option<bool>,
    /// When it was asked for, CLOCK_MONOTONIC nanoseconds.
    pub start_ns: u64,
    /// Until the caller had the result, or the event loop took it up to call back, nanoseconds; `None`
    /// without a result.
    pub latency_ns: Option<u64>,
    /// Where that time went.
    pub parts: Parts,
    /// What it gave, or the error number negated.
    pub result: Option<i64>,
    /// What told which error it was, where the function itself did not.
    pub errno_from: Option<ErrnoFrom>,
    /// What a result that is no error means.
    pub gives: Gives,
    /// Process id.
    pub pid: u32,
    /// Index of the process in the capture: an exec gives one more.
    pub process: u32,
    /// Thread that asked.
    pub tid: u32,
    /// Stack that asked, an index into the capture's stacks.
    pub stack: u32,
    /// The work of the program's own within which a pool thread did it, a place among
    /// [`Operations::jobs`]; the thread and the stack are then those that gave the work.
    pub job: Option<u32>,
    /// Of an operation on an open file or directory, the place of the operation that opened it.
    pub opened_by: Option<usize>,
}

/// What tells the error of an operation whose function does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrnoFrom {
    /// The exception that Node made of it.
    Exception,
    /// The last system call that failed in its midst.
    SystemCall,
}

impl ErrnoFrom {
    /// Stable key.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Exception => "exception",
            Self::SystemCall => "syscall",
        }
    }
}

/// Where the time of an asynchronous operation went, nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parts {
    /// Id of the pool thread that did it.
    pub worker: Option<u32>,
    /// From the call until a pool thread began.
    pub queue_ns: Option<u64>,
    /// From then until it had ended.
    pub work_ns: Option<u64>,
    /// Of that, in system calls.
    pub syscall_ns: Option<u64>,
    /// From then until the event loop took the result up.
    pub loop_ns: Option<u64>,
}

impl Operation<'_> {
    /// The error number, if it failed.
    #[must_use]
    pub fn errno(&self) -> Option<i64> {
        self.result.filter(|&result| result < 0).map(i64::saturating_neg)
    }

    /// A relative path of it as an absolute one; `None` for one that is absolute, and where the folder
    /// is not known.
    #[must_use]
    pub fn resolved(&self, path: &[u8], folders: &[Folder]) -> Option<Vec<u8>> {
        folders.get(self.folder? as usize)?.resolve(path)
    }

    /// Bytes that it moved.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        let result = self.result.filter(|_| self.gives == Gives::Bytes)?;
        u64::try_from(result).ok()
    }

    /// Whether it is about an open file or directory.
    #[must_use]
    pub fn is_by_handle(&self) -> bool {
        self.descriptor.is_some() || self.directory.is_some()
    }

    /// Whether it opened a path.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.name == OPEN_OPERATION
    }
}

/// What the join found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Operations<'c> {
    /// All operations, by time of their beginning.
    pub operations: Vec<Operation<'c>>,
    /// Results of asynchronous opens whose beginning is not in the capture: it was under way when
    /// recording started, or its record was lost.
    pub results_without_open: u64,
    /// The same of other operations.
    pub results_without_operation: u64,
    /// Working folders, see [`Operation::folder`].
    pub folders: Vec<Folder>,
    /// What the thread pool did, by time of its beginning.
    pub jobs: Vec<Job>,
    /// Asynchronous operations that no pool thread did: the kernel did them, by io_uring.
    pub without_pool: u64,
}

/// Joins all operations of a capture.
#[must_use]
pub fn join(capture: &Capture) -> Operations<'_> {
    let mut joining = Joining::new(Patience::ENDLESS);
    joining.take(capture, &capture.samples);
    let mut found = joining.finish(capture).found;
    super::syscalls::time_in_kernel(capture, &mut found);
    found
}

#[cfg(test)]
#[path = "operations_tests.rs"]
mod tests;
