//! Variable-length integers and byte strings: the alphabet in which sections are written.
//!
//! Integers are unsigned LEB128 (7 bits a byte, least significant group first, at most 10 bytes);
//! signed ones are zigzag-mapped first. Byte strings are a length and the bytes.

/// A section said something impossible: cut short, over a limit, or an index out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at} of the section")]
pub struct Corrupt {
    /// What was wrong.
    pub what: &'static str,
    /// Where, in bytes from the start of the section's payload.
    pub at: usize,
}

/// Appends integers and strings to a buffer.
#[derive(Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// The bytes written so far.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing has been written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets the bytes and keeps the allocation.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Writes one byte.
    pub fn byte(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Writes an unsigned integer.
    pub fn uint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// Writes a signed integer.
    pub fn int(&mut self, value: i64) {
        self.uint(((value << 1) ^ (value >> 63)) as u64);
    }

    /// Writes `value` as the difference to `*last` and remembers it.
    pub fn delta(&mut self, last: &mut u64, value: u64) {
        self.int(value.wrapping_sub(*last) as i64);
        *last = value;
    }

    /// Writes a length and the bytes.
    pub fn string(&mut self, value: &[u8]) {
        self.uint(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    /// Appends bytes as they are.
    pub fn raw(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
    }
}

/// Reads what [`Encoder`] wrote, from bytes that nobody vouches for.
#[derive(Debug, Clone)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Decoder<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes that are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    /// An error at this place.
    #[must_use]
    pub fn corrupt(&self, what: &'static str) -> Corrupt {
        Corrupt { what, at: self.at }
    }

    /// Reads one byte.
    ///
    /// # Errors
    /// The section ends here.
    pub fn byte(&mut self) -> Result<u8, Corrupt> {
        let value =
            self.bytes.get(self.at).copied().ok_or_else(|| self.corrupt("section ends early"))?;
        self.at += 1;
        Ok(value)
    }

    /// Reads an unsigned integer.
    ///
    /// # Errors
    /// The section ends here, or the integer has more than 64 bits.
    pub fn uint(&mut self) -> Result<u64, Corrupt> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let group = u64::from(byte & 0x7f);
            if shift == 63 && group > 1 {
                return Err(self.corrupt("integer over 64 bits"));
            }
            value |= group << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.corrupt("integer over 64 bits"))
    }

    /// Reads a signed integer.
    ///
    /// # Errors
    /// As [`Self::uint`].
    pub fn int(&mut self) -> Result<i64, Corrupt> {
        let raw = self.uint()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// Reads a difference to `*last` and returns the sum.
    ///
    /// # Errors
    /// As [`Self::uint`].
    pub fn delta(&mut self, last: &mut u64) -> Result<u64, Corrupt> {
        *last = last.wrapping_add(self.int()? as u64);
        Ok(*last)
    }

    /// Reads an unsigned integer that must fit in 32 bits.
    ///
    /// # Errors
    /// As [`Self::uint`], or the value is too large.
    pub fn u32(&mut self) -> Result<u32, Corrupt> {
        u32::try_from(self.uint()?).map_err(|_too_large| self.corrupt("index over 32 bits"))
    }

    /// Reads how many items follow. Each takes at least one byte, so a count beyond the bytes that
    /// are left is refused before anything is allocated.
    ///
    /// # Errors
    /// As [`Self::uint`], or more items than bytes.
    pub fn count(&mut self) -> Result<usize, Corrupt> {
        let count = self.uint()?;
        if count > self.remaining() as u64 {
            return Err(self.corrupt("more items than bytes"));
        }
        Ok(count as usize)
    }

    /// Reads a byte string of at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Self::uint`], or the string is longer than `limit` or than the section.
    pub fn string(&mut self, limit: usize) -> Result<&'a [u8], Corrupt> {
        let length = self.uint()?;
        if length > limit as u64 {
            return Err(self.corrupt("string over the limit"));
        }
        self.raw(length as usize)
    }

    /// Reads `length` bytes as they are.
    ///
    /// # Errors
    /// The section ends before.
    pub fn raw(&mut self, length: usize) -> Result<&'a [u8], Corrupt> {
        let end = self.at.checked_add(length).ok_or_else(|| self.corrupt("length overflows"))?;
        let slice =
            self.bytes.get(self.at..end).ok_or_else(|| self.corrupt("section ends early"))?;
        self.at = end;
        Ok(slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_come_back(values: Vec<u64>, signed: Vec<i64>) {
            let mut encoder = Encoder::default();
            let mut last = 0;
            for &v in &values { encoder.uint(v); encoder.delta(&mut last, v); }
            for &v in &signed { encoder.int(v); }
            let mut decoder = Decoder::new(encoder.bytes());
            let mut last = 0;
            for &v in &values {
                prop_assert_eq!(decoder.uint().unwrap(), v);
                prop_assert_eq!(decoder.delta(&mut last).unwrap(), v);
            }
            for &v in &signed { prop_assert_eq!(decoder.int().unwrap(), v); }
            prop_assert_eq!(decoder.remaining(), 0);
        }

        #[test]
        fn any_bytes_end(bytes: Vec<u8>) {
            let mut decoder = Decoder::new(&bytes);
            while decoder.uint().is_ok() {}
            let mut decoder = Decoder::new(&bytes);
            while decoder.string(64).is_ok() {}
        }
    }
}
