//! Stacks from copied user stacks: one V8 reader a process, made when V8 is first seen in it, and
//! what the readers learn on its way into the capture.
//!
//! The copy of the stack is looked at here and forgotten: it holds the target's data and never
//! reaches the file.

mod reader;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Write;
use std::time::{Duration, Instant};

use formats::capture::{CaptureWriter, Frame, Marker, Remark, StackId};
use formats::procmaps::{MapsEntry, parse_maps};
use formats::space::KERNEL_START;

use super::naming::Naming;
use super::world::{Running, World};
use crate::process::objects::MappedFile;
use crate::process::procfs;
use crate::unwind::{Ending, MachineFrame, Mappings, StackDump, Unwinder};
use crate::v8::engine::Engine;
use crate::v8::image::Image;
use crate::v8::memory::STALE;
use crate::v8::regions::V8File;
use crate::v8::{AttachError, V8};
use reader::Reader;

/// How often V8 is looked for in a process. A version that the table does not know is concluded from
/// live objects, of which there may be too few while a program starts.
const MAX_ATTEMPTS: u32 = 16;
/// Names that one reader keeps, bytes.
const MAX_NAMES: usize = 64 << 20;
/// How often the mappings of a process without V8 are read again at most.
const MAPS_AGE: Duration = Duration::from_millis(100);
/// Rounds at the end of a recording in which lines of scripts that wait are counted.
const LAST_ROUNDS: usize = 3;

/// A process without V8.
#[derive(Debug)]
struct Native {
    pid: u32,
    mappings: Mappings,
    /// Generation of its mappings when they were read.
    generation: u64,
    /// How often V8 was looked for, and when last.
    attempts: u32,
    looked: Instant,
}

/// The readers of all processes.
#[derive(Debug, Default)]
pub struct Heaps {
    readers: HashMap<u32, Reader>,
    /// Processes without a reader, as of their mappings then.
    natives: HashMap<u32, Native>,
    /// Tables of files, which all processes share.
    unwinder: Unwinder,
    /// What V8 is like in a file, by device and inode.
    images: HashMap<(u64, u64), Option<Image>>,
    /// Which other engine is in a file, by device and inode.
    engines: HashMap<(u64, u64), Option<Engine>>,
    drain: u64,
    frames: Vec<Frame>,
    machine: Vec<MachineFrame>,
    /// Why processes cannot be read.
    unreadable: HashMap<u32, String>,
    /// Stacks of processes that had ended, named by what was known until then.
    after_end: u64,
}

/// A sample's stack before it is understood.
#[derive(Debug, Clone, Copy)]
pub struct Copied<'a> {
    /// Kernel part of the callchain.
    pub kernel: &'a [u64],
    /// Registers and copy of the user stack; absent for a thread of the kernel.
    pub dump: Option<StackDump<'a>>,
}

impl Heaps {
    /// Begins a drain: what is read from now on is the target's present state.
    pub fn begin_drain(&mut self) {
        self.drain += 1;
    }

    /// Whether the process's JavaScript is read from its heap.
    #[must_use]
    pub fn reads(&self, process: u32) -> bool {
        self.readers.contains_key(&process)
    }

    /// Stacks of processes that had ended, named by what was known until then.
    #[must_use]
    pub fn named_after_end(&self) -> u64 {
        self.after_end + self.readers.values().map(|reader| reader.after_end).sum::<u64>()
    }

    /// What has to be said of processes that could not be read to the end.
    pub fn take_remarks(&mut self) -> Vec<Remark> {
        let texts = std::mem::take(&mut self.unreadable).into_values();
        texts.map(|text| Remark { code: "js-not-readable".into(), text, count: 1 }).collect()
    }

    /// The interned stack of a sample.
    pub fn stack<W: Write>(
        &mut self,
        to: &mut CaptureWriter<W>,
        world: &World,
        naming: &mut Naming,
        (pid, running): (u32, &Running),
        copied: &Copied<'_>,
    ) -> StackId {
        let user = match &copied.dump {
            Some(dump) => self.user_stack(to, world, naming, (pid, running), dump),
            None => StackId::default(),
        };
        let addresses = copied.kernel.iter().filter(|&&word| is_kernel_code(word));
        let kernel = addresses.enumerate().map(|(at, &word)| world.frame(running, word, at > 0));
        self.frames.clear();
        self.frames.extend(kernel);
        push_all(to, naming, user, &self.frames)
    }

    fn user_stack<W: Write>(
        &mut self,
        to: &mut CaptureWriter<W>,
        world: &World,
        naming: &mut Naming,
        (pid, running): (u32, &Running),
        dump: &StackDump<'_>,
    ) -> StackId {
        self.attach(pid, running, world);
        self.frames.clear();
        if let Some(reader) = self.readers.get_mut(&running.index) {
            reader.begin_drain(self.drain);
            return reader.intern(to, world, naming, running, dump, &mut self.frames);
        }
        if let Some(native) = self.natives.get(&running.index) {
            let unwound = self.unwinder.unwind(dump, &native.mappings, &mut self.machine);
            for frame in &self.machine {
                self.frames.extend(frame.after_gap.then_some(Frame::Marker(Marker::GAP)));
                self.frames.push(world.frame(running, frame.ip, frame.call));
            }
            self.frames.extend(ends(unwound.ending));
        }
        push_all(to, naming, StackId::default(), &self.frames)
    }

    /// Makes the reader of a process, unless there is one or its mappings are as they were when
    /// there could be none.
    pub fn attach(&mut self, pid: u32, running: &Running, world: &World) {
        let process = running.index;
        let generation = running.space.generation();
        let before = self.natives.get(&process);
        let recently = |native: &Native| native.looked.elapsed() < MAPS_AGE;
        let known = |native: &Native| native.generation == generation || recently(native);
        if self.reads(process) || before.is_some_and(known) {
            return;
        }
        let attempts = before.map_or(0, |native| native.attempts);
        if attempts < MAX_ATTEMPTS {
            match self.try_attach(pid, running, world) {
                Ok(Some((mut v8, object))) => {
                    v8.unwind_with(&self.unwinder);
                    self.readers.insert(process, Reader::new(v8, pid, object));
                    self.natives.remove(&process);
                    self.unreadable.remove(&process);
                    return;
                }
                Ok(None) => {}
                Err(error) => self.remember(process, pid, &error),
            }
        }
        // Not again before its mappings change.
        let maps = procfs::read(&format!("/proc/{pid}/maps")).unwrap_or_default();
        let (mappings, attempts) = (Mappings::new(pid, &maps), attempts + 1);
        let native = Native { pid, mappings, generation, attempts, looked: Instant::now() };
        self.natives.insert(process, native);
    }

    /// Notes why a process's JavaScript cannot be read; a later attempt may be able to. That it has
    /// ended meanwhile is no reason.
    fn remember(&mut self, process: u32, pid: u32, error: &AttachError) {
        if procfs::alive(pid) {
            let helps = error.remedy().map_or(String::new(), |it| format!("; what helps: {it}"));
            let text = format!("{error}: its JavaScript frames have no names{helps}");
            self.unreadable.insert(process, text);
        }
    }

    /// Looks for V8 in a file, once: it takes some 50 ms, for which samples should not wait.
    ///
    /// # Errors
    /// V8 is there and cannot be read; said once.
    pub fn learn(&mut self, file: &MappedFile) -> Result<Option<&Image>, AttachError> {
        let Some(opened) = file.file() else { return Ok(None) };
        let Some(identity) = file.device_and_inode() else { return Ok(None) };
        let image = match self.images.entry(identity) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => match Image::find(opened) {
                Ok(image) => unknown.insert(image),
                Err(problem) => {
                    unknown.insert(None);
                    return Err(problem.into());
                }
            },
        };
        Ok(image.as_ref())
    }

    fn try_attach(
        &mut self,
        pid: u32,
        running: &Running,
        world: &World,
    ) -> Result<Option<(V8, u32)>, AttachError> {
        for (start, _end, _offset, object) in running.space.files() {
            let Some(file) = world.objects.get(object) else { continue };
            let Some(image) = self.learn(file)? else { continue };
            let maps = procfs::read(&format!("/proc/{pid}/maps"))
                .map_err(|cause| AttachError::Maps { pid, cause })?;
            // By the list's own words: records of the kernel name another device on an overlay.
            let entries = parse_maps(&maps).entries;
            let holds = |entry: &&MapsEntry<'_>| (entry.start..entry.end).contains(&start);
            let Some(entry) = entries.iter().find(holds) else { continue };
            let (device, inode) = ((entry.dev_major, entry.dev_minor), entry.inode);
            let file = V8File { device, inode, builtins: image.builtins.clone() };
            let v8 = V8::with_image(pid, image.clone(), file, &maps)?;
            return Ok(Some((v8, object)));
        }
        if !running.has_jit_code {
            return Ok(None);
        }
        // It makes code and has no V8: perhaps it is one of those that people will ask about.
        for (_start, _end, _offset, object) in running.space.files() {
            let Some(file) = world.objects.get(object) else { continue };
            let (Some(opened), Some(identity)) = (file.file(), file.device_and_inode()) else {
                continue;
            };
            let engine = *self.engines.entry(identity).or_insert_with(|| Engine::find(opened));
            if let Some(engine) = engine {
                return Err(AttachError::Foreign { pid, engine });
            }
        }
        Ok(None)
    }

    /// Ends a drain: the lines of new scripts are counted, and readers of processes that have ended
    /// are given up.
    pub fn end_drain<W: Write>(&mut self, to: &mut CaptureWriter<W>, world: &World) {
        for reader in self.readers.values_mut().filter(|reader| reader.drain == self.drain) {
            reader.tell_line_ends(to);
        }
        for (&process, reader) in &mut self.readers {
            if reader.ended.is_none() && !world.runs(reader.pid, process) {
                reader.v8.give_up();
                reader.ended = Some(Instant::now());
            }
        }
        // Other threads' samples may come a drain later than the end; and names that fill too much
        // memory are begun anew: the next sample attaches again.
        let done = |reader: &mut Reader| {
            reader.ended.is_some_and(|ended| ended.elapsed() > STALE)
                || reader.v8.size() > MAX_NAMES
        };
        let done = self.readers.extract_if(|_process, reader| done(reader));
        self.after_end += done.map(|(_process, reader)| reader.after_end).sum::<u64>();
        self.natives.retain(|&process, native| world.runs(native.pid, process));
    }

    /// Counts the lines that still wait.
    pub fn finish<W: Write>(&mut self, to: &mut CaptureWriter<W>) {
        for reader in self.readers.values_mut() {
            for _round in 0..LAST_ROUNDS {
                reader.v8.begin_drain();
                reader.tell_line_ends(to);
                if to.wants_flush() {
                    // What keeps this from being written keeps the end from being written, which is
                    // said.
                    let _said_later = to.flush();
                }
            }
        }
    }
}

/// The stack that has `frames`, leaf first, called by `root`.
fn push_all<W: Write>(
    to: &mut CaptureWriter<W>,
    naming: &mut Naming,
    root: StackId,
    frames: &[Frame],
) -> StackId {
    frames.iter().rev().fold(root, |stack, &frame| {
        naming.occurs(frame);
        to.stack(stack, frame)
    })
}

/// What is to be said at the outer end of a stack.
fn ends(ending: Ending) -> Option<Frame> {
    match ending {
        Ending::Complete => None,
        Ending::Truncated => Some(Frame::Marker(Marker::CUT)),
        Ending::Broken => Some(Frame::Marker(Marker::BROKEN)),
    }
}

/// Callchains hold words that say whose addresses follow; they are no addresses.
fn is_kernel_code(word: u64) -> bool {
    (KERNEL_START..super::stacks::CONTEXT_MAX).contains(&word)
}
