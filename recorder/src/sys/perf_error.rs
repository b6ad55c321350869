//! Errors of perf events and rings, with the remedy a user can apply.
//!
//! Reads one sysctl to word the remedy; decides nothing.

use super::errno_text;
use nix::errno::Errno;

/// Where the kernel publishes how much unprivileged users may see
/// (Documentation/admin-guide/perf-security.rst).
const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";

/// Why a perf event could not be opened or controlled.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PerfError {
    /// `perf_event_open(2)` refused.
    #[error("cannot open perf event {event} for {} on {}: {}", task(*pid), cpu_text(*cpu), errno_text(*errno))]
    Open {
        /// Name of the event.
        event: String,
        /// Task asked for: thread id, 0 = ourselves, -1 = all.
        pid: i32,
        /// CPU asked for, -1 = any.
        cpu: i32,
        /// The kernel's answer.
        errno: Errno,
    },
    /// An ioctl or read on an open event failed.
    #[error("cannot {operation} of perf event {event}: {}", errno_text(*errno))]
    Control {
        /// What was tried, as a verb with its object.
        operation: &'static str,
        /// Name of the event.
        event: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel did not accept a filter.
    #[error("cannot set filter '{filter}' on perf event {event}: {}", errno_text(*errno))]
    Filter {
        /// Text of the filter.
        filter: String,
        /// Name of the event.
        event: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A count came back shorter than asked for.
    #[error("cannot read the count of perf event {event}: {got} bytes instead of {wanted}")]
    ShortCount {
        /// Name of the event.
        event: String,
        /// Bytes received.
        got: usize,
        /// Bytes expected.
        wanted: usize,
    },
    /// The ring could not be mapped.
    #[error("cannot map a ring of {pages} pages for perf event {event}: {}", errno_text(*errno))]
    Map {
        /// Name of the event.
        event: String,
        /// Data pages asked for.
        pages: usize,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel only accepts powers of two.
    #[error("cannot map a ring of {pages} pages: not a power of two")]
    RingSize {
        /// Data pages asked for.
        pages: usize,
    },
}

impl PerfError {
    /// The kernel's answer, where there was one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Open { errno, .. }
            | Self::Control { errno, .. }
            | Self::Filter { errno, .. }
            | Self::Map { errno, .. } => Some(*errno),
            Self::ShortCount { .. } | Self::RingSize { .. } => None,
        }
    }

    /// True when the task to observe no longer exists: for a session this is an end, no failure.
    pub fn task_is_gone(&self) -> bool {
        matches!(self, Self::Open { errno: Errno::ESRCH, .. })
    }

    /// What the user can do about it.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Open { errno, event, .. } => open_remedy(*errno, event, paranoid_level()),
            Self::Filter { errno: Errno::EINVAL, .. } => {
                Some("use field names of the event's format file; see nrec list".to_owned())
            }
            Self::Map { errno: Errno::EPERM, .. } => Some(
                "use smaller rings, raise kernel.perf_event_mlock_kb, or give the recorder \
                 CAP_IPC_LOCK"
                    .to_owned(),
            ),
            Self::Map { errno: Errno::ENOMEM, .. } => Some("use smaller rings".to_owned()),
            _ => None,
        }
    }
}

fn task(pid: i32) -> String {
    match pid {
        -1 => "all tasks".to_owned(),
        0 => "this process".to_owned(),
        tid => format!("thread {tid}"),
    }
}

fn cpu_text(cpu: i32) -> String {
    if cpu < 0 { "any cpu".to_owned() } else { format!("cpu {cpu}") }
}

/// The value of `kernel.perf_event_paranoid`, if it can be read.
pub fn paranoid_level() -> Option<i32> {
    std::fs::read_to_string(PARANOID).ok()?.trim().parse().ok()
}

/// Errors that mean "this machine has no such counter", never "you may not".
///
/// kernel/events/core.c, `perf_init_event`: no PMU took the event -> ENOENT; arch PMUs answer
/// ENODEV, ENXIO or, when sampling needs an interrupt they lack, EOPNOTSUPP.
pub(crate) fn means_no_such_pmu(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ENODEV | Errno::ENXIO | Errno::EOPNOTSUPP)
}

fn open_remedy(errno: Errno, event: &str, paranoid: Option<i32>) -> Option<String> {
    match errno {
        Errno::EMFILE => Some(
            "raise the limit of open files (ulimit -n), or record fewer events, threads or CPUs"
                .to_owned(),
        ),
        Errno::ENFILE => Some("raise fs.file-max".to_owned()),
        Errno::EACCES | Errno::EPERM => {
            let level = paranoid.map_or("unreadable".to_owned(), |level| level.to_string());
            Some(format!(
                "run as root or give the recorder CAP_PERFMON (and CAP_SYS_PTRACE for processes \
                 of others); kernel.perf_event_paranoid is {level}"
            ))
        }
        Errno::ESRCH => Some("the thread has ended: record its process again".to_owned()),
        Errno::EINVAL if event.starts_with("tracepoint") => Some(
            "the probed offset may lie outside its file, or another probe sits there with another \
             reference counter: see the kernel log"
                .to_owned(),
        ),
        errno if means_no_such_pmu(errno) => {
            Some("this machine has no such counter: record cpu-clock instead".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_names_event_task_cpu_and_cause() {
        let error =
            PerfError::Open { event: "cpu-clock".into(), pid: 42, cpu: 3, errno: Errno::EPERM };
        assert_eq!(
            error.to_string(),
            "cannot open perf event cpu-clock for thread 42 on cpu 3: operation not permitted"
        );
        assert!(error.remedy().is_some_and(|text| text.contains("CAP_PERFMON")));
        assert!(!error.task_is_gone());
    }

    #[test]
    fn each_cause_has_its_own_remedy() {
        let remedy = |errno| open_remedy(errno, "cpu-cycles", Some(4)).unwrap();
        assert!(remedy(Errno::EMFILE).contains("ulimit -n"));
        assert!(remedy(Errno::EACCES).contains("perf_event_paranoid is 4"));
        assert!(remedy(Errno::ENOENT).contains("cpu-clock"));
        assert!(remedy(Errno::ESRCH).contains("ended"));
        assert_eq!(open_remedy(Errno::EINVAL, "cpu-cycles", None), None);
    }

    #[test]
    fn permission_is_never_a_missing_pmu() {
        for errno in [Errno::EPERM, Errno::EACCES, Errno::EMFILE, Errno::EINVAL, Errno::EBUSY] {
            assert!(!means_no_such_pmu(errno), "{errno}");
        }
    }
}
