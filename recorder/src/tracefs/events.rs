//! Creating and removing dynamic events.
//!
//! One event has one name, one argument layout and one or many sites: the kernel adds each
//! further line of the same name as a site. Many sites in one event cost what one costs, many
//! events are removed one by one, 0.1 s each. An event outlives the process that made it, so it
//! is removed explicitly, at drop as a second best, and by [`super::sweep`] after a kill.

use super::{Owner, ProbePath, Tracefs, TracefsError, error_log};
use crate::sys::{errno_of, errno_text};
use nix::errno::Errno;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

/// Longest name of a group or event (include/linux/trace_events.h: MAX_EVENT_NAME_LEN 64 with
/// the final NUL).
const MAX_NAME: usize = 63;

/// Longest line with its line end (kernel/trace/trace.c, WRITE_BUFSIZE 4096, NUL included).
const MAX_LINE: usize = 4095;

/// How long a removal waits for the last user of the event to let go.
pub const REMOVE_PATIENCE: Duration = Duration::from_secs(2);

/// How long a drop does, where nobody hears of the failure and the sweep remains.
const DROP_PATIENCE: Duration = Duration::from_millis(200);

/// Time between two attempts.
const RETRY: Duration = Duration::from_millis(5);

/// When a probe fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeKind {
    /// Before the instruction at the site is executed.
    Entry,
    /// When the function entered at the site returns.
    Return,
}

/// A place to probe, with its own way to fetch the event's arguments.
#[derive(Debug)]
pub struct SiteSpec {
    /// The file.
    pub path: ProbePath,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// File offset of a 16-bit USDT semaphore that is raised while the site is armed.
    pub ref_ctr: Option<u64>,
    /// Fetch arguments in the kernel's syntax, `name=EXPRESSION:type`. Names and types must be
    /// the same at all sites of one event.
    pub fetch_args: Vec<String>,
}

/// Makes dynamic events in the group of one recorder.
#[derive(Debug)]
pub struct DynamicEvents {
    tracefs: Tracefs,
    group: String,
}

impl DynamicEvents {
    /// Events of this process's own group.
    ///
    /// # Errors
    /// See [`Owner::ourselves`].
    pub fn new(tracefs: Tracefs) -> Result<Self, TracefsError> {
        Ok(Self { tracefs, group: Owner::ourselves()?.group() })
    }

    /// The group all events are in.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Creates event `name` at all `sites`. Either all of them are probed afterwards or none.
    ///
    /// # Errors
    /// [`TracefsError::Name`], [`TracefsError::FetchArgument`], [`TracefsError::LineTooLong`],
    /// [`TracefsError::NoSite`] and [`TracefsError::Exists`] before anything is written;
    /// [`TracefsError::Create`] with the kernel's reason; [`TracefsError::File`].
    pub fn create(
        &self,
        kind: ProbeKind,
        name: &str,
        sites: &[SiteSpec],
    ) -> Result<DynamicEvent, TracefsError> {
        check_name(name)?;
        let event = format!("{}/{name}", self.group);
        let lines = sites
            .iter()
            .map(|site| probe_line(kind, &event, site))
            .collect::<Result<Vec<_>, _>>()?;
        if lines.is_empty() {
            return Err(TracefsError::NoSite { event });
        }
        if self.tracefs.event_folder(&self.group, name).exists() {
            return Err(TracefsError::Exists { event });
        }
        let control = self.tracefs.open_dynamic_events()?;
        // From the first line on this value removes, when dropped, whatever was made.
        let mut made: Option<DynamicEvent> = None;
        for (line, site) in lines.iter().zip(sites) {
            if let Err(errno) = write_line(&control, line) {
                let text = String::from_utf8_lossy(line);
                let reason = error_log::reason_for(&self.tracefs, &text)
                    .unwrap_or_else(|| errno_text(errno));
                let site = format!("{}:{:#x}", site.path.original().display(), site.offset);
                return Err(TracefsError::Create { event, site, reason, errno });
            }
            made.get_or_insert_with(|| DynamicEvent {
                tracefs: self.tracefs.clone(),
                group: self.group.clone(),
                name: name.to_owned(),
                id: 0,
                format: String::new(),
                exists: true,
            });
        }
        let Some(mut made) = made else { return Err(TracefsError::NoSite { event }) };
        made.id = self.tracefs.event_id(&self.group, name)?;
        made.format = self.tracefs.event_format(&self.group, name)?;
        Ok(made)
    }
}

/// A dynamic event that exists until it is removed.
#[derive(Debug)]
pub struct DynamicEvent {
    tracefs: Tracefs,
    group: String,
    name: String,
    id: u64,
    format: String,
    exists: bool,
}

impl DynamicEvent {
    /// Its group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Its name within the group.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number for `perf_event_open`.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The text of its `format` file: where each argument lies in the raw bytes.
    pub fn format(&self) -> &str {
        &self.format
    }

    /// Removes it from the kernel. Close all perf events on it first. A second call is a no-op.
    ///
    /// # Errors
    /// [`TracefsError::InUse`] when someone still uses it after [`REMOVE_PATIENCE`];
    /// [`TracefsError::File`]. It can be called again, and the drop will try once more.
    pub fn remove(&mut self) -> Result<(), TracefsError> {
        self.remove_within(REMOVE_PATIENCE)
    }

    fn remove_within(&mut self, patience: Duration) -> Result<(), TracefsError> {
        if self.exists {
            let event = format!("{}/{}", self.group, self.name);
            remove_event(&self.tracefs, &event, patience)?;
            self.exists = false;
        }
        Ok(())
    }
}

impl Drop for DynamicEvent {
    fn drop(&mut self) {
        // Nobody can be told here; what stays is removed by the next sweep.
        let _swept_later = self.remove_within(DROP_PATIENCE);
    }
}

/// Removes `event` (GROUP/NAME), trying again for `patience` while someone uses it. An event
/// that is gone already is a success.
pub(super) fn remove_event(
    tracefs: &Tracefs,
    event: &str,
    patience: Duration,
) -> Result<(), TracefsError> {
    let control = tracefs.open_dynamic_events()?;
    let line = format!("-:{event}");
    let started = Instant::now();
    loop {
        match write_line(&control, line.as_bytes()) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY) if started.elapsed() < patience => std::thread::sleep(RETRY),
            Err(Errno::EBUSY) => {
                let waited_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                return Err(TracefsError::InUse { event: event.to_owned(), waited_ms });
            }
            Err(errno) => {
                let path = tracefs.dynamic_events_path();
                return Err(TracefsError::File { operation: "write", path, errno });
            }
        }
    }
}

/// One line, one write: the kernel runs each write's lines and reports the last failure only.
fn write_line(mut control: &File, line: &[u8]) -> Result<(), Errno> {
    let mut text = line.to_vec();
    text.push(b'\n');
    match control.write(&text) {
        Ok(written) if written == text.len() => Ok(()),
        Ok(_) => Err(Errno::EIO),
        Err(error) => Err(errno_of(&error)),
    }
}

fn check_name(name: &str) -> Result<(), TracefsError> {
    // kernel/trace/trace_probe.h, is_good_name: a C identifier.
    let good = |(index, byte): (usize, u8)| {
        byte == b'_' || byte.is_ascii_alphabetic() || (index > 0 && byte.is_ascii_digit())
    };
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.len() > MAX_NAME {
        "it is longer than 63 bytes"
    } else if !name.bytes().enumerate().all(good) {
        "only letters, digits and underscores are allowed, and no digit first"
    } else {
        return Ok(());
    };
    Err(TracefsError::Name { name: name.to_owned(), reason })
}

fn check_fetch_argument(argument: &str) -> Result<(), TracefsError> {
    let reason = if argument.is_empty() {
        "it is empty"
    } else if !argument.bytes().all(|byte| byte.is_ascii_graphic()) {
        "only printable ASCII without white space is allowed"
    } else if argument.contains('#') {
        "'#' begins a comment"
    } else {
        return Ok(());
    };
    Err(TracefsError::FetchArgument { argument: argument.to_owned(), reason })
}

/// `p:GROUP/NAME FILE:0xOFFSET(0xREFCTR) ARGUMENT...`
fn probe_line(kind: ProbeKind, event: &str, site: &SiteSpec) -> Result<Vec<u8>, TracefsError> {
    let letter = match kind {
        ProbeKind::Entry => 'p',
        ProbeKind::Return => 'r',
    };
    let mut line = format!("{letter}:{event} ").into_bytes();
    line.extend(site.path.spelling().as_os_str().as_bytes());
    line.extend(format!(":{:#x}", site.offset).bytes());
    if let Some(ref_ctr) = site.ref_ctr {
        line.extend(format!("({ref_ctr:#x})").bytes());
    }
    for argument in &site.fetch_args {
        check_fetch_argument(argument)?;
        line.push(b' ');
        line.extend(argument.bytes());
    }
    // The line end is added when it is written.
    if line.len() + 1 > MAX_LINE {
        return Err(TracefsError::LineTooLong { event: event.to_owned(), bytes: line.len() + 1 });
    }
    Ok(line)
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
