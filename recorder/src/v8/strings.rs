//! Strings of the V8 heap: sequential, cons, sliced, thin and external, one or two bytes a
//! character. Bounded in bytes and in steps, since a hostile heap can tie a string into a knot.

use super::heap::{Heap, pointer, smi};
use super::memory::Memory;

/// Pieces of one string that are visited at most.
const MAX_PIECES: usize = 4096;
/// `StringShape` (V8's src/objects/instance-type.h): representation, encoding, uncached.
const REPRESENTATION: u16 = 7;
const ONE_BYTE: u16 = 8;
const UNCACHED: u16 = 16;
/// `String::length`, u32.
const LENGTH: u64 = 12;

/// The characters of a string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// Latin-1.
    OneByte(Vec<u8>),
    /// UTF-16, little endian.
    TwoByte(Vec<u8>),
}

impl Text {
    /// As UTF-8; what is no character becomes U+FFFD.
    pub fn to_utf8(&self) -> Vec<u8> {
        match self {
            Self::OneByte(bytes) if bytes.is_ascii() => bytes.clone(),
            Self::OneByte(bytes) => {
                bytes.iter().map(|&byte| char::from(byte)).collect::<String>().into_bytes()
            }
            Self::TwoByte(bytes) => {
                let units =
                    bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
                char::decode_utf16(units)
                    .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
                    .collect::<String>()
                    .into_bytes()
            }
        }
    }
}

/// Where a flat string's characters are.
struct Flat {
    address: u64,
    one_byte: bool,
}

impl<M: Memory> Heap<M> {
    /// Whether `object` is a string.
    pub fn is_string(&mut self, object: u64) -> bool {
        let first_nonstring = self.layout.types.first_nonstring;
        self.type_of(object).is_some_and(|kind| kind < first_nonstring)
    }

    /// The first `limit` characters of a string. `None` when it is no string or cannot be read.
    pub fn string(&mut self, object: u64, limit: u32) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let mut left = limit;
        // Tagged string, first character, number of characters.
        let mut waiting = vec![(object, 0u32, u32::MAX)];
        for _ in 0..MAX_PIECES {
            let Some((string, from, count)) = waiting.pop() else { break };
            let kind = self.string_type(string)?;
            let length = self.u32_field(string, LENGTH)?;
            let count = count.min(length.checked_sub(from)?).min(left);
            if count == 0 {
                continue;
            }
            match kind & REPRESENTATION {
                1 => {
                    let (first, second) = (self.field(string, 16)?, self.field(string, 24)?);
                    let (first, second) = (pointer(first)?, pointer(second)?);
                    let middle = self.u32_field(first, LENGTH)?;
                    if from.checked_add(count)? > middle {
                        let skip = from.saturating_sub(middle);
                        let rest = from + count - middle.max(from);
                        waiting.push((second, skip, rest));
                    }
                    if from < middle {
                        waiting.push((first, from, count.min(middle - from)));
                    }
                }
                3 => {
                    let parent = self.pointer_field(string, 16)?;
                    let offset = u32::try_from(smi(self.field(string, 24)?)?).ok()?;
                    waiting.push((parent, offset.checked_add(from)?, count));
                }
                5 => waiting.push((self.pointer_field(string, 16)?, from, count)),
                _ => {
                    let flat = self.flat(string, kind)?;
                    let width = if flat.one_byte { 1 } else { 2 };
                    let at = flat.address.checked_add(u64::from(from) * width)?;
                    let bytes = self.pages.bytes(at, count as usize * width as usize)?;
                    let text =
                        if flat.one_byte { Text::OneByte(bytes) } else { Text::TwoByte(bytes) };
                    out.extend(text.to_utf8());
                    left -= count;
                }
            }
        }
        Some(out)
    }

    /// All characters of a large string that is flat, as sources are; at most `limit` bytes.
    pub fn flat_text(&mut self, object: u64, limit: usize) -> Option<Text> {
        let mut string = object;
        for _ in 0..3 {
            let kind = self.string_type(string)?;
            let inner = match kind & REPRESENTATION {
                5 => self.pointer_field(string, 16)?,
                // A cons string that has been flattened keeps the whole in its first part.
                1 => {
                    let second = self.pointer_field(string, 24)?;
                    if self.u32_field(second, LENGTH)? != 0 {
                        return None;
                    }
                    self.pointer_field(string, 16)?
                }
                0 | 2 => {
                    let length = self.u32_field(string, LENGTH)? as usize;
                    let flat = self.flat(string, kind)?;
                    let bytes = if flat.one_byte { length } else { length.checked_mul(2)? };
                    if bytes > limit {
                        return None;
                    }
                    let read = self.pages.bulk(flat.address, bytes)?;
                    return Some(if flat.one_byte {
                        Text::OneByte(read)
                    } else {
                        Text::TwoByte(read)
                    });
                }
                _ => return None,
            };
            string = inner;
        }
        None
    }

    fn string_type(&mut self, string: u64) -> Option<u16> {
        let kind = self.type_of(string)?;
        (kind < self.layout.types.first_nonstring).then_some(kind)
    }

    fn flat(&mut self, string: u64, kind: u16) -> Option<Flat> {
        let one_byte = kind & ONE_BYTE != 0;
        let address = match kind & REPRESENTATION {
            0 => (string - 1).checked_add(16)?,
            // The cached address of the characters; an uncached string has only its resource.
            2 if kind & UNCACHED == 0 => self.field(string, 24)?,
            _ => return None,
        };
        Some(Flat { address, one_byte })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::HeapImage;
    use super::*;

    #[test]
    fn every_kind_of_string_is_read() {
        let mut image = HeapImage::new();
        let left = image.string(b"left ");
        let right = image.two_byte("r\u{e9}ght \u{4e2d}");
        let cons = image.object(1 | 8, &[12 << 32, left, right]);
        let thin = image.object(5 | 8, &[12 << 32, cons]);
        let sliced = image.object(3 | 8, &[4 << 32, thin, 3 << 32]);
        let latin = image.string(b"caf\xe9");
        let mut heap = image.heap();
        assert_eq!(heap.string(cons, 100).unwrap(), "left r\u{e9}ght \u{4e2d}".as_bytes());
        assert_eq!(heap.string(thin, 7).unwrap(), "left r\u{e9}".as_bytes());
        assert_eq!(heap.string(sliced, 100).unwrap(), "t r\u{e9}".as_bytes());
        assert_eq!(heap.string(latin, 100).unwrap(), "caf\u{e9}".as_bytes());
        assert_eq!(heap.flat_text(latin, 100), Some(Text::OneByte(b"caf\xe9".to_vec())));
        assert_eq!(heap.flat_text(latin, 3), None);
        assert_eq!(heap.string(6 << 32, 100), None);
    }

    #[test]
    fn a_string_of_itself_ends() {
        let mut image = HeapImage::new();
        let cons = image.object(1 | 8, &[u64::from(u32::MAX) << 32, 0, 0]);
        image.set(cons, 16, cons);
        image.set(cons, 24, cons);
        let mut heap = image.heap();
        assert!(heap.string(cons, u32::MAX).is_none_or(|text| text.is_empty()));
    }
}
