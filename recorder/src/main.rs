//! `nrec`, see [`recorder`].

fn main() -> std::process::ExitCode {
    recorder::cli::main()
}
