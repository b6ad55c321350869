//! How a caller's registers are got from a frame's: one row of call frame information, made small.
//!
//! DWARF 5, section 6.4; System V psABI for AMD64. Rows and expressions come from the observed
//! process's files: every read is from the dump, and evaluation is bounded. Must not know files.

use gimli::{
    CfaRule, Encoding, EndianSlice, EvaluationResult, Expression, Format, LittleEndian, Location,
    RegisterRule, UnwindExpression, UnwindTableRow, Value,
};

use super::dump::{Registers, StackDump};

/// Operations of one expression at most; those of compilers have less than ten.
const MAX_OPERATIONS: u32 = 256;
/// The stack is not larger (ulimit, worker sizes): further away is no place of it.
const MAX_STACK: u64 = 64 << 20;
/// Registers that a function gives back as it found them, by DWARF number (System V psABI for AMD64,
/// figure 3.36): BP, BX, R12 to R15.
const KEPT: [u16; 6] = [6, 3, 12, 13, 14, 15];
/// The stack pointer's number.
const SP: u16 = 7;
/// The return address's column.
const RETURN: u16 = 16;

/// The registers that are known of every frame, by their place in [`KEPT`]. Small, for it is copied
/// at every step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Kept {
    values: [u64; KEPT.len()],
    known: u8,
}

impl Kept {
    fn set(&mut self, place: usize, value: u64) {
        if let Some(slot) = self.values.get_mut(place) {
            *slot = value;
            self.known |= 1 << place;
        }
    }

    fn get(&self, place: usize) -> Option<u64> {
        let value = self.values.get(place)?;
        (self.known >> place & 1 == 1).then_some(*value)
    }
}

/// What a caller is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) ip: u64,
    pub(super) sp: u64,
    kept: Kept,
    /// Whether `ip` is a return address.
    pub(super) call: bool,
    /// Whether the other registers are those of the sample.
    sampled: bool,
}

impl State {
    /// The innermost frame.
    pub(super) fn sampled(registers: &Registers) -> Self {
        let Registers { ip, sp, bp, bx, r12, r13, r14, r15, .. } = *registers;
        let kept = Kept { values: [bp, bx, r12, r13, r14, r15], known: 0x3f };
        Self { ip, sp, kept, call: false, sampled: true }
    }

    /// A frame of which only what a frame pointer leads to is known.
    pub(super) fn by_frame_pointer(ip: u64, sp: u64, bp: u64) -> Self {
        let kept = Kept { values: [bp, 0, 0, 0, 0, 0], known: 1 };
        Self { ip, sp, kept, call: true, sampled: false }
    }

    /// The frame pointer, if it is known.
    pub(super) fn bp(&self) -> Option<u64> {
        self.kept.get(0)
    }

    /// A register by DWARF number.
    fn register(&self, number: u16, sample: &Registers) -> Option<u64> {
        if number == SP {
            return Some(self.sp);
        }
        if number == RETURN {
            return Some(self.ip);
        }
        if let Some(place) = KEPT.iter().position(|&kept| kept == number) {
            return self.kept.get(place);
        }
        let value = match number {
            0 => sample.ax,
            4 => sample.si,
            5 => sample.di,
            9 => sample.r9,
            10 => sample.r10,
            11 => sample.r11,
            _ => return None,
        };
        self.sampled.then_some(value)
    }
}

/// Why there is no caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// This is the thread's first frame.
    Start,
    /// The caller is beyond what was copied.
    Truncated,
    /// The rule needs what is not known.
    Unusable,
    /// It leads nowhere.
    Broken,
}

/// A word of the dump.
pub(super) fn read(dump: &StackDump<'_>, address: u64) -> Result<u64, Stop> {
    if let Some(word) = dump.word(address) {
        return Ok(word);
    }
    let end = dump.end();
    let beyond = address.saturating_add(8) > end && address < end.saturating_add(MAX_STACK);
    Err(if beyond && address >= dump.registers.sp { Stop::Truncated } else { Stop::Broken })
}

/// Bytes of `.eh_frame` that are an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Span {
    offset: u32,
    length: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Cfa {
    Register { number: u16, offset: i32 },
    Expression(Span),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Saved {
    Same,
    Lost,
    /// In memory at CFA + N.
    At(i32),
    /// CFA + N itself.
    Is(i32),
    Register(u16),
    AtExpression(Span),
    IsExpression(Span),
}

/// One row of call frame information.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Rule {
    cfa: Cfa,
    kept: [Saved; KEPT.len()],
    /// `None` in a thread's first frame.
    caller: Option<Saved>,
    signal: bool,
}

impl Rule {
    /// From a row of a table; `None` when it cannot be right.
    pub(super) fn new(row: &UnwindTableRow<usize>, signal: bool) -> Option<Self> {
        let cfa = match *row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                Cfa::Register { number: register.0, offset: offset.try_into().ok()? }
            }
            CfaRule::Expression(expression) => Cfa::Expression(span(expression)?),
        };
        let saved = |number: u16| -> Option<Saved> {
            Some(match row.register(gimli::Register(number)) {
                None | Some(RegisterRule::SameValue) => Saved::Same,
                Some(RegisterRule::Offset(offset)) => Saved::At(offset.try_into().ok()?),
                Some(RegisterRule::ValOffset(offset)) => Saved::Is(offset.try_into().ok()?),
                Some(RegisterRule::Register(register)) => Saved::Register(register.0),
                Some(RegisterRule::Expression(expression)) => {
                    Saved::AtExpression(span(expression)?)
                }
                Some(RegisterRule::ValExpression(expression)) => {
                    Saved::IsExpression(span(expression)?)
                }
                Some(_) => Saved::Lost,
            })
        };
        let caller = match row.register(gimli::Register(RETURN)) {
            Some(RegisterRule::Undefined) => None,
            // Without a rule there is no return address; no compiler writes that.
            None | Some(RegisterRule::SameValue) => return None,
            Some(_) => Some(saved(RETURN)?),
        };
        let mut kept = [Saved::Same; KEPT.len()];
        for (place, number) in kept.iter_mut().zip(KEPT) {
            *place = saved(number)?;
        }
        Some(Self { cfa, kept, caller, signal })
    }

    /// The caller's state. `section` is the `.eh_frame` that the rule comes from.
    pub(super) fn apply(
        &self,
        state: &State,
        dump: &StackDump<'_>,
        section: &[u8],
    ) -> Result<State, Stop> {
        if self.caller.is_none() {
            return Err(Stop::Start);
        }
        let cfa = match self.cfa {
            Cfa::Register { number, offset } => {
                let base = state.register(number, &dump.registers).ok_or(Stop::Unusable)?;
                base.checked_add_signed(i64::from(offset)).ok_or(Stop::Broken)?
            }
            Cfa::Expression(span) => evaluate(section, span, None, state, dump)?,
        };
        self.apply_at(cfa, state, dump, section)
    }

    /// The same for a frame that ends at `cfa`, whatever the rule says of that.
    pub(super) fn apply_at(
        &self,
        cfa: u64,
        state: &State,
        dump: &StackDump<'_>,
        section: &[u8],
    ) -> Result<State, Stop> {
        let Some(caller) = self.caller else { return Err(Stop::Start) };
        let evaluate = |span: Span, cfa: Option<u64>| evaluate(section, span, cfa, state, dump);
        let by = |offset: i32| cfa.checked_add_signed(i64::from(offset)).ok_or(Stop::Broken);
        let value = |saved: Saved| -> Result<u64, Stop> {
            match saved {
                Saved::Same | Saved::Lost => Err(Stop::Unusable),
                Saved::At(offset) => read(dump, by(offset)?),
                Saved::Is(offset) => by(offset),
                Saved::Register(other) => {
                    state.register(other, &dump.registers).ok_or(Stop::Unusable)
                }
                Saved::AtExpression(span) => read(dump, evaluate(span, Some(cfa))?),
                Saved::IsExpression(span) => evaluate(span, Some(cfa)),
            }
        };
        let ip = value(caller)?;
        let mut kept = Kept::default();
        for (place, saved) in self.kept.iter().enumerate() {
            let value = match *saved {
                Saved::Same => state.kept.get(place),
                // Below the stack pointer: an epilogue has taken the register back already, and
                // compilers do not say so.
                Saved::At(offset) if by(offset)? < state.sp => state.kept.get(place),
                other => value(other).ok(),
            };
            if let Some(value) = value {
                kept.set(place, value);
            }
        }
        // A signal interrupts before an instruction; a call returns behind one.
        Ok(State { ip, sp: cfa, kept, call: !self.signal, sampled: false })
    }
}

fn span(expression: UnwindExpression<usize>) -> Option<Span> {
    Some(Span {
        offset: expression.offset.try_into().ok()?,
        length: expression.length.try_into().ok()?,
    })
}

/// The value of an expression over a frame's registers and the dump.
fn evaluate(
    section: &[u8],
    span: Span,
    cfa: Option<u64>,
    state: &State,
    dump: &StackDump<'_>,
) -> Result<u64, Stop> {
    let start = span.offset as usize;
    let bytes = section.get(start..start + usize::from(span.length)).ok_or(Stop::Broken)?;
    let encoding = Encoding { address_size: 8, format: Format::Dwarf32, version: 4 };
    let mut evaluation = Expression(EndianSlice::new(bytes, LittleEndian)).evaluation(encoding);
    // A program can jump backwards.
    evaluation.set_max_iterations(MAX_OPERATIONS);
    if let Some(cfa) = cfa {
        evaluation.set_initial_value(cfa);
    }
    let mut result = evaluation.evaluate();
    for _ in 0..MAX_OPERATIONS {
        result = match result.map_err(|_| Stop::Unusable)? {
            EvaluationResult::Complete => {
                let pieces = evaluation.as_result();
                return match pieces.first().map(|piece| &piece.location) {
                    Some(Location::Address { address }) => Ok(*address),
                    Some(Location::Value { value }) => value.to_u64(!0).map_err(|_| Stop::Unusable),
                    _ => Err(Stop::Unusable),
                };
            }
            EvaluationResult::RequiresRegister { register, .. } => {
                let value = state.register(register.0, &dump.registers);
                evaluation.resume_with_register(Value::Generic(value.ok_or(Stop::Unusable)?))
            }
            EvaluationResult::RequiresMemory { address, size: 8, .. } => {
                evaluation.resume_with_memory(Value::Generic(read(dump, address)?))
            }
            _ => return Err(Stop::Unusable),
        };
    }
    Err(Stop::Unusable)
}
