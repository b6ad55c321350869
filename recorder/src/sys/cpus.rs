//! Which CPUs this machine has and which of them run.
//!
//! perf events can be opened on online CPUs only; numbers may have holes.

use std::path::Path;

/// Documentation/admin-guide/cputopology.rst.
const CPU_FOLDER: &str = "/sys/devices/system/cpu";

/// CPU numbers beyond this are a broken file (the kernel's NR_CPUS is at most 8192).
const MAX_CPU: u32 = 65_535;

/// The list of CPUs could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CpuError {
    /// No such file, or not readable.
    #[error("cannot read the {list} CPUs")]
    Read {
        /// `online` or `possible`.
        list: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a list of CPUs.
    #[error("cannot understand the {list} CPUs: '{text}'")]
    Parse {
        /// `online` or `possible`.
        list: &'static str,
        /// What the file holds.
        text: String,
    },
}

/// Numbers of the CPUs that run, ascending.
///
/// # Errors
/// [`CpuError`].
pub fn online_cpus() -> Result<Vec<u32>, CpuError> {
    read(Path::new(CPU_FOLDER), "online")
}

/// Numbers of the CPUs that could run after hotplug, ascending.
///
/// # Errors
/// [`CpuError`].
pub fn possible_cpus() -> Result<Vec<u32>, CpuError> {
    read(Path::new(CPU_FOLDER), "possible")
}

fn read(folder: &Path, list: &'static str) -> Result<Vec<u32>, CpuError> {
    let text = std::fs::read_to_string(folder.join(list))
        .map_err(|source| CpuError::Read { list, source })?;
    parse_cpu_list(&text)
        .ok_or_else(|| CpuError::Parse { list, text: text.trim().chars().take(80).collect() })
}

/// Parses the kernel's list format, such as `0-3,8,10-11`. `None` for anything else, for an empty
/// list, and for ranges that descend or overlap.
pub fn parse_cpu_list(text: &str) -> Option<Vec<u32>> {
    let mut cpus: Vec<u32> = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        let ascends = cpus.last().is_none_or(|previous| *previous < first);
        if first > last || last > MAX_CPU || !ascends {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_with_holes() {
        assert_eq!(parse_cpu_list("0\n"), Some(vec![0]));
        assert_eq!(parse_cpu_list("0-3,8,10-11\n"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
        for bad in ["", "\n", "a", "3-1", "0-", "-1", "0,0", "2,1", "0-99999999", "0 1"] {
            assert_eq!(parse_cpu_list(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn this_machine_runs_at_least_one() {
        let (online, possible) = (online_cpus().unwrap(), possible_cpus().unwrap());
        assert!(!online.is_empty() && online.iter().all(|cpu| possible.contains(cpu)));
        let error = read(Path::new("/nonexistent"), "online").unwrap_err();
        assert!(error.to_string().starts_with("cannot read the online CPUs"));
    }
}
