//! The functions of the files: which fit, which can be probed, and the EVENT of each.
//!
//! A function is listed only if arming it would succeed: its first instruction is decoded as for a
//! recording. Must not print or explain.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use formats::catalogue::{self, Entry};
use formats::demangle;
use formats::elf::{ElfError, ElfInfo, FunctionSymbol, for_each_function};
use formats::probe::{EventSpec, ProbeKind, ProbeSpec};
use formats::text::Clean;
use formats::tracepoint::parse_fetch_arg;
use formats::wildcard::Wildcard;
use object::read::ReadCache;

use super::notes::Notes;
use super::{Choice, ListPlan};
use crate::probe::site::{self, SitePolicy};
use crate::process::objects::MappedFile;

/// What all names of libuv begin with (its CONTRIBUTING.md: `uv_` public, `uv__` internal).
const LIBUV: &str = "uv_";
/// Marks that GCC's plugin annobin leaves in code; they name ranges, not functions.
const MARK: &str = ".annobin";
/// Bytes read of a function: its first instruction, and what the recorder decodes around it.
const CODE_BYTES: usize = 64;
/// Where an ELF header says for which machine it is (`e_machine`, elf(5)), and that it is this one.
const MACHINE_OFFSET: u64 = 18;
const X86_64: [u8; 2] = [62, 0];

/// What probing a name would do. One name may stand for several functions, and a probe is armed on
/// all of them or not at all: the greatest decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// It works.
    Probeable,
    /// The code runs once and chooses the function that is then called. Beside it there may be an
    /// ordinary function for programs linked long ago (memcpy of glibc), which nobody calls.
    Indirect,
    /// A label of hand-written assembly, which may stand for a table of constants among the code: a
    /// breakpoint there would change what the target computes.
    Label,
    /// No instruction there that the kernel would probe.
    NoCode,
    /// The name, or the file's, cannot be part of an EVENT.
    Unwritable,
}

/// A search through several files.
#[derive(Debug)]
pub(super) struct Search<'a> {
    plan: &'a ListPlan,
    /// By FILE of the EVENT, then by symbol.
    found: HashMap<String, HashMap<String, Verdict>>,
    /// What there is to explain.
    pub notes: Notes,
}

impl<'a> Search<'a> {
    pub(super) fn new(plan: &'a ListPlan) -> Self {
        Self { plan, found: HashMap::new(), notes: Notes::default() }
    }

    /// Takes in the functions of one file.
    pub(super) fn file(&mut self, object: &MappedFile) {
        let Some(file) = object.file() else { return self.notes.unreadable(object) };
        // Parsed again, to say why it cannot be.
        let elf = match ElfInfo::parse(&ReadCache::new(file)) {
            Ok(elf) => elf,
            Err(error) => return self.notes.no_elf(object, file, &error),
        };
        let mut machine = [0; 2];
        if file.read_exact_at(&mut machine, MACHINE_OFFSET).is_err() || machine != X86_64 {
            let error = ElfError::Unsupported("for another machine than x86-64");
            return self.notes.no_elf(object, file, &error);
        }
        let Some(name) = event_file(&object.path) else {
            return self.notes.unwritable_path(object);
        };
        let Self { plan, found, notes } = self;
        let symbols = found.entry(name.clone()).or_default();
        let read = for_each_function(&ReadCache::new(file), |function| {
            if !wanted(plan, &function.name, notes) {
                return;
            }
            let verdict = match event(&name, &function.name) {
                Some(_event) => verdict(&elf, file, &function),
                None => Verdict::Unwritable,
            };
            let of_all = symbols.entry(function.name).or_insert(verdict);
            *of_all = verdict.max(*of_all);
        });
        match read {
            Ok(()) => notes.symbols(object, &elf),
            Err(error) => notes.no_elf(object, file, &error),
        }
    }

    /// The EVENT of each function that can be probed, with its symbol; the others are counted.
    pub(super) fn events(&mut self) -> Vec<(String, &str)> {
        let mut events = Vec::new();
        for (file, symbols) in &self.found {
            for (symbol, verdict) in symbols {
                match event(file, symbol).filter(|_event| *verdict == Verdict::Probeable) {
                    Some(event) => events.push((event, symbol.as_str())),
                    None => self.notes.left_out(symbol, *verdict),
                }
            }
        }
        events
    }
}

/// Whether a function was asked for.
fn wanted(plan: &ListPlan, symbol: &str, notes: &mut Notes) -> bool {
    let chosen = match plan.choice {
        Choice::Functions => !symbol.starts_with(MARK),
        Choice::Uv => symbol.starts_with(LIBUV),
        Choice::Catalogue => entry(symbol).is_some(),
    };
    chosen && plan.pattern.as_ref().is_none_or(|pattern| fits(pattern, symbol, notes))
}

/// Whether a pattern is about a symbol or its readable form, of which the namespaces may be left
/// out where the pattern is a plain name.
fn fits(pattern: &Wildcard, symbol: &str, notes: &mut Notes) -> bool {
    if pattern.fits(symbol.as_bytes()) {
        return true;
    }
    let readable = demangle::readable(symbol);
    let plain = pattern.literal().and_then(|text| String::from_utf8(text).ok());
    let plain = plain.as_deref();
    let fits = readable.as_ref().is_some_and(|readable| {
        let inner = |plain| readable.name.strip_suffix(plain).is_some_and(|o| o.ends_with("::"));
        pattern.fits(readable.full.as_bytes())
            || pattern.fits(readable.name.as_bytes())
            || plain.is_some_and(inner)
    });
    let name = readable.as_ref().map_or(symbol, |readable| readable.name.as_str());
    if !fits && plain.is_some_and(|plain| name.contains(plain)) {
        notes.near(name);
    }
    fits
}

fn entry(symbol: &str) -> Option<&'static Entry> {
    catalogue::entries().find(|entry| entry.function == symbol)
}

/// The EVENT that probes a function of a file. `None` where the grammar cannot say it, or where it
/// would not be safe to print, or to put between quotes in a shell.
fn event(file: &str, symbol: &str) -> Option<String> {
    let arguments = entry(symbol).map_or(&[][..], |entry| entry.arguments);
    let arguments = arguments
        .iter()
        .map(|argument| parse_fetch_arg(&format!("{}={}", argument.name, argument.fetch)).ok())
        .collect::<Option<Vec<_>>>()?;
    let spec = ProbeSpec {
        kind: ProbeKind::Entry,
        file: Some(file.to_owned()),
        function: symbol.to_owned(),
        offset: 0,
        arguments,
    };
    let text = spec.to_string();
    let same = text.parse() == Ok(EventSpec::Probe(spec));
    // A symbol with other bytes than UTF-8 has got replacement characters.
    let foreign = |c| matches!(c, '\'' | char::REPLACEMENT_CHARACTER);
    (same && !text.contains(foreign) && Clean::text(&text).to_string() == text).then_some(text)
}

/// How an EVENT calls a file: by path, else by name; `None` where it can say neither.
fn event_file(path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?;
    let name = path.rsplit('/').next().filter(|name| !name.is_empty());
    [Some(path), name].into_iter().flatten().find(|file| event(file, "f").is_some()).map(Into::into)
}

fn verdict(elf: &ElfInfo, file: &File, function: &FunctionSymbol) -> Verdict {
    if function.indirect {
        return Verdict::Indirect;
    }
    // Assemblers give a size to what is declared a function, compilers to everything.
    if function.size == 0 {
        return Verdict::Label;
    }
    let in_code = elf.segments.iter().filter(|segment| segment.executable).any(|segment| {
        let inside = function.file_offset.checked_sub(segment.file_offset);
        inside.is_some_and(|inside| inside < segment.file_size)
    });
    let length = usize::try_from(function.size).map_or(CODE_BYTES, |size| size.min(CODE_BYTES));
    let mut code = [0; CODE_BYTES];
    let read = code
        .get_mut(..length)
        .and_then(|code| file.read_at(code, function.file_offset).ok())
        .and_then(|read| code.get(..read));
    let site = read.map(|code| site::choose(code, function.svma, SitePolicy::Exact(0)));
    if in_code && matches!(site, Some(Ok(_))) { Verdict::Probeable } else { Verdict::NoCode }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_says_what_it_means_or_nothing() {
        assert_eq!(event("/bin/a b", "f"), None);
        assert_eq!(event_file(b"/opt/my app/node").as_deref(), Some("node"));
        assert_eq!(event_file(b"/opt/it's/node").as_deref(), Some("node"));
        assert_eq!(event_file(b"/opt/a:b/node").as_deref(), Some("/opt/a:b/node"));
        assert_eq!(event_file(b"/opt/\xff/node"), None);
        assert_eq!(event_file(b"/opt/a b"), None);
        for symbol in [
            "type:.eq.main.T", // Go
            "operator+",
            "a b",
            "a'b",
            "a\u{1b}[2J",
            "a\u{202e}b",
            "a\u{fffd}",
            "",
        ] {
            assert_eq!(event("/bin/a", symbol), None, "{symbol}");
        }
        assert_eq!(event("/bin/a", "main.(*T).Run").unwrap(), "uprobe:/bin/a:main.(*T).Run");
    }

    #[test]
    fn what_the_catalogue_knows_is_fetched() {
        // A second entry of a function is not for users.
        for known in catalogue::entries().filter(|known| known.event == known.function) {
            let text = event("node", known.function).unwrap();
            for argument in known.arguments {
                assert!(text.contains(&format!(" {}={}", argument.name, argument.fetch)), "{text}");
            }
        }
    }

    #[test]
    fn the_worst_of_a_name_decides() {
        use Verdict::{Indirect, Label, NoCode, Probeable, Unwritable};
        let order = [Probeable, Indirect, Label, NoCode, Unwritable];
        assert!(order.is_sorted_by(|a, b| a < b));
    }
}
