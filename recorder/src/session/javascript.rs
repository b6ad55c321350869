//! Where the names of a recording's JavaScript frames shall come from, concluded from what the user
//! said and what the targets are.

use crate::plan::{JsChoice, JsSource};
use crate::process::procfs::Facts;
use crate::process::v8_flags::V8Flags;

/// Chooses. `targets` are the processes that run already; there are none when a command is started.
///
/// With both flags V8 itself writes every name at once, and the map outlives the process. Of a
/// command nothing is known before it runs, so it is recorded in the way that always works.
#[must_use]
pub fn choose(choice: JsChoice, targets: &[Facts]) -> JsSource {
    match choice {
        JsChoice::Heap => JsSource::Heap,
        JsChoice::Map => JsSource::Map,
        JsChoice::Off => JsSource::Off,
        JsChoice::Auto => {
            let complete = |facts: &Facts| {
                let flags = V8Flags::parse(&facts.cmdline, &facts.node_options);
                flags.perf_map && flags.interpreted_frames && !flags.only_functions
            };
            let all = !targets.is_empty() && targets.iter().all(complete);
            if all { JsSource::Map } else { JsSource::Heap }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_is_taken_where_every_target_writes_a_complete_one() {
        let facts = |cmdline: &[u8]| Facts { cmdline: cmdline.to_vec(), ..Facts::default() };
        let both = facts(b"node\0--perf-basic-prof\0--interpreted-frames-native-stack\0a.js");
        let half = facts(b"node\0--perf-basic-prof\0a.js");
        let plain = facts(b"node\0a.js");
        let auto = |targets: &[Facts]| choose(JsChoice::Auto, targets);
        assert_eq!(auto(&[]), JsSource::Heap);
        assert_eq!(auto(&[both.clone(), plain.clone()]), JsSource::Heap);
        assert_eq!(auto(&[plain]), JsSource::Heap);
        assert_eq!(auto(&[half]), JsSource::Heap);
        assert_eq!(auto(std::slice::from_ref(&both)), JsSource::Map);
        assert_eq!(choose(JsChoice::Heap, &[both]), JsSource::Heap);
        assert_eq!(choose(JsChoice::Off, &[]), JsSource::Off);
    }
}
