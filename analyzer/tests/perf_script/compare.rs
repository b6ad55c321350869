//! Samples of a capture beside those of `perf script`, frame by frame.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::fs;

use formats::capture::{Capture, Frame, Object, Samples};

/// One frame as the capture names it, before anything is demangled or parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    frame: Frame,
    name: Option<String>,
}

/// Looks names up in a capture in the plainest way.
struct Namer<'c> {
    capture: &'c Capture,
    symbols: BTreeMap<(u32, u64), (u64, &'c [u8])>,
    kernel: Option<u32>,
}

impl<'c> Namer<'c> {
    fn new(capture: &'c Capture) -> Self {
        let symbols = capture.symbols.iter();
        let symbols = symbols.map(|s| ((s.object, s.start), (s.size, s.name.as_slice()))).collect();
        let kernel = capture.objects.iter().position(|o| o.flags & Object::KERNEL != 0);
        Self { capture, symbols, kernel: kernel.map(|index| index as u32) }
    }

    fn symbol(&self, object: u32, offset: u64) -> Option<String> {
        let ((owner, start), (size, name)) = self.symbols.range(..=(object, offset)).next_back()?;
        (*owner == object && offset - start < *size)
            .then(|| String::from_utf8_lossy(name).into_owned())
    }

    /// All names that a JIT address has had, the newest at that time last.
    fn jit(&self, process: u32, address: u64, time_ns: u64) -> Vec<String> {
        let batches = self.capture.jit.iter();
        let batches = batches.filter(|b| b.process == process && b.after_ns <= time_ns);
        let entries = batches.flat_map(|batch| &batch.entries);
        entries
            .filter(|e| e.start <= address && address - e.start < e.size)
            .map(|e| String::from_utf8_lossy(&e.name).into_owned())
            .collect()
    }

    fn name(&self, frame: Frame, time_ns: u64) -> Named {
        let name = match frame {
            Frame::Native { object, offset, call } => self.symbol(object, offset - u64::from(call)),
            Frame::Kernel { address, call } => {
                self.kernel.and_then(|object| self.symbol(object, address - u64::from(call)))
            }
            Frame::Jit { process, address, call } => {
                self.jit(process, address - u64::from(call), time_ns).pop()
            }
            _ => None,
        };
        Named { frame, name }
    }

    fn stack(&self, samples: &Samples, at: usize) -> Vec<Named> {
        let frames = self.capture.stack_frames(samples.stack[at]);
        let frames = frames.filter(|frame| !matches!(frame, Frame::Marker(_)));
        frames.map(|frame| self.name(frame, samples.time_ns[at])).collect()
    }
}

/// Samples of `perf script -F tid,time,event,ip,sym`: by thread, time and event, the names leaf first.
fn parse_script(text: &str) -> HashMap<(u32, u64, String), Vec<String>> {
    let mut samples = HashMap::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim().is_empty() {
            continue;
        }
        let key = script_key(line).0;
        let mut names = Vec::new();
        while let Some(frame) = lines.next_if(|line| line.starts_with('\t')) {
            let name = frame.trim_start().split_once(' ').unwrap().1;
            names.push(name.to_owned());
        }
        samples.insert(key, names);
    }
    samples
}

/// `TID SECONDS.NANOSECONDS: EVENT: REST`.
pub(crate) fn script_key(line: &str) -> ((u32, u64, String), &str) {
    let (tid, rest) = line.trim_start().split_once(' ').unwrap_or_else(|| panic!("{line:?}"));
    let (time, rest) = rest.trim_start().split_once(": ").unwrap_or_else(|| panic!("{line:?}"));
    let (seconds, nanoseconds) = time.split_once('.').unwrap();
    let time =
        seconds.parse::<u64>().unwrap() * 1_000_000_000 + nanoseconds.parse::<u64>().unwrap();
    let (event, rest) = rest.trim_start().split_once(": ").unwrap_or((rest.trim(), ""));
    ((tid.parse().unwrap(), time, event.trim_end_matches(':').to_owned()), rest)
}

/// Frames by how they compare.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    samples: usize,
    equal: usize,
    explained: BTreeMap<&'static str, usize>,
    different: Vec<String>,
}

impl Comparison {
    fn frames(&self) -> usize {
        self.equal + self.explained.values().sum::<usize>() + self.different.len()
    }

    /// Every difference has a reason that is checked, and nearly all frames are equal.
    pub(crate) fn assert_equal(&self, what: &str) {
        self.assert_mostly_equal(what);
        assert!(self.equal * 100 >= self.frames() * 98, "{what}: too many explanations");
    }

    pub(crate) fn assert_mostly_equal(&self, what: &str) {
        let mut report = format!(
            "{what}: {} samples, {} frames, {} equal, explained {:?}, different {}",
            self.samples,
            self.frames(),
            self.equal,
            self.explained,
            self.different.len()
        );
        for difference in self.different.iter().take(20) {
            write!(report, "\n  {difference}").unwrap();
        }
        eprintln!("{report}");
        let compared = self.equal + self.different.len();
        assert!(compared > 1000, "too little to compare: {report}");
        assert!(self.equal * 1000 >= compared * 999, "{report}");
    }
}

/// Kernel functions by address, all names of one address.
fn kernel_aliases() -> HashMap<String, BTreeSet<String>> {
    let text = fs::read_to_string("/proc/kallsyms").unwrap();
    let mut by_address: HashMap<&str, BTreeSet<String>> = HashMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (address, name) = (words.next().unwrap(), words.nth(1).unwrap());
        by_address.entry(address).or_default().insert(name.to_owned());
    }
    let groups = by_address.into_values().filter(|names| names.len() > 1);
    groups.flat_map(|names| names.clone().into_iter().map(move |n| (n, names.clone()))).collect()
}

/// Why a difference is none: each class is checked against the capture, not assumed.
fn explanation(
    namer: &Namer<'_>,
    ours: &Named,
    theirs: &str,
    time_ns: u64,
    aliases: &HashMap<String, BTreeSet<String>>,
) -> Option<&'static str> {
    let name = ours.name.as_deref().unwrap_or_default();
    match ours.frame {
        // perf looks a return address up as it is; where the call was a function's last instruction, that
        // is the next function. We look one byte before it.
        Frame::Native { object, offset, call: true }
            if !name.is_empty() && namer.symbol(object, offset).as_deref() != Some(name) =>
        {
            Some("return address behind the function")
        }
        Frame::Kernel { address, call: true }
            if !name.is_empty()
                && namer.kernel.and_then(|k| namer.symbol(k, address)).as_deref() != Some(name) =>
        {
            Some("return address behind the function")
        }
        Frame::Jit { process, address, call } => {
            let address = address - u64::from(call);
            let others = namer.jit(process, address, time_ns);
            let aligned = |name: &String| name == theirs;
            if others.iter().any(aligned) {
                // perf keeps one of two overlapping entries for good; we take the one that is true.
                return Some("address used twice");
            }
            let end = namer.jit(process, address + u64::from(call), time_ns);
            (call && end.iter().any(aligned)).then_some("return address behind the function")
        }
        Frame::Kernel { .. } => aliases
            .get(name)
            .is_some_and(|names| names.contains(theirs))
            .then_some("two names at one kernel address"),
        // The same builtin as V8 calls it in its jitdump, and in node's symbol table.
        Frame::Native { .. } if is_builtin(name, theirs) => Some("builtin by its V8 name"),
        // perf makes up names for the stubs of the procedure linkage table.
        Frame::Native { .. } if name.is_empty() && theirs.ends_with("@plt") => Some("plt"),
        Frame::Native { object, .. } => {
            let path = &namer.capture.objects[object as usize].path;
            (path == b"[vdso]").then_some("vdso")
        }
        _ => None,
    }
}

fn is_builtin(symbol: &str, logged: &str) -> bool {
    let Some(symbol) = symbol.strip_prefix("Builtins_") else { return false };
    logged.strip_prefix("Builtin:") == Some(symbol)
        || logged.strip_prefix("BytecodeHandler:").is_some_and(|handler| {
            // Wide bytecodes: `LdaGlobal.Wide` and `LdaGlobalWideHandler`.
            symbol.strip_suffix("Handler") == Some(handler.replace('.', "").as_str())
        })
}

/// Compares every sample of a capture with what `perf script` says of it.
pub(crate) fn compare(capture: &Capture, script: &str) -> Comparison {
    let truth = parse_script(script);
    let namer = Namer::new(capture);
    let aliases = kernel_aliases();
    let mut result = Comparison::default();
    // By key, as the truth is: now and then a thread has two samples of one event in one nanosecond.
    let mut seen = HashSet::new();
    for samples in &capture.samples {
        let event = capture.event(samples.event).unwrap();
        for (at, &time_ns) in samples.time_ns.iter().enumerate() {
            let tid = capture.threads[samples.thread[at] as usize].tid;
            let key = (tid, time_ns, event.source.clone());
            let theirs = truth.get(&key).unwrap_or_else(|| panic!("perf script lacks {key:?}"));
            seen.insert(key.clone());
            let ours = namer.stack(samples, at);
            if ours.len() != theirs.len() {
                result.different.push(format!("{key:?}: {} and {}", ours.len(), theirs.len()));
                continue;
            }
            result.samples += 1;
            for (ours, theirs) in ours.iter().zip(theirs) {
                let theirs = if theirs == "[unknown]" { "" } else { theirs };
                if ours.name.as_deref().unwrap_or_default() == theirs {
                    result.equal += 1;
                    continue;
                }
                match explanation(&namer, ours, theirs, time_ns, &aliases) {
                    Some(class) => *result.explained.entry(class).or_default() += 1,
                    None => result.different.push(format!("{ours:?} and \"{theirs}\"")),
                }
            }
        }
    }
    assert_eq!(seen.len(), truth.len(), "perf script shows other samples");
    result
}
