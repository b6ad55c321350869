//! Builds small heaps in memory, laid out as in Node 20, for the tests of this folder.

use std::collections::HashMap;

use super::heap::Heap;
use super::layout::{Layout, Symbols, Version};
use super::memory::{Image, PAGE};

/// First address of the heaps made here.
const BASE: u64 = 0x10_0000;

/// A heap in the making.
pub(super) struct HeapImage {
    bytes: Vec<u8>,
    maps: HashMap<u16, u64>,
}

/// The layout of Node 20.
pub(super) fn layout() -> Layout {
    let table = [
        ("type_Code__CODE_TYPE", 245),
        ("type_InstructionStream__INSTRUCTION_STREAM_TYPE", 252),
        ("type_Map__MAP_TYPE", 255),
        ("type_SharedFunctionInfo__SHARED_FUNCTION_INFO_TYPE", 262),
        ("type_Script__SCRIPT_TYPE", 167),
        ("type_ScopeInfo__SCOPE_INFO_TYPE", 261),
        ("type_BytecodeArray__BYTECODE_ARRAY_TYPE", 191),
        ("type_InterpreterData__INTERPRETER_DATA_TYPE", 159),
        ("type_WeakFixedArray__WEAK_FIXED_ARRAY_TYPE", 240),
        ("FirstNonstringType", 128),
    ];
    let constants = table.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let version = Version { major: 11, minor: 3, build: 244 };
    Layout::new(&Symbols { version, constants, bytecode_sizes: vec![3; 3 * 190] }).unwrap()
}

impl HeapImage {
    pub(super) fn new() -> Self {
        let mut image = Self { bytes: Vec::new(), maps: HashMap::new() };
        // The map of maps is its own map.
        let meta = image.raw(&[BASE + 1, 255 << 32]);
        image.maps.insert(255, meta);
        image
    }

    /// Words at the next place; its tagged address.
    fn raw(&mut self, words: &[u64]) -> u64 {
        let at = BASE + self.bytes.len() as u64;
        self.bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        at + 1
    }

    fn map(&mut self, kind: u16) -> u64 {
        if let Some(&map) = self.maps.get(&kind) {
            return map;
        }
        // instance_type is the u16 at 12.
        let map = self.raw(&[BASE + 1, u64::from(kind) << 32]);
        self.maps.insert(kind, map);
        map
    }

    /// An object of type `kind` with these words behind its map.
    pub(super) fn object(&mut self, kind: u16, words: &[u64]) -> u64 {
        let map = self.map(kind);
        let object = self.raw(&[map]);
        self.raw(words);
        object
    }

    pub(super) fn string(&mut self, text: &[u8]) -> u64 {
        self.characters(8, text.len(), text)
    }

    pub(super) fn two_byte(&mut self, text: &str) -> u64 {
        let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        self.characters(0, bytes.len() / 2, &bytes)
    }

    fn characters(&mut self, kind: u16, length: usize, bytes: &[u8]) -> u64 {
        let mut words = vec![(length as u64) << 32];
        words.extend(bytes.chunks(8).map(|part| {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            u64::from_le_bytes(word)
        }));
        self.object(kind, &words)
    }

    /// Overwrites a field.
    pub(super) fn set(&mut self, object: u64, offset: u64, word: u64) {
        let at = (object - 1 + offset - BASE) as usize;
        self.bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }

    pub(super) fn memory(&self) -> Image {
        let mut image = Image::default();
        for (index, page) in self.bytes.chunks(PAGE).enumerate() {
            let mut page = page.to_vec();
            page.resize(PAGE, 0);
            image.pages.insert(BASE + (index * PAGE) as u64, page);
        }
        image
    }

    pub(super) fn heap(&self) -> Heap<Image> {
        Heap::new(self.memory(), layout())
    }
}
