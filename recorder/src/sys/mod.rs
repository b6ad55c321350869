//! The kernel boundary: perf events, rings, processes, signals and clocks.
//!
//! All unsafe code of the recorder is in this folder. Each unsafe block holds one operation and
//! says why it is valid (SAFETY) or which barrier of the kernel it pairs with (ATOMICS). Modules
//! here own file descriptors and mappings; they must not know policy, retry, print or read the
//! command line.

pub mod attr;
pub mod clock;
pub mod cpus;
pub mod mount;
#[cfg(test)]
pub mod own_registers;
pub mod perf;
pub mod perf_error;
pub mod pidfd;
pub mod poll;
pub mod record;
pub mod ring;
pub mod rlimit;
pub mod signals;
pub mod spawn;
pub mod vdso;
pub mod vm;

use nix::errno::Errno;

/// The kernel's sentence for `errno`, in the lower case that our messages are written in.
pub fn errno_text(errno: Errno) -> String {
    let description = errno.desc();
    let mut letters = description.chars();
    match (letters.next(), letters.clone().next()) {
        // An abbreviation ("RFS specific error", "I/O error") keeps its case.
        (Some(_), Some(second)) if !second.is_ascii_lowercase() => description.to_owned(),
        (Some(first), _) => first.to_lowercase().chain(letters).collect(),
        (None, _) => format!("error {}", errno as i32),
    }
}

/// The errno of an I/O error; `EIO` where the error did not come from the kernel.
pub fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_sentences_are_lower_case() {
        assert_eq!(errno_text(Errno::EPERM), "operation not permitted");
        assert_eq!(errno_text(Errno::EIO), "I/O error");
    }
}
