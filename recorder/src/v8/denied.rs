//! Why the kernel does not let us read a process, and what helps.
//!
//! The kernel says no more than "not permitted" (ptrace(2), "Ptrace access mode checking"): the
//! reason is concluded from what it tells everybody. Reads nothing of the process's memory.

use crate::process::procfs;

/// CAP_SYS_PTRACE (include/uapi/linux/capability.h).
const SYS_PTRACE: u32 = 19;

/// Why the memory of a process may not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Denial {
    /// It runs as another user.
    OtherUser,
    /// The Yama security module allows tracing of children only (`kernel.yama.ptrace_scope`).
    Yama {
        /// The setting: 1 children, 2 administrators, 3 nobody.
        scope: u8,
    },
    /// We are in a user namespace and the process is not.
    UserNamespace,
    /// It has changed its credentials or made itself undumpable (prctl(2), PR_SET_DUMPABLE).
    Undumpable,
    /// A security module or the sandbox around us.
    Policy,
}

/// What /proc tells about the two processes.
#[derive(Debug, Clone, Copy, Default)]
struct Facts {
    privileged: bool,
    initial_namespace: bool,
    same_user: bool,
    /// Its files in /proc belong to root though it does not run as root.
    hidden: bool,
    yama: u8,
}

impl Denial {
    /// Concludes why process `pid` may not be read.
    pub fn of(pid: u32) -> Self {
        conclude(facts(pid))
    }

    /// The reason, as the end of a sentence.
    pub fn reason(self) -> &'static str {
        match self {
            Self::OtherUser => "it runs as another user",
            Self::Yama { .. } => "kernel.yama.ptrace_scope forbids it",
            Self::UserNamespace => "it is outside of this user namespace",
            Self::Undumpable => "it has made itself undumpable",
            Self::Policy => "a security policy forbids it",
        }
    }

    /// What helps.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::OtherUser => "run nrec as root or as that user",
            Self::Yama { scope: 3.. } => {
                "boot without kernel.yama.ptrace_scope=3: it cannot be taken back"
            }
            Self::Yama { .. } => {
                "run nrec as root, or give it CAP_SYS_PTRACE, or set kernel.yama.ptrace_scope to 0"
            }
            Self::UserNamespace => "run nrec outside of the container, as root of the machine",
            Self::Undumpable => "run nrec as root",
            Self::Policy => {
                "allow ptrace where nrec runs: CAP_SYS_PTRACE and the seccomp, AppArmor or SELinux policy"
            }
        }
    }
}

fn conclude(facts: Facts) -> Denial {
    match facts {
        // Nothing but a boundary or a policy stops who has the capability.
        Facts { yama: 3.., .. } => Denial::Yama { scope: facts.yama },
        Facts { privileged: true, initial_namespace: false, .. } => Denial::UserNamespace,
        Facts { privileged: true, .. } => Denial::Policy,
        Facts { same_user: false, .. } => Denial::OtherUser,
        Facts { hidden: true, .. } => Denial::Undumpable,
        Facts { yama: 1.., .. } => Denial::Yama { scope: facts.yama },
        _ => Denial::Policy,
    }
}

fn facts(pid: u32) -> Facts {
    use std::os::unix::fs::MetadataExt;

    let text =
        |path: &str| String::from_utf8_lossy(&procfs::read(path).unwrap_or_default()).into_owned();
    let (ours, theirs) = (text("/proc/self/status"), text(&format!("/proc/{pid}/status")));
    // Real, effective, saved and file system id.
    let users = |status: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        line.split_whitespace().map(|id| id.parse().ok()).collect::<Option<Vec<u32>>>()
    };
    let effective = ours
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let own = users(&ours).and_then(|ids| ids.get(1).copied());
    let other = users(&theirs).unwrap_or_default();
    let owner = std::fs::metadata(format!("/proc/{pid}/environ")).map(|data| data.uid()).ok();
    Facts {
        privileged: effective >> SYS_PTRACE & 1 == 1,
        // user_namespaces(7): the initial one maps every id to itself.
        initial_namespace: text("/proc/self/uid_map").split_whitespace().eq([
            "0",
            "0",
            "4294967295",
        ]),
        same_user: own.is_some_and(|own| other.iter().take(3).all(|&id| id == own)),
        hidden: owner.is_some() && owner != other.get(1).copied(),
        yama: text("/proc/sys/kernel/yama/ptrace_scope").trim().parse().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_told_apart() {
        let user = Facts { same_user: true, initial_namespace: true, ..Facts::default() };
        let root = Facts { privileged: true, initial_namespace: true, ..Facts::default() };
        let table = [
            (Facts { same_user: false, ..user }, Denial::OtherUser),
            (Facts { same_user: false, yama: 1, ..user }, Denial::OtherUser),
            (Facts { yama: 1, ..user }, Denial::Yama { scope: 1 }),
            (Facts { yama: 2, ..user }, Denial::Yama { scope: 2 }),
            (Facts { hidden: true, yama: 1, ..user }, Denial::Undumpable),
            (user, Denial::Policy),
            (root, Denial::Policy),
            (Facts { yama: 1, ..root }, Denial::Policy),
            (Facts { yama: 3, ..root }, Denial::Yama { scope: 3 }),
            (Facts { initial_namespace: false, ..root }, Denial::UserNamespace),
            (Facts { initial_namespace: false, same_user: true, ..root }, Denial::UserNamespace),
        ];
        for (facts, denial) in table {
            assert_eq!(conclude(facts), denial, "{facts:?}");
            assert!(!denial.reason().is_empty() && !denial.remedy().is_empty());
        }
    }

    #[test]
    fn facts_of_ourselves_hold() {
        let facts = facts(std::process::id());
        assert!(facts.same_user && !facts.hidden, "{facts:?}");
    }
}
