//! The perf map that V8 writes beside the run, as the truth for names of compiled code.

use std::collections::{BTreeMap, HashMap};

use formats::perfmap::PerfMapParser;
use recorder::v8::V8;
use recorder::v8::frame::Frame;

/// A map as far as it has been read; a later entry replaces those it overlaps.
pub(crate) struct MapFile {
    path: String,
    at: u64,
    parser: PerfMapParser,
    entries: BTreeMap<u64, (u64, String)>,
}

impl MapFile {
    pub(crate) fn new(pid: u32) -> Self {
        let path = format!("/tmp/perf-{pid}.map");
        Self { path, at: 0, parser: PerfMapParser::default(), entries: BTreeMap::new() }
    }

    pub(crate) fn read(&mut self) {
        use std::io::{Read, Seek};
        let Ok(mut file) = std::fs::File::open(&self.path) else { return };
        file.seek(std::io::SeekFrom::Start(self.at)).unwrap();
        let mut bytes = Vec::new();
        self.at += file.read_to_end(&mut bytes).unwrap() as u64;
        let entries = &mut self.entries;
        self.parser.push(&bytes, |entry| {
            let end = entry.start + entry.size;
            while let Some((&start, _)) = entries
                .range(..end)
                .next_back()
                .filter(|&(&start, &(size, _))| start + size > entry.start)
            {
                entries.remove(&start);
            }
            entries.insert(
                entry.start,
                (entry.size, String::from_utf8_lossy(entry.name).into_owned()),
            );
        });
    }

    fn name(&self, pc: u64) -> Option<&str> {
        let (start, (size, name)) = self.entries.range(..=pc).next_back()?;
        (pc < start + size).then_some(name.as_str())
    }
}

/// Compares each machine frame with the map's name for its pc.
pub(crate) fn check_map(
    v8: &V8,
    frames: &[Frame],
    map: &MapFile,
    tally: &mut BTreeMap<String, u64>,
    differences: &mut HashMap<(String, String), u64>,
) {
    let mut count = |key: &str| *tally.entry(key.to_owned()).or_default() += 1;
    for (index, frame) in frames.iter().enumerate() {
        let (pc, mine) = match *frame {
            Frame::Js { function, inlined: false, pc, .. } => (pc, Some(function)),
            Frame::Unknown { address, call, .. } | Frame::Code { address, call } => {
                (address - u64::from(call), None)
            }
            _ => continue,
        };
        let Some(name) = map.name(pc) else { continue };
        let Some((kind, rest)) = name.split_once(':') else { continue };
        if !matches!(kind, "JS" | "LazyCompile" | "Function" | "Eval" | "Script") {
            continue;
        }
        let name = rest.trim_start_matches(['~', '*', '^', '+', '\'']);
        let Some(mine) = mine else {
            let what = if matches!(frame, Frame::Code { .. }) { "missed" } else { "unknown" };
            count(&format!("map {what}{}", if index == 0 { " innermost" } else { "" }));
            continue;
        };
        let function = v8.function(mine).unwrap();
        let own = String::from_utf8_lossy(&function.name);
        let script = function.script.and_then(|script| v8.script(script));
        let file = script.map_or(String::new(), |s| String::from_utf8_lossy(&s.name).into_owned());
        let place = function.start.zip(script).and_then(|(at, s)| s.place(at));
        let (line, column) = place.unwrap_or_default();
        let mut forms = vec![format!("{own} {file}:{line}:{column}"), format!("{own} {file}")];
        // V8 up to 10 writes no column.
        forms.push(format!("{own} {file}:{line}"));
        if function.inferred || own.is_empty() {
            forms.push(format!(" {file}:{line}"));
        }
        if function.inferred || own.is_empty() {
            forms.push(format!(" {file}:{line}:{column}"));
        }
        let equal = forms.iter().any(|form| form.trim() == name.trim())
            || place.is_none() && name.starts_with(&format!("{own} {file}:"));
        count(if equal { "map same" } else { "map differs" });
        if !equal {
            if index == 0 {
                count("map differs innermost");
            }
            *differences.entry((forms[0].clone(), name.to_owned())).or_default() += 1;
        }
    }
}
