//! Recordings of other tools, turned into our own capture in memory. Everything behind the import is
//! then one path. Knows no report and no output.

pub mod perfdata;
