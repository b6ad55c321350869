//! Caps on every untrusted length. A reader that meets a larger number refuses that piece, counts
//! it and goes on; it never allocates first and checks later.

/// Upper bounds for everything whose size comes out of a file or out of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of one chunk after decompression.
    pub chunk_bytes: usize,
    /// Bytes of one string (path, symbol name, argument).
    pub string_bytes: usize,
    /// Frames in one stack. The kernel's own limit is 127 (`sysctl kernel.perf_event_max_stack`).
    pub stack_depth: usize,
    /// Entries of one interned table (strings, frames, stacks, threads, …) over the whole file.
    pub table_entries: usize,
    /// Samples over the whole file.
    pub samples: usize,
    /// Bytes of one line of a JIT map.
    pub jit_line_bytes: usize,
    /// Bytes that are read of one JIT map file.
    pub jit_map_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            chunk_bytes: 64 << 20,
            string_bytes: 64 << 10,
            stack_depth: 4096,
            table_entries: 16 << 20,
            samples: 1 << 31,
            jit_line_bytes: 16 << 10,
            jit_map_bytes: 512 << 20,
        }
    }
}
