//! A stack as lines for people: the frames of the application in full, everything else folded. It
//! must not know what the stack did or how often.

use std::collections::HashMap;

use super::units::counted;
use crate::asked;
use crate::profile::{Kind, Profile, Reason, ResolvedFrame, ResolvedStackId};

/// Frames of the application that are shown of one stack.
const FRAMES: usize = 12;
/// Frames that are shown of a stack in which no application is seen.
const INTERNAL_FRAMES: usize = 6;
/// Native frames that are shown of a stack without any JavaScript name.
const NATIVE_FRAMES: usize = 3;
/// Beginnings of native names that are in every stack, and tell nothing: libuv's and V8's way to the
/// frame that asked, and how a program and a thread start.
const EVERYWHERE: [&str; 6] = ["uv_", "v8::", "JSEntry", "CEntry", "_start", "__libc_start"];
/// Functions of Node, or of a package, that are named in a fold.
const FOLDED_NAMES: usize = 4;

/// One line of a stack.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Line {
    /// A frame: function and place.
    Frame {
        /// Function name.
        function: String,
        /// `file:line:column`, or the module.
        place: Option<String>,
    },
    /// Several frames, in words.
    Folded(String),
}

/// Whether a stack was taken: of a probe that is hit too often, only some are.
#[must_use]
pub fn is_taken(profile: &Profile, stack: ResolvedStackId) -> bool {
    let leaf = profile.leaf_first(stack).next();
    leaf.is_none_or(|frame| frame.unresolved != Some(Reason::NotTaken))
}

/// The npm package that a frame's file belongs to, with its scope.
fn package(frame: &ResolvedFrame) -> Option<&str> {
    let (_before, inside) = frame.file.as_deref()?.rsplit_once("/node_modules/")?;
    let slashes = if inside.starts_with('@') { 2 } else { 1 };
    let (end, _slash) = inside.match_indices('/').nth(slashes - 1)?;
    inside.get(..end)
}

fn is_telling_native(frame: &ResolvedFrame) -> bool {
    let name = frame.function.as_str();
    let everywhere = || name == "main" || EVERYWHERE.iter().any(|start| name.starts_with(start));
    frame.kind == Kind::Native && frame.unresolved.is_none() && !everywhere()
}

/// Stacks that read alike are one to a reader: they differ in native frames, in what V8 had inlined,
/// or far out. Gives each with all its weight, the heaviest first by `count`.
pub fn alike<W>(
    profile: &Profile,
    stacks: impl Iterator<Item = (ResolvedStackId, W)>,
    add: impl Fn(&mut W, W),
    count: impl Fn(&W) -> u64,
) -> Vec<(W, Vec<Line>)> {
    let mut alike: Vec<(W, Vec<Line>)> = Vec::new();
    let mut places: HashMap<Vec<Line>, usize> = HashMap::new();
    for (stack, weight) in stacks {
        let lines = lines(profile, stack);
        let place = *places.entry(what_is_read(&lines)).or_insert(alike.len());
        match alike.get_mut(place) {
            Some((sum, _lines)) => add(sum, weight),
            None => alike.push((weight, lines)),
        }
    }
    alike.sort_by_key(|(weight, _lines)| std::cmp::Reverse(count(weight)));
    alike
}

/// What a reader tells stacks apart by: the frames that are shown, or the folds where none is.
fn what_is_read(lines: &[Line]) -> Vec<Line> {
    let is_frame = |line: &&Line| matches!(line, Line::Frame { .. });
    let frames: Vec<Line> = lines.iter().filter(is_frame).cloned().collect();
    if frames.is_empty() { lines.to_vec() } else { frames }
}

/// The lines of a stack, leaf first.
#[must_use]
pub fn lines(profile: &Profile, stack: ResolvedStackId) -> Vec<Line> {
    let frames: Vec<&ResolvedFrame> = profile.leaf_first(stack).collect();
    let any = |choose: fn(&ResolvedFrame) -> bool| frames.iter().any(|frame| choose(frame));
    let (shown, limit): (fn(&ResolvedFrame) -> bool, _) = if any(ResolvedFrame::is_application) {
        (ResolvedFrame::is_application, FRAMES)
    } else if any(ResolvedFrame::is_named_js) {
        (ResolvedFrame::is_named_js, INTERNAL_FRAMES)
    } else {
        (is_telling_native, NATIVE_FRAMES)
    };
    // Beside code of one's own, of a package's frames in a row the first says enough.
    let own = any(|frame| frame.is_application() && package(frame).is_none());
    let mut last_package = None;
    let mut total = frames.iter().filter(|frame| shown(frame)).count();
    let mut lines = Vec::new();
    let mut folded: Vec<&ResolvedFrame> = Vec::new();
    let mut used = 0;
    for frame in &frames {
        if own && shown(frame) {
            let package = package(frame);
            if package.is_some() && package == last_package {
                folded.push(frame);
                total -= 1;
                continue;
            }
            last_package = package;
        }
        // Beyond the limit native frames are folded, JavaScript is counted.
        if !shown(frame) || (used == limit && frame.kind == Kind::Native) {
            folded.push(frame);
            continue;
        }
        if used == limit {
            lines.extend(fold(&folded));
            let more =
                counted((total - used) as u64, "more JavaScript frame", "more JavaScript frames");
            lines.push(Line::Folded(format!("… {more}")));
            return lines;
        }
        lines.extend(fold(&folded));
        folded.clear();
        used += 1;
        lines.push(full(frame));
    }
    lines.extend(fold(&folded));
    lines
}

/// The JavaScript that asked: the innermost frame of the application, else the innermost that has a
/// name.
#[must_use]
pub fn who_asked(profile: &Profile, stack: ResolvedStackId) -> Option<Line> {
    profile.get(asked::line(profile, stack)?).map(full)
}

/// One frame in full.
#[must_use]
pub fn full(frame: &ResolvedFrame) -> Line {
    let mut function = frame.label().to_owned();
    if frame.inferred {
        function.push_str(" (inferred)");
    }
    Line::Frame { function, place: frame.place().or_else(|| frame.module.clone()) }
}

fn fold(frames: &[&ResolvedFrame]) -> Option<Line> {
    if frames.is_empty() {
        return None;
    }
    let mut parts = Vec::new();
    let mut origins: Vec<(&str, Vec<&str>)> = Vec::new();
    for frame in frames.iter().filter(|frame| frame.is_named_js()) {
        let origin = if frame.is_node() { "Node" } else { package(frame).unwrap_or("others") };
        match origins.iter_mut().find(|(known, _names)| *known == origin) {
            Some((_origin, names)) => names.push(frame.label()),
            None => origins.push((origin, vec![frame.label()])),
        }
    }
    for (origin, names) in origins {
        let more = names.len().saturating_sub(FOLDED_NAMES);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let names = names.iter().take(FOLDED_NAMES).copied().collect::<Vec<_>>().join(", ");
        parts.push(format!("{origin}: {names}{more}"));
    }
    let mut count = |what: &str, choose: &dyn Fn(&ResolvedFrame) -> bool| {
        let frames = frames.iter().filter(|frame| choose(frame)).count();
        if frames > 0 {
            parts.push(format!("{frames} {what}"));
        }
    };
    count("JavaScript without a name", &|frame| {
        matches!(frame.kind, Kind::Js | Kind::Jit) && frame.unresolved.is_some()
    });
    count("native", &|frame| {
        matches!(frame.kind, Kind::Native | Kind::Builtin)
            || (frame.kind == Kind::Jit && frame.unresolved.is_none())
    });
    count("kernel", &|frame| frame.kind == Kind::Kernel);
    for frame in frames.iter().filter(|frame| frame.kind == Kind::Unknown) {
        parts.push(frame.label().to_owned());
    }
    Some(Line::Folded(format!("… {}", parts.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn js(function: &str, file: &str) -> ResolvedFrame {
        ResolvedFrame { file: Some(file.into()), ..ResolvedFrame::named(Kind::Js, function.into()) }
    }

    fn shown(root_first: Vec<ResolvedFrame>) -> Vec<String> {
        let mut profile = Profile::default();
        let stack = root_first.into_iter().fold(ResolvedStackId::default(), |at, frame| {
            let frame = profile.frame(frame);
            profile.push(at, frame)
        });
        lines(&profile, stack)
            .into_iter()
            .map(|line| match line {
                Line::Frame { function, place } => {
                    format!("{function} {}", place.unwrap_or_default())
                }
                Line::Folded(text) => text,
            })
            .collect()
    }

    #[test]
    fn the_application_is_seen_and_the_rest_folded() {
        let native = |name: &str| ResolvedFrame::named(Kind::Native, name.into());
        let got = shown(vec![
            ResolvedFrame::nameless(Kind::Unknown, Reason::Truncated),
            native("main"),
            js("processTicks", "node:internal/process"),
            js("handler", "/app/a.js"),
            ResolvedFrame::nameless(Kind::Js, Reason::InterpretedWithoutName),
            js("load", "/app/b.js"),
            js("readFileSync", "node:fs"),
            js("openSync", "node:fs"),
            native("node::fs::Open"),
            native("uv_fs_open"),
        ]);
        assert_eq!(
            got,
            [
                "… Node: openSync, readFileSync, 2 native",
                "load /app/b.js",
                "… 1 JavaScript without a name",
                "handler /app/a.js",
                "… Node: processTicks, 1 native, [stack cut at the kernel's limit]",
            ]
        );
        let got = shown(vec![native("main"), js("openSync", "node:fs"), native("uv_fs_open")]);
        assert_eq!(got, ["… 1 native", "openSync node:fs", "… 1 native"]);
        let deep = (0..40).map(|n| js(&format!("f{n}"), "/a.js")).collect();
        assert_eq!(shown(deep).last().map(String::as_str), Some("… 28 more JavaScript frames"));
        assert!(shown(Vec::new()).is_empty());
        // Without any JavaScript name, native frames that tell something.
        let nameless = || ResolvedFrame::nameless(Kind::Jit, Reason::JitNoMap);
        let got = shown(vec![
            native("main"),
            native("node::Start"),
            native("node::SpinEventLoop"),
            nameless(),
            native("node::fs::ReadFileUtf8"),
            native("v8::internal::Execution::Call"),
            native("node::fs::Open"),
            native("uv_fs_open"),
        ]);
        assert_eq!(
            got,
            [
                "… 1 native",
                "node::fs::Open ",
                "… 1 native",
                "node::fs::ReadFileUtf8 ",
                "… 1 JavaScript without a name",
                "node::SpinEventLoop ",
                "… 2 native",
            ]
        );
        assert_eq!(shown(vec![native("main"), native("uv_run")]), ["… 2 native"]);
    }

    #[test]
    fn of_a_package_the_first_frame_in_a_row_is_seen() {
        let express = |function: &str| js(function, "/srv/node_modules/express/lib/router.js");
        let scoped = |function: &str| js(function, "/srv/node_modules/@a/b/index.js");
        let stack = |own: ResolvedFrame| {
            vec![
                js("emit", "node:events"),
                express("app"),
                express("handle"),
                js("emit", "node:events"),
                express("next"),
                own,
                scoped("outer"),
                scoped("inner"),
                js("readFileSync", "node:fs"),
            ]
        };
        assert_eq!(
            shown(stack(js("sendSettings", "/srv/lib/settings.js"))),
            [
                "… Node: readFileSync",
                "inner /srv/node_modules/@a/b/index.js",
                "… @a/b: outer",
                "sendSettings /srv/lib/settings.js",
                "next /srv/node_modules/express/lib/router.js",
                "… Node: emit, emit, express: handle, app",
            ]
        );
        // Where there is nothing else, packages are what the reader came for.
        let all = shown(stack(scoped("own")));
        assert!(all.iter().filter(|line| line.contains("router.js")).count() == 3, "{all:?}");
    }
}
