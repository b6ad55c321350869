//! Names of system calls by number. Numbers are an architecture's: those of x86-64 and arm64 are
//! known, from the `syscalls` crate, which has them of the kernel's tables.

use std::borrow::Cow;

use ::syscalls::{aarch64, x86_64};

/// Calls whose time is as a rule spent waiting for something to happen, not doing something.
const WAITING: [&str; 26] = [
    "accept",
    "accept4",
    "clock_nanosleep",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "futex",
    "futex_wait",
    "futex_waitv",
    "io_getevents",
    "io_pgetevents",
    "io_uring_enter",
    "msgrcv",
    "mq_timedreceive",
    "nanosleep",
    "pause",
    "poll",
    "ppoll",
    "pselect6",
    "restart_syscall",
    "rt_sigsuspend",
    "rt_sigtimedwait",
    "select",
    "semtimedop",
    "wait4",
    "waitid",
];

/// The name of a call on this architecture, as `uname -m` has it; `syscall N` where it has none.
#[must_use]
pub fn name(arch: &str, number: i64) -> Cow<'static, str> {
    let known = usize::try_from(number).ok().and_then(|number| match arch {
        "x86_64" => x86_64::Sysno::new(number).map(|known| known.name()),
        "aarch64" => aarch64::Sysno::new(number).map(|known| known.name()),
        _ => None,
    });
    known.map_or_else(|| Cow::Owned(format!("syscall {number}")), Cow::Borrowed)
}

/// Whether a call of this name waits.
#[must_use]
pub fn waits(name: &str) -> bool {
    WAITING.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_names_of_their_architecture() {
        for (arch, number, want) in [
            ("x86_64", 0, "read"),
            ("x86_64", 257, "openat"),
            ("x86_64", 332, "statx"),
            ("x86_64", 202, "futex"),
            ("x86_64", 439, "faccessat2"),
            ("aarch64", 56, "openat"),
            ("aarch64", 98, "futex"),
            ("x86_64", 9999, "syscall 9999"),
            ("x86_64", -1, "syscall -1"),
            ("riscv64", 56, "syscall 56"),
        ] {
            assert_eq!(name(arch, number), want, "{arch} {number}");
        }
    }

    #[test]
    fn what_waits_is_a_call() {
        let known: Vec<_> = (0..600).map(|number| name("x86_64", number)).collect();
        for name in WAITING {
            assert!(known.iter().any(|known| known == name), "{name}");
        }
        assert!(!waits("read"));
    }
}
