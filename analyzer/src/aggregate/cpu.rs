//! Which functions the CPU time went to.

use std::collections::HashMap;

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

/// All functions of a set of samples: the most samples of their own first, then the most in total.
#[must_use]
pub fn functions(profile: &Profile, counts: &StackCounts) -> Vec<FunctionShare> {
    let canonical = canonical(profile);
    let mut shares: Vec<FunctionShare> = (0..profile.frames().len())
        .map(|at| FunctionShare { frame: FrameId(at as u32), self_samples: 0, total_samples: 0 })
        .collect();
    // The row that counted a function last: it says without a set whether a stack had it before.
    let mut seen: Vec<usize> = vec![0; shares.len()];
    for (row, (stack, count)) in counts.iter().enumerate() {
        for (depth, frame) in profile.ids_leaf_first(stack).enumerate() {
            let at = canonical.get(frame.0 as usize).map_or(0, |frame| frame.0 as usize);
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
    shares.sort_by(|a, b| {
        let key = |s: &FunctionShare| (s.self_samples, s.total_samples);
        key(b).cmp(&key(a)).then_with(|| name(profile, a.frame).cmp(&name(profile, b.frame)))
    });
    shares
}

/// The functions that `wanted` picks, each with the samples of all it called itself: a sample
/// counts for the innermost of them. So a function answers for the builtins, the library and the
/// kernel that worked for it, and not for the functions of its own kind.
#[must_use]
pub fn by_innermost(
    profile: &Profile,
    counts: &StackCounts,
    functions: &[FunctionShare],
    wanted: impl Fn(&ResolvedFrame) -> bool,
) -> Vec<FunctionShare> {
    let canonical = canonical(profile);
    let mut charged: HashMap<FrameId, u64> = HashMap::new();
    for (stack, count) in counts.iter() {
        let innermost = profile
            .ids_leaf_first(stack)
            .find(|&frame| profile.get(frame).is_some_and(&wanted))
            .and_then(|frame| canonical.get(frame.0 as usize));
        if let Some(&frame) = innermost {
            *charged.entry(frame).or_default() += count;
        }
    }
    let mut shares: Vec<FunctionShare> = functions
        .iter()
        .filter_map(|share| {
            let self_samples = *charged.get(&share.frame)?;
            Some(FunctionShare { self_samples, ..*share })
        })
        .collect();
    shares.sort_by(|a, b| {
        let key = |s: &FunctionShare| (s.self_samples, s.total_samples);
        key(b).cmp(&key(a)).then_with(|| name(profile, a.frame).cmp(&name(profile, b.frame)))
    });
    shares
}

/// A frame that was concluded counts for the same function as one that was seen, if there is one.
fn canonical(profile: &Profile) -> Vec<FrameId> {
    let seen: HashMap<&ResolvedFrame, FrameId> = (0u32..)
        .zip(profile.frames())
        .filter(|(_at, frame)| !frame.inferred)
        .map(|(at, frame)| (frame, FrameId(at)))
        .collect();
    (0u32..)
        .zip(profile.frames())
        .map(|(at, frame)| {
            if !frame.inferred {
                return FrameId(at);
            }
            let frame = ResolvedFrame { inferred: false, ..frame.clone() };
            seen.get(&frame).copied().unwrap_or(FrameId(at))
        })
        .collect()
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
        let got: Vec<_> = functions(&profile, &counts)
            .into_iter()
            .map(|s| (profile.get(s.frame).unwrap().label(), s.self_samples, s.total_samples))
            .collect();
        assert_eq!(got, [("leaf", 5, 5), ("again", 3, 8), ("main", 1, 9)]);
        assert_eq!(counts.total(), 10);
    }
}
