//! The format of source maps (ECMA-426, revision 3 of the older specification): JSON with a list of
//! mappings in base 64. It must not know files, scripts or functions.
//!
//! Mappings are not kept: what is asked is known before, so they are read once, line by line.

use std::borrow::Cow;

use serde::Deserialize;

/// Segments before a place that are looked at for a name.
const NAMES_BEFORE: usize = 4;
/// Digits of a number: six bits of the first and five of each other make 32 and the sign.
const MAX_DIGITS: u32 = 7;
/// Longest source and name that is told, bytes: a path on Linux (`PATH_MAX`, include/uapi/linux/limits.h).
/// Every place that is asked copies them, so longer ones could fill the memory.
const MAX_TEXT: usize = 4096;

/// What is wrong with a map.
#[derive(Debug, thiserror::Error)]
pub(super) enum MapError {
    /// Not JSON, or not that of a source map.
    #[error("it is not a source map")]
    Json(#[source] serde_json::Error),
    /// A version that this code does not know.
    #[error("its version is {0}, not 3")]
    Version(u32),
    /// The mappings break their rules.
    #[error("its mappings are damaged at byte {0}")]
    Mappings(usize),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Json<'j> {
    version: Option<u32>,
    #[serde(default, borrow)]
    sources: Vec<Option<Cow<'j, str>>>,
    #[serde(default, borrow)]
    source_root: Option<Cow<'j, str>>,
    #[serde(default, borrow)]
    names: Vec<Cow<'j, str>>,
    #[serde(default, borrow)]
    mappings: Cow<'j, str>,
    #[serde(default, borrow)]
    sections: Vec<Section<'j>>,
}

#[derive(Debug, Deserialize)]
struct Section<'j> {
    offset: Offset,
    #[serde(borrow)]
    map: Json<'j>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Offset {
    line: u32,
    column: u32,
}

/// A place in generated text, line and column counted from 0, columns in UTF-16 units.
pub(super) type Place = (u32, u32);

/// A name in the original text, and the column of its token in the generated line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedToken {
    pub(super) column: u32,
    pub(super) name: String,
}

/// Where a generated place comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Original {
    /// The source's name with `sourceRoot` before it, as the map has it.
    pub(super) source: String,
    /// Line, counted from 0.
    pub(super) line: u32,
    /// Column, counted from 0.
    pub(super) column: u32,
    /// Names at and shortly before the place, the nearest first.
    pub(super) names: Vec<NamedToken>,
}

/// A parsed map, its mappings still as text.
#[derive(Debug)]
pub(super) struct SourceMap<'j>(Json<'j>);

impl<'j> SourceMap<'j> {
    pub(super) fn parse(text: &'j [u8]) -> Result<Self, MapError> {
        // A line that keeps browsers from running the map as a script.
        let guarded = text.starts_with(b")]}'");
        let begin = text.iter().position(|&b| b == b'\n').filter(|_at| guarded).unwrap_or(0);
        let json: Json<'j> = serde_json::from_slice(text.get(begin..).unwrap_or_default())
            .map_err(MapError::Json)?;
        match json.version {
            Some(3) | None => Ok(Self(json)),
            Some(other) => Err(MapError::Version(other)),
        }
    }

    /// Where the places come from; in the order of the places, which are sorted.
    pub(super) fn look_up(&self, places: &[Place]) -> Result<Vec<Option<Original>>, MapError> {
        if self.0.sections.is_empty() {
            return look_up(&self.0, places);
        }
        let mut sections: Vec<&Section<'_>> = self.0.sections.iter().collect();
        sections.sort_by_key(|section| section.offset);
        let mut found = Vec::with_capacity(places.len());
        let begins = |at: usize| {
            let offset = sections.get(at).map(|section| section.offset);
            let begins = |offset: Offset| {
                places.partition_point(|&place| place < (offset.line, offset.column))
            };
            offset.map_or(places.len(), begins)
        };
        found.resize(begins(0), None);
        for (at, section) in sections.iter().enumerate() {
            let Offset { line, column } = section.offset;
            let inside: Vec<Place> = places
                .get(begins(at)..begins(at + 1))
                .unwrap_or_default()
                .iter()
                .map(|&place| {
                    // Only the first line of a section begins at its column.
                    (place.0 - line, if place.0 == line { place.1 - column } else { place.1 })
                })
                .collect();
            let shift = |(place, original): (&Place, Option<Original>)| {
                let mut original = original?;
                for token in original.names.iter_mut().filter(|_token| place.0 == 0) {
                    token.column = token.column.saturating_add(column);
                }
                Some(original)
            };
            let originals = look_up(&section.map, &inside)?;
            found.extend(inside.iter().zip(originals).map(shift));
        }
        Ok(found)
    }
}

/// One mapping; what is counted from the mapping before is added up already.
#[derive(Debug, Clone, Copy)]
struct Segment {
    column: u32,
    /// Source, line and column; absent where the generated text has no origin.
    origin: Option<(u32, u32, u32)>,
    name: Option<u32>,
}

fn look_up(map: &Json<'_>, places: &[Place]) -> Result<Vec<Option<Original>>, MapError> {
    let mut reader = Reader { text: map.mappings.as_bytes(), at: 0, sums: [0; 5] };
    let mut found = Vec::with_capacity(places.len());
    let mut segments: Vec<Segment> = Vec::new();
    let mut line = 0u32;
    let mut places = places.iter().peekable();
    while places.peek().is_some() {
        segments.clear();
        let more = reader.line(&mut segments)?;
        // The specification wants them in this order.
        segments.sort_by_key(|segment| segment.column);
        while let Some(&(_line, column)) = places.next_if(|place| place.0 == line) {
            let after = segments.partition_point(|segment| segment.column <= column);
            found.push(segments.get(..after).and_then(|before| original(map, before)));
        }
        if !more {
            break;
        }
        line = line.saturating_add(1);
    }
    // Lines behind the last mapping have no origin.
    found.extend(places.map(|_place| None));
    Ok(found)
}

/// What the last of some segments of a line says.
fn original(map: &Json<'_>, segments: &[Segment]) -> Option<Original> {
    let (source, line, column) = segments.last()?.origin?;
    let source = map.sources.get(source as usize)?.as_deref()?;
    let name = |segment: &Segment| {
        let name = map.names.get(segment.name? as usize)?;
        (name.len() <= MAX_TEXT)
            .then(|| NamedToken { column: segment.column, name: name.to_string() })
    };
    let names = segments.iter().rev().take(NAMES_BEFORE).filter_map(name).collect();
    let root = map.source_root.as_deref();
    if source.len() + root.map_or(0, str::len) > MAX_TEXT {
        return None;
    }
    let source = match root {
        None | Some("") => source.to_owned(),
        Some(root) => format!("{}/{source}", root.strip_suffix('/').unwrap_or(root)),
    };
    Some(Original { source, line, column, names })
}

/// Reads the text of mappings.
struct Reader<'t> {
    text: &'t [u8],
    at: usize,
    /// Generated column, source, line, column, name.
    sums: [u32; 5],
}

impl Reader<'_> {
    /// Reads a line's segments; gives whether another line follows.
    fn line(&mut self, segments: &mut Vec<Segment>) -> Result<bool, MapError> {
        self.sums[0] = 0;
        loop {
            match self.text.get(self.at) {
                None => return Ok(false),
                Some(b';') => {
                    self.at += 1;
                    return Ok(true);
                }
                Some(b',') => self.at += 1,
                Some(_) => segments.push(self.segment()?),
            }
        }
    }

    fn segment(&mut self) -> Result<Segment, MapError> {
        let begin = self.at;
        let mut fields = 0;
        while !matches!(self.text.get(self.at), None | Some(b',' | b';')) {
            let value = self.number()?;
            // What a later revision may add is passed over.
            if let Some(sum) = self.sums.get_mut(fields) {
                let next = i64::from(*sum) + value;
                *sum = u32::try_from(next).map_err(|_error| MapError::Mappings(begin))?;
            }
            fields += 1;
        }
        let [column, source, line, from, name] = self.sums;
        match fields {
            1 => Ok(Segment { column, origin: None, name: None }),
            4 => Ok(Segment { column, origin: Some((source, line, from)), name: None }),
            5.. => Ok(Segment { column, origin: Some((source, line, from)), name: Some(name) }),
            _ => Err(MapError::Mappings(begin)),
        }
    }

    /// A number in base 64, its lowest digit first, its sign in the lowest bit.
    fn number(&mut self) -> Result<i64, MapError> {
        let mut value = 0i64;
        for digit in 0..MAX_DIGITS {
            let sextet = self.text.get(self.at).copied().and_then(sextet);
            let sextet = sextet.ok_or(MapError::Mappings(self.at))?;
            self.at += 1;
            value |= i64::from(sextet & 0x1f) << (5 * digit);
            if sextet & 0x20 == 0 {
                return Ok(if value & 1 == 1 { -(value >> 1) } else { value >> 1 });
            }
        }
        Err(MapError::Mappings(self.at))
    }
}

/// The value of a digit of base 64 (RFC 4648, section 4).
pub(super) fn sextet(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a place comes from, as `source:line:column`, with its names.
    fn shown(map: &str, places: &[Place]) -> Result<Vec<String>, MapError> {
        let map = SourceMap::parse(map.as_bytes())?;
        let found = map.look_up(places)?;
        let text = |original: Option<Original>| {
            original.map_or("-".to_owned(), |o| {
                let names: Vec<_> =
                    o.names.iter().map(|t| format!(" {}@{}", t.name, t.column)).collect();
                format!("{}:{}:{}{}", o.source, o.line, o.column, names.concat())
            })
        };
        Ok(found.into_iter().map(text).collect())
    }

    #[test]
    fn mappings_are_read() {
        // Line 0: column 4 from a.ts 2:8 named x; column 9 from nowhere. Line 2: column 0 from b.ts 0:3.
        let map = r#"{"version":3,"sourceRoot":"src/","sources":["a.ts","b.ts"],"names":["x"],
            "mappings":"IAEQA,K;;ACFL","sourcesContent":["ignored",null]}"#;
        let places = [(0, 3), (0, 4), (0, 8), (0, 9), (1, 0), (2, 0), (2, 99), (7, 1)];
        let want = [
            "-",
            "src/a.ts:2:8 x@4",
            "src/a.ts:2:8 x@4",
            "-",
            "-",
            "src/b.ts:0:3",
            "src/b.ts:0:3",
            "-",
        ];
        assert_eq!(shown(map, &places).unwrap(), want);
        let guarded = format!(")]}}'\n{map}");
        assert_eq!(shown(&guarded, &places).unwrap(), want);
    }

    #[test]
    fn sections_are_maps_of_their_own() {
        let map = r#"{"version":3,"sections":[
            {"offset":{"line":1,"column":5},"map":{"version":3,"sources":["b"],"names":["n"],"mappings":"EAAAA;A"}},
            {"offset":{"line":0,"column":0},"map":{"version":3,"sources":["a"],"mappings":"AAAA"}}]}"#;
        let places = [(0, 0), (0, 9), (1, 0), (1, 6), (1, 7), (2, 0)];
        let want = ["a:0:0", "a:0:0", "-", "-", "b:0:0 n@7", "-"];
        assert_eq!(shown(map, &places).unwrap(), want);
    }

    #[test]
    fn damage_is_told_and_bounded() {
        let with = |mappings: &str| {
            let map = format!(r#"{{"version":3,"sources":["a"],"mappings":"{mappings}"}}"#);
            shown(&map, &[(0, 0), (9, 9)]).map_err(|error| error.to_string())
        };
        assert_eq!(with(""), Ok(vec!["-".into(), "-".into()]));
        for damaged in ["AA", "AAA", "A!", "g", "gggggggggA", "D", "AAAAD"] {
            assert!(
                with(damaged).unwrap_err().starts_with("its mappings are damaged"),
                "{damaged}"
            );
        }
        // A source that is not there.
        assert_eq!(with("AEAA").unwrap()[0], "-");
        for (text, want) in [
            ("", "it is not a source map"),
            ("[]", "it is not a source map"),
            (r#"{"version":2}"#, "its version is 2, not 3"),
        ] {
            assert_eq!(shown(text, &[]).unwrap_err().to_string(), want);
        }
        // Anything at all ends.
        let mut state = 1u32;
        for _round in 0..2000 {
            let text: String = (0..40)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    char::from(b"ACDEgh+/,;;zZ9"[(state >> 16) as usize % 14])
                })
                .collect();
            let _damaged = with(&text);
        }
    }
}
