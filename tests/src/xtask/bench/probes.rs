//! perf's own probes on libuv, made in tracefs beside the recorder's and removed on drop.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use harness::binaries::require_program;
use harness::kernel::TRACEFS;
use object::read::{Object as _, ObjectSegment as _, ObjectSymbol as _};

/// x86-64 `push %rbp`: the kernel emulates it and then adds the caller to the callchain
/// (arch/x86/kernel/uprobes.c, `is_uprobe_at_func_entry` in arch/x86/events/core.c).
const PUSH_RBP: u8 = 0x55;
/// How far from the symbol the first push may be: `test %rdi,%rdi; je` is nine bytes.
const LONGEST_SLIDE: usize = 16;
/// The arguments of `uv_fs_open` that everybody fetches, in the kernel's syntax.
pub(crate) const OPEN_ARGUMENTS: &str =
    "req=%si:x64 flags=%cx:s32 mode=%r8:s32 cb=%r9:x64 path=+0(%dx):ustring";
/// Those of `uv_fs_req_cleanup`: `fs_type` and `result` of `uv_fs_t`, include/uv.h.
const DONE_ARGUMENTS: &str = "req=%di:x64 type=+64(%di):s32 result=+88(%di):s64";

/// The two dynamic events, on the instructions where nrec puts its own.
#[derive(Debug)]
pub(crate) struct PerfProbes {
    group: String,
    node: PathBuf,
    open: u64,
}

impl PerfProbes {
    /// Makes the events.
    pub(crate) fn place() -> Result<Self> {
        let node = fs::canonicalize(require_program("node")?)?;
        let bytes = fs::read(&node).context("cannot read node")?;
        let file = object::File::parse(&*bytes).context("node is not an object file")?;
        let open = site(&file, "uv_fs_open")?;
        let done = site(&file, "uv_fs_req_cleanup")?;
        let probes = Self { group: format!("bench_{}", std::process::id()), node, open };
        let (group, node) = (&probes.group, probes.node.display());
        append(&format!("p:{group}/open {node}:{open:#x} {OPEN_ARGUMENTS}"))?;
        append(&format!("p:{group}/done {node}:{done:#x} {DONE_ARGUMENTS}"))?;
        Ok(probes)
    }

    /// perf's name of the event on `uv_fs_open`.
    pub(crate) fn open(&self) -> String {
        format!("{}:open", self.group)
    }

    /// perf's name of the event on `uv_fs_req_cleanup`.
    pub(crate) fn done(&self) -> String {
        format!("{}:done", self.group)
    }

    /// The probed file.
    pub(crate) fn node(&self) -> &Path {
        &self.node
    }

    /// Whether one of these dynamic events, as tracefs lists them, is on the same instruction as
    /// perf's on `uv_fs_open`. The kernel prints the offset with all 16 digits.
    pub(crate) fn is_open_site(&self, listed: &[String]) -> bool {
        let place = format!(":0x{:016x}", self.open);
        listed.iter().any(|line| line.split_whitespace().any(|word| word.ends_with(&place)))
    }
}

impl Drop for PerfProbes {
    fn drop(&mut self) {
        for event in ["open", "done"] {
            // Fails for an event that was not made.
            drop(append(&format!("-:{}/{event}", self.group)));
        }
    }
}

// Opened for appending: opening it with truncation removes everybody's events.
fn append(line: &str) -> Result<()> {
    let path = Path::new(TRACEFS).join("dynamic_events");
    let mut file = OpenOptions::new().append(true).open(&path).context("cannot open tracefs")?;
    file.write_all(line.as_bytes()).with_context(|| format!("the kernel refuses `{line}`"))
}

// The file offset of the function's first `push %rbp`. Both functions begin with it, or with
// `test; je` and then with it; looking for the byte would be wrong for a function in general.
fn site(file: &object::File<'_>, function: &str) -> Result<u64> {
    let mut symbols = file.symbols().chain(file.dynamic_symbols());
    let address = symbols
        .find(|symbol| symbol.name() == Ok(function) && symbol.address() != 0)
        .with_context(|| format!("node has no symbol {function}: is libuv a shared library?"))?
        .address();
    for segment in file.segments() {
        let (in_file, _) = segment.file_range();
        let Some(inside) = address.checked_sub(segment.address()) else { continue };
        let Some(code) = segment.data()?.get(usize::try_from(inside)?..) else { continue };
        if let Some(slide) = code.iter().take(LONGEST_SLIDE).position(|byte| *byte == PUSH_RBP) {
            return Ok(in_file + inside + u64::try_from(slide)?);
        }
    }
    bail!("{function} does not begin as it is known to")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_instruction_is_another_site() {
        let probes = PerfProbes { group: "none".into(), node: "/bin/node".into(), open: 0xabc };
        let listed = |place: &str| vec![format!("p:nrec_1/a /bin/node:{place} req=%si:x64")];
        assert!(probes.is_open_site(&listed("0x0000000000000abc")));
        assert!(!probes.is_open_site(&listed("0x0000000000000ab3")));
        assert!(!probes.is_open_site(&[]));
    }
}
