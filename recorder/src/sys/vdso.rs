//! The kernel's vDSO as mapped into us: an ELF image with the names of its functions.
//!
//! Every 64-bit process of one kernel has the same image, at its own address. It exists in no
//! file, so the recorder must bring it along. vdso(7).

use super::vm::{RemoteRead, VmError, read_batch};
use nix::unistd::getpid;

/// Larger than any vDSO (x86-64: two to four pages); a bound, no expectation.
const MAX_BYTES: u64 = 256 * 1024;

/// The vDSO could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VdsoError {
    /// Our own list of mappings is not readable.
    #[error("cannot read the mappings of this process")]
    Maps(#[from] std::io::Error),
    /// The kernel maps none (`vdso=0`).
    #[error("cannot find a vDSO: the kernel maps none")]
    None,
    /// Its size cannot be true.
    #[error("cannot read the vDSO: {bytes} bytes at {address:#x}")]
    Size {
        /// Where it is.
        address: u64,
        /// How long it claims to be.
        bytes: u64,
    },
    /// Its memory is not readable.
    #[error(transparent)]
    Memory(#[from] VmError),
    /// Its memory ends early or is no ELF image.
    #[error("cannot read the vDSO at {address:#x}: not an ELF image")]
    NotElf {
        /// Where it is.
        address: u64,
    },
}

/// The bytes of our own vDSO.
///
/// # Errors
/// [`VdsoError`].
pub fn vdso_image() -> Result<Vec<u8>, VdsoError> {
    let (address, end) =
        find(&std::fs::read_to_string("/proc/self/maps")?).ok_or(VdsoError::None)?;
    let bytes = end.saturating_sub(address);
    if bytes == 0 || bytes > MAX_BYTES {
        return Err(VdsoError::Size { address, bytes });
    }
    let mut image = vec![0u8; usize::try_from(bytes).unwrap_or(0)];
    // Reading ourselves as another process would: the kernel checks the range, no pointer is made.
    read_batch(getpid().as_raw(), &mut [RemoteRead::new(address, &mut image)])?;
    if image.starts_with(b"\x7fELF") { Ok(image) } else { Err(VdsoError::NotElf { address }) }
}

/// Start and end of the `[vdso]` line in the text of a `maps` file.
fn find(maps: &str) -> Option<(u64, u64)> {
    let line = maps.lines().find(|line| line.ends_with(" [vdso]"))?;
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::{Object, ObjectSymbol};

    #[test]
    fn finds_the_line() {
        let maps = "7ffd1000-7ffd3000 r-xp 00000000 00:00 0                          [vdso]\n";
        assert_eq!(find(maps), Some((0x7ffd_1000, 0x7ffd_3000)));
        assert_eq!(find("1000-2000 r-xp 00000000 00:00 0 /tmp/[vdso]x\n"), None);
    }

    #[test]
    fn holds_the_clock_function() {
        let image = vdso_image().unwrap();
        let file = object::File::parse(&*image).unwrap();
        let names: Vec<_> = file.dynamic_symbols().filter_map(|s| s.name().ok()).collect();
        assert!(names.iter().any(|name| name.contains("clock_gettime")), "{names:?}");
    }
}
