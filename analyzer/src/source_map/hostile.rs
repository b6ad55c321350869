//! Maps that nobody's compiler wrote: reading them ends, without a panic and in little memory.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use super::mappings::{MapError, Original, Place, SourceMap};

const MAP: &str = include_str!("../../tests/source_maps/app.min.js.map");

/// Places at the edges of what there is, in order.
fn places() -> Vec<Place> {
    let edges = [0, 1, 2, 9, 321, u32::MAX - 1, u32::MAX];
    edges.iter().flat_map(|&line| edges.map(|column| (line, column))).collect()
}

/// What a map says of places; each place has its answer.
fn look_up(map: &[u8], places: &[Place]) -> Result<Vec<Option<Original>>, MapError> {
    let found = SourceMap::parse(map)?.look_up(places)?;
    assert_eq!(found.len(), places.len());
    Ok(found)
}

/// A map that is JSON of the right form, whatever its mappings say.
fn written() -> impl Strategy<Value = Value> {
    let numbers = prop::collection::vec("[g-z0-9+/]{0,7}[A-Z]", 0..6).prop_map(|n| n.concat());
    let segments = prop::collection::vec((numbers, "[,;]{0,2}"), 0..12);
    let segments = segments.prop_map(|s| s.iter().map(|(n, end)| format!("{n}{end}")).collect());
    let mappings = prop_oneof![4 => segments, 1 => any::<String>()];
    (mappings, prop::option::of(any::<String>()), 0usize..3).prop_map(|(mappings, root, count)| {
        json!({"version": 3, "mappings": mappings, "sourceRoot": root,
            "sources": vec![Some("a"); count], "names": vec!["n"; count]})
    })
}

proptest! {
    #[test]
    fn any_bytes_end(map in any::<Vec<u8>>()) {
        let _not_a_map = look_up(&map, &places());
    }

    #[test]
    fn a_map_with_other_bytes_ends(flips: Vec<(Index, u8)>) {
        let mut map = MAP.as_bytes().to_vec();
        for (at, byte) in flips {
            let at = at.index(map.len());
            map[at] = byte;
        }
        let _damaged = look_up(&map, &places());
    }

    #[test]
    fn any_mappings_end(map in written()) {
        let _damaged = look_up(map.to_string().as_bytes(), &places());
    }

    #[test]
    fn any_sections_end(sections in prop::collection::vec((0u32..3, any::<u32>(), written()), 0..4)) {
        let sections: Vec<Value> = sections
            .into_iter()
            .map(|(line, column, map)| json!({"offset": {"line": line, "column": column}, "map": map}))
            .collect();
        let map = json!({"version": 3, "sections": sections}).to_string();
        let _damaged = look_up(map.as_bytes(), &places());
    }
}

#[test]
fn texts_do_not_multiply() {
    // Each source has the root before it, and each place a copy: a MiB must not become many.
    let ask: Vec<Place> = (0..2000).map(|column| (0, column)).collect();
    for (root, source, name, told) in [
        (4000, 96, 4096, 2000),
        (4000, 97, 1, 0),
        (0, 4097, 1, 0),
        (1 << 20, 1, 1, 0),
        (1, 1, 1 << 20, 2000),
    ] {
        let text = |length| "t".repeat(length);
        let map = json!({"version": 3, "sourceRoot": text(root), "sources": [text(source)],
            "names": [text(name)], "mappings": "AAAAA"});
        let found = look_up(map.to_string().as_bytes(), &ask).unwrap();
        let found: Vec<Original> = found.into_iter().flatten().collect();
        assert_eq!(found.len(), told, "{root} {source} {name}");
        let names = found.iter().map(|original| original.names.len()).sum::<usize>();
        assert_eq!(names, if name > 4096 { 0 } else { told }, "{root} {source} {name}");
    }
    // Many sources share a root: it is not put before those that nobody asks for.
    let map = json!({"version": 3, "sourceRoot": "r".repeat(500_000), "sources": vec!["a"; 125_000],
        "mappings": "AAAA"});
    assert_eq!(look_up(map.to_string().as_bytes(), &[(0, 0)]).unwrap(), [None]);
}
