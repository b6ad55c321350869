//! From what is wanted to where it sits: functions, files and instructions.

pub mod locate;
pub mod site;
pub mod wanted;
