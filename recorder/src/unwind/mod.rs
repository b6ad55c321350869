//! From a dumped user stack to machine frames.
//!
//! In code of files by `.eh_frame`: distributions build libc, OpenSSL and libuv without frame
//! pointers. Where that says nothing (code made at run time, V8's builtins, assembly) by frame
//! pointer. Every step goes upwards and ends in mapped code, so no stack is endless. Where the
//! chain is lost, the next place is taken from which it goes on for several steps, and marked.
//!
//! gimli reads the tables and not framehop, which keeps no rule for a *place in a file* but for an
//! address, and forgets all of them when a mapping comes or goes, which is every few milliseconds
//! while V8 warms up; and which evaluates expressions without a bound. Must not know V8.

mod dump;
mod files;
mod mappings;
mod rule;
mod table;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;

pub use dump::{Ending, MachineFrame, REGISTERS, Registers, StackDump};
use files::Files;
pub use mappings::Mappings;
use rule::{State, Stop, read};

/// Machine frames of one stack at most: a 64 KiB dump has room for 4096 of 16 bytes.
const MAX_FRAMES: usize = 4096;
/// Places that are looked for in the tables for one stack; what is known already does not count.
const MAX_COLD: usize = 256;
/// Bytes of a frame in which its return address is searched for.
const MAX_FRAME: u64 = 8 << 10;
/// Words that are tried as return address for one lost chain.
const MAX_CANDIDATES: usize = 32;
/// Steps that must succeed from there.
const ENOUGH: usize = 4;
/// Nothing is mapped below (vm.mmap_min_addr is at least a page).
const NO_ADDRESS: u64 = 4096;

/// Finds the callers in dumped stacks. Clones share the tables.
#[derive(Debug, Clone)]
pub struct Unwinder {
    files: Rc<RefCell<Files>>,
}

/// How an unwinding went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unwound {
    /// How the chain ended; broken when frames are missing inside, too.
    pub ending: Ending,
    /// What should be a return address was in no known mapping: there may be new ones.
    pub strayed: bool,
}

impl Default for Unwinder {
    fn default() -> Self {
        Self::new()
    }
}

impl Unwinder {
    /// Without any table yet.
    pub fn new() -> Self {
        Self { files: Rc::new(RefCell::new(Files::new())) }
    }

    /// Files whose tables have been read, and the bytes that they take.
    pub fn size(&self) -> (usize, u64) {
        self.files.borrow().size()
    }

    /// Unwinds one stack into `frames`, leaf first.
    pub fn unwind(
        &self,
        dump: &StackDump<'_>,
        mappings: &Mappings,
        frames: &mut Vec<MachineFrame>,
    ) -> Unwound {
        frames.clear();
        let mut files = self.files.borrow_mut();
        let mut walk =
            Walk { dump, mappings, files: &mut files, cold: MAX_COLD, near: 0, strayed: false };
        let ending = walk.run(frames);
        Unwound { ending, strayed: walk.strayed }
    }
}

/// One unwinding.
struct Walk<'a, 'b> {
    dump: &'a StackDump<'b>,
    mappings: &'a Mappings,
    files: &'a mut Files,
    cold: usize,
    /// The mapping that was found last.
    near: usize,
    strayed: bool,
}

impl Walk<'_, '_> {
    fn run(&mut self, frames: &mut Vec<MachineFrame>) -> Ending {
        let dump = self.dump;
        let mut state = State::sampled(&dump.registers);
        self.strayed = !self.is_code(state.ip);
        let mut after_gap = false;
        let mut lost = false;
        if dump.at_entry
            && let Some(caller) = dump.word(dump.registers.sp)
        {
            frames.push(frame(&state, false));
            state.ip = caller;
            state.call = true;
            state.sp = state.sp.saturating_add(8);
            self.strayed |= !self.is_code(caller.wrapping_sub(1));
        }
        while frames.len() < MAX_FRAMES {
            frames.push(frame(&state, after_gap));
            after_gap = false;
            state = match self.step(&state) {
                Ok(next) => next,
                Err(_) if lost => return Ending::Broken,
                Err(Stop::Start) => return Ending::Complete,
                Err(Stop::Truncated) => return Ending::Truncated,
                Err(_) => {
                    let found = self.search(&state).or_else(|| self.recover(&state));
                    let Some(next) = found else { return Ending::Broken };
                    (lost, after_gap) = (true, true);
                    next
                }
            };
            while let Some(next) = self.behind_return_probe(&state) {
                (state, after_gap) = (next, true);
            }
        }
        Ending::Broken
    }

    /// The caller of a frame.
    fn step(&mut self, state: &State) -> Result<State, Stop> {
        let pc = state.ip.wrapping_sub(u64::from(state.call));
        let unusable = match self.by_table(state, pc) {
            Ok(Some(next)) => return self.check(state, next),
            Ok(None) => false,
            Err(Stop::Unusable) => true,
            Err(stop) => return Err(stop),
        };
        let Some(bp) = state.bp() else { return Err(Stop::Broken) };
        // A thread's first frames have 0 there, or what is small; in the innermost it may be data.
        let least = if state.call { NO_ADDRESS } else { 1 };
        if bp < least && !unusable {
            return Err(Stop::Start);
        }
        if bp < state.sp || !bp.is_multiple_of(8) {
            return Err(Stop::Broken);
        }
        let next = by_frame_pointer(self.dump, bp)?;
        if next.ip == 0 && next.bp() == Some(0) && !unusable {
            return Err(Stop::Start);
        }
        let next = self.check(state, next)?;
        // Code without frame pointers has anything there, but then it has a table.
        let upwards = next.bp().is_some_and(|outer| outer > bp || outer < NO_ADDRESS);
        if upwards || matches!(self.by_table(&next, next.ip.wrapping_sub(1)), Ok(Some(_))) {
            Ok(next)
        } else {
            Err(Stop::Broken)
        }
    }

    /// What the file's tables say; `None` when they say nothing.
    fn by_table(&mut self, state: &State, pc: u64) -> Result<Option<State>, Stop> {
        let Some(index) = self.mappings.find(pc, self.near) else { return Ok(None) };
        self.near = index;
        let Some(mapping) = self.mappings.get(index) else { return Ok(None) };
        let rule = self.files.rule(self.mappings, mapping, pc, &mut self.cold);
        let Some((rule, section)) = rule else { return Ok(None) };
        rule.apply(state, self.dump, section).map(Some)
    }

    fn is_code(&mut self, address: u64) -> bool {
        let found = self.mappings.find(address, self.near);
        self.near = found.unwrap_or(self.near);
        found.is_some()
    }

    /// Frames only go upwards and are in code.
    fn check(&mut self, state: &State, next: State) -> Result<State, Stop> {
        if next.sp <= state.sp {
            return Err(Stop::Broken);
        }
        let is_code = self.is_code(next.ip.wrapping_sub(u64::from(next.call)));
        if !is_code && !self.mappings.is_return_probe(next.ip) {
            self.strayed = true;
            return Err(Stop::Broken);
        }
        Ok(next)
    }

    /// Where a return address is that of the kernel's code for return probes, the frame pointer still
    /// is the caller's: it leads to the caller's caller. Who the caller is, only the kernel knows.
    fn behind_return_probe(&mut self, state: &State) -> Option<State> {
        if !state.call || !self.mappings.is_return_probe(state.ip) {
            return None;
        }
        let bp = state.bp().filter(|&bp| bp >= state.sp && bp.is_multiple_of(8))?;
        self.check(state, by_frame_pointer(self.dump, bp).ok()?).ok()
    }

    /// Where the frame ends is not known, but what it saves there is: the next place upwards from
    /// which further steps succeed. OpenSSL's assembly keeps the place below the stack pointer, which
    /// is not copied, or in a register that it uses for something else, too.
    fn search(&mut self, state: &State) -> Option<State> {
        let Self { dump, mappings, near, .. } = *self;
        let pc = state.ip.wrapping_sub(u64::from(state.call));
        let mapping = mappings.get(mappings.find(pc, near)?)?;
        let (rule, section) = self.files.rule(mappings, mapping, pc, &mut self.cold)?;
        let first = state.sp.checked_next_multiple_of(8)?;
        let returns = (first..dump.end().min(first.saturating_add(MAX_FRAME))).step_by(8);
        let candidates: Vec<State> = returns
            .filter(|&at| {
                let caller = dump.word(at).and_then(|word| word.checked_sub(1));
                caller.is_some_and(|caller| mappings.find(caller, near).is_some())
            })
            .filter_map(|at| rule.apply_at(at.checked_add(8)?, state, dump, section).ok())
            .take(MAX_CANDIDATES)
            .collect();
        let strayed = self.strayed;
        let found = candidates.into_iter().find(|candidate| self.leads(*candidate));
        self.strayed = strayed;
        found
    }

    /// Whether a chain goes on from here.
    fn leads(&mut self, mut state: State) -> bool {
        for steps in 0..ENOUGH {
            state = match self.step(&state) {
                Ok(next) => next,
                Err(stop) => return stop == Stop::Start && steps > 0,
            };
        }
        true
    }

    /// The next place upwards where two saved frame pointers and return addresses hang together and
    /// a chain goes on: what earlier calls have left on the stack looks like frames, too.
    fn recover(&mut self, state: &State) -> Option<State> {
        let Self { dump, mappings, near, strayed, .. } = *self;
        let link = |at: u64| {
            let next = by_frame_pointer(dump, at).ok()?;
            let bp = next.bp().filter(|bp| *bp > at && bp.is_multiple_of(8))?;
            mappings.find(next.ip.wrapping_sub(1), near)?;
            Some((next, bp))
        };
        let first = state.sp.checked_next_multiple_of(8)?;
        let links = (first..dump.end()).step_by(8).filter_map(|at| {
            let (next, bp) = link(at)?;
            link(bp).map(|_| next)
        });
        let candidates: Vec<State> = links.take(MAX_CANDIDATES).collect();
        let found = candidates.into_iter().find(|candidate| self.leads(*candidate));
        self.strayed = strayed;
        found
    }
}

/// The frame that `push rbp; mov rbp, rsp` makes.
fn by_frame_pointer(dump: &StackDump<'_>, bp: u64) -> Result<State, Stop> {
    let saved = read(dump, bp)?;
    let ip = read(dump, bp.checked_add(8).ok_or(Stop::Broken)?)?;
    Ok(State::by_frame_pointer(ip, bp.checked_add(16).ok_or(Stop::Broken)?, saved))
}

fn frame(state: &State, after_gap: bool) -> MachineFrame {
    let State { ip, sp, call, .. } = *state;
    MachineFrame { ip, sp, bp: state.bp().unwrap_or(0), call, after_gap }
}
