//! Weights as a tree of labels, and the same with narrow subtrees merged, as folded lines.

use std::collections::{BTreeSet, HashMap};

use crate::profile::{Kind, Profile, ResolvedStackId};

use super::labels::Labels;

/// Weights are scaled down so that their sum stays exact in inferno's floating-point numbers.
const MAX_TOTAL_BITS: u32 = 53;

/// Stands for outermost frames that are too narrow even together.
const NARROW: &str = "(narrow)";

#[derive(Debug, Default)]
struct Node {
    label: u32,
    /// Weight of the frame and all it calls.
    total: u64,
    /// Weight of stacks that end here.
    own: u64,
    children: Vec<usize>,
    /// Nodes below and with this one.
    size: usize,
}

/// The tree; node 0 stands for everything.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    used: BTreeSet<Kind>,
}

/// Folded lines, grouped by prefix.
#[derive(Debug, Default)]
pub(super) struct Pruned {
    pub(super) lines: Vec<String>,
    /// Names in the lines that are no labels.
    pub(super) marks: BTreeSet<String>,
    /// Frames in the lines, marks of merged ones included.
    pub(super) drawn: usize,
    /// Frames that are not in the lines any more.
    pub(super) merged: usize,
}

impl Tree {
    /// Linear in the nodes of the profile and the rows, however deep the stacks are.
    pub(super) fn new(profile: &Profile, rows: &[(ResolvedStackId, u64)], labels: &Labels) -> Self {
        let sum: u128 = rows.iter().map(|(_, weight)| u128::from(*weight)).sum();
        let shift = (128 - sum.leading_zeros()).saturating_sub(MAX_TOTAL_BITS);
        let mut own = vec![0u64; profile.stack_count()];
        for (stack, weight) in rows {
            if let Some(sum) = own.get_mut(stack.0 as usize) {
                *sum += weight >> shift;
            }
        }
        // A parent is always older than its child: from the young to the old the totals are complete.
        let mut totals = own.clone();
        let parent_of = |id: usize| profile.node(ResolvedStackId(id as u32));
        for id in (1..totals.len()).rev() {
            let total = totals.get(id).copied().unwrap_or_default();
            if let Some((parent, _)) = parent_of(id)
                && let Some(sum) = totals.get_mut(parent.0 as usize).filter(|_| parent.0 != 0)
            {
                *sum += total;
            }
        }
        let mut tree = Self { nodes: vec![Node::default()], used: BTreeSet::new() };
        let mut place = vec![0usize; totals.len()];
        let mut known: HashMap<(usize, u32), usize> = HashMap::new();
        for id in 1..totals.len() {
            let (Some(&total), Some(&own)) = (totals.get(id), own.get(id)) else { continue };
            let Some((parent, frame)) = parent_of(id).filter(|_| total > 0) else { continue };
            let Some(label) = labels.of(frame) else { continue };
            tree.used.extend(profile.get(frame).map(|frame| frame.kind));
            let above = place.get(parent.0 as usize).copied().unwrap_or_default();
            let next = tree.nodes.len();
            let node = *known.entry((above, label)).or_insert(next);
            if node == next {
                tree.nodes.push(Node { label, ..Node::default() });
                if let Some(above) = tree.nodes.get_mut(above) {
                    above.children.push(node);
                }
            }
            if let Some(at) = tree.nodes.get_mut(node) {
                at.total += total;
                at.own += own;
            }
            if parent.0 == 0
                && let Some(root) = tree.nodes.get_mut(0)
            {
                root.total += total;
            }
            if let Some(slot) = place.get_mut(id) {
                *slot = node;
            }
        }
        tree.order(labels);
        tree
    }

    /// Sorts siblings by label and counts subtrees; children are younger than their parents.
    fn order(&mut self, labels: &Labels) {
        for at in (0..self.nodes.len()).rev() {
            let Some(node) = self.nodes.get_mut(at) else { continue };
            let mut children = std::mem::take(&mut node.children);
            let size = |id: &usize| self.nodes.get(*id).map_or(0, |node| node.size);
            let below: usize = children.iter().map(size).sum();
            let label = |id: usize| labels.text(self.nodes.get(id).map_or(0, |node| node.label));
            children.sort_by(|a, b| label(*a).cmp(label(*b)));
            if let Some(node) = self.nodes.get_mut(at) {
                node.children = children;
                node.size = below + 1;
            }
        }
    }

    /// Weight of everything.
    pub(super) fn total(&self) -> u64 {
        self.nodes.first().map_or(0, |root| root.total)
    }

    /// Kinds of code that occur.
    pub(super) fn kinds(&self) -> Vec<Kind> {
        self.used.iter().copied().collect()
    }

    /// The tree without subtrees that are narrower than `share` of the whole. What is cut from below one
    /// frame becomes one frame that says how many there were, if that is wide enough itself; else
    /// the place above the frame stays empty.
    pub(super) fn pruned(&self, share: f64, labels: &Labels) -> Pruned {
        let least = (share * self.total() as f64).ceil() as u64;
        let mut pruned = Pruned::default();
        // A stack of its own: recursion would be as deep as the stacks are.
        let mut pending = vec![(0usize, 0usize)];
        let mut path = String::new();
        while let Some((id, length)) = pending.pop() {
            let Some(node) = self.nodes.get(id) else { continue };
            path.truncate(length);
            if id != 0 {
                if length > 0 {
                    path.push(';');
                }
                path.push_str(labels.text(node.label));
                pruned.drawn += 1;
            }
            let (mut merged, mut merged_weight) = (0, 0);
            let mut kept = Vec::new();
            for &child in &node.children {
                match self.nodes.get(child) {
                    Some(below) if below.total >= least => kept.push((child, path.len())),
                    Some(below) => {
                        merged += below.size;
                        merged_weight += below.total;
                    }
                    None => {}
                }
            }
            pruned.merged += merged;
            let mut own = node.own;
            if merged_weight >= least && merged > 0 {
                let frames = if merged == 1 { "frame" } else { "frames" };
                let separator = if path.is_empty() { "" } else { ";" };
                let mark = format!("({merged} narrow {frames} merged)");
                pruned.lines.push(format!("{path}{separator}{mark} {merged_weight}"));
                pruned.marks.insert(mark);
                pruned.drawn += 1;
            } else {
                own += merged_weight;
            }
            if own > 0 && !path.is_empty() {
                pruned.lines.push(format!("{path} {own}"));
            } else if own > 0 {
                pruned.lines.push(format!("{NARROW} {own}"));
                pruned.marks.insert(NARROW.to_owned());
            }
            // The last one put down is the first one taken up.
            pending.extend(kept.into_iter().rev());
        }
        pruned
    }
}
