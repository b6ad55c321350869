//! Who ran and what was mapped: processes, threads, mappings and objects, as the records tell in time
//! order. Knows no samples beyond their number, and no names of functions.

use std::collections::{BTreeSet, HashMap};

use formats::capture::{Mapping, Object, Process, ProcessEnd, Thread};
use formats::limits::Limits;
use formats::space::{AddressSpace, Backing};

/// Path suffix of a file that is gone (`d_path`, fs/d_path.c).
const DELETED: &[u8] = b" (deleted)";

/// Device and inode of a file when it was mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Inode {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) number: u64,
}

/// One executable mapping of a user process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mapped<'a> {
    pub(super) pid: u32,
    pub(super) start: u64,
    pub(super) length: u64,
    pub(super) offset: u64,
    pub(super) path: &'a [u8],
    pub(super) build_id: &'a [u8],
    pub(super) inode: Option<Inode>,
    pub(super) time_ns: u64,
}

/// Code made at run time that `perf inject --jit` wrote into a file of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Injected {
    pub(super) process: u32,
    pub(super) start: u64,
    pub(super) length: u64,
    pub(super) offset: u64,
    pub(super) path: Vec<u8>,
    pub(super) time_ns: u64,
}

/// An object and what is known of its identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ObjectKey {
    path: Vec<u8>,
    build_id: Vec<u8>,
    inode: Option<Inode>,
}

/// The state of all processes.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) processes: Vec<Process>,
    pub(super) threads: Vec<Thread>,
    pub(super) ends: Vec<ProcessEnd>,
    pub(super) objects: Vec<Object>,
    /// As `objects`: what they were when they were mapped.
    pub(super) inodes: Vec<Option<Inode>>,
    pub(super) mappings: Vec<Mapping>,
    /// Jitdump files by process.
    pub(super) dumps: BTreeSet<(u32, Vec<u8>)>,
    pub(super) injected: Vec<Injected>,
    /// The first process that called exec: the command of `perf record COMMAND`.
    pub(super) first_exec: Option<u32>,
    /// Things that were left out because a table was full.
    pub(super) dropped: u64,
    spaces: Vec<AddressSpace>,
    samples: Vec<u64>,
    current: HashMap<u32, u32>,
    thread_index: HashMap<(u32, u32), u32>,
    object_index: HashMap<ObjectKey, u32>,
    max_entries: usize,
}

impl World {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { max_entries: limits.table_entries, ..Self::default() }
    }

    /// The process image that `pid` is now; made if it was not heard of.
    fn process(&mut self, pid: u32, time_ns: u64) -> u32 {
        if let Some(&index) = self.current.get(&pid) {
            return index;
        }
        self.add_process(Process { pid, start_ns: time_ns, ..Process::default() }, None)
    }

    fn add_process(&mut self, process: Process, space: Option<AddressSpace>) -> u32 {
        if self.processes.len() >= self.max_entries {
            self.dropped += 1;
            // The last image stands in for what cannot be kept; there is one, as the table is full.
            return self.processes.len().saturating_sub(1) as u32;
        }
        let index = self.processes.len() as u32;
        self.current.insert(process.pid, index);
        self.processes.push(process);
        self.spaces.push(space.unwrap_or_default());
        self.samples.push(0);
        index
    }

    /// Index of the thread and the process image of a sample, and the image's mappings.
    pub(super) fn sampled(&mut self, pid: u32, tid: u32, time_ns: u64) -> (u32, u32) {
        let process = self.process(pid, time_ns);
        if let Some(count) = self.samples.get_mut(process as usize) {
            *count += 1;
        }
        let next = self.threads.len() as u32;
        let thread = *self.thread_index.entry((process, tid)).or_insert(next);
        if thread == next {
            self.threads.push(Thread { process, tid });
        }
        (thread, process)
    }

    /// The mappings of a process image now.
    pub(super) fn space(&self, process: u32) -> Option<&AddressSpace> {
        self.spaces.get(process as usize)
    }

    /// A process began as a copy of another; threads of one process are no news.
    pub(super) fn fork(&mut self, pid: u32, parent: u32, time_ns: u64) {
        if pid == parent {
            return;
        }
        let from = self.current.get(&parent).map(|&index| index as usize);
        let space = from.and_then(|index| self.spaces.get(index)).cloned();
        let comm = from.and_then(|i| self.processes.get(i)).map(|p| p.comm.clone());
        let comm = comm.unwrap_or_default();
        self.current.remove(&pid);
        let child = Process { pid, parent, start_ns: time_ns, comm, ..Process::default() };
        self.add_process(child, space);
    }

    /// A thread got a name; with `exec`, because its process became another program.
    pub(super) fn comm(&mut self, pid: u32, tid: u32, name: &[u8], exec: bool, time_ns: u64) {
        let mut index = self.process(pid, time_ns);
        if exec {
            index = self.exec(pid, index, time_ns);
            self.first_exec.get_or_insert(pid);
        }
        if let Some(process) = self.processes.get_mut(index as usize).filter(|_| pid == tid) {
            process.comm = name.to_vec();
        }
    }

    fn exec(&mut self, pid: u32, old: u32, time_ns: u64) -> u32 {
        let place = old as usize;
        if self.samples.get(place) == Some(&0) {
            // Nothing was seen of the old program (`perf-exec`, before the command): no image of its own.
            if let Some(space) = self.spaces.get_mut(place) {
                space.clear();
            }
            self.mappings.retain(|mapping| mapping.process != old);
            if let Some(process) = self.processes.get_mut(place) {
                process.start_ns = time_ns;
            }
            return old;
        }
        let parent = self.processes.get(place).map_or(0, |process| process.parent);
        self.ends.push(ProcessEnd { process: old, time_ns });
        self.current.remove(&pid);
        self.add_process(Process { pid, parent, start_ns: time_ns, ..Process::default() }, None)
    }

    /// A thread ended; a process ends with its first thread.
    pub(super) fn exit(&mut self, pid: u32, tid: u32, time_ns: u64) {
        if let Some(&process) = self.current.get(&pid).filter(|_| pid == tid) {
            self.ends.push(ProcessEnd { process, time_ns });
        }
    }

    /// Code was mapped.
    pub(super) fn map(&mut self, mapped: Mapped<'_>) {
        let Some(end) = mapped.start.checked_add(mapped.length) else {
            self.dropped += 1;
            return;
        };
        let process = self.process(mapped.pid, mapped.time_ns);
        let backing = self.backing(process, mapped);
        let Some(space) = self.spaces.get_mut(process as usize) else { return };
        let Backing::Object(object) = backing else {
            return space.map(mapped.start, end, mapped.offset, backing);
        };
        space.map(mapped.start, end, mapped.offset, backing);
        if self.mappings.len() >= self.max_entries {
            self.dropped += 1;
            return;
        }
        self.mappings.push(Mapping {
            process,
            object,
            start: mapped.start,
            end,
            offset: mapped.offset,
            time_ns: mapped.time_ns,
        });
    }

    fn backing(&mut self, process: u32, mapped: Mapped<'_>) -> Backing {
        if is_anonymous(mapped.path) {
            return Backing::Anonymous;
        }
        let name = mapped.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if is_numbered(name, b"jitted-", b".so") {
            if self.injected.len() < self.max_entries {
                self.injected.push(Injected {
                    process,
                    start: mapped.start,
                    length: mapped.length,
                    offset: mapped.offset,
                    path: mapped.path.to_vec(),
                    time_ns: mapped.time_ns,
                });
            }
            return Backing::Anonymous;
        }
        if is_numbered(name, b"jit-", b".dump") {
            self.dumps.insert((process, mapped.path.to_vec()));
        }
        self.object(mapped.path, mapped.build_id, mapped.inode)
            .map_or(Backing::Anonymous, Backing::Object)
    }

    /// Index of an object; `None` when the table is full.
    fn object(&mut self, path: &[u8], build_id: &[u8], inode: Option<Inode>) -> Option<u32> {
        let (path, flags) = match path.strip_suffix(DELETED) {
            Some(path) => (path, Object::DELETED),
            None => (path, 0),
        };
        let key = ObjectKey { path: path.to_vec(), build_id: build_id.to_vec(), inode };
        if let Some(&index) = self.object_index.get(&key) {
            return Some(index);
        }
        if self.objects.len() >= self.max_entries {
            self.dropped += 1;
            return None;
        }
        let index = self.objects.len() as u32;
        self.objects.push(Object { path: key.path.clone(), build_id: build_id.to_vec(), flags });
        self.inodes.push(inode);
        self.object_index.insert(key, index);
        Some(index)
    }

    /// The object that stands for the kernel.
    pub(super) fn add_kernel(&mut self, build_id: Vec<u8>) -> u32 {
        let index = self.objects.len() as u32;
        let path = b"[kernel.kallsyms]".to_vec();
        self.objects.push(Object { path, build_id, flags: Object::KERNEL });
        self.inodes.push(None);
        index
    }
}

/// Names that the kernel gives to memory without a file (`perf_event_mmap_event`), and files that
/// runtimes use for memory that is mapped twice.
fn is_anonymous(path: &[u8]) -> bool {
    let names: [&[u8]; 9] = [
        b"//anon",
        b"[heap]",
        b"[stack",
        b"[anon",
        b"/memfd:",
        b"/dev/zero",
        b"/SYSV",
        b"/anon_hugepage",
        b"anon_inode:",
    ];
    path.is_empty() || names.iter().any(|name| path.starts_with(name))
}

/// `PREFIX`, digits and dashes, `SUFFIX`.
fn is_numbered(name: &[u8], prefix: &[u8], suffix: &[u8]) -> bool {
    name.strip_prefix(prefix)
        .and_then(|rest| rest.strip_suffix(suffix))
        .is_some_and(|n| !n.is_empty() && n.iter().all(|b| b.is_ascii_digit() || *b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::space::Place;

    fn mapped(pid: u32, start: u64, path: &[u8]) -> Mapped<'_> {
        let (length, offset, build_id, inode) = (0x1000, 0, &b""[..], None);
        Mapped { pid, start, length, offset, path, build_id, inode, time_ns: 5 }
    }

    #[test]
    fn a_fork_copies_the_mappings_and_exec_drops_them() {
        let mut world = World::new(&Limits::default());
        world.comm(10, 10, b"parent", false, 0);
        world.map(mapped(10, 0x1000, b"/bin/parent"));
        world.sampled(10, 11, 1);
        world.fork(20, 10, 2);
        let (thread, child) = world.sampled(20, 20, 3);
        assert_eq!(world.threads[thread as usize], Thread { process: child, tid: 20 });
        let place = world.space(child).unwrap().locate(0x1800);
        assert_eq!(place, Some(Place::File { object: 0, offset: 0x800 }));
        world.comm(20, 20, b"other", true, 4);
        let (_thread, image) = world.sampled(20, 20, 5);
        assert_ne!(image, child);
        assert_eq!(world.space(image).unwrap().locate(0x1800), None);
        let image = &world.processes[image as usize];
        assert_eq!((image.pid, image.parent, image.comm.as_slice()), (20, 10, &b"other"[..]));
        assert_eq!(world.ends, [ProcessEnd { process: child, time_ns: 4 }]);
    }

    #[test]
    fn a_program_without_samples_leaves_no_image() {
        let mut world = World::new(&Limits::default());
        world.comm(10, 10, b"perf-exec", false, 0);
        world.map(mapped(10, 0x1000, b"/usr/bin/perf"));
        world.comm(10, 10, b"node", true, 1);
        assert_eq!(world.processes.len(), 1);
        assert_eq!(world.processes[0].comm, b"node");
        assert!(world.mappings.is_empty());
        assert_eq!(world.first_exec, Some(10));
    }

    #[test]
    fn code_made_at_run_time_is_no_object() {
        let mut world = World::new(&Limits::default());
        for (at, path) in [&b"//anon"[..], b"/memfd:doublemapper (deleted)", b"/tmp/jitted-10-3.so"]
            .into_iter()
            .enumerate()
        {
            let start = 0x1000 * (at as u64 + 1);
            world.map(mapped(10, start, path));
            assert_eq!(world.space(0).unwrap().locate(start), Some(Place::Anonymous));
        }
        assert!(world.objects.is_empty());
        assert_eq!(world.injected.len(), 1);
        world.map(mapped(10, 0x9000, b"/tmp/jit-10.dump"));
        assert_eq!(world.dumps.len(), 1);
        world.map(mapped(10, 0xa000, b"/opt/node (deleted)"));
        let object = world.objects.last().unwrap();
        assert_eq!((object.path.as_slice(), object.flags), (&b"/opt/node"[..], Object::DELETED));
    }
}
