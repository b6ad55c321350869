//! The outer end of a stack that is longer than what the kernel copied.
//!
//! libuv's loop keeps 12 KiB of events on its stack (uv__io_poll), so that of a server's stacks the
//! last frames, from the loop to `main`, often lie behind the copy. They stay as they are while the
//! loop runs, and are read when the stack is resolved. What is not native code of a file up to
//! the thread's start is not believed: JavaScript frames change from one millisecond to the next.

use std::collections::HashMap;
use std::rc::Rc;

use foldhash::fast::RandomState;

use super::frame::{Frame, StackDump};
use super::memory::Memory;
use super::regions::{Kind, Regions};
use super::walk::Walker;
use crate::unwind::MachineFrame;

/// Frames of a tail at most; from the loop to `main` there are about ten.
const MAX_FRAMES: usize = 64;
/// Nothing is mapped below (vm.mmap_min_addr is at least a page): the thread's start code leaves 0
/// or 1 in the frame pointer.
const NO_ADDRESS: u64 = 4096;

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
        let mut frames = Vec::new();
        let (mut bp, mut below) = (last.bp, last.sp);
        while bp >= NO_ADDRESS {
            if bp < below || !bp.is_multiple_of(8) || frames.len() >= MAX_FRAMES {
                return None;
            }
            let mut word =
                |address: u64| dump.word(address).or_else(|| self.heap.pages.u64(address));
            let (saved, caller) = (word(bp)?, word(bp.checked_add(8)?)?);
            if regions.kind(caller.wrapping_sub(1)) != Some(Kind::File) {
                return None;
            }
            frames.push(Frame::Code { address: caller, call: true });
            (below, bp) = (bp.saturating_add(16), saved);
        }
        (!frames.is_empty()).then_some(frames)
    }
}
