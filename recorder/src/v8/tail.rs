//! The outer end of a stack that is longer than what the kernel copied.
//!
//! libuv's loop keeps 12 KiB of events on its stack (uv__io_poll), so that of a server's stacks the
//! last frames, from the loop to `main`, often lie behind the copy. They stay as they are while the
//! loop runs, and are read when the stack is resolved. What is not native code of a file up to
//! the thread's start is not believed: JavaScript frames change from one millisecond to the next.

use std::collections::HashMap;
use std::rc::Rc;

use foldhash::fast::RandomState;

use super::frame::{Ending, Frame, Registers, StackDump};
use super::memory::Memory;
use super::regions::{Kind, Regions};
use super::walk::Walker;
use crate::unwind::MachineFrame;

/// Bytes read of the stack's outer end. From the loop to the thread's start there are about 2 KiB.
const MAX_BYTES: usize = 32 << 10;

/// Tails that this drain has read, by the frame pointer they begin with; absent where there is none
/// that can be believed.
pub(super) type Tails = HashMap<u64, Option<Rc<[Frame]>>, RandomState>;

impl<M: Memory> Walker<M> {
    /// The frames outwards of `last`, the outermost frame in the copy.
    pub(super) fn tail(
        &mut self,
        dump: &StackDump<'_>,
        regions: &Regions,
        last: &MachineFrame,
    ) -> Option<Rc<[Frame]>> {
        if let Some(known) = self.tails.get(&last.bp) {
            return known.clone();
        }
        let tail = self.read_tail(dump, regions, last).map(Rc::from);
        self.tails.insert(last.bp, tail.clone());
        tail
    }

    fn read_tail(
        &mut self,
        dump: &StackDump<'_>,
        regions: &Regions,
        last: &MachineFrame,
    ) -> Option<Vec<Frame>> {
        let bp = last.bp;
        if bp < last.sp || !bp.is_multiple_of(8) {
            return None;
        }
        let mut word = |address: u64| dump.word(address).or_else(|| self.heap.pages.u64(address));
        let (saved, caller) = (word(bp)?, word(bp.checked_add(8)?)?);
        let sp = bp.checked_add(16)?;
        let stack = self.heap.pages.bytes_as_far_as_mapped(sp, MAX_BYTES);
        let registers = Registers { ip: caller, sp, bp: saved, ..Registers::default() };
        let rest = StackDump { registers, stack: &stack, at_entry: false };
        let mut machine = Vec::new();
        let unwound = self.unwinder.unwind(&rest, regions.mappings(), &mut machine);
        let native = |frame: &MachineFrame| regions.kind(frame.pc()) == Some(Kind::File);
        let believed = unwound.ending == Ending::Complete && machine.iter().all(native);
        let code = |frame: MachineFrame| Frame::Code { address: frame.ip, call: true };
        believed.then(|| machine.into_iter().map(code).collect())
    }
}
