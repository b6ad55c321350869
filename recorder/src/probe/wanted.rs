//! The probes of a recording before their place is known: catalogue entries and the user's own,
//! brought to one form.

use formats::capture::FieldType;
use formats::catalogue::{self, Entry};
use formats::probe::{ProbeKind, ProbeSpec};

/// A probe that shall be armed wherever its function is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Event id in the capture.
    pub event: u32,
    /// Event name in the capture.
    pub name: String,
    /// Set in the capture.
    pub set: &'static str,
    /// Entry or return.
    pub kind: ProbeKind,
    /// Which files may hold it; absent: any.
    pub file: Option<String>,
    /// Symbol.
    pub function: String,
    /// Bytes after the symbol.
    pub offset: u64,
    /// Arguments in the kernel's syntax.
    pub arguments: Vec<String>,
    /// How people read each argument.
    pub kinds: Vec<FieldType>,
    /// Kernel filter.
    pub filter: Option<&'static str>,
    /// Whether the probe may move to the first `push %rbp`.
    pub may_slide: bool,
    /// Whether to take the callchain.
    pub stack: bool,
}

impl Wanted {
    /// A function of the catalogue.
    #[must_use]
    pub fn from_catalogue(event: u32, entry: &'static Entry) -> Self {
        Self {
            event,
            name: entry.function.to_owned(),
            set: entry.set,
            kind: ProbeKind::Entry,
            file: None,
            function: entry.function.to_owned(),
            offset: 0,
            arguments: entry.arguments.iter().map(|a| format!("{}={}", a.name, a.fetch)).collect(),
            kinds: entry.arguments.iter().map(|a| a.kind).collect(),
            filter: entry.filter,
            may_slide: entry.may_slide,
            stack: entry.stack,
        }
    }

    /// A probe of the user.
    #[must_use]
    pub fn from_spec(event: u32, spec: &ProbeSpec) -> Self {
        let place = ProbeSpec { arguments: Vec::new(), ..spec.clone() };
        Self {
            event,
            name: place.to_string(),
            set: "probe",
            kind: spec.kind,
            file: spec.file.clone(),
            function: spec.function.clone(),
            offset: spec.offset,
            arguments: spec.arguments.iter().map(ToString::to_string).collect(),
            kinds: spec.arguments.iter().map(|a| kind_of(a.type_.as_deref())).collect(),
            filter: None,
            // A branch before the frame is set up may leave the function: sliding would lose hits.
            may_slide: false,
            stack: true,
        }
    }

    /// Name of its dynamic event, one of `number`.
    #[must_use]
    pub fn event_name(&self, number: u32) -> String {
        event_name(&self.function, number)
    }

    /// The entries of a named set, results before requests: what is armed first must not miss the
    /// end of what is armed later.
    #[must_use]
    pub fn set(name: &str, first_event: u32) -> Vec<Self> {
        let entries: Vec<_> = catalogue::set(name).collect();
        let numbered = entries.iter().rev().zip(first_event..);
        numbered.map(|(entry, event)| Self::from_catalogue(event, entry)).collect()
    }
}

/// Name of a dynamic event: the function as far as the kernel's rules allow, and a number.
fn event_name(function: &str, number: u32) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let function: String = function.chars().take(48).map(clean).collect();
    let prefix = if function.starts_with(|c: char| c.is_ascii_digit()) { "_" } else { "" };
    format!("{prefix}{function}_{number}")
}

/// How people read an argument of this kernel type; the kernel's own default is `x64`.
fn kind_of(fetch_type: Option<&str>) -> FieldType {
    match fetch_type {
        Some(text) if text.contains('[') => FieldType::Bytes,
        Some(text) if text.contains("string") => FieldType::String,
        Some(text) if text.starts_with('s') => FieldType::Signed,
        Some(text) if text.starts_with('u') => FieldType::Unsigned,
        _ => FieldType::Hex,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::probe::EventSpec;

    #[test]
    fn kinds_follow_the_kernels_types() {
        let text = "uprobe:node:f a=%di b=%si:s32 c=+0(%dx):ustring d=%cx:u8 e=+0(%si):x64[4]";
        let Ok(EventSpec::Probe(spec)) = text.parse() else { panic!("{text}") };
        let wanted = Wanted::from_spec(9, &spec);
        assert_eq!(wanted.name, "uprobe:node:f");
        use FieldType::{Bytes, Hex, Signed, String, Unsigned};
        assert_eq!(wanted.kinds, [Hex, Signed, String, Unsigned, Bytes]);
        assert_eq!(wanted.arguments[2], "c=+0(%dx):ustring");
    }

    #[test]
    fn results_are_armed_before_requests() {
        let names: Vec<_> = Wanted::set("fs", 2).into_iter().map(|w| (w.event, w.name)).collect();
        assert_eq!(names, [(2, "uv_fs_req_cleanup".into()), (3, "uv_fs_open".into())]);
    }

    #[test]
    fn event_names_are_identifiers_of_the_kernel() {
        assert_eq!(event_name("uv_fs_open", 1), "uv_fs_open_1");
        assert_eq!(event_name("_ZN4node9AsyncWrap", 2), "_ZN4node9AsyncWrap_2");
        assert_eq!(event_name("0x12:é", 3), "_0x12___3");
        assert!(event_name(&"x".repeat(500), u32::MAX).len() <= 63);
    }
}
