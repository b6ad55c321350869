//! `synthetic SAMPLES FILE`: writes a capture of CPU samples such as a busy Node process gives:
//! stacks of 37 frames, some 5000 distinct ones, a few of them very frequent; JavaScript frames
//! with the entries of a JIT map that grows, and whose addresses are reused. The same arguments
//! give the same bytes. It is not a part of the product: `bench/million.rs` builds and runs it.

use std::fs::File;
use std::io::{BufWriter, Error, Result, Write};

use formats::capture::{
    CaptureWriter, End, EventDef, Frame, JitBatch, JitEntry, Mapping, Meta, Object, Process,
    StackId, Symbol, TableLimits, Thread,
};

const SECOND_NS: u64 = 1_000_000_000;
const START_NS: u64 = 1_000 * SECOND_NS;
/// Samples a second, and so samples a chunk: the recorder flushes every second.
const FREQUENCY: u64 = 999;
const EVENT: u32 = 1;
const STACKS: usize = 5_000;
/// Frames of a stack: native ones at the root and at the leaf, JavaScript between them.
const ROOT_FRAMES: usize = 9;
const SCRIPT_FRAMES: usize = 26;
const LEAF_FRAMES: usize = 2;
/// Callees of one function on the way down: 6 levels of 4 make 4096 ways, the last level the rest.
const FAN_OUT: u64 = 4;
const FANNED_LEVELS: usize = 6;
/// JavaScript functions, and the native ones that call them and that they call.
const FUNCTIONS: u64 = 2_000;
const SYMBOLS: u64 = 500;
const PIECE_BYTES: u64 = 0x400;
const JIT_START: u64 = 0x7f00_0000_0000;
const NODE_START: u64 = 0x40_0000;
/// Looks at the JIT map that find something new: one second after another.
const BATCHES: u64 = 20;
/// Every so many seconds some functions move away and others come to their addresses.
const REUSE_EVERY: u64 = 30;
const REUSED: u64 = 20;

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let (Some(samples), Some(file), None) = (words.next(), words.next(), words.next()) else {
        return Err(Error::other("usage: synthetic SAMPLES FILE"));
    };
    let samples = samples.parse().map_err(Error::other)?;
    write(samples, BufWriter::new(File::create(file)?))
}

fn write(samples: u64, out: impl Write) -> Result<()> {
    let meta = Meta {
        recorder: "synthetic".to_owned(),
        mode: "attach".to_owned(),
        targets: vec![1],
        start_ns: START_NS,
        frequency: FREQUENCY as u32,
        cpus: 1,
        arch: "x86_64".to_owned(),
        ..Meta::default()
    };
    let mut writer = CaptureWriter::create(out, &meta, TableLimits::default())?;
    let (threads, object) = define(&mut writer)?;
    let stacks = stacks(object);
    let mut random = Random(1);
    let mut interned: Vec<Option<StackId>> = vec![None; stacks.len()];
    let mut epoch = writer.epoch();
    for index in 0..samples {
        let second = index / FREQUENCY;
        if index % FREQUENCY == 0 {
            if index > 0 {
                writer.flush()?;
            }
            jit(&mut writer, second);
        }
        if epoch != writer.epoch() {
            epoch = writer.epoch();
            interned.fill(None);
        }
        // The square favours the first ones: a tenth of the stacks get a third of the samples.
        let chosen = (random.below(1 << 16).pow(2) * stacks.len() as u64) >> 32;
        let chosen = chosen as usize;
        let stack = match interned[chosen] {
            Some(stack) => stack,
            None => {
                let frames = stacks[chosen].iter();
                frames.fold(StackId::default(), |parent, frame| writer.stack(parent, *frame))
            }
        };
        interned[chosen] = Some(stack);
        let late = random.below(20_000);
        let time = START_NS + index * SECOND_NS / FREQUENCY + late;
        // Nearly all JavaScript is in one thread.
        let thread = if random.below(20) == 0 { 1 } else { 0 };
        writer.sample(EVENT, time, threads[thread], stack, &[]);
    }
    let end_ns = START_NS + samples * SECOND_NS / FREQUENCY + SECOND_NS;
    let end = End { reason: "duration".to_owned(), end_ns, exit_status: None };
    writer.finish(&end)?.0.flush()
}

fn define(writer: &mut CaptureWriter<impl Write>) -> Result<([u32; 2], u32)> {
    let (comm, cmdline) = (b"node".to_vec(), b"node\0server.js\0".to_vec());
    let process = Process { pid: 1, start_ns: START_NS, comm, cmdline, ..Process::default() };
    let process = writer.process(process);
    let threads = [1, 2].map(|tid| writer.thread(Thread { process, tid }));
    let path = b"/usr/bin/node".to_vec();
    let object = writer.object(Object { path, build_id: vec![7; 20], flags: 0 });
    writer.mapping(Mapping {
        process,
        object,
        start: NODE_START,
        end: NODE_START + SYMBOLS * PIECE_BYTES,
        offset: 0,
        time_ns: START_NS,
    });
    for number in 0..SYMBOLS {
        let name = format!("_ZN4node9Native{number:03}3runEv").into_bytes();
        let start = number * PIECE_BYTES;
        writer.symbol(Symbol { object, start, size: PIECE_BYTES, name });
    }
    let source = "cpu-clock".to_owned();
    let (name, set) = ("cpu".to_owned(), "cpu".to_owned());
    let period_ns = Some(SECOND_NS / FREQUENCY);
    writer.event(&EventDef { id: EVENT, name, set, source, fields: Vec::new(), period_ns })?;
    Ok((threads, object))
}

// What the JIT map gained in the second before.
fn jit(writer: &mut CaptureWriter<impl Write>, second: u64) {
    let share = FUNCTIONS / BATCHES;
    let functions = if second < BATCHES {
        second * share..(second + 1) * share
    } else if second.is_multiple_of(REUSE_EVERY) {
        let first = (second / REUSE_EVERY * REUSED) % FUNCTIONS;
        first..(first + REUSED).min(FUNCTIONS)
    } else {
        return;
    };
    let seen_ns = START_NS + second * SECOND_NS;
    // The first entries of all are older than any sample.
    let after_ns = if second < BATCHES { 0 } else { seen_ns - SECOND_NS };
    let generation = if second < BATCHES { 0 } else { second };
    let entry = |function: u64| {
        let tier = ["~", "^", "+", "*"][(function + generation) as usize % 4];
        let (file, line) = (function / 20, function % 20 * 7 + 1);
        let name =
            format!("JS:{tier}work{function}g{generation} /app/lib/part-{file}.js:{line}:17");
        let start = JIT_START + function * PIECE_BYTES;
        JitEntry { start, size: PIECE_BYTES, name: name.into_bytes() }
    };
    writer.jit(&JitBatch {
        process: 0,
        after_ns,
        seen_ns,
        entries: functions.map(entry).collect(),
    });
}

// Root first. Which functions a stack goes through is decided by its number alone, its upper digits
// first, so that stacks share their outer frames as those of a program do.
fn stacks(object: u32) -> Vec<Vec<Frame>> {
    (0..STACKS as u64).map(|number| stack(number, object)).collect()
}

fn stack(number: u64, object: u32) -> Vec<Frame> {
    let native = |symbol: u64, call| {
        let offset = symbol % SYMBOLS * PIECE_BYTES + 0x80;
        Frame::Native { object, offset, call }
    };
    let mut frames: Vec<Frame> = (0..ROOT_FRAMES as u64).map(|at| native(at, true)).collect();
    let mut path = 0;
    for level in 0..SCRIPT_FRAMES {
        let shift = FANNED_LEVELS.saturating_sub(level.saturating_sub(2));
        path = number / FAN_OUT.pow(shift as u32);
        let function = scatter(path * 64 + level as u64) % FUNCTIONS;
        // Two places of a function call on.
        let inside = 0x40 + path % 2 * 0x20;
        let address = JIT_START + function * PIECE_BYTES + inside;
        frames.push(Frame::Jit { process: 0, address, call: true });
    }
    for at in 1..=LEAF_FRAMES as u64 {
        let symbol = ROOT_FRAMES as u64 + scatter(path + at) % (SYMBOLS - ROOT_FRAMES as u64);
        frames.push(native(symbol, at < LEAF_FRAMES as u64));
    }
    frames
}

// The finaliser of splitmix64: https://prng.di.unimi.it/splitmix64.c
fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scatter(self.0) % limit
    }
}
