//! Removing the events that a killed recorder left behind.
//!
//! Judges by the group's name alone (see [`super::owner`]) and touches no group that is not
//! named like ours, belongs to a running recorder, or comes from another pid namespace.

use super::events::remove_event;
use super::{Owner, Tracefs, TracefsError};
use std::collections::BTreeSet;
use std::time::Duration;

/// What a sweep found. Events are named GROUP/NAME.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Removed: their recorder is dead.
    pub removed: Vec<String>,
    /// Left by a dead recorder, but someone else holds them open.
    pub in_use: Vec<String>,
    /// Left by a dead recorder, not removable: with the reason.
    pub failed: Vec<(String, TracefsError)>,
    /// Events of recorders that run (this one too).
    pub alive: usize,
    /// Events of other tools or of recorders in other pid namespaces: not touched.
    pub foreign: usize,
}

/// Removes all events of dead recorders.
///
/// # Errors
/// Only when the events cannot be listed; what cannot be removed is in the report.
pub fn sweep_stale(tracefs: &Tracefs) -> Result<SweepReport, TracefsError> {
    let mut report = SweepReport::default();
    for event in event_names(&tracefs.list_dynamic_events()?) {
        let owner = event.split_once('/').and_then(|(group, _)| Owner::parse(group));
        match owner.and_then(|owner| owner.is_alive()) {
            None => report.foreign += 1,
            Some(true) => report.alive += 1,
            // No patience: whoever holds a dead recorder's event will not let go soon.
            Some(false) => match remove_event(tracefs, &event, Duration::ZERO) {
                Ok(()) => report.removed.push(event),
                Err(TracefsError::InUse { .. }) => report.in_use.push(event),
                Err(error) => report.failed.push((event, error)),
            },
        }
    }
    Ok(report)
}

/// The distinct GROUP/NAME of a `dynamic_events` listing; an event has one line per site.
fn event_names(listing: &str) -> BTreeSet<String> {
    listing
        .lines()
        .filter_map(|line| {
            let (_kind, rest) = line.split_once(':')?;
            rest.split(' ').next().map(str::to_owned)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_events_of_dead_recorders_are_removed() {
        let us = Owner::ourselves().unwrap();
        let dead = Owner { start_ticks: us.start_ticks + 1, ..us }.group();
        let elsewhere = Owner { namespace: Some(1), ..us }.group();
        let ours = us.group();
        let listing = format!(
            "p:{dead}/a /bin/x:0x1\np:{dead}/a /bin/x:0x2\nr:{dead}/b /bin/x:0x1\n\
             p:{ours}/a /bin/x:0x1\np:{elsewhere}/a /bin/x:0x1\np:probe_x/a /bin/x:0x1\n\
             p:uprobes/nrec_1_2 /bin/x:0x1\n"
        );
        let root = std::env::temp_dir().join(format!("nrec-sweep-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        std::fs::write(root.join("dynamic_events"), &listing).unwrap();
        let report = sweep_stale(&Tracefs::at(&root)).unwrap();
        let control = std::fs::read_to_string(root.join("dynamic_events")).unwrap();
        std::fs::remove_dir_all(&root).unwrap();
        let removed = vec![format!("{dead}/a"), format!("{dead}/b")];
        assert_eq!(report, SweepReport { removed, alive: 1, foreign: 3, ..Default::default() });
        assert_eq!(control, format!("{listing}-:{dead}/a\n-:{dead}/b\n"));
    }
}
