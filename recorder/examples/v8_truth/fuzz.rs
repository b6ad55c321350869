//! Walks over real stacks and the real memory behind them, with flipped bits: no panic, no endless
//! loop, bounded reads.

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use recorder::sys::attr::{EventAttr, EventSource, SampleRate};
use recorder::v8::V8;
use recorder::v8::frame::{Frame, Registers, StackDump};
use recorder::v8::heap::Heap;
use recorder::v8::memory::Image;
use recorder::v8::regions::Regions;
use recorder::v8::walk::Walker;

use crate::tap::{Tap, start};

/// What one drain has read, and the stacks that it was read for.
struct Picture {
    memory: Image,
    regions: Regions,
    stacks: Vec<(Registers, Vec<u8>)>,
}

/// xorshift64*: the same flips in every run over the same pictures.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as usize % limit.max(1)
    }
}

/// Takes pictures of NODE running a script, then walks over them with flipped bits ROUNDS times.
pub(crate) fn fuzz(args: &[String]) {
    let (mut child, stdout) = start(&args[0], &[], &args[2..]);
    std::thread::spawn(move || stdout.lines().for_each(drop));
    std::thread::sleep(Duration::from_secs(1));
    let pid = child.id();
    let mut v8 = V8::attach(pid).unwrap();
    let mut tap = Tap::open(
        EventAttr { rate: SampleRate::Frequency(999), ..EventAttr::new(EventSource::CpuClock) },
        pid,
    );
    let mut stdin = child.stdin.take().unwrap();
    let _sent = stdin.write_all(b"go\n");
    let mut pictures = Vec::new();
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(50));
        v8.begin_drain();
        let mut stacks = Vec::new();
        for sample in tap.drain().into_iter().rev().take(5) {
            let dump =
                StackDump { registers: sample.registers, stack: &sample.stack, at_entry: false };
            v8.resolve(&dump);
            stacks.push((sample.registers, sample.stack));
        }
        let _lines = v8.end_drain();
        let (memory, regions) = v8.snapshot();
        if !stacks.is_empty() {
            pictures.push(Picture { memory, regions, stacks });
        }
    }
    child.kill().unwrap();
    let _status = child.wait();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let rounds: usize = args[1].parse().unwrap();
    let (mut worst, mut pages, mut named, mut same) = (Duration::ZERO, 0, 0, 0);
    for _ in 0..rounds {
        let pick = random.below(pictures.len());
        let picture = &mut pictures[pick];
        let index = random.below(picture.stacks.len());
        let (registers, mut stack) = picture.stacks[index].clone();
        // Flips in memory are taken back: a picture is too large to be copied every time.
        let mut undo = Vec::new();
        for _ in 0..1 + random.below(64) {
            let count = picture.memory.pages.len();
            let (&address, page) =
                picture.memory.pages.iter_mut().nth(random.below(count)).unwrap();
            let (at, bit) = (random.below(page.len()), random.below(8));
            page[at] ^= 1 << bit;
            undo.push((address, at, bit));
            if random.below(2) == 0 {
                let at = random.below(stack.len().min(4096));
                stack[at] ^= 1 << random.below(8);
            }
        }
        let mut walker = Walker::new(Heap::new(picture.memory.clone(), v8.layout().clone()));
        walker.begin();
        let mut frames = Vec::new();
        let dump = StackDump { registers, stack: &stack, at_entry: false };
        let began = Instant::now();
        walker.walk(&dump, &picture.regions, &mut frames);
        let _lines = walker.names.count_lines(&mut walker.heap, 1 << 20);
        worst = worst.max(began.elapsed());
        pages = pages.max(walker.heap.pages.counts().pages);
        let js = frames.iter().filter(|frame| matches!(frame, Frame::Js { .. })).count();
        named += js;
        same += usize::from(js > 0);
        assert!(frames.len() < 5000, "{} frames", frames.len());
        for (address, at, bit) in undo {
            picture.memory.pages.get_mut(&address).unwrap()[at] ^= 1 << bit;
        }
    }
    println!(
        "{rounds} rounds over {} pictures: {named} frames named in {same} stacks, at most {pages} pages and {worst:?} a stack",
        pictures.len()
    );
}
