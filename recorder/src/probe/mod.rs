//! From what is wanted to where it sits: functions, files and instructions.

pub mod locate;
pub mod site;
pub mod through;
pub mod wanted;
