//! JavaScript names of a running V8, read from outside: no flag, no restart, no pause of the target.
//!
//! A sample brings user registers and a piece of the stack; the names are in the target's heap and
//! are read with `process_vm_readv` a few milliseconds later, before the garbage collector has moved
//! much. [`image`] finds V8 in a mapped file, [`layout`] knows where things lie in its objects,
//! [`memory`] reads, [`heap`], [`strings`] and [`names`] understand objects, [`code`] finds code by
//! its address, [`positions`] decodes V8's tables, [`walk`] puts a stack together. Must not know
//! perf events, rings or the capture's writer.

pub mod attach;
pub mod census;
pub mod code;
mod compiled;
pub mod denied;
pub mod engine;
mod exits;
pub mod frame;
pub mod generated;
pub mod heap;
pub mod image;
mod infer;
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

use std::time::{Duration, Instant};

use crate::unwind::Unwinder;
pub use attach::{AttachError, Found, look, reason};
use attach::{Located, read_maps};
use census::Census;
use frame::{Ending, Frame, StackDump, Why};
use generated::Copies;
pub use generated::Generated;
use heap::Heap;
use image::Image;
use layout::{Basis, CodeKind, Layout};
use memory::{Process, ReadCounts};
use names::{Function, Script};
use regions::{Kind, Regions, V8File};
use walk::{Walked, Walker};

/// Source text read in one drain, bytes, to count lines.
const LINES_PER_DRAIN: usize = 8 << 20;
/// How old the list of mappings may get.
const MAPS_AGE: Duration = Duration::from_millis(1000);
/// How soon it may be read again when an address is in none of them: new code pages come often
/// while a program warms up.
const MAPS_RETRY: Duration = Duration::from_millis(5);

/// Bytes of the heap that are looked through for scripts at attach: 20 to 60 ms.
const MAX_AHEAD: u64 = 128 << 20;
/// Last major version that copies its builtins instead of mapping them twice.
const LAST_COPYING: u32 = 10;

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
    /// The process had ended: its memory was read up to a second before.
    pub stale: bool,
}

/// Reads the JavaScript stacks of one process.
#[derive(Debug)]
pub struct V8 {
    pid: u32,
    found: Found,
    file: V8File,
    regions: Regions,
    looked: Instant,
    walker: Walker<Process>,
    frames: Vec<Frame>,
    copies: Copies,
    copies_looked: Option<Instant>,
    /// Functions that were named while the process ran.
    verified: usize,
    told_functions: usize,
    told_scripts: usize,
}

impl V8 {
    /// Finds V8 in process `pid` and makes ready to read it.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach(pid: u32) -> Result<Self, AttachError> {
        let Located { image, file, path, maps } = attach::locate(pid)?;
        let mut v8 = Self::with_image(pid, image, file, &maps)?;
        v8.found.file = path;
        Ok(v8)
    }

    /// For a file whose V8 is known already.
    ///
    /// # Errors
    /// [`AttachError::Denied`] or [`AttachError::Memory`] when the process may not be read,
    /// [`AttachError::Layout`] when its version is unknown and cannot be concluded.
    pub fn with_image(
        pid: u32,
        image: Image,
        file: V8File,
        maps: &[u8],
    ) -> Result<Self, AttachError> {
        attach::try_reading(pid, maps)?;
        let mut memory = Process { pid: pid.cast_signed() };
        // Reading the file may have taken a second, and the heap grows meanwhile.
        let now = read_maps(pid).unwrap_or_default();
        let maps = if now.is_empty() { maps } else { &now };
        let parts = census::parts(pid, maps);
        let version = image.symbols.version;
        let (layout, basis) = match image.layout {
            Some(layout) => (layout, Basis::Table),
            None => infer::layout(memory, &image.symbols, &rows::ROWS, &parts)?,
        };
        let types = layout.types;
        let census = Census::take(&mut memory, &parts, MAX_AHEAD, types.map, &[types.script]);
        let regions = Regions::new(pid, maps, &file);
        let mut walker = Walker::new(Heap::new(memory, layout));
        walker.names.expect_scripts(census.of(types.script));
        Ok(Self {
            pid,
            found: Found { version, file: Vec::new(), basis },
            file,
            regions,
            looked: Instant::now(),
            walker,
            frames: Vec::new(),
            copies: Copies::default(),
            copies_looked: None,
            verified: 0,
            told_functions: 0,
            told_scripts: 0,
        })
    }

    /// Concludes the layout as if the table had only the rows that `allow` picks, for a comparison
    /// with the version's own.
    ///
    /// # Errors
    /// [`AttachError::Layout`] when it cannot be concluded.
    pub fn conclude_layout(
        pid: u32,
        allow: impl Fn(&rows::Row) -> bool,
    ) -> Result<(Layout, Basis), AttachError> {
        let Located { image, maps, .. } = attach::locate(pid)?;
        let others: Vec<rows::Row> = rows::ROWS.into_iter().filter(allow).collect();
        let memory = Process { pid: pid.cast_signed() };
        Ok(infer::layout(memory, &image.symbols, &others, &census::parts(pid, &maps))?)
    }

    /// What was found at attach.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// Where things lie in this V8's objects.
    pub fn layout(&self) -> &Layout {
        &self.walker.heap.layout
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
        let stale = self.is_gone();
        if stale {
            self.without_process();
        } else {
            self.verified = self.walker.names.functions().len();
        }
        Resolved { frames: &self.frames, ending, key, known, stale }
    }

    /// The process has ended: no function counts that was not known while it ran.
    fn without_process(&mut self) {
        for frame in &mut self.frames {
            let gone = |address, call| Frame::Unknown { address, call, why: Why::Gone };
            match *frame {
                Frame::Unknown { address, call, .. } => *frame = gone(address, call),
                Frame::Js { function, pc, .. } if function as usize >= self.verified => {
                    *frame = gone(pc, false);
                }
                Frame::Code { address, call }
                    if self.regions.kind(address.wrapping_sub(u64::from(call)))
                        == Some(Kind::Jit)
                        && !self.copies.in_module(address)
                        && self.copies.offset(address).is_none() =>
                {
                    *frame = gone(address, call);
                }
                _ => {}
            }
        }
    }

    /// What the code at an address is that belongs to no file and no JavaScript function; to be
    /// asked in the drain that met the address. `None` when that cannot be told.
    pub fn generated(&mut self, address: u64) -> Option<Generated> {
        if self.regions.kind(address) != Some(Kind::Jit) {
            return None;
        }
        if let Some(copy) = self.in_copy(address) {
            return Some(copy);
        }
        let walker = &mut self.walker;
        let drain = walker.drain;
        let code = walker.codes.find(&mut walker.heap, &mut walker.names, address, drain);
        if let Some(code) = code {
            let layout = &walker.heap.layout;
            return match code.kind {
                CodeKind::Other if layout.is_regexp(code.flags) => Some(Generated::RegExp),
                CodeKind::Other if layout.is_wasm(code.flags) => Some(Generated::WebAssembly),
                CodeKind::Other | CodeKind::Builtin => Some(Generated::Stub),
                CodeKind::Baseline | CodeKind::Maglev | CodeKind::Turbofan => None,
            };
        }
        if self.copies_looked.is_some_and(|looked| looked.elapsed() <= MAPS_RETRY * 20) {
            return None;
        }
        self.copies_looked = Some(Instant::now());
        let maps = read_maps(self.pid).ok()?;
        let builtins = self.file.builtins.as_ref().filter(|_| self.version().major <= LAST_COPYING);
        let (inode, device) = (self.file.inode, self.file.device);
        let original = builtins.and_then(|it| generated::mapped(&maps, inode, device, it));
        let mut memory = Process { pid: self.pid.cast_signed() };
        self.copies.search(&mut memory, &maps, original.as_ref());
        self.in_copy(address)
    }

    /// Whether an address is in executable memory that belongs to no file.
    pub fn in_made_code(&self, address: u64) -> bool {
        self.regions.kind(address) == Some(Kind::Jit)
    }

    fn in_copy(&self, address: u64) -> Option<Generated> {
        if self.copies.in_module(address) {
            return Some(Generated::WebAssembly);
        }
        let offset = self.copies.offset(address)?;
        let start = self.file.builtins.as_ref()?.start;
        Some(Generated::BuiltinCopy { file_offset: start + offset })
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

    /// Line ends of a script, once: they are told and need not be kept.
    pub fn take_line_ends(&mut self, script: u32) -> Option<Vec<u32>> {
        self.walker.names.take_line_ends(script)
    }

    /// Bytes of names that are kept, roughly.
    pub fn size(&self) -> usize {
        self.walker.names.size()
    }

    /// The process runs another program now, or none: what is left of its samples is named by what was
    /// read before.
    pub fn give_up(&mut self) {
        self.walker.heap.pages.give_up();
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
