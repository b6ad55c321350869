//! Who asked for a file operation: the call of the program that it is a step of, the stack that
//! stands for the asker, and whether it was Node looking for modules. It must not count or show
//! anything.
//!
//! All of this is read from names in stacks, which are Node's own and the same from Node 16 to 26. What
//! has no such stack is concluded, and says so: [`Asked::asker`] and [`Folded`].

mod call;
mod modules;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use crate::join::operations::Operation;
use crate::profile::{FrameId, Profile, Reason, ResolvedFrame, ResolvedStackId};
use crate::symbolise::Symboliser;

pub use self::modules::{Folded, Missing, Modules, is_module_folder};

/// What operations are folded as, for programs.
pub const MODULE_RESOLUTION: &str = "module-resolution";

/// Who asked for one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Asked {
    /// The operation's own stack.
    pub own: ResolvedStackId,
    /// Where the own stack holds nothing but Node: that of the program's call on the open file which this
    /// is a step of, else the stack that opened it.
    pub asker: Option<ResolvedStackId>,
    /// The call, for [`Askers::name`].
    pub call: Option<u32>,
    /// Whether it is a part of module resolution, and how that is known.
    pub folded: Option<Folded>,
}

impl Asked {
    /// The stack that tells who asked.
    #[must_use]
    pub fn stack(&self) -> ResolvedStackId {
        self.asker.unwrap_or(self.own)
    }

    /// How the asker was found where it was not by the own stack, for programs.
    #[must_use]
    pub fn asked_by(&self) -> Option<&'static str> {
        self.asker.map(|_| "descriptor")
    }
}

/// The line of JavaScript that asked: the innermost frame of the application, else the innermost that
/// has a name.
#[must_use]
pub fn line(profile: &Profile, stack: ResolvedStackId) -> Option<FrameId> {
    let first = |fits: fn(&ResolvedFrame) -> bool| {
        profile.ids_leaf_first(stack).find(|&id| profile.get(id).is_some_and(fits))
    };
    first(ResolvedFrame::is_application).or_else(|| first(ResolvedFrame::is_named_js))
}

/// The call of the program that a stack is in, if Node's own functions at its leaf tell.
#[must_use]
pub fn call(profile: &Profile, stack: ResolvedStackId) -> Option<String> {
    call::Way::of(profile, stack).call(false)
}

/// Who asked for the operations of a capture.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Askers {
    rows: Vec<Asked>,
    calls: Vec<String>,
    /// What was folded.
    pub modules: Modules,
}

impl Askers {
    /// Finds them for operations in the order of their beginning.
    #[must_use]
    pub fn of(operations: &[Operation<'_>], symboliser: &mut Symboliser<'_>) -> Self {
        let mut finding = Finding::default();
        let mut rows: Vec<Asked> = Vec::with_capacity(operations.len());
        // Who worked on an open file himself, by its opener and the call: the call's later steps are his.
        let mut users: HashMap<(usize, Option<u32>), Asked> = HashMap::new();
        // Of a probe that is hit too often, only some hits have a stack.
        let mut taken: Vec<bool> = Vec::with_capacity(operations.len());
        for operation in operations {
            let own = symboliser.resolve(operation.stack, operation.start_ns);
            let by_handle = operation.descriptor.is_some() || operation.directory.is_some();
            let about = finding.about(symboliser.profile(), own, by_handle);
            let mut asked = Asked {
                own,
                asker: None,
                call: about.call,
                folded: about.is_module.then_some(Folded::ByStack),
            };
            if let Some(place) = operation.opened_by.filter(|_| about.is_taken) {
                let used = (place, about.call);
                if about.has_application {
                    users.insert(used, asked);
                } else if let Some(user) = users.get(&used).or_else(|| rows.get(place)).copied() {
                    let stack = user.stack();
                    if finding.about(symboliser.profile(), stack, false).has_application {
                        asked.asker = Some(stack);
                        asked.call = user.call.or(asked.call);
                    }
                    asked.folded = asked.folded.or(user.folded.map(|_| Folded::ByHandle));
                }
            }
            rows.push(asked);
            taken.push(about.is_taken);
        }
        modules::conclude(operations, &taken, &mut rows);
        let modules = Modules::of(operations, &rows, &taken, symboliser.profile());
        Self { rows, calls: finding.calls, modules }
    }

    /// Who asked for the operation at a place.
    #[must_use]
    pub fn get(&self, place: usize) -> Asked {
        self.rows.get(place).copied().unwrap_or_default()
    }

    /// The call as the program's text has it: `fs.readFileSync`, `require`; `None` where it is not
    /// known.
    #[must_use]
    pub fn name(&self, call: Option<u32>) -> Option<&str> {
        self.calls.get(call? as usize).map(String::as_str)
    }
}

/// What one stack tells.
#[derive(Debug, Clone, Copy)]
struct About {
    call: Option<u32>,
    is_module: bool,
    has_application: bool,
    is_taken: bool,
}

/// What the stacks that were met tell; each is read once.
#[derive(Debug, Default)]
struct Finding {
    /// By stack, and whether the operation was on an open file.
    known: HashMap<(ResolvedStackId, bool), About>,
    calls: Vec<String>,
    indexes: HashMap<String, u32>,
}

impl Finding {
    fn about(&mut self, profile: &Profile, stack: ResolvedStackId, by_handle: bool) -> About {
        if let Some(&about) = self.known.get(&(stack, by_handle)) {
            return about;
        }
        let way = call::Way::of(profile, stack);
        let call = way.call(by_handle).map(|name| {
            let next = self.calls.len() as u32;
            let index = *self.indexes.entry(name.clone()).or_insert(next);
            if index == next {
                self.calls.push(name);
            }
            index
        });
        let leaf = profile.leaf_first(stack).next();
        let about = About {
            call,
            is_module: way.is_module(),
            has_application: profile.leaf_first(stack).any(ResolvedFrame::is_application),
            is_taken: leaf.is_none_or(|frame| frame.unresolved != Some(Reason::NotTaken)),
        };
        self.known.insert((stack, by_handle), about);
        about
    }
}
