//! The probes of a recording before their place is known: catalogue entries and the user's own,
//! brought to one form.

use formats::capture::FieldType;
use formats::catalogue::{self, Argument, Entry, LIBC, LIBC_FILE};
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
    /// The functions of a probe that is armed at several as one dynamic event, each with an event of
    /// its own in the capture; empty for a probe of one function.
    pub members: Vec<Member>,
}

/// One function of a shared probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Event id in the capture.
    pub event: u32,
    /// The function and its arguments.
    pub entry: &'static Entry,
}

/// Stands at a site for an argument that its function does not have. A string cannot be a constant:
/// this one is at no address, so that the kernel records it as unreadable.
const NO_NUMBER: &str = "\\0";
const NO_STRING: &str = "+0(\\0)";

impl Wanted {
    /// A function of the catalogue.
    #[must_use]
    pub fn from_catalogue(event: u32, entry: &'static Entry) -> Self {
        Self {
            event,
            name: entry.event.to_owned(),
            set: entry.set,
            kind: if entry.is_return() { ProbeKind::Return } else { ProbeKind::Entry },
            file: (entry.set == LIBC).then(|| LIBC_FILE.to_owned()),
            function: entry.function.to_owned(),
            offset: 0,
            arguments: entry.arguments.iter().map(|a| format!("{}={}", a.name, a.fetch)).collect(),
            kinds: entry.arguments.iter().map(|a| a.kind).collect(),
            filter: entry.filter,
            may_slide: entry.may_slide,
            stack: entry.stack,
            members: Vec::new(),
        }
    }

    /// Functions of the catalogue that share one dynamic event, whose arguments are those of all.
    fn shared(event: u32, name: &str, entries: &[&'static Entry]) -> Option<Self> {
        let (first, mut all) = (entries.first()?, Vec::<Argument>::new());
        for argument in entries.iter().flat_map(|entry| entry.arguments) {
            if all.iter().all(|known| known.name != argument.name) {
                all.push(*argument);
            }
        }
        // The string comes last, as everywhere.
        all.sort_by_key(|argument| argument.kind == FieldType::String);
        let members = entries.iter().zip(event + 1..);
        Some(Self {
            name: name.to_owned(),
            function: name.to_owned(),
            arguments: all.iter().map(|a| format!("{}={}", a.name, a.fetch)).collect(),
            kinds: all.iter().map(|a| a.kind).collect(),
            members: members.map(|(&entry, event)| Member { event, entry }).collect(),
            ..Self::from_catalogue(event, first)
        })
    }

    /// The functions at which it is armed.
    #[must_use]
    pub fn functions(&self) -> Vec<&str> {
        if self.members.is_empty() {
            return vec![&self.function];
        }
        self.members.iter().map(|member| member.entry.function).collect()
    }

    /// The catalogue's entries of its functions; none for a probe of the user.
    pub fn entries(&self) -> impl Iterator<Item = &'static Entry> {
        let own = catalogue::entry(&self.name).filter(|_| self.members.is_empty());
        self.members.iter().map(|member| member.entry).chain(own)
    }

    /// Arguments at a site in `function`: names and types are equal at all sites, what is fetched
    /// is not.
    #[must_use]
    pub fn arguments_at(&self, function: &str) -> Vec<String> {
        let Some(member) = self.members.iter().find(|m| m.entry.function == function) else {
            return self.arguments.clone();
        };
        let own = |argument: &String| {
            let (name, fetch) = argument.split_once('=')?;
            let (_, type_) = fetch.rsplit_once(':')?;
            let own = member.entry.arguments.iter().find(|own| own.name == name);
            let none = if type_ == "ustring" { NO_STRING } else { NO_NUMBER };
            Some(own.map_or_else(
                || format!("{name}={none}:{type_}"),
                |own| format!("{name}={}", own.fetch),
            ))
        };
        let arguments = self.arguments.iter().map(|a| own(a).unwrap_or_else(|| a.clone()));
        arguments.collect()
    }

    /// The same probe with other event ids, from `event` on.
    #[must_use]
    pub fn numbered(&self, event: u32) -> Self {
        let members = self.members.iter().zip(event + 1..);
        let members = members.map(|(member, event)| Member { event, ..member.clone() });
        Self { event, members: members.collect(), ..self.clone() }
    }

    /// The names of its event and of those of its functions, by event id.
    pub fn names(&self) -> impl Iterator<Item = (u32, String)> {
        let members = self.members.iter().map(|m| (m.event, m.entry.event.to_owned()));
        std::iter::once((self.event, self.name.clone())).chain(members)
    }

    /// The first event id after its own.
    #[must_use]
    pub fn next_event(&self) -> u32 {
        self.event + 1 + self.members.len() as u32
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
            members: Vec::new(),
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
        let mut set: Vec<Self> = Vec::new();
        let mut next = first_event;
        for entry in entries.iter().rev() {
            let wanted = match entry.group {
                None => Some(Self::from_catalogue(next, entry)),
                Some(group) if set.iter().any(|known| known.name == group) => None,
                Some(group) => {
                    let of_group = entries.iter().filter(|entry| entry.group == Some(group));
                    Self::shared(next, group, &of_group.copied().collect::<Vec<_>>())
                }
            };
            next = wanted.as_ref().map_or(next, Self::next_event);
            set.extend(wanted);
        }
        set
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
        let set = Wanted::set("fs", 2);
        let names: Vec<_> = set.iter().map(|wanted| wanted.name.as_str()).collect();
        let requests = ["uv_fs_*", "uv_fs_open", "outside libuv"];
        assert_eq!(names[..2], ["uv__work", "outside libuv, returns"]);
        assert_eq!(names[2..4], ["uv_fs_*.new", "uv_fs_req_cleanup"]);
        assert_eq!(names[4..], requests);
        let returns = |wanted: &&Wanted| wanted.kind == ProbeKind::Return;
        assert_eq!(set.iter().filter(returns).map(|w| &w.name).collect::<Vec<_>>(), [names[1]]);
        // No number is given twice.
        let members = set.iter().flat_map(|w| w.members.iter().map(|member| member.event));
        let mut events: Vec<u32> = set.iter().map(|w| w.event).chain(members).collect();
        events.sort_unstable();
        assert!(events.iter().copied().eq(2..2 + events.len() as u32), "{events:?}");
        assert_eq!(set[6].next_event(), 2 + events.len() as u32);
    }

    #[test]
    fn sites_of_a_shared_probe_fetch_alike_named_arguments() {
        let set = Wanted::set("fs", 2);
        let shared = set.iter().find(|wanted| wanted.name == "uv_fs_*").unwrap();
        let names = |arguments: &[String]| -> Vec<String> {
            let parts = arguments.iter().map(|argument| {
                let (name, fetch) = argument.split_once('=').unwrap();
                format!("{name}:{}", fetch.rsplit_once(':').unwrap().1)
            });
            parts.collect()
        };
        for function in shared.functions() {
            let at = shared.arguments_at(function);
            assert_eq!(names(&at), names(&shared.arguments), "{function}");
            assert!(at.last().unwrap().starts_with("path="), "{function}: {at:?}");
        }
        let close = shared.arguments_at("uv_fs_close");
        assert!(close.contains(&"file=%dx:s32".to_owned()));
        assert!(close.contains(&"path=+0(\\0):ustring".to_owned()));
        assert!(shared.arguments_at("uv_fs_mkdir").contains(&"file=\\0:s32".to_owned()));
        let moved = shared.numbered(100);
        assert_eq!((moved.event, moved.members[0].event), (100, 101));
    }

    #[test]
    fn event_names_are_identifiers_of_the_kernel() {
        assert_eq!(event_name("uv_fs_open", 1), "uv_fs_open_1");
        assert_eq!(event_name("_ZN4node9AsyncWrap", 2), "_ZN4node9AsyncWrap_2");
        assert_eq!(event_name("0x12:é", 3), "_0x12___3");
        assert!(event_name(&"x".repeat(500), u32::MAX).len() <= 63);
    }
}
