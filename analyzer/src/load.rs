//! Opens the file that the user named and reads it as what it is: a capture of `nrec`, or a
//! `perf.data`. Behind this both are one and the same [`Capture`].

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use formats::capture::{self, Capture, ReadError};
use formats::limits::Limits;
use formats::text::Clean;

use crate::import::perfdata::{self, ImportError};

/// First bytes of a perf.data file, in the byte order of this machine and in the other one (kernel
/// tree, tools/perf/util/header.c: `PERF_MAGIC2` and its swapped form).
const PERF_MAGICS: [&[u8]; 2] = [b"PERFILE2", b"2ELIFREP"];
/// Bytes that are enough to tell the two apart.
const SNIFF_BYTES: u64 = 16;

/// Why a file cannot be analysed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Opening or reading failed.
    #[error("cannot read {}", shown(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Neither a capture nor a perf.data.
    #[error("{} is neither a capture of nrec nor a perf.data: {found}", shown(path))]
    Unknown {
        /// The file.
        path: PathBuf,
        /// What it is instead, as far as can be said.
        found: &'static str,
    },
    /// A capture, but not a readable one.
    #[error("cannot read the capture {}", shown(path))]
    Capture {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ReadError,
    },
    /// A perf.data, but not a readable one.
    #[error("cannot import the perf.data {}", shown(path))]
    PerfData {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ImportError,
    },
}

fn shown(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    Clean(path.as_os_str().as_bytes()).to_string()
}

/// Reads a capture or a perf.data. A damaged file still gives what is readable of it: see
/// [`Capture::read`].
///
/// # Errors
/// The file cannot be read, is of another kind, or nothing in it is readable.
pub fn load(path: &Path, limits: &Limits) -> Result<Capture, LoadError> {
    let read = |source| LoadError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(read)?;
    let mut bytes = Vec::new();
    file.by_ref().take(SNIFF_BYTES).read_to_end(&mut bytes).map_err(read)?;
    if PERF_MAGICS.iter().any(|magic| bytes.starts_with(magic)) {
        drop(file);
        return perfdata::load(path, limits)
            .map_err(|source| LoadError::PerfData { path: path.to_owned(), source });
    }
    if !capture::is_capture(&bytes) {
        let found = kind_of(&bytes);
        return Err(LoadError::Unknown { path: path.to_owned(), found });
    }
    file.read_to_end(&mut bytes).map_err(read)?;
    capture::read(&bytes, limits)
        .map_err(|source| LoadError::Capture { path: path.to_owned(), source })
}

fn kind_of(bytes: &[u8]) -> &'static str {
    match bytes {
        [] => "it is empty",
        [0x7f, b'E', b'L', b'F', ..] => "it is a program or library (ELF)",
        [0x1f, 0x8b, ..] => "it is compressed with gzip: unpack it first",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "it is compressed with zstd: unpack it first",
        [b'<', ..] => "it looks like SVG or HTML",
        [b'{', ..] => "it looks like JSON",
        _ => "its first bytes are not known",
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    fn message(name: &str, contents: Option<&[u8]>) -> String {
        let folder = std::env::temp_dir().join(format!("nanalyze-load-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        if let Some(contents) = contents {
            std::fs::write(&path, contents).unwrap();
        }
        let error = load(&path, &Limits::default()).unwrap_err();
        let text = match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        std::fs::remove_dir_all(&folder).unwrap();
        text.replace(folder.to_str().unwrap(), "DIR")
    }

    #[test]
    fn errors_name_the_file_and_the_cause() {
        let missing = message("none", None);
        assert!(missing.starts_with("cannot read DIR/none: No such file"), "{missing}");
        assert!(message("empty", Some(b"")).ends_with("perf.data: it is empty"));
        assert!(message("elf", Some(b"\x7fELF....")).contains("program or library"));
        let cut = message("cut", Some(&capture::MAGIC));
        assert!(cut.starts_with("cannot read the capture DIR/cut: "), "{cut}");
        assert!(message("a\x1b[2J", Some(b"x")).starts_with("DIR/a\\x1b[2J is neither"));
    }
}
