//! The grammar of EVENT on the command line: a named set, or a probe.
//!
//! ```text
//! EVENT    = SET | PROBE [ARG ...]
//! SET      = cpu | fs | syscalls | libc
//! PROBE    = (uprobe | u | uretprobe | ur) ":" [FILE ":"] FUNCTION ["+" OFFSET]
//! ARG      = [NAME "="] FETCH       in the kernel's own syntax, for example path=+0(%dx):ustring
//! ```
//!
//! Parsing is the inverse of printing. Which file and which address a probe means is decided by
//! the recorder; nothing is resolved here.

use std::fmt;

use crate::tracepoint::{FetchArg, parse_fetch_arg};

/// A named set of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Set {
    /// Time samples of running threads.
    Cpu,
    /// File operations.
    Fs,
    /// System calls.
    Syscalls,
    /// Paths given to the C library.
    Libc,
}

impl Set {
    /// The name on the command line and in the capture.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Fs => "fs",
            Self::Syscalls => "syscalls",
            Self::Libc => "libc",
        }
    }
}

/// Whether a probe fires when a function begins or when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    /// At an instruction.
    Entry,
    /// When the function returns.
    Return,
}

/// A probe on a function of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeSpec {
    /// Entry or return.
    pub kind: ProbeKind,
    /// Path, or the name of a library or program among the target's mappings; absent: any of them.
    pub file: Option<String>,
    /// Symbol.
    pub function: String,
    /// Bytes after the symbol.
    pub offset: u64,
    /// Arguments to fetch.
    pub arguments: Vec<FetchArg>,
}

/// An EVENT of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventSpec {
    /// A named set.
    Set(Set),
    /// A probe.
    Probe(ProbeSpec),
}

/// What is wrong with an EVENT.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// Neither a set nor a probe.
    #[error(
        "unknown event '{0}': use cpu, fs, syscalls, libc, uprobe:FILE:FUNCTION[+OFFSET] or \
         uretprobe:FILE:FUNCTION, one for each -e"
    )]
    Unknown(String),
    /// A set that is planned and not there yet.
    #[error(
        "event set '{0}' is not available in this version; available are cpu, fs, syscalls and libc"
    )]
    NotYet(String),
    /// The probe has no function.
    #[error("probe '{0}' names no function: write uprobe:FILE:FUNCTION[+OFFSET]")]
    NoFunction(String),
    /// The offset is not a number.
    #[error("offset '{0}' is not a number: write FUNCTION+16 or FUNCTION+0x10")]
    BadOffset(String),
    /// A return probe cannot be inside a function.
    #[error("a return probe takes no offset: '{0}'")]
    ReturnOffset(String),
    /// An argument is not in the kernel's syntax.
    #[error("argument '{argument}' of the probe: {cause}")]
    BadArgument {
        /// As written.
        argument: String,
        /// What is wrong with it.
        cause: String,
    },
    /// Two arguments have one name.
    #[error("argument name '{0}' is used twice")]
    DuplicateArgument(String),
}

/// Sets that the contract names and this version does not have.
const PLANNED_SETS: [&str; 8] =
    ["offcpu", "http", "dns", "loop", "gc", "exit", "usdt", "tracepoint"];

impl std::str::FromStr for EventSpec {
    type Err = EventError;

    fn from_str(text: &str) -> Result<Self, EventError> {
        let mut words = text.split_ascii_whitespace();
        let head = words.next().unwrap_or_default();
        match head {
            "cpu" => return Ok(Self::Set(Set::Cpu)),
            "fs" => return Ok(Self::Set(Set::Fs)),
            "syscalls" => return Ok(Self::Set(Set::Syscalls)),
            "libc" => return Ok(Self::Set(Set::Libc)),
            _ => {}
        }
        let (prefix, place) = head.split_once(':').unwrap_or((head, ""));
        let kind = match prefix {
            "uprobe" | "u" => ProbeKind::Entry,
            "uretprobe" | "ur" => ProbeKind::Return,
            _ if PLANNED_SETS.contains(&prefix) => return Err(EventError::NotYet(prefix.into())),
            _ => return Err(EventError::Unknown(head.into())),
        };
        let (file, symbol) = match place.rsplit_once(':') {
            Some((file, symbol)) => (Some(file).filter(|f| !f.is_empty()), symbol),
            None => (None, place),
        };
        let (function, offset) = match symbol.split_once('+') {
            Some((function, offset)) => (function, parse_offset(offset)?),
            None => (symbol, 0),
        };
        if function.is_empty() {
            return Err(EventError::NoFunction(head.into()));
        }
        if kind == ProbeKind::Return && offset != 0 {
            return Err(EventError::ReturnOffset(head.into()));
        }
        let mut arguments: Vec<FetchArg> = Vec::new();
        for word in words {
            let argument = parse_fetch_arg(word).map_err(|cause| EventError::BadArgument {
                argument: word.into(),
                cause: cause.to_string(),
            })?;
            if let Some(name) = &argument.name
                && arguments.iter().any(|other| other.name.as_ref() == Some(name))
            {
                return Err(EventError::DuplicateArgument(name.clone()));
            }
            arguments.push(argument);
        }
        let function = function.into();
        let file = file.map(Into::into);
        Ok(Self::Probe(ProbeSpec { kind, file, function, offset, arguments }))
    }
}

fn parse_offset(text: &str) -> Result<u64, EventError> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_not_a_number| EventError::BadOffset(text.into()))
}

impl fmt::Display for ProbeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = match self.kind {
            ProbeKind::Entry => "uprobe",
            ProbeKind::Return => "uretprobe",
        };
        write!(f, "{prefix}:")?;
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
        }
        f.write_str(&self.function)?;
        if self.offset != 0 {
            write!(f, "+{:#x}", self.offset)?;
        }
        for argument in &self.arguments {
            write!(f, " {argument}")?;
        }
        Ok(())
    }
}

impl fmt::Display for EventSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(set) => f.write_str(set.name()),
            Self::Probe(probe) => probe.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printing_is_the_inverse_of_parsing() {
        for text in [
            "cpu",
            "fs",
            "syscalls",
            "uprobe:node:uv_fs_open req=%si:x64 path=+0(%dx):ustring flags=%cx:s32",
            "uprobe:uv_fs_open+0x9",
            "uretprobe:libuv.so.1:uv_fs_open ret=$retval:s32",
            "uprobe:/usr/bin/a:b:main",
        ] {
            let parsed: EventSpec = text.parse().unwrap();
            assert_eq!(parsed.to_string(), text);
            assert_eq!(parsed.to_string().parse::<EventSpec>().unwrap(), parsed);
        }
    }

    #[test]
    fn short_forms_mean_the_same() {
        let long: EventSpec = "uprobe:node:f+16 a=%di".parse().unwrap();
        assert_eq!("u:node:f+0x10 a=%di".parse::<EventSpec>().unwrap(), long);
    }

    #[test]
    fn each_mistake_has_its_own_words() {
        let error = |text: &str| text.parse::<EventSpec>().unwrap_err().to_string();
        assert!(error("cpuu").contains("unknown event 'cpuu'"));
        assert!(error("http").contains("not available in this version"));
        assert!(error("uprobe:node:").contains("names no function"));
        assert!(error("uprobe:f+x").contains("offset 'x'"));
        assert!(error("uretprobe:f+4").contains("no offset"));
        assert!(error("uprobe:f a=%di a=%si").contains("used twice"));
        assert!(error("uprobe:f a-b=%di").contains("a-b=%di"));
        assert!(error("").contains("unknown event"));
    }
}
