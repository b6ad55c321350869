//! V8's heap objects, read from outside: typed by their map, never trusted.
//!
//! A tagged value is a pointer when its low bits are 01 (11: weak) and a Smi when bit 0 is 0; the
//! field at offset n of a pointer p is at p - 1 + n. An object counts as what its map says only
//! when the map itself is a map. Everything is bounded: the target writes while we read.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::layout::{ARRAY_DATA, ARRAY_LENGTH, Layout, MAP_TYPE};
use super::memory::{Memory, Pages};

/// Forwarding pointers followed in a row. An object moves once in a scavenge, and old copies are
/// soon overwritten.
const MAX_FORWARD: usize = 3;
/// Longest fixed array that is believed, elements: script lists of large bundles have 100 000.
const MAX_ARRAY: u64 = 1 << 20;

/// A tagged value that is a pointer: the pointer, its weak bit cleared.
pub fn pointer(word: u64) -> Option<u64> {
    (word & 1 == 1).then_some(word & !2)
}

/// A tagged value that is a Smi: its value.
pub fn smi(word: u64) -> Option<i32> {
    // The lower half of a Smi is zero without pointer compression.
    (word & 0xffff_ffff == 0).then_some((word >> 32) as u32 as i32)
}

/// Reads objects of one process for the length of a drain.
#[derive(Debug)]
pub struct Heap<M> {
    /// The bytes.
    pub pages: Pages<M>,
    /// Where things lie.
    pub layout: Layout,
    map_types: HashMap<u64, Option<u16>, RandomState>,
    /// Objects found through a forwarding pointer.
    pub forwarded: u64,
}

impl<M: Memory> Heap<M> {
    /// A reader of `memory`.
    pub fn new(memory: M, layout: Layout) -> Self {
        Self { pages: Pages::new(memory), layout, map_types: HashMap::default(), forwarded: 0 }
    }

    /// A new drain: nothing that was read before holds any more.
    pub fn begin(&mut self) {
        self.pages.begin();
        self.map_types.clear();
    }

    /// The word at `offset` of the object at tagged `object`.
    pub fn field(&mut self, object: u64, offset: u64) -> Option<u64> {
        self.pages.u64(pointer(object)?.checked_add(offset)?.checked_sub(1)?)
    }

    /// A pointer field.
    pub fn pointer_field(&mut self, object: u64, offset: u64) -> Option<u64> {
        pointer(self.field(object, offset)?)
    }

    /// A Smi field.
    pub fn smi_field(&mut self, object: u64, offset: u64) -> Option<i32> {
        smi(self.field(object, offset)?)
    }

    /// A u32 field.
    pub fn u32_field(&mut self, object: u64, offset: u64) -> Option<u32> {
        self.pages.u32(pointer(object)?.checked_add(offset)?.checked_sub(1)?)
    }

    /// The instance type of the object at tagged `object`, from a map that is a map.
    pub fn type_of(&mut self, object: u64) -> Option<u16> {
        let map = self.field(object, 0)?;
        self.type_of_map(map)
    }

    /// The instance type that a map stands for; `None` when it is no map.
    pub fn type_of_map(&mut self, map: u64) -> Option<u16> {
        if map & 3 != 1 {
            return None;
        }
        if let Some(&known) = self.map_types.get(&map) {
            return known;
        }
        let found = self.read_map(map);
        self.map_types.insert(map, found);
        found
    }

    fn read_map(&mut self, map: u64) -> Option<u16> {
        let meta = self.field(map, 0).filter(|meta| meta & 3 == 1)?;
        let at = |map: u64| (map - 1).checked_add(MAP_TYPE);
        if self.pages.u16(at(meta)?)? != self.layout.types.map {
            return None;
        }
        self.pages.u16(at(map)?)
    }

    /// Where the object at tagged `object` is now: a moved object leaves its new address in place
    /// of its map (low bits 00).
    pub fn follow(&mut self, object: u64) -> Option<u64> {
        let mut at = pointer(object)?;
        for _ in 0..MAX_FORWARD {
            let word = self.field(at, 0)?;
            if word & 3 != 0 || word == 0 {
                return Some(at);
            }
            self.forwarded += 1;
            at = word.checked_add(1)?;
        }
        None
    }

    /// Whether `object` is a JSFunction.
    pub fn is_function(&mut self, object: u64) -> bool {
        let (first, last) = self.layout.types.function;
        self.type_of(object).is_some_and(|kind| (first..=last).contains(&kind))
    }

    /// Whether `object` is a BytecodeArray.
    pub fn is_bytecode(&mut self, object: u64) -> bool {
        self.type_of(object) == Some(self.layout.types.bytecode)
    }

    /// The SharedFunctionInfo of the JSFunction at `function`, which may have moved.
    pub fn shared_of(&mut self, function: u64) -> Option<u64> {
        let function = self.follow(function)?;
        if !self.is_function(function) {
            return None;
        }
        let shared = self.pointer_field(function, self.layout.row.function_shared)?;
        (self.type_of(shared)? == self.layout.types.sfi).then_some(shared)
    }

    /// What a SharedFunctionInfo runs.
    pub fn runs(&mut self, shared: u64) -> Runs {
        let row = self.layout.row;
        let Some(data) = self.field(shared, row.sfi_data) else { return Runs::Unknown };
        let Some(data) = pointer(data) else {
            let Some(untrusted) = row.sfi_untrusted else { return Runs::Builtin };
            // From V8 13 on the builtin's number is in the second field.
            return match self.field(shared, untrusted) {
                Some(word) if pointer(word).is_none() => Runs::Builtin,
                _ => Runs::Unknown,
            };
        };
        self.bytecode_behind(data, 0).map_or(Runs::Unknown, Runs::Bytecode)
    }

    /// The BytecodeArray that `data` is or leads to: baseline code, InterpreterData, BaselineData.
    pub fn bytecode_behind(&mut self, data: u64, depth: usize) -> Option<u64> {
        let types = self.layout.types;
        let kind = self.type_of(data)?;
        if kind == types.bytecode {
            return Some(data);
        }
        if depth == 3 {
            return None;
        }
        let next = if kind == types.code {
            self.layout.row.code_deopt
        } else if Some(kind) == types.baseline {
            // BaselineData: baseline code, then data.
            16
        } else if kind == types.interpreter {
            // InterpreterData: bytecode array, then the trampoline's copy.
            8
        } else {
            return None;
        };
        let next = self.pointer_field(data, next)?;
        self.bytecode_behind(next, depth + 1)
    }

    /// Number of elements of the array at `array` (FixedArray, WeakFixedArray, ByteArray).
    pub fn array_length(&mut self, array: u64) -> Option<u64> {
        let length = u64::try_from(self.smi_field(array, ARRAY_LENGTH)?).ok()?;
        (length <= MAX_ARRAY * 16).then_some(length)
    }

    /// An element of the array at `array`.
    pub fn element(&mut self, array: u64, index: u64) -> Option<u64> {
        if index >= self.array_length(array)?.min(MAX_ARRAY) {
            return None;
        }
        self.field(array, ARRAY_DATA + index * 8)
    }

    /// The elements of an array, as bytes.
    pub fn words(&mut self, array: u64) -> Option<Vec<u8>> {
        let length = self.array_length(array)?.min(MAX_ARRAY);
        let start = (array - 1).checked_add(ARRAY_DATA)?;
        self.pages.bytes(start, usize::try_from(length).ok()?.checked_mul(8)?)
    }

    /// The bytes of a ByteArray, at most `limit`.
    pub fn byte_array(&mut self, array: u64, limit: u64) -> Option<Vec<u8>> {
        // Its type differs by version and trust; that it is an object is what can be said.
        self.type_of(array)?;
        let length = self.array_length(array)?;
        if length > limit {
            return None;
        }
        let start = (array - 1).checked_add(ARRAY_DATA)?;
        self.pages.bytes(start, usize::try_from(length).ok()?)
    }
}

/// What a function runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// This BytecodeArray, and whatever was compiled from it.
    Bytecode(u64),
    /// Code that is built into V8.
    Builtin,
    /// Nothing that can be told.
    Unknown,
}
