//! Fetch arguments of dynamic events in the kernel's own syntax, `[NAME=]EXPRESSION[:TYPE]` (kernel
//! tree, Documentation/trace/uprobetracer.rst). Only their shape is checked, so that nothing else
//! can get into the command; what an expression means is for the kernel to judge.

use std::fmt;
use std::str::FromStr;

use crate::text::clean_string;

/// Longest name, bytes (`MAX_ARG_NAME_LEN` in kernel/trace/trace_probe.h).
const MAX_NAME: usize = 32;
/// Longest expression with type, bytes (`MAX_ARGSTR_LEN`, same file).
const MAX_BODY: usize = 63;

/// One fetch argument. Prints as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct FetchArg {
    /// Name of the field; without one the kernel calls it `arg1`, `arg2`, … by its place.
    pub name: Option<String>,
    /// What to fetch: `%di`, `+0(%dx)`, `$stack0`, `$retval`, `@ADDR`.
    pub expr: String,
    /// Type: `x64`, `s32`, `ustring`, `x64[32]`, `b4@2/32`. Without one the kernel takes `x64`.
    pub type_: Option<String>,
}

/// Why a fetch argument is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchArgError {
    /// The name is empty, too long or has other characters than letters, digits and `_`.
    #[error(
        "cannot use argument name \"{0}\": 1 to {MAX_NAME} letters, digits and underscores, not beginning with a digit"
    )]
    Name(String),
    /// The kernel uses the name for fields of its own.
    #[error("cannot use argument name \"{0}\": it is reserved by the kernel")]
    ReservedName(String),
    /// Nothing to fetch.
    #[error("cannot use argument \"{0}\": no expression")]
    NoExpression(String),
    /// A character that cannot be part of a fetch argument, such as a space or a control character.
    #[error("cannot use argument \"{text}\": character \"{found}\" is not allowed")]
    Character {
        /// The argument, made safe.
        text: String,
        /// The character, made safe.
        found: String,
    },
    /// Parentheses do not match.
    #[error("cannot use argument \"{0}\": parentheses do not match")]
    Parentheses(String),
    /// Expression and type are longer than the kernel takes.
    #[error(
        "cannot use argument \"{text}\": {len} characters are more than the {MAX_BODY} the kernel takes"
    )]
    TooLong {
        /// The argument, made safe and cut.
        text: String,
        /// Its length without name, bytes.
        len: usize,
    },
    /// The type is empty or has characters that no type has.
    #[error(
        "cannot use argument type \"{0}\": not a type like x64, s32, ustring, u8[4] or b4@2/32"
    )]
    Type(String),
}

/// Parses one fetch argument, such as `path=+0(%dx):ustring`.
///
/// # Errors
/// [`FetchArgError`]: every text that is accepted is free of white space, control characters and
/// newlines.
pub fn parse_fetch_arg(text: &str) -> Result<FetchArg, FetchArgError> {
    let shown = || clean_string(text.as_bytes(), 80);
    if let Some(c) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(FetchArgError::Character {
            text: shown(),
            found: clean_string(c.to_string().as_bytes(), 10),
        });
    }
    let (name, body) = match text.split_once('=') {
        Some((name, body)) => (Some(checked_name(name)?), body),
        None => (None, text),
    };
    if body.len() > MAX_BODY {
        return Err(FetchArgError::TooLong { text: shown(), len: body.len() });
    }
    let (expr, type_) = match body.split_once(':') {
        Some((expr, type_)) => (expr, Some(checked_type(type_)?)),
        None => (body, None),
    };
    if expr.is_empty() {
        return Err(FetchArgError::NoExpression(shown()));
    }
    // What expressions are made of; `\` and `"` are immediate values.
    let allowed = |c: &char| c.is_ascii_alphanumeric() || "+-%$@()._\\\"".contains(*c);
    if let Some(c) = expr.chars().find(|c| !allowed(c)) {
        return Err(FetchArgError::Character { text: shown(), found: c.to_string() });
    }
    if !balanced(expr) {
        return Err(FetchArgError::Parentheses(shown()));
    }
    Ok(FetchArg { name, expr: expr.to_owned(), type_ })
}

fn checked_name(name: &str) -> Result<String, FetchArgError> {
    let shown = || clean_string(name.as_bytes(), 80);
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let made_well = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !starts_well || !made_well || name.len() > MAX_NAME {
        return Err(FetchArgError::Name(shown()));
    }
    if name.starts_with("common_") || name.starts_with("__probe_") {
        return Err(FetchArgError::ReservedName(shown()));
    }
    Ok(name.to_owned())
}

fn checked_type(type_: &str) -> Result<String, FetchArgError> {
    let made_well = type_.chars().all(|c| c.is_ascii_alphanumeric() || "_[]@/%".contains(c));
    if type_.is_empty() || !made_well {
        return Err(FetchArgError::Type(clean_string(type_.as_bytes(), 80)));
    }
    Ok(type_.to_owned())
}

fn balanced(expr: &str) -> bool {
    let depth = expr.chars().try_fold(0u32, |depth, c| match c {
        '(' => depth.checked_add(1),
        ')' => depth.checked_sub(1),
        _ => Some(depth),
    });
    depth == Some(0)
}

impl FromStr for FetchArg {
    type Err = FetchArgError;

    fn from_str(text: &str) -> Result<Self, FetchArgError> {
        parse_fetch_arg(text)
    }
}

impl fmt::Display for FetchArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}=")?;
        }
        f.write_str(&self.expr)?;
        match &self.type_ {
            Some(type_) => write!(f, ":{type_}"),
            None => Ok(()),
        }
    }
}
