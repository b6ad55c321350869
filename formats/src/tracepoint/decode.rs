//! Values of fields out of raw record bytes, little endian. Records may be shorter than their
//! format says, and what points into them may point outside: that is a value too, never a panic.

use super::{Field, FieldKind};

/// The value of one field in one record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// An unsigned integer.
    U64(u64),
    /// A signed integer, sign-extended.
    I64(i64),
    /// A string without its NUL. Any bytes.
    Str(&'a [u8]),
    /// The kernel could not read the string: its address was NULL or not mapped, or it had no NUL
    /// within 4096 bytes. An empty string is `Str(b"")` instead.
    Fault,
    /// Unsigned integers.
    Array(Vec<u64>),
    /// Signed integers.
    SignedArray(Vec<i64>),
    /// Strings; `None` where [`Fault`](Self::Fault) would stand.
    StrArray(Vec<Option<&'a [u8]>>),
    /// Bytes whose meaning the format does not tell.
    Bytes(&'a [u8]),
    /// The record ends before the field, or the field points outside of the record.
    Missing,
}

impl Field {
    /// Reads this field from a raw record.
    pub fn read<'a>(&self, raw: &'a [u8]) -> Value<'a> {
        let Some(bytes) = part(raw, self.offset, self.size) else { return Value::Missing };
        match self.kind {
            FieldKind::Int => self.integer(bytes),
            FieldKind::Opaque => Value::Bytes(bytes),
            FieldKind::FixedChars => Value::Str(until_nul(bytes)),
            FieldKind::Array { elem_size } => self.array(bytes, elem_size),
            FieldKind::Str { relative } => match self.located(raw, bytes, relative) {
                None => Value::Missing,
                Some([]) => Value::Fault,
                Some(text) => Value::Str(until_nul(text)),
            },
            FieldKind::DynamicArray { elem_size, relative } => {
                match self.located(raw, bytes, relative) {
                    None => Value::Missing,
                    Some(elements) => self.array(elements, elem_size),
                }
            }
            FieldKind::StrArray => Value::StrArray(
                bytes
                    .chunks_exact(4)
                    .map(|loc| self.located(raw, loc, false).filter(|t| !t.is_empty()))
                    .map(|t| t.map(until_nul))
                    .collect(),
            ),
        }
    }

    /// The first byte of a raw record after the string that this field locates; `None` for other fields.
    /// What the kernel fetches of a program shares one page: a string that ends where the page does was
    /// cut (kernel tree, kernel/trace/trace_uprobe.c, `prepare_uprobe_buffer`).
    #[must_use]
    pub fn string_end(&self, raw: &[u8]) -> Option<usize> {
        let FieldKind::Str { relative } = self.kind else { return None };
        let location = u32::try_from(unsigned(part(raw, self.offset, self.size)?)?).ok()?;
        let base = if relative { self.offset.checked_add(self.size)? } else { 0 };
        Some(base.checked_add(location & 0xffff)?.checked_add(location >> 16)? as usize)
    }

    /// What a location points to: u32 = length << 16 | offset (kernel tree, `__get_dynamic_array`
    /// in include/trace/stages/stage3_trace_output.h).
    fn located<'a>(&self, raw: &'a [u8], location: &[u8], relative: bool) -> Option<&'a [u8]> {
        let location = u32::try_from(unsigned(location)?).ok()?;
        let base = if relative { self.offset.checked_add(self.size)? } else { 0 };
        let len = location >> 16;
        if len == 0 {
            // A fault leaves no bytes; where they would be does not matter.
            return Some(&[]);
        }
        part(raw, base.checked_add(location & 0xffff)?, len)
    }

    fn integer<'a>(&self, bytes: &[u8]) -> Value<'a> {
        match (unsigned(bytes), self.signed) {
            (Some(value), false) => Value::U64(value),
            (Some(value), true) => Value::I64(sign_extend(value, bytes.len())),
            (None, _) => Value::Missing,
        }
    }

    fn array<'a>(&self, bytes: &[u8], elem_size: u32) -> Value<'a> {
        // A size of 0 cannot come out of the parser, but would make chunks_exact panic.
        let size = (elem_size as usize).max(1);
        let elements = bytes.chunks_exact(size).filter_map(unsigned);
        if self.signed {
            Value::SignedArray(elements.map(|v| sign_extend(v, size)).collect())
        } else {
            Value::Array(elements.collect())
        }
    }
}

fn part(raw: &[u8], offset: u32, size: u32) -> Option<&[u8]> {
    let offset = offset as usize;
    raw.get(offset..offset.checked_add(size as usize)?)
}

/// A little-endian integer of at most 8 bytes.
fn unsigned(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    let mut wide = [0; 8];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(u64::from_le_bytes(wide))
}

fn sign_extend(value: u64, bytes: usize) -> i64 {
    let shift = 64 - 8 * bytes.clamp(1, 8);
    (value << shift).cast_signed() >> shift
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}
