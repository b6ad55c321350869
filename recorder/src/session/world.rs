//! The processes of a recording as they are at one moment of it: fed with records in time order,
//! it knows which file or JIT code an address means, and tells the capture what appears and ends.

use std::collections::HashMap;
use std::io::Write;

use formats::capture::{
    CaptureWriter, Frame, Holding, Mapping, Process, ProcessEnd, Remark, Thread,
};
use formats::limits::Limits;
use formats::procmaps;
use formats::space::{AddressSpace, Backing, KERNEL_START, Place};

use crate::process::holdings::Holdings;
use crate::process::jit_map::{JitMap, Refusal};
use crate::process::objects::{Identity, Objects, Sighting};
use crate::process::procfs;

/// Processes that are followed at the same time; more are recorded without names.
const MAX_PROCESSES: usize = 4096;

/// A process that runs, or ran until just now.
#[derive(Debug)]
pub struct Running {
    /// Index in the capture.
    pub index: u32,
    /// Its executable mappings.
    pub space: AddressSpace,
    /// Its JIT map.
    pub jit: JitMap,
    /// Whether anonymous executable memory has been seen: only then a JIT map is looked for.
    pub has_jit_code: bool,
    /// It has ended. Its other threads may run a moment longer, so it stays known for a while.
    ended: bool,
    threads: HashMap<u32, u32>,
}

/// A mapping as a record or /proc tells it.
#[derive(Debug, Clone, Copy)]
pub struct MappingSeen<'a> {
    /// Process.
    pub pid: u32,
    /// First address.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// File offset of the first byte.
    pub offset: u64,
    /// Major and minor device number.
    pub device: (u32, u32),
    /// Inode, 0 without a file.
    pub inode: u64,
    /// Path, or the kernel's word for what it is.
    pub path: &'a [u8],
    /// When.
    pub time_ns: u64,
}

/// All processes of a recording.
#[derive(Debug)]
pub struct World {
    /// Files whose code was mapped.
    pub objects: Objects,
    limits: Limits,
    running: HashMap<u32, Running>,
    vdso: Option<Vec<u8>>,
    refused_processes: u64,
    ended: EndedMaps,
}

/// What the JIT maps of processes that have ended leave to be said.
#[derive(Debug, Default)]
struct EndedMaps {
    bad_lines: u64,
    restarts: u64,
    refusals: Vec<Refusal>,
}

impl EndedMaps {
    fn take_in(&mut self, jit: &JitMap, last_look: Result<(), Refusal>) {
        self.bad_lines += jit.bad_lines();
        self.restarts += jit.restarts();
        self.refusals.extend(last_look.err());
    }
}

impl World {
    /// No process yet. `vdso` is this program's own vDSO image, which all processes share.
    #[must_use]
    pub fn new(limits: Limits, vdso: Option<Vec<u8>>) -> Self {
        let objects = Objects::default();
        let ended = EndedMaps::default();
        Self { objects, limits, running: HashMap::new(), vdso, refused_processes: 0, ended }
    }

    /// The process ids that are known to run.
    pub fn pids(&self) -> impl Iterator<Item = u32> + '_ {
        self.running.iter().filter(|(_pid, running)| !running.ended).map(|(&pid, _)| pid)
    }

    /// A running process.
    #[must_use]
    pub fn process(&self, pid: u32) -> Option<&Running> {
        self.running.get(&pid)
    }

    /// Takes in a process that runs already, with its mappings as /proc shows them now.
    pub fn adopt<W: Write>(&mut self, to: &mut CaptureWriter<W>, pid: u32, now: u64) {
        self.begin(to, pid, None, b"", now);
        self.read_mappings(to, pid, now);
    }

    /// Reads the mappings of a process as /proc shows them now, over those that are known.
    pub fn read_mappings<W: Write>(&mut self, to: &mut CaptureWriter<W>, pid: u32, now: u64) {
        let Ok(text) = procfs::read(&format!("/proc/{pid}/maps")) else { return };
        for entry in procmaps::parse_maps(&text).entries.iter().filter(|entry| entry.exec) {
            let mut path = entry.path.as_deref().unwrap_or(b"//anon").to_vec();
            if entry.deleted {
                path.extend_from_slice(b" (deleted)");
            }
            let seen = MappingSeen {
                pid,
                start: entry.start,
                length: entry.end - entry.start,
                offset: entry.offset,
                device: (entry.dev_major, entry.dev_minor),
                inode: entry.inode,
                path: &path,
                time_ns: now,
            };
            self.mapped(to, &seen);
        }
    }

    /// A new process image: discovered, forked, or after exec.
    fn begin<W: Write>(
        &mut self,
        to: &mut CaptureWriter<W>,
        pid: u32,
        space: Option<AddressSpace>,
        comm: &[u8],
        time_ns: u64,
    ) {
        if self.running.len() >= MAX_PROCESSES {
            self.running.retain(|_pid, running| !running.ended);
        }
        if self.running.len() >= MAX_PROCESSES && !self.running.contains_key(&pid) {
            self.refused_processes += 1;
            return;
        }
        let facts = procfs::facts(pid).unwrap_or_else(|_gone| procfs::Facts::of_ended(pid, comm));
        let index = to.process(Process {
            pid,
            parent: facts.parent,
            start_ns: time_ns,
            comm: facts.comm.clone(),
            cmdline: facts.cmdline.clone(),
            node_options: facts.node_options.clone(),
        });
        let jit = JitMap::of(index, &facts, &self.limits);
        let space = space.unwrap_or_default();
        let threads = HashMap::new();
        let running = Running { index, space, jit, has_jit_code: false, ended: false, threads };
        if let Some(old) = self.running.insert(pid, running).filter(|old| !old.ended) {
            self.ended.take_in(&old.jit, Ok(()));
            to.process_end(ProcessEnd { process: old.index, time_ns });
        }
    }

    /// A process was forked from `parent`, with its memory.
    pub fn forked<W: Write>(
        &mut self,
        to: &mut CaptureWriter<W>,
        pid: u32,
        parent: u32,
        time_ns: u64,
    ) {
        let space = self.running.get(&parent).map(|parent| parent.space.clone());
        self.begin(to, pid, space, b"", time_ns);
    }

    /// A process called exec: a new image with no mappings.
    pub fn executed<W: Write>(
        &mut self,
        to: &mut CaptureWriter<W>,
        pid: u32,
        comm: &[u8],
        time_ns: u64,
    ) {
        self.begin(to, pid, None, comm, time_ns);
    }

    /// Tells what a process has open, as it was found at `time_ns`.
    pub fn holds<W: Write>(
        &self,
        to: &mut CaptureWriter<W>,
        pid: u32,
        found: Holdings,
        time_ns: u64,
    ) {
        let Some(running) = self.running.get(&pid) else { return };
        let folder = found.folder.map(|target| (0, target));
        let open = found.descriptors.into_iter().map(|(fd, target)| (fd.saturating_add(1), target));
        for (number, target) in folder.into_iter().chain(open) {
            to.holding(Holding { process: running.index, number, time_ns, target });
        }
    }

    /// A process ended. Its JIT map is read to the end if it is `needed`.
    pub fn exited<W: Write>(
        &mut self,
        to: &mut CaptureWriter<W>,
        pid: u32,
        needed: impl Fn(u32) -> bool,
        time_ns: u64,
    ) {
        let Some(old) = self.running.get_mut(&pid).filter(|running| !running.ended) else { return };
        // Its last words: the map outlives the process.
        let mut last_look = Ok(old.has_jit_code && needed(old.index));
        while let Ok(true) = last_look {
            last_look = old.jit.look(time_ns, |batch| to.jit(&batch));
            if to.wants_flush() {
                // What keeps this from being written will keep the next flush, which says so.
                let _said_later = to.flush();
            }
        }
        self.ended.take_in(&old.jit, last_look.map(|_more| ()));
        old.jit.close();
        old.ended = true;
        to.process_end(ProcessEnd { process: old.index, time_ns });
    }

    /// A process mapped executable memory. Returns the object's index when it is a file that this
    /// process had not mapped executable before.
    pub fn mapped<W: Write>(
        &mut self,
        to: &mut CaptureWriter<W>,
        seen: &MappingSeen<'_>,
    ) -> Option<u32> {
        let end = seen.start.saturating_add(seen.length);
        if seen.start >= KERNEL_START {
            return None;
        }
        if !self.running.contains_key(&seen.pid) {
            self.begin(to, seen.pid, None, b"", seen.time_ns);
        }
        let object = if seen.inode != 0 && seen.path.starts_with(b"/") && !is_jit_memory(seen.path)
        {
            let identity =
                Identity { device: seen.device, inode: seen.inode, path: seen.path.to_vec() };
            let sighting = Sighting { pid: seen.pid, start: seen.start, end };
            Some(self.objects.intern(identity, sighting))
        } else if seen.path == b"[vdso]" {
            let image = self.vdso.clone().unwrap_or_default();
            Some(self.objects.intern_image(b"[vdso]", image))
        } else if seen.path.starts_with(b"[") && seen.path != b"[heap]" && seen.path != b"[stack]" {
            // [uprobes], [vsyscall]: the kernel's own pages; named after themselves.
            Some(self.objects.intern_image(seen.path, Vec::new()))
        } else {
            None
        };
        let running = self.running.get_mut(&seen.pid)?;
        let Some((object, row)) = object else {
            running.has_jit_code = true;
            running.space.map(seen.start, end, seen.offset, Backing::Anonymous);
            return None;
        };
        if let Some(row) = row {
            to.object(row);
        }
        let known = running.space.files().any(|(_, _, _, other)| other == object);
        let offset = if seen.path == b"[vdso]" { 0 } else { seen.offset };
        running.space.map(seen.start, end, offset, Backing::Object(object));
        to.mapping(Mapping {
            process: running.index,
            object,
            start: seen.start,
            end,
            offset,
            time_ns: seen.time_ns,
        });
        (!known).then_some(object)
    }

    /// Index of a thread in the capture; a process that was not announced is looked up in /proc.
    pub fn thread<W: Write>(
        &mut self,
        to: &mut CaptureWriter<W>,
        pid: u32,
        tid: u32,
        time_ns: u64,
    ) -> Option<u32> {
        if !self.running.contains_key(&pid) {
            self.adopt(to, pid, time_ns);
        }
        let running = self.running.get_mut(&pid)?;
        let process = running.index;
        Some(*running.threads.entry(tid).or_insert_with(|| to.thread(Thread { process, tid })))
    }

    /// What an address of a process means now.
    #[must_use]
    pub fn frame(&self, running: &Running, address: u64, call: bool) -> Frame {
        if address >= KERNEL_START {
            return Frame::Kernel { address, call };
        }
        // The call is before the return address: that decides which mapping is meant.
        match running.space.locate(address.wrapping_sub(u64::from(call))) {
            Some(Place::File { object, offset }) => {
                Frame::Native { object, offset: offset.wrapping_add(u64::from(call)), call }
            }
            Some(Place::Anonymous) => Frame::Jit { process: running.index, address, call },
            None => Frame::Unmapped { address },
        }
    }

    /// Whether a process image runs.
    #[must_use]
    pub fn runs(&self, pid: u32, process: u32) -> bool {
        self.running.get(&pid).is_some_and(|running| running.index == process && !running.ended)
    }

    /// Whether a frame is in a file with a full symbol table.
    #[must_use]
    pub fn has_symbols(&self, frame: Frame) -> bool {
        let Frame::Native { object, .. } = frame else { return false };
        let elf = self.objects.get(object).and_then(|file| file.elf.as_ref());
        elf.is_some_and(|elf| elf.has_symtab)
    }

    fn alive(&self) -> impl Iterator<Item = &Running> {
        self.running.values().filter(|running| !running.ended)
    }

    /// Looks at the JIT maps of all processes that have made code and `needed` theirs. `true`: there
    /// is more to read than one look takes.
    pub fn look_at_jit_maps<W: Write>(
        &mut self,
        to: &mut CaptureWriter<W>,
        now: u64,
        needed: impl Fn(u32) -> bool,
        mut refused: impl FnMut(Remark),
    ) -> bool {
        let mut more = false;
        let mut refusals = std::mem::take(&mut self.ended.refusals);
        let with_code = |running: &&mut Running| {
            running.has_jit_code && !running.ended && needed(running.index)
        };
        for running in self.running.values_mut().filter(with_code) {
            match running.jit.look(now, |batch| to.jit(&batch)) {
                Ok(unread) => more |= unread,
                Err(refusal) => refusals.push(refusal),
            }
        }
        for refusal in refusals {
            let text = refusal.to_string();
            refused(Remark { code: "jit-map-refused".into(), text, count: 1 });
        }
        more
    }

    /// Lines of JIT maps that were not understood.
    #[must_use]
    pub fn bad_jit_lines(&self) -> u64 {
        let running = self.alive().map(|running| running.jit.bad_lines());
        self.ended.bad_lines + running.sum::<u64>()
    }

    /// How often a JIT map was begun anew.
    #[must_use]
    pub fn jit_map_restarts(&self) -> u64 {
        let running = self.alive().map(|running| running.jit.restarts());
        self.ended.restarts + running.sum::<u64>()
    }

    /// Processes that were not followed because there were too many.
    #[must_use]
    pub fn refused_processes(&self) -> u64 {
        self.refused_processes
    }
}

/// Memory files in which .NET and others keep the code they make.
fn is_jit_memory(path: &[u8]) -> bool {
    path.starts_with(b"/memfd:doublemapper") || path.starts_with(b"/dev/zero")
}
