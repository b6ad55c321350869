//! Runs a program to its end and keeps what it printed, within a time limit.
//!
//! The output goes to files, not pipes, so that a grandchild that lives on cannot hold a test up.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longer than any program of the tests takes; a limit against hanging, not a measure of speed.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What a program that has ended said.
#[derive(Debug)]
pub struct Outcome {
    /// The command line, for messages.
    pub command: String,
    /// Its exit status.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl Outcome {
    /// Fails unless the exit code is `code`.
    ///
    /// # Errors
    /// With the whole standard error if the exit code is another one.
    pub fn expect_code(self, code: i32) -> Result<Self> {
        if self.status.code() == Some(code) {
            return Ok(self);
        }
        let Self { command, status, stderr, .. } = &self;
        bail!("`{command}` ended with {status} instead of {code}, stderr:\n{stderr}");
    }

    /// Fails if the program panicked or was killed by a signal: no input may lead to that.
    ///
    /// # Errors
    /// With the whole standard error.
    pub fn expect_no_crash(self) -> Result<Self> {
        if let Some(signal) = self.status.signal() {
            bail!("`{}` was killed by signal {signal}, stderr:\n{}", self.command, self.stderr);
        }
        if self.stderr.contains("panicked at") {
            bail!("`{}` panicked, stderr:\n{}", self.command, self.stderr);
        }
        Ok(self)
    }
}

/// A running program whose output is collected; killed when dropped.
#[derive(Debug)]
pub struct Running {
    command: String,
    child: Child,
    stdout: File,
    stderr: File,
}

impl Running {
    /// Starts a program without standard input.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let stdout = tempfile::tempfile().context("cannot make a file for the output")?;
        let stderr = tempfile::tempfile().context("cannot make a file for the messages")?;
        let line = describe(command);
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout.try_clone()?)
            .stderr(stderr.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot start `{line}`"))?;
        Ok(Self { command: line, child, stdout, stderr })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        send_signal(self.child.id(), signal)
    }

    /// What it has printed to standard error up to now.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn messages(&mut self) -> Result<String> {
        read_all(&mut self.stderr)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// If it has not ended after [`PATIENCE`]; it is killed then.
    pub fn finish(mut self) -> Result<Outcome> {
        let status =
            wait_for(&format!("the end of `{}`", self.command), || Ok(self.child.try_wait()?))
                .with_context(|| format!("stderr: {}", self.messages().unwrap_or_default()))?;
        Ok(Outcome {
            command: self.command.clone(),
            status,
            stdout: read_all(&mut self.stdout)?,
            stderr: read_all(&mut self.stderr)?,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs a program to its end.
///
/// # Errors
/// If it cannot be started or takes longer than [`PATIENCE`].
pub fn run(command: &mut Command) -> Result<Outcome> {
    Running::start(command)?.finish()
}

/// Asks `attempt` again and again until it has an answer.
///
/// # Errors
/// If `attempt` fails, or has no answer after [`PATIENCE`].
pub fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = attempt()? {
            return Ok(answer);
        }
        if Instant::now() >= end {
            bail!("waited {} s in vain for {what}", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal to a process.
///
/// # Errors
/// If the process is gone.
pub fn send_signal(pid: u32, signal: Signal) -> Result<()> {
    let target = Pid::from_raw(i32::try_from(pid).context("a process id above 2^31")?);
    kill(target, signal).with_context(|| format!("cannot send {signal} to process {pid}"))
}

/// Whether a process exists.
#[must_use]
pub fn process_exists(pid: u32) -> bool {
    std::path::Path::new("/proc").join(pid.to_string()).exists()
}

fn describe(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for word in command.get_args() {
        line.push(' ');
        line.push_str(&word.to_string_lossy());
    }
    line
}

// Shares its offset with the writer, who must go on at the end: read by position.
fn read_all(file: &mut File) -> Result<String> {
    use std::os::unix::fs::FileExt as _;
    let length = usize::try_from(file.metadata()?.len())?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_exit_code_are_kept_apart() {
        let outcome =
            run(Command::new("sh").args(["-c", "echo out; echo message >&2; exit 3"])).unwrap();
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "message\n"));
        assert!(outcome.expect_code(3).is_ok());
    }

    #[test]
    fn a_wrong_exit_code_and_a_signal_are_failures() {
        let outcome = run(Command::new("sh").args(["-c", "exit 1"])).unwrap();
        assert!(outcome.expect_code(0).is_err());
        let outcome = run(Command::new("sh").args(["-c", "kill -ABRT $$"])).unwrap();
        assert!(outcome.expect_no_crash().is_err());
        let outcome =
            run(Command::new("sh").args(["-c", "echo 'thread main panicked at x.rs' >&2"]))
                .unwrap();
        assert!(outcome.expect_no_crash().is_err());
    }

    #[test]
    fn a_dropped_program_is_dead() {
        let running = Running::start(Command::new("sleep").arg("1000")).unwrap();
        let pid = running.pid();
        assert!(process_exists(pid));
        drop(running);
        assert!(!process_exists(pid));
    }
}
