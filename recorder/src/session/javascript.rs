//! Where the names of a recording's JavaScript frames shall come from, concluded from what the user
//! said and what the targets are.

use crate::plan::{JsChoice, JsSource};
use crate::process::procfs::Facts;
use crate::process::v8_flags::V8Flags;

/// Chooses. `targets` are the processes that run already, each with whether its perf map can be read;
/// there are none when a command is started.
///
/// With both flags V8 itself writes every name at once, and the map outlives the process. Of a
/// command nothing is known before it runs, so it is recorded in the way that always works.
#[must_use]
pub fn choose(choice: JsChoice, targets: &[(Facts, bool)]) -> JsSource {
    match choice {
        JsChoice::Heap => JsSource::Heap,
        JsChoice::Map => JsSource::Map,
        JsChoice::Off => JsSource::Off,
        JsChoice::Auto => {
            let complete = |(facts, has_map): &(Facts, bool)| {
                let flags = V8Flags::parse(&facts.cmdline, &facts.node_options);
                flags.perf_map && flags.interpreted_frames && !flags.only_functions && *has_map
            };
            let all = !targets.is_empty() && targets.iter().all(complete);
            if all { JsSource::Map } else { JsSource::Heap }
        }
    }
}

/// Says that the map which the user asked for exists in none of the `targets`. Of a command nothing is
/// known before it runs.
#[must_use]
pub fn no_map(choice: JsChoice, targets: &[(Facts, bool)]) -> Option<&'static str> {
    let none = !targets.is_empty() && targets.iter().all(|(_facts, has_map)| !has_map);
    (choice == JsChoice::Map && none).then_some(
        "--js=map: no target has a perf map that can be read, JavaScript frames will have no names; \
         --js=heap needs no map",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_is_taken_where_every_target_writes_a_complete_one() {
        let target = |cmdline: &[u8], has_map| {
            (Facts { cmdline: cmdline.to_vec(), ..Facts::default() }, has_map)
        };
        let flags = b"node\0--perf-basic-prof\0--interpreted-frames-native-stack\0a.js";
        let both = target(flags, true);
        let removed = target(flags, false);
        let half = target(b"node\0--perf-basic-prof\0a.js", true);
        let plain = target(b"node\0a.js", false);
        for (targets, source) in [
            (vec![], JsSource::Heap),
            (vec![plain.clone()], JsSource::Heap),
            (vec![half], JsSource::Heap),
            (vec![removed], JsSource::Heap),
            (vec![both.clone(), plain], JsSource::Heap),
            (vec![both.clone()], JsSource::Map),
        ] {
            assert_eq!(choose(JsChoice::Auto, &targets), source, "{targets:?}");
        }
        assert_eq!(choose(JsChoice::Heap, &[both]), JsSource::Heap);
        assert_eq!(choose(JsChoice::Off, &[]), JsSource::Off);
    }

    #[test]
    fn a_map_that_nobody_has_is_told_to_whom_asked_for_it() {
        let (with, without) = ((Facts::default(), true), (Facts::default(), false));
        assert!(no_map(JsChoice::Map, std::slice::from_ref(&without)).is_some());
        assert_eq!(no_map(JsChoice::Map, &[without.clone(), with]), None);
        assert_eq!(no_map(JsChoice::Map, &[]), None);
        assert_eq!(no_map(JsChoice::Auto, &[without]), None);
    }
}
