//! DESIGN §7: the buffer's rows, batches, epoch and acknowledgements, on a PostgreSQL that can crash.
//!
//! What is abstracted away, and why that is safe:
//! - One stream, and a table that is a list of rows and one token. A commit lands if the token is the one that its task
//!   knows, which is what the other model (`commits`) shows of the protocol. Commits may land late, and after their task.
//! - An unknown outcome restarts the task; looking for attempts is the other model's matter. Announce and resume are one
//!   step for the same reason.
//! - A lost commit is one that never lands, a pause is a task that does not move, and a crash is one that never moves
//!   again or starts anew.
//! - The write-ahead log is flushed as a whole: by every synchronous commit, and by itself at any moment. A crash loses what
//!   came after the last flush, with the sequence's numbers. This is the worst that a crash can do: PostgreSQL
//!   writes ahead up to 32 numbers, so that it skips numbers where the model uses them again.
//! - A failover loses everything after some moment, as a promoted standby does that lagged behind. The former primary is gone.
//! - Ids are never forgotten by the task that emitted them. The code forgets what is acknowledged, but no snapshot returns
//!   an acknowledged row anyway; a snapshot that overlaps an acknowledgement is out of the model's sight.
//! - `resume` acknowledges in one step. The code takes several where there are many batches, each of which leaves the
//!   offset listed until the last.
//! - Rows of one transaction are as good as rows of many, as it is the lateness of ids that matters; a key's rows are
//!   written one after the other, as their row locks make writers do.
//! - Marking stands for deleting too: both take a row out of every later snapshot.

use stateright::{Model, Property};

/// A counter, and what stands for its random bits.
type Epoch = (u8, u8);
/// A set of ids or of rows, one bit each.
type Set = u16;

/// A batch's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Offset {
    epoch: Epoch,
    batch: u8,
}

impl Offset {
    /// Whether acknowledging this one deletes another batch.
    fn passes(self, other: Self) -> bool {
        (other.epoch.0, other.batch) <= (self.epoch.0, self.batch)
    }
}

/// Rules of DESIGN §7 that can be left out.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Batch rows are committed synchronously.
    pub synchronous: bool,
    /// What was read on a session that broke is discarded; a batch is listed on a session opened before its snapshot.
    pub same_session: bool,
    /// A task acknowledges on the sessions of its start and no others. DESIGN does not say so; the code does it.
    pub same_acknowledger: bool,
    /// A batch lists its ids and not the span from the lowest to the highest.
    pub exact: bool,
    /// Only an acknowledgement deletes batches; without it a start clears away those of earlier epochs.
    pub kept: bool,
    /// Acknowledgements and batch rows are conditional on the epoch.
    pub conditional: bool,
    /// `resume` refuses offsets that the source does not know.
    pub known: bool,
    /// Each snapshot starts again at the lowest unprocessed id; without it at the last id that was read.
    pub lowest: bool,
    /// An epoch is a counter and random bits, not a counter alone.
    pub bits: bool,
    /// A TRUNCATE of the buffer empties the lists and raises the epoch.
    pub trigger: bool,
}

impl Rules {
    pub const ALL: Self = Self {
        synchronous: true,
        same_session: true,
        same_acknowledger: true,
        exact: true,
        kept: true,
        conditional: true,
        known: true,
        lowest: true,
        bits: true,
        trigger: true,
    };
}

/// How often something may happen in a run, of all tasks together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    pub starts: u8,
    pub crashes: u8,
    pub truncates: u8,
    /// Promotions of a standby that had not received everything.
    pub failovers: u8,
}

/// The model and its bounds.
#[derive(Clone, Debug)]
pub struct Buffer {
    pub rules: Rules,
    pub instances: u8,
    pub rows: u8,
    /// Row n has the key n modulo this.
    pub keys: u8,
    /// Rows that a snapshot reads at most.
    pub limit: u32,
    pub budget: Budget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Row {
    Unwritten,
    /// Its transaction is open; it has its id.
    Open(u8),
    Visible(u8),
    /// Undone: its transaction's commit was lost in a crash or failover, or it never committed.
    Undone,
    /// Taken out by a TRUNCATE.
    Truncated,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Listed {
    offset: Offset,
    ids: Set,
    flushed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Database {
    rows: Vec<Row>,
    processed: Set,
    /// Rows whose commits a crash would lose.
    unflushed: Set,
    next_id: u8,
    flushed_next_id: u8,
    epoch: Epoch,
    stored: Option<Offset>,
    batches: Vec<Listed>,
    /// How often it came up again; sessions do not outlive it.
    life: u8,
}

impl Database {
    fn flush(&mut self) {
        self.unflushed = 0;
        self.flushed_next_id = self.next_id;
        for batch in &mut self.batches {
            batch.flushed = true;
        }
    }

    fn crash(&mut self) {
        for (at, row) in self.rows.iter_mut().enumerate() {
            let lost = match row {
                Row::Open(_) => true,
                Row::Visible(_) => self.unflushed & 1 << at != 0,
                _ => false,
            };
            if lost {
                *row = Row::Undone;
            }
        }
        self.unflushed = 0;
        self.next_id = self.flushed_next_id;
        self.batches.retain(|batch| batch.flushed);
        self.life += 1;
    }

    /// Becomes what the standby is, once its open transactions are undone.
    fn fail_over(&mut self, standby: Self) {
        let known = std::mem::replace(self, standby);
        for (row, known) in self.rows.iter_mut().zip(known.rows) {
            if !matches!(row, Row::Visible(_)) && known != Row::Unwritten {
                *row = Row::Undone;
            }
        }
        self.flush();
        self.life = known.life + 1;
    }

    fn acknowledge(&mut self, offset: Offset) {
        for batch in &self.batches {
            if batch.offset.epoch == offset.epoch && batch.offset.batch <= offset.batch {
                for (at, row) in self.rows.iter().enumerate() {
                    if let Row::Visible(id) = row
                        && batch.ids & 1 << id != 0
                    {
                        self.processed |= 1 << at;
                    }
                }
            }
        }
        self.batches.retain(|batch| !offset.passes(batch.offset));
        self.stored = Some(offset);
        self.flush();
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Request {
    instance: u8,
    expected: Option<Offset>,
    offset: Offset,
    rows: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Acknowledgement {
    epoch: Epoch,
    offset: Offset,
}

/// A running task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Task {
    epoch: Epoch,
    life: u8,
    resumed: bool,
    /// The table's token, as this task knows it.
    token: Option<Offset>,
    /// Ids that it read.
    emitted: Set,
    /// The highest of the last snapshot.
    last: u8,
    /// Rows and ids that were read and not listed.
    read: Vec<(u8, u8)>,
    batches: u8,
    /// Listed, and written to the sink.
    written: Vec<u8>,
    /// Its commit is on its way.
    waiting: Option<Offset>,
    succeeded: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Instance {
    Down,
    Up(Box<Task>),
    Fenced,
    /// Stopped, and says what to do.
    Refused,
}

/// Everything at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    database: Database,
    /// What the standby has received.
    standby: Option<Box<Database>>,
    table: Vec<u8>,
    token: Option<Offset>,
    instances: Vec<Instance>,
    flight: Vec<Request>,
    acknowledgements: Vec<Acknowledgement>,
    left: Budget,
}

/// A step; the number is the instance's, or the row's or message's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A writer takes the next id for a row.
    Insert(usize),
    /// Its transaction commits, asynchronously.
    Commit(usize),
    /// The write-ahead log reaches the disk.
    Flush,
    CrashPostgres,
    /// The standby has received everything so far, and will receive no more.
    Replicate,
    /// The standby is promoted.
    FailOver,
    Truncate,
    /// Starts, whatever it was doing: claims an epoch.
    Start(u8),
    /// Loads the table, and resumes.
    Resume(u8),
    /// Takes a snapshot.
    Poll(u8),
    /// Lists what was read.
    List(u8),
    Send(u8),
    /// A commit reaches the catalog.
    Deliver(usize),
    /// Its reply reaches the task.
    Succeed(u8),
    /// An acknowledgement reaches the source.
    Acknowledge(usize),
}

impl Buffer {
    /// Whether a task's sessions have broken.
    fn cut_off(&self, database: &Database, task: &Task) -> bool {
        self.rules.same_session && task.life != database.life
    }

    /// What a snapshot of this task returns: rows and their ids, by id.
    fn visible(&self, database: &Database, task: &Task) -> Vec<(u8, u8)> {
        let unprocessed = |at: u8| database.processed & 1 << at == 0;
        let mut found: Vec<(u8, u8)> = (0..)
            .zip(&database.rows)
            .filter_map(|(at, row)| match row {
                Row::Visible(id) if unprocessed(at) && task.emitted & 1 << id == 0 => Some((at, *id)),
                _ => None,
            })
            .collect();
        found.sort_by_key(|(_, id)| *id);
        if !self.rules.lowest && found.iter().any(|(_, id)| *id > task.last) {
            found.retain(|(_, id)| *id > task.last);
        }
        found.truncate(self.limit as usize);
        found
    }

    /// A step of a task; the instance as it is afterwards where it is not running any more.
    fn advance(&self, state: &mut State, action: Action, instance: u8, task: &mut Task) -> Result<(), Instance> {
        let database = &mut state.database;
        match action {
            Action::Resume(_) => {
                if self.rules.conditional && database.epoch != task.epoch {
                    return Err(Instance::Fenced);
                }
                let known = match state.token {
                    None => database.stored.is_none(),
                    Some(offset) => {
                        database.stored == Some(offset) || database.batches.iter().any(|batch| batch.offset == offset)
                    }
                };
                if self.rules.known && !known {
                    return Err(Instance::Refused);
                }
                if let Some(offset) = state.token {
                    database.acknowledge(offset);
                }
                task.token = state.token;
                task.resumed = true;
            }
            Action::Poll(_) => {
                task.read = self.visible(database, task);
                for (_, id) in &task.read {
                    task.emitted |= 1 << id;
                    task.last = *id;
                }
            }
            Action::List(_) => {
                if self.rules.conditional && database.epoch != task.epoch {
                    return Err(Instance::Fenced);
                }
                task.batches += 1;
                let (first, last) = (task.read.first(), task.read.last());
                let ids = match (first, last) {
                    (Some((_, first)), Some((_, last))) if !self.rules.exact => {
                        (*first..=*last).fold(0, |ids, id| ids | 1 << id)
                    }
                    _ => task.read.iter().fold(0, |ids, (_, id)| ids | 1 << id),
                };
                database.batches.push(Listed {
                    offset: Offset { epoch: task.epoch, batch: task.batches },
                    ids,
                    flushed: false,
                });
                if self.rules.synchronous {
                    database.flush();
                }
                task.written.extend(std::mem::take(&mut task.read).into_iter().map(|(row, _)| row));
            }
            Action::Send(_) => {
                let offset = Offset { epoch: task.epoch, batch: task.batches };
                let rows = std::mem::take(&mut task.written);
                state.flight.push(Request { instance, expected: task.token, offset, rows });
                task.waiting = Some(offset);
            }
            Action::Succeed(_) => {
                if let Some(offset) = task.waiting.take() {
                    task.token = Some(offset);
                    task.succeeded = false;
                    if !self.rules.same_acknowledger || task.life == database.life {
                        state.acknowledgements.push(Acknowledgement { epoch: task.epoch, offset });
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Model for Buffer {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let database = Database {
            rows: vec![Row::Unwritten; usize::from(self.rows)],
            processed: 0,
            unflushed: 0,
            next_id: 1,
            flushed_next_id: 1,
            epoch: (0, 0),
            stored: None,
            batches: Vec::new(),
            life: 0,
        };
        vec![State {
            database,
            standby: None,
            table: Vec::new(),
            token: None,
            instances: vec![Instance::Down; usize::from(self.instances)],
            flight: Vec::new(),
            acknowledgements: Vec::new(),
            left: self.budget.clone(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let State { database, left, .. } = state;
        if let Some(next) = database.rows.iter().position(|row| *row == Row::Unwritten) {
            let same_key = |row: usize| row % usize::from(self.keys) == next % usize::from(self.keys);
            let locked = (0..next).any(|row| same_key(row) && matches!(database.rows[row], Row::Open(_)));
            if !locked {
                actions.push(Action::Insert(next));
            }
        }
        let mut open = false;
        for (at, row) in database.rows.iter().enumerate() {
            if matches!(row, Row::Open(_)) {
                open = true;
                actions.push(Action::Commit(at));
            }
        }
        if left.crashes > 0 {
            // Where none can follow, it makes no difference what is on the disk.
            actions.push(Action::Flush);
            actions.push(Action::CrashPostgres);
        }
        if left.failovers > 0 {
            let ready = state.standby.is_some();
            actions.push(if ready { Action::FailOver } else { Action::Replicate });
        }
        if left.truncates > 0 && !open {
            actions.push(Action::Truncate);
        }
        let mut fresh = true;
        for (at, instance) in (0..).zip(&state.instances) {
            // Instances that have never run are all alike.
            let startable = *instance != Instance::Down || fresh;
            fresh &= *instance != Instance::Down;
            if left.starts > 0 && startable && *instance != Instance::Refused {
                actions.push(Action::Start(at));
            }
            let Instance::Up(task) = instance else { continue };
            if task.succeeded {
                actions.push(Action::Succeed(at));
            }
            if task.waiting.is_none() && !task.written.is_empty() {
                actions.push(Action::Send(at));
            }
            if self.cut_off(database, task) {
                continue;
            }
            if !task.resumed {
                actions.push(Action::Resume(at));
            } else if !task.read.is_empty() {
                actions.push(Action::List(at));
            } else if !self.visible(database, task).is_empty() {
                actions.push(Action::Poll(at));
            }
        }
        actions.extend((0..state.flight.len()).map(Action::Deliver));
        for (at, one) in state.acknowledgements.iter().enumerate() {
            // A session sends one after the other.
            if !state.acknowledgements[..at].iter().any(|earlier| earlier.epoch == one.epoch) {
                actions.push(Action::Acknowledge(at));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let database = &mut state.database;
        match action {
            Action::Insert(row) => {
                database.rows[row] = Row::Open(database.next_id);
                database.next_id += 1;
            }
            Action::Commit(row) => {
                let Row::Open(id) = database.rows[row] else { return None };
                database.rows[row] = Row::Visible(id);
                database.unflushed |= 1 << row;
            }
            Action::Flush => database.flush(),
            Action::CrashPostgres => {
                state.left.crashes -= 1;
                database.crash();
                state.acknowledgements.clear();
            }
            Action::Replicate => state.standby = Some(Box::new(database.clone())),
            Action::FailOver => {
                state.left.failovers -= 1;
                database.fail_over(*state.standby.take()?);
                state.acknowledgements.clear();
            }
            Action::Truncate => {
                state.left.truncates -= 1;
                for row in &mut database.rows {
                    if matches!(row, Row::Visible(_)) {
                        *row = Row::Truncated;
                    }
                }
                database.next_id = 1;
                if self.rules.trigger {
                    database.epoch.0 += 1;
                    for batch in &mut database.batches {
                        batch.ids = 0;
                    }
                }
                database.flush();
            }
            Action::Start(at) => {
                state.left.starts -= 1;
                // No two starts draw the same bits.
                let bits = if self.rules.bits { self.budget.starts - state.left.starts } else { 0 };
                database.epoch = (database.epoch.0 + 1, bits);
                if !self.rules.kept {
                    database.batches.clear();
                }
                database.flush();
                let task = Task {
                    epoch: database.epoch,
                    life: database.life,
                    resumed: false,
                    token: None,
                    emitted: 0,
                    last: 0,
                    read: Vec::new(),
                    batches: 0,
                    written: Vec::new(),
                    waiting: None,
                    succeeded: false,
                };
                state.instances[usize::from(at)] = Instance::Up(Box::new(task));
            }
            Action::Resume(at) | Action::Poll(at) | Action::List(at) | Action::Send(at) | Action::Succeed(at) => {
                let place = usize::from(at);
                let Instance::Up(mut task) = std::mem::replace(&mut state.instances[place], Instance::Down) else {
                    return None;
                };
                state.instances[place] = match self.advance(&mut state, action, at, &mut task) {
                    Ok(()) => Instance::Up(task),
                    Err(stopped) => stopped,
                };
            }
            Action::Deliver(at) => {
                let Request { instance, expected, offset, rows } = state.flight.remove(at);
                if state.token == expected {
                    state.token = Some(offset);
                    state.table.extend(rows);
                    if let Instance::Up(task) = &mut state.instances[usize::from(instance)] {
                        task.succeeded |= task.waiting == Some(offset);
                    }
                }
            }
            Action::Acknowledge(at) => {
                let Acknowledgement { epoch, offset } = state.acknowledgements.remove(at);
                if !self.rules.conditional || database.epoch == epoch {
                    database.acknowledge(offset);
                }
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(NO_ROW_TWICE, |_, State { table, .. }: &State| {
                (1..table.len()).all(|at| !table[..at].contains(&table[at]))
            }),
            Property::always(NO_ROW_LOST, |_, State { database, table, .. }: &State| {
                (0..).zip(&database.rows).all(|(at, _)| database.processed & 1 << at == 0 || table.contains(&at))
            }),
            Property::always(NO_ROW_UNDONE, |model: &Self, State { database, table, left, .. }: &State| {
                let failed_over = left.failovers < model.budget.failovers;
                failed_over || table.iter().all(|row| database.rows[usize::from(*row)] != Row::Undone)
            }),
            Property::always(KEYS_IN_ORDER, |model: &Self, State { table, .. }: &State| {
                (1..table.len()).all(|at| {
                    let later = |row: &u8| *row > table[at] && row % model.keys == table[at] % model.keys;
                    !table[..at].iter().any(later)
                })
            }),
            Property::always(NO_VAIN_REFUSAL, |model: &Self, State { instances, left, .. }: &State| {
                let failed_over = left.failovers < model.budget.failovers;
                failed_over || !instances.contains(&Instance::Refused)
            }),
            Property::sometimes("all rows are delivered and acknowledged", |model: &Self, state: &State| {
                state.table.len() == usize::from(model.rows) && state.database.processed == (1 << model.rows) - 1
            }),
        ];
        if self.budget.starts > 1 {
            properties.push(Property::sometimes("a task is fenced", |_, state: &State| {
                state.instances.contains(&Instance::Fenced)
            }));
        }
        if self.budget.crashes > 0 {
            properties.push(Property::sometimes("an id is used again", |_, State { database, .. }: &State| {
                database.rows.contains(&Row::Undone)
                    && database.next_id <= database.rows.len() as u8
                    && !database.rows.contains(&Row::Unwritten)
            }));
        }
        properties
    }
}

pub const NO_ROW_TWICE: &str = "no row is in the table twice";
pub const NO_ROW_LOST: &str = "what was acknowledged is in the table";
pub const NO_ROW_UNDONE: &str = "no row is in the table whose transaction was undone, unless by a failover";
pub const KEYS_IN_ORDER: &str = "the rows of a key are in the table in their order";
pub const NO_VAIN_REFUSAL: &str = "nothing is refused unless after a failover";
