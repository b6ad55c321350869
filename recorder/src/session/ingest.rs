//! From ordered records to the capture: each record updates the world, or becomes a sample.
//!
//! Decodes with `linux-perf-event-reader`; knows neither rings nor descriptors.

use std::collections::HashMap;
use std::io::{self, Write};

use formats::capture::{
    CaptureWriter, End, EventDef, FieldValue, Frame, Loss, Marker, Remark, StackId, WriteStats,
};
use formats::limits::Limits;
use formats::tracepoint::Value;
use linux_perf_event_reader::{
    EventRecord, Mmap2FileId, RawEventRecord, RecordParseInfo, RecordType,
};

use super::decoder::{Decoder, Role, cut_string, value};
use super::heap::{Copied, Heaps};
use super::hits::{self, Answer, Hits};
use super::naming::Naming;
use super::stacks::Stacks;
use super::world::{MappingSeen, Running, World};
use crate::plan::JsSource;
use crate::process::holdings::Holdings;
use crate::sys::clock;
use crate::sys::record::RawRecord;
use crate::unwind::{Registers, StackDump};

/// A string did not fit into a record.
fn strings_cut() -> Remark {
    let text = "paths, or other strings, were longer than what the kernel records of them, about 4000 \
                bytes: they are cut and end in \u{2026}";
    Remark { code: "strings-cut".into(), text: text.into(), count: 1 }
}

/// A file that a followed process has mapped for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewMapping {
    /// Process.
    pub pid: u32,
    /// Index of the object.
    pub object: u32,
}

/// What happened to a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadSeen {
    /// The thread of this id has begun.
    Begun(u32),
    /// It has ended.
    Ended(u32),
}

/// Counts for the status line and the summary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Samples by event id; those of a function that shares a probe also under the probe's.
    pub samples: HashMap<u32, u64>,
    /// Records that the kernel lost.
    pub lost: u64,
    /// Records that could not be understood.
    pub bad_records: u64,
}

/// Everything between the rings and the file.
#[derive(Debug)]
pub struct Ingest<W> {
    /// Processes and files.
    pub world: World,
    /// The capture.
    pub writer: CaptureWriter<W>,
    /// What has been counted.
    pub counts: Counts,
    /// Files that have appeared since they were last taken.
    pub new_mappings: Vec<NewMapping>,
    /// Threads other than main ones that have begun or ended since they were last taken.
    pub threads: Vec<ThreadSeen>,
    /// Readers of V8's heap.
    pub heaps: Heaps,
    /// Whether what processes have open is told.
    pub follows_files: bool,
    js: JsSource,
    stacks: Stacks,
    hits: Hits,
    /// Hits of which no stack was taken, by event.
    pub without_stack: HashMap<u32, u64>,
    /// Names of native and kernel addresses.
    pub naming: Naming,
    limits: Limits,
    decoders: HashMap<u64, Decoder>,
    sideband: RecordParseInfo,
    remarks: HashMap<String, Remark>,
    chain: Vec<u64>,
    raw: Vec<u8>,
}

impl<W: Write> Ingest<W> {
    /// `sideband` is the layout of records that are not samples; `max_depth` the kernel's limit on
    /// callchains.
    pub fn new(
        world: World,
        writer: CaptureWriter<W>,
        sideband: RecordParseInfo,
        max_depth: usize,
        limits: Limits,
        js: JsSource,
    ) -> Self {
        Self {
            world,
            writer,
            counts: Counts::default(),
            new_mappings: Vec::new(),
            threads: Vec::new(),
            heaps: Heaps::default(),
            follows_files: false,
            js,
            stacks: Stacks::new(max_depth),
            hits: Hits::default(),
            without_stack: HashMap::new(),
            naming: Naming::default(),
            limits,
            decoders: HashMap::new(),
            sideband,
            remarks: HashMap::new(),
            chain: Vec::new(),
            raw: Vec::new(),
        }
    }

    /// Defines an event in the capture.
    ///
    /// # Errors
    /// As [`CaptureWriter::event`].
    pub fn define(&mut self, event: &EventDef) -> io::Result<()> {
        self.writer.event(event)
    }

    /// Says how the samples that carry the kernel's `id` are read.
    pub fn decode_by(&mut self, id: u64, decoder: Decoder) {
        self.decoders.insert(id, decoder);
    }

    /// No more samples carry the kernel's `id`.
    pub fn forget(&mut self, id: u64) {
        self.decoders.remove(&id);
    }

    /// Takes in a process that runs already.
    pub fn adopt(&mut self, pid: u32, now: u64) {
        self.world.adopt(&mut self.writer, pid, now);
        if self.js == JsSource::Heap
            && let Some(running) = self.world.process(pid)
        {
            // Now, as finding V8 in a file takes a tenth of a second, and samples must not wait.
            self.heaps.attach(pid, running, &self.world);
        }
    }

    /// Tells what a process has open now, where file operations are recorded. Its probes are armed:
    /// what changes from now on is seen.
    pub fn look_at_holdings(&mut self, pid: u32) {
        let Some(now) = clock::monotonic_ns().ok().filter(|_| self.follows_files) else { return };
        let found = Holdings::of(pid);
        if let Some(text) = found.problem.clone() {
            self.remark(Remark { code: "descriptors-unknown".into(), text, count: 1 });
        }
        self.world.holds(&mut self.writer, pid, found, now);
        if self.writer.wants_flush() {
            // What keeps this from being written will keep the next flush, which says so.
            let _said_later = self.writer.flush();
        }
    }

    /// Whether names are read from heaps.
    #[must_use]
    pub fn reads_heaps(&self) -> bool {
        self.js == JsSource::Heap
    }

    /// A drain begins.
    pub fn begin_drain(&mut self) {
        self.heaps.begin_drain();
    }

    /// A drain ends.
    pub fn end_drain(&mut self) {
        self.heaps.end_drain(&mut self.writer, &self.world);
    }

    /// Adds a remark; equal ones are counted.
    pub fn remark(&mut self, remark: Remark) {
        let key = format!("{}\0{}", remark.code, remark.text);
        self.remarks.entry(key).and_modify(|known| known.count += remark.count).or_insert(remark);
    }

    /// The remarks that concern the user at once: what is recorded will have no names.
    pub fn warnings(&mut self) -> Vec<String> {
        for remark in self.heaps.take_remarks() {
            self.remark(remark);
        }
        let grave = ["jit-map-refused", "js-not-readable"];
        let refused = self.remarks.values().filter(|remark| grave.contains(&remark.code.as_str()));
        let mut texts: Vec<_> = refused.map(|remark| remark.text.clone()).collect();
        texts.sort();
        texts
    }

    /// Takes one record, in time order.
    pub fn record(&mut self, record: &RawRecord<'_>, time_ns: u64, id: u64) {
        if record.is_sample() {
            if self.sample(record, time_ns, id).is_none() {
                self.counts.bad_records += 1;
            }
            return;
        }
        let record_type = RecordType(record.type_);
        let data = record.body().raw_data();
        let parsed = RawEventRecord::new(record_type, record.misc, data, self.sideband).parse();
        let Ok(parsed) = parsed else {
            self.counts.bad_records += 1;
            return;
        };
        match parsed {
            EventRecord::Mmap2(map) => {
                let path = map.path.as_slice();
                let Mmap2FileId::InodeAndVersion(inode) = map.file_id else { return };
                let seen = MappingSeen {
                    pid: map.pid as u32,
                    start: map.address,
                    length: map.length,
                    offset: map.page_offset,
                    device: (inode.major, inode.minor),
                    inode: inode.inode,
                    path: &path,
                    time_ns,
                };
                if let Some(object) = self.world.mapped(&mut self.writer, &seen) {
                    self.new_mappings.push(NewMapping { pid: seen.pid, object });
                }
            }
            EventRecord::Comm(comm) if comm.is_execve => {
                let name = comm.name.as_slice();
                self.world.executed(&mut self.writer, comm.pid as u32, &name, time_ns);
                self.look_at_holdings(comm.pid as u32);
            }
            EventRecord::Fork(fork) if fork.pid != fork.ppid => {
                self.world.forked(&mut self.writer, fork.pid as u32, fork.ppid as u32, time_ns);
            }
            EventRecord::Fork(fork) => self.threads.push(ThreadSeen::Begun(fork.tid as u32)),
            EventRecord::Exit(exit) if exit.pid != exit.tid => {
                self.threads.push(ThreadSeen::Ended(exit.tid as u32));
            }
            EventRecord::Exit(exit) => {
                let needed = map_needed(self.js, &self.heaps);
                self.world.exited(&mut self.writer, exit.pid as u32, needed, time_ns);
            }
            EventRecord::Lost(lost) => self.counts.lost += lost.count,
            _ => {}
        }
    }

    fn sample(&mut self, record: &RawRecord<'_>, time_ns: u64, id: u64) -> Option<()> {
        let decoder = self.decoders.get(&id)?;
        let body = record.body().raw_data();
        let parsed = RawEventRecord::new(RecordType::SAMPLE, record.misc, body, decoder.layout);
        let Ok(EventRecord::Sample(sample)) = parsed.parse() else { return None };
        let (pid, tid) = (sample.pid? as u32, sample.tid? as u32);
        // The idle task and exiting tasks have no process any more.
        if pid == 0 || pid == u32::MAX {
            return Some(());
        }
        let thread = self.world.thread(&mut self.writer, pid, tid, time_ns)?;
        self.raw.clear();
        if let Some(raw) = sample.raw {
            self.raw.extend_from_slice(&raw.as_slice());
        }
        let caller = decoder.caller.as_ref().and_then(|field| match field.read(&self.raw) {
            Value::U64(address) => Some(address),
            _ => None,
        });
        self.chain.clear();
        if let Some(chain) = sample.callchain {
            self.chain.extend((0..chain.len()).map_while(|at| chain.get(at)));
        }
        let running = self.world.process(pid)?;
        let (writer, naming) = (&mut self.writer, &mut self.naming);
        let stack = if decoder.layout.sample_regs_user != 0 {
            // Behind what the kernel could copy lies what was in the ring before.
            let copy = sample.user_stack.map(|(bytes, copied)| (bytes.as_slice(), copied as usize));
            let copy = copy.as_ref().map(|(bytes, copied)| bytes.get(..*copied).unwrap_or(bytes));
            let registers = sample
                .user_regs
                .as_ref()
                .map(|regs| Registers::of_sample(|number| regs.get(number)));
            let dump = registers.zip(copy).map(|(registers, stack)| {
                let at_entry = at_entry(&self.world, running, &decoder.entries, registers.ip);
                StackDump { registers, stack, at_entry }
            });
            let copied = Copied { kernel: &self.chain, dump };
            self.heaps.stack(writer, &self.world, naming, (pid, running), &copied)
        } else if sample.callchain.is_some() {
            self.stacks.intern(writer, &self.world, naming, running, &self.chain, caller)
        } else {
            StackId::default()
        };
        let record = hits::Record {
            tid,
            event: decoder.event,
            time_ns,
            raw: &self.raw,
            epoch: self.writer.epoch(),
        };
        let stack = match decoder.role {
            // Time samples, and probes of which no stack is copied, have one event only.
            Role::Each if self.raw.is_empty() || decoder.layout.sample_regs_user == 0 => stack,
            role => match self.hits.take(record, role, stack) {
                Answer::Write(stack) => stack,
                Answer::WriteWithout => {
                    *self.without_stack.entry(decoder.event).or_default() += 1;
                    self.writer.stack(StackId::default(), Frame::Marker(Marker::NOT_TAKEN))
                }
                Answer::Nothing => return Some(()),
            },
        };
        let (event, fields) = decoder.event_of(&self.raw)?;
        let mut values: Vec<FieldValue<'_>> =
            fields.iter().map(|field| value(field, &self.raw)).collect();
        // A string is the last of what is fetched.
        let cut = fields.last().and_then(|field| cut_string(field, &self.raw));
        if let (Some(cut), Some(last)) = (&cut, values.last_mut()) {
            *last = FieldValue::Bytes(cut);
        }
        self.writer.sample(event, time_ns, thread, stack, &values);
        *self.counts.samples.entry(decoder.event).or_default() += 1;
        if event != decoder.event {
            *self.counts.samples.entry(event).or_default() += 1;
        }
        if cut.is_some() {
            self.remark(strings_cut());
        }
        Some(())
    }

    /// Records how many samples an event lost since the last time.
    pub fn loss(&mut self, loss: Loss) {
        self.writer.loss(loss);
    }

    /// Looks at the JIT maps. `true`: write what waits and look again.
    pub fn look_at_jit_maps(&mut self, now: u64) -> bool {
        let mut refused = Vec::new();
        let needed = map_needed(self.js, &self.heaps);
        let take = |remark| refused.push(remark);
        let more = self.world.look_at_jit_maps(&mut self.writer, now, needed, take);
        for remark in refused {
            self.remark(remark);
        }
        more
    }

    /// Names what has occurred and writes a chunk.
    ///
    /// # Errors
    /// What writing the file says.
    pub fn flush(&mut self) -> io::Result<()> {
        let mut remarks = Vec::new();
        let objects = &mut self.world.objects;
        self.naming.write(&mut self.writer, objects, &self.limits, |remark| remarks.push(remark));
        for remark in remarks {
            self.remark(remark);
        }
        self.writer.flush()
    }

    /// Writes the last chunks.
    ///
    /// # Errors
    /// What writing the file says.
    pub fn finish(mut self, end: &End) -> io::Result<(W, WriteStats)> {
        let counted = [
            (
                "jit-bad-lines",
                self.world.bad_jit_lines(),
                "lines of JIT maps that were not understood",
            ),
            (
                "jit-map-restarted",
                self.world.jit_map_restarts(),
                "a JIT map was begun anew, which costs names: Node 18 does it for each worker \
                 thread",
            ),
            (
                "names-after-end",
                self.heaps.named_after_end(),
                "stacks of a process that had ended were named by what was known of it until then",
            ),
            (
                "bad-records",
                self.counts.bad_records,
                "records of the kernel that were not understood",
            ),
            (
                "too-many-processes",
                self.world.refused_processes(),
                "processes that were not followed",
            ),
        ];
        for (code, count, what) in counted.into_iter().filter(|&(_, count, _)| count > 0) {
            self.remark(Remark { code: code.into(), text: what.into(), count });
        }
        self.heaps.finish(&mut self.writer);
        self.flush()?;
        let mut remarks: Vec<_> = self.remarks.into_values().collect();
        remarks.sort_by(|a, b| (&a.code, &a.text).cmp(&(&b.code, &b.text)));
        for remark in &remarks {
            self.writer.remark(remark)?;
        }
        self.writer.finish(end)
    }
}

/// Whether a process's JIT map is needed, by the process's index.
fn map_needed(js: JsSource, heaps: &Heaps) -> impl Fn(u32) -> bool {
    move |process| js != JsSource::Off && !heaps.reads(process)
}

/// Whether an address is a probed one at which the frame pointer is still the caller's.
fn at_entry(world: &World, running: &Running, entries: &[u64], address: u64) -> bool {
    let Frame::Native { offset, .. } = world.frame(running, address, false) else { return false };
    entries.contains(&offset)
}
