//! What keeps a recording alive: its targets, or a command.

use super::summary::StopReason;
use crate::sys::pidfd::PidFd;
use crate::sys::spawn::{Child, ChildExit};

/// What keeps a recording alive.
#[derive(Debug)]
pub enum Life {
    /// The processes that run.
    Attached(Vec<PidFd>),
    /// A command, and the processes that are recorded while it runs.
    During {
        /// The command.
        child: Child,
        /// The targets.
        targets: Vec<PidFd>,
    },
    /// The command is the target.
    Launched(Child),
}

impl Life {
    /// The processes whose end ends the recording.
    pub(super) fn targets(&self) -> &[PidFd] {
        match self {
            Self::Attached(targets) | Self::During { targets, .. } => targets,
            Self::Launched(_child) => &[],
        }
    }

    /// Whether the command has ended, and what its end means.
    pub(super) fn look_at_command(&mut self) -> (Option<ChildExit>, StopReason) {
        let look = |child: &mut Child| child.try_wait().ok().flatten();
        match self {
            Self::Attached(_targets) => (None, StopReason::TargetEnded),
            Self::During { child, .. } => (look(child), StopReason::CommandEnded),
            Self::Launched(child) => (look(child), StopReason::TargetEnded),
        }
    }

    /// Whether no target runs any more; each that has ended is handed over once.
    pub(super) fn all_targets_ended(&mut self, mut ended: impl FnMut(&PidFd)) -> bool {
        let (Self::Attached(targets) | Self::During { targets, .. }) = self else { return false };
        targets.retain(|target| {
            let has_ended = target.has_ended();
            if has_ended {
                ended(target);
            }
            !has_ended
        });
        targets.is_empty()
    }

    /// Asks a command that still runs when the recording is over to end, as perf does.
    pub(super) fn end_command(&mut self) -> Option<ChildExit> {
        let (Self::During { child, .. } | Self::Launched(child)) = self else { return None };
        let pid = nix::unistd::Pid::from_raw(child.pid());
        let _ended_already = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        child.try_wait().ok().flatten()
    }
}
