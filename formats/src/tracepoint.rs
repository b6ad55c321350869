//! Records of tracepoints and dynamic events: the `format` file that describes them, the values in
//! their raw bytes, and the fetch arguments that define a dynamic event.
//!
//! It must not open tracefs and gives no meaning to fields. `print fmt` is never read: perf itself
//! prints arrays and empty strings wrongly by it.

mod decode;
mod fetch_arg;

pub use decode::Value;
pub use fetch_arg::{FetchArg, FetchArgError, parse_fetch_arg};

/// Fields that one event may have. The kernel allows 128 arguments to a probe (`MAX_TRACE_ARGS`).
const MAX_FIELDS: usize = 512;
/// Largest field, bytes: a raw record is at most 64 KiB, its size field has 16 bits.
const MAX_FIELD_BYTES: u32 = 1 << 16;

/// Why a `format` file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// A line that must be there is not.
    #[error("cannot read event format: line \"{0}\" is missing")]
    Missing(&'static str),
    /// A line is not as it should be.
    #[error("cannot read event format: line {line} is not understood: \"{text}\"")]
    BadLine {
        /// Number of the line, from 1.
        line: usize,
        /// The line itself, made safe and cut.
        text: String,
    },
    /// More fields than an event can have.
    #[error("cannot read event format: more than {MAX_FIELDS} fields")]
    TooManyFields,
}

/// Who put the field into the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldRole {
    /// Part of every record (`common_type`, `common_flags`, `common_preempt_count`, `common_pid`).
    Common,
    /// Part of every dynamic event (`__probe_ip`; `__probe_func` and `__probe_ret_ip` of return
    /// probes).
    Probe,
    /// An argument of this event: what a user asked for and is shown.
    Argument,
}

/// How the bytes of a field are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// One integer of 1, 2, 4 or 8 bytes, little endian.
    Int,
    /// The field is a u32 that points to a string in the record (`__data_loc char[]`).
    Str {
        /// Offsets count from behind the field (`__rel_loc`), not from the start of the record.
        relative: bool,
    },
    /// Like [`Str`](Self::Str), but integers stand there (`__data_loc u64[]`).
    DynamicArray {
        /// Bytes of one element.
        elem_size: u32,
        /// As in [`Str`](Self::Str).
        relative: bool,
    },
    /// Several string pointers in a row (a `ustring[4]` argument, `__data_loc char[][4]`).
    StrArray,
    /// Integers in place; their number is size / `elem_size`.
    Array {
        /// Bytes of one element.
        elem_size: u32,
    },
    /// Characters in place, up to the first NUL (`char comm[16]`).
    FixedChars,
    /// Anything else; given as bytes.
    Opaque,
}

/// One field of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Field {
    /// Name, without array brackets.
    pub name: String,
    /// C type as the kernel states it, without the name.
    pub type_name: String,
    /// Bytes from the start of the record.
    pub offset: u32,
    /// Bytes in place.
    pub size: u32,
    /// Whether integers are signed.
    pub signed: bool,
    /// How to read it.
    pub kind: FieldKind,
    /// Whose it is.
    pub role: FieldRole,
}

/// A parsed `format` file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TracepointFormat {
    /// Event name, without its group.
    pub name: String,
    /// Number of the event: `perf_event_attr.config`, and `common_type` of its records.
    pub id: u64,
    /// All fields in the order of the file.
    pub fields: Vec<Field>,
}

impl TracepointFormat {
    /// Parses the text of `events/GROUP/NAME/format`.
    ///
    /// # Errors
    /// [`FormatError`] when name, ID or a field line is missing or not understood.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let (mut name, mut id, mut fields) = (None, None, Vec::new());
        for (number, line) in text.lines().enumerate() {
            let bad = || FormatError::BadLine {
                line: number + 1,
                text: crate::text::clean_string(line.as_bytes(), 80),
            };
            let line = line.trim();
            if let Some(rest) = line.strip_prefix("name:") {
                name = Some(rest.trim().to_owned());
            } else if let Some(rest) = line.strip_prefix("ID:") {
                id = Some(rest.trim().parse().map_err(|_| bad())?);
            } else if let Some(rest) = line.strip_prefix("field:") {
                if fields.len() == MAX_FIELDS {
                    return Err(FormatError::TooManyFields);
                }
                fields.push(parse_field(rest).ok_or_else(bad)?);
            } else if line.starts_with("print fmt:") {
                break;
            }
        }
        Ok(Self {
            name: name.ok_or(FormatError::Missing("name:"))?,
            id: id.ok_or(FormatError::Missing("ID:"))?,
            fields,
        })
    }

    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|f| f.name == name)
    }

    /// The fields that are the event's own arguments.
    pub fn arguments(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|f| f.role == FieldRole::Argument)
    }

    /// Reads every field of a raw record, common ones included.
    pub fn decode<'a>(&'a self, raw: &'a [u8]) -> impl Iterator<Item = (&'a Field, Value<'a>)> {
        self.fields.iter().map(move |f| (f, f.read(raw)))
    }

    /// Reads the arguments of a raw record.
    pub fn decode_arguments<'a>(
        &'a self,
        raw: &'a [u8],
    ) -> impl Iterator<Item = (&'a Field, Value<'a>)> {
        self.arguments().map(move |f| (f, f.read(raw)))
    }
}

/// `TYPE NAME; offset:N; size:N; signed:0|1;`, with tabs between the parts.
fn parse_field(text: &str) -> Option<Field> {
    let mut parts = text.split(';').map(str::trim);
    let declaration = parts.next()?;
    let (mut offset, mut size, mut signed) = (None, None, None);
    for part in parts {
        match part.split_once(':') {
            Some(("offset", n)) => offset = Some(n.parse::<u32>().ok()?),
            Some(("size", n)) => size = Some(n.parse::<u32>().ok()?),
            Some(("signed", n)) => signed = Some(n != "0"),
            _ => {}
        }
    }
    let (offset, size, signed) = (offset?, size?, signed.unwrap_or(false));
    if size > MAX_FIELD_BYTES || offset > MAX_FIELD_BYTES {
        return None;
    }
    let (type_name, name, in_place) = declared(declaration)?;
    Some(Field {
        kind: kind_of(&type_name, in_place, size),
        role: role_of(&name),
        name,
        type_name,
        offset,
        size,
        signed,
    })
}

/// Splits a declaration into type and name, and says whether the name had array brackets.
fn declared(text: &str) -> Option<(String, String, bool)> {
    // Brackets behind the name (`char comm[16]`); brackets of the type stand before it (`char[]
    // x`).
    let (text, brackets) = match text.strip_suffix(']').and_then(|t| t.rsplit_once('[')) {
        Some((head, _)) => (head, true),
        None => (text, false),
    };
    let text = text.trim_end();
    let start = text.rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).map_or(0, |i| i + 1);
    let (type_name, name) = (text.get(..start)?.trim(), text.get(start..)?);
    if name.is_empty() || type_name.is_empty() {
        return None;
    }
    Some((type_name.to_owned(), name.to_owned(), brackets))
}

fn role_of(name: &str) -> FieldRole {
    match name {
        "__probe_ip" | "__probe_func" | "__probe_ret_ip" => FieldRole::Probe,
        _ if name.starts_with("common_") => FieldRole::Common,
        _ => FieldRole::Argument,
    }
}

fn kind_of(type_name: &str, in_place: bool, size: u32) -> FieldKind {
    let located = type_name
        .strip_prefix("__data_loc ")
        .map(|t| (t, false))
        .or_else(|| type_name.strip_prefix("__rel_loc ").map(|t| (t, true)));
    if let Some((element, relative)) = located {
        return match element.split_once('[').map(|(base, rest)| (base.trim(), rest)) {
            Some(("char", "]")) if size == 4 => FieldKind::Str { relative },
            Some(("char", _)) if !relative && size.is_multiple_of(4) => FieldKind::StrArray,
            Some((base, "]")) if size == 4 => {
                let elem_size = integer_size(base).unwrap_or(1);
                FieldKind::DynamicArray { elem_size, relative }
            }
            _ => FieldKind::Opaque,
        };
    }
    if !in_place {
        return if matches!(size, 1 | 2 | 4 | 8) { FieldKind::Int } else { FieldKind::Opaque };
    }
    match integer_size(type_name) {
        Some(1) if type_name == "char" => FieldKind::FixedChars,
        Some(elem_size) if size.is_multiple_of(elem_size) => FieldKind::Array { elem_size },
        _ => FieldKind::Opaque,
    }
}

/// Bytes of a C integer type on a 64-bit kernel; `None` for structs and unknown names.
fn integer_size(name: &str) -> Option<u32> {
    if name.ends_with('*') {
        return Some(8);
    }
    let plain = name.trim_start_matches("const ").trim_start_matches("unsigned ");
    let plain = plain.trim_start_matches("signed ").trim_start_matches("__");
    match plain {
        "char" | "u8" | "s8" | "x8" | "uint8_t" | "int8_t" | "bool" => Some(1),
        "short" | "u16" | "s16" | "x16" | "uint16_t" | "int16_t" | "be16" | "le16" => Some(2),
        "int" | "unsigned" | "u32" | "s32" | "x32" | "uint32_t" | "int32_t" | "be32" | "le32"
        | "pid_t" => Some(4),
        "long" | "long long" | "u64" | "s64" | "x64" | "uint64_t" | "int64_t" | "be64" | "le64"
        | "size_t" => Some(8),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
