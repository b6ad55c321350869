//! `perf record` on probes of its own: another observer, and the writer of a `perf.data`.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use object::read::{Object as _, ObjectSegment as _, ObjectSymbol as _};
use tempfile::TempDir;

use crate::binaries::require_program;
use crate::command::{Running, wait_for};
use crate::kernel::TRACEFS;
use crate::recording::GATE;

/// Function and fetch arguments, in the kernel's syntax. The offsets of `fs_type` and `result` in
/// `uv_fs_t` are those of include/uv.h on x86-64.
const PROBES: [(&str, &str); 2] = [
    ("uv_fs_open", "req=%si:x64 flags=%cx:s32 mode=%r8:s32 cb=%r9:x64 path=+0(%dx):ustring"),
    ("uv_fs_req_cleanup", "req=%di:x64 type=+64(%di):s32 result=+88(%di):s64"),
];

/// Dynamic events on the libuv inside node, removed when dropped.
#[derive(Debug)]
struct Probes {
    group: String,
}

impl Probes {
    fn place() -> Result<Self> {
        let node = fs::canonicalize(require_program("node")?)?;
        let bytes = fs::read(&node).context("cannot read node")?;
        let file = object::File::parse(&*bytes).context("node is not an object file")?;
        let probes = Self { group: format!("perf_truth_{}", std::process::id()) };
        for (function, arguments) in PROBES {
            let offset = file_offset(&file, function)?;
            let place = format!("{}:{offset:#x}", node.display());
            append(&format!("p:{}/{function} {place} {arguments}", probes.group))?;
        }
        Ok(probes)
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        for (function, _) in PROBES {
            // Fails for an event that was not made.
            drop(append(&format!("-:{}/{function}", self.group)));
        }
    }
}

/// A running `perf record`.
#[derive(Debug)]
pub struct PerfRecording {
    running: Running,
    folder: TempDir,
    _probes: Probes,
}

impl PerfRecording {
    /// Attaches to a process, with CPU samples, and waits until all is in place.
    ///
    /// # Errors
    /// If perf is missing or ends before.
    pub fn attach(pid: u32) -> Result<Self> {
        let probes = Probes::place()?;
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(require_program("perf")?);
        command.current_dir(folder.path());
        command.args(["record", "-q", "-N", "-g", "-o", "perf.data", "-e", "cpu-clock"]);
        for (function, _) in PROBES {
            command.arg("-e").arg(format!("{}:{function}", probes.group));
        }
        command.args(["-p", &pid.to_string(), "--", "sh", "-c", GATE, "armed", "end"]);
        let mut running = Running::start(&mut command)?;
        let armed = folder.path().join("armed");
        wait_for("perf record", || {
            if !running.is_running()? {
                bail!("perf record ended early: {}", running.messages()?);
            }
            Ok(armed.exists().then_some(()))
        })?;
        Ok(Self { running, folder, _probes: probes })
    }

    /// Ends the recording.
    ///
    /// # Errors
    /// If perf fails.
    pub fn stop(self) -> Result<PerfData> {
        fs::write(self.folder.path().join("end"), "")?;
        let outcome = self.running.finish()?;
        // If the target has ended before, perf ends the command itself, and then as the command did.
        let as_the_command = outcome.status.signal() == Some(Signal::SIGTERM as i32);
        if !as_the_command {
            outcome.expect_code(0)?;
        }
        Ok(PerfData { folder: self.folder })
    }
}

/// A `perf.data` in a folder of its own.
#[derive(Debug)]
pub struct PerfData {
    folder: TempDir,
}

impl PerfData {
    /// The file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("perf.data")
    }
}

// Opened for appending: opening it with truncation removes everybody's events.
fn append(line: &str) -> Result<()> {
    let path = Path::new(TRACEFS).join("dynamic_events");
    let mut file = OpenOptions::new().append(true).open(&path).context("cannot open tracefs")?;
    file.write_all(line.as_bytes()).with_context(|| format!("the kernel refuses `{line}`"))
}

// Where the function begins: the first instruction of a function may always be probed.
fn file_offset(file: &object::File<'_>, function: &str) -> Result<u64> {
    let mut symbols = file.symbols().chain(file.dynamic_symbols());
    let address = symbols
        .find(|symbol| symbol.name() == Ok(function) && symbol.address() != 0)
        .with_context(|| format!("node has no symbol {function}: is libuv a shared library?"))?
        .address();
    let in_segment = |segment: object::Segment<'_, '_>| {
        let inside = address.checked_sub(segment.address())?;
        (inside < segment.size()).then_some(segment.file_range().0 + inside)
    };
    file.segments().find_map(in_segment).context("the function lies in no segment")
}
