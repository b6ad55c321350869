//! The program `nanalyze`: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    analyzer::run::main(std::env::args_os())
}
