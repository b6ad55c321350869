//! Which JavaScript engine a program file contains when it is not a V8 that can be read: told by
//! what its makers wrote into it, not by its name.
//!
//! Looks at bytes of the file only; knows no process.

use std::fs::File;
use std::os::unix::fs::FileExt;

use object::LittleEndian;
use object::elf::{FileHeader64, PF_W, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};

/// Bytes of a file that are looked at, at most: the largest browsers have 300 MB.
const MAX_BYTES: u64 = 512 << 20;
/// Bytes read at a time.
const PART: usize = 1 << 20;
/// Longest mark, and with that how far two parts overlap.
const MAX_MARK: usize = 64;

/// What a file contains instead of a V8 that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    /// Bun, which runs JavaScriptCore.
    Bun,
    /// Deno: V8 without the constants for debuggers.
    Deno,
    /// Electron: V8 without the constants, with compressed pointers.
    Electron,
    /// Some other program with V8 but without the constants, such as Chrome.
    BareV8,
}

/// Bytes that only this engine's programs contain, the first apart from the others: else this
/// program would contain them, too. All were looked for in Bun 1.3, Deno 2, Chromium, and Node 16
/// to 26; Electron's is the variable of its documentation.
const MARKS: [(Engine, u8, &[u8]); 4] = [
    (Engine::Bun, b'h', b"ttps://github.com/oven-sh/bun"),
    // Its built-in modules' URLs.
    (Engine::Deno, b'e', b"xt:deno_"),
    (Engine::Electron, b'E', b"LECTRON_RUN_AS_NODE"),
    // The help of `--stack-size` in V8's src/flags/flag-definitions.h.
    (Engine::BareV8, b'd', b"efault size of stack region v8 is allowed to use"),
];

impl Engine {
    /// Looks for an engine in an ELF file.
    pub fn find(file: &File) -> Option<Self> {
        let mut seen = [false; MARKS.len()];
        for (offset, length) in constant_parts(file)? {
            search(file, offset, length, &mut seen);
        }
        let has = |engine| MARKS.iter().zip(seen).any(|(&(mark, ..), seen)| mark == engine && seen);
        // Programs that merely speak of Bun, Deno or Electron contain no engine.
        if has(Self::BareV8) {
            let named = [Self::Deno, Self::Electron].into_iter().find(|&engine| has(engine));
            return Some(named.unwrap_or(Self::BareV8));
        }
        has(Self::Bun).then_some(Self::Bun)
    }

    /// What it is, as the end of a sentence.
    pub fn description(self) -> &'static str {
        match self {
            Self::Bun => "Bun, whose engine is JavaScriptCore and not V8",
            Self::Deno => "Deno, whose V8 does not export where its objects lie",
            Self::Electron => "Electron, whose V8 has compressed pointers",
            Self::BareV8 => {
                "a V8 that does not export where its objects lie, as in Chrome and Electron"
            }
        }
    }
}

/// File offset and length of the segments that are not written to.
fn constant_parts(file: &File) -> Option<Vec<(u64, u64)>> {
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0).ok()?;
    let header = FileHeader64::<LittleEndian>::parse(&header[..]).ok()?;
    let order = header.endian().ok()?;
    let at = header.e_phoff(order);
    let mut table = vec![0; usize::from(header.e_phnum(order)) * 56];
    file.read_exact_at(&mut table, at).ok()?;
    let (headers, _) = object::slice_from_bytes::<object::elf::ProgramHeader64<LittleEndian>>(
        &table,
        header.e_phnum(order).into(),
    )
    .ok()?;
    let constant = headers
        .iter()
        .filter(|it| it.p_type(order) == PT_LOAD && (it.p_flags(order) & PF_W).0 == 0)
        .map(|it| (it.p_offset(order), it.p_filesz(order)));
    Some(constant.collect())
}

fn search(file: &File, offset: u64, length: u64, seen: &mut [bool; MARKS.len()]) {
    let end = offset.saturating_add(length.min(MAX_BYTES));
    let mut buffer = vec![0; PART];
    let mut at = offset;
    while at < end && !seen.iter().all(|&seen| seen) {
        let wanted = buffer.len().min((end - at) as usize);
        let Ok(count) = file.read_at(&mut buffer[..wanted], at) else { return };
        for (seen, (_, first, rest)) in seen.iter_mut().zip(MARKS) {
            *seen = *seen || contains(&buffer[..count], first, rest);
        }
        if count <= MAX_MARK || at + count as u64 >= end {
            return;
        }
        at += (count - MAX_MARK) as u64;
    }
}

/// Horspool's search for `first` and then `rest`: steps by the length of `rest` where its last byte
/// does not fit.
fn contains(text: &[u8], first: u8, rest: &[u8]) -> bool {
    let length = rest.len();
    let mut steps = [length as u8; 256];
    for (index, &byte) in rest.iter().enumerate().take(length - 1) {
        steps[usize::from(byte)] = (length - 1 - index) as u8;
    }
    let mut at = length;
    while let Some(&last) = text.get(at) {
        if last == rest[length - 1]
            && text[at + 1 - length..=at] == *rest
            && text[at - length] == first
        {
            return true;
        }
        at += usize::from(steps[usize::from(last)]);
    }
    false
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// An ELF file with one read-only segment that holds these bytes, and one that is written.
    fn program(constant: &[u8], written: &[u8]) -> File {
        let mut bytes = [0u8; 64 + 2 * 56];
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        bytes[16..20].copy_from_slice(&[3, 0, 62, 0]);
        bytes[20] = 1;
        bytes[32] = 64;
        bytes[52] = 64;
        bytes[54..58].copy_from_slice(&[56, 0, 2, 0]);
        let mut offset = bytes.len() as u64;
        for (index, (flags, length)) in
            [(4u8, constant.len()), (6, written.len())].iter().enumerate()
        {
            let at = 64 + index * 56;
            bytes[at] = 1;
            bytes[at + 4] = *flags;
            bytes[at + 8..at + 16].copy_from_slice(&offset.to_le_bytes());
            bytes[at + 32..at + 40].copy_from_slice(&(*length as u64).to_le_bytes());
            offset += *length as u64;
        }
        let mut file = tempfile::tempfile().unwrap();
        for part in [&bytes[..], constant, written] {
            file.write_all(part).unwrap();
        }
        file
    }

    #[test]
    fn engines_are_told_by_what_they_contain() {
        let v8 = "default size of stack region v8 is allowed to use (in kBytes)";
        let table = [
            (v8.to_owned(), Some(Engine::BareV8)),
            (format!("{v8}\0ext:deno_web/"), Some(Engine::Deno)),
            (format!("ELECTRON_RUN_AS_NODE\0{v8}"), Some(Engine::Electron)),
            ("see https://github.com/oven-sh/bun/issues".to_owned(), Some(Engine::Bun)),
            ("ext:deno_ ELECTRON_RUN_AS_NODE".to_owned(), None),
            (v8[1..].to_owned(), None),
            (String::new(), None),
        ];
        for (text, engine) in table {
            assert_eq!(Engine::find(&program(text.as_bytes(), b"")), engine, "{text}");
            // What a program has been told at run time is no part of it.
            assert_eq!(Engine::find(&program(b"", text.as_bytes())), None, "{text}");
        }
    }

    #[test]
    fn marks_are_found_across_parts() {
        for before in [0, 1, PART - 60, PART - 20, PART - 1, 2 * PART - 30] {
            let mut text = vec![b'v'; before];
            text.push(MARKS[3].1);
            text.extend_from_slice(MARKS[3].2);
            text.extend_from_slice(&[b'u'; 100]);
            assert_eq!(Engine::find(&program(&text, b"")), Some(Engine::BareV8), "{before}");
        }
    }

    #[test]
    fn what_is_no_program_has_no_engine() {
        let mut file = tempfile::tempfile().unwrap();
        assert_eq!(Engine::find(&file), None);
        file.write_all(&[0x7f; 200]).unwrap();
        assert_eq!(Engine::find(&file), None);
    }
}
