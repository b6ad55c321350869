//! What this kernel and this user allow, found out by looking and by opening, never by changing:
//! an event that is opened here is disabled and closed again at once.

use std::fs::OpenOptions;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};

use super::Finding;
use super::privileges::{self, CAPABILITIES, Effective};
use crate::plan::{CPU_STACK_BYTES, PROBE_STACK_BYTES};
use crate::probe::wanted::Wanted;
use crate::process::procfs;
use crate::session::attrs::{self, UserStacks};
use crate::session::budget::Budget;
use crate::sys::attr::{EventAttr, EventSource};
use crate::sys::perf::{PerfFd, best_cpu_source};
use crate::sys::perf_error::{PerfError, paranoid_level};
use crate::sys::ring::page_bytes;
use crate::sys::{cpus, errno_of, errno_text, rlimit};
use crate::tracefs::{Owner, Tracefs, TracefsError};

/// The uprobe PMU, which every kernel with CONFIG_UPROBE_EVENTS registers (kernel/events/core.c,
/// `perf_tp_register`); readable by everybody, unlike tracefs.
const UPROBE_PMU: &str = "/sys/bus/event_source/devices/uprobe";
/// Documentation/admin-guide/sysctl/kernel.rst.
const KPTR_RESTRICT: &str = "/proc/sys/kernel/kptr_restrict";
/// Ring memory of each CPU that a user may lock, KiB; same document.
const MLOCK_KB: &str = "/proc/sys/kernel/perf_event_mlock_kb";
/// Architecture whose registers the catalogue of functions knows.
const CATALOGUE_ARCH: &str = "x86_64";

/// Events that `nrec record` opens for each thread and CPU by default: time samples, and file operations
/// with copied stacks.
pub(super) fn default_events() -> u64 {
    let stacks = UserStacks::Copy { cpu_bytes: CPU_STACK_BYTES, probe_bytes: PROBE_STACK_BYTES };
    let probes = Wanted::set("fs", 0);
    1 + probes.iter().map(|wanted| attrs::count(stacks, wanted.stack) as u64).sum::<u64>()
}

/// What was found out about the machine.
pub(super) struct Machine {
    /// All findings but the last.
    pub findings: Vec<Finding>,
    /// Which kernel frames a recording will have.
    pub kernel_frames: Finding,
    /// What time samples will count.
    pub source: EventSource,
}

/// Looks at the machine.
pub(super) fn examine() -> Machine {
    let status = procfs::read("/proc/self/status").unwrap_or_default();
    let held = Effective::parse(&String::from_utf8_lossy(&status));
    let source = best_cpu_source();
    let trial = trial(source, 0);
    let mut findings = vec![kernel(), uprobes(), user(held)];
    findings.extend(tracefs(held));
    findings.push(events(held, &trial));
    findings.push(counter(source));
    findings.push(rings(held));
    findings.push(open_files(held));
    Machine { findings, kernel_frames: kernel_frames(&trial), source }
}

/// Whether time samples may be taken of `tid` (0: this process): `Ok` says whether with kernel
/// frames.
pub(super) fn trial(source: EventSource, tid: i32) -> Result<bool, PerfError> {
    let attr = EventAttr { callchain: true, disabled: true, ..EventAttr::new(source) };
    let without = EventAttr { exclude_kernel: true, exclude_callchain_kernel: true, ..attr };
    match PerfFd::open(&attr, tid, -1) {
        Ok(_event) => Ok(true),
        Err(_refused) => PerfFd::open(&without, tid, -1).map(|_event| false),
    }
}

fn kernel() -> Finding {
    let Ok(uname) = nix::sys::utsname::uname() else {
        return Finding::limited("kernel", "unknown", "uname(2) failed, which never happens");
    };
    let release = uname.release().to_string_lossy();
    let arch = uname.machine().to_string_lossy();
    let text = format!("Linux {release}, {arch}");
    if arch == CATALOGUE_ARCH {
        Finding::good("kernel", text)
    } else {
        Finding::limited(
            "kernel",
            format!("{text}: arguments of file opens are known for {CATALOGUE_ARCH} only"),
            "record -e cpu, or probes with fetch arguments of your own",
        )
    }
}

fn uprobes() -> Finding {
    if Path::new(UPROBE_PMU).exists() {
        Finding::good("uprobes", "built in (CONFIG_UPROBE_EVENTS)")
    } else {
        let remedy = "use a kernel with CONFIG_UPROBE_EVENTS; -e cpu works without";
        Finding::bad("uprobes", "not in this kernel: no probes, no file opens", Some(remedy.into()))
    }
}

fn user(held: Effective) -> Finding {
    const SUBJECT: &str = "user";
    let uid = nix::unistd::geteuid();
    let who = if uid.is_root() { "root".to_owned() } else { format!("uid {uid}") };
    let has: Vec<&str> = CAPABILITIES.iter().filter(|c| held.has(c.bit)).map(|c| c.name).collect();
    // CAP_SYS_ADMIN holds all that CAP_PERFMON does.
    let binds = |bit| !(held.has(bit) || bit == privileges::PERFMON && held.perfmon());
    let lacks: Vec<String> = CAPABILITIES
        .iter()
        .filter(|capability| binds(capability.bit))
        .map(|capability| format!("{} ({})", capability.name, capability.without))
        .collect();
    let has = if has.is_empty() { "no capability that helps".to_owned() } else { has.join(" ") };
    if lacks.is_empty() {
        Finding::good(SUBJECT, format!("{who}, {has}"))
    } else {
        let text = format!("{who}, {has}; lacks {}", lacks.join(", "));
        Finding::limited(SUBJECT, text, "run as root")
    }
}

fn tracefs(held: Effective) -> Vec<Finding> {
    const SUBJECT: &str = "tracefs";
    let tracefs = match Tracefs::locate() {
        Ok(tracefs) => tracefs,
        Err(TracefsError::NotMounted) if held.has(privileges::SYS_ADMIN) => {
            return vec![Finding::good(SUBJECT, "not mounted; nrec record will mount it")];
        }
        Err(error) => return vec![closed(&error)],
    };
    let listing = match tracefs.list_dynamic_events() {
        Ok(listing) => listing,
        Err(error) => return vec![closed(&error)],
    };
    let path = tracefs.dynamic_events_path();
    // For appending, and nothing is appended: opening with truncation would remove all events.
    if let Err(error) = OpenOptions::new().append(true).open(&path) {
        let errno = errno_of(&error);
        return vec![closed(&TracefsError::File { operation: "write", path, errno })];
    }
    let mounted = format!("{}, writable", tracefs.root().display());
    vec![Finding::good(SUBJECT, mounted), left_over(&listing)]
}

fn closed(error: &TracefsError) -> Finding {
    let text = format!("{error}: no probes, no file opens");
    Finding::bad("tracefs", text, error.remedy().map(str::to_owned))
}

/// Counts the events of dead recorders in a `dynamic_events` listing: one line each site.
fn left_over(listing: &str) -> Finding {
    const SUBJECT: &str = "left-overs";
    let names = listing.lines().filter_map(|line| line.split_once(':')?.1.split(' ').next());
    let mut dead: Vec<&str> = names
        .filter(|name| {
            let owner = name.split_once('/').and_then(|(group, _event)| Owner::parse(group));
            owner.and_then(|owner| owner.is_alive()) == Some(false)
        })
        .collect();
    dead.sort_unstable();
    dead.dedup();
    if dead.is_empty() {
        return Finding::good(SUBJECT, "no dynamic events of killed recorders");
    }
    let text = format!("{} dynamic events of killed recorders slow their targets", dead.len());
    Finding::limited(SUBJECT, text, "nrec clean (the next nrec record does it too)")
}

fn events(held: Effective, trial: &Result<bool, PerfError>) -> Finding {
    const SUBJECT: &str = "perf events";
    let level = paranoid_level();
    let shown = level.map_or("unreadable".to_owned(), |level| level.to_string());
    let allowed = match level {
        _ if held.perfmon() => "it does not bind this user",
        Some(level) => privileges::paranoid_meaning(level),
        None => "what it allows is not known",
    };
    let text = format!("kernel.perf_event_paranoid is {shown}: {allowed}");
    match trial {
        Ok(true) => Finding::good(SUBJECT, text),
        Ok(false) => Finding::limited(
            SUBJECT,
            text,
            "for kernel frames: run as root, or sysctl kernel.perf_event_paranoid=1",
        ),
        Err(error) => Finding::bad(SUBJECT, format!("{error}; {text}"), error.remedy()),
    }
}

fn counter(source: EventSource) -> Finding {
    let text = match source {
        EventSource::CpuCycles => "hardware cycles",
        // As good for time; it cannot see where the kernel has interrupts disabled.
        _ => "cpu-clock (no hardware counter here, as in most virtual machines)",
    };
    Finding::good("CPU samples", text)
}

fn number(path: &str) -> Option<u64> {
    std::str::from_utf8(&procfs::read(path).ok()?).ok()?.trim().parse().ok()
}

fn rings(held: Effective) -> Finding {
    const SUBJECT: &str = "ring memory";
    let Ok(online) = cpus::online_cpus() else {
        return Finding::limited(SUBJECT, "the CPUs are not known", "mount sysfs on /sys");
    };
    let budget = Budget::new(default_events(), 1, online.len() as u64, true);
    let wanted = format!("{} CPUs × {}", budget.cpus, size(budget.ring_bytes));
    // kernel/events/core.c, perf_mmap: the limit binds users without CAP_IPC_LOCK above level -1.
    let free = held.has(privileges::IPC_LOCK) || paranoid_level().is_some_and(|level| level < 0);
    let Some(mlock_kb) = number(MLOCK_KB).filter(|_kb| !free) else {
        return Finding::good(SUBJECT, format!("{wanted}, no limit for this user"));
    };
    let memlock = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(soft, _hard)| soft);
    let page = page_bytes() as u64;
    let limits = format!("kernel.perf_event_mlock_kb {mlock_kb}, ulimit -l {}", size(memlock));
    if privileges::rings_fit(budget.ring_bytes, budget.cpus, mlock_kb, memlock, page) {
        return Finding::good(SUBJECT, format!("{wanted} ({limits})"));
    }
    Finding::limited(
        SUBJECT,
        format!("{wanted} are more than this user may lock ({limits}): losses are likelier"),
        format!(
            "run as root, or sysctl kernel.perf_event_mlock_kb={}",
            (budget.ring_bytes + page) >> 10
        ),
    )
}

/// A size in the largest unit that shows it whole.
fn size(bytes: u64) -> String {
    match bytes {
        u64::MAX => "unlimited".to_owned(),
        bytes if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => {
            format!("{} MiB", bytes >> 20)
        }
        bytes => format!("{} KiB", bytes >> 10),
    }
}

fn open_files(held: Effective) -> Finding {
    const SUBJECT: &str = "open files";
    let (Ok(limit), Ok(online)) = (rlimit::open_files(), cpus::online_cpus()) else {
        return Finding::limited(SUBJECT, "the limit is not known", "see ulimit -n");
    };
    let hard = match number("/proc/sys/fs/nr_open") {
        Some(most) if held.has(privileges::SYS_RESOURCE) => most.max(limit.hard),
        _ => limit.hard,
    };
    let fixed = Budget::new(0, 0, 1, true).open_files();
    let a_thread = Budget::new(default_events(), 1, online.len() as u64, true).descriptors();
    let threads = hard.saturating_sub(fixed) / a_thread.max(1);
    let text = format!("{hard}, enough for {threads} threads on {} CPUs", online.len());
    // A Node process has 11 threads.
    if threads >= 11 {
        Finding::good(SUBJECT, text)
    } else {
        Finding::limited(SUBJECT, text, "raise the hard limit (ulimit -Hn) for more threads")
    }
}

fn kernel_frames(trial: &Result<bool, PerfError>) -> Finding {
    const SUBJECT: &str = "kernel";
    match trial {
        Ok(true) => {}
        Ok(false) => {
            return Finding::limited(
                SUBJECT,
                "frames are left out: kernel.perf_event_paranoid does not allow them",
                "run as root, or sysctl kernel.perf_event_paranoid=1",
            );
        }
        Err(_told) => return Finding::limited(SUBJECT, "no frames", "see perf events above"),
    }
    let level = number(KPTR_RESTRICT).map_or("unreadable".to_owned(), |level| level.to_string());
    if shows_addresses(&first_symbols()) {
        Finding::good(SUBJECT, format!("frames will have names (kernel.kptr_restrict {level})"))
    } else {
        Finding::limited(
            SUBJECT,
            format!(
                "frames will have no names: kernel.kptr_restrict {level} hides their addresses"
            ),
            "run as root, or sysctl kernel.kptr_restrict=0 kernel.perf_event_paranoid=1",
        )
    }
}

/// The beginning of /proc/kallsyms; empty where it cannot be read.
fn first_symbols() -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    let read = std::fs::File::open("/proc/kallsyms")
        .and_then(|file| file.take(16 << 10).read_to_end(&mut bytes));
    if let Err(error) = read {
        return errno_text(errno_of(&error));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether a symbol has an address: to those who may not know, the kernel shows only zeros.
fn shows_addresses(kallsyms: &str) -> bool {
    let first = |line: &str| u64::from_str_radix(line.split(' ').next()?, 16).ok();
    kallsyms.lines().filter_map(first).any(|address| address != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn hidden_addresses_are_zeros() {
        assert!(shows_addresses(
            "0000000000000000 A fixed_percpu_data\nffffffff81000000 T _text\n"
        ));
        assert!(!shows_addresses("0000000000000000 A fixed\n0000000000000000 T _text\n"));
        assert!(!shows_addresses("permission denied"));
    }

    #[test]
    fn only_events_of_dead_recorders_are_left_over() {
        let us = Owner::ourselves().unwrap();
        let dead = Owner { start_ticks: us.start_ticks + 1, ..us }.group();
        let ours = us.group();
        let listing = format!(
            "p:{ours}/a /x:0x1\np:{dead}/a /x:0x1\np:{dead}/a /x:0x2\nr:{dead}/b /x:0x1\n\
             p:probes/z /x:0x1\nnonsense\n"
        );
        let finding = left_over(&listing);
        assert_eq!(finding.level, Level::Limited);
        assert!(finding.text.starts_with("2 dynamic events"), "{}", finding.text);
        assert_eq!(left_over("").level, Level::Good);
    }

    #[test]
    fn sizes_are_shown_whole() {
        let shown = [u64::MAX, 8 << 20, 512 << 10, (1 << 20) + 4096, 0].map(size);
        assert_eq!(shown, ["unlimited", "8 MiB", "512 KiB", "1028 KiB", "0 KiB"]);
    }

    #[test]
    fn every_problem_has_a_remedy() {
        let machine = examine();
        assert!(machine.findings.len() >= 8);
        for finding in machine.findings.iter().chain([&machine.kernel_frames]) {
            assert!(finding.level == Level::Good || finding.remedy.is_some(), "{finding:?}");
        }
    }
}
