//! Stacks of this test program itself, whose truth the compiler knows, and damaged tables.

use std::sync::OnceLock;

use object::read::{Object, ObjectSection, ObjectSymbol, ReadCache};
use proptest::prelude::*;

use super::files::Files;
use super::rule::{Rule, State};
use super::table::Table;
use super::*;
use crate::sys::own_registers::{OwnRegisters, own_registers};

/// Bytes of stack that are taken.
const DUMP: usize = 48 << 10;

/// A function's own registers, and its stack.
#[derive(Debug, Clone)]
struct Snapshot {
    registers: Registers,
    stack: Vec<u8>,
    maps: Vec<u8>,
}

impl Snapshot {
    fn dump(&self) -> StackDump<'_> {
        StackDump { registers: self.registers, stack: &self.stack, at_entry: false }
    }
}

/// The stack of a thread of this program, `depth` calls below its first function.
fn snapshot(depth: u32) -> Snapshot {
    std::thread::spawn(move || descend(depth)).join().unwrap()
}

/// Calls itself, and looks at itself at the bottom.
#[inline(never)]
fn descend(depth: u32) -> Snapshot {
    if depth == 0 {
        return look();
    }
    let mut below = std::hint::black_box(descend(std::hint::black_box(depth - 1)));
    below.stack.shrink_to_fit();
    below
}

#[inline(never)]
fn look() -> Snapshot {
    let OwnRegisters { ip, sp, bp, bx, r12_to_r15: [r12, r13, r14, r15] } = own_registers();
    let registers = Registers { ip, sp, bp, bx, r12, r13, r14, r15, ..Registers::default() };
    let maps = std::fs::read("/proc/self/maps").unwrap();
    let parsed = formats::procmaps::parse_maps(&maps);
    let entry = parsed.entries.iter().find(|entry| entry.start <= sp && sp < entry.end).unwrap();
    let mut stack = vec![0; DUMP.min((entry.end - sp) as usize)];
    let pid = nix::unistd::getpid().as_raw();
    let mut read = [crate::sys::vm::RemoteRead::new(sp, &mut stack)];
    assert_eq!(crate::sys::vm::read_batch(pid, &mut read), Ok(1));
    Snapshot { registers, stack, maps }
}

fn unwind(snapshot: &Snapshot) -> (Vec<MachineFrame>, Unwound) {
    let mappings = Mappings::new(std::process::id(), &snapshot.maps);
    let mut frames = Vec::new();
    let unwound = Unwinder::new().unwind(&snapshot.dump(), &mappings, &mut frames);
    (frames, unwound)
}

/// How often the commonest return address is there: that of the recursion.
fn commonest(frames: &[MachineFrame]) -> usize {
    let count = |frame: &MachineFrame| frames.iter().filter(|it| it.ip == frame.ip).count();
    frames.iter().map(count).max().unwrap_or(0)
}

#[test]
fn a_thread_is_unwound_to_its_start() {
    for depth in [0, 1, 7, 40] {
        let snapshot = snapshot(depth);
        let (frames, unwound) = unwind(&snapshot);
        assert_eq!(unwound, Unwound { ending: Ending::Complete, strayed: false }, "{frames:x?}");
        assert!(frames.iter().all(|frame| !frame.after_gap));
        assert!(frames.windows(2).all(|pair| pair[0].sp < pair[1].sp));
        assert!(!frames[0].call && frames[1..].iter().all(|frame| frame.call));
        assert!(frames.len() > depth as usize + 4, "{frames:x?}");
        // `look` returns to another place than the calls that it is below of.
        assert_eq!(commonest(&frames), depth.max(1) as usize);
    }
    assert_eq!(unwind(&snapshot(9)).0.len() + 31, unwind(&snapshot(40)).0.len());
}

#[test]
fn a_cut_stack_is_truncated_and_a_scribbled_one_broken() {
    let whole = snapshot(20);
    let (frames, _) = unwind(&whole);
    let sp = whole.registers.sp;
    for index in [2, 5, 15] {
        let mut cut = whole.clone();
        cut.stack.truncate((frames[index].sp - sp) as usize);
        let (some, unwound) = unwind(&cut);
        assert_eq!(unwound.ending, Ending::Truncated);
        assert_eq!(some.len(), index + 1);
        assert_eq!(some, frames[..=index]);
        let mut bad = whole.clone();
        // The return address into that frame.
        let at = (frames[index].sp - sp) as usize - 8;
        bad.stack[at..at + 8].copy_from_slice(&8u64.to_le_bytes());
        let (some, unwound) = unwind(&bad);
        assert_eq!(unwound, Unwound { ending: Ending::Broken, strayed: true });
        assert_eq!(some[..index], frames[..index]);
    }
}

#[test]
fn a_frame_whose_end_is_not_known_is_left_by_its_return_address() {
    let whole = snapshot(20);
    let (frames, _) = unwind(&whole);
    let mut lost = whole.clone();
    // The frame of `look` ends elsewhere than its rule says.
    lost.registers.sp -= 264;
    lost.stack.splice(0..0, [0x55; 264]);
    let (some, unwound) = unwind(&lost);
    assert_eq!(unwound.ending, Ending::Broken);
    assert!(some[1].after_gap && some[2..].iter().all(|frame| !frame.after_gap));
    let ips = |frames: &[MachineFrame]| frames.iter().map(|it| it.ip).collect::<Vec<_>>();
    assert_eq!(ips(&some), ips(&frames));
}

#[test]
fn tables_are_read_once_and_shared() {
    let snapshot = snapshot(3);
    let mappings = Mappings::new(std::process::id(), &snapshot.maps);
    let (one, mut frames) = (Unwinder::new(), Vec::new());
    assert_eq!(one.size(), (0, 0));
    one.unwind(&snapshot.dump(), &mappings, &mut frames);
    let size = one.size();
    assert!(size.0 >= 2 && size.1 > 10_000, "{size:?}");
    let other = one.clone();
    // Files of a process that is not there: their tables are known.
    let elsewhere = Mappings::new(0, &snapshot.maps);
    let mut again = Vec::new();
    other.unwind(&snapshot.dump(), &elsewhere, &mut again);
    assert_eq!((other.size(), again), (size, frames));
}

#[test]
fn generated_code_goes_by_frame_pointer() {
    let maps = b"1000-2000 rwxp 00000000 00:00 0\n9000-a000 --xp 00000000 00:00 0 [uprobes]\n";
    let mappings = Mappings::new(1, maps);
    let run = |words: &[u64], bp: u64, at_entry: bool| {
        let stack: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let registers = Registers { ip: 0x1500, sp: 0x8000, bp, ..Registers::default() };
        let dump = StackDump { registers, stack: &stack, at_entry };
        let mut frames = Vec::new();
        let unwound = Unwinder::new().unwind(&dump, &mappings, &mut frames);
        let ips = frames.iter().map(|frame| (frame.ip, frame.after_gap)).collect::<Vec<_>>();
        (ips, unwound.ending)
    };
    let chain = [0, 0x8020, 0x1010, 0, 0, 0x1020, 9];
    let whole = vec![(0x1500, false), (0x1010, false), (0x1020, false)];
    assert_eq!(run(&chain, 0x8008, false), (whole, Ending::Complete));
    let entry = [0x1030, 0x8020, 0x1010, 0, 0, 0x1020, 9];
    let (ips, ending) = run(&entry, 0x8008, true);
    assert_eq!((ips.len(), ips[1].0, ending), (4, 0x1030, Ending::Complete));
    // A return probe has taken the caller's place: only the one behind it is known.
    let probed = [0, 0x8020, 0x9000, 0, 0x8030, 0x1020, 0, 0x1030, 9];
    let behind = vec![(0x1500, false), (0x1020, true), (0x1030, false)];
    assert_eq!(run(&probed, 0x8008, false), (behind, Ending::Complete));
    // The same place without such a mapping's beginning.
    let other = [0, 0x8020, 0x9800, 0, 0x8030, 0x1020, 0, 0x1030, 9];
    assert_eq!(run(&other, 0x8008, false).0.get(1), Some(&(0x9800, false)));
    // A frame pointer that is none: the next two that hang together, and never complete.
    let lost = [7, 0x8018, 0x1010, 0x8028, 0x1020, 0, 0x1030];
    let found = vec![(0x1500, false), (0x1010, true), (0x1020, false), (0x1030, false)];
    assert_eq!(run(&lost, 3, false), (found, Ending::Broken));
    // A chain that leads to itself.
    for bp in [0x8000, 0x8008] {
        let (ips, ending) = run(&[0x8008, 0x1010, 0x8000, 0x1020], bp, false);
        assert!(ips.len() < 6 && ending == Ending::Broken, "{ips:x?}");
    }
    assert_eq!(run(&chain, 0x9000, false).1, Ending::Truncated);
}

/// The table of the C library, or of this program if that is static.
fn bytes() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let maps = std::fs::read("/proc/self/maps").unwrap();
        let maps = formats::procmaps::parse_maps(&maps);
        let paths = maps.entries.iter().filter_map(|entry| entry.path.as_deref());
        let library = paths.map(String::from_utf8_lossy).find(|path| path.contains("libc.so"));
        std::fs::read(library.as_deref().unwrap_or("/proc/self/exe")).unwrap()
    })
}

/// File offsets of the code.
fn code(bytes: &[u8]) -> std::ops::Range<u64> {
    let file = object::File::parse(bytes).unwrap();
    let (offset, size) = file.section_by_name(".text").unwrap().file_range().unwrap();
    offset..offset + size
}

#[test]
fn the_search_table_and_the_list_of_entries_agree() {
    let bytes = bytes();
    let mut without = bytes.to_vec();
    let header = object::File::parse(bytes).unwrap();
    let header = header.section_by_name(".eh_frame_hdr").unwrap().file_range().unwrap();
    // An encoding that is not known.
    without[header.0 as usize + 3] = 0x3c;
    let mut table = Table::read(bytes, u64::MAX).unwrap();
    let mut listed = Table::read(without.as_slice(), u64::MAX).unwrap();
    let mut context = gimli::UnwindContext::new();
    let (mut found, mut cold) = (0, usize::MAX);
    let range = code(bytes);
    let count = range.clone().step_by(61).count();
    for offset in range.step_by(61) {
        let rule: Option<Rule> = table.rule(offset, &mut context, &mut cold);
        assert_eq!(rule, listed.rule(offset, &mut context, &mut cold), "{offset:#x}");
        found += usize::from(rule.is_some());
    }
    assert!(found * 10 > count * 9, "{found} of {count}");
    let mut none = 0;
    let elsewhere = code(bytes).start + 1;
    assert!(table.rule(elsewhere, &mut context, &mut none).is_none());
    assert!(Table::read(bytes, 1000).is_none());
    assert!(Table::read(&b"\x7fELF"[..], u64::MAX).is_none());
    assert!(Table::read(&ReadCache::new(std::io::Cursor::new(bytes)), u64::MAX).is_some());
}

#[test]
fn the_kernels_own_functions_have_rules() {
    let Ok(image) = crate::sys::vdso::vdso_image() else { return };
    let file = object::File::parse(image.as_slice()).unwrap();
    let mut table = Table::read(image.as_slice(), u64::MAX).unwrap();
    let mut context = gimli::UnwindContext::new();
    let functions: Vec<u64> = file
        .dynamic_symbols()
        .filter(|symbol| symbol.is_definition() && symbol.size() > 16)
        .map(|symbol| symbol.address() + 1)
        .collect();
    assert!(!functions.is_empty());
    for place in functions {
        let mut cold = 1;
        assert!(table.rule(place, &mut context, &mut cold).is_some(), "{place:#x}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever the file says: no panic, no endless loop, and callers only upwards.
    #[test]
    fn flipped_bits_do_no_harm(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8, 0u8..8), 1..400),
        places in prop::collection::vec(any::<prop::sample::Index>(), 40),
        words in prop::collection::vec(any::<u64>(), 64),
    ) {
        let mut bytes = bytes().to_vec();
        let range = code(&bytes);
        let file = object::File::parse(bytes.as_slice()).unwrap();
        let part = |name| file.section_by_name(name).unwrap().file_range().unwrap();
        let (frames, header) = (part(".eh_frame"), part(".eh_frame_hdr"));
        for (index, bit, kind) in flips {
            let (start, size) = match kind {
                0 => (0, 64 * 14),
                1 => (header.0, header.1.min(64)),
                2 => header,
                // Most rules are those of the first common entry.
                3 => (frames.0, frames.1.min(64)),
                _ => frames,
            };
            bytes[start as usize + index.index(size as usize)] ^= 1 << bit;
        }
        let Some(mut table) = Table::read(bytes.as_slice(), u64::MAX) else { return Ok(()) };
        let stack: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let registers = Registers { sp: 0x10000, bp: 0x10080, bx: words[0], ..Registers::default() };
        let dump = StackDump { registers, stack: &stack, at_entry: false };
        let mut context = gimli::UnwindContext::new();
        let mut cold = usize::MAX;
        for place in places {
            let offset = range.start + place.index((range.end - range.start) as usize) as u64;
            let state = State::sampled(&Registers { ip: offset, ..registers });
            if let Some(rule) = table.rule(offset, &mut context, &mut cold) {
                let _next = rule.apply(&state, &dump, table.section());
            }
        }
    }

    /// Whatever is on the stack.
    #[test]
    fn any_stack_ends(words in prop::collection::vec(any::<(u8, u64)>(), 1..600)) {
        static SNAPSHOT: OnceLock<Snapshot> = OnceLock::new();
        let real = SNAPSHOT.get_or_init(|| snapshot(5));
        let mut bad = real.clone();
        let (mappings, sp) = (Mappings::new(std::process::id(), &real.maps), real.registers.sp);
        for (index, (kind, word)) in words.iter().enumerate() {
            let word = match kind % 4 {
                0 => *word,
                1 => real.registers.ip + word % 4096,
                2 => sp + word % (DUMP as u64),
                _ => continue,
            };
            if let Some(place) = bad.stack.as_chunks_mut::<8>().0.get_mut(index) {
                *place = word.to_le_bytes();
            }
        }
        let mut files = Files::new();
        let mut frames = Vec::new();
        let dump = bad.dump();
        let mut walk =
            Walk { dump: &dump, mappings: &mappings, files: &mut files, cold: 64, near: 0, strayed: false };
        walk.run(&mut frames);
        prop_assert!(frames.windows(2).all(|pair| pair[0].sp < pair[1].sp));
        prop_assert!(frames.len() <= DUMP / 8 + 1);
    }
}
