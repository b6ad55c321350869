//! A whole stack over a made heap, and the same over heaps and stacks with flipped bits.

use formats::capture::Tier;

use super::super::frame::{Ending, Frame, Registers, StackDump, Why};
use super::super::heap::Heap;
use super::super::memory::Image;
use super::super::regions::{Regions, V8File};
use super::super::testing::{HeapImage, layout};
use super::Walker;

/// Where the made stack lies.
const STACK: u64 = 0x7fff_0000_0000;
/// In the builtins of the made process.
const TRAMPOLINE: u64 = 0x90_0010;
/// In its main program.
const NATIVE: u64 = 0x80_0010;

fn smi(value: u64) -> u64 {
    value << 32
}

struct Made {
    image: HeapImage,
    stack: Vec<u8>,
    registers: Registers,
    function: u64,
    /// Of `middle`: the object that holds its instructions, and the first of them.
    stream: u64,
    code: u64,
}

fn byte_array(image: &mut HeapImage, bytes: &[u8]) -> u64 {
    let mut words = vec![smi(bytes.len() as u64)];
    words.extend(bytes.chunks(8).map(|part| {
        let mut word = [0; 8];
        word[..part.len()].copy_from_slice(part);
        u64::from_le_bytes(word)
    }));
    image.object(190, &words)
}

/// A function called `name` that begins at character `start`: SharedFunctionInfo and BytecodeArray.
fn function(image: &mut HeapImage, script: u64, name: &[u8], start: u64) -> (u64, u64) {
    let name = image.string(name);
    let scope = image.object(261, &[smi(1 << 12), 0, 0, name, smi(0), smi(start), smi(start + 50)]);
    // Bytecode 0: character 20, which is 21 << 1; bytecode 4: character 30. Deltas from pc -1 and
    // position 0, zigzag.
    let table = byte_array(image, &[2, 84, 8, 40]);
    let bytecode = image.object(191, &[smi(16), 0, 0, table, 0, 0, 0, 0, 0]);
    let shared = image.object(262, &[bytecode, scope, 0, script, 0]);
    (shared, bytecode)
}

/// Character 310 in the function with inlining id 0.
const INLINED: u64 = 311 << 1 | 1 << 31;

fn leb(table: &mut Vec<u8>, mut bits: u64) {
    while bits > 0x7f {
        table.push(bits as u8 | 0x80);
        bits >>= 7;
    }
    table.push(bits as u8);
}

/// `outer` is interpreted and has called `middle`, which Turbofan has compiled with `inner` inside.
fn made() -> Made {
    let mut image = HeapImage::new();
    let (source, url) = (image.string(b"a\nb\nc"), image.string(b"/app.js"));
    let mut words = [0u64; 15];
    (words[0], words[1], words[7]) = (source, url, smi(7));
    let script = image.object(167, &words);
    let (outer, bytecode) = function(&mut image, script, b"outer", 100);
    let (middle, _) = function(&mut image, script, b"middle", 200);
    let (inner, _) = function(&mut image, script, b"inner", 300);
    let (outer, middle) = (
        image.object(2066, &[0, 0, outer, 0, 0]),
        (image.object(2066, &[0, 0, middle, 0, 0]), middle),
    );
    let literals = image.object(175, &[smi(2), inner, middle.1]);
    // Inlined at character 210 of `middle`: (210 + 1) << 1.
    let mut inlining = (211u64 << 1).to_le_bytes().to_vec();
    inlining.extend([0; 8]);
    let inlining = byte_array(&mut image, &inlining);
    // Behind the code an eager exit and a lazy one, for the return address at 12.
    let exits = [smi(48), smi(1), smi(1), 0, 0, u64::MAX << 32, 0, 0, smi(12)];
    let words = [smi(17), 0, 0, literals, 0, 0, 0, middle.1, inlining];
    let deopt = image.object(175, &[words, exits].concat());
    // From pc 0: character 310 of inlining id 0, which is (311 << 1) | (1 << 31). From pc 40:
    // character 250 of `middle`.
    let mut table = vec![2];
    leb(&mut table, INLINED << 1);
    leb(&mut table, 40 << 1);
    leb(&mut table, ((INLINED - (251 << 1)) << 1) - 1);
    let table = byte_array(&mut image, &table);
    let code = image.object(245, &[0, deopt, table, 0, 0, 13, 64]);
    let stream = image.object(252, &[code, 0, 0, 0, 0, 0, 0, 0, 0]);
    image.set(code, 40, stream - 1 + 16);
    let compiled = stream - 1 + 16 + 32;

    let mut stack = vec![0u64; 64];
    let at = |index: usize| STACK + index as u64 * 8;
    // The frame of `middle`.
    (stack[10], stack[11], stack[9], stack[8]) = (at(20), TRAMPOLINE, source, middle.0);
    // The frame of `outer`: bytecode offset 5, whose entry is that at 4.
    (stack[20], stack[21], stack[19], stack[18]) = (at(30), NATIVE, source, outer);
    (stack[16], stack[15]) = (bytecode, smi(5 + 53));
    (stack[30], stack[31]) = (0, NATIVE);
    let stack = stack.iter().flat_map(|word| word.to_le_bytes()).collect();
    let registers = Registers { ip: compiled, sp: STACK, bp: at(10), ..Registers::default() };
    Made { image, stack, registers, function: outer, stream, code: compiled - 32 }
}

fn regions() -> Regions {
    let maps = b"100000-140000 rwxp 00000000 00:00 0\n\
        800000-a00000 r-xp 00000000 fe:01 9     /usr/bin/node\n";
    let file = V8File { device: (0xfe, 1), inode: 9, builtins: Some(0x10_0000..0x20_0000) };
    Regions::new(1, maps, &file)
}

fn walk(memory: Image, stack: &[u8], registers: Registers) -> (Walker<Image>, Vec<Frame>, Ending) {
    let mut walker = Walker::new(Heap::new(memory, layout()));
    walker.begin();
    let mut frames = Vec::new();
    let dump = StackDump { registers, stack, at_entry: false };
    let ending = walker.walk(&dump, &regions(), &mut frames).ending;
    (walker, frames, ending)
}

fn names(walker: &Walker<Image>, frames: &[Frame]) -> Vec<String> {
    let name = |frame: &Frame| match *frame {
        Frame::Js { function, position, tier, inlined, .. } => {
            let name = &walker.names.functions()[function as usize].name;
            let name = String::from_utf8_lossy(name);
            format!("{name} {position:?} {} {inlined}", tier.0)
        }
        Frame::Code { address, .. } => format!("{address:x}"),
        other => format!("{other:?}"),
    };
    frames.iter().map(name).collect()
}

#[test]
fn inlined_compiled_and_interpreted_functions_are_named() {
    let made = made();
    let (walker, frames, ending) = walk(made.image.memory(), &made.stack, made.registers);
    let turbofan = Tier::TURBOFAN.0;
    assert_eq!(
        names(&walker, &frames),
        [
            format!("inner Some(310) {turbofan} true"),
            format!("middle Some(210) {turbofan} false"),
            format!("outer Some({}) 0 false", 30),
            "800010".to_owned(),
            "800010".to_owned(),
        ]
    );
    assert_eq!(ending, Ending::Complete);
    let outer = walker.names.functions().iter().find(|f| f.name == b"outer").unwrap();
    assert_eq!((outer.start, outer.script), (Some(100), Some(0)));
    assert_eq!(walker.names.scripts()[0].name, b"/app.js");
}

#[test]
fn a_frame_whose_code_was_thrown_away_keeps_its_place() {
    let mut made = made();
    // Native code, called by `middle`, whose return address V8 has replaced: the second exit's.
    let exit = made.code + 52;
    made.stack[5 * 8..6 * 8].copy_from_slice(&made.registers.bp.to_le_bytes());
    made.stack[6 * 8..7 * 8].copy_from_slice(&exit.to_le_bytes());
    made.registers = Registers { ip: NATIVE, bp: STACK + 40, ..made.registers };
    let calls = u64::from_le_bytes([0x41, 0xff, 0x55, 0x10, 0x41, 0xff, 0x55, 0x18]);
    made.image.set(made.stream, 16 + 48, calls);
    made.image.set(made.stream, 16 + 56, calls);
    let (walker, frames, _) = walk(made.image.memory(), &made.stack, made.registers);
    let turbofan = Tier::TURBOFAN.0;
    assert_eq!(
        names(&walker, &frames)[..3],
        [
            "800010".to_owned(),
            format!("inner Some(310) {turbofan} true"),
            format!("middle Some(210) {turbofan} false"),
        ]
    );
    // An exit that is none: which of the two functions it was in cannot be told.
    made.image.set(made.stream, 16 + 48, 0);
    made.image.set(made.stream, 16 + 56, 0);
    let (_, frames, _) = walk(made.image.memory(), &made.stack, made.registers);
    assert!(matches!(frames[1], Frame::Unknown { why: Why::Code, .. }), "{frames:?}");
}

#[test]
fn a_function_that_moved_is_followed_and_one_that_is_gone_is_unknown() {
    let mut made = made();
    let (old, moved) = (made.function, made.image.object(2066, &[0, 0, 0, 0, 0]));
    let memory = made.image.memory();
    let shared = Heap::new(memory, layout()).shared_of(old).unwrap();
    made.image.set(moved, 24, shared);
    made.image.set(old, 0, moved - 1);
    let (walker, frames, _) = walk(made.image.memory(), &made.stack, made.registers);
    assert!(names(&walker, &frames)[2].starts_with("outer"));
    // Overwritten by something that is no function.
    made.image.set(old, 0, 0x1234_5678_9abc);
    let (_, frames, _) = walk(made.image.memory(), &made.stack, made.registers);
    // The script's list does not name it either.
    assert!(matches!(frames[2], Frame::Unknown { why: Why::Function, .. }), "{frames:?}");
    // Another function in its place contradicts the bytecode on the stack.
    let other = made.image.object(2066, &[0, 0, shared, 0, 0]);
    let bytecode = made.image.object(191, &[smi(16), 0, 0, 0, 0, 0, 0, 0, 0]);
    made.image.set(old, 0, other - 1);
    made.stack[16 * 8..17 * 8].copy_from_slice(&bytecode.to_le_bytes());
    let (_, frames, _) = walk(made.image.memory(), &made.stack, made.registers);
    assert!(matches!(frames[2], Frame::Unknown { why: Why::Contradiction, .. }), "{frames:?}");
}

#[test]
fn an_equal_stack_is_known_until_something_that_counts_differs() {
    let made = made();
    let mut walker = Walker::new(Heap::new(made.image.memory(), layout()));
    walker.begin();
    let mut frames = Vec::new();
    let mut walk = |walker: &mut Walker<Image>, stack: &[u8], registers: Registers| {
        let dump = StackDump { registers, stack, at_entry: false };
        let walked = walker.walk(&dump, &regions(), &mut frames);
        (walked, frames.clone())
    };
    let (first, resolved) = walk(&mut walker, &made.stack, made.registers);
    let (second, again) = walk(&mut walker, &made.stack, made.registers);
    assert_eq!((first.known, second.known), (false, true));
    assert_eq!((first.key, &resolved), (second.key, &again));
    // Locals and the context of the interpreted function do not count.
    for (index, counts) in
        [(13, false), (19, false), (25, false), (18, true), (16, true), (15, true)]
    {
        let mut other = made.stack.clone();
        other[index * 8 + 4] ^= 0x10;
        let (changed, frames) = walk(&mut walker, &other, made.registers);
        assert_eq!((changed.known, changed.key == first.key), (!counts, !counts), "{index}");
        assert!(counts || frames == resolved);
    }
    let at_interpreter = Registers { r9: 1, ..made.registers };
    assert!(!walk(&mut walker, &made.stack, at_interpreter).0.known);
    walker.begin();
    let (later, after) = walk(&mut walker, &made.stack, made.registers);
    assert!(!later.known && later.key != first.key && after == resolved);
}

/// xorshift64*: the same flips in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }
}

/// Whatever the target writes while it is read: no panic, no endless loop, bounded reads.
#[test]
fn flipped_bits_do_no_harm() {
    let made = made();
    let whole = made.image.memory();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut right = 0;
    for _ in 0..20_000 {
        let (mut memory, mut stack) = (whole.clone(), made.stack.clone());
        for _ in 0..1 + random.next() % 8 {
            let pages = memory.pages.len() as u32;
            let page = memory.pages.values_mut().nth((random.next() % pages) as usize).unwrap();
            // Most of a page is empty: aim at what is used.
            let at = (random.next() as usize) % page.len().min(2400);
            page[at] ^= 1 << (random.next() % 8);
            if random.next().is_multiple_of(2) {
                let at = (random.next() as usize) % stack.len();
                stack[at] ^= 1 << (random.next() % 8);
            }
        }
        let (mut walker, frames, _) = walk(memory, &stack, made.registers);
        let lines = walker.names.count_lines(&mut walker.heap, 1 << 20);
        assert!(frames.len() <= 64 && lines.len() <= 3, "{frames:?}");
        assert!(walker.heap.pages.counts().pages <= 16_384 + 64);
        right += usize::from(frames.iter().filter(|f| matches!(f, Frame::Js { .. })).count() == 3);
    }
    // The flips must reach what is read, and must not always.
    assert!((1000..19_000).contains(&right), "{right} stacks whole");
}

#[test]
fn a_stack_that_points_at_itself_ends() {
    let made = made();
    for bp in [0, 8, STACK, STACK + 8, STACK + 1, u64::MAX, u64::MAX - 7, STACK + 504] {
        for word in [STACK, STACK + 8, u64::MAX, 1, TRAMPOLINE] {
            let stack: Vec<u8> = word.to_le_bytes().repeat(64);
            let registers = Registers { bp, r9: u64::MAX, r12: word, ..made.registers };
            let (_, frames, _) = walk(made.image.memory(), &stack, registers);
            assert!(frames.len() < 300, "{bp:x} {word:x}: {}", frames.len());
        }
    }
}
