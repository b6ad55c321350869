//! From a place in bytecode or code to a place in the source, as V8's own tables tell it.
//!
//! Pure: fed with the bytes of the tables. Any bytes are safe; a table that makes no sense ends
//! early. Formats: V8's src/codegen/source-position-table.cc, src/codegen/source-position.h,
//! src/baseline/bytecode-offset-iterator.h.

/// A place in the source with the inlining that led there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourcePosition(pub u64);

impl SourcePosition {
    /// Character offset in the source; `None` for places that are not in a script.
    pub fn offset(self) -> Option<u32> {
        // Bit 0: external, with other bits behind it. Bits 1-30: offset + 1.
        let field = ((self.0 >> 1) & 0x3fff_ffff) as u32;
        if self.0 & 1 == 1 { None } else { field.checked_sub(1) }
    }

    /// Index into the inlining positions when the place is in an inlined function.
    pub fn inlining(self) -> Option<usize> {
        // Bits 31-46: id + 1.
        usize::try_from((self.0 >> 31) & 0xffff).ok()?.checked_sub(1)
    }
}

/// A source position table, decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PositionTable {
    /// Code offset and place, by ascending code offset.
    entries: Vec<(i32, SourcePosition)>,
}

impl PositionTable {
    /// Decodes the bytes of a table. `position_bits`: see [`super::rows::Row`].
    pub fn decode(bytes: &[u8], position_bits: u32) -> Self {
        let mut entries = Vec::with_capacity(bytes.len() / 3);
        // kFunctionEntryBytecodeOffset
        let mut code = -1i64;
        let mut position = 0i64;
        let mut rest = bytes;
        while let (Some(first), Some(second)) = (signed(&mut rest), signed(&mut rest)) {
            // Negative: not a statement.
            let delta = if first < 0 { -(first + 1) } else { first };
            code = code.saturating_add(delta >> position_bits);
            position = position.wrapping_add(second);
            let Ok(code) = i32::try_from(code) else { break };
            entries.push((code, SourcePosition(position as u64)));
        }
        Self { entries }
    }

    /// The place of the last entry at or before `offset`.
    pub fn lookup(&self, offset: i32) -> Option<SourcePosition> {
        let after = self.entries.partition_point(|&(code, _)| code <= offset);
        let (_, position) = self.entries.get(after.checked_sub(1)?)?;
        Some(*position)
    }

    /// Code offsets and places.
    pub(super) fn entries(&self) -> &[(i32, SourcePosition)] {
        &self.entries
    }

    /// Whether the table has no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Base-128, least significant group first, bit 7 continues.
fn unsigned(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The same with the sign in bit 0 (zigzag).
fn signed(rest: &mut &[u8]) -> Option<i64> {
    let bits = unsigned(rest)?;
    Some((bits >> 1) as i64 ^ -((bits & 1) as i64))
}

/// The bytecode offset that baseline code of `pc_offset` belongs to: the one whose code ends at or
/// behind it, as for return addresses. -1 is the prologue.
pub fn baseline_offset(
    offsets: &[u8],
    bytecodes: &[u8],
    sizes: &[u8],
    pc_offset: u64,
) -> Option<i32> {
    let mut rest = offsets;
    let mut end = unsigned(&mut rest)?;
    if pc_offset <= end {
        return Some(-1);
    }
    let mut at = 0usize;
    loop {
        end = end.checked_add(unsigned(&mut rest)?)?;
        if pc_offset <= end {
            return i32::try_from(at).ok();
        }
        at = at.checked_add(bytecode_size(bytecodes.get(at..)?, sizes)?)?;
    }
}

/// All numbers of a table without signs; `None` when it ends within one.
pub(super) fn unsigned_numbers(table: &[u8]) -> Option<Vec<u64>> {
    let mut rest = table;
    let mut out = Vec::with_capacity(table.len());
    while !rest.is_empty() {
        out.push(unsigned(&mut rest)?);
    }
    Some(out)
}

/// Where each bytecode begins; `None` when they do not fill their array.
pub(super) fn bytecode_starts(bytecodes: &[u8], sizes: &[u8]) -> Option<Vec<u32>> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytecodes.len() {
        out.push(u32::try_from(at).ok()?);
        at = at.checked_add(bytecode_size(bytecodes.get(at..)?, sizes)?)?;
    }
    (at == bytecodes.len()).then_some(out)
}

/// Bytes of the first bytecode, its prefix included.
fn bytecode_size(bytecodes: &[u8], sizes: &[u8]) -> Option<usize> {
    let count = sizes.len() / 3;
    let first = *bytecodes.first()?;
    // Wide 0, ExtraWide 1, DebugBreakWide 2, DebugBreakExtraWide 3 (interpreter/bytecodes.h).
    let (bytecode, scale, prefix) = match first {
        0 | 2 => (*bytecodes.get(1)?, 1, 1),
        1 | 3 => (*bytecodes.get(1)?, 2, 1),
        other => (other, 0, 0),
    };
    if usize::from(bytecode) >= count {
        return None;
    }
    let size = usize::from(*sizes.get(scale * count + usize::from(bytecode))?);
    (size > 0).then_some(size + prefix)
}

/// Offsets of the line ends in a source text of one byte a character.
pub fn line_ends_one_byte(text: &[u8]) -> Vec<u32> {
    line_ends(text.iter().map(|&byte| u16::from(byte)))
}

/// Offsets of the line ends in a source text of two bytes a character, little endian.
pub fn line_ends_two_byte(text: &[u8]) -> Vec<u32> {
    line_ends(text.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])))
}

/// V8's String::CalculateLineEnds: CR LF counts at the LF; the text's end ends the last line.
fn line_ends(text: impl Iterator<Item = u16>) -> Vec<u32> {
    let mut ends = Vec::new();
    let mut characters = text.peekable();
    let mut at = 0u32;
    while let Some(character) = characters.next() {
        let ends_here = match character {
            0x0a | 0x2028 | 0x2029 => true,
            0x0d => characters.peek() != Some(&0x0a),
            _ => false,
        };
        if ends_here {
            ends.push(at);
        }
        at = at.saturating_add(1);
    }
    ends.push(at);
    ends
}

/// Line and column of a character offset, both from 0. `None` beyond the text.
pub fn line_and_column(line_ends: &[u32], offset: u32) -> Option<(u32, u32)> {
    let line = line_ends.partition_point(|&end| end < offset);
    line_ends.get(line)?;
    let start = line
        .checked_sub(1)
        .and_then(|before| line_ends.get(before))
        .map_or(0, |end| end.saturating_add(1));
    Some((u32::try_from(line).ok()?, offset.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn zigzag(value: i64, out: &mut Vec<u8>) {
        let mut bits = ((value << 1) ^ (value >> 63)) as u64;
        while bits > 0x7f {
            out.push(bits as u8 | 0x80);
            bits >>= 7;
        }
        out.push(bits as u8);
    }

    fn encode(entries: &[(i64, i64, bool)], position_bits: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let (mut code, mut position) = (-1, 0);
        for &(at, place, statement) in entries {
            let delta = (at - code) << position_bits;
            zigzag(if statement { delta } else { -delta - 1 }, &mut out);
            zigzag(place - position, &mut out);
            (code, position) = (at, place);
        }
        out
    }

    #[test]
    fn positions_have_offset_and_inlining() {
        let plain = SourcePosition(43 << 1);
        assert_eq!((plain.offset(), plain.inlining()), (Some(42), None));
        let inlined = SourcePosition(1 << 1 | 6 << 31);
        assert_eq!((inlined.offset(), inlined.inlining()), (Some(0), Some(5)));
        assert_eq!(SourcePosition(0).offset(), None);
        assert_eq!(SourcePosition(43 << 1 | 1).offset(), None);
    }

    #[test]
    fn tables_are_looked_up_by_the_entry_before() {
        for bits in [0, 1] {
            let bytes =
                encode(&[(0, 20, true), (5, 300, false), (5, 302, true), (90, 8, true)], bits);
            let table = PositionTable::decode(&bytes, bits);
            let found = [-1, 0, 4, 5, 89, 90, 5000].map(|at| table.lookup(at).map(|p| p.0));
            let wanted = [None, Some(20), Some(20), Some(302), Some(302), Some(8), Some(8)];
            assert_eq!(found, wanted, "{bits}");
        }
        assert!(PositionTable::decode(&[0x80], 0).is_empty());
    }

    #[test]
    fn baseline_offsets_count_bytecodes() {
        // Sizes of four prefixes and two bytecodes, at three scales.
        let sizes = [1, 1, 1, 1, 2, 3, 1, 1, 1, 1, 3, 5, 1, 1, 1, 1, 5, 9];
        let bytecodes = [4, 9, 0, 5, 1, 1, 1, 1, 5, 0, 0];
        let offsets = [10, 4, 6, 8];
        let at = |pc| baseline_offset(&offsets, &bytecodes, &sizes, pc);
        assert_eq!([at(1), at(10), at(11), at(14)], [Some(-1), Some(-1), Some(0), Some(0)]);
        assert_eq!(
            [at(15), at(20), at(21), at(28), at(29)],
            [Some(2), Some(2), Some(8), Some(8), None]
        );
        assert_eq!(baseline_offset(&offsets, &[99], &sizes, 15), None);
        assert_eq!(baseline_offset(&offsets, &[4], &[], 15), None);
    }

    #[test]
    fn lines_are_those_of_v8() {
        let ends = line_ends_one_byte(b"ab\r\nc\rd\n");
        assert_eq!(ends, [3, 5, 7, 8]);
        assert_eq!(line_and_column(&ends, 0), Some((0, 0)));
        assert_eq!(line_and_column(&ends, 4), Some((1, 0)));
        assert_eq!(line_and_column(&ends, 6), Some((2, 0)));
        assert_eq!(line_and_column(&ends, 9), None);
        let wide: Vec<u8> = "a\u{2028}b".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(line_ends_two_byte(&wide), [1, 3]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_table(bytes in any::<Vec<u8>>(), pc in any::<u64>(), bits in 0u32..2) {
            let table = PositionTable::decode(&bytes, bits);
            let _place = table.lookup(pc as i32);
            let _offset = baseline_offset(&bytes, &bytes, &[3; 300], pc);
        }

        #[test]
        fn every_offset_is_in_its_line(text in "[a\r\n]{0,40}") {
            let ends = line_ends_one_byte(text.as_bytes());
            for offset in 0..=text.len() as u32 {
                let (line, column) = line_and_column(&ends, offset).unwrap();
                let start = if line == 0 { 0 } else { ends[line as usize - 1] + 1 };
                prop_assert_eq!(start + column, offset);
                prop_assert!(offset <= ends[line as usize]);
            }
        }
    }
}
