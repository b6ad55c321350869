//! What can be recorded of a process: whether it may be looked at, what it runs, where its libuv
//! is, and which of its frames will have names. Reads /proc and mapped files; runs nothing of it.

use std::os::unix::fs::MetadataExt;

use formats::elf::find_functions;
use formats::limits::Limits;
use formats::procmaps;
use object::read::ReadCache;

use super::machine::{self, default_events};
use super::verdict::{self, Evidence, MapState};
use super::{Finding, program};
use crate::probe::locate;
use crate::probe::wanted::Wanted;
use crate::process::jit_map::JitMap;
use crate::process::objects::{Identity, MappedFile, Objects, Sighting};
use crate::process::procfs::{self, Facts};
use crate::process::v8_flags::{V8Flags, variable};
use crate::session::budget::Budget;
use crate::session::error::RecordError;
use crate::sys::attr::EventSource;
use crate::sys::{cpus, errno_of, errno_text, rlimit};
use crate::v8::{self, AttachError, Found};

/// `node::Start(int, char**)` (node's src/node.h), exported by every Node program or libnode.
const NODE_START: &str = "_ZN4node5StartEiPPc";
/// Longest path or name in a finding, characters.
const SHOWN: usize = 120;

/// Looks at a process; `source` is what time samples count.
pub(super) fn examine(pid: u32, source: &EventSource) -> Vec<Finding> {
    let (facts, maps) = match look(pid) {
        Ok(seen) => seen,
        Err(finding) => return vec![finding],
    };
    let mut findings = vec![process(&facts)];
    findings.extend(container(&facts));
    findings.push(permission(pid, *source));
    findings.push(cost(pid));
    let (objects, has_jit) = mapped(pid, &maps);
    let node = node(&objects);
    findings.push(node.finding());
    findings.push(libuv(&objects, &node));
    findings.extend(io_uring(pid));
    let names = native(&objects, &node);
    match v8::look(pid) {
        Err(AttachError::NoV8 { .. }) if has_jit => findings.push(map_of_another_runtime(&facts)),
        Err(AttachError::NoV8 { .. }) => {}
        heap => findings.extend(javascript(&facts, node.major(), &heap)),
    }
    findings.push(names);
    findings
}

/// Facts and mappings of a process, or why there are none.
fn look(pid: u32) -> Result<(Facts, Vec<u8>), Finding> {
    const SUBJECT: &str = "process";
    let no_such = || {
        let remedy = "pgrep -a node shows the processes of Node".to_owned();
        Finding::bad(SUBJECT, RecordError::NoSuchProcess { pid }.to_string(), Some(remedy))
    };
    if !procfs::alive(pid) {
        let seen = std::fs::exists(format!("/proc/{pid}")).unwrap_or(false);
        let ended = format!("{pid} has ended; only its parent still has to notice");
        let remedy = || Some("record the process that took its place".to_owned());
        return Err(if seen { Finding::bad(SUBJECT, ended, remedy()) } else { no_such() });
    }
    if let Some(leader) = procfs::thread_group(pid).filter(|leader| *leader != pid) {
        let error = RecordError::IsThread { tid: pid, pid: leader };
        return Err(Finding::bad(SUBJECT, error.to_string(), None)); // which says what helps
    }
    let facts = procfs::facts(pid).map_err(|_gone| no_such())?;
    match procfs::read(&format!("/proc/{pid}/maps")) {
        Ok(maps) if maps.is_empty() => Err(Finding::bad(
            SUBJECT,
            format!("{pid} ({}) runs no program: a thread of the kernel", shown(&facts.comm)),
            Some("name a process, not a thread of the kernel".to_owned()),
        )),
        Ok(maps) => Ok((facts, maps)),
        Err(error) => Err(Finding::bad(
            SUBJECT,
            format!(
                "{pid} ({}) of uid {} is not ours to look at: {}",
                shown(&facts.comm),
                facts.uid,
                errno_text(errno_of(&error))
            ),
            Some("run as root, or with CAP_SYS_PTRACE and CAP_PERFMON".to_owned()),
        )),
    }
}

fn process(facts: &Facts) -> Finding {
    let separated = |byte: &u8| if *byte == 0 { b' ' } else { *byte };
    let command = shown(&facts.cmdline.iter().map(separated).collect::<Vec<u8>>());
    let text = format!("{} ({}), uid {}: {command}", facts.pid, shown(&facts.comm), facts.uid);
    Finding::good("process", text)
}

fn container(facts: &Facts) -> Option<Finding> {
    let inner = facts.inner_pid != facts.pid;
    if !inner && !facts.other_root {
        return None;
    }
    let root = if facts.other_root { "its own root directory" } else { "our root directory" };
    let ids = if inner {
        format!(", where it is process {}", facts.inner_pid)
    } else {
        ", our process ids".to_owned()
    };
    Some(Finding::good("container", format!("{root}{ids}")))
}

fn permission(pid: u32, source: EventSource) -> Finding {
    const SUBJECT: &str = "sampling";
    match machine::trial(source, pid as i32) {
        Ok(true) => Finding::good(SUBJECT, "allowed"),
        Ok(false) => Finding::good(SUBJECT, "allowed, without kernel frames"),
        Err(error) => Finding::bad(SUBJECT, error.to_string(), error.remedy()),
    }
}

/// What a default recording of the process and its children takes.
fn cost(pid: u32) -> Finding {
    const SUBJECT: &str = "cost";
    let threads: usize = procfs::family(pid).iter().map(|&p| procfs::threads(p).len()).sum();
    let online = cpus::online_cpus().map_or(1, |cpus| cpus.len());
    let budget = Budget::new(default_events(), threads.max(1) as u64, online as u64, true);
    // Raising the soft limit of this process is what the recorder does first, too.
    match rlimit::raise_open_files(budget.open_files()) {
        Ok(limit) if limit.soft < budget.open_files() => {
            let allowed = limit.soft;
            let error = RecordError::TooManyDescriptors { budget: budget.to_string(), allowed };
            Finding::bad(SUBJECT, error.to_string(), error.remedy())
        }
        Ok(_enough) => Finding::good(SUBJECT, budget.to_string()),
        Err(error) => Finding::bad(SUBJECT, error.to_string(), Some("see ulimit -n".to_owned())),
    }
}

/// The files mapped executable, and whether there is code that is in no file.
fn mapped(pid: u32, maps: &[u8]) -> (Objects, bool) {
    let mut objects = Objects::default();
    let mut has_jit = false;
    for entry in procmaps::parse_maps(maps).entries.iter().filter(|entry| entry.exec) {
        let path = entry.path.as_deref().unwrap_or_default();
        if entry.inode == 0 || !path.starts_with(b"/") {
            has_jit |= path.is_empty();
            continue;
        }
        let mut path = path.to_vec();
        if entry.deleted {
            path.extend_from_slice(b" (deleted)");
        }
        let device = (entry.dev_major, entry.dev_minor);
        let identity = Identity { device, inode: entry.inode, path };
        objects.intern(identity, Sighting { pid, start: entry.start, end: entry.end });
    }
    (objects, has_jit)
}

/// The runtime, as its files tell.
#[derive(Debug, Default)]
struct Node {
    object: Option<u32>,
    file: String,
    node: Option<String>,
    v8: Option<String>,
    starts_node: bool,
}

impl Node {
    fn major(&self) -> Option<u32> {
        self.node.as_deref()?.split('.').next()?.parse().ok()
    }

    fn finding(&self) -> Finding {
        const SUBJECT: &str = "program";
        let Self { file, node, v8, starts_node, .. } = self;
        let v8 = v8.as_ref().map(|version| format!("V8 {version}"));
        match (node, v8) {
            (Some(node), Some(v8)) if *starts_node => {
                Finding::good(SUBJECT, format!("Node {node}, {v8}, in {file}"))
            }
            (None, Some(v8)) if *starts_node => {
                Finding::good(SUBJECT, format!("Node of unknown version, {v8}, in {file}"))
            }
            (_, Some(v8)) => Finding::limited(
                SUBJECT,
                format!("not Node, but has {v8} in {file}"),
                "CPU samples work; file opens only if it has libuv (below)",
            ),
            _ => Finding::limited(
                SUBJECT,
                "not Node: none of its files has V8",
                "CPU samples and probes of native functions work",
            ),
        }
    }
}

fn node(objects: &Objects) -> Node {
    for (index, object) in objects.iter() {
        let (Some(file), Some(elf)) = (object.file(), &object.elf) else { continue };
        let Some(v8) = program::v8_version(file, elf) else { continue };
        let starts = find_functions(&ReadCache::new(file), &[NODE_START]);
        return Node {
            object: Some(index),
            file: path(object),
            node: program::node_version(file, elf),
            v8: Some(v8),
            starts_node: starts.is_ok_and(|found| !found.is_empty()),
        };
    }
    Node::default()
}

/// Whether the functions behind file opens can be probed, and where.
fn libuv(objects: &Objects, node: &Node) -> Finding {
    const SUBJECT: &str = "file opens";
    let among: Vec<u32> = objects.iter().map(|(index, _object)| index).collect();
    let mut places = Vec::new();
    let mut more = 0;
    for wanted in Wanted::set("fs", 0) {
        match locate::sites(&wanted, objects, &among, false) {
            Ok(sites) if sites.is_empty() && !node.starts_node => {
                let text = format!("none: no libuv in the {} files it has mapped", among.len());
                return Finding::limited(SUBJECT, text, "-e cpu works without");
            }
            Ok(sites) if sites.is_empty() => {
                let error = locate::not_found(&wanted, objects, &among);
                let remedy = "libuv with its symbols is needed; -e cpu works without";
                return Finding::limited(SUBJECT, error.to_string(), remedy);
            }
            // Where one of them is, all are.
            Ok(sites) if !wanted.members.is_empty() => more += sites.len(),
            Ok(sites) => places.extend(sites.into_iter().map(|site| site.text)),
            Err(error) => {
                let remedy = "please report this libuv; -e cpu works meanwhile";
                return Finding::bad(SUBJECT, error.to_string(), Some(remedy.to_owned()));
            }
        }
    }
    places.sort_unstable();
    Finding::good(SUBJECT, format!("{} and {more} more places", places.join(", ")))
}

fn io_uring(pid: u32) -> Option<Finding> {
    let environ = procfs::read(&format!("/proc/{pid}/environ")).ok()?;
    let value = variable(&environ, "UV_USE_IO_URING")?;
    let text = format!("UV_USE_IO_URING={}; probes see the opens either way", shown(value));
    Some(Finding::good("io_uring", text))
}

fn javascript(
    facts: &Facts,
    node_major: Option<u32>,
    heap: &Result<Found, AttachError>,
) -> Vec<Finding> {
    let flags = V8Flags::parse(&facts.cmdline, &facts.node_options);
    let evidence = Evidence {
        flags_known: !renamed(facts),
        node_major,
        map: map_state(facts),
        map_path: map_path(facts, &flags),
        flags,
        heap: match heap {
            Ok(found) => Ok(found.to_string()),
            Err(error) => Err((error.to_string(), error.remedy())),
        },
    };
    verdict::map(&evidence).into_iter().chain([verdict::javascript(&evidence)]).collect()
}

/// Whether the process has overwritten its command line (`process.title = …`): one word that is
/// not the program's name.
fn renamed(facts: &Facts) -> bool {
    let exe = std::fs::read_link(format!("/proc/{}/exe", facts.pid)).unwrap_or_default();
    let program = exe.file_name().unwrap_or_default().to_string_lossy();
    let first = String::from_utf8_lossy(&facts.cmdline);
    !first.contains('\0')
        && first.rsplit('/').next() != program.strip_suffix(" (deleted)").or(Some(&*program))
}

fn map_path(facts: &Facts, flags: &V8Flags) -> String {
    let folder = flags.map_folder.as_deref().unwrap_or("/tmp");
    format!("{folder}/perf-{}.map", facts.inner_pid)
}

fn map_state(facts: &Facts) -> MapState {
    let mut map = JitMap::of(0, facts, &Limits::default());
    let mut entries = 0;
    match map.look(0, |batch| entries += batch.entries.len() as u64) {
        Err(refusal) => MapState::Refused(refusal.to_string()),
        Ok(_more) if map.found() => MapState::Found { entries, bad_lines: map.bad_lines() },
        Ok(_more) => MapState::Missing,
    }
}

fn map_of_another_runtime(facts: &Facts) -> Finding {
    const SUBJECT: &str = "JIT code";
    match map_state(facts) {
        MapState::Found { entries, .. } => {
            Finding::good(SUBJECT, format!("frames will have names: a map of {entries} entries"))
        }
        MapState::Refused(why) => {
            Finding::limited(SUBJECT, why, "remove what is there and restart the target")
        }
        MapState::Missing => Finding::limited(
            SUBJECT,
            "frames will have no names: the target writes no perf map",
            "start it with its runtime's own switch for perf maps",
        ),
    }
}

/// Which native frames will have names. Stripped libraries are usual and export what is called;
/// a stripped program hides most of its own frames.
fn native(objects: &Objects, node: &Node) -> Finding {
    const SUBJECT: &str = "native";
    let with_symbols = |object: &MappedFile| object.elf.as_ref().is_some_and(|elf| elf.has_symtab);
    let unreadable: Vec<String> =
        objects.iter().filter(|(_, object)| object.elf.is_none()).map(|(_, o)| path(o)).collect();
    let total = objects.iter().count();
    if !unreadable.is_empty() {
        let text = format!(
            "no names in {} of {total} files, which cannot be read: {}",
            unreadable.len(),
            few(&unreadable)
        );
        let remedy = "run as root; restart a target whose files were replaced";
        return Finding::limited(SUBJECT, text, remedy);
    }
    let stripped = objects.iter().filter(|(_, object)| !with_symbols(object)).count();
    // The file with V8; of other programs the largest.
    let main = match node.object.and_then(|index| objects.get(index)) {
        Some(object) => Some(object),
        None => objects.iter().map(|(_, object)| object).max_by_key(|object| size(object)),
    };
    match main.filter(|object| !with_symbols(object)) {
        Some(main) => Finding::limited(
            SUBJECT,
            format!("only exported functions will have names: {} is stripped", path(main)),
            "install its debug symbols, or use a build that is not stripped",
        ),
        None if stripped == 0 => Finding::good(SUBJECT, "frames will have names"),
        None => Finding::good(
            SUBJECT,
            format!("frames will have names, in {stripped} stripped libraries exported ones only"),
        ),
    }
}

fn size(object: &MappedFile) -> u64 {
    object.file().and_then(|file| file.metadata().ok()).map_or(0, |metadata| metadata.size())
}

fn few(paths: &[String]) -> String {
    const NAMED: usize = 2;
    let named = paths.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match paths.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

fn path(object: &MappedFile) -> String {
    let deleted = if object.deleted { " (replaced since)" } else { "" };
    format!("{}{deleted}", shown(&object.path))
}

/// Bytes of the target as text, cut. They are neutralised when they are printed, and only then:
/// twice would show the escapes themselves.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(SHOWN) {
        Some((end, _letter)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}
