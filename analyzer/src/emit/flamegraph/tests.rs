//! Drawings of small profiles, checked as text.

use super::*;
use crate::profile::{Reason, ResolvedFrame};

fn options() -> FlamegraphOptions {
    FlamegraphOptions {
        title: "node server.js (pid 10) · 30.0 s · 3000 samples · cpu-clock".to_owned(),
        subtitle: "98.2 % of JavaScript frames named".to_owned(),
        unit: "samples".to_owned(),
        js_names: JsNames::default(),
    }
}

fn draw(profile: &Profile, rows: &[(ResolvedStackId, u64)]) -> (String, Rendered) {
    let mut out = Vec::new();
    let rendered = render(profile, rows, &options(), &mut out).unwrap();
    assert_eq!(rendered.bytes, out.len());
    (String::from_utf8(out).unwrap(), rendered)
}

fn js(function: &str, file: &str, line: u32) -> ResolvedFrame {
    let frame = ResolvedFrame::named(Kind::Js, function.to_owned());
    ResolvedFrame {
        file: Some(file.to_owned()),
        line: Some(line),
        defined_line: Some(line),
        ..frame
    }
}

fn stack(profile: &mut Profile, frames: &[ResolvedFrame]) -> ResolvedStackId {
    frames.iter().fold(ResolvedStackId::default(), |parent, frame| {
        let frame = profile.frame(frame.clone());
        profile.push(parent, frame)
    })
}

fn native(name: &str) -> ResolvedFrame {
    ResolvedFrame::named(Kind::Native, name.to_owned())
}

/// Elements in order and balanced, no control characters, no bare ampersand: what a parser of XML refuses.
fn assert_well_formed(svg: &str) {
    let mut open = Vec::new();
    let mut rest = svg;
    while let Some(at) = rest.find('<') {
        let text = &rest[..at];
        for (place, _) in text.match_indices('&') {
            let entity = &text[place..text.len().min(place + 8)];
            assert!(entity.contains(';'), "bare ampersand: {entity}");
        }
        rest = &rest[at..];
        if let Some(data) = rest.strip_prefix("<![CDATA[") {
            rest = data.split_once("]]>").unwrap().1;
            continue;
        }
        let (tag, after) = rest.split_once('>').unwrap();
        rest = after;
        if tag.starts_with("<!") || tag.starts_with("<?") || tag.ends_with('/') {
            continue;
        }
        match tag.strip_prefix("</") {
            Some(name) => assert_eq!(open.pop(), Some(name)),
            None => open.push(tag[1..].split(' ').next().unwrap()),
        }
    }
    assert_eq!(open, Vec::<&str>::new());
    let hostile = |c: char| c.is_control() && !matches!(c, '\n' | '\t' | '\r');
    assert_eq!(svg.chars().find(|c| hostile(*c) || matches!(c, '\u{202E}' | '\u{FFFF}')), None);
}

#[test]
fn frames_are_named_and_coloured_by_kind() {
    let mut profile = Profile::default();
    let kernel = ResolvedFrame::named(Kind::Kernel, "do_syscall_64".to_owned());
    let nameless = ResolvedFrame::nameless(Kind::Js, Reason::InterpretedWithoutName);
    let one = stack(&mut profile, &[native("main"), js("handle", "/srv/app/lib/a.js", 7), kernel]);
    let two = stack(&mut profile, &[native("main"), nameless]);
    let (svg, rendered) = draw(&profile, &[(one, 30), (two, 10), (one, 60)]);
    assert_well_formed(&svg);
    assert!(svg.contains("<title>handle lib/a.js:7 (90 samples, 90.00%)</title>"));
    assert!(svg.contains(">[interpreted, no name: use --interp"));
    assert!(svg.contains("<title>do_syscall_64 (90 samples, 90.00%)</title>"));
    for name in ["JavaScript", "native", "kernel"] {
        assert!(svg.contains(&format!(">{name}</text>")), "legend lacks {name}");
    }
    assert!(!svg.contains("other JIT code"));
    assert_eq!((rendered.drawn_frames, rendered.merged_frames), (4, 0));
    assert!(!svg.contains("are merged"));
}

#[test]
fn hostile_names_are_text() {
    let mut profile = Profile::default();
    let names = [
        "<script>alert(1)</script>".to_owned(),
        "\"&';]]>".to_owned(),
        "\u{1b}[31mred\u{202e}".to_owned(),
        "x".repeat(1 << 20),
        "a;b 12\n# 5".to_owned(),
        "--".to_owned(),
        "\u{FFFF}\0".to_owned(),
        String::new(),
    ];
    let mut rows = Vec::new();
    for name in &names {
        let frames = [native("main"), js(name, name, 1), native(name)];
        rows.push((stack(&mut profile, &frames), 5));
    }
    let mut out = Vec::new();
    let hostile = FlamegraphOptions {
        title: names.concat(),
        subtitle: names[1].clone(),
        unit: names[0].clone(),
        ..FlamegraphOptions::default()
    };
    render(&profile, &rows, &hostile, &mut out).unwrap();
    let svg = String::from_utf8(out).unwrap();
    assert_well_formed(&svg);
    assert_eq!(svg.matches("<script").count(), 1, "only inferno's own script");
    assert!(svg.len() < 100_000, "{}", svg.len());
    let (svg, _) = draw(&profile, &rows);
    assert_well_formed(&svg);
}

/// A wide and deep profile with weights that fall off.
fn large(stacks: u64) -> (Profile, Vec<(ResolvedStackId, u64)>) {
    let mut profile = Profile::default();
    let mut rows = Vec::new();
    for seed in 0..stacks {
        let mut at = ResolvedStackId::default();
        let mut state = seed;
        for depth in 0..40 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let which = (state >> 33) % (depth + 2);
            let name = format!("functionNumber{which}AtDepth{depth}");
            let file = format!("/srv/application/source/{which}/module.js");
            let frame = profile.frame(js(&name, &file, 10 + which as u32));
            at = profile.push(at, frame);
        }
        rows.push((at, 1 + seed % 7));
    }
    (profile, rows)
}

#[test]
fn the_file_stays_small_and_says_what_was_merged() {
    let (profile, rows) = large(20_000);
    let (svg, rendered) = draw(&profile, &rows);
    assert_well_formed(&svg);
    assert!(svg.len() <= MAX_BYTES, "{}", svg.len());
    assert!(svg.len() > MAX_BYTES / 3, "more was cut than needed: {}", svg.len());
    assert!(rendered.merged_frames > 10_000 && rendered.share >= FIRST_SHARE);
    let note = format!("{} frames narrower than ", rendered.merged_frames);
    assert!(svg.contains(&note) && svg.contains(" narrow frames merged) ("), "{note}");
    // Nothing is lost: the widest frames together still are everything.
    let total: u64 = rows.iter().map(|(_, weight)| weight).sum();
    assert!(svg.contains(&format!("total_samples=\"{total}\"")));
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let (profile, rows) = large(500);
    let (first, _) = draw(&profile, &rows);
    for _ in 0..3 {
        let (profile, rows) = large(500);
        assert!(draw(&profile, &rows).0 == first);
    }
}

#[test]
fn texts_fit_without_scripts() {
    let (profile, rows) = large(300);
    let (svg, _) = draw(&profile, &rows);
    let mut texts = 0;
    for group in svg.split("<g>").skip(1) {
        let width = group.split("width=\"").nth(1).unwrap().split('%').next().unwrap();
        let width: f64 = width.parse::<f64>().unwrap() / 100.0 * 1180.0;
        let text = group.split("<text").nth(1).unwrap().split_once('>').unwrap().1;
        let text = text.split("</text>").next().unwrap();
        texts += usize::from(!text.is_empty());
        // 0.602 of 12 pixels a character, 3 pixels left of it; the last dot leaves half its width free.
        let needed = text.len() as f64 * 7.224 + 3.0 - 7.224 / 2.0;
        assert!(text.is_empty() || needed <= width, "{text} in {width}");
    }
    assert!(texts > 20, "{texts}");
}

#[test]
fn nothing_to_draw_is_an_error() {
    let profile = Profile::default();
    for rows in [&[][..], &[(ResolvedStackId(0), 5)], &[(ResolvedStackId(9), 5)]] {
        let error = render(&profile, rows, &options(), &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("no samples with a stack"), "{error}");
    }
}

#[test]
fn huge_weights_do_not_overflow() {
    let mut profile = Profile::default();
    let one = stack(&mut profile, &[native("a")]);
    let two = stack(&mut profile, &[native("b")]);
    let (svg, _) = draw(&profile, &[(one, u64::MAX), (two, u64::MAX), (one, u64::MAX)]);
    assert!(svg.contains("66.67%") && svg.contains("33.33%"));
}

#[test]
fn a_name_that_begins_like_its_siblings_is_drawn_once() {
    let mut profile = Profile::default();
    let rows: Vec<_> = [["main", "f", "leaf"], ["main", "f g", "leaf"], ["main", "f", "other"]]
        .iter()
        .map(|names| (stack(&mut profile, &names.map(native)), 10))
        .collect();
    let (svg, _rendered) = draw(&profile, &rows);
    assert_eq!(svg.matches("<title>f_[w] (").count() + svg.matches("<title>f (").count(), 1);
    assert!(svg.contains("20 samples, 66.67%"), "both halves of f are one frame");
}
