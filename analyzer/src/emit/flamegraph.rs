//! A flame graph as one self-contained, searchable SVG: by inferno, with frames coloured by kind.
//!
//! It is made to be attached to a ticket. So it stays below one megabyte, however long the recording
//! was: narrow frames are merged, and the subtitle says so. And it is readable where scripts are
//! stripped: the texts are fitted when it is written, not when it is opened.
//! It sees a finished profile and a writer; the same input gives the same bytes.

mod labels;
mod palette;
mod tree;

use std::io::{self, Write};

use formats::text::clean_string;
use inferno::flamegraph::{Options, TextTruncateDirection};

use crate::profile::{JsNames, Kind, Profile, ResolvedStackId};

use self::labels::{Labels, xml_safe};
use self::tree::Tree;

/// Largest SVG, bytes: below the megabyte that ticket systems show in place, with room to spare.
const MAX_BYTES: usize = 900_000;
/// Share of the whole width below which a frame is merged, at first: one pixel.
const FIRST_SHARE: f64 = 0.0008;
/// By how much the share grows while the SVG is too large.
const SHARE_STEP: f64 = 1.4;
/// Characters of the title and the subtitle that fit into the width that is used without scripts.
const TITLE_CHARS: usize = 112;
const SUBTITLE_CHARS: usize = 160;
/// Font size in pixels, and the width of a character in units of it. DejaVu Sans Mono, the widest
/// common monospace font, has 0.602; the rest makes up for the space left of a text.
const FONT_SIZE: usize = 12;
const FONT_WIDTH: f64 = 0.63;
/// How inferno ends an SVG: the frames, then the image.
const END: &[u8] = b"</svg></svg>";

/// What stands around the graph.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FlamegraphOptions {
    /// Heading: target, duration, samples, event.
    pub title: String,
    /// Second line; what is said of merged frames is added to it.
    pub subtitle: String,
    /// What a weight counts, in the plural: `samples`, `opens`.
    pub unit: String,
    /// How JavaScript was named: says what would name the frames without a name.
    pub js_names: JsNames,
}

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// Size of the SVG.
    pub bytes: usize,
    /// Frames that are drawn.
    pub drawn_frames: usize,
    /// Frames that were too narrow and are merged.
    pub merged_frames: usize,
    /// Share of the whole width below which frames were merged.
    pub share: f64,
}

/// Why there is no flame graph.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FlamegraphError {
    /// No sample, or none with a stack.
    #[error("cannot draw a flame graph: no {unit} with a stack ({title})")]
    Empty {
        /// What a weight counts.
        unit: String,
        /// The heading.
        title: String,
    },
    /// The layout was refused.
    #[error("cannot lay out the flame graph")]
    Layout(#[source] io::Error),
    /// The output cannot be written.
    #[error("cannot write the flame graph")]
    Write(#[source] io::Error),
}

/// Draws stacks by weight.
///
/// # Errors
/// [`FlamegraphError::Empty`] when the weights add up to nothing, and whatever writing meets.
pub fn render(
    profile: &Profile,
    rows: &[(ResolvedStackId, u64)],
    options: &FlamegraphOptions,
    out: &mut dyn Write,
) -> Result<Rendered, FlamegraphError> {
    let labels = Labels::new(profile, options.js_names);
    let tree = Tree::new(profile, rows, &labels);
    let unit = text(&options.unit, 40);
    if tree.total() == 0 {
        let title = text(&options.title, TITLE_CHARS);
        return Err(FlamegraphError::Empty { unit, title });
    }
    let mut share = FIRST_SHARE;
    loop {
        let pruned = tree.pruned(share, &labels);
        let mut svg = Vec::new();
        let mut subtitle = text(&options.subtitle, SUBTITLE_CHARS);
        if pruned.merged > 0 {
            let note = format!(
                "{} frames narrower than {:.2} % of the width are merged",
                pruned.merged,
                share * 100.0
            );
            // The note must not fall victim to a long subtitle.
            let room = SUBTITLE_CHARS.saturating_sub(note.len() + 3);
            subtitle = text(&options.subtitle, room);
            subtitle = if subtitle.is_empty() { note } else { format!("{subtitle} · {note}") };
        }
        let mut colours = palette::map(&labels, &pruned.marks);
        let mut layout = Options::default();
        layout.title = text(&options.title, TITLE_CHARS);
        layout.subtitle = Some(subtitle).filter(|text| !text.is_empty());
        layout.count_name.clone_from(&unit);
        layout.name_type = String::new();
        layout.palette_map = Some(&mut colours);
        layout.font_size = FONT_SIZE;
        layout.font_width = FONT_WIDTH;
        layout.min_width = 0.0;
        // The lines are grouped already. inferno's own order would split a frame `f` where a sibling
        // is called `f g`, and its order check refuses ours; a chart over time is what it takes as it
        // is, but from the last line to the first.
        layout.flame_chart = true;
        layout.text_truncate_direction = TextTruncateDirection::Right;
        let lines = pruned.lines.iter().rev().map(String::as_str);
        inferno::flamegraph::from_lines(&mut layout, lines, &mut svg)
            .map_err(FlamegraphError::Layout)?;
        add_legend(&mut svg, &tree.kinds());
        if svg.len() > MAX_BYTES && share < 1.0 {
            share *= SHARE_STEP;
            continue;
        }
        out.write_all(&svg).and_then(|()| out.flush()).map_err(FlamegraphError::Write)?;
        let (drawn_frames, merged_frames) = (pruned.drawn, pruned.merged);
        return Ok(Rendered { bytes: svg.len(), drawn_frames, merged_frames, share });
    }
}

/// Text that is safe in XML and not too long.
fn text(untrusted: &str, max_chars: usize) -> String {
    xml_safe(&clean_string(untrusted.as_bytes(), max_chars))
}

/// Which colour is which, below the line that inferno shows details in. Shows only kinds that occur.
fn add_legend(svg: &mut Vec<u8>, kinds: &[Kind]) {
    if !svg.ends_with(END) {
        return;
    }
    svg.truncate(svg.len() - "</svg>".len());
    let mut legend = String::from("<g id=\"legend\">");
    let mut x = 10;
    for &kind in kinds {
        let (name, colour) = (palette::name(kind), palette::middle(kind));
        legend.push_str(&format!(
            "<rect x=\"{x}\" y=\"100%\" width=\"10\" height=\"10\" transform=\"translate(0 -13)\" \
             fill=\"rgb({},{},{})\"/><text x=\"{}\" y=\"100%\" dy=\"-4\">{name}</text>",
            colour.r,
            colour.g,
            colour.b,
            x + 14
        ));
        x += 14 + name.chars().count() * 8 + 16;
    }
    legend.push_str("</g></svg>");
    svg.extend(legend.into_bytes());
}

#[cfg(test)]
mod tests;
