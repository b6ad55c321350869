//! When a joined operation is given out, and what is kept of it: what it is about may depend on
//! operations that began earlier and are not complete, and later ones may depend on it.
//!
//! The names of open files and folders are found by the same code for a whole capture and for a part of
//! one: a part has before it the operations that still matter, the *context*.

use std::collections::{BTreeMap, HashMap, HashSet};

use formats::capture::{Capture, Holding, Moved};

use super::folders::{self, CHANGE, Folder};
use super::handles::{self, Alive, CLOSING, OPENING};
use super::joining::{Begun, Joining};
use super::operations::{Operation, Operations};

/// Halves of something whose other half was lost: so many are kept where memory is bounded.
const STRAY: usize = 1 << 16;
/// Changes of the working folder that are kept of a process.
const CHANGES: usize = 1 << 10;

/// How long a join waits for what may never come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How long an operation waits for others that began before it and may tell what it is about,
    /// nanoseconds of the recording.
    pub waits_ns: u64,
    /// How many operations may be under way; of more, the oldest are given up.
    pub pending: usize,
}

impl Patience {
    /// All will be given out at once.
    pub const ENDLESS: Self = Self { waits_ns: u64::MAX, pending: usize::MAX };
    /// Somebody waits for the lines, and the recording may last for days.
    pub const LIVE: Self = Self { waits_ns: 100_000_000, pending: 1 << 16 };
}

/// Operations that have been completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completed<'c> {
    /// The operations, from `from` on; before these such as were given out earlier and opened what
    /// these are about. Places are places among all of them.
    pub found: Operations<'c>,
    /// Where those begin that have not been given out before.
    pub from: usize,
}

/// Operations whose last part has come, in the order in which it came. Two columns, so that those of a
/// whole capture are turned into the result where they are.
#[derive(Debug, Default)]
pub(super) struct Ready {
    /// All but the paths.
    operations: Vec<Operation<'static>>,
    about: Vec<About>,
}

/// What is known of an operation beside itself.
#[derive(Debug, Clone, Copy)]
struct About {
    place: usize,
    /// The paths, strings of the capture; 0 for none.
    path: u32,
    new_path: u32,
    /// What opening a directory gave.
    address: Option<u64>,
}

impl Ready {
    pub(super) fn push(&mut self, place: usize, begun: Begun) {
        let Begun { operation, path, new_path, address, .. } = begun;
        self.operations.push(operation);
        self.about.push(About { place, path, new_path, address });
    }

    /// The operation at a place, which has become ready not long ago.
    pub(super) fn newest(&mut self, place: usize) -> Option<&mut Operation<'static>> {
        let at = self.about.iter().rposition(|about| about.place == place)?;
        self.operations.get_mut(at)
    }

    fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        let rows = self.operations.iter().zip(&self.about);
        rows.map(|(&operation, &about)| Row { operation, about })
    }
}

/// An operation among others that it may depend on.
#[derive(Debug, Clone, Copy)]
struct Row {
    operation: Operation<'static>,
    about: About,
}

/// What is kept of operations that have been given out.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// Those that opened what may still be asked about, closed what may, or changed the folder; by place.
    rows: Vec<Row>,
    /// Something has been given out.
    begun: bool,
    /// Descriptors from before the recording that are something else by now.
    gone: HashSet<(u32, i64)>,
    /// Processes whose folder is not followed any more.
    lost: HashSet<u32>,
    /// Processes that have ended.
    ended: HashSet<u32>,
}

impl Context {
    /// Whether what /proc said still holds.
    fn holds(&self, holding: &Holding) -> bool {
        match holding.number.checked_sub(1) {
            Some(number) => !self.gone.contains(&(holding.process, i64::from(number))),
            None => !self.lost.contains(&holding.process),
        }
    }
}

/// Whether an operation is given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It was before.
    Given,
    /// It is now.
    New,
    /// What it is about may still change.
    Held,
    /// It is not complete.
    UnderWay,
}

/// By process, the first operation under way that opens something, that changes the folder, and the
/// first of all.
#[derive(Debug, Default)]
struct First {
    opening: HashMap<u32, usize>,
    changing: HashMap<u32, usize>,
    any: HashMap<u32, usize>,
}

impl First {
    fn of(under_way: &BTreeMap<usize, Operation<'static>>) -> Self {
        let mut first = Self::default();
        for (&place, operation) in under_way {
            let process = operation.process;
            first.any.entry(process).or_insert(place);
            if OPENING.contains(&operation.name) {
                first.opening.entry(process).or_insert(place);
            } else if operation.name == CHANGE {
                first.changing.entry(process).or_insert(place);
            }
        }
        first
    }

    /// Whether what an operation is about may still be told by an earlier one.
    fn concerns(&self, place: usize, operation: &Operation<'_>) -> bool {
        let by = if operation.is_by_handle() { &self.opening } else { &self.changing };
        by.get(&operation.process).is_some_and(|&before| before < place)
    }
}

/// When /proc was read. What it said is understood by all that was done until then.
struct Looks {
    time_ns: HashMap<u32, u64>,
    /// Processes of which something that began before is under way.
    early: HashSet<u32>,
}

impl Looks {
    fn new(capture: &Capture, under_way: &BTreeMap<usize, Operation<'static>>) -> Self {
        let times = capture.holdings.iter().map(|holding| (holding.process, holding.time_ns));
        let mut looks = Self { time_ns: times.collect(), early: HashSet::new() };
        let early = under_way.values().filter(|operation| looks.is_early(operation));
        looks.early = early.map(|operation| operation.process).collect();
        looks
    }

    fn is_early(&self, operation: &Operation<'_>) -> bool {
        let time_ns = self.time_ns.get(&operation.process);
        time_ns.is_some_and(|&time_ns| operation.start_ns < time_ns)
    }

    /// Whether what an operation is about may still be told by others that began before /proc was read.
    fn concern(&self, operation: &Operation<'_>, now_ns: u64) -> bool {
        let process = operation.process;
        self.time_ns.get(&process).is_some_and(|&time_ns| time_ns > now_ns)
            || self.is_early(operation) && self.early.contains(&process)
    }
}

impl Joining {
    /// The operations that have been completed since the last time, by time of their beginning.
    pub fn completed<'c>(&mut self, capture: &'c Capture) -> Completed<'c> {
        while self.pending.len() > self.patience.pending
            && let Some((&oldest, _)) = self.pending.first_key_value()
        {
            self.complete(oldest);
        }
        if self.new_paths.len() > STRAY {
            self.new_paths.clear();
        }
        self.pool.forget(STRAY);
        self.give_out(capture)
    }

    /// The same where nothing comes for a while: what is complete is not held any longer.
    pub fn completed_while_idle<'c>(&mut self, capture: &'c Capture) -> Completed<'c> {
        let (patience, now_ns) = (self.patience, self.now_ns);
        (self.patience.waits_ns, self.now_ns) = (0, u64::MAX);
        let completed = self.give_out(capture);
        (self.patience, self.now_ns) = (patience, now_ns);
        completed
    }

    /// Operations of a process that has ended will have no result.
    pub fn process_ended(&mut self, process: u32) {
        let of = |(_, begun): &(&usize, &Begun)| begun.operation.process == process;
        let places: Vec<usize> = self.pending.iter().filter(of).map(|(&place, _)| place).collect();
        places.into_iter().for_each(|place| self.complete(place));
        self.pool.process_ended(process);
        self.outside.process_ended(process);
        self.doing.retain(|&(of, _), _| of != process);
        self.context.ended.insert(process);
    }

    /// The strings and the stacks of the capture that will be asked for.
    pub fn in_use(&mut self) -> (HashSet<u32>, HashSet<u32>) {
        let mut strings: HashSet<u32> = self.new_paths.values().map(|new| new.path).collect();
        strings.extend(self.outside.new_paths().map(|path| *path));
        let mut stacks: HashSet<u32> = self.pool.stacks().collect();
        for begun in self.pending.values() {
            strings.extend([begun.path, begun.new_path]);
            stacks.insert(begun.operation.stack);
        }
        for row in self.ready.rows().chain(self.context.rows.iter().copied()) {
            strings.extend([row.about.path, row.about.new_path]);
            stacks.insert(row.operation.stack);
        }
        (strings, stacks)
    }

    /// The capture's strings and stacks have other indexes now.
    pub fn moved(&mut self, moved: &Moved) {
        let pending = self
            .pending
            .values_mut()
            .map(|begun| (&mut begun.operation.stack, &mut begun.path, &mut begun.new_path));
        let ready = self.ready.operations.iter_mut().zip(&mut self.ready.about);
        let context = self.context.rows.iter_mut();
        let complete = ready
            .chain(context.map(|row| (&mut row.operation, &mut row.about)))
            .map(|(operation, about)| (&mut operation.stack, &mut about.path, &mut about.new_path));
        for (stack, path, new_path) in pending.chain(complete) {
            *stack = moved.stack(*stack);
            *path = moved.string(*path);
            *new_path = moved.string(*new_path);
        }
        for new in self.new_paths.values_mut() {
            new.path = moved.string(new.path);
        }
        for path in self.outside.new_paths() {
            *path = moved.string(*path);
        }
        self.pool.moved(moved);
    }

    /// Gives out what is ready and certain, and keeps what matters for the rest.
    fn give_out<'c>(&mut self, capture: &'c Capture) -> Completed<'c> {
        let patient_ns = self.now_ns.saturating_sub(self.patience.waits_ns);
        let is_waited_for = |operation: &Operation<'_>| operation.start_ns >= patient_ns;
        let mut under_way: BTreeMap<usize, Operation<'static>> = self
            .pending
            .iter()
            .filter(|(_, begun)| is_waited_for(&begun.operation))
            .map(|(&place, begun)| (place, begun.operation))
            .collect();
        let looks = Looks::new(capture, &under_way);
        let now_ns = self.now_ns;
        let first = First::of(&under_way);
        let doubtful: HashSet<usize> = self.outside.doubtful().collect();
        let is_held = |row: &Row| {
            let Operation { start_ns, latency_ns, .. } = row.operation;
            start_ns.saturating_add(latency_ns.unwrap_or(0)) >= patient_ns
                && (doubtful.contains(&row.about.place)
                    || looks.concern(&row.operation, now_ns)
                    || first.concerns(row.about.place, &row.operation))
        };
        let ready = std::mem::take(&mut self.ready);
        let mut rows: Vec<(Row, State)> =
            self.context.rows.iter().map(|&row| (row, State::Given)).collect();
        for row in ready.rows() {
            let held = is_held(&row);
            rows.push((row, if held { State::Held } else { State::New }));
            if held {
                under_way.insert(row.about.place, row.operation);
                self.ready.operations.push(row.operation);
                self.ready.about.push(row.about);
            }
        }
        // What is closed is closed from the beginning on, whatever comes of it.
        let closing = self.pending.iter().filter(|(_, b)| CLOSING.contains(&b.operation.name));
        rows.extend(closing.map(|(&place, &begun)| {
            let Begun { operation, path, new_path, address, .. } = begun;
            let about = About { place, path, new_path, address };
            (Row { operation, about }, State::UnderWay)
        }));
        rows.sort_unstable_by_key(|(row, _)| row.about.place);
        let (operations, folders, _) = self.name(capture, rows.iter().map(|(row, _)| row));
        self.keep(capture, &rows, &under_way);
        self.context.begun = true;
        // What was given out before comes first, if it is asked about.
        let is_new = |at: usize| rows.get(at).is_some_and(|&(_, state)| state == State::New);
        let new = || (0..rows.len()).filter(|&at| is_new(at));
        let mut order: Vec<usize> = new()
            .filter_map(|at| operations.get(at)?.opened_by)
            .filter(|&at| !is_new(at))
            .collect();
        order.sort_unstable();
        order.dedup();
        let from = order.len();
        order.extend(new());
        let places: HashMap<usize, usize> = order.iter().copied().zip(0..).collect();
        let operations = order.iter().filter_map(|&at| operations.get(at).copied());
        let operations = operations.map(|operation| Operation {
            opened_by: operation.opened_by.and_then(|at| places.get(&at).copied()),
            ..operation
        });
        let operations = operations.collect();
        Completed { found: Operations { operations, folders, ..Operations::default() }, from }
    }

    /// Gives out all that is ready: nothing more will come.
    pub(super) fn give_out_all<'c>(&mut self, capture: &'c Capture) -> Completed<'c> {
        if self.context.begun {
            return self.completed_while_idle(capture);
        }
        let Ready { mut operations, mut about } = std::mem::take(&mut self.ready);
        // Each place is there once: all is brought to its place by exchanges.
        for at in 0..about.len() {
            while let Some(place) = about.get(at).map(|about| about.place)
                && place != at
                && place < about.len()
            {
                operations.swap(at, place);
                about.swap(at, place);
            }
        }
        let mut operations: Vec<Operation<'c>> = operations;
        for (operation, about) in operations.iter_mut().zip(&about) {
            operation.path = capture.string(u64::from(about.path));
            operation.new_path = capture.string(u64::from(about.new_path));
        }
        let addresses = about.iter().enumerate();
        let addresses = addresses.filter_map(|(at, about)| Some((at, about.address?))).collect();
        drop(about);
        handles::name(&mut operations, &addresses, capture.holdings.iter());
        let folders = folders::assign(&mut operations, capture.holdings.iter());
        let found = Operations { operations, folders, ..Operations::default() };
        Completed { found, from: 0 }
    }

    /// Puts paths to operations that are in the order of their beginning.
    fn name<'c, 'r>(
        &self,
        capture: &'c Capture,
        rows: impl Iterator<Item = &'r Row>,
    ) -> (Vec<Operation<'c>>, Vec<Folder>, Alive) {
        let mut addresses: HashMap<usize, u64> = HashMap::new();
        let mut operations: Vec<Operation<'c>> = Vec::new();
        for Row { operation, about } in rows {
            addresses.extend(about.address.map(|address| (operations.len(), address)));
            let path = capture.string(u64::from(about.path));
            let new_path = capture.string(u64::from(about.new_path));
            operations.push(Operation { path, new_path, ..*operation });
        }
        let holdings = capture.holdings.iter().filter(|holding| self.context.holds(holding));
        let alive = handles::name(&mut operations, &addresses, holdings.clone());
        let folders = folders::assign(&mut operations, holdings);
        (operations, folders, alive)
    }

    /// Chooses the context of what comes. Before the first operation of a process that is under way it
    /// is what is open then; from there on all that opens, closes or changes the folder.
    fn keep(
        &mut self,
        capture: &Capture,
        rows: &[(Row, State)],
        under_way: &BTreeMap<usize, Operation<'static>>,
    ) {
        let first = First::of(under_way);
        let looks = Looks::new(capture, under_way);
        let is_settled = |row: &Row| {
            let process = row.operation.process;
            let before = first.any.get(&process);
            before.is_none_or(|&before| row.about.place < before) && !looks.early.contains(&process)
        };
        let settled = || rows.iter().map(|(row, _)| row).filter(|row| is_settled(row));
        let (_, _, alive) = self.name(capture, settled());
        let mut kept: Vec<Row> = Vec::new();
        let mut changes: HashMap<u32, usize> = HashMap::new();
        for (at, row) in settled().enumerate() {
            let changed = row.operation.name == CHANGE && row.operation.errno().is_none();
            if alive.openers.contains(&at) || changed {
                kept.push(*row);
            }
            *changes.entry(row.operation.process).or_default() += usize::from(changed);
        }
        kept.extend(rows.iter().filter_map(|(row, state)| {
            let name = row.operation.name;
            let matters = OPENING.contains(&name) || CLOSING.contains(&name) || name == CHANGE;
            let is_given = matches!(state, State::Given | State::New);
            (matters && is_given && !is_settled(row)).then_some(row)
        }));
        // No folder is better than a wrong one.
        changes.retain(|_, count| *count > CHANGES);
        self.context.lost.extend(changes.into_keys());
        let lost = &self.context.lost;
        kept.retain(|row| row.operation.name != CHANGE || !lost.contains(&row.operation.process));
        for holding in &capture.holdings {
            let Some(number) = holding.number.checked_sub(1) else { continue };
            let handle = (holding.process, i64::from(number));
            let is_certain =
                holding.time_ns <= self.now_ns && !looks.early.contains(&holding.process);
            if is_certain && !alive.held.contains(&handle) {
                self.context.gone.insert(handle);
            }
        }
        let ended = std::mem::take(&mut self.context.ended);
        let runs = |process: &u32| !ended.contains(process);
        kept.retain(|row| runs(&row.operation.process));
        self.context.gone.retain(|(process, _)| runs(process));
        self.context.lost.retain(runs);
        self.context.rows = kept;
    }
}
