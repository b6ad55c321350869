//! The stacks of a probe against the call sites that `fixtures/v8-truth/truth.js` logs just before
//! each hit: which frames are right, wrong, without a name or missing, and whether the lines are right.

use std::fmt;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::events::Event;
use crate::report::Frame;

/// How many differences are kept for the message.
const MOST_EXAMPLES: usize = 12;

/// What V8 says about one level of a stack.
#[derive(Debug, Clone, Default)]
pub struct Site {
    function: String,
    method: String,
    file: String,
    line: u64,
    column: u64,
    is_eval: bool,
    has_frame: bool,
}

/// Reads a log: in each line a list of call sites, innermost first. Sites that are not on the machine
/// stack as JavaScript, native and asynchronous ones, are left out.
///
/// # Errors
/// If a line is not such a list.
pub fn read_log(text: &str) -> Result<Vec<Vec<Site>>> {
    let stack = |line: &str| -> Result<Vec<Site>> {
        let sites: Vec<Vec<Value>> = serde_json::from_str(line)
            .with_context(|| format!("not a list of call sites: {line}"))?;
        let sites = sites.iter().map(|site| read_site(site).context("not a call site"));
        let sites: Result<Vec<Site>> = sites.collect();
        Ok(sites?.into_iter().filter(|site| site.has_frame).collect())
    };
    text.lines().map(stack).collect()
}

// In the order in which truth.js writes them.
fn read_site(site: &[Value]) -> Option<Site> {
    let text = |at: usize| Some(site.get(at)?.as_str()?.to_owned());
    let number = |at: usize| site.get(at)?.as_u64();
    let file = text(1)?;
    let is_eval = number(7)? == 1;
    Some(Site {
        function: text(0)?,
        method: text(6)?,
        line: number(2)?,
        column: number(3)?,
        is_eval,
        has_frame: number(4)? == 0 && number(5)? == 0 && (is_eval || !file.is_empty()),
        file,
    })
}

/// Counts over all stacks.
#[derive(Debug, Default)]
pub struct Figures {
    /// Stacks compared.
    pub stacks: u64,
    /// Those with all frames, each of them right.
    pub whole: u64,
    /// Frames that we show.
    pub frames: u64,
    /// Those with the right file, and the right name or place.
    pub right: u64,
    /// Those with a name that is not theirs, or that do not exist.
    pub wrong: u64,
    /// Those without a name.
    pub nameless: u64,
    /// Frames that we do not show.
    pub missing: u64,
    /// Right frames below the innermost function, whose line the log cannot know.
    pub placed: u64,
    /// Those of them with the right line.
    pub right_line: u64,
    /// Those of them with the right line and column.
    pub right_column: u64,
    /// The first differences, in words.
    pub examples: Vec<String>,
}

impl Figures {
    /// Right frames of the shown ones, percent.
    #[must_use]
    pub fn right_percent(&self) -> f64 {
        percent(self.right, self.frames)
    }

    /// Whole stacks, percent.
    #[must_use]
    pub fn whole_percent(&self) -> f64 {
        percent(self.whole, self.stacks)
    }

    /// Right lines, percent.
    #[must_use]
    pub fn line_percent(&self) -> f64 {
        percent(self.right_line, self.placed)
    }

    fn tell(&mut self, example: String) {
        if self.examples.len() < MOST_EXAMPLES {
            self.examples.push(example);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of one test run")]
fn percent(part: u64, all: u64) -> f64 {
    part as f64 * 100.0 / all.max(1) as f64
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} stacks, {:.2} % whole; {} frames, {:.3} % right, {} wrong, {} nameless, \
             {} missing; line right {:.2} %, column too {:.2} %",
            self.stacks,
            self.whole_percent(),
            self.frames,
            self.right_percent(),
            self.wrong,
            self.nameless,
            self.missing,
            self.line_percent(),
            percent(self.right_column, self.placed),
        )
    }
}

/// Compares the k-th event with the k-th log, from the frame of the function `probe` on.
#[must_use]
pub fn compare(log: &[Vec<Site>], events: &[Event]) -> Figures {
    let mut figures = Figures::default();
    for (sites, event) in log.iter().zip(events) {
        figures.stacks += 1;
        let seen: Vec<&Frame> = event.frames.iter().filter(|frame| frame.kind == "js").collect();
        let Some(probe) = seen.iter().position(|frame| name_of(frame) == "probe") else {
            figures.missing += sites.len() as u64;
            figures.tell(format!("no frame of `probe`: {:?}", event.frames));
            continue;
        };
        compare_one(sites, &seen[probe..], &mut figures);
    }
    figures
}

fn compare_one(sites: &[Site], seen: &[&Frame], figures: &mut Figures) {
    let pairs = align(seen, sites);
    let mut is_whole = seen.len() == sites.len() && pairs.len() == seen.len();
    figures.frames += seen.len() as u64;
    figures.missing += (sites.len() - pairs.len()) as u64;
    for at in (0..seen.len()).filter(|at| !pairs.iter().any(|pair| pair.0 == *at)) {
        let count =
            if seen[at].function.is_some() { &mut figures.wrong } else { &mut figures.nameless };
        *count += 1;
    }
    for (at, site) in pairs {
        let (frame, site) = (seen[at], &sites[site]);
        if frame.function.is_none() {
            figures.nameless += 1;
            is_whole = false;
            continue;
        }
        if !is_right(frame, site, at > 0) {
            figures.wrong += 1;
            is_whole = false;
            figures.tell(format!("we say {frame:?}\n    of {site:?}"));
            continue;
        }
        figures.right += 1;
        if at > 0 {
            let is_line = frame.line == Some(site.line);
            figures.placed += 1;
            figures.right_line += u64::from(is_line);
            figures.right_column += u64::from(is_at(frame, site));
        }
    }
    figures.whole += u64::from(is_whole);
    if !is_whole {
        let shown: Vec<_> = seen.iter().map(|frame| name_of(frame)).collect();
        let said: Vec<_> = sites.iter().map(|site| site.function.as_str()).collect();
        figures.tell(format!("{} frames: {shown:?}\n    of {}: {said:?}", shown.len(), said.len()));
    }
}

fn name_of(frame: &Frame) -> &str {
    frame.function.as_deref().filter(|name| *name != "(anonymous)").unwrap_or("")
}

fn is_at(frame: &Frame, site: &Site) -> bool {
    (frame.line, frame.column) == (Some(site.line), Some(site.column))
}

fn is_right(frame: &Frame, site: &Site, is_placed: bool) -> bool {
    is_file(frame, site) && (is_name(name_of(frame), site) || (is_placed && is_at(frame, site)))
}

// V8 gives the code of an eval no file name; ours is where it says that it comes from.
fn is_file(frame: &Frame, site: &Site) -> bool {
    (site.is_eval && site.file.is_empty()) || frame.file.as_deref() == Some(&site.file)
}

// A call site says `Object.foo` or `get foo` of what the function itself calls `foo`, and `eval` of
// a nameless function in an eval.
fn is_name(own: &str, site: &Site) -> bool {
    let said = &site.function;
    let ends_with_word = |long: &str, short: &str| {
        let before = long.strip_suffix(short).filter(|_| !short.is_empty());
        before.is_some_and(|before| before.ends_with([' ', '.']))
    };
    own == said
        || ends_with_word(said, own)
        || ends_with_word(own, said)
        || (!site.method.is_empty() && own.ends_with(&site.method))
        || (own.is_empty() && said == "eval" && site.is_eval)
}

// Pairs of positions. Where the lengths differ: as many pairs that agree as possible, so that one
// frame too many does not make the others look wrong.
fn align(seen: &[&Frame], sites: &[Site]) -> Vec<(usize, usize)> {
    if seen.len() == sites.len() {
        return (0..seen.len()).map(|at| (at, at)).collect();
    }
    let agree = |a: usize, b: usize| is_right(seen[a], &sites[b], true);
    let mut best = vec![vec![0_u32; sites.len() + 1]; seen.len() + 1];
    for a in (0..seen.len()).rev() {
        for b in (0..sites.len()).rev() {
            best[a][b] = if agree(a, b) {
                best[a + 1][b + 1] + 1
            } else {
                best[a + 1][b].max(best[a][b + 1])
            };
        }
    }
    let (mut a, mut b, mut pairs) = (0, 0, Vec::new());
    while a < seen.len() && b < sites.len() {
        if agree(a, b) {
            pairs.push((a, b));
            (a, b) = (a + 1, b + 1);
        } else if best[a + 1][b] >= best[a][b + 1] {
            a += 1;
        } else {
            b += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"[["probe","/a.js",1,2,0,0,"",0],["map","",0,0,1,0,"",0],["Object.f","/a.js",5,6,0,0,"f",0],["","/a.js",7,8,0,0,"",0]]"#;

    fn frame(function: &str, line: u64, column: u64) -> Frame {
        Frame {
            kind: "js".to_owned(),
            function: (function != "?").then(|| function.to_owned()),
            file: Some("/a.js".to_owned()),
            line: Some(line),
            column: Some(column),
            ..Frame::default()
        }
    }

    fn figures(frames: Vec<Frame>) -> Figures {
        let event: Event = serde_json::from_value(serde_json::json!(
            {"event": "probe", "time_ns": 1, "pid": 1, "tid": 1, "args": {}}
        ))
        .unwrap();
        compare(&read_log(LOG).unwrap(), &[Event { frames, ..event }])
    }

    fn good() -> Vec<Frame> {
        vec![
            frame("uptime", 1, 1),
            frame("probe", 9, 9),
            frame("f", 5, 6),
            frame("(anonymous)", 7, 8),
        ]
    }

    #[test]
    fn the_same_stack_is_whole() {
        let all = figures(good());
        assert_eq!((all.whole, all.frames, all.right, all.missing), (1, 3, 3, 0));
        assert_eq!((all.placed, all.right_line, all.right_column), (2, 2, 2));
    }

    #[test]
    fn each_kind_of_difference_is_counted() {
        let changed = |at: usize, other: Frame| {
            let mut frames = good();
            frames[at] = other;
            figures(frames)
        };
        let wrong = changed(2, frame("g", 4, 1));
        assert_eq!((wrong.whole, wrong.wrong, wrong.right), (0, 1, 2));
        let line = changed(2, frame("f", 4, 1));
        assert_eq!((line.whole, line.wrong, line.right_line), (1, 0, 1));
        let nameless = changed(2, frame("?", 5, 6));
        assert_eq!((nameless.whole, nameless.nameless, nameless.wrong), (0, 1, 0));
        let mut frames = good();
        frames.remove(2);
        let missing = figures(frames);
        assert_eq!((missing.whole, missing.missing, missing.wrong), (0, 1, 0));
        let mut frames = good();
        frames.insert(2, frame("invented", 1, 1));
        let invented = figures(frames);
        assert_eq!((invented.whole, invented.wrong, invented.right), (0, 1, 3));
        assert_eq!(figures(Vec::new()).missing, 3);
    }
}
