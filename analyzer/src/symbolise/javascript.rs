//! JavaScript frames that the recorder has resolved itself: functions, and places as offsets in
//! scripts, which become lines and columns here. It must not know how the recorder found them.
//!
//! A place is what `Error().stack` would print (V8's src/objects/call-site-info.cc): lines and columns
//! count from 1, columns in UTF-16 units; what of its file lies before a script is added, to the
//! column in the script's first line only.

use formats::capture::{Capture, LineEnds, Script, Tier};
use formats::text::clean_string;

use super::{FILE_CHARS, FUNCTION_CHARS, v8_name};
use crate::profile::{Generated, Kind, Reason, ResolvedFrame};
use crate::source_map::{OriginalPlace, Originals};

/// What V8 prints in place of a file that has no name: the text of an `eval`, for one.
const NO_FILE: &str = "<anonymous>";

/// Where and how a function ran, as the capture has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Character offset in the script plus 1; 0 when it is not known.
    pub(super) position: u32,
    pub(super) tier: Tier,
    pub(super) inlined: bool,
}

/// The functions of a capture, with the lines of their scripts.
#[derive(Debug)]
pub(crate) struct Javascript<'c> {
    capture: &'c Capture,
    originals: &'c Originals,
    ends: Vec<Option<&'c LineEnds>>,
}

impl<'c> Javascript<'c> {
    pub(crate) fn new(capture: &'c Capture, originals: &'c Originals) -> Self {
        let mut ends = vec![None; capture.scripts.len()];
        for lines in &capture.line_ends {
            if let Some(slot) = ends.get_mut(lines.script as usize) {
                *slot = Some(lines);
            }
        }
        Self { capture, originals, ends }
    }

    /// The frame of a function at a place.
    pub(super) fn frame(&self, function: u32, place: Place) -> ResolvedFrame {
        let id = function;
        let Some(function) = self.capture.functions.get(id as usize) else {
            return ResolvedFrame::nameless(Kind::Js, Reason::Damaged);
        };
        let kind = match place.tier {
            Tier::BUILTIN => Kind::Builtin,
            Tier::GENERATED => Kind::Jit,
            _ => Kind::Js,
        };
        if kind != Kind::Js {
            return match clean_string(&function.name, FUNCTION_CHARS) {
                name if name.is_empty() => ResolvedFrame::nameless(kind, Reason::NoSymbol),
                name => ResolvedFrame::named(kind, name),
            };
        }
        let script = function.script.checked_sub(1);
        let runs = script.and_then(|script| self.generated(script, place.position));
        let defined = script.and_then(|script| self.generated(script, function.start));
        let known = runs.or(defined);
        let frame = ResolvedFrame {
            file: script.map(|script| self.file(script)),
            line: known.map(|(line, _column)| line),
            column: known.map(|(_line, column)| column),
            defined_line: defined.map(|(line, _column)| line),
            defined_column: defined.map(|(_line, column)| column),
            executing: runs.is_some(),
            inlined: place.inlined,
            ..ResolvedFrame::named(Kind::Js, v8_name::function_name(&function.name))
        };
        let Some(script) = script else { return frame };
        let original = |position| self.originals.place(script, position);
        let frame = written(frame, original(place.position), original(function.start));
        match self.originals.name(id) {
            Some(name) => ResolvedFrame { function: name.to_owned(), ..frame },
            None => frame,
        }
    }

    /// The name of a script: its own, or what `//# sourceURL` gives one that has none.
    fn file(&self, script: u32) -> String {
        let script = self.capture.scripts.get(script as usize);
        let name = script.map(|script| match script.name.as_slice() {
            b"" => script.source_url.as_slice(),
            name => name,
        });
        match name.map(|name| clean_string(name, FILE_CHARS)) {
            Some(name) if !name.is_empty() => name,
            _ => NO_FILE.to_owned(),
        }
    }

    /// Line and column, counted from 1, of a character offset plus 1.
    pub(crate) fn generated(&self, script: u32, position: u32) -> Option<(u32, u32)> {
        let offset = position.checked_sub(1)?;
        let (line, column) = self.ends.get(script as usize).copied()??.place(offset)?;
        let script = self.capture.scripts.get(script as usize)?;
        let before = if line == 0 { script.column_offset } else { 0 };
        let (line, column) = if is_named_by_url(script) {
            (line, column)
        } else {
            // `vm` takes negative offsets too: their bits are those of an i32.
            (
                line.checked_add_signed(script.line_offset as i32)?,
                column.checked_add_signed(before as i32)?,
            )
        };
        Some((line.checked_add(1)?, column.checked_add(1)?))
    }
}

/// The frame at the places where its code was written. Code that a compiler put into a function that
/// was written counts for the function as a whole.
fn written(
    frame: ResolvedFrame,
    runs: Option<&OriginalPlace>,
    defined: Option<&OriginalPlace>,
) -> ResolvedFrame {
    let Some(known) = runs.or(defined) else { return frame };
    let generated = match (&frame.file, frame.line, frame.column) {
        (Some(file), Some(line), Some(column)) => {
            Some(Box::new(Generated { file: file.clone(), line, column }))
        }
        _ => None,
    };
    // A definition in another file would be taken for one in this.
    let defined = defined.filter(|defined| defined.file == known.file);
    ResolvedFrame {
        file: Some(known.file.clone()),
        line: Some(known.line),
        column: Some(known.column),
        defined_line: defined.map(|place| place.line),
        defined_column: defined.map(|place| place.column),
        executing: runs.is_some(),
        generated,
        ..frame
    }
}

/// Whether a script goes by its `//# sourceURL`: then its own first line is line 1.
fn is_named_by_url(script: &Script) -> bool {
    script.name.is_empty() && !script.source_url.is_empty()
}
