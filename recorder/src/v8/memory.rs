//! The target's memory as the V8 reader sees it: whole pages, each read once a drain.
//!
//! A page cache halves the time of a sample and makes what is read of one page consistent. Reads
//! are batched and counted against a budget, so that a hostile heap cannot make the recorder read
//! for ever. Must not know what the bytes mean. Tests use [`Image`] in place of a process.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use crate::sys::vm::{RemoteRead, VmError, read_batch};

/// Bytes of a page of the cache; the least page of every architecture.
pub const PAGE: usize = 4096;
/// Pages in one system call.
const BATCH: usize = 64;
/// Pages that one drain may read: 64 MiB. A cold drain of a large application reads about 2 MiB.
const BUDGET: usize = 16_384;
/// Bytes in one read of a large object, past the cache.
const CHUNK: usize = 1 << 20;

/// Something that has addresses: a process, or its picture.
pub trait Memory {
    /// Fills the places that can be read, as [`read_batch`].
    ///
    /// # Errors
    /// [`VmError`] when nothing can be read any more.
    fn read(&mut self, places: &mut [RemoteRead<'_>]) -> Result<usize, VmError>;
}

/// The memory of a running process.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    /// Its process id.
    pub pid: i32,
}

impl Memory for Process {
    fn read(&mut self, places: &mut [RemoteRead<'_>]) -> Result<usize, VmError> {
        read_batch(self.pid, places)
    }
}

/// Pages that were read of a process once.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// Bytes by page address.
    pub pages: BTreeMap<u64, Vec<u8>>,
}

impl Memory for Image {
    fn read(&mut self, places: &mut [RemoteRead<'_>]) -> Result<usize, VmError> {
        let mut complete = 0;
        for place in places {
            place.filled = 0;
            while place.filled < place.buffer.len() {
                let Some(at) = place.address.checked_add(place.filled as u64) else { break };
                let within = (at % PAGE as u64) as usize;
                let Some(page) = self.pages.get(&(at - within as u64)) else { break };
                let rest = &mut place.buffer[place.filled..];
                let part = page.get(within..).unwrap_or_default();
                let count = rest.len().min(part.len());
                if count == 0 {
                    break;
                }
                rest[..count].copy_from_slice(&part[..count]);
                place.filled += count;
            }
            complete += usize::from(place.is_complete());
        }
        Ok(complete)
    }
}

/// What reading has cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadCounts {
    /// System calls.
    pub calls: u64,
    /// Pages read.
    pub pages: u64,
    /// Drains that used up their budget.
    pub exhausted: u64,
}

type PageBytes = Box<[u8; PAGE]>;

/// How long what was read of a process counts once the process has ended.
pub const STALE: Duration = Duration::from_secs(1);
/// Pages kept for that time at most: 16 MiB.
const MAX_KEPT: usize = 4096;
/// Drains between two looks for kept pages that are too old.
const SWEEP: u32 = 16;

/// Pages of a [`Memory`], valid for one drain.
#[derive(Debug)]
pub struct Pages<M> {
    memory: M,
    pages: HashMap<u64, Option<PageBytes>, RandomState>,
    /// Pages of the last drains, and when each drain ended.
    kept: HashMap<u64, (Instant, PageBytes), RandomState>,
    sweep: u32,
    spare: Vec<PageBytes>,
    budget: usize,
    gone: bool,
    counts: ReadCounts,
}

impl<M: Memory> Pages<M> {
    /// An empty cache.
    pub fn new(memory: M) -> Self {
        Self {
            memory,
            pages: HashMap::default(),
            kept: HashMap::default(),
            sweep: 0,
            spare: Vec::new(),
            budget: BUDGET,
            gone: false,
            counts: ReadCounts::default(),
        }
    }

    /// Forgets all pages: a new drain begins. They are kept aside for a second: the process may have
    /// ended when its last samples come, and then they are all there is.
    pub fn begin(&mut self) {
        // What a large drain needed is given back.
        self.spare.truncate(BATCH * 16);
        self.counts.exhausted += u64::from(self.budget == 0);
        self.budget = BUDGET;
        if self.gone {
            self.kept.retain(|_, (read, _)| read.elapsed() <= STALE);
            return;
        }
        let now = Instant::now();
        self.sweep += 1;
        if self.sweep.is_multiple_of(SWEEP) {
            self.kept.retain(|_, (read, _)| now.duration_since(*read) <= STALE);
        }
        for (at, page) in self.pages.drain() {
            let Some(page) = page else { continue };
            let room = self.kept.len() < MAX_KEPT;
            let replaced = match self.kept.get_mut(&at) {
                Some(kept) => {
                    kept.0 = now;
                    Some(std::mem::replace(&mut kept.1, page))
                }
                None if room => {
                    self.kept.insert(at, (now, page));
                    None
                }
                None => Some(page),
            };
            if self.spare.len() < BATCH * 16 {
                self.spare.extend(replaced);
            }
        }
    }

    /// From now on nothing is read of the process: it runs another program, or none.
    pub fn give_up(&mut self) {
        self.gone = true;
    }

    /// Whether the process has ended or may not be read any more.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// What reading has cost so far.
    pub fn counts(&self) -> ReadCounts {
        self.counts
    }

    /// The pages that this drain has read, by address.
    pub fn snapshot(&self) -> Image {
        let pages = self.pages.iter();
        Image {
            pages: pages.filter_map(|(&at, page)| Some((at, page.as_ref()?.to_vec()))).collect(),
        }
    }

    /// Reads the pages of these addresses in as few calls as possible.
    pub fn prefetch(&mut self, addresses: impl IntoIterator<Item = u64>) {
        let mut wanted: Vec<u64> = addresses
            .into_iter()
            .map(page_of)
            .filter(|page| !self.pages.contains_key(page))
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        for batch in wanted.chunks(BATCH) {
            self.fetch(batch);
        }
    }

    fn fetch(&mut self, addresses: &[u64]) {
        let count = addresses.len().min(self.budget);
        if self.gone || count == 0 {
            return;
        }
        self.budget -= count;
        self.counts.calls += 1;
        self.counts.pages += count as u64;
        let spare = &mut self.spare;
        let mut buffers: Vec<PageBytes> =
            (0..count).map(|_| spare.pop().unwrap_or_else(|| Box::new([0; PAGE]))).collect();
        let mut places: Vec<RemoteRead<'_>> = addresses
            .iter()
            .zip(&mut buffers)
            .map(|(&at, buffer)| RemoteRead::new(at, buffer.as_mut_slice()))
            .collect();
        if self.memory.read(&mut places).is_err() {
            self.gone = true;
            return;
        }
        let complete: Vec<bool> = places.iter().map(RemoteRead::is_complete).collect();
        for ((&at, buffer), complete) in addresses.iter().zip(buffers).zip(complete) {
            self.pages.insert(at, complete.then_some(buffer));
        }
    }

    fn page(&mut self, address: u64) -> Option<&[u8; PAGE]> {
        let at = page_of(address);
        if !self.pages.contains_key(&at) {
            self.fetch(&[at]);
        }
        if let Some(Some(page)) = self.pages.get(&at) {
            return Some(page);
        }
        // The process has ended, or has given this page back; it had to be there for the sample.
        let kept = self.kept.get(&at).filter(|(read, _)| read.elapsed() <= STALE);
        kept.map(|(_, page)| &**page)
    }

    /// Copies the bytes at `address`. False when any of them cannot be read.
    pub fn copy(&mut self, address: u64, out: &mut [u8]) -> bool {
        let mut done = 0;
        while done < out.len() {
            let Some(at) = address.checked_add(done as u64) else { return false };
            let within = (at % PAGE as u64) as usize;
            let Some(page) = self.page(at) else { return false };
            let count = (out.len() - done).min(PAGE - within);
            out[done..done + count].copy_from_slice(&page[within..within + count]);
            done += count;
        }
        true
    }

    /// The little-endian number of 8 bytes at `address`.
    pub fn u64(&mut self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.copy(address, &mut bytes).then(|| u64::from_le_bytes(bytes))
    }

    /// The little-endian number of 4 bytes at `address`.
    pub fn u32(&mut self, address: u64) -> Option<u32> {
        let mut bytes = [0; 4];
        self.copy(address, &mut bytes).then(|| u32::from_le_bytes(bytes))
    }

    /// The little-endian number of 2 bytes at `address`.
    pub fn u16(&mut self, address: u64) -> Option<u16> {
        let mut bytes = [0; 2];
        self.copy(address, &mut bytes).then(|| u16::from_le_bytes(bytes))
    }

    /// `length` bytes at `address` through the cache; for what is small and near other things.
    pub fn bytes(&mut self, address: u64, length: usize) -> Option<Vec<u8>> {
        let end = address.checked_add(length as u64)?;
        if length > PAGE {
            let pages = (page_of(address)..end).step_by(PAGE).take(BUDGET);
            self.prefetch(pages);
        }
        let mut out = vec![0; length];
        self.copy(address, &mut out).then_some(out)
    }

    /// The bytes from `address` on, through the cache: at most `length`, and up to the first page that
    /// cannot be read.
    pub fn bytes_as_far_as_mapped(&mut self, address: u64, length: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while out.len() < length {
            let Some(at) = address.checked_add(out.len() as u64) else { break };
            let within = (at % PAGE as u64) as usize;
            let Some(page) = self.page(at) else { break };
            let count = (length - out.len()).min(PAGE - within);
            out.extend_from_slice(&page[within..within + count]);
        }
        out
    }

    /// `length` bytes at `address`, past the cache; for what is large and looked at once. Counts
    /// against the budget.
    pub fn bulk(&mut self, address: u64, length: usize) -> Option<Vec<u8>> {
        address.checked_add(length as u64)?;
        let pages = length / PAGE + 1;
        if self.gone || pages > self.budget {
            return None;
        }
        self.budget -= pages;
        self.counts.pages += pages as u64;
        let mut out = vec![0; length];
        for (index, part) in out.chunks_mut(CHUNK).enumerate() {
            self.counts.calls += 1;
            let at = address + (index * CHUNK) as u64;
            if self.memory.read(&mut [RemoteRead::new(at, part)]) != Ok(1) {
                return None;
            }
        }
        Some(out)
    }
}

fn page_of(address: u64) -> u64 {
    address & !(PAGE as u64 - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Image {
        let mut image = Image::default();
        image.pages.insert(0x1000, (0..PAGE).map(|i| i as u8).collect());
        image.pages.insert(0x2000, vec![7; PAGE]);
        image
    }

    #[test]
    fn reads_cross_pages_and_stop_at_holes() {
        let mut pages = Pages::new(image());
        assert_eq!(pages.u64(0x1ffc), Some(0x0707_0707_fffe_fdfc));
        assert_eq!(pages.u16(0x1001), Some(0x0201));
        assert_eq!(pages.u32(0x2ffe), None);
        assert_eq!(pages.u64(u64::MAX - 3), None);
        assert_eq!(pages.bytes(0x1000, PAGE * 2).map(|b| b.len()), Some(PAGE * 2));
        assert_eq!(pages.bulk(0x1ff0, 32).map(|b| b[31]), Some(7));
        assert_eq!(pages.bulk(0x1ff0, PAGE * 2), None);
        assert_eq!(pages.bulk(u64::MAX, 2), None);
        assert_eq!(pages.bytes_as_far_as_mapped(0x2ff0, 64).len(), 16);
        assert_eq!(pages.bytes_as_far_as_mapped(0x1ff0, 64), pages.bytes(0x1ff0, 64).unwrap());
        assert!(pages.bytes_as_far_as_mapped(u64::MAX, 64).is_empty());
    }

    #[test]
    fn a_page_is_read_once_a_drain() {
        let mut pages = Pages::new(image());
        pages.prefetch([0x1000, 0x1ff8, 0x2000]);
        let once = pages.counts();
        assert_eq!((once.calls, once.pages), (1, 2));
        assert_eq!(pages.u64(0x1008), Some(0x0f0e_0d0c_0b0a_0908));
        assert_eq!(pages.counts(), once);
        pages.memory.pages.insert(0x1000, vec![1; PAGE]);
        pages.begin();
        assert_eq!(pages.u64(0x1008), Some(0x0101_0101_0101_0101));
    }

    /// A process that ends.
    struct Mortal(Image, bool);

    impl Memory for Mortal {
        fn read(&mut self, places: &mut [RemoteRead<'_>]) -> Result<usize, VmError> {
            let errno = nix::errno::Errno::ESRCH;
            if self.1 { Err(VmError::Refused { pid: 1, errno }) } else { self.0.read(places) }
        }
    }

    #[test]
    fn what_was_read_outlives_the_process_for_a_second() {
        let mut pages = Pages::new(Mortal(image(), false));
        assert!(pages.u64(0x1008).is_some());
        pages.begin();
        pages.memory.1 = true;
        assert!(!pages.is_gone());
        assert_eq!(pages.u64(0x1008), Some(0x0f0e_0d0c_0b0a_0908));
        assert!(pages.is_gone());
        // Never read before.
        assert_eq!(pages.u64(0x2000), None);
        pages.begin();
        assert!(pages.u64(0x1008).is_some());
        for (read, _) in pages.kept.values_mut() {
            *read = read.checked_sub(STALE * 2).unwrap();
        }
        pages.begin();
        assert_eq!(pages.u64(0x1008), None);
    }

    #[test]
    fn the_budget_ends_a_drain() {
        let mut pages = Pages::new(image());
        for at in 0..BUDGET as u64 + 10 {
            pages.u64(0x10_0000 + at * PAGE as u64);
        }
        assert_eq!(pages.u64(0x1000), None);
        pages.begin();
        assert!(pages.u64(0x1000).is_some());
        assert_eq!(pages.counts().exhausted, 1);
    }
}
