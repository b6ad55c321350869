//! What a user may do, from the texts that the kernel gives: capabilities, the perf paranoia level,
//! limits. Pure: reads nothing, so that every case can be tested.

/// A capability that matters here (include/uapi/linux/capability.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capability {
    /// Bit number.
    pub bit: u32,
    /// Name.
    pub name: &'static str,
    /// What does not work without it.
    pub without: &'static str,
}

/// CAP_IPC_LOCK: locked memory beyond the limits.
pub(super) const IPC_LOCK: u32 = 14;
/// CAP_SYS_PTRACE: other users' processes.
pub(super) const SYS_PTRACE: u32 = 19;
/// CAP_SYS_ADMIN: everything that has no capability of its own.
pub(super) const SYS_ADMIN: u32 = 21;
/// CAP_SYS_RESOURCE: limits beyond the hard ones.
pub(super) const SYS_RESOURCE: u32 = 24;
/// CAP_PERFMON: perf events without the paranoia level (Linux 5.8).
pub(super) const PERFMON: u32 = 38;

/// The capabilities that the doctor tells of.
pub(super) const CAPABILITIES: [Capability; 4] = [
    Capability { bit: SYS_ADMIN, name: "CAP_SYS_ADMIN", without: "no mounting of tracefs" },
    Capability { bit: PERFMON, name: "CAP_PERFMON", without: "no probes, no kernel frames" },
    Capability { bit: SYS_PTRACE, name: "CAP_SYS_PTRACE", without: "no processes of other users" },
    Capability { bit: IPC_LOCK, name: "CAP_IPC_LOCK", without: "smaller rings" },
];

/// A set of effective capabilities, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Effective(pub u64);

impl Effective {
    /// Reads `CapEff` of a `/proc/PID/status` text (proc_pid_status(5)); none where it is missing.
    pub(super) fn parse(status: &str) -> Self {
        let value = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        Self(value.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0))
    }

    /// Whether it holds `bit`.
    pub(super) fn has(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }

    /// Whether the paranoia level does not bind (include/linux/capability.h, `perfmon_capable`).
    pub(super) fn perfmon(self) -> bool {
        self.has(PERFMON) || self.has(SYS_ADMIN)
    }
}

/// What `kernel.perf_event_paranoid` allows a user without CAP_PERFMON
/// (Documentation/admin-guide/sysctl/kernel.rst; above 2 is a patch of Debian and others).
pub(super) fn paranoid_meaning(level: i32) -> &'static str {
    match level {
        ..=-1 => "own processes with kernel frames, and tracepoints",
        0 | 1 => "own processes with kernel frames, no tracepoints",
        2 => "own processes, without kernel frames and tracepoints",
        3.. => "nothing",
    }
}

/// Whether a user without CAP_IPC_LOCK may lock a ring of `ring` bytes on each CPU.
/// kernel/events/core.c, `perf_mmap`: one page more than the data is charged, first to `mlock_kb`
/// for each CPU, then to RLIMIT_MEMLOCK.
pub(super) fn rings_fit(ring: u64, cpus: u64, mlock_kb: u64, memlock: u64, page: u64) -> bool {
    let allowed = (mlock_kb << 10).saturating_mul(cpus).saturating_add(memlock);
    ring.saturating_add(page).saturating_mul(cpus) <= allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_status() {
        let root =
            Effective::parse("Name:\tx\nCapPrm:\t0\nCapEff:\t000001fffeffffff\nCapBnd:\t0\n");
        assert!([IPC_LOCK, SYS_PTRACE, SYS_ADMIN, PERFMON].map(|bit| root.has(bit)) == [true; 4]);
        assert!(!root.has(SYS_RESOURCE));
        let perfmon = Effective::parse("CapEff:\t0000004000000000\n");
        assert!(perfmon.has(PERFMON) && perfmon.perfmon() && !perfmon.has(SYS_ADMIN));
        assert!(
            Effective::parse("CapEff:\t0000000000200000\n").perfmon(),
            "old kernels: SYS_ADMIN"
        );
        for none in ["", "CapEff:\t\n", "CapEff:\tzz\n", "CapEff:\t0000000000000000\n"] {
            assert_eq!(Effective::parse(none), Effective(0), "{none:?}");
        }
    }

    #[test]
    fn each_level_allows_less() {
        let meanings = [-1, 0, 2, 3].map(paranoid_meaning);
        assert!(meanings.windows(2).all(|pair| pair[0] != pair[1]));
        assert_eq!((paranoid_meaning(1), paranoid_meaning(4)), (meanings[1], "nothing"));
        assert_eq!(paranoid_meaning(i32::MIN), meanings[0]);
    }

    #[test]
    fn rings_fit_into_what_may_be_locked() {
        let fit = |ring, kb, memlock| rings_fit(ring, 2, kb, memlock, 4096);
        // The kernel's default, 516 KiB: 128 pages and the page before them.
        assert!(fit(512 << 10, 516, 0) && !fit(512 << 10, 515, 0));
        assert!(fit(8 << 20, 516, 64 << 20) && fit(8 << 20, 516, u64::MAX));
        assert!(!fit(8 << 20, 516, 8 << 20), "measured: the second ring is refused");
    }
}
