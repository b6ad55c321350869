//! Source maps, on demand: where the JavaScript of a capture was written, before a compiler or a
//! bundler made of it what ran. The only part of the analysis that reads files other than the capture.
//!
//! Everything is looked up beforehand: one map is in memory at a time. It must not know stacks.

mod files;
mod mappings;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use formats::capture::{Capture, Frame};
use formats::text::{Clean, clean_string};

use self::files::{FileError, Location};
use self::mappings::{MapError, NamedToken, Place, SourceMap};
use crate::symbolise::javascript::Javascript;
use crate::symbolise::{FILE_CHARS, FUNCTION_CHARS};

/// Longest object in a problem, characters.
const OBJECT_CHARS: usize = 300;
/// What may stand between a function's name and its parameters where a minifier wrote it: nothing,
/// or `=`, `=async`, `=function`, `=async function` (or `:` for `=`).
const GAPS: [u32; 5] = [0, 1, 6, 9, 15];

/// A place in the text that people wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginalPlace {
    /// Path, or the name that the map gives.
    pub file: String,
    /// Line, counted from 1.
    pub line: u32,
    /// Column, counted from 1.
    pub column: u32,
}

/// A map that was not used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The map's path, or the script's name if the map is inside it.
    pub object: String,
    /// Why, as a sentence.
    pub reason: String,
}

/// What source maps say of the functions and places of a capture.
#[derive(Debug, Clone, Default)]
pub struct Originals {
    /// By script and position (character offset plus 1).
    places: HashMap<(u32, u32), OriginalPlace>,
    /// Names by function.
    names: HashMap<u32, String>,
    /// Maps that were applied.
    pub applied: usize,
    /// Maps that were not, each once.
    pub problems: BTreeSet<Problem>,
}

/// Why a map is not used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Map(#[from] MapError),
}

/// What is asked of one map.
#[derive(Debug, Default)]
struct Questions {
    /// Path that the names of sources are relative to.
    base: Option<Vec<u8>>,
    /// Name of a script that names the map.
    script: Vec<u8>,
    /// Generated places, with the script and the position that are there.
    places: BTreeMap<Place, BTreeSet<(u32, u32)>>,
    /// Functions by the generated place of their definition.
    functions: BTreeMap<Place, BTreeSet<u32>>,
}

impl Originals {
    /// Reads the maps of all scripts that occur in the capture's stacks, from the target's files as
    /// they are below `root`.
    #[must_use]
    pub fn find(capture: &Capture, root: &Path) -> Self {
        let mut originals = Self::default();
        for (location, questions) in questions(capture, root, &mut originals.problems) {
            if let Err(error) = originals.apply(capture, root, &location, &questions) {
                let object = match &location {
                    Location::Path(path) => files::below(root, path).into_os_string(),
                    Location::Inline(_) => Default::default(),
                };
                let object = match object.as_encoded_bytes() {
                    b"" => questions.script.as_slice(),
                    path => path,
                };
                originals.problems.insert(problem(object, &error));
            }
        }
        originals
    }

    /// Where a place of a script was written; the position is a character offset plus 1.
    pub(crate) fn place(&self, script: u32, position: u32) -> Option<&OriginalPlace> {
        self.places.get(&(script, position))
    }

    /// What a function was called where it was written, if a map tells.
    pub(crate) fn name(&self, function: u32) -> Option<&str> {
        self.names.get(&function).map(String::as_str)
    }

    fn apply(
        &mut self,
        capture: &Capture,
        root: &Path,
        location: &Location,
        questions: &Questions,
    ) -> Result<(), Unusable> {
        let read;
        let bytes = match location {
            Location::Inline(bytes) => bytes,
            Location::Path(path) => {
                read = files::read(root, path)?;
                &read
            }
        };
        let base = match location {
            Location::Inline(_) => questions.base.as_deref(),
            Location::Path(path) => Some(path.as_slice()),
        };
        let asked: Vec<Place> = questions.places.keys().copied().collect();
        let found = SourceMap::parse(bytes)?.look_up(&asked)?;
        let mut any = false;
        for ((place, there), original) in questions.places.iter().zip(found) {
            let Some(original) = original else { continue };
            any = true;
            let name = files::source_name(&original.source, base);
            let known = OriginalPlace {
                file: clean_string(&name, FILE_CHARS),
                line: original.line.saturating_add(1),
                column: original.column.saturating_add(1),
            };
            self.places.extend(there.iter().map(|&key| (key, known.clone())));
            let defined_here = questions.functions.get(place).into_iter().flatten();
            for &function in defined_here {
                let generated = capture.functions.get(function as usize).map(|f| &f.name);
                let name = generated.and_then(|name| name_of(name, place.1, &original.names));
                if let Some(name) = name {
                    let name = clean_string(name.as_bytes(), FUNCTION_CHARS);
                    self.names.insert(function, name);
                }
            }
        }
        self.applied += usize::from(any);
        Ok(())
    }
}

/// What has to be looked up in which map.
fn questions(
    capture: &Capture,
    root: &Path,
    problems: &mut BTreeSet<Problem>,
) -> BTreeMap<Location, Questions> {
    let mut asked: BTreeMap<u32, BTreeSet<(u32, u32)>> = BTreeMap::new();
    for frame in &capture.frames {
        let &Frame::Js { function: id, position, .. } = frame else { continue };
        let Some(function) = capture.functions.get(id as usize) else { continue };
        let Some(script) = function.script.checked_sub(1) else { continue };
        asked.entry(script).or_default().extend([(position, u32::MAX), (function.start, id)]);
    }
    let none = Originals::default();
    let javascript = Javascript::new(capture, &none);
    let mut questions: BTreeMap<Location, Questions> = BTreeMap::new();
    for (id, asked) in asked {
        let Some(script) = capture.scripts.get(id as usize) else { continue };
        let name = match script.name.as_slice() {
            b"" => script.source_url.as_slice(),
            name => name,
        };
        let base = files::script_path(name);
        let location = match script.source_map_url.as_slice() {
            b"" => base.as_deref().and_then(|path| named_in_file(root, path)),
            url => Some(files::locate(url, base.as_deref())),
        };
        let location = match location {
            Some(Ok(location)) => location,
            Some(Err(error)) => {
                problems.insert(problem(name, &Unusable::File(error)));
                continue;
            }
            None => continue,
        };
        let of_map = questions.entry(location).or_default();
        of_map.base = base;
        of_map.script = name.to_vec();
        for (position, function) in asked {
            let Some((line, column)) = javascript.generated(id, position) else { continue };
            let place = (line.saturating_sub(1), column.saturating_sub(1));
            of_map.places.entry(place).or_default().insert((id, position));
            if function != u32::MAX {
                of_map.functions.entry(place).or_default().insert(function);
            }
        }
    }
    questions
}

/// The map that the text of a script names: the recorder does not keep long addresses, and a map that
/// is inside its script is long. That there is none, or no such file, is no problem.
fn named_in_file(root: &Path, path: &[u8]) -> Option<Result<Location, FileError>> {
    let text = files::read(root, path).ok()?;
    Some(files::locate(files::named_in(&text)?, Some(path)))
}

/// What a function was called, by the names before its parameters: the nearest one, and only if the
/// token there is as long as the name that V8 knows and nothing else fits between.
fn name_of<'n>(generated: &[u8], column: u32, names: &'n [NamedToken]) -> Option<&'n str> {
    let generated = std::str::from_utf8(generated).ok().filter(|name| !name.is_empty())?;
    let length = generated.encode_utf16().count() as u32;
    let before = |token: &&NamedToken| token.column.saturating_add(length) <= column;
    let token = names.iter().find(before)?;
    GAPS.contains(&(column - token.column - length)).then_some(&token.name)
}

fn problem(object: &[u8], error: &Unusable) -> Problem {
    let mut reason = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        reason.push_str(&format!(": {error}"));
        cause = error.source();
    }
    Problem { object: clean_string(object, OBJECT_CHARS), reason: Clean::text(&reason).to_string() }
}
