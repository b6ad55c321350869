//! The tracing-data section: the `format` texts of the tracepoints that were recorded.
//!
//! Layout: kernel tree, tools/perf/util/trace-event-info.c, little endian. Pure; survives any bytes.

use std::collections::HashMap;

use formats::tracepoint::TracepointFormat;

/// First bytes (`tracing_data_header`).
const MAGIC: &[u8] = b"\x17\x08\x44tracing";
/// Formats that are read at most.
const MAX_FORMATS: u32 = 1 << 16;

/// A format and the group its event is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) group: String,
    pub(super) format: TracepointFormat,
}

/// What the section describes, by event id, and how many descriptions were not understood.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tracing {
    pub(super) formats: HashMap<u64, Described>,
    pub(super) bad: u64,
}

impl Tracing {
    /// Reads as many descriptions as there are; a damaged section ends where it is damaged.
    pub(super) fn parse(section: &[u8]) -> Self {
        let mut tracing = Self::default();
        if tracing.read(section).is_none() {
            tracing.bad += 1;
        }
        tracing
    }

    fn read(&mut self, section: &[u8]) -> Option<()> {
        let mut at = section.strip_prefix(MAGIC)?;
        text(&mut at)?;
        // Byte order (0: little), size of a long, size of a page.
        if bytes(&mut at, 2)?.first() != Some(&0) {
            return None;
        }
        bytes(&mut at, 4)?;
        for _header in ["header_page", "header_event"] {
            text(&mut at)?;
            sized(&mut at)?;
        }
        let own = u32_le(&mut at)?.min(MAX_FORMATS);
        for _ in 0..own {
            self.add("ftrace", sized(&mut at)?);
        }
        let groups = u32_le(&mut at)?.min(MAX_FORMATS);
        for _ in 0..groups {
            let group = String::from_utf8_lossy(text(&mut at)?).into_owned();
            let events = u32_le(&mut at)?.min(MAX_FORMATS);
            for _ in 0..events {
                self.add(&group, sized(&mut at)?);
            }
        }
        Some(())
    }

    fn add(&mut self, group: &str, format: &[u8]) {
        match std::str::from_utf8(format).ok().and_then(|text| TracepointFormat::parse(text).ok()) {
            Some(format) => {
                let described = Described { group: group.to_owned(), format };
                self.formats.insert(described.format.id, described);
            }
            None => self.bad += 1,
        }
    }
}

fn bytes<'a>(at: &mut &'a [u8], size: usize) -> Option<&'a [u8]> {
    let (head, tail) = at.split_at_checked(size)?;
    *at = tail;
    Some(head)
}

fn u32_le(at: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(bytes(at, 4)?.try_into().ok()?))
}

/// A u64 length and as many bytes.
fn sized<'a>(at: &mut &'a [u8]) -> Option<&'a [u8]> {
    let size = u64::from_le_bytes(bytes(at, 8)?.try_into().ok()?);
    bytes(at, usize::try_from(size).ok()?)
}

/// Bytes up to a NUL.
fn text<'a>(at: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = at.iter().position(|byte| *byte == 0)?;
    let text = bytes(at, end)?;
    bytes(at, 1)?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::perfdata::tests::noise;

    const FORMAT: &str = "name: opened\nID: 1500\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
        \tfield:u64 req;\toffset:8;\tsize:8;\tsigned:0;\n\nprint fmt: \"\"\n";

    fn section() -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(b"0.6\0\x00\x08\x00\x10\x00\x00");
        for name in ["header_page", "header_event"] {
            out.extend(name.as_bytes());
            out.push(0);
            out.extend(3u64.to_le_bytes());
            out.extend(b"abc");
        }
        out.extend(0u32.to_le_bytes());
        out.extend(1u32.to_le_bytes());
        out.extend(b"mine\0");
        out.extend(2u32.to_le_bytes());
        for format in [FORMAT, "nonsense"] {
            out.extend((format.len() as u64).to_le_bytes());
            out.extend(format.as_bytes());
        }
        out
    }

    #[test]
    fn formats_are_found_by_id_and_bad_ones_counted() {
        let tracing = Tracing::parse(&section());
        assert_eq!(tracing.bad, 1);
        let described = &tracing.formats[&1500];
        assert_eq!((described.group.as_str(), described.format.name.as_str()), ("mine", "opened"));
        let cut = section();
        for end in 0..cut.len() {
            assert!(Tracing::parse(&cut[..end]).bad >= 1, "cut at {end}");
        }
    }

    #[test]
    fn damaged_bytes_are_survived() {
        let sound = section();
        for seed in 0..2000 {
            let mut bytes = sound.clone();
            for (at, byte) in noise(seed, 8).into_iter().enumerate() {
                let place = (seed as usize * 31 + at * 17) % bytes.len();
                bytes[place] = byte;
            }
            let _tracing = Tracing::parse(&bytes);
        }
    }
}
