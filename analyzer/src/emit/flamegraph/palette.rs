//! Colours: a hue for each kind of code, and within it a shade that follows from the name.

use std::collections::BTreeSet;

use inferno::flamegraph::color::{Color, PaletteMap};

use crate::profile::Kind;

use super::labels::Labels;

/// What is no function: the root, and marks of merged frames.
const MARK: Color = Color { r: 232, g: 232, b: 232 };

/// The two ends of a kind's hue. All are light enough for black text.
fn ends(kind: Kind) -> (Color, Color) {
    let rgb = |r, g, b| Color { r, g, b };
    match kind {
        Kind::Js => (rgb(110, 200, 110), rgb(175, 230, 130)),
        Kind::Native => (rgb(240, 105, 80), rgb(255, 175, 95)),
        Kind::Builtin => (rgb(135, 165, 200), rgb(175, 195, 215)),
        Kind::Kernel => (rgb(175, 135, 215), rgb(210, 175, 235)),
        Kind::Jit => (rgb(235, 205, 70), rgb(250, 235, 130)),
        Kind::Unknown => (rgb(185, 185, 185), rgb(215, 215, 215)),
        Kind::Operation => (rgb(255, 225, 120), rgb(255, 240, 170)),
    }
}

/// What the legend says.
pub(super) fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Js => "JavaScript",
        Kind::Native => "native",
        Kind::Builtin => "V8 builtin",
        Kind::Kernel => "kernel",
        Kind::Jit => "other JIT code",
        Kind::Unknown => "unknown",
        Kind::Operation => "path and result",
    }
}

/// The middle of a kind's hue.
pub(super) fn middle(kind: Kind) -> Color {
    shade(kind, 128)
}

/// The colour of every label, and of what is no function: inferno would take a random one.
pub(super) fn map(labels: &Labels, marks: &BTreeSet<String>) -> PaletteMap {
    let mut map = PaletteMap::default();
    // The empty name is inferno's root.
    for mark in marks.iter().map(String::as_str).chain([""]) {
        map.insert(mark, MARK);
    }
    for (label, kind) in labels.all() {
        map.insert(label, shade(kind, hash(label)));
    }
    map
}

/// `part` of 255 between the ends.
fn shade(kind: Kind, part: u8) -> Color {
    let (from, to) = ends(kind);
    let mix = |a: u8, b: u8| {
        let (a, b, part) = (u32::from(a), u32::from(b), u32::from(part));
        u8::try_from((a * (255 - part) + b * part) / 255).unwrap_or(u8::MAX)
    };
    Color { r: mix(from.r, to.r), g: mix(from.g, to.g), b: mix(from.b, to.b) }
}

/// FNV-1a, folded: stable over versions and machines, unlike the standard hasher.
fn hash(text: &str) -> u8 {
    let hash = text
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash.to_le_bytes().into_iter().fold(0, |a, b| a ^ b)
}
