//! Names of kernel functions: from this machine's kallsyms, if it still runs the recorded kernel at
//! the recorded place, or from the copy that `perf record` keeps.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use formats::capture::{Frame, Symbol};
use formats::kallsyms::{KallsymsParser, KernelSymbols};

use super::remarks::Remarks;
use super::symbols;

/// Bytes of kallsyms that are read at most; a usual kernel has 10 MB.
const MAX_KALLSYMS: u64 = 256 << 20;
/// Bytes of `/sys/kernel/notes` that are read at most.
const MAX_NOTES: u64 = 64 << 10;
/// How `perf` names the kernel's own mapping; the reference symbol stands behind it.
const KERNEL_PATH: &[u8] = b"[kernel.kallsyms]";
/// `NT_GNU_BUILD_ID` (elf.h), and the owner of that note.
const NT_GNU_BUILD_ID: u32 = 3;
const GNU: &[u8] = b"GNU\0";

/// Where the recorded kernel lay in memory: it moves with every boot (KASLR).
#[derive(Debug, Default)]
pub(super) struct KernelReference {
    /// Address of the reference symbol (`_text` or `_stext`).
    address: Option<u64>,
}

impl KernelReference {
    /// Takes a mapping of the kernel. perf puts the reference symbol's address into its file offset.
    pub(super) fn mapped(&mut self, path: &[u8], offset: u64) {
        if path.starts_with(KERNEL_PATH) && self.address.is_none() {
            self.address = Some(offset);
        }
    }

    fn fits(&self, symbols: &KernelSymbols) -> bool {
        self.address.is_some_and(|at| symbols.lookup(at).is_some_and(|symbol| symbol.start == at))
    }
}

/// Symbols for the kernel addresses that occur.
pub(super) fn find(
    object: u32,
    reference: &KernelReference,
    build_id: Option<&[u8]>,
    frames: &[Frame],
    remarks: &mut Remarks,
) -> Vec<Symbol> {
    let mut addresses = BTreeSet::new();
    for frame in frames {
        if let Frame::Kernel { address, call } = frame {
            addresses.insert(address.wrapping_sub(u64::from(*call)));
        }
    }
    let Some(names) = names(reference, build_id, remarks) else { return Vec::new() };
    let mut found: Vec<Symbol> = Vec::new();
    for address in addresses {
        let Some(symbol) = names.lookup(address) else { continue };
        // kallsyms tells no sizes: a symbol covers what occurs of it.
        let size = address - symbol.start + 1;
        match found.last_mut().filter(|last| last.start == symbol.start) {
            Some(last) => last.size = size,
            None => found.push(Symbol {
                object,
                start: symbol.start,
                size,
                name: symbol.name.as_bytes().to_vec(),
            }),
        }
    }
    found
}

fn names(
    reference: &KernelReference,
    build_id: Option<&[u8]>,
    remarks: &mut Remarks,
) -> Option<KernelSymbols> {
    let mut candidates: Vec<PathBuf> = Vec::new();
    // Without a build-id the place in memory alone must do: it is random.
    if build_id.is_none() || build_id == own_build_id().as_deref() {
        candidates.push("/proc/kallsyms".into());
    }
    if let Some(id) = build_id {
        candidates.extend(symbols::cached(id, "kallsyms"));
    }
    let mut hidden = false;
    for path in candidates {
        let Some(symbols) = read(&path) else { continue };
        hidden |= symbols.hidden();
        if !symbols.hidden() && reference.fits(&symbols) {
            return Some(symbols);
        }
    }
    if hidden {
        remarks.add("kernel-hidden", 1, || {
            "this machine hides kernel addresses: run as root, or set sysctl kernel.kptr_restrict=0"
                .into()
        });
    } else {
        remarks.add("kernel-differs", 1, || {
            "the recorded kernel does not run on this machine, or not since the same boot, and perf \
             kept no copy of its symbols: kernel functions have no names"
                .into()
        });
    }
    None
}

fn read(path: &Path) -> Option<KernelSymbols> {
    let mut file = File::open(path).ok()?.take(MAX_KALLSYMS);
    let mut parser = KallsymsParser::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Some(parser.finish()),
            Ok(size) => parser.push(piece.get(..size)?),
            Err(_) => return None,
        }
    }
}

/// Build-id of the kernel that runs here.
fn own_build_id() -> Option<Vec<u8>> {
    let mut notes = Vec::new();
    File::open("/sys/kernel/notes").ok()?.take(MAX_NOTES).read_to_end(&mut notes).ok()?;
    build_id_note(&notes)
}

/// The build-id in a run of notes: lengths of owner and description, type, then both, each rounded up
/// to 4 bytes (elf(5)).
fn build_id_note(notes: &[u8]) -> Option<Vec<u8>> {
    let mut at = notes;
    loop {
        let word = |i: usize| super::layout::u32_at(at, i * 4);
        let (owner, size, kind) = (word(0)? as usize, word(1)? as usize, word(2)?);
        let description = owner.checked_next_multiple_of(4)?;
        let body = at.get(12..)?;
        if kind == NT_GNU_BUILD_ID && body.get(..owner)? == GNU {
            return body.get(description..description.checked_add(size)?).map(<[u8]>::to_vec);
        }
        at = body.get(description.checked_add(size.checked_next_multiple_of(4)?)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(owner: &[u8], kind: u32, description: &[u8]) -> Vec<u8> {
        let mut out = (owner.len() as u32).to_le_bytes().to_vec();
        out.extend((description.len() as u32).to_le_bytes());
        out.extend(kind.to_le_bytes());
        for part in [owner, description] {
            out.extend(part);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        out
    }

    #[test]
    fn the_build_id_is_found_among_notes() {
        let notes = [note(b"Linux\0", 0, &[1, 2, 3]), note(GNU, 3, &[9; 20])].concat();
        assert_eq!(build_id_note(&notes), Some(vec![9; 20]));
        for end in 0..notes.len() {
            assert_eq!(build_id_note(&notes[..end]), None, "cut at {end}");
        }
        assert_eq!(build_id_note(&[0xff; 64]), None);
    }

    #[test]
    fn another_boot_does_not_fit() {
        let mut parser = KallsymsParser::new();
        parser.push(b"ffffffff81000000 T _text\nffffffff81000100 T start_kernel\n");
        let symbols = parser.finish();
        let mut reference = KernelReference::default();
        assert!(!reference.fits(&symbols));
        reference.mapped(b"[kernel.kallsyms]_text", 0xffff_ffff_8100_0000);
        assert!(reference.fits(&symbols));
        let mut moved = KernelReference::default();
        moved.mapped(b"[kernel.kallsyms]_text", 0xffff_ffff_8120_0000);
        assert!(!moved.fits(&symbols));
    }
}
