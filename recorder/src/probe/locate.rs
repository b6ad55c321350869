//! Where a wanted function is: in which mapped files, at which offset, on which instruction.
//!
//! The file that is read and probed is the open file behind the target's mapping, so a replaced
//! binary is never confused with the one that runs.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use formats::catalogue::Entry;
use formats::elf::{ElfError, FunctionSymbol, Segment, find_functions};
use formats::probe::ProbeKind;
use formats::text::clean_string;
use object::Object as _;
use object::read::ReadCache;

use super::site::{self, SiteError, SitePolicy};
use super::through;
use super::wanted::Wanted;
use crate::process::objects::{MappedFile, Objects};
use crate::tracefs::{ProbePath, SiteSpec, TracefsError};

/// Most bytes of a function that are decoded, from its first to the probed instruction.
const MAX_CODE: u64 = 1 << 20;

/// Why nothing of a Go program gets a return probe.
const GO: &str = "Go moves its stacks and then no longer finds the replaced return address";

/// A probe cannot be placed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocateError {
    /// No file has the function.
    #[error("no function '{function}' in {place}{hint}")]
    NotFound {
        /// Symbol asked for.
        function: String,
        /// Where it was looked for.
        place: String,
        /// What would help.
        hint: String,
    },
    /// A return probe that would kill the target.
    #[error("refusing a return probe on '{function}': {reason}; use an entry probe, or --unsafe")]
    Refused {
        /// Symbol.
        function: String,
        /// Why.
        reason: &'static str,
    },
    /// A symbol that may not be code.
    #[error(
        "refusing a probe on '{function}': its symbol has no size, as data among code; --unsafe probes it"
    )]
    NoSize {
        /// Symbol.
        function: String,
    },
    /// The offset is not at an instruction.
    #[error("cannot place a probe on '{function}' in {path}: {cause}")]
    Site {
        /// Symbol.
        function: String,
        /// File.
        path: String,
        /// What is wrong with the place.
        cause: SiteError,
    },
    /// The file cannot be read.
    #[error("cannot read {path}: {cause}")]
    Unreadable {
        /// File.
        path: String,
        /// Why.
        cause: String,
    },
    /// The kernel cannot be told the file's name.
    #[error(transparent)]
    Path(#[from] TracefsError),
}

/// A place for a probe.
#[derive(Debug)]
pub struct Site {
    /// Open file's descriptor number in this process.
    descriptor: i32,
    /// File offset of the probed instruction.
    pub offset: u64,
    /// The callchain lacks the direct caller, which is the word on top of the stack.
    pub fetch_caller: bool,
    /// The kernel takes the word on top of the stack for the caller, which it is not.
    pub false_caller: bool,
    /// Nothing has been pushed yet: the word on top of the stack is the return address, and the
    /// frame pointer is the caller's.
    pub at_entry: bool,
    /// Symbol of the function that it is in.
    pub function: String,
    /// For people: file and place.
    pub text: String,
}

impl Site {
    /// The form in which a dynamic event is made of it.
    ///
    /// # Errors
    /// Never in practice: the spelling is ours.
    pub fn spec(&self, fetch_args: Vec<String>) -> Result<SiteSpec, TracefsError> {
        let path = format!("/proc/{}/fd/{}", std::process::id(), self.descriptor);
        let path = ProbePath::direct(path.as_ref())?;
        Ok(SiteSpec { path, offset: self.offset, ref_ctr: None, fetch_args })
    }
}

/// All places of `wanted` among the given objects.
///
/// # Errors
/// A function is there and cannot be probed. That it is nowhere is an empty answer; see
/// [`not_found`].
pub fn sites(
    wanted: &Wanted,
    objects: &Objects,
    among: &[u32],
    allow_unsafe: bool,
) -> Result<Vec<Site>, LocateError> {
    let mut sites = Vec::new();
    // One file may be mapped under several paths; one place takes one breakpoint.
    let mut places = HashSet::new();
    let wished = wanted.functions();
    for object in among.iter().filter_map(|&index| objects.get(index)) {
        let Some(file) = object.file().filter(|_file| matches(wanted, object)) else { continue };
        let functions = match find_functions(&ReadCache::new(file), &wished) {
            Ok(functions) => functions,
            // Not every mapped file is an ELF file: locale archives, .NET images.
            Err(ElfError::NotElf) => continue,
            // Nobody asked for this very file, so it must not keep others from being probed.
            Err(_damaged) if wanted.file.is_none() => continue,
            Err(cause) => {
                return Err(LocateError::Unreadable {
                    path: shown(object),
                    cause: cause.to_string(),
                });
            }
        };
        let hidden = wanted.entries().filter_map(|entry| hidden(entry, &functions, object, file));
        let hidden: Vec<_> = hidden.collect();
        for function in functions.into_iter().chain(hidden) {
            let careful = !allow_unsafe;
            // Of what nobody asked for by name, what cannot be probed is left alone.
            let is_own = !wanted.members.is_empty();
            // OpenSSL keeps the constants of SHA-256 so, in `.text`: a breakpoint there changes
            // what the target computes.
            if careful && function.size == 0 {
                if is_own {
                    continue;
                }
                return Err(LocateError::NoSize { function: function.name });
            }
            if careful && wanted.kind == ProbeKind::Return {
                let go = || is_go(file).then_some(GO);
                if let Some(reason) = site::uretprobe_refusal(&function.name).or_else(go) {
                    if is_own {
                        continue;
                    }
                    return Err(LocateError::Refused { function: function.name, reason });
                }
            }
            let site = place(wanted, object, file, &function)?;
            if places.insert((object.device_and_inode(), site.offset)) {
                sites.push(site);
            }
        }
    }
    Ok(sites)
}

/// A function of the catalogue that the file does not name, by what its code hands out. Where even
/// that is not to be seen, it stays unknown.
fn hidden(
    entry: &Entry,
    named: &[FunctionSymbol],
    object: &MappedFile,
    file: &File,
) -> Option<FunctionSymbol> {
    let through = entry.through?;
    if named.iter().any(|function| function.name == entry.function) {
        return None;
    }
    let elf = object.elf.as_ref()?;
    let read = |svma, bytes: u64| {
        let mut code = vec![0; bytes as usize];
        let read = file.read_at(&mut code, elf.svma_to_file_offset(svma)?).ok()?;
        code.truncate(read);
        Some(code)
    };
    let is_code = |svma| {
        let holds = |s: &&Segment| s.executable && (s.svma..s.svma + s.file_size).contains(&svma);
        elf.segments.iter().any(|segment| holds(&segment))
    };
    let exported = find_functions(&ReadCache::new(file), &[through.exported]).ok()?;
    let exported = exported.first()?;
    let code = read(exported.svma, exported.size.min(through::MOST_CODE))?;
    let found = through::handed_out(&code, exported.svma, through.argument, |svma| {
        read(svma, through::TRAMPOLINE_BYTES).filter(|_code| is_code(svma))
    })?;
    let mut function = exported.clone();
    function.name = entry.function.to_owned();
    function.svma = found;
    function.file_offset = elf.svma_to_file_offset(found)?;
    // So much is known to be code; its end is not.
    function.size = through::TRAMPOLINE_BYTES;
    Some(function)
}

fn place(
    wanted: &Wanted,
    object: &MappedFile,
    file: &File,
    function: &FunctionSymbol,
) -> Result<Site, LocateError> {
    let path = shown(object);
    if function.size > 0 && wanted.offset >= function.size {
        let cause = SiteError::OutOfRange { offset: wanted.offset, length: function.size };
        return Err(LocateError::Site { function: function.name.clone(), path, cause });
    }
    // As far as the probed instruction and a little more, and never past the function.
    let wished = wanted.offset.saturating_add(64);
    let length = if function.size > 0 { wished.min(function.size) } else { wished };
    let mut code = vec![0; length.clamp(1, MAX_CODE) as usize];
    let read = file.read_at(&mut code, function.file_offset).map_err(|error| {
        LocateError::Unreadable { path: path.clone(), cause: error.to_string() }
    })?;
    code.truncate(read);
    let policy =
        if wanted.may_slide { SitePolicy::Slide } else { SitePolicy::Exact(wanted.offset) };
    let site = site::choose(&code, function.svma, policy).map_err(|cause| LocateError::Site {
        function: function.name.clone(),
        path: path.clone(),
        cause,
    })?;
    let offset = function.file_offset + site.offset_from_symbol;
    let at = if site.offset_from_symbol == 0 {
        String::new()
    } else {
        format!("+{:#x}", site.offset_from_symbol)
    };
    Ok(Site {
        descriptor: file.as_raw_fd(),
        offset,
        fetch_caller: wanted.kind == ProbeKind::Entry
            && !site.caller_in_callchain
            && site.return_address_on_stack,
        false_caller: wanted.kind == ProbeKind::Entry && site.false_caller,
        at_entry: wanted.kind == ProbeKind::Entry && site.return_address_on_stack,
        text: format!("{path}:{}{at} ({offset:#x})", function.name),
        function: function.name.clone(),
    })
}

/// Sections that Go's linker writes; not every one is in every kind of program.
const GO_SECTIONS: [&str; 3] = [".go.buildinfo", ".note.go.buildid", ".gopclntab"];

/// Whether a file is a Go program, or has a part written in Go.
fn is_go(file: &File) -> bool {
    let cache: ReadCache<&File> = ReadCache::new(file);
    let has = |object: &object::File<'_, &ReadCache<&File>>, name: &&str| {
        object.section_by_name(name).is_some()
    };
    object::File::parse(&cache)
        .is_ok_and(|object| GO_SECTIONS.iter().any(|name| has(&object, name)))
}

/// Whether a file is one that the probe means: by path, by name, or by name without the version.
fn matches(wanted: &Wanted, object: &MappedFile) -> bool {
    let Some(name) = &wanted.file else { return true };
    if object.path == name.as_bytes() {
        return true;
    }
    let base = object.path.rsplit(|&b| b == b'/').next().unwrap_or_default();
    base == name.as_bytes()
        || base.strip_prefix(name.as_bytes()).is_some_and(|rest| {
            // glibc before 2.34: libc-2.31.so.
            rest.starts_with(b".so") || (rest.starts_with(b"-") && rest.ends_with(b".so"))
        })
}

/// The error for a function that is in none of the objects, with what would help.
#[must_use]
pub fn not_found(wanted: &Wanted, objects: &Objects, among: &[u32]) -> LocateError {
    let looked: Vec<&MappedFile> = among
        .iter()
        .filter_map(|&index| objects.get(index))
        .filter(|object| matches(wanted, object))
        .collect();
    let place = match (&wanted.file, looked.as_slice()) {
        (Some(file), []) => format!("'{file}': the target maps no such file"),
        (Some(_), [one]) => shown(one),
        _ => format!("the {} files that the target maps", looked.len()),
    };
    let stripped: Vec<String> = looked
        .iter()
        .filter(|object| object.elf.as_ref().is_some_and(|elf| !elf.has_symtab))
        .map(|object| shown(object))
        .collect();
    let unreadable: Vec<String> =
        looked.iter().filter(|object| object.elf.is_none()).map(|object| shown(object)).collect();
    let mut hint = String::new();
    if !stripped.is_empty() {
        hint = format!(
            "; stripped, so that only exported functions are known: {}. \
             Install its debug symbols or probe an exported function",
            first_few(&stripped)
        );
    }
    if !unreadable.is_empty() {
        hint.push_str(&format!("; not readable: {}", first_few(&unreadable)));
    }
    LocateError::NotFound { function: wanted.function.clone(), place, hint }
}

fn first_few(paths: &[String]) -> String {
    const SHOWN: usize = 3;
    let mut text = paths.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if paths.len() > SHOWN {
        text.push_str(&format!(" and {} more", paths.len() - SHOWN));
    }
    text
}

fn shown(object: &MappedFile) -> String {
    clean_string(&object.path, 256)
}
