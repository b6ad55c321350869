//! Overwrites the memory of a running process from outside, as a program that destroys itself would.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// What is overwritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Anonymous memory: V8's heap, its code and malloc's, and the stacks of other threads.
    Heap,
    /// The stack of the main thread.
    Stack,
}

/// Random numbers, the same ones for the same seed: xorshift64 (Marsaglia, Xorshift RNGs, 2003).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// A seed is not 0.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.word() >> 16) % limit.max(1)
    }
}

/// Writes random words, flipped bits and words from elsewhere into a process until it ends, and
/// returns how many. After `longest` it gives up.
///
/// # Errors
/// If the process's memory cannot be opened.
pub fn scribble(pid: u32, part: Part, seed: u64, longest: Duration) -> Result<u64> {
    let process = Path::new("/proc").join(pid.to_string());
    let memory = OpenOptions::new().read(true).write(true).open(process.join("mem"));
    let memory = memory.context("cannot open the memory of the workload")?;
    let mut random = Random::new(seed);
    let end = Instant::now() + longest;
    let mut writes = 0;
    while Instant::now() < end && is_alive(&process) {
        let regions = regions(&process, part);
        for _ in 0..20 {
            if let Some(&(start, length)) = pick(&regions, &mut random) {
                writes += u64::from(spoil(&memory, start, length, &mut random).is_some());
            }
            sleep(Duration::from_micros(200));
        }
    }
    Ok(writes)
}

fn pick<'a>(regions: &'a [(u64, u64)], random: &mut Random) -> Option<&'a (u64, u64)> {
    let at = random.below(u64::try_from(regions.len()).ok()?);
    regions.get(usize::try_from(at).ok()?)
}

// Fails where the region has gone in the meantime.
fn spoil(memory: &File, start: u64, length: u64, random: &mut Random) -> Option<()> {
    let word_at = |random: &mut Random| start + random.below(length / 8) * 8;
    let (to, from) = (word_at(random), word_at(random));
    let mut word = [0; 8];
    memory.read_exact_at(&mut word, from).ok()?;
    match random.below(3) {
        0 => word = random.word().to_le_bytes(),
        1 => {
            memory.read_exact_at(&mut word, to).ok()?;
            word = (u64::from_le_bytes(word) ^ 1 << random.below(48)).to_le_bytes();
        }
        _ => {}
    }
    memory.write_all_at(&word, to).ok()
}

// A zombie has no mappings any more.
fn is_alive(process: &Path) -> bool {
    fs::read_to_string(process.join("maps")).is_ok_and(|maps| !maps.is_empty())
}

// `ADDRESS-ADDRESS rw-p OFFSET DEVICE INODE [PATH]`, proc_pid_maps(5).
fn regions(process: &Path, part: Part) -> Vec<(u64, u64)> {
    let maps = fs::read_to_string(process.join("maps")).unwrap_or_default();
    let region = |line: &str| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let is_writable = words.next()?.starts_with("rw");
        let path = words.nth(3).unwrap_or("");
        let is_wanted = match part {
            Part::Heap => path.is_empty() || path == "[heap]",
            Part::Stack => path == "[stack]",
        };
        let start = u64::from_str_radix(start, 16).ok()?;
        let end = u64::from_str_radix(end, 16).ok()?;
        (is_writable && is_wanted).then_some((start, end - start))
    };
    maps.lines().filter_map(region).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Running;
    use std::process::Command;

    #[test]
    fn regions_are_those_that_can_be_written() {
        let own = Path::new("/proc/self");
        assert!(!regions(own, Part::Heap).is_empty());
        assert_eq!(regions(own, Part::Stack).len(), 1);
    }

    #[test]
    fn a_process_without_a_sound_stack_dies() {
        let mut command = Command::new("sh");
        let running = Running::start(command.args(["-c", "while :; do :; done"])).unwrap();
        let writes = scribble(running.pid(), Part::Stack, 1, Duration::from_secs(20)).unwrap();
        assert!(writes > 0);
    }
}
