//! `nrec list` on the command line: its arguments, messages and exit status.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use clap::Args;
use formats::wildcard::Wildcard;

use super::{DONE, FAILED, INCOMPLETE};
use crate::list::{self, Choice, ListPlan, Source};
use crate::session::status::Console;

/// Arguments of `nrec list`.
#[derive(Debug, Args)]
#[command(override_usage = "nrec list [OPTIONS] (-p PID | FILE) [PATTERN]")]
pub(super) struct ListArgs {
    /// Process whose mapped files are searched
    #[arg(short, long = "pid", value_name = "PID")]
    pid: Option<u32>,
    /// Functions of libuv
    #[arg(long, group = "choice")]
    uv: bool,
    /// All functions; this is the default
    #[arg(long, group = "choice")]
    functions: bool,
    /// Functions whose arguments are known
    #[arg(long, group = "choice")]
    catalogue: bool,
    /// Add readable names of C++ and Rust functions, as a comment that is no part of the EVENT
    #[arg(short = 'C', long)]
    demangle: bool,
    /// Without -p: the file to search, a path or the name of a program. Then a name, mangled or
    /// readable, in which * ? [a-z] stand for other text
    #[arg(value_name = "FILE | PATTERN", num_args = 0..=2)]
    words: Vec<OsString>,
}

fn plan(args: ListArgs) -> Result<ListPlan, &'static str> {
    let mut words = args.words.into_iter();
    let source = match args.pid {
        Some(pid) => Source::Process(pid),
        None => Source::File(words.next().ok_or("list what? Use -p PID, or name a FILE")?),
    };
    let pattern = words.next().map(|word| Wildcard::new(word.as_bytes()));
    if words.next().is_some() {
        return Err("only one PATTERN can be given; with -p PID there is no FILE");
    }
    let choice = match (args.uv, args.catalogue) {
        (true, _) => Choice::Uv,
        (_, true) => Choice::Catalogue,
        _ => Choice::Functions,
    };
    Ok(ListPlan { source, choice, pattern, demangle: args.demangle })
}

/// Runs `nrec list` and returns its exit status.
pub(super) fn run(args: ListArgs) -> u8 {
    let mut console = Console::default();
    let listing = match plan(args) {
        Ok(plan) => list::list(&plan),
        Err(text) => {
            console.say(text);
            return FAILED;
        }
    };
    let listing = match listing {
        Ok(listing) => listing,
        Err(error) => {
            console.say(&error.to_string());
            return FAILED;
        }
    };
    listing.notes.iter().for_each(|note| console.say(note));
    match list::print(&listing, &mut std::io::stdout().lock()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            console.say(&format!("cannot write the list: {error}"));
            FAILED
        }
        _ if listing.lines.is_empty() => FAILED,
        _ if listing.incomplete => INCOMPLETE,
        _ => DONE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        list: ListArgs,
    }

    #[test]
    fn the_contracts_forms_are_understood() {
        let parse = |line: &str| Line::try_parse_from(line.split(' ').skip(1));
        let list = |line: &str| plan(parse(line).unwrap().list);
        let uv = list("nrec list -p 7 --uv uv_fs_*").unwrap();
        assert_eq!((uv.source, uv.choice), (Source::Process(7), Choice::Uv));
        assert_eq!(uv.pattern, Some(Wildcard::new(b"uv_fs_*")));
        let file = list("nrec list node").unwrap();
        assert_eq!((file.source, file.pattern), (Source::File("node".into()), None));
        assert_eq!(file.choice, Choice::Functions);
        assert!(list("nrec list").is_err() && list("nrec list -p 7 a b").is_err());
        assert!(parse("nrec list node --uv --catalogue").is_err());
        assert!(parse("nrec list a b c").is_err());
    }
}
