//! Compares the V8 reader with the observed process's own word. Needs root.
//!
//! The load is in `fixtures/v8-truth`; run `npm ci` there once. FOLDER below is that folder, SCRIPT a
//! path in it and NODE the path of a `node` binary.
//!
//! - `cargo run --release -p recorder --example v8_truth -- probe NODE FOLDER SECONDS [EVERY]
//!   [DELAY_MS]`: `truth.js` logs the call sites of an `Error` and calls `os.uptime()`, where a uprobe
//!   takes the stack, at every EVERY-th chance (7); the k-th sample is compared with the k-th log,
//!   frame by frame. The ring is emptied each DELAY_MS (10).
//! - `... cpu NODE HZ FOLDER SCRIPT [ARG]...`: time samples of a process that is started with perf-map
//!   flags; names are compared with the map's. For `truth.js` the ARGs are a log file and seconds;
//!   `native.js` (seconds) has much native code on its stacks.
//! - `... layout NODE SECONDS SCRIPT [ARG]...`: concludes the object layout of a process that has run
//!   for SECONDS as if its version were unknown, and compares it with the table's row.
//! - `... fuzz NODE ROUNDS SCRIPT [ARG]...`: walks over what was read of a real process, with flipped
//!   bits.
//! - `... look COMMAND [ARG]...` or `... look PID`: says what JavaScript engine a process runs.
//! - `... plain NODE HZ FOLDER SCRIPT [ARG]...`: the same without flags; counts frames without a name.
//! - `... hot NODE SECONDS FOLDER SCRIPT [ARG]...`: a uprobe in a script that does hardly anything else
//!   than to call `os.uptime()` (`hot.js`): how many hits a second can be resolved.
//!
//! Environment: `STACK` bytes of stack in a sample (16384; the probe's figures in
//! `docs/decisions/0004-names-from-the-heap.md` are with 24576), `PROBED` the file that has
//! `uv_uptime` when it is not NODE, `RAW` prints the first two stacks, `WORKER` samples the busiest
//! thread beside the main one (for `worker.js`).
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "a measuring program that is run by hand"
)]

mod compare;
mod cpu;
mod fuzz;
mod hot;
mod layout;
mod map;
mod probe;
mod tap;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("probe") if args.len() >= 4 => probe::probe(&args[1..]),
        Some("cpu") if args.len() >= 5 => cpu::cpu(&args[1..], true),
        Some("hot") if args.len() >= 5 => hot::hot(&args[1..]),
        Some("fuzz") if args.len() >= 4 => fuzz::fuzz(&args[1..]),
        Some("look") if args.len() >= 2 => layout::look_at(&args[1..]),
        Some("layout") if args.len() >= 4 => layout::layout(&args[1..]),
        Some("plain") if args.len() >= 5 => cpu::cpu(&args[1..], false),
        _ => panic!("see the head of main.rs for what to say"),
    }
}
