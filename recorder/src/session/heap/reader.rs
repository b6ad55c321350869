//! One process's V8 reader, and what it learns on its way into the capture: scripts, functions, line
//! ends, and the frames of its stacks in the capture's form.

use std::collections::HashMap;
use std::io::Write;
use std::time::Instant;

use formats::capture::{
    CaptureWriter, Frame, Function, LineEnds, Marker, NoName, Script, StackId, Tier,
};

use super::super::naming::Naming;
use super::super::world::{Running, World};
use super::{ends, push_all};
use crate::unwind::StackDump;
use crate::v8::frame::{Frame as Found, Why};
use crate::v8::{Generated, V8};

/// A process whose JavaScript can be read.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) v8: V8,
    pub(super) pid: u32,
    /// Object that contains V8.
    object: u32,
    /// Capture's index of each of the reader's functions.
    functions: Vec<u32>,
    /// Capture's index of each of the reader's scripts.
    scripts: Vec<u32>,
    /// Functions that stand for code which is no function's, by what it is.
    generated: HashMap<&'static str, u32>,
    /// The drain for which memory was last read afresh.
    pub(super) drain: u64,
    /// Since when the process has ended.
    pub(super) ended: Option<Instant>,
    /// Stacks of a process that had ended, named by what was known until then.
    pub(super) after_end: u64,
    /// Interned stacks of this drain, by the reader's key, and the epoch they belong to.
    interned: HashMap<u64, StackId>,
    epoch: u32,
}

impl Reader {
    pub(super) fn new(v8: V8, pid: u32, object: u32) -> Self {
        Self {
            v8,
            pid,
            object,
            functions: Vec::new(),
            scripts: Vec::new(),
            generated: HashMap::new(),
            drain: 0,
            ended: None,
            after_end: 0,
            interned: HashMap::new(),
            epoch: 0,
        }
    }

    /// A drain has begun: memory is read afresh, once.
    pub(super) fn begin_drain(&mut self, drain: u64) {
        if std::mem::replace(&mut self.drain, drain) != drain {
            self.v8.begin_drain();
            self.interned.clear();
        }
    }

    /// The interned user stack of a sample; `frames` is for its work.
    pub(super) fn intern<W: Write>(
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
        self.after_end += u64::from(resolved.stale);
        if let Some(&stack) = self.interned.get(&key).filter(|_| resolved.known) {
            return stack;
        }
        let found = resolved.frames.to_vec();
        self.tell_new(to, running.index);
        for frame in found {
            let frame = self.translate(to, world, running, frame);
            frames.push(frame);
        }
        frames.extend(ends(ending));
        let stack = push_all(to, naming, StackId::default(), frames);
        self.interned.insert(key, stack);
        stack
    }

    /// The capture's frame for one of the reader's.
    fn translate<W: Write>(
        &mut self,
        to: &mut CaptureWriter<W>,
        world: &World,
        running: &Running,
        frame: Found,
    ) -> Frame {
        match frame {
            Found::Code { address, call } => match world.frame(running, address, call) {
                Frame::Jit { .. } => self.made(to, world, running, address, call),
                place => place,
            },
            Found::Builtin { function, address, call } => {
                match world.frame(running, address, call) {
                    place if world.has_symbols(place) => place,
                    _ => self.js(function, None, Tier::BUILTIN, false),
                }
            }
            Found::Js { function, position, tier, inlined, .. } => {
                self.js(function, position, tier, inlined)
            }
            Found::Unknown { why, .. } => Frame::Nameless(match why {
                Why::Gone => NoName::ENDED,
                Why::Contradiction => NoName::CONTRADICTION,
                Why::Function | Why::Code | Why::Name => NoName::MOVED,
            }),
            Found::Gap => Frame::Marker(Marker::GAP),
            Found::Later => Frame::Marker(Marker::READ_LATER),
        }
    }

    /// Code that V8 made for something else than a function.
    fn made<W: Write>(
        &mut self,
        to: &mut CaptureWriter<W>,
        world: &World,
        running: &Running,
        address: u64,
        call: bool,
    ) -> Frame {
        let name = match self.v8.generated(address.wrapping_sub(u64::from(call))) {
            Some(Generated::BuiltinCopy { file_offset }) => {
                let offset = file_offset.wrapping_add(u64::from(call));
                return Frame::Native { object: self.object, offset, call };
            }
            Some(Generated::RegExp) => "RegExp",
            Some(Generated::WebAssembly) => "WebAssembly",
            Some(Generated::Stub) => "V8 stub",
            None => return world.frame(running, address, call),
        };
        let function = *self
            .generated
            .entry(name)
            .or_insert_with(|| to.function(Function { name: name.into(), ..Function::default() }));
        Frame::Js { function, position: 0, tier: Tier::GENERATED, inlined: false }
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

    /// Tells the line ends of scripts whose text has been read.
    pub(super) fn tell_line_ends<W: Write>(&mut self, to: &mut CaptureWriter<W>) {
        for script in self.v8.end_drain() {
            let ends = self.v8.take_line_ends(script);
            if let (Some(&script), Some(ends)) = (self.scripts.get(script as usize), ends) {
                to.line_ends(LineEnds { script, ends });
            }
        }
    }
}

/// The capture's form of something that may be absent: counted from 1, with 0 for nothing.
fn plus_one(number: Option<u32>) -> u32 {
    number.map_or(0, |number| number.saturating_add(1))
}
