//! Where compiled code is left for good: its deoptimisation exits, behind its last instruction.
//!
//! When what optimised code relied on no longer holds while the code is on the stack, V8 overwrites
//! the return address into it with that of an exit (Deoptimizer::DeoptimizeMarkedCode). The exits
//! have no places in the source; the deoptimisation data tell what return address each stands for.
//! Formats: V8's src/objects/deoptimization-data.h (code.h up to V8 11), src/deoptimizer/.

use super::heap::{Heap, pointer, smi};
use super::memory::Memory;

/// Words of the deoptimisation data from the inlining positions on: these, where the exits begin,
/// the numbers of eager and of lazy exits, then three words for each exit.
const EXIT_START: u64 = 1;
const EAGER_COUNT: u64 = 2;
const LAZY_COUNT: u64 = 3;
const FIRST_ENTRY: u64 = 4;
const ENTRY_WORDS: u64 = 3;
/// Of an entry: bytecode offset, in the function or in one inlined into it.
const ENTRY_BYTECODE: u64 = 0;
/// Of an entry: offset of the return address that a lazy exit stands for, or of Maglev's exit.
const ENTRY_PC: u64 = 2;
/// Exits of one code object at most; V8's own functions of 1000 lines have some hundreds.
const MAX_EXITS: u64 = 1 << 16;

/// Bytes of code that tell the size of an exit.
pub(super) const EXIT_BYTES: usize = 8;

/// The exits of one code object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Exits {
    /// Offset of the first from the first instruction, bytes.
    start: u64,
    /// Number of exits that come before those of return addresses.
    eager: u64,
    /// What return addresses the others stand for, as offsets; -1 where it is none. Maglev does not
    /// tell: then it is where the exits are.
    returns: Vec<i32>,
    /// Where in the bytecode of the function, or of one inlined into it, each of the others leads.
    bytecodes: Vec<i32>,
    maglev: bool,
}

impl Exits {
    /// The exits that deoptimisation data tell of.
    pub(super) fn read<M: Memory>(heap: &mut Heap<M>, deopt: u64, maglev: bool) -> Option<Self> {
        let deopt = pointer(deopt)?;
        let inlining = heap.layout.row.deopt_inlining;
        let number = |heap: &mut Heap<M>, index| {
            u64::try_from(smi(heap.element(deopt, inlining + index)?)?).ok()
        };
        let start = number(heap, EXIT_START)?;
        let eager = number(heap, EAGER_COUNT)?;
        let lazy = number(heap, LAZY_COUNT)?;
        if start == 0 || eager.max(lazy) > MAX_EXITS {
            return None;
        }
        let mut column = |word: u64| {
            let at = |index: u64| inlining + FIRST_ENTRY + index * ENTRY_WORDS + word;
            let entry = |index| heap.element(deopt, at(index)).and_then(smi).unwrap_or(-1);
            (eager..eager + lazy).map(entry).collect()
        };
        let (returns, bytecodes) = (column(ENTRY_PC), column(ENTRY_BYTECODE));
        Some(Self { start, eager, returns, bytecodes, maglev })
    }

    /// Whether the return address at `offset` is one of an exit.
    pub(super) fn contain(&self, offset: u64) -> bool {
        // A call may end where an eager exit begins, and none leads to that.
        let first = self.start + u64::from(self.eager > 0);
        self.start > 0 && offset >= first && !self.replace(offset)
    }

    /// Whether there is an exit for the return address at `offset`: then a call ends there, even
    /// where V8 has overwritten the code since (V8 14.6 does, with INT3).
    pub(super) fn replace(&self, offset: u64) -> bool {
        !self.maglev && self.index(offset).is_some()
    }

    fn index(&self, offset: u64) -> Option<usize> {
        let offset = i32::try_from(offset).ok()?;
        self.returns.iter().position(|&at| at == offset)
    }

    /// The bytecode offset to which Maglev's exit at `offset` leads.
    pub(super) fn bytecode(&self, offset: u64) -> Option<i32> {
        self.bytecodes.get(self.index(offset).filter(|_| self.maglev)?).copied()
    }

    /// The return address that the one at `offset` has replaced; `code` is what lies there.
    pub(super) fn replaced(&self, offset: u64, code: &[u8; EXIT_BYTES]) -> Option<u64> {
        let (eager, lazy) = sizes(code).filter(|_| !self.maglev)?;
        let first = self.start.checked_add(self.eager.checked_mul(eager)?)?;
        let behind = offset.checked_sub(first)?;
        if !behind.is_multiple_of(lazy) {
            return None;
        }
        let at = *self.returns.get(usize::try_from(behind / lazy).ok()?)?;
        // Zero is the entry, where nothing returns to.
        u64::try_from(at).ok().filter(|&at| at > 0 && at <= self.start)
    }
}

/// Bytes of an eager and of a lazy exit: a call through r13, V8's root register, or a plain one; with
/// Intel CET a lazy one begins with ENDBR64 (Intel SDM, volume 2).
fn sizes(code: &[u8; EXIT_BYTES]) -> Option<(u64, u64)> {
    let (marker, call) = match code {
        [0xf3, 0x0f, 0x1e, 0xfa, call @ ..] => (4, call.as_slice()),
        call => (0, call.as_slice()),
    };
    let size = match call {
        [0x41, 0xff, 0x55, ..] => 4,
        [0x41, 0xff, 0x95, ..] => 7,
        [0xe8, ..] => 5,
        _ => return None,
    };
    Some((size, marker + size))
}

#[cfg(test)]
mod tests {
    use super::super::testing::HeapImage;
    use super::*;

    const SHORT: [u8; EXIT_BYTES] = [0x41, 0xff, 0x55, 0x10, 0x41, 0xff, 0x55, 0x18];
    const LONG: [u8; EXIT_BYTES] = [0x41, 0xff, 0x95, 0, 1, 0, 0, 0x41];
    const MARKED: [u8; EXIT_BYTES] = [0xf3, 0x0f, 0x1e, 0xfa, 0x41, 0xff, 0x55, 0x18];

    /// Data with two eager exits and three lazy ones, the last of no return address.
    fn data(image: &mut HeapImage) -> u64 {
        let pcs = [-1, -1, 40, 90, -1];
        let entries = pcs.into_iter().flat_map(|pc| [7, 8, pc]);
        let numbers = [0, 0, 0, 0, 0, 0, 0, 0, 120, 2, 3].into_iter().chain(entries);
        let words: Vec<u64> = numbers.map(|number: i64| (number as u64) << 32).collect();
        let length = (words.len() as u64) << 32;
        image.object(180, &[&[length], &words[..]].concat())
    }

    #[test]
    fn an_exit_stands_for_a_return_address() {
        let mut image = HeapImage::new();
        let data = data(&mut image);
        let mut heap = image.heap();
        let exits = Exits::read(&mut heap, data, false).unwrap();
        assert_eq!([40, 41, 90].map(|at| exits.replace(at)), [true, false, true]);
        assert_eq!([40, 120, 124, 128].map(|at| exits.contain(at)), [false, false, true, true]);
        let short = [128, 132, 136, 140, 124, 130].map(|at| exits.replaced(at, &SHORT));
        assert_eq!(short, [Some(40), Some(90), None, None, None, None]);
        assert_eq!([134, 141].map(|at| exits.replaced(at, &LONG)), [Some(40), Some(90)]);
        assert_eq!([128, 136].map(|at| exits.replaced(at, &MARKED)), [Some(40), Some(90)]);
        assert_eq!(exits.replaced(128, &[0x90; EXIT_BYTES]), None);
        assert_eq!(exits.bytecode(40), None);
        let maglev = Exits::read(&mut heap, data, true).unwrap();
        assert_eq!([40, 41].map(|at| maglev.bytecode(at)), [Some(7), None]);
        assert_eq!((maglev.replace(40), maglev.replaced(128, &SHORT)), (false, None));
    }

    #[test]
    fn data_that_make_no_sense_have_no_exits() {
        let mut image = HeapImage::new();
        let data = data(&mut image);
        image.set(data, 16 + 8 * 10, (1 << 20) << 32);
        let mut heap = image.heap();
        assert_eq!(Exits::read(&mut heap, data, false), None);
        assert_eq!(Exits::read(&mut heap, 8, false), None);
        assert!(!Exits::default().contain(1 << 40));
    }
}
