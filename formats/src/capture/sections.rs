//! The inner layer: sections of a data chunk, and how each row is written.
//!
//! A data chunk's payload is `uint epoch, uint base_time` and then sections: `uint tag, uint
//! length, payload`. A row section is `uint first_index, uint count, rows`.

use super::encoding::{Corrupt, Decoder, Encoder};
use super::model::{
    Frame, Function, Holding, JitBatch, JitEntry, LineEnds, Loss, Mapping, Marker, NoName, Object,
    Process, ProcessEnd, Script, Symbol, Thread, Tier,
};
use crate::limits::Limits;

/// Section tags. A tag that a reader does not know is skipped and counted.
pub(super) mod tag {
    pub(in crate::capture) const STRINGS: u64 = 1;
    pub(in crate::capture) const FRAMES: u64 = 2;
    pub(in crate::capture) const STACKS: u64 = 3;
    pub(in crate::capture) const OBJECTS: u64 = 4;
    pub(in crate::capture) const PROCESSES: u64 = 5;
    pub(in crate::capture) const THREADS: u64 = 6;
    pub(in crate::capture) const EVENTS: u64 = 7;
    pub(in crate::capture) const SAMPLES: u64 = 8;
    pub(in crate::capture) const JIT: u64 = 9;
    pub(in crate::capture) const SYMBOLS: u64 = 10;
    pub(in crate::capture) const LOSSES: u64 = 11;
    pub(in crate::capture) const MAPPINGS: u64 = 12;
    pub(in crate::capture) const REMARKS: u64 = 13;
    pub(in crate::capture) const FUNCTIONS: u64 = 14;
    pub(in crate::capture) const SCRIPTS: u64 = 15;
    pub(in crate::capture) const ENDS: u64 = 16;
    pub(in crate::capture) const LINE_ENDS: u64 = 17;
    pub(in crate::capture) const HOLDINGS: u64 = 18;
}

/// A row of a table. `last` carries the address of the row before, for differences.
pub(super) trait Row: Sized {
    fn encode(&self, to: &mut Encoder, last: &mut u64);
    fn decode(from: &mut Decoder<'_>, last: &mut u64, limits: &Limits) -> Result<Self, Corrupt>;
}

/// Appends one section with the given payload.
pub(super) fn section(to: &mut Encoder, tag: u64, payload: &Encoder) {
    to.uint(tag);
    to.string(payload.bytes());
}

/// Appends a row section, unless there are no rows.
pub(super) fn rows<R: Row>(to: &mut Encoder, tag: u64, first: u64, rows: &[R]) {
    if rows.is_empty() {
        return;
    }
    let mut payload = Encoder::default();
    payload.uint(first);
    payload.uint(rows.len() as u64);
    let mut last = 0;
    for row in rows {
        row.encode(&mut payload, &mut last);
    }
    section(to, tag, &payload);
}

/// Reads a row section: the first index, counted from row `gone` on, and the rows.
pub(super) fn read_rows<R: Row>(
    payload: &[u8],
    gone: usize,
    limits: &Limits,
) -> Result<(usize, Vec<R>), Corrupt> {
    let mut from = Decoder::new(payload);
    let first = (from.u32()? as usize)
        .checked_sub(gone)
        .ok_or_else(|| from.corrupt("table index out of range"))?;
    let count = from.count()?;
    if first.saturating_add(count) > limits.table_entries {
        return Err(from.corrupt("table over the limit"));
    }
    let mut out = Vec::with_capacity(count);
    let mut last = 0;
    for _row in 0..count {
        out.push(R::decode(&mut from, &mut last, limits)?);
    }
    Ok((first, out))
}

/// A table string, so that strings are rows too.
impl Row for Box<[u8]> {
    fn encode(&self, to: &mut Encoder, _last: &mut u64) {
        to.string(self);
    }
    fn decode(from: &mut Decoder<'_>, _last: &mut u64, limits: &Limits) -> Result<Self, Corrupt> {
        Ok(from.string(limits.string_bytes)?.into())
    }
}

/// A node of the stack tree: (parent, frame). Parent 0 is the root.
impl Row for (u32, u32) {
    fn encode(&self, to: &mut Encoder, last: &mut u64) {
        // Chains are pushed root first, so the parent is nearly always the node just made.
        to.delta(last, u64::from(self.0));
        *last = last.wrapping_add(1);
        to.uint(u64::from(self.1));
    }
    fn decode(from: &mut Decoder<'_>, last: &mut u64, _limits: &Limits) -> Result<Self, Corrupt> {
        let parent = from.delta(last)?;
        *last = last.wrapping_add(1);
        let parent = u32::try_from(parent)
            .map_err(|_too_large| from.corrupt("stack parent out of range"))?;
        Ok((parent, from.u32()?))
    }
}

const KIND_NATIVE: u8 = 0;
const KIND_JIT: u8 = 1;
const KIND_JS: u8 = 2;
const KIND_KERNEL: u8 = 3;
const KIND_UNMAPPED: u8 = 4;
const KIND_MARKER: u8 = 5;
const KIND_NAMELESS: u8 = 6;
/// Added to a kind for a return address, and for a function that is part of its caller's code.
const CALL: u8 = 0x80;

impl Row for Frame {
    fn encode(&self, to: &mut Encoder, last: &mut u64) {
        let call = |call: bool| if call { CALL } else { 0 };
        match *self {
            Self::Native { object, offset, call: ret } => {
                to.byte(KIND_NATIVE | call(ret));
                to.uint(u64::from(object));
                to.delta(last, offset);
            }
            Self::Jit { process, address, call: ret } => {
                to.byte(KIND_JIT | call(ret));
                to.uint(u64::from(process));
                to.delta(last, address);
            }
            Self::Js { function, position, tier, inlined } => {
                to.byte(KIND_JS | call(inlined));
                to.uint(u64::from(function));
                to.uint(u64::from(position));
                to.byte(tier.0);
            }
            Self::Nameless(why) => {
                to.byte(KIND_NAMELESS);
                to.byte(why.0);
            }
            Self::Kernel { address, call: ret } => {
                to.byte(KIND_KERNEL | call(ret));
                to.delta(last, address);
            }
            Self::Unmapped { address } => {
                to.byte(KIND_UNMAPPED);
                to.delta(last, address);
            }
            Self::Marker(marker) => {
                to.byte(KIND_MARKER);
                to.byte(marker.0);
            }
        }
    }

    fn decode(from: &mut Decoder<'_>, last: &mut u64, _limits: &Limits) -> Result<Self, Corrupt> {
        let kind = from.byte()?;
        let call = kind & CALL != 0;
        Ok(match kind & !CALL {
            KIND_NATIVE => Self::Native { object: from.u32()?, offset: from.delta(last)?, call },
            KIND_JIT => Self::Jit { process: from.u32()?, address: from.delta(last)?, call },
            KIND_JS => {
                let (function, position) = (from.u32()?, from.u32()?);
                Self::Js { function, position, tier: Tier(from.byte()?), inlined: call }
            }
            KIND_NAMELESS => Self::Nameless(NoName(from.byte()?)),
            KIND_KERNEL => Self::Kernel { address: from.delta(last)?, call },
            KIND_UNMAPPED => Self::Unmapped { address: from.delta(last)? },
            KIND_MARKER => Self::Marker(Marker(from.byte()?)),
            _ => return Err(from.corrupt("unknown kind of frame")),
        })
    }
}

/// Writes a struct's fields in order; the macro keeps writer and reader from drifting apart.
macro_rules! row {
    ($name:ident { $($field:ident: $how:ident),+ $(,)? }) => {
        impl Row for $name {
            fn encode(&self, to: &mut Encoder, last: &mut u64) {
                // Tables without an address have no use for `last`, without a string none for `limits`.
                let _unused = &last;
                $(row!(@put to, last, self.$field, $how);)+
            }
            fn decode(from: &mut Decoder<'_>, last: &mut u64, limits: &Limits) -> Result<Self, Corrupt> {
                let _unused = (&last, limits);
                Ok(Self { $($field: row!(@get from, last, limits, $how)),+ })
            }
        }
    };
    (@put $to:ident, $last:ident, $value:expr, index) => { $to.uint(u64::from($value)) };
    (@put $to:ident, $last:ident, $value:expr, uint) => { $to.uint($value) };
    (@put $to:ident, $last:ident, $value:expr, delta) => { $to.delta($last, $value) };
    (@put $to:ident, $last:ident, $value:expr, bytes) => { $to.string(&$value) };
    (@get $from:ident, $last:ident, $limits:ident, index) => { $from.u32()? };
    (@get $from:ident, $last:ident, $limits:ident, uint) => { $from.uint()? };
    (@get $from:ident, $last:ident, $limits:ident, delta) => { $from.delta($last)? };
    (@get $from:ident, $last:ident, $limits:ident, bytes) => {
        $from.string($limits.string_bytes)?.to_vec()
    };
}

row!(Object { path: bytes, build_id: bytes, flags: index });
row!(Process {
    pid: index,
    parent: index,
    start_ns: uint,
    comm: bytes,
    cmdline: bytes,
    node_options: bytes,
});
row!(Thread { process: index, tid: index });
row!(ProcessEnd { process: index, time_ns: uint });
row!(Holding { process: index, number: index, time_ns: uint, target: bytes });
row!(Mapping {
    process: index,
    object: index,
    start: delta,
    end: delta,
    offset: uint,
    time_ns: uint
});
row!(JitEntry { start: delta, size: uint, name: bytes });
row!(Symbol { object: index, start: delta, size: uint, name: bytes });
row!(Function { script: index, name: bytes, start: index });
row!(Script {
    process: index,
    name: bytes,
    source_url: bytes,
    source_map_url: bytes,
    line_offset: index,
    column_offset: index,
});
row!(Loss { event: index, time_ns: uint, lost: uint, dropped: uint });

impl Row for LineEnds {
    fn encode(&self, to: &mut Encoder, _last: &mut u64) {
        to.uint(u64::from(self.script));
        to.uint(self.ends.len() as u64);
        let mut last = 0;
        for &end in &self.ends {
            // They ascend, so a plain difference is never negative.
            to.uint(u64::from(end.saturating_sub(last)));
            last = end;
        }
    }
    fn decode(from: &mut Decoder<'_>, _last: &mut u64, _limits: &Limits) -> Result<Self, Corrupt> {
        let script = from.u32()?;
        let count = from.count()?;
        let mut ends = Vec::with_capacity(count);
        let mut last = 0u32;
        for _line in 0..count {
            last = last
                .checked_add(from.u32()?)
                .ok_or_else(|| from.corrupt("line end out of range"))?;
            ends.push(last);
        }
        Ok(Self { script, ends })
    }
}

/// Writes a JIT batch; its entries are rows without a first index.
pub(super) fn jit(to: &mut Encoder, batch: &JitBatch) {
    let mut payload = Encoder::default();
    payload.uint(u64::from(batch.process));
    payload.uint(batch.after_ns);
    payload.uint(batch.seen_ns);
    payload.uint(batch.entries.len() as u64);
    let mut last = 0;
    for entry in &batch.entries {
        entry.encode(&mut payload, &mut last);
    }
    section(to, tag::JIT, &payload);
}

/// Reads what [`jit`] wrote.
pub(super) fn read_jit(payload: &[u8], limits: &Limits) -> Result<JitBatch, Corrupt> {
    let mut from = Decoder::new(payload);
    let (process, after_ns, seen_ns) = (from.u32()?, from.uint()?, from.uint()?);
    let count = from.count()?;
    let mut entries = Vec::with_capacity(count);
    let mut last = 0;
    for _entry in 0..count {
        entries.push(JitEntry::decode(&mut from, &mut last, limits)?);
    }
    Ok(JitBatch { process, after_ns, seen_ns, entries })
}
