//! JavaScript names of a running V8, read from outside: no flag, no restart, no pause of the target.
//!
//! A sample brings user registers and a piece of the stack; the names are in the target's heap and
//! are read with `process_vm_readv` a few milliseconds later, before the garbage collector has moved
//! much. [`image`] finds V8 in a mapped file, [`layout`] knows where things lie in its objects,
//! [`memory`] reads, [`heap`], [`strings`] and [`names`] understand objects, [`code`] finds code by
//! its address, [`positions`] decodes V8's tables, [`walk`] puts a stack together. Must not know
//! perf events, rings or the capture's writer.

pub mod code;
mod compiled;
pub mod frame;
pub mod heap;
pub mod image;
mod interpreted;
pub mod layout;
pub mod memory;
pub mod names;
pub mod positions;
pub mod regions;
pub mod rows;
mod stacks;
pub mod strings;
mod tail;
#[cfg(test)]
mod testing;
pub mod walk;

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use formats::procmaps::{MapsEntry, parse_maps};

use crate::process::objects::{self, Identity, Sighting};
use crate::process::procfs;
use crate::sys::errno_text;
use crate::sys::vm::VmError;
use crate::unwind::Unwinder;
use frame::{Ending, Frame, StackDump};
use heap::Heap;
use image::Image;
use layout::LayoutError;
use memory::{Memory, Process, ReadCounts};
use names::{Function, Script};
use regions::{Regions, V8File};
use walk::{Walked, Walker};

/// Source text read in one drain, bytes, to count lines.
const LINES_PER_DRAIN: usize = 8 << 20;
/// How old the list of mappings may get.
const MAPS_AGE: Duration = Duration::from_millis(1000);
/// How soon it may be read again when an address is in none of them: new code pages come often
/// while a program warms up.
const MAPS_RETRY: Duration = Duration::from_millis(5);

/// A process's V8 cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// Its mappings cannot be read.
    #[error("cannot read mappings of process {pid}: {cause}")]
    Maps {
        /// Process asked for.
        pid: u32,
        /// Why.
        cause: io::Error,
    },
    /// No file that it has mapped contains V8.
    #[error("cannot find V8 in process {pid}")]
    NoV8 {
        /// Process asked for.
        pid: u32,
    },
    /// V8 is there and cannot be read.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Its memory may not be read.
    #[error(transparent)]
    Memory(#[from] VmError),
}

/// A resolved stack.
#[derive(Debug)]
pub struct Resolved<'a> {
    /// Leaf first.
    pub frames: &'a [Frame],
    /// How the chain ended.
    pub ending: Ending,
    /// Equal for equal stacks of one drain, and for no others, of this or any other drain.
    pub key: u64,
    /// An equal stack had been resolved in this drain before.
    pub known: bool,
}

/// Reads the JavaScript stacks of one process.
#[derive(Debug)]
pub struct V8 {
    pid: u32,
    file: V8File,
    regions: Regions,
    looked: Instant,
    walker: Walker<Process>,
    frames: Vec<Frame>,
    told_functions: usize,
    told_scripts: usize,
}

impl V8 {
    /// Finds V8 in process `pid` and makes ready to read it.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach(pid: u32) -> Result<Self, AttachError> {
        let maps = read_maps(pid).map_err(|cause| AttachError::Maps { pid, cause })?;
        let mut seen: Vec<(u32, u32, u64)> = Vec::new();
        for entry in parse_maps(&maps).entries.iter().filter(|e| e.exec && e.is_file()) {
            let key = (entry.dev_major, entry.dev_minor, entry.inode);
            if seen.contains(&key) {
                continue;
            }
            seen.push(key);
            let Some(file) = open_mapped(pid, entry) else { continue };
            let Some(image) = Image::find(file)? else { continue };
            let file = V8File {
                device: (entry.dev_major, entry.dev_minor),
                inode: entry.inode,
                builtins: image.builtins.clone(),
            };
            return Self::with_image(pid, image, file, &maps);
        }
        Err(AttachError::NoV8 { pid })
    }

    /// For a file whose V8 is known already.
    ///
    /// # Errors
    /// [`AttachError::Memory`] when the process may not be read.
    pub fn with_image(
        pid: u32,
        image: Image,
        file: V8File,
        maps: &[u8],
    ) -> Result<Self, AttachError> {
        let mut memory = Process { pid: pid as i32 };
        // A place that is surely mapped: permission shows now, not as frames without names.
        let mut byte = [0u8; 1];
        let address = parse_maps(maps).entries.first().map_or(0, |entry| entry.start);
        memory.read(&mut [crate::sys::vm::RemoteRead::new(address, &mut byte)])?;
        let regions = Regions::new(pid, maps, &file);
        let walker = Walker::new(Heap::new(memory, image.layout));
        Ok(Self {
            pid,
            file,
            regions,
            looked: Instant::now(),
            walker,
            frames: Vec::new(),
            told_functions: 0,
            told_scripts: 0,
        })
    }

    /// V8's version.
    pub fn version(&self) -> layout::Version {
        self.walker.heap.layout.version
    }

    /// Shares the tables of another unwinder: a file's are then read once for all processes.
    pub fn unwind_with(&mut self, unwinder: &Unwinder) {
        self.walker.unwinder = unwinder.clone();
    }

    /// What finds the machine frames.
    pub fn unwinder(&self) -> &Unwinder {
        &self.walker.unwinder
    }

    /// Begins a drain: what is read from now on is the target's present state.
    pub fn begin_drain(&mut self) {
        self.walker.begin();
        if self.looked.elapsed() > MAPS_AGE {
            self.look_at_maps();
        }
    }

    /// Resolves one stack.
    pub fn resolve(&mut self, dump: &StackDump<'_>) -> Resolved<'_> {
        let mut walked = self.walker.walk(dump, &self.regions, &mut self.frames);
        if self.walker.strayed && self.looked.elapsed() > MAPS_RETRY {
            self.look_at_maps();
            walked = self.walker.walk(dump, &self.regions, &mut self.frames);
        }
        let Walked { ending, key, known } = walked;
        Resolved { frames: &self.frames, ending, key, known }
    }

    /// Ends a drain: counts the lines of new scripts. Names have been read before.
    pub fn end_drain(&mut self) -> Vec<u32> {
        self.walker.names.count_lines(&mut self.walker.heap, LINES_PER_DRAIN)
    }

    /// Functions that are new since the last call, with the index of the first.
    pub fn new_functions(&mut self) -> (usize, &[Function]) {
        let from = self.told_functions;
        let all = self.walker.names.functions();
        self.told_functions = all.len();
        (from, all.get(from..).unwrap_or_default())
    }

    /// Scripts that are new since the last call, with the index of the first.
    pub fn new_scripts(&mut self) -> (usize, &[Script]) {
        let from = self.told_scripts;
        let all = self.walker.names.scripts();
        self.told_scripts = all.len();
        (from, all.get(from..).unwrap_or_default())
    }

    /// A function by index.
    pub fn function(&self, index: u32) -> Option<&Function> {
        self.walker.names.functions().get(index as usize)
    }

    /// A script by index.
    pub fn script(&self, index: u32) -> Option<&Script> {
        self.walker.names.scripts().get(index as usize)
    }

    /// The target has ended.
    pub fn is_gone(&self) -> bool {
        self.walker.heap.pages.is_gone()
    }

    /// What reading has cost.
    pub fn counts(&self) -> ReadCounts {
        self.walker.heap.pages.counts()
    }

    /// The pages that this drain has read and the mappings, to look at a stack again elsewhere.
    pub fn snapshot(&self) -> (memory::Image, Regions) {
        (self.walker.heap.pages.snapshot(), self.regions.clone())
    }

    /// Code pages scanned, code objects that had gone, and forwarding pointers followed.
    pub fn code_counts(&self) -> (u64, u64, u64) {
        let codes = &self.walker.codes;
        (codes.scanned, codes.invalidated, self.walker.heap.forwarded)
    }

    fn look_at_maps(&mut self) {
        self.looked = Instant::now();
        if let Ok(maps) = read_maps(self.pid)
            && !maps.is_empty()
        {
            self.walker.forget_stacks();
            self.regions = Regions::new(self.pid, &maps, &self.file);
        }
    }
}

fn read_maps(pid: u32) -> io::Result<Vec<u8>> {
    procfs::read(&format!("/proc/{pid}/maps"))
}

/// Opens the file behind a mapping: the mapped one, not what has its name now.
fn open_mapped(pid: u32, entry: &MapsEntry<'_>) -> Option<File> {
    let path = entry.path.as_deref()?;
    let device = (entry.dev_major, entry.dev_minor);
    let identity = Identity { device, inode: entry.inode, path: path.to_vec() };
    objects::open_mapped(&identity, path, Sighting { pid, start: entry.start, end: entry.end })
}

/// The sentence for an attach error's cause, for people.
pub fn reason(error: &AttachError) -> String {
    match error {
        AttachError::Memory(VmError::Refused { errno, .. }) => errno_text(*errno),
        other => other.to_string(),
    }
}
