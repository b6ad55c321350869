//! Readers on files of the small linker, and on this test program itself.

mod linker;

use object::read::ReadCache;
use proptest::prelude::*;

use self::linker::*;
use super::*;

/// Address `n` bytes into `.text`.
fn at(n: u64) -> u64 {
    TEXT_OFFSET + BIAS + n
}

fn named(index: &SymbolIndex, file: &[u8], svma: u64) -> Option<(String, u64, u64)> {
    let hit = index.lookup(svma)?;
    let name = index.read_name(file, hit.name, 100).unwrap();
    Some((String::from_utf8(name).unwrap(), hit.svma, hit.size))
}

#[test]
fn reads_identity_and_layout() {
    for note_in_section_only in [false, true] {
        let build_id = vec![0xab; 20];
        let linker = Linker {
            symtab: Some(vec![]),
            build_id: build_id.clone(),
            note_in_section_only,
            ..Linker::default()
        };
        let file = linker.link();
        let info = ElfInfo::parse(&*file).unwrap();
        assert_eq!(info.build_id, Some(build_id));
        assert_eq!((info.is_dyn, info.has_symtab, info.has_dynsym), (true, true, false));
        assert_eq!(info.soname.as_deref(), Some("libme.so.1"));
        assert_eq!(info.needed, ["liba.so", "libb.so"]);
        assert_eq!(info.runpath.as_deref(), Some("/opt/lib"));
        assert_eq!(info.segments.len(), 2);
        assert!(!info.segments[0].executable && info.segments[1].executable);
    }
    assert_eq!(ElfInfo::parse(&*Linker::default().link()).unwrap().build_id, None);
}

#[test]
fn converts_through_segments() {
    let info = ElfInfo::parse(&*Linker::default().link()).unwrap();
    let end = info.segments[1].file_size;
    // 0x1000 is in both segments: the executable one answers.
    let table = [
        (0, Some(BIAS)),
        (0x1000, Some(BIAS + 0x1000)),
        (end - 1, Some(BIAS + end - 1)),
        (end, None),
    ];
    for (offset, svma) in table {
        assert_eq!(info.file_offset_to_svma(offset), svma, "{offset:#x}");
        if let Some(svma) = svma {
            assert_eq!(info.svma_to_file_offset(svma), Some(offset));
        }
    }
    // In memory, but zero-filled: no byte of the file.
    assert_eq!(info.svma_to_file_offset(0x60_000f), Some(0x100f));
    assert_eq!(info.svma_to_file_offset(0x60_0010), None);
    assert_eq!(info.svma_to_file_offset(BIAS - 1), None);
}

#[test]
fn refuses_what_it_cannot_read() {
    let good = Linker::default().link();
    let with = |at: usize, byte: u8| {
        let mut file = good.clone();
        file[at] = byte;
        ElfInfo::parse(&*file).unwrap_err()
    };
    assert_eq!(with(0, b'M'), ElfError::NotElf);
    assert_eq!(with(4, 1), ElfError::Unsupported("32-bit"));
    assert_eq!(with(5, 2), ElfError::Unsupported("big-endian"));
    assert_eq!(ElfInfo::parse(&b""[..]), Err(ElfError::NotElf));
    assert_eq!(ElfInfo::parse(&b"\x7fELF"[..]), Err(ElfError::NotElf));
    assert_eq!(
        ElfError::Unsupported("32-bit").to_string(),
        "cannot read elf file: only 64-bit little-endian is supported, this is 32-bit"
    );
    let cut = ElfInfo::parse(&good[..good.len() - 10]).unwrap_err();
    assert!(matches!(cut, ElfError::Malformed { part: "section headers", .. }), "{cut}");
}

#[test]
fn finds_the_symbol_around_an_address() {
    let file = Linker {
        symtab: Some(vec![
            ("sized", LOCAL_FUNC, TEXT, at(0x100), 0x20),
            ("asm", LOCAL_LABEL, TEXT, at(0x200), 0),
            ("after", GLOBAL_FUNC, TEXT, at(0x280), 0x10),
            ("last", GLOBAL_FUNC, TEXT, at(0xff0), 0),
            ("outer", GLOBAL_FUNC, TEXT, at(0x400), 0x200),
            ("inner", GLOBAL_FUNC, TEXT, at(0x480), 0x10),
            ("variable", GLOBAL_DATA, TEXT, at(0x130), 0x20),
            ("data_label", LOCAL_LABEL, DATA, at(0x140), 0x20),
            ("undefined", GLOBAL_FUNC, 0, at(0x150), 0x20),
            ("second", GLOBAL_FUNC, TEXT2, at(0x1010), 0),
        ]),
        ..Linker::default()
    }
    .link();
    let index = SymbolIndex::build(&*file).unwrap();
    assert_eq!(index.len(), 7);
    let hit = |name: &str, start, size| Some((name.to_owned(), at(start), size));
    let table = [
        (0xff, None),
        (0x100, hit("sized", 0x100, 0x20)),
        (0x11f, hit("sized", 0x100, 0x20)),
        (0x120, None),
        (0x135, None),
        (0x150, None),
        (0x27f, hit("asm", 0x200, 0x80)),
        (0x290, None),
        (0x47f, hit("outer", 0x400, 0x200)),
        (0x48f, hit("inner", 0x480, 0x10)),
        (0x490, hit("outer", 0x400, 0x200)),
        (0x600, None),
        (0xfff, hit("last", 0xff0, 0x10)),
        (0x1000, None),
        (0x10ff, hit("second", 0x1010, 0xf0)),
        (0x1100, None),
    ];
    for (n, want) in table {
        assert_eq!(named(&index, &file, at(n)), want, "{n:#x}");
    }
    assert_eq!(index.lookup(0), None);
    assert_eq!(index.lookup(u64::MAX), None);
}

#[test]
fn chooses_one_of_several_names_by_rule() {
    let cases: [(&[TestSymbol], &[TestSymbol], &str); 7] = [
        (&[("a", GLOBAL_FUNC, TEXT, at(0), 0), ("b", LOCAL_FUNC, TEXT, at(0), 4)], &[], "b"),
        (&[("a", WEAK_FUNC, TEXT, at(0), 4), ("b", LOCAL_FUNC, TEXT, at(0), 4)], &[], "b"),
        (&[("a", LOCAL_FUNC, TEXT, at(0), 4), ("b", GLOBAL_FUNC, TEXT, at(0), 4)], &[], "b"),
        (
            &[("__longer", GLOBAL_FUNC, TEXT, at(0), 4), ("_b", GLOBAL_FUNC, TEXT, at(0), 4)],
            &[],
            "_b",
        ),
        (&[("a", GLOBAL_FUNC, TEXT, at(0), 4), ("bb", GLOBAL_FUNC, TEXT, at(0), 4)], &[], "bb"),
        (&[("a", GLOBAL_FUNC, TEXT, at(0), 4)], &[("longer", GLOBAL_FUNC, TEXT, at(0), 4)], "a"),
        (&[("a", LOCAL_FUNC, TEXT, at(0), 4)], &[("b", GLOBAL_FUNC, TEXT, at(0), 4)], "b"),
    ];
    for (symtab, dynsym, want) in cases {
        let file = Linker {
            symtab: Some(symtab.to_vec()),
            dynsym: Some(dynsym.to_vec()),
            ..Linker::default()
        }
        .link();
        let index = SymbolIndex::build(&*file).unwrap();
        assert_eq!(index.len(), 1);
        assert_eq!(named(&index, &file, at(3)).unwrap().0, want);
    }
}

#[test]
fn reads_and_cuts_names() {
    let long: &'static str = "x".repeat(9000).leak();
    let symbols = vec![(long, GLOBAL_FUNC, TEXT, at(0), 4), ("end", GLOBAL_FUNC, TEXT, at(8), 4)];
    let file = Linker { dynsym: Some(symbols), ..Linker::default() }.link();
    let cache = ReadCache::new(std::io::Cursor::new(&file));
    let index = SymbolIndex::build(&cache).unwrap();
    let hit = index.lookup(at(0)).unwrap();
    for max in [0, 1, 255, 256, 4095, 4096, 8999, 9000, 9001, usize::MAX] {
        let want = long.len().min(max);
        assert_eq!(index.read_name(&*file, hit.name, max).unwrap().len(), want, "{max}");
        assert_eq!(index.read_name(&cache, hit.name, max).unwrap().len(), want, "{max}");
    }
    let end = index.lookup(at(8)).unwrap();
    assert_eq!(index.read_name(&cache, end.name, 100).unwrap(), b"end");
    assert!(index.read_name(&file[..0x2000], end.name, 100).is_err());
}

#[test]
fn finds_functions_by_name() {
    let file = Linker {
        symtab: Some(vec![
            ("static_twice", LOCAL_FUNC, TEXT, at(0x10), 8),
            ("static_twice", LOCAL_FUNC, TEXT, at(0x30), 8),
            ("uv_fs_open", GLOBAL_FUNC, TEXT, at(0x50), 8),
            ("uv_fs_open_more", GLOBAL_FUNC, TEXT, at(0x60), 8),
            ("uv_fs_op", GLOBAL_FUNC, TEXT, at(0x70), 8),
            ("variable", GLOBAL_DATA, DATA, 0x60_0000, 8),
            ("nowhere", GLOBAL_FUNC, TEXT, 0x60_0800, 8),
        ]),
        dynsym: Some(vec![
            ("uv_fs_open", GLOBAL_FUNC, TEXT, at(0x50), 8),
            ("exported", GLOBAL_IFUNC, TEXT, at(0x80), 0),
        ]),
        ..Linker::default()
    }
    .link();
    let names =
        ["exported", "uv_fs_open", "absent", "static_twice", "variable", "nowhere", "uv_fs_o", ""];
    let found: Vec<_> = find_functions(&*file, &names)
        .unwrap()
        .into_iter()
        .map(|f| (f.name, f.svma, f.file_offset, f.table, f.indirect))
        .collect();
    let want =
        |name: &str, n, table, indirect| (name.to_owned(), at(n), TEXT_OFFSET + n, table, indirect);
    let (symtab, dynsym) = (SymbolSource::Symtab, SymbolSource::Dynsym);
    assert_eq!(
        found,
        [
            want("exported", 0x80, dynsym, true),
            want("uv_fs_open", 0x50, symtab, false),
            want("static_twice", 0x10, symtab, false),
            want("static_twice", 0x30, symtab, false),
        ]
    );
    let mut all = Vec::new();
    for_each_function(&*file, |f| all.push(f.name)).unwrap();
    let want =
        ["static_twice", "static_twice", "uv_fs_open", "uv_fs_open_more", "uv_fs_op", "exported"];
    assert_eq!(all, want);
}

/// A function of this program that must be found again.
#[inline(never)]
fn formats_elf_test_landmark() -> u32 {
    std::hint::black_box(7)
}

#[test]
fn reads_this_program() {
    let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let info = ElfInfo::parse(&*file).unwrap();
    assert!(info.is_dyn && info.has_symtab);
    assert!(info.needed.iter().any(|n| n.starts_with("libc.so")), "{:?}", info.needed);
    let mut name = String::new();
    for_each_function(&*file, |f| {
        if f.name.contains("formats_elf_test_landmark") {
            name = f.name;
        }
    })
    .unwrap();
    let found = find_functions(&*file, &[&name]).unwrap();
    let [landmark] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(info.svma_to_file_offset(landmark.svma), Some(landmark.file_offset));

    let index = SymbolIndex::build(&*file).unwrap();
    let middle = landmark.svma + landmark.size / 2;
    assert_eq!(named(&index, &file, middle).unwrap().0, name);

    // The kernel's view of where that code is must lead to the same place.
    let maps = std::fs::read("/proc/self/maps").unwrap();
    let address = formats_elf_test_landmark as *const () as u64;
    let maps = crate::procmaps::parse_maps(&maps);
    let own = maps.entries.iter().find(|e| e.start <= address && address < e.end).unwrap();
    assert_eq!(address - own.start + own.offset, landmark.file_offset);
    assert_eq!(formats_elf_test_landmark(), 7);
}

fn explore(file: &[u8]) {
    drop(ElfInfo::parse(file));
    drop(find_functions(file, &["uv_fs_open"]));
    drop(for_each_function(file, |_| {}));
    if let Ok(index) = SymbolIndex::build(file) {
        for n in 0..0x1200 {
            if let Some(hit) = index.lookup(at(n)) {
                drop(index.read_name(file, hit.name, 50));
            }
        }
    }
}

proptest! {
    #[test]
    fn survives_any_bytes(mut file: Vec<u8>) {
        explore(&file);
        file.splice(0..0, *b"\x7fELF\x02\x01\x01");
        explore(&file);
    }

    #[test]
    fn survives_damage(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20), cut: prop::sample::Index) {
        let symbols = vec![
            ("uv_fs_open", GLOBAL_FUNC, TEXT, at(0x50), 8),
            ("alias", GLOBAL_FUNC, TEXT, at(0x50), 8),
            ("x", LOCAL_LABEL, TEXT, at(0x60), 0),
        ];
        let whole = Linker {
            symtab: Some(symbols.clone()),
            dynsym: Some(symbols),
            build_id: vec![1; 20],
            ..Linker::default()
        }
        .link();
        // Most bytes are code, which nothing reads: damage what is around it.
        let mut file = whole.clone();
        let interesting: Vec<usize> = (0..0x200).chain(0x2100..file.len()).collect();
        for (place, byte) in &changes {
            file[interesting[place.index(interesting.len())]] = *byte;
        }
        explore(&file);
        explore(&whole[..cut.index(whole.len())]);
    }

    #[test]
    fn agrees_with_a_plain_search(
        list in prop::collection::btree_map(0u64..0x800, 1u64..0x300, 1..300),
        wanted in 0u64..0xc00,
    ) {
        let symtab = list.iter().map(|(n, size)| ("f", GLOBAL_FUNC, TEXT, at(*n), *size)).collect();
        let file = Linker { symtab: Some(symtab), ..Linker::default() }.link();
        let index = SymbolIndex::build(&*file).unwrap();
        let want = list.iter().rfind(|(n, size)| **n <= wanted && wanted < **n + **size);
        let got = index.lookup(at(wanted)).map(|h| (h.svma, h.size));
        prop_assert_eq!(got, want.map(|(n, size)| (at(*n), *size)));
    }
}
