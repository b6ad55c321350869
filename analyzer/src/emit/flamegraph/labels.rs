//! What stands in a frame: short enough to read, distinct where functions are distinct, and of
//! nothing that folded lines or XML give a meaning to.

use std::collections::{HashMap, HashSet};

use formats::text::clean_string;

use crate::profile::{FrameId, JsNames, Kind, Profile, Reason, ResolvedFrame};

/// Longest label, characters.
const MAX_CHARS: usize = 200;
/// Longest function name in a label that also has a place.
const MAX_FUNCTION: usize = 110;
/// Longest path in the label of an operation, characters: what follows it must not be cut off.
const MAX_PATH: usize = 160;

/// Labels by frame. Frames that read the same share one.
#[derive(Debug)]
pub(super) struct Labels {
    of_frame: Vec<u32>,
    labels: Vec<(String, Kind)>,
}

impl Labels {
    pub(super) fn new(profile: &Profile, names: JsNames) -> Self {
        let frames = profile.frames();
        let short: Vec<String> =
            frames.iter().map(|frame| label(frame, names, short_file)).collect();
        // A short label that several places would share is given up for the long one.
        let mut places: HashMap<&str, (Option<&str>, Option<u32>)> = HashMap::new();
        let mut shared: HashSet<&str> = HashSet::new();
        for (frame, text) in frames.iter().zip(&short) {
            let place = (frame.file.as_deref(), frame.defined_line);
            if *places.entry(text).or_insert(place) != place {
                shared.insert(text);
            }
        }
        let mut index: HashMap<String, u32> = HashMap::new();
        let mut labels = Vec::new();
        let mut of_frame = Vec::with_capacity(frames.len());
        for (frame, text) in frames.iter().zip(&short) {
            let text = if shared.contains(text.as_str()) {
                label(frame, names, str::to_owned)
            } else {
                text.clone()
            };
            let text = format!("{text}{}", annotation(frame.kind));
            let next = labels.len() as u32;
            let id = *index.entry(text.clone()).or_insert(next);
            if id == next {
                labels.push((text, frame.kind));
            }
            of_frame.push(id);
        }
        Self { of_frame, labels }
    }

    /// Index of a frame's label; `None` for a frame of another profile.
    pub(super) fn of(&self, frame: FrameId) -> Option<u32> {
        self.of_frame.get(frame.0 as usize).copied()
    }

    /// The text of a label.
    pub(super) fn text(&self, label: u32) -> &str {
        self.labels.get(label as usize).map_or("", |(text, _)| text)
    }

    /// All labels with the kind that colours them.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, Kind)> {
        self.labels.iter().map(|(text, kind)| (text.as_str(), *kind))
    }
}

/// What inferno takes off again before it shows a name: it keeps a C++ `read` apart from the kernel's.
fn annotation(kind: Kind) -> &'static str {
    match kind {
        Kind::Js | Kind::Unknown | Kind::Operation => "",
        Kind::Native => "_[w]",
        Kind::Builtin => "_[i]",
        Kind::Kernel => "_[k]",
        Kind::Jit => "_[j]",
    }
}

/// A function goes by its definition: its call sites are one frame.
fn label(frame: &ResolvedFrame, names: JsNames, shorten: fn(&str) -> String) -> String {
    let mut text = match frame.unresolved {
        Some(reason) => unresolved(frame, reason, names),
        None => match &frame.file {
            Some(file) if matches!(frame.kind, Kind::Js | Kind::Jit) => {
                let function = clean_string(frame.function.as_bytes(), MAX_FUNCTION);
                let line = frame.defined_line.map(|line| format!(":{line}")).unwrap_or_default();
                format!("{function} {}{line}", shorten(file))
            }
            Some(file) if frame.kind == Kind::Operation => {
                let done = frame.module.as_deref().unwrap_or_default();
                format!("{done} {} {}", path_end(&shorten(file)), frame.function)
                    .trim_end()
                    .to_owned()
            }
            _ => frame.function.clone(),
        },
    };
    if frame.inferred {
        text.push_str(" (inferred)");
    }
    neutral(&text)
}

/// The end of a path says more than its beginning.
fn path_end(path: &str) -> String {
    let cut = path.chars().count().saturating_sub(MAX_PATH);
    if cut == 0 {
        return path.to_owned();
    }
    std::iter::once('…').chain(path.chars().skip(cut + 1)).collect()
}

/// The reason in few words, with the flag that would help, or with the file that has no name.
fn unresolved(frame: &ResolvedFrame, reason: Reason, names: JsNames) -> String {
    match reason {
        Reason::InterpretedWithoutName | Reason::JitNoMap => {
            let hint = match (names, reason) {
                (JsNames::Heap, _) => return reason.label().to_owned(),
                (JsNames::Map | JsNames::Off, _) => "--js=heap",
                (_, Reason::JitNoMap) => "--perf-basic-prof",
                _ => "--interpreted-frames-native-stack",
            };
            format!("{}: use {hint}]", reason.label().trim_end_matches(']'))
        }
        _ => match frame.module.as_deref().and_then(|path| path.rsplit('/').next()) {
            Some(module) if !module.is_empty() => format!("{} {module}", reason.label()),
            _ => reason.label().to_owned(),
        },
    }
}

/// The part of a path that tells a reader most: from the package on, or the last two parts.
fn short_file(file: &str) -> String {
    if file.starts_with("node:") {
        return file.to_owned();
    }
    if let Some((_, inside)) =
        file.rsplit_once("node_modules/").filter(|(_, file)| !file.is_empty())
    {
        return inside.to_owned();
    }
    let path = file.strip_prefix("file://").unwrap_or(file);
    let mut parts = path.rsplitn(3, '/');
    match (parts.next(), parts.next()) {
        (Some(name), Some(folder)) if !folder.is_empty() => format!("{folder}/{name}"),
        (Some(name), _) if !name.is_empty() => name.to_owned(),
        _ => path.to_owned(),
    }
}

/// A label that neither a folded line nor XML misreads: `;` separates frames, a number behind the last
/// space is a weight, `# ` begins a comment.
fn neutral(text: &str) -> String {
    let text = xml_safe(&clean_string(text.as_bytes(), MAX_CHARS)).replace(';', ",");
    let mut text = text.trim().to_owned();
    if let Some((head, last)) = text.rsplit_once(char::is_whitespace)
        && last.parse::<f64>().is_ok()
    {
        text = format!("{}_{last}", head.trim_end());
    }
    if text.starts_with('#') {
        text.insert(0, '\'');
    }
    if text.is_empty() { "(empty name)".to_owned() } else { text }
}

/// Takes out the characters that XML 1.0 forbids even when escaped (section 2.2).
pub(super) fn xml_safe(text: &str) -> String {
    let allowed = |c: char| !c.is_control() && !matches!(c, '\u{FFFE}' | '\u{FFFF}');
    text.chars().map(|c| if allowed(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_shortened_to_what_tells_most() {
        for (file, short) in [
            ("/srv/app/node_modules/express/lib/router/index.js", "express/lib/router/index.js"),
            ("/srv/app/lib/report.js", "lib/report.js"),
            ("file:///srv/app/main.mjs", "app/main.mjs"),
            ("node:internal/fs/promises", "node:internal/fs/promises"),
            ("/main.js", "main.js"),
            ("main.js", "main.js"),
            ("/", "/"),
            ("/srv/node_modules/", "node_modules/"),
            ("", ""),
        ] {
            assert_eq!(short_file(file), short, "{file}");
        }
    }

    #[test]
    fn operations_end_in_their_error() {
        let text = |file: &str, error: &str| {
            let frame = ResolvedFrame::named(Kind::Operation, error.to_owned());
            let module = Some("open".to_owned());
            let frame = ResolvedFrame { file: Some(file.to_owned()), module, ..frame };
            label(&frame, JsNames::default(), short_file)
        };
        assert_eq!(text("/srv/app/config/local.json", "ENOENT"), "open config/local.json ENOENT");
        assert_eq!(text("/srv/app/config/local.json", ""), "open config/local.json");
        let long = text(&format!("/{}/end.json", "x".repeat(400)), "EACCES");
        assert!(long.starts_with("open …x") && long.ends_with("x/end.json EACCES"), "{long}");
        assert_eq!(long.chars().count(), MAX_PATH + "open  EACCES".len());
    }

    #[test]
    fn labels_cannot_be_misread() {
        for (text, safe) in [
            ("a;b", "a,b"),
            ("step 12", "step_12"),
            ("step 1.5 ", "step_1.5"),
            ("# note", "'# note"),
            ("  ", "(empty name)"),
            ("a\nb", "a\\x0ab"),
            ("x\u{FFFF}", "x\u{FFFD}"),
        ] {
            assert_eq!(neutral(text), safe, "{text:?}");
        }
        assert_eq!(neutral(&"y".repeat(1 << 20)).chars().count(), MAX_CHARS);
    }

    #[test]
    fn same_names_of_different_files_stay_apart() {
        let mut profile = Profile::default();
        let mut js = |file: &str| {
            let frame = ResolvedFrame::named(Kind::Js, "run".to_owned());
            let file = Some(file.to_owned());
            profile.frame(ResolvedFrame { file, defined_line: Some(3), ..frame })
        };
        let (a, b, c) = (js("/one/lib/x.js"), js("/two/lib/x.js"), js("/one/lib/y.js"));
        let labels = Labels::new(&profile, JsNames::default());
        let text = |frame| labels.text(labels.of(frame).unwrap()).to_owned();
        assert_eq!(text(a), "run /one/lib/x.js:3");
        assert_eq!(text(b), "run /two/lib/x.js:3");
        assert_eq!(text(c), "run lib/y.js:3");
    }
}
