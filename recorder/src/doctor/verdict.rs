//! Which JavaScript frames of a recording will have names, concluded from the target's flags and
//! its perf map. Pure.

use super::{Finding, Level};
use crate::process::v8_flags::V8Flags;

const SUBJECT: &str = "JavaScript";
/// The way in that needs no change of the program's start script. Node allows both flags there
/// (`node --help`, NODE_OPTIONS).
const RESTART: &str = "restart it with \
    NODE_OPTIONS='--perf-basic-prof --interpreted-frames-native-stack'";
/// First release whose `--perf-basic-prof-only-functions` keeps interpreted functions in the map:
/// absent in 16.20, present in 20.20 and 24.21.
const ONLY_FUNCTIONS_COMPLETE: u32 = 18;

/// What was found where the perf map should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MapState {
    /// It is there and may be read.
    Found {
        /// Entries in it now.
        entries: u64,
        /// Lines that were not understood.
        bad_lines: u64,
    },
    /// There is none.
    Missing,
    /// It is there and is not read: why.
    Refused(String),
}

/// What the conclusion is drawn from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Evidence {
    /// The target's flags.
    pub flags: V8Flags,
    /// Whether the flags could be seen: a process can overwrite its command line.
    pub flags_known: bool,
    /// Major version of Node, where it is known.
    pub node_major: Option<u32>,
    /// The perf map.
    pub map: MapState,
    /// Where it should be, as the target sees it.
    pub map_path: String,
    /// What is known of V8's heap; or why it cannot be read, and what helps.
    pub heap: Result<String, (String, Option<&'static str>)>,
}

/// The perf map itself; nothing where there is none and none was asked for.
pub(super) fn map(evidence: &Evidence) -> Option<Finding> {
    const SUBJECT: &str = "perf map";
    let Evidence { flags, map, map_path, .. } = evidence;
    Some(match map {
        MapState::Found { entries, bad_lines: 0 } => {
            Finding::good(SUBJECT, format!("{map_path}, {entries} entries so far"))
        }
        MapState::Found { entries, bad_lines } => Finding::limited(
            SUBJECT,
            format!("{map_path}, {entries} entries and {bad_lines} lines that are none"),
            "no program but the target may write it; restart the target for a clean one",
        ),
        MapState::Refused(why) => Finding::limited(
            SUBJECT,
            why.clone(),
            "remove what is there and restart the target, so that it writes its own",
        ),
        MapState::Missing if flags.perf_map => Finding::limited(
            SUBJECT,
            format!("{map_path} does not exist, although the target was started to write it"),
            "something removed it, or its folder cannot be written: restart the target",
        ),
        MapState::Missing => return None,
    })
}

/// Which JavaScript frames will have names, and what would give the others theirs.
pub(super) fn javascript(evidence: &Evidence) -> Finding {
    let by_map = by_map(evidence);
    match &evidence.heap {
        Ok(_found) if by_map.level == Level::Good => Finding::good(
            SUBJECT,
            "all frames will have names, from the perf map; --js=heap reads the lines that run, too",
        ),
        Ok(found) => Finding::good(
            SUBJECT,
            format!("all frames will have function, file and the line that runs, from {found}"),
        ),
        Err(_) if by_map.level == Level::Good => by_map,
        Err((why, remedy)) => {
            let remedy = remedy.or(by_map.remedy.as_deref()).unwrap_or(RESTART);
            Finding::limited(SUBJECT, format!("{}: {why}", by_map.text), remedy)
        }
    }
}

/// Which frames have names by the perf map alone.
fn by_map(evidence: &Evidence) -> Finding {
    let Evidence { flags, flags_known, node_major, map, .. } = evidence;
    let hides = flags.only_functions && node_major.is_some_and(|v| v < ONLY_FUNCTIONS_COMPLETE);
    match map {
        MapState::Refused(_) => {
            let why = "no frame will have a name: the perf map is not read";
            Finding::limited(SUBJECT, why, "see perf map above")
        }
        MapState::Missing if flags.perf_map => {
            let why = "no frame will have a name: the perf map is gone";
            Finding::limited(SUBJECT, why, RESTART)
        }
        MapState::Missing => {
            let why = match flags_known {
                true if flags.jitdump => "--perf-prof writes a jitdump, which is not read",
                true => "the target was started without --perf-basic-prof",
                false => "there is no perf map, and the flags cannot be seen",
            };
            Finding::limited(SUBJECT, format!("no frame will have a name: {why}"), RESTART)
        }
        MapState::Found { .. } if flags.interpreted_frames && hides => Finding::limited(
            SUBJECT,
            "only optimised code will have names: --perf-basic-prof-only-functions hides \
             interpreted functions in this version of Node",
            "leave out --perf-basic-prof-only-functions: \
             NODE_OPTIONS='--perf-basic-prof --interpreted-frames-native-stack'",
        ),
        MapState::Found { .. } if flags.interpreted_frames => {
            Finding::good(SUBJECT, "all frames will have function, file and line")
        }
        MapState::Found { .. } if !flags_known => Finding::limited(
            SUBJECT,
            "compiled code will have names; whether interpreted functions will cannot be seen, \
             because the process has overwritten its command line",
            format!("in doubt, {RESTART}"),
        ),
        MapState::Found { .. } => Finding::limited(
            SUBJECT,
            "only compiled code will have names: without --interpreted-frames-native-stack \
             interpreted functions look alike",
            RESTART,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUND: MapState = MapState::Found { entries: 9, bad_lines: 0 };

    fn evidence(cmdline: &str, map: MapState, node_major: u32) -> Evidence {
        Evidence {
            flags: V8Flags::parse(cmdline.replace(' ', "\0").as_bytes(), b""),
            flags_known: true,
            node_major: Some(node_major),
            map,
            map_path: "/tmp/perf-7.map".into(),
            heap: Err(("it may not be read".into(), None)),
        }
    }

    #[test]
    fn each_combination_has_its_conclusion() {
        let both = "node --perf-basic-prof --interpreted-frames-native-stack a.js";
        let only = "node --perf-basic-prof-only-functions --interpreted-frames-native-stack a.js";
        let map_only = "node --perf-basic-prof a.js";
        for (cmdline, map, major, level, begins) in [
            (both, FOUND, 20, Level::Good, "all frames"),
            (only, FOUND, 20, Level::Good, "all frames"),
            (only, FOUND, 16, Level::Limited, "only optimised code"),
            (map_only, FOUND, 20, Level::Limited, "only compiled code"),
            (
                both,
                MapState::Missing,
                20,
                Level::Limited,
                "no frame will have a name: the perf map is gone",
            ),
            (
                "node a.js",
                MapState::Missing,
                20,
                Level::Limited,
                "no frame will have a name: the target was",
            ),
            (
                both,
                MapState::Refused("x".into()),
                20,
                Level::Limited,
                "no frame will have a name: the perf map is not read",
            ),
        ] {
            let finding = javascript(&evidence(cmdline, map, major));
            assert_eq!(finding.level, level, "{cmdline}");
            assert!(finding.text.starts_with(begins), "{cmdline}: {}", finding.text);
            assert_eq!(finding.remedy.is_none(), level == Level::Good);
        }
        let unseen = Evidence { flags_known: false, ..evidence("title", FOUND, 20) };
        assert!(javascript(&unseen).text.contains("overwritten"));
        assert!(RESTART.contains("NODE_OPTIONS='--perf-basic-prof --interpreted-frames"));
    }

    #[test]
    fn the_heap_names_what_the_map_does_not() {
        let heap = |cmdline, map| Evidence {
            heap: Ok("V8 1.2.3 in /x".into()),
            ..evidence(cmdline, map, 20)
        };
        let plain = javascript(&heap("node a.js", MapState::Missing));
        assert!(plain.level == Level::Good && plain.text.contains("V8 1.2.3 in /x"), "{plain:?}");
        let both = "node --perf-basic-prof --interpreted-frames-native-stack a.js";
        assert!(javascript(&heap(both, FOUND)).text.contains("from the perf map"));
        let gone = javascript(&heap(both, MapState::Missing));
        assert!(gone.level == Level::Good && gone.text.contains("V8 1.2.3"), "{gone:?}");
        let helps = Err(("it runs Bun".to_owned(), Some("nothing")));
        let bun = javascript(&Evidence { heap: helps, ..evidence("bun", MapState::Missing, 20) });
        assert!(bun.text.contains("it runs Bun"), "{bun:?}");
        assert_eq!(bun.remedy.as_deref(), Some("nothing"));
    }

    #[test]
    fn the_map_is_judged_by_itself() {
        let text = |cmdline, map| super::map(&evidence(cmdline, map, 20)).map(|f| f.text);
        let with = |text: Option<String>, part| text.is_some_and(|text| text.contains(part));
        assert!(with(text("node a.js", FOUND), "/tmp/perf-7.map, 9 entries so far"));
        let bad = MapState::Found { entries: 1, bad_lines: 2 };
        assert!(with(text("node a.js", bad), "2 lines"));
        assert!(with(text("node --perf-basic-prof a.js", MapState::Missing), "does not exist"));
        assert!(with(text("node a.js", MapState::Refused("why".into())), "why"));
        assert_eq!(text("node a.js", MapState::Missing), None);
        let jitdump = javascript(&evidence("node --perf-prof a.js", MapState::Missing, 20));
        assert!(jitdump.text.contains("jitdump"));
    }
}
