//! What a capture says, as types. Indexes (`object`, `process`, …) count from 0 in the order in
//! which the capture defines them. Times are CLOCK_MONOTONIC in nanoseconds.

use serde::{Deserialize, Serialize};

/// One level of a stack, as the recorder saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Frame {
    /// Code of a file: the place is a file offset, so it holds wherever the file is mapped.
    Native {
        /// Index into the objects.
        object: u32,
        /// File offset of the instruction in bytes.
        offset: u64,
        /// Whether this is a return address: the call is the instruction *before* it.
        call: bool,
    },
    /// Code made at run time. Its name depends on the time of the sample: addresses are reused.
    Jit {
        /// Index into the processes.
        process: u32,
        /// Address in the process.
        address: u64,
        /// Whether this is a return address.
        call: bool,
    },
    /// A JavaScript frame that the recorder has resolved itself.
    Js {
        /// Index into the functions.
        function: u32,
        /// The place that runs: character offset in the function's script plus 1, or 0 when it is
        /// not known.
        position: u32,
        /// What ran the function.
        tier: Tier,
        /// Whether it is part of the code of the next frame outwards.
        inlined: bool,
    },
    /// A JavaScript frame that the recorder could not name.
    Nameless(NoName),
    /// Kernel code.
    Kernel {
        /// Kernel virtual address.
        address: u64,
        /// Whether this is a return address.
        call: bool,
    },
    /// A user address in no known mapping: as a rule a frame pointer register that held data.
    Unmapped {
        /// The address.
        address: u64,
    },
    /// Not code: something to be said at this place of the stack.
    Marker(Marker),
}

/// What ran a JavaScript function. Open: later versions add values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tier(pub u8);

impl Tier {
    /// Bytecode in the interpreter.
    pub const INTERPRETER: Self = Self(0);
    /// Sparkplug.
    pub const BASELINE: Self = Self(1);
    /// Maglev.
    pub const MAGLEV: Self = Self(2);
    /// Turbofan.
    pub const TURBOFAN: Self = Self(3);
    /// Not JavaScript: a function that is built into V8.
    pub const BUILTIN: Self = Self(4);
    /// Not JavaScript: code that V8 made for something else, named by its function's name.
    pub const GENERATED: Self = Self(5);
}

/// Why a JavaScript frame has no name. Open: later versions add values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NoName(pub u8);

impl NoName {
    /// Its objects had been moved or freed when the recorder came to read them.
    pub const MOVED: Self = Self(1);
    /// What the stack and the heap said contradicted each other.
    pub const CONTRADICTION: Self = Self(2);
    /// The process had ended before the recorder came to read it.
    pub const ENDED: Self = Self(3);
}

/// A remark inside a stack. Open: later versions add values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Marker(pub u8);

impl Marker {
    /// The kernel's limit on the length of a callchain was reached: outer frames are missing.
    pub const TRUNCATED: Self = Self(1);
    /// The recorder's tables were full: the stack was not kept.
    pub const DROPPED: Self = Self(2);
    /// The chunk that defined this part of the stack is damaged or missing (made by the reader).
    pub const DAMAGED: Self = Self(3);
    /// The next frame outwards was put in from the stack's top word, not from the callchain.
    pub const CALLER_INSERTED: Self = Self(4);
    /// The part of the stack that the kernel copied ends here: outer frames are missing.
    pub const CUT: Self = Self(5);
    /// Frames are missing here: the chain was lost and found again further out.
    pub const GAP: Self = Self(6);
    /// The chain was lost here: outer frames are missing.
    pub const BROKEN: Self = Self(7);
    /// The probe was hit so often that no stack was taken of this hit.
    pub const NOT_TAKEN: Self = Self(8);
    /// The frames outwards of this were not copied with the sample but read some milliseconds later:
    /// native frames from the event loop to the thread's start.
    pub const READ_LATER: Self = Self(9);
}

/// A file (or file-like thing) whose code was mapped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Object {
    /// Path as the target saw it, or `[vdso]`, `[kernel.kallsyms]`.
    pub path: Vec<u8>,
    /// NT_GNU_BUILD_ID, empty when there is none.
    pub build_id: Vec<u8>,
    /// [`Object::DELETED`] and so on.
    pub flags: u32,
}

impl Object {
    /// The file had been replaced or removed when it was recorded.
    pub const DELETED: u32 = 1;
    /// The file has no `.symtab`.
    pub const STRIPPED: u32 = 2;
    /// The file could not be opened, so none of its addresses has a name.
    pub const UNREADABLE: u32 = 4;
    /// Stands for the kernel: offsets are kernel addresses.
    pub const KERNEL: u32 = 8;
}

/// One program image: a process from its start, or from its exec, on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Process {
    /// Process id as the recorder saw it.
    pub pid: u32,
    /// Parent's process id, 0 when not known.
    pub parent: u32,
    /// When it appeared; the recording's start for what ran before.
    pub start_ns: u64,
    /// Name as in `/proc/PID/comm`.
    pub comm: Vec<u8>,
    /// Arguments separated by NUL, as in `/proc/PID/cmdline`; empty when it was gone too soon.
    pub cmdline: Vec<u8>,
    /// V8 flags found in NODE_OPTIONS, separated by spaces.
    pub node_options: Vec<u8>,
}

/// A thread of a process image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Thread {
    /// Index into the processes.
    pub process: u32,
    /// Thread id as the recorder saw it.
    pub tid: u32,
}

/// The end of a process image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProcessEnd {
    /// Index into the processes.
    pub process: u32,
    /// When.
    pub time_ns: u64,
}

/// What a process had before its operations were recorded: an open descriptor, or its working
/// directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holding {
    /// Index into the processes.
    pub process: u32,
    /// The descriptor plus 1, or 0 for the working directory.
    pub number: u32,
    /// When it was looked at. Probes were armed before, so that a recorded open can be the same.
    pub time_ns: u64,
    /// What it was: a path, or a word of the kernel such as `socket:[4711]` (proc(5),
    /// /proc/pid/fd).
    pub target: Vec<u8>,
}

/// A file mapped executable into a process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mapping {
    /// Index into the processes.
    pub process: u32,
    /// Index into the objects.
    pub object: u32,
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// File offset of the first byte.
    pub offset: u64,
    /// When it was seen.
    pub time_ns: u64,
}

/// What a JIT map gained between two looks at it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JitBatch {
    /// Index into the processes.
    pub process: u32,
    /// Time of the look before: the entries are younger. 0 when they may be of any age.
    pub after_ns: u64,
    /// Time of this look: the entries are older.
    pub seen_ns: u64,
    /// The entries in file order.
    pub entries: Vec<JitEntry>,
}

/// One line of a JIT map.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JitEntry {
    /// First address.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
    /// Name as the runtime wrote it.
    pub name: Vec<u8>,
}

/// A symbol of an object that covers an address which occurs in a stack.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Symbol {
    /// Index into the objects.
    pub object: u32,
    /// File offset of its first byte (kernel: address).
    pub start: u64,
    /// Length in bytes, never 0.
    pub size: u64,
    /// Name as in the symbol table, not demangled.
    pub name: Vec<u8>,
}

/// A JavaScript function that the recorder has resolved.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Function {
    /// Index into the scripts plus 1, or 0 for what has no source.
    pub script: u32,
    /// Name, or the one that V8 inferred; empty for an anonymous function.
    pub name: Vec<u8>,
    /// Where it is defined: character offset in the script plus 1, or 0 when it is not known.
    pub start: u32,
}

/// A JavaScript source. Its text is not stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Script {
    /// Index into the processes.
    pub process: u32,
    /// URL or path; empty for `eval` and the like.
    pub name: Vec<u8>,
    /// What `//# sourceURL` says; empty without it.
    pub source_url: Vec<u8>,
    /// What `//# sourceMappingURL` says; empty without it, or where it is too long to be kept.
    pub source_map_url: Vec<u8>,
    /// Lines of its file before the source.
    pub line_offset: u32,
    /// Characters of its file before the source, in the source's first line.
    pub column_offset: u32,
}

/// Where the lines of a script end. Comes after the script, when its text has been read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LineEnds {
    /// Index into the scripts.
    pub script: u32,
    /// Character offset of each line end, ascending; the last is the text's length.
    pub ends: Vec<u32>,
}

impl LineEnds {
    /// Line and column of a character offset in the text, both counted from 0.
    #[must_use]
    pub fn place(&self, offset: u32) -> Option<(u32, u32)> {
        let line = self.ends.partition_point(|&end| end < offset);
        self.ends.get(line)?;
        let before = line.checked_sub(1).and_then(|before| self.ends.get(before));
        let first = before.map_or(0, |end| end.saturating_add(1));
        Some((line as u32, offset.checked_sub(first)?))
    }
}

/// Records that are not in the capture.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loss {
    /// Event id.
    pub event: u32,
    /// When it was noticed.
    pub time_ns: u64,
    /// How many the kernel lost for want of ring space.
    pub lost: u64,
    /// How many the recorder dropped.
    pub dropped: u64,
}

/// Type of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    /// Unsigned integer.
    Unsigned,
    /// Signed integer, stored sign-extended to 64 bits.
    Signed,
    /// Unsigned integer that people read in hexadecimal.
    Hex,
    /// Bytes of a C string without the NUL.
    String,
    /// Elements of a fixed array, little endian, as they lay in the record.
    Bytes,
}

/// One argument of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldDef {
    /// Name.
    pub name: String,
    /// Type.
    #[serde(rename = "type")]
    pub kind: FieldType,
}

/// What was recorded under one event id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventDef {
    /// Number by which samples refer to it.
    pub id: u32,
    /// Name: `cpu`, a catalogue function such as `uv_fs_open`, or the probe as the user wrote it.
    pub name: String,
    /// The set it belongs to: `cpu`, `fs`, `probe`.
    pub set: String,
    /// What the kernel counted or where the probe sits, for people.
    pub source: String,
    /// Arguments of each sample, in order.
    pub fields: Vec<FieldDef>,
    /// For time samples: nanoseconds that one sample stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period_ns: Option<u64>,
}

/// Something the reader of a report must know, counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remark {
    /// Stable key, for example `jit-map-owner`.
    pub code: String,
    /// The sentence.
    pub text: String,
    /// How often.
    pub count: u64,
}

/// First chunk: what was recorded, where and how.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Meta {
    /// Program and version that wrote the file.
    pub recorder: String,
    /// Command line of the recorder.
    pub command: Vec<String>,
    /// `attach` or `launch`.
    pub mode: String,
    /// Process ids that were asked for (launch: the command's).
    pub targets: Vec<u32>,
    /// Recording's start.
    pub start_ns: u64,
    /// CLOCK_REALTIME at `start_ns`, nanoseconds since 1970.
    pub start_wall_ns: u64,
    /// Kernel release.
    pub kernel: String,
    /// Machine architecture.
    pub arch: String,
    /// CPUs that were online.
    pub cpus: u32,
    /// Sampling frequency in Hz, 0 without time samples.
    pub frequency: u32,
    /// Ring memory in bytes over all CPUs.
    pub ring_bytes: u64,
    /// How JavaScript frames got their names: `heap`, `map` or `off`.
    pub js: String,
    /// Bytes of user stack that the kernel copied with each sample, 0 with callchains.
    pub stack_bytes: u32,
}

/// Last chunk: how the recording ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct End {
    /// Why: `command-ended`, `duration`, `interrupt`, `terminated`, `target-ended`.
    pub reason: String,
    /// Recording's end.
    pub end_ns: u64,
    /// Exit status of the launched command or target, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<i32>,
}
