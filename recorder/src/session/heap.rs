//! Stacks from copied user stacks: one V8 reader a process, made when V8 is first seen in it, and
//! what the readers learn on its way into the capture.
//!
//! The copy of the stack is looked at here and forgotten: it holds the target's data and never
//! reaches the file.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Write;

use formats::capture::{
    CaptureWriter, Frame, Function, LineEnds, Marker, NoName, Remark, Script, StackId, Tier,
};
use formats::space::KERNEL_START;

use super::naming::Naming;
use super::world::{Running, World};
use crate::process::objects::MappedFile;
use crate::process::procfs;
use crate::unwind::{Ending, MachineFrame, Mappings, StackDump, Unwinder};
use crate::v8::frame::{Frame as Found, Why};
use crate::v8::image::Image;
use crate::v8::regions::V8File;
use crate::v8::{self, AttachError, V8};

/// Rounds at the end of a recording in which lines of scripts that wait are counted.
const LAST_ROUNDS: usize = 3;

/// A process whose JavaScript can be read.
#[derive(Debug)]
struct Reader {
    v8: V8,
    pid: u32,
    /// Capture's index of each of the reader's functions.
    functions: Vec<u32>,
    /// Capture's index of each of the reader's scripts.
    scripts: Vec<u32>,
    /// The drain for which memory was last read afresh.
    drain: u64,
    /// Interned stacks of this drain, by the reader's key, and the epoch they belong to.
    interned: HashMap<u64, StackId>,
    epoch: u32,
}

/// A process without V8.
#[derive(Debug)]
struct Native {
    pid: u32,
    mappings: Mappings,
    /// Generation of its mappings when they were read.
    generation: u64,
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
    drain: u64,
    frames: Vec<Frame>,
    machine: Vec<MachineFrame>,
    remarks: Vec<Remark>,
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

    /// What has to be said of processes that cannot be read.
    pub fn take_remarks(&mut self) -> Vec<Remark> {
        std::mem::take(&mut self.remarks)
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
            if std::mem::replace(&mut reader.drain, self.drain) != self.drain {
                reader.v8.begin_drain();
                reader.interned.clear();
            }
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
        let known = self.natives.get(&process).is_some_and(|it| it.generation == generation);
        if known || self.readers.contains_key(&process) {
            return;
        }
        let first = !self.natives.contains_key(&process);
        match self.try_attach(pid, running, world) {
            Ok(Some(mut v8)) => {
                v8.unwind_with(&self.unwinder);
                self.readers.insert(process, Reader::new(v8, pid));
                self.natives.remove(&process);
                return;
            }
            // A process that has ended meanwhile is no problem to be told.
            Err(error) if first && procfs::alive(pid) => {
                let reason = v8::reason(&error);
                let text = format!("process {pid}: JavaScript frames have no names: {reason}");
                self.remarks.push(Remark { code: "js-not-readable".into(), text, count: 1 });
            }
            Ok(None) | Err(_) => {}
        }
        // Not again before its mappings change.
        let maps = procfs::read(&format!("/proc/{pid}/maps")).unwrap_or_default();
        let mappings = Mappings::new(pid, &maps);
        self.natives.insert(process, Native { pid, mappings, generation });
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
    ) -> Result<Option<V8>, AttachError> {
        for (_start, _end, _offset, object) in running.space.files() {
            let Some(file) = world.objects.get(object) else { continue };
            let Some(identity) = &file.identity else { continue };
            let Some(image) = self.learn(file)? else { continue };
            let builtins = image.builtins.clone();
            let file = V8File { device: identity.device, inode: identity.inode, builtins };
            let maps = procfs::read(&format!("/proc/{pid}/maps"))
                .map_err(|cause| AttachError::Maps { pid, cause })?;
            return V8::with_image(pid, image.clone(), file, &maps).map(Some);
        }
        Ok(None)
    }

    /// Ends a drain: the lines of new scripts are counted, and readers of processes that have ended
    /// are given up.
    pub fn end_drain<W: Write>(&mut self, to: &mut CaptureWriter<W>, world: &World) {
        for reader in self.readers.values_mut().filter(|reader| reader.drain == self.drain) {
            reader.tell_line_ends(to);
        }
        self.readers.retain(|&process, reader| world.runs(reader.pid, process));
        self.natives.retain(|&process, native| world.runs(native.pid, process));
    }

    /// Counts the lines that still wait.
    pub fn finish<W: Write>(&mut self, to: &mut CaptureWriter<W>) {
        for reader in self.readers.values_mut() {
            for _round in 0..LAST_ROUNDS {
                reader.v8.begin_drain();
                reader.tell_line_ends(to);
            }
        }
    }
}

impl Reader {
    fn new(v8: V8, pid: u32) -> Self {
        let (functions, scripts, interned) = (Vec::new(), Vec::new(), HashMap::new());
        Self { v8, pid, functions, scripts, drain: 0, interned, epoch: 0 }
    }

    /// The interned user stack of a sample; `frames` is for its work.
    fn intern<W: Write>(
        &mut self,
        to: &mut CaptureWriter<W>,
        world: &World,
        naming: &mut Naming,
        running: &Running,
        dump: &StackDump<'_>,
        frames: &mut Vec<Frame>,
    ) -> StackId {
        if std::mem::replace(&mut self.epoch, to.epoch()) != to.epoch() {
            self.interned.clear();
        }
        let resolved = self.v8.resolve(dump);
        let (key, ending) = (resolved.key, resolved.ending);
        if let Some(&stack) = self.interned.get(&key).filter(|_| resolved.known) {
            return stack;
        }
        let found = resolved.frames.to_vec();
        self.tell_new(to, running.index);
        self.translate(world, running, &found, frames);
        frames.extend(ends(ending));
        let stack = push_all(to, naming, StackId::default(), frames);
        self.interned.insert(key, stack);
        stack
    }

    /// The capture's frames for the reader's.
    fn translate(&self, world: &World, running: &Running, found: &[Found], to: &mut Vec<Frame>) {
        let ended = self.v8.is_gone();
        to.extend(found.iter().map(|&frame| match frame {
            Found::Code { address, call } => world.frame(running, address, call),
            Found::Builtin { function, address, call } => {
                let place = world.frame(running, address, call);
                if world.has_symbols(place) {
                    return place;
                }
                self.js(function, None, Tier::BUILTIN, false)
            }
            Found::Js { function, position, tier, inlined, .. } => {
                self.js(function, position, tier, inlined)
            }
            Found::Unknown { .. } if ended => Frame::Nameless(NoName::ENDED),
            Found::Unknown { why: Why::Contradiction, .. } => {
                Frame::Nameless(NoName::CONTRADICTION)
            }
            Found::Unknown { .. } => Frame::Nameless(NoName::MOVED),
            Found::Gap => Frame::Marker(Marker::GAP),
            Found::Later => Frame::Marker(Marker::READ_LATER),
        }));
    }

    fn js(&self, function: u32, position: Option<u32>, tier: Tier, inlined: bool) -> Frame {
        let Some(&function) = self.functions.get(function as usize) else {
            return Frame::Nameless(NoName::MOVED);
        };
        Frame::Js { function, position: plus_one(position), tier, inlined }
    }

    /// Puts functions and scripts that are new into the capture.
    fn tell_new<W: Write>(&mut self, to: &mut CaptureWriter<W>, process: u32) {
        for script in self.v8.new_scripts().1 {
            self.scripts.push(to.script(Script {
                process,
                name: script.name.clone(),
                source_url: script.source_url.clone(),
                source_map_url: script.source_map_url.clone(),
                line_offset: script.line_offset,
                column_offset: script.column_offset,
            }));
        }
        for function in self.v8.new_functions().1 {
            let script = function.script.and_then(|script| self.scripts.get(script as usize));
            self.functions.push(to.function(Function {
                script: plus_one(script.copied()),
                name: function.name.clone(),
                start: plus_one(function.start),
            }));
        }
    }

    fn tell_line_ends<W: Write>(&mut self, to: &mut CaptureWriter<W>) {
        for script in self.v8.end_drain() {
            let ends = self.v8.script(script).and_then(|script| script.line_ends.clone());
            if let (Some(&script), Some(ends)) = (self.scripts.get(script as usize), ends) {
                to.line_ends(LineEnds { script, ends });
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

/// The capture's form of something that may be absent: counted from 1, with 0 for nothing.
fn plus_one(number: Option<u32>) -> u32 {
    number.map_or(0, |number| number.saturating_add(1))
}

/// Callchains hold words that say whose addresses follow; they are no addresses.
fn is_kernel_code(word: u64) -> bool {
    (KERNEL_START..super::stacks::CONTEXT_MAX).contains(&word)
}
