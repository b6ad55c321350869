//! `/proc/kallsyms`: names of the kernel's functions. It must not open the file; it takes the text
//! in pieces and keeps only code, compactly: some 3 MB for the 100 000 functions of a usual kernel.
//!
//! A line is `ADDRESS TYPE NAME`, with a tab and `[MODULE]` behind it for modules; types are those
//! of nm(1). Where `kernel.kptr_restrict` forbids it, every address reads 0.

use crate::text::Lines;

/// Longest line that is believed, bytes. Names have at most 511 (`KSYM_NAME_LEN`), modules 55.
const MAX_LINE: usize = 4096;
/// Names kept at most, bytes; a usual kernel has 3 MB.
const MAX_ARENA: usize = 256 << 20;
/// No function is longer, bytes: bounds the last function before a gap, because kallsyms gives no
/// sizes.
const MAX_FUNCTION: u64 = 1 << 20;
/// Marks of the linker script behind which no function stands (kernel tree, vmlinux.lds.h).
const ENDS: [&[u8]; 2] = [b"_etext", b"_einittext"];

/// The name of a kernel function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelSymbol<'a> {
    /// Function name.
    pub name: &'a str,
    /// Module, without brackets; `None` for the kernel itself. `bpf` for BPF programs.
    pub module: Option<&'a str>,
    /// Address of its first byte.
    pub start: u64,
}

/// Reads kallsyms in pieces.
#[derive(Debug, Clone)]
pub struct KallsymsParser {
    lines: Lines,
    found: Found,
}

#[derive(Debug, Clone, Default)]
struct Found {
    /// Address, rank among symbols at one address (lower is better), place of the name.
    symbols: Vec<(u64, u8, u32)>,
    /// Each name, then a tab and the module if there is one, then a newline.
    arena: String,
    zero: u64,
    bad_lines: u64,
    dropped: u64,
}

impl Default for KallsymsParser {
    fn default() -> Self {
        Self::new()
    }
}

impl KallsymsParser {
    /// An empty parser.
    pub fn new() -> Self {
        Self { lines: Lines::new(MAX_LINE), found: Found::default() }
    }

    /// Takes the next piece of the text.
    pub fn push(&mut self, bytes: &[u8]) {
        let Self { lines, found } = self;
        lines.push(bytes, |line| found.line(line));
    }

    /// Sorts what was found. Of several functions at one address it keeps a global one (`T`) before
    /// a weak before a local, then the one that came first.
    pub fn finish(mut self) -> KernelSymbols {
        if let Some(line) = self.lines.take_torn() {
            self.found.line(&line);
        }
        let Found { mut symbols, arena, zero, bad_lines, dropped } = self.found;
        // The place of the name grows with the order of the file.
        symbols.sort_unstable();
        symbols.dedup_by_key(|s| s.0);
        KernelSymbols {
            hidden: symbols.is_empty() && zero > 0,
            starts: symbols.iter().map(|s| s.0).collect(),
            names: symbols.iter().map(|s| s.2).collect(),
            arena: arena.into_boxed_str(),
            bad_lines: bad_lines + self.lines.long_lines(),
            dropped,
        }
    }
}

impl Found {
    fn line(&mut self, line: &[u8]) {
        let Some((address, kind, name, module)) = split(line) else {
            self.bad_lines += 1;
            return;
        };
        let rank = match kind {
            b'T' => 0,
            b'W' | b'w' => 1,
            b't' => 2,
            _ => return,
        };
        if address == 0 {
            self.zero += 1;
            return;
        }
        let place = u32::try_from(self.arena.len()).ok().filter(|p| *p as usize <= MAX_ARENA);
        let Some(place) = place else {
            self.dropped += 1;
            return;
        };
        self.symbols.push((address, rank, place));
        self.arena.push_str(&String::from_utf8_lossy(name));
        if let Some(module) = module {
            self.arena.push('\t');
            self.arena.push_str(&String::from_utf8_lossy(module));
        }
        self.arena.push('\n');
    }
}

/// Address, type, name, module.
type Fields<'a> = (u64, u8, &'a [u8], Option<&'a [u8]>);

fn split(line: &[u8]) -> Option<Fields<'_>> {
    let mut fields = line.splitn(3, |b| *b == b' ');
    let address = fields.next().filter(|a| (1..=16).contains(&a.len()))?;
    let address = address.iter().try_fold(0u64, |value, digit| {
        Some(value << 4 | u64::from(char::from(*digit).to_digit(16)?))
    })?;
    let &[kind] = fields.next()? else { return None };
    let rest = fields.next()?;
    let mut parts = rest.splitn(2, |b| *b == b'\t');
    let name = parts.next().filter(|n| !n.is_empty())?;
    let module = match parts.next() {
        Some(m) => Some(m.trim_ascii().strip_prefix(b"[")?.strip_suffix(b"]")?),
        None => None,
    };
    Some((address, kind, name, module))
}

/// The functions of the kernel, by address.
#[derive(Clone)]
pub struct KernelSymbols {
    starts: Vec<u64>,
    names: Vec<u32>,
    arena: Box<str>,
    hidden: bool,
    bad_lines: u64,
    dropped: u64,
}

impl std::fmt::Debug for KernelSymbols {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelSymbols")
            .field("symbols", &self.starts.len())
            .field("hidden", &self.hidden)
            .field("bad_lines", &self.bad_lines)
            .finish_non_exhaustive()
    }
}

impl KernelSymbols {
    /// The function that contains `address`. Sizes are not known: a function reaches up to the next
    /// one, to the end of the kernel's code, or over 1 MiB, whichever comes first.
    pub fn lookup(&self, address: u64) -> Option<KernelSymbol<'_>> {
        let at = self.starts.partition_point(|s| *s <= address).checked_sub(1)?;
        let start = *self.starts.get(at)?;
        if address - start >= MAX_FUNCTION {
            return None;
        }
        let line = self.arena.get(*self.names.get(at)? as usize..)?.split('\n').next()?;
        let (name, module) = match line.split_once('\t') {
            Some((name, module)) => (name, Some(module)),
            None => (line, None),
        };
        if module.is_none() && ENDS.contains(&name.as_bytes()) {
            return None;
        }
        Some(KernelSymbol { name, module, start })
    }

    /// The kernel showed symbols but hid every address (`kernel.kptr_restrict`).
    pub fn hidden(&self) -> bool {
        self.hidden
    }

    /// Number of functions.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether no function has a known address.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Lines that could not be understood.
    pub fn bad_lines(&self) -> u64 {
        self.bad_lines
    }

    /// Functions left out because the text was larger than a kernel's can be.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        self.starts.capacity() * size_of::<u64>()
            + self.names.capacity() * size_of::<u32>()
            + self.arena.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "0000000000000000 A fixed_percpu_data\n\
        ffffffff81000000 T _stext\n\
        ffffffff81000000 T startup_64\n\
        ffffffff81000100 t local_alias\n\
        ffffffff81000100 W weak_alias\n\
        ffffffff81000100 T do_sys_openat2\n\
        ffffffff81000200 D some_data\n\
        ffffffff81000300 t helper.part.0\n\
        ffffffff81001000 T _etext\n\
        ffffffffc0002000 t ext4_iget\t[ext4]\n\
        ffffffffc0001000 t ext4_first\t[ext4]\n\
        ffffffffc0400000 t bpf_prog_6deef7357e7b4530\t[bpf]\n";

    fn parse(text: &[u8], piece: usize) -> KernelSymbols {
        let mut parser = KallsymsParser::new();
        text.chunks(piece).for_each(|p| parser.push(p));
        parser.finish()
    }

    #[test]
    fn finds_the_function_around_an_address() {
        for piece in [1, 7, 4096] {
            let symbols = parse(TEXT.as_bytes(), piece);
            assert_eq!((symbols.len(), symbols.bad_lines(), symbols.hidden()), (7, 0, false));
            let table = [
                (0xffff_ffff_80ff_ffff, None),
                (0xffff_ffff_8100_0000, Some(("_stext", None, 0xffff_ffff_8100_0000))),
                (0xffff_ffff_8100_01ff, Some(("do_sys_openat2", None, 0xffff_ffff_8100_0100))),
                (0xffff_ffff_8100_0300, Some(("helper.part.0", None, 0xffff_ffff_8100_0300))),
                (0xffff_ffff_8100_1000, None),
                (0xffff_ffff_8100_2000, None),
                (0xffff_ffff_c000_1fff, Some(("ext4_first", Some("ext4"), 0xffff_ffff_c000_1000))),
                (0xffff_ffff_c000_2000, Some(("ext4_iget", Some("ext4"), 0xffff_ffff_c000_2000))),
                (0xffff_ffff_c020_0000, None),
                (
                    0xffff_ffff_c040_0010,
                    Some(("bpf_prog_6deef7357e7b4530", Some("bpf"), 0xffff_ffff_c040_0000)),
                ),
                (u64::MAX, None),
                (0, None),
            ];
            for (address, want) in table {
                let got = symbols.lookup(address).map(|s| (s.name, s.module, s.start));
                assert_eq!(got, want, "{address:#x}");
            }
        }
    }

    #[test]
    fn says_when_addresses_are_hidden() {
        let hidden = parse(b"0000000000000000 T _stext\n0000000000000000 t x\t[ext4]\n", 10);
        assert!(hidden.hidden() && hidden.is_empty());
        assert!(hidden.lookup(0).is_none());
        assert!(!parse(b"", 1).hidden());
        assert!(!parse(TEXT.as_bytes(), 10).hidden());
    }

    #[test]
    fn counts_bad_lines() {
        let text = b"xyz\nffff T\nffff TT a\nffff T \nffffffffffffffff1 T a\n10 T ok\n20 T m\text4\n30 T last";
        let symbols = parse(text, 5);
        assert_eq!((symbols.len(), symbols.bad_lines()), (2, 6));
        assert_eq!(symbols.lookup(0x31).unwrap().name, "last");
    }

    proptest! {
        #[test]
        fn survives_any_bytes(text in any::<Vec<u8>>(), address: u64, piece in 1usize..99) {
            let _ = parse(&text, piece).lookup(address);
        }

        #[test]
        fn agrees_with_a_plain_search(
            mut list in prop::collection::btree_map(1u64..5000, "[a-z]{1,8}", 1..60),
            address in 0u64..6000,
        ) {
            let text: String = list.iter().rev().map(|(a, n)| format!("{a:016x} t {n}\n")).collect();
            let symbols = parse(text.as_bytes(), 64);
            let want = list.split_off(&0).into_iter().rfind(|(a, _)| *a <= address);
            let got = symbols.lookup(address).map(|s| (s.start, s.name.to_owned()));
            prop_assert_eq!(got, want);
        }
    }
}
