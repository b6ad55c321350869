//! Which functions the CPU time went to.

use std::cmp::{Ordering, Reverse};
use std::collections::{HashMap, HashSet};

use super::StackCounts;
use crate::profile::{FrameId, Profile, ResolvedFrame};

/// One function's share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionShare {
    /// The function.
    pub frame: FrameId,
    /// Samples in the function itself.
    pub self_samples: u64,
    /// Samples in the function or in what it called; a recursive function counts once a sample.
    pub total_samples: u64,
}

/// A line of a function, and the samples that were taken in it or in what it called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineShare {
    /// Line, counted from 1.
    pub line: u32,
    /// Samples.
    pub samples: u64,
}

/// A function with all that it called itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InnermostShare {
    /// The function; its own samples are those that it answers for.
    pub share: FunctionShare,
    /// Its lines, the most samples first; only of samples whose place in it is known.
    pub lines: Vec<LineShare>,
}

/// Which function each frame of a profile belongs to: its call sites are one, and a frame that was
/// concluded counts for the same function as one that was seen, if there is one.
#[derive(Debug, Clone)]
pub struct Functions(Vec<FrameId>);

impl Functions {
    /// Finds the functions of a profile, and adds to it a frame for each that has none yet.
    pub fn of(profile: &mut Profile) -> Self {
        let frames = profile.frames().to_vec();
        let seen: HashSet<ResolvedFrame> = frames
            .iter()
            .filter(|frame| !frame.inferred)
            .map(ResolvedFrame::function_frame)
            .collect();
        let functions = frames.iter().map(|frame| {
            let function = frame.function_frame();
            let inferred = frame.inferred && !seen.contains(&function);
            profile.frame(ResolvedFrame { inferred, ..function })
        });
        Self(functions.collect())
    }

    fn get(&self, frame: FrameId) -> Option<FrameId> {
        self.0.get(frame.0 as usize).copied()
    }
}

/// All functions of a set of samples: the most samples of their own first, then the most in total.
#[must_use]
pub fn functions(
    profile: &Profile,
    functions: &Functions,
    counts: &StackCounts,
) -> Vec<FunctionShare> {
    let mut shares: Vec<FunctionShare> = (0..profile.frames().len())
        .map(|at| FunctionShare { frame: FrameId(at as u32), self_samples: 0, total_samples: 0 })
        .collect();
    // The row that counted a function last: it says without a set whether a stack had it before.
    let mut seen: Vec<usize> = vec![0; shares.len()];
    for (row, (stack, count)) in counts.iter().enumerate() {
        for (depth, frame) in profile.ids_leaf_first(stack).enumerate() {
            let at = functions.get(frame).map_or(0, |frame| frame.0 as usize);
            let (Some(share), Some(seen)) = (shares.get_mut(at), seen.get_mut(at)) else {
                continue;
            };
            if depth == 0 {
                share.self_samples += count;
            }
            if *seen != row + 1 {
                *seen = row + 1;
                share.total_samples += count;
            }
        }
    }
    shares.retain(|share| share.total_samples > 0);
    shares.sort_by(|a, b| order(profile, a, b));
    shares
}

/// The functions that `wanted` picks, each with the samples of all it called itself: a sample
/// counts for the innermost of them. So a function answers for the builtins, the library and the
/// kernel that worked for it, and not for the functions of its own kind.
#[must_use]
pub fn by_innermost(
    profile: &Profile,
    functions: &Functions,
    counts: &StackCounts,
    shares: &[FunctionShare],
    wanted: impl Fn(&ResolvedFrame) -> bool,
) -> Vec<InnermostShare> {
    let mut charged: HashMap<FrameId, (u64, HashMap<u32, u64>)> = HashMap::new();
    for (stack, count) in counts.iter() {
        let mut frames = profile.ids_leaf_first(stack);
        let Some((id, frame)) =
            frames.find_map(|id| Some((id, profile.get(id).filter(|frame| wanted(frame))?)))
        else {
            continue;
        };
        let Some(function) = functions.get(id) else { continue };
        let (samples, lines) = charged.entry(function).or_default();
        *samples += count;
        if let Some(line) = frame.line.filter(|_line| frame.executing) {
            *lines.entry(line).or_default() += count;
        }
    }
    let mut innermost: Vec<InnermostShare> = shares
        .iter()
        .filter_map(|share| {
            let (self_samples, lines) = charged.remove(&share.frame)?;
            let mut lines: Vec<LineShare> =
                lines.into_iter().map(|(line, samples)| LineShare { line, samples }).collect();
            lines.sort_by_key(|share| (Reverse(share.samples), share.line));
            Some(InnermostShare { share: FunctionShare { self_samples, ..*share }, lines })
        })
        .collect();
    innermost.sort_by(|a, b| order(profile, &a.share, &b.share));
    innermost
}

/// The most samples of their own first, then the most in total, then by name.
fn order(profile: &Profile, a: &FunctionShare, b: &FunctionShare) -> Ordering {
    let key = |s: &FunctionShare| (s.self_samples, s.total_samples);
    key(b).cmp(&key(a)).then_with(|| name(profile, a.frame).cmp(&name(profile, b.frame)))
}

fn name(profile: &Profile, frame: FrameId) -> Option<(&str, Option<&str>, Option<u32>)> {
    let frame = profile.get(frame)?;
    Some((frame.label(), frame.file.as_deref(), frame.line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Kind, ResolvedStackId};

    #[test]
    fn recursion_counts_once() {
        let mut profile = Profile::default();
        let frame = |profile: &mut Profile, name: &str, inferred| {
            let frame = ResolvedFrame::named(Kind::Js, name.into());
            profile.frame(ResolvedFrame { inferred, ..frame })
        };
        let main = frame(&mut profile, "main", false);
        let again = frame(&mut profile, "again", false);
        let concluded = frame(&mut profile, "again", true);
        let leaf = frame(&mut profile, "leaf", false);
        let mut stack = |frames: &[FrameId]| {
            frames.iter().fold(ResolvedStackId::default(), |at, &f| profile.push(at, f))
        };
        let mut counts = StackCounts::default();
        counts.add(stack(&[main, again, again, concluded, leaf]), 5);
        counts.add(stack(&[main, again, concluded]), 3);
        counts.add(stack(&[main]), 1);
        counts.add(ResolvedStackId(0), 1);
        let by_function = Functions::of(&mut profile);
        let got: Vec<_> = functions(&profile, &by_function, &counts)
            .into_iter()
            .map(|s| (profile.get(s.frame).unwrap().label(), s.self_samples, s.total_samples))
            .collect();
        assert_eq!(got, [("leaf", 5, 5), ("again", 3, 8), ("main", 1, 9)]);
        assert_eq!(counts.total(), 10);
    }

    #[test]
    fn call_sites_of_a_function_are_one_function_with_its_lines() {
        let mut profile = Profile::default();
        let at = |profile: &mut Profile, name: &str, line, inlined| {
            let frame = ResolvedFrame {
                file: Some("/a.js".into()),
                line: Some(line),
                defined_line: Some(1),
                executing: line != 1,
                inlined,
                ..ResolvedFrame::named(Kind::Js, name.into())
            };
            profile.frame(frame)
        };
        let hot = [(7, false), (9, false), (7, true), (1, false)]
            .map(|(line, inlined)| at(&mut profile, "hot", line, inlined));
        let other = at(&mut profile, "other", 20, false);
        let native = profile.frame(ResolvedFrame::named(Kind::Native, "memcpy".into()));
        let mut counts = StackCounts::default();
        for (frame, leaf, count) in [
            (hot[0], None, 3),
            (hot[1], Some(native), 4),
            (hot[2], None, 2),
            (hot[3], None, 1),
            (other, Some(native), 5),
        ] {
            let stack = profile.push(ResolvedStackId::default(), frame);
            let stack = leaf.map_or(stack, |leaf| profile.push(stack, leaf));
            counts.add(stack, count);
        }
        let by_function = Functions::of(&mut profile);
        let shares = functions(&profile, &by_function, &counts);
        let own: Vec<_> = shares
            .iter()
            .map(|s| (profile.get(s.frame).unwrap(), s.self_samples, s.total_samples))
            .map(|(frame, own, total)| (frame.label(), frame.line, own, total))
            .collect();
        let want = [("memcpy", None, 9, 9), ("hot", Some(1), 6, 10), ("other", Some(1), 0, 5)];
        assert_eq!(own, want);
        let is_js = |frame: &ResolvedFrame| frame.kind == Kind::Js;
        let inner = by_innermost(&profile, &by_function, &counts, &shares, is_js);
        let got: Vec<_> = inner
            .iter()
            .map(|inner| {
                let lines: Vec<_> = inner.lines.iter().map(|l| (l.line, l.samples)).collect();
                (inner.share.self_samples, lines)
            })
            .collect();
        assert_eq!(got, [(10, vec![(7, 5), (9, 4)]), (5, vec![(20, 5)])]);
    }
}
