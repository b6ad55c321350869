//! Whether the layout of a version can be concluded without its row, and equals the row then.

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use recorder::v8::census::{self, Census};
use recorder::v8::memory::Process;
use recorder::v8::rows::Row;
use recorder::v8::{V8, look};

use crate::tap::start;

/// Starts NODE with a script and concludes its layout after some seconds.
pub(crate) fn layout(args: &[String]) {
    let (mut child, stdout) = start(&args[0], &[], &args[2..]);
    let mut stdin = child.stdin.take().unwrap();
    let _sent = stdin.write_all(b"go\n");
    std::thread::spawn(move || stdout.lines().for_each(drop));
    std::thread::sleep(Duration::from_secs_f64(args[1].parse().unwrap()));
    let pid = child.id();
    match look(pid) {
        Ok(found) => println!("{found}"),
        Err(error) => println!("{error}; {:?}", error.remedy()),
    }
    let Ok(own) = V8::attach(pid).map(|v8| v8.layout().clone()) else { return };
    let maps = std::fs::read(format!("/proc/{pid}/maps")).unwrap();
    let began = Instant::now();
    let parts = census::parts(pid, &maps);
    let mut memory = Process { pid: pid as i32 };
    let types = own.types;
    let census = Census::take(&mut memory, &parts, 128 << 20, types.map, &[types.script]);
    let (mib, scripts) = (census.bytes >> 20, census.of(types.script).len());
    println!("{scripts} scripts found in {mib} MiB, {:?}", began.elapsed());
    let conclude = |what: &str, allow: &dyn Fn(&Row) -> bool| {
        let began = Instant::now();
        match V8::conclude_layout(pid, allow) {
            Ok((layout, basis)) => println!(
                "{what}: {} {basis}, {:?}",
                if layout == own { "RIGHT" } else { "WRONG" },
                began.elapsed()
            ),
            Err(error) => println!("{what}: REFUSED {error}, {:?}", began.elapsed()),
        }
    };
    conclude("all other rows", &|row| row.version != own.row.version);
    // Each row alone: only one that differs in nothing that matters may be believed.
    let mut versions = Vec::new();
    while let Some(next) = smallest_above(versions.last().copied()) {
        conclude(&format!("row {next:?} alone"), &|row| row.version == next);
        versions.push(next);
    }
    child.kill().unwrap();
    let _status = child.wait();
}

/// Starts a command, or takes a process, and says what its engine is.
pub(crate) fn look_at(args: &[String]) {
    if let Ok(pid) = args[0].parse() {
        match look(pid) {
            Ok(found) => println!("{found}"),
            Err(error) => println!("{error}\n  remedy: {:?}", error.remedy()),
        }
        return;
    }
    let (mut child, _stdout) = start(&args[0], &[], &args[1..]);
    std::thread::sleep(Duration::from_secs(2));
    let began = Instant::now();
    match look(child.id()) {
        Ok(found) => println!("{found}"),
        Err(error) => println!("{error}\n  remedy: {:?}", error.remedy()),
    }
    println!("  {:?}", began.elapsed());
    child.kill().unwrap();
    let _status = child.wait();
}

/// The next version that has a row.
fn smallest_above(last: Option<(u32, u32)>) -> Option<(u32, u32)> {
    recorder::v8::rows::versions().filter(|version| Some(*version) > last).min()
}
