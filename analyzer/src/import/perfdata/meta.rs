//! What a `perf.data` file says about its recording: machine, command line, clock. Pure.

use std::collections::BTreeMap;

use formats::capture::Meta;
use formats::text::clean_string;
use linux_perf_data::Feature;

use super::layout::{u32_at, u64_at};

/// Arguments of the command line that are read at most.
const MAX_ARGUMENTS: u32 = 4096;
/// Longest text that is kept, characters.
const MAX_TEXT: usize = 4096;

/// The recording as the sections describe it. Times are left to the caller, save for those here.
pub(super) fn read(features: &BTreeMap<u32, Vec<u8>>) -> Meta {
    let section = |feature: Feature| features.get(&feature.0).map_or(&[][..], Vec::as_slice);
    let text = |feature| string(&mut { section(feature) }).unwrap_or_default();
    let command = list(section(Feature::CMDLINE));
    let targets = pids(&command);
    Meta {
        recorder: format!("perf {}", text(Feature::VERSION)).trim_end().to_owned(),
        mode: if targets.is_empty() { "launch" } else { "attach" }.to_owned(),
        targets,
        command,
        kernel: text(Feature::OSRELEASE),
        arch: text(Feature::ARCH),
        // struct nr_cpus: available, online.
        cpus: u32_at(section(Feature::NRCPUS), 4).unwrap_or_default(),
        start_ns: u64_at(section(Feature::SAMPLE_TIME), 0).unwrap_or_default(),
        ..Meta::default()
    }
}

/// CLOCK_REALTIME at `start_ns`, from a pair of readings (`perf record -k`); 0 when there is none.
pub(super) fn wall_clock(features: &BTreeMap<u32, Vec<u8>>, start_ns: u64) -> u64 {
    let Some(section) = features.get(&Feature::CLOCK_DATA.0) else { return 0 };
    // struct: version u32 (1), clock id u32, CLOCK_REALTIME u64, the clock u64.
    match (u32_at(section, 0), u64_at(section, 8), u64_at(section, 16)) {
        (Some(1), Some(wall), Some(clock)) => wall.wrapping_sub(clock).wrapping_add(start_ns),
        _ => 0,
    }
}

/// `perf_header_string`: a length and as many bytes, filled with NUL.
fn string(at: &mut &[u8]) -> Option<String> {
    let length = u32_at(at, 0)? as usize;
    let (text, rest) = at.get(4..)?.split_at_checked(length)?;
    *at = rest;
    Some(clean_string(text.split(|byte| *byte == 0).next()?, MAX_TEXT))
}

/// `perf_header_string_list`: a count and as many strings.
fn list(mut at: &[u8]) -> Vec<String> {
    let count = u32_at(at, 0).unwrap_or_default().min(MAX_ARGUMENTS);
    at = at.get(4..).unwrap_or_default();
    (0..count).map_while(|_| string(&mut at)).collect()
}

/// The process ids of `-p`, as far as they stand before the command.
fn pids(command: &[String]) -> Vec<u32> {
    let mut found = Vec::new();
    let mut arguments = command.iter().skip(1).take_while(|argument| *argument != "--");
    while let Some(argument) = arguments.next() {
        let value = match argument.as_str() {
            "-p" | "--pid" => arguments.next().map(String::as_str),
            other => other.strip_prefix("--pid=").or_else(|| other.strip_prefix("-p")),
        };
        let numbers = value.unwrap_or_default().split(',');
        found.extend(numbers.filter_map(|number| number.parse::<u32>().ok()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(texts: &[&str]) -> Vec<u8> {
        let mut out = (texts.len() as u32).to_le_bytes().to_vec();
        for text in texts {
            out.extend(64u32.to_le_bytes());
            let mut padded = text.as_bytes().to_vec();
            padded.resize(64, 0);
            out.extend(padded);
        }
        out
    }

    #[test]
    fn command_lines_give_targets() {
        for (words, targets) in [
            (&["perf", "record", "-p", "12,13", "--", "sleep", "1"][..], &[12, 13][..]),
            (&["perf", "record", "--pid=7"], &[7]),
            (&["perf", "record", "-p8"], &[8]),
            (&["perf", "record", "--", "grep", "-p", "9"], &[]),
        ] {
            let features = BTreeMap::from([(Feature::CMDLINE.0, packed(words))]);
            let meta = read(&features);
            assert_eq!(meta.command, words);
            assert_eq!(meta.targets, targets);
        }
    }

    #[test]
    fn cut_sections_give_what_they_have() {
        let whole = packed(&["perf", "record"]);
        for end in 0..whole.len() {
            let features = BTreeMap::from([(Feature::CMDLINE.0, whole[..end].to_vec())]);
            assert!(read(&features).command.len() < 2);
        }
        let clock = [&1u32.to_le_bytes()[..], &1u32.to_le_bytes(), &5000u64.to_le_bytes()];
        let clock = [&clock.concat()[..], &2000u64.to_le_bytes()].concat();
        let features = BTreeMap::from([(Feature::CLOCK_DATA.0, clock)]);
        assert_eq!(wall_clock(&features, 2100), 5100);
    }
}
