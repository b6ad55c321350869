//! The beginning of a recording: checks the target, says what it will cost, arms, and hands over to
//! the loop. Whatever fails here leaves nothing behind.

mod capture;
mod targets;

use std::collections::HashSet;
use std::io::PipeWriter;

use formats::capture::Remark;
use formats::catalogue::{self, LIBC};

use super::arm::{Arms, CPU_EVENT, OpenMode, Sampling};
use super::attrs::{self, UserStacks};
use super::budget::Budget;
use super::error::RecordError;
use super::ingest::Ingest;
use super::javascript;
use super::life::Life;
use super::output::Output;
use super::run::Session;
use super::sink::Sink;
use super::status::Console;
use super::summary::Summary;
use super::syscalls::{self, POOL_EVENTS, Tracepoint, Whose};
use crate::plan::{RecordPlan, Target};
use crate::probe::locate;
use crate::probe::wanted::Wanted;
use crate::process::objects::Objects;
use crate::process::{jit_map, launch, procfs};
use crate::sys::attr::{EventAttr, EventSource, Inherit};
use crate::sys::perf::{PerfFd, best_cpu_source};
use crate::sys::signals::Signals;
use crate::sys::spawn::PendingChild;
use crate::sys::{clock, cpus, rlimit};
use crate::tracefs::{DynamicEvents, Tracefs, sweep_stale};

/// Threads that may begin later and have events of their own, for which descriptors are allowed.
const LATER_THREADS: u64 = 64;

/// Records as planned.
///
/// # Errors
/// The recording could not begin. What goes wrong later is told in the summary: what has been
/// recorded is kept.
pub fn record(plan: &RecordPlan, console: &mut Console) -> Result<Summary, RecordError> {
    record_for(plan, None, || Ok(()), console)
}

/// Records for somebody who reads along through `pipe`, and who is asked for by `begun` when all is in
/// place: where a recording cannot begin, nobody need come.
///
/// # Errors
/// As [`record`], or what `begun` says.
pub fn record_for(
    plan: &RecordPlan,
    pipe: Option<PipeWriter>,
    begun: impl FnOnce() -> Result<(), RecordError>,
    console: &mut Console,
) -> Result<Summary, RecordError> {
    // Before anything else: no signal shall end us between arming and the clean-up.
    let signals = Signals::block_and_open()?;
    if let Target::Attach { pids, .. } = &plan.target {
        pids.iter().try_for_each(|&pid| targets::check(pid))?;
    }
    let wanted = wanted(plan);
    let dynamic = if wanted.is_empty() { None } else { Some(prepare_tracefs(console)?) };
    let (output, file) = match &plan.output {
        Some(path) => Output::create(path).map(|(output, file)| (Some(output), Some(file)))?,
        None => (None, None),
    };
    let begin = |console: &mut Console| {
        let reader = pipe.as_ref().map(PipeWriter::try_clone).transpose()?;
        let sink = Sink::new(file, pipe)?;
        let session = start(plan, wanted, dynamic, (sink, reader), signals, console)?;
        begun()?;
        Ok((output.as_ref().map_or(Ok(None), Output::publish)?, session))
    };
    let started = begin(console);
    match started {
        Ok((kept, session)) => {
            if let Some(kept) = kept {
                console.say(&format!("the older capture is kept as {}", kept.display()));
            }
            say_armed(plan, console);
            Ok(session.run(console))
        }
        Err(error) => {
            output.iter().for_each(Output::abandon);
            Err(error)
        }
    }
}

/// Whoever waits for the probes to be in place, a person or a script, waits for this line.
fn say_armed(plan: &RecordPlan, console: &mut Console) {
    let Target::Attach { pids, during } = &plan.target else { return };
    if during.is_empty() {
        let pids: Vec<_> = pids.iter().map(ToString::to_string).collect();
        let end = if plan.duration.is_some() { "" } else { "; Ctrl-C ends it" };
        console.say(&format!("recording process {}{end}", pids.join(", ")));
    }
}

fn wanted(plan: &RecordPlan) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    if plan.files {
        wanted.extend(Wanted::set("fs", CPU_EVENT + 1));
    }
    if plan.libc {
        let event = wanted.last().map_or(CPU_EVENT + 1, Wanted::next_event);
        wanted.extend(Wanted::set(LIBC, event));
    }
    for probe in &plan.probes {
        let event = wanted.last().map_or(CPU_EVENT + 1, Wanted::next_event);
        wanted.push(Wanted::from_spec(event, probe));
    }
    wanted
}

/// The tracepoints of system calls, with event ids after those of all probes.
fn tracepoints(plan: &RecordPlan, wanted: &[Wanted]) -> (Whose, Vec<Tracepoint>) {
    let first = wanted.iter().map(Wanted::next_event).max().unwrap_or(CPU_EVENT + 1);
    let whose = if plan.syscalls { Whose::Everybody } else { Whose::OtherThreads };
    let tracepoints = if plan.files { syscalls::tracepoints(whose, first) } else { Vec::new() };
    (whose, tracepoints)
}

/// Prepares them. Beside file operations they only say where time went: a kernel without them is no
/// reason not to record.
fn arm_tracepoints(
    arms: &mut Arms,
    ingest: &mut Ingest<Sink>,
    whose: Whose,
    tracepoints: &[Tracepoint],
) -> Result<(), RecordError> {
    if tracepoints.is_empty() {
        return Ok(());
    }
    let tracefs = Tracefs::locate()?;
    for tracepoint in tracepoints {
        match arms.tracepoint(ingest, &tracefs, (whose, tracepoint)) {
            Err(RecordError::Tracefs(error)) if whose == Whose::OtherThreads => {
                let text = format!("the time in system calls is not recorded: {error}");
                ingest.remark(Remark { code: "no-syscalls".into(), text, count: 1 });
                return Ok(());
            }
            Err(RecordError::Tracefs(cause)) => return Err(RecordError::NoSyscalls(cause)),
            other => other?,
        }
    }
    Ok(())
}

/// Finds tracefs and removes what dead recorders left.
fn prepare_tracefs(console: &mut Console) -> Result<DynamicEvents, RecordError> {
    let tracefs = Tracefs::mount_if_missing()?;
    let dynamic = DynamicEvents::new(tracefs.clone())?;
    // What keeps the sweep from working keeps the probes from being armed, which will be said.
    if let Ok(report) = sweep_stale(&tracefs)
        && !report.removed.is_empty()
    {
        let count = report.removed.len();
        console.say(&format!("removed {count} dynamic events that a killed recorder had left"));
    }
    Ok(dynamic)
}

fn start<'p>(
    plan: &'p RecordPlan,
    wanted: Vec<Wanted>,
    dynamic: Option<DynamicEvents>,
    (sink, reader): (Sink, Option<PipeWriter>),
    signals: Signals,
    console: &mut Console,
) -> Result<Session<'p>, RecordError> {
    let online = cpus::online_cpus()?;
    let (asked, during) = match &plan.target {
        Target::Attach { pids, during } => (pids.clone(), during.as_slice()),
        Target::Launch { command } => (Vec::new(), command.as_slice()),
    };
    let pids = targets::everybody(&asked, plan.inherit);
    let launching = matches!(plan.target, Target::Launch { .. });
    // Before arming takes its time: a target that ends meanwhile shall end the recording.
    let watched = targets::watch(&pids);
    if watched.is_empty() && !launching {
        let pid = asked.first().copied().unwrap_or_default();
        return Err(RecordError::NoSuchProcess { pid });
    }
    let threads: usize = pids.iter().map(|&pid| procfs::threads(pid).len()).sum();
    let facts = pids.iter().filter_map(|&pid| procfs::facts(pid).ok());
    let targets: Vec<_> = facts
        .map(|facts| {
            let has_map = jit_map::can_be_read(&facts);
            (facts, has_map)
        })
        .collect();
    let js = javascript::choose(plan.js, &targets);
    let stacks = capture::user_stacks(plan, js);
    let copied = stacks != UserStacks::Callchain;
    let (whose, tracepoints) = tracepoints(plan, &wanted);
    let of_probe = |stack| attrs::count(stacks, stack) as u64;
    let events = 1
        + wanted.iter().map(|wanted| of_probe(wanted.stack)).sum::<u64>()
        + tracepoints.iter().map(|tracepoint| of_probe(tracepoint.stack)).sum::<u64>();
    let cpus = online.len() as u64;
    let budget =
        Budget::new(events, threads.max(1) as u64, cpus, copied).with_rings(plan.ring_bytes);
    let later = if whose == Whose::OtherThreads { LATER_THREADS * POOL_EVENTS * cpus } else { 0 };
    let allowed = rlimit::raise_open_files(budget.open_files() + later)?.soft;
    if allowed < budget.open_files() {
        return Err(RecordError::TooManyDescriptors { budget: budget.to_string(), allowed });
    }
    console.say(&format!("arming {budget}"));
    // Those of threads that run now are in the budget.
    let for_singles =
        POOL_EVENTS * threads as u64 * cpus + allowed.saturating_sub(budget.open_files());

    let sampling = plan.frequency.map(|frequency| sampling(frequency, console));
    let child = match during.split_first() {
        Some((program, arguments)) => Some(PendingChild::spawn(program, arguments)?),
        None => None,
    };
    let mut ingest = capture::open(plan, sink, &budget, child.as_ref(), &online, js)?;
    if let Some(text) = javascript::no_map(plan.js, &targets) {
        warn("no-perf-map", text.to_owned(), &mut ingest, console);
    }
    ingest.follows_files = plan.files || plan.libc;
    let now = ingest_start(&mut ingest, &pids)?;
    ingest.world.objects.read_large();
    if plan.frequency.is_some() {
        ingest.naming.read_kernel();
    }
    let inherit = if plan.inherit { Inherit::Children } else { Inherit::Threads };
    let mode = OpenMode { inherit, on_exec: launching, stacks };
    let mut arms = Arms::new(online, mode, &budget, dynamic);
    arms.allow_singles(for_singles);
    arms.carrier(&mut ingest, sampling)?;
    arm_tracepoints(&mut arms, &mut ingest, whose, &tracepoints)?;

    let mut probed = HashSet::new();
    let mut missing = Vec::new();
    let mapped: Vec<u32> = ingest.world.objects.iter().map(|(index, _)| index).collect();
    let mut before_exec = Objects::default();
    let mut among = mapped.clone();
    if launching {
        let files = launch::files_of(during);
        among = files.iter().filter_map(|file| before_exec.intern_path(file)).collect();
        for file in before_exec.iter().map(|(_index, file)| file).filter(|_| copied) {
            // What cannot be read is said when it is mapped.
            let _said_later = ingest.heaps.learn(file);
        }
        before_exec.read_large();
        ingest.world.objects.expect(&mut before_exec);
    }
    probed.extend(identities(if launching { &before_exec } else { &ingest.world.objects }, &among));
    for wanted in &wanted {
        let objects = if launching { &before_exec } else { &ingest.world.objects };
        let sites = locate::sites(wanted, objects, &among, plan.allow_unsafe)?;
        if !sites.is_empty() {
            arms.probe(&mut ingest, wanted, &sites)?;
        } else if launching
            || (wanted.set == "fs" && (plan.frequency.is_some() || plan.syscalls))
            || catalogue::armed_as(&wanted.name).next().is_some()
                && !catalogue::is_needed(&wanted.name)
        {
            // It may be mapped later; what never is will be said in the summary.
            missing.push(wanted.name.clone());
        } else if wanted.set == "fs" {
            return Err(RecordError::NoLibuv { pid: asked.first().copied().unwrap_or_default() });
        } else {
            return Err(locate::not_found(wanted, &ingest.world.objects, &mapped).into());
        }
    }
    if let Some(child) = child.as_ref().filter(|_child| launching) {
        arms.open_thread(&mut ingest, child.pid() as u32, 0)?;
    } else if targets::open(&mut arms, &mut ingest, &asked, plan.inherit, now)? == 0 {
        let pid = asked.first().copied().unwrap_or_default();
        return Err(RecordError::NoSuchProcess { pid });
    }
    // Not before: what is opened while probes are being armed would be missed.
    let known: Vec<u32> = ingest.world.pids().collect();
    known.into_iter().for_each(|pid| ingest.look_at_holdings(pid));
    if let Some(text) = arms.small_rings() {
        warn("small-rings", text, &mut ingest, console);
    }
    let life = match child {
        Some(child) => {
            let child = child.release()?;
            if launching { Life::Launched(child) } else { Life::During { child, targets: watched } }
        }
        None => Life::Attached(watched),
    };
    Session::new(plan, ingest, arms, signals, life, wanted, &tracepoints, probed, missing, reader)
}

/// Says at once what the report will say too.
fn warn(code: &str, text: String, ingest: &mut Ingest<Sink>, console: &mut Console) {
    console.say(&text);
    ingest.remark(Remark { code: code.into(), text, count: 1 });
}

/// Processes that exist are taken in with what they have mapped.
fn ingest_start(ingest: &mut Ingest<Sink>, pids: &[u32]) -> Result<u64, RecordError> {
    let now = clock::monotonic_ns()?;
    for &pid in pids {
        ingest.adopt(pid, now);
    }
    Ok(now)
}

fn identities(objects: &Objects, among: &[u32]) -> Vec<(u64, u64)> {
    among.iter().filter_map(|&index| objects.get(index)?.device_and_inode()).collect()
}

/// Cycles where there is a PMU, else the clock; without the kernel where that is not allowed.
fn sampling(frequency: u32, console: &mut Console) -> Sampling {
    let source = best_cpu_source();
    if source == EventSource::CpuClock {
        console.say("no hardware cycle counter here: sampling by cpu-clock");
    }
    let probe = EventAttr { callchain: true, ..EventAttr::new(source) };
    let exclude_kernel = PerfFd::open(&probe, 0, -1).is_err();
    if exclude_kernel {
        console.say("kernel frames are left out: kernel.perf_event_paranoid does not allow them");
    }
    Sampling { source, frequency, exclude_kernel }
}
