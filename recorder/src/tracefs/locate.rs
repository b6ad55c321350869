//! Finding tracefs, and mounting it where a machine has not.

use super::{TracefsError, file_error};
use crate::sys::mount::mount_tracefs;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

/// Where tracefs belongs (Documentation/trace/ftrace.rst).
const STANDARD: &str = "/sys/kernel/tracing";

/// Where tracefs appears by itself while debugfs is mounted on /sys/kernel/debug.
const UNDER_DEBUGFS: &str = "/sys/kernel/debug/tracing";

/// A mounted tracefs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracefs {
    root: PathBuf,
}

impl Tracefs {
    /// Finds a mounted tracefs: the standard place first, then any other.
    ///
    /// # Errors
    /// [`TracefsError::NotMounted`]; [`TracefsError::File`] when the list of mounts is unreadable.
    pub fn locate() -> Result<Self, TracefsError> {
        let list = Path::new("/proc/self/mounts");
        let mounts = std::fs::read(list).map_err(file_error("read", list))?;
        let root = find_mount(&String::from_utf8_lossy(&mounts)).ok_or(TracefsError::NotMounted)?;
        Ok(Self { root })
    }

    /// As [`Self::locate`], but mounts tracefs at the standard place if it is mounted nowhere.
    ///
    /// # Errors
    /// As [`Self::locate`], and [`TracefsError::Mount`].
    pub fn mount_if_missing() -> Result<Self, TracefsError> {
        match Self::locate() {
            Err(TracefsError::NotMounted) => {
                mount_tracefs(Path::new(STANDARD))?;
                Ok(Self { root: PathBuf::from(STANDARD) })
            }
            other => other,
        }
    }

    /// A tracefs, or a folder that looks like one, at `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The control file of dynamic events.
    pub fn dynamic_events_path(&self) -> PathBuf {
        self.root.join("dynamic_events")
    }

    /// The folder of an event, dynamic or not.
    pub fn event_folder(&self, group: &str, name: &str) -> PathBuf {
        self.root.join("events").join(group).join(name)
    }

    /// The number of an event, for `perf_event_open`.
    ///
    /// # Errors
    /// [`TracefsError::File`] when there is no such event, [`TracefsError::Content`].
    pub fn event_id(&self, group: &str, name: &str) -> Result<u64, TracefsError> {
        let path = self.event_folder(group, name).join("id");
        let text = std::fs::read_to_string(&path).map_err(file_error("read", &path))?;
        text.trim().parse().map_err(|_not_a_number| TracefsError::Content { path })
    }

    /// The text of an event's `format` file, which describes its raw bytes.
    ///
    /// # Errors
    /// [`TracefsError::File`].
    pub fn event_format(&self, group: &str, name: &str) -> Result<String, TracefsError> {
        let path = self.event_folder(group, name).join("format");
        std::fs::read_to_string(&path).map_err(file_error("read", &path))
    }

    /// All dynamic events, one line each, as the kernel prints them.
    ///
    /// # Errors
    /// [`TracefsError::File`], [`TracefsError::NoDynamicEvents`].
    pub fn list_dynamic_events(&self) -> Result<String, TracefsError> {
        let path = self.dynamic_events_path();
        // A probed file's name need not be UTF-8; event names are ASCII.
        match std::fs::read(&path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(TracefsError::NoDynamicEvents { path })
            }
            Err(error) => Err(file_error("read", &path)(error)),
        }
    }

    /// Opens the control file for appending: never with truncation, which removes all events.
    pub(super) fn open_dynamic_events(&self) -> Result<File, TracefsError> {
        let path = self.dynamic_events_path();
        OpenOptions::new().append(true).open(&path).map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                TracefsError::NoDynamicEvents { path }
            } else {
                file_error("open", &path)(error)
            }
        })
    }
}

/// The best tracefs in the text of a `mounts` file (fstab(5): device, folder, type, ...).
fn find_mount(mounts: &str) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (folder, kind) = (fields.nth(1), fields.next());
        match (folder, kind) {
            (Some(folder), Some("tracefs")) => found.push(PathBuf::from(unescape(folder))),
            // Opening the folder mounts tracefs there (kernel/trace/trace.c, trace_automount).
            (Some(folder), Some("debugfs")) => {
                found.push(Path::new(&unescape(folder)).join("tracing"));
            }
            _ => {}
        }
    }
    let rank = |path: &PathBuf| match path.to_str() {
        Some(STANDARD) => 0,
        Some(UNDER_DEBUGFS) => 1,
        _ => 2,
    };
    found.into_iter().min_by_key(rank)
}

/// Undoes the octal escapes of a `mounts` file (fs/proc_namespace.c, mangle: space, tab, newline,
/// backslash and number sign).
fn unescape(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        out.push_str(plain);
        match escaped.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &escaped[3..];
            }
            None => {
                out.push('\\');
                rest = escaped;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_place_wins() {
        let debugfs = "debugfs /sys/kernel/debug debugfs rw 0 0\n";
        let other = "x /mnt/my\\040trace tracefs rw 0 0\n";
        let standard = "tracefs /sys/kernel/tracing tracefs rw,nosuid 0 0\n";
        assert_eq!(find_mount("proc /proc proc rw 0 0\n"), None);
        assert_eq!(find_mount(other), Some("/mnt/my trace".into()));
        assert_eq!(find_mount(&format!("{other}{debugfs}")), Some(UNDER_DEBUGFS.into()));
        let all = format!("{other}{debugfs}{standard}");
        assert_eq!(find_mount(&all), Some(STANDARD.into()));
    }

    #[test]
    fn escapes_of_the_mount_table() {
        assert_eq!(unescape("a\\040b\\134c"), "a b\\c");
        assert_eq!(unescape("a\\9"), "a\\9");
    }

    #[test]
    fn missing_control_file_says_what_the_kernel_lacks() {
        let error = Tracefs::at("/nonexistent").list_dynamic_events().unwrap_err();
        assert!(matches!(error, TracefsError::NoDynamicEvents { .. }));
        assert!(error.remedy().is_some_and(|text| text.contains("CONFIG_UPROBE_EVENTS")));
    }
}
