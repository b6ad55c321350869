//! The processes that are recorded: what /proc says of them, and the files they have mapped.

pub mod companion;
pub mod holdings;
pub mod jit_map;
pub mod launch;
pub mod objects;
pub mod procfs;
pub(crate) mod v8_flags;
