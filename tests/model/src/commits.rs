//! DESIGN §3: tasks that deliver streams into one table through a catalog and a network, beside strangers.
//!
//! What is abstracted away, and why that is safe:
//! - A batch holds one row, and a row's place in its stream is its name; which ids a batch lists is the other model's
//!   matter (`buffer`). Batches still gather into one payload.
//! - The way of the data files: a snapshot says which rows its history holds. Where orphans are removed, a file is what a task (by its
//!   epoch) has made of a row; it is written when the row is read, which is the earliest that it can be. Nobody takes rows
//!   out of the table in such runs, so that what was ever committed is live.
//! - A snapshot's id is its commit's id, as both are new for each request.
//! - A request that is lost is one that is never delivered, a crash without a restart is a task that never moves again,
//!   and so is a pause without an end. Each is thus a part of the runs that the checker visits; only a restart is a step.
//! - A 409 and an unknown outcome both lead to a look, so they are one step (`Look`), which may be taken at any moment
//!   after sending, whatever became of the request.
//! - A 200 shows the table as this commit left it. The commit asserted its head and tokens move only with the head (rule
//!   2), so the tokens of the other streams are those known before, and are not compared again.
//! - The catalog keeps Iceberg's own rule that a new snapshot's sequence number is above all earlier ones.
//! - There is no advisory lock: the protocol must be safe without (rule 11). Idempotency keys and schema changes are left
//!   out: both only turn requests into conflicts.

use stateright::{Model, Property};

/// A batch's name: epoch, then number. `lineage` is one and the same.
type Offset = (u8, u8);
/// A set of rows; row n of stream s is bit `s * rows + n`.
type Rows = u8;

const STREAMS: usize = 2;

/// Rules of DESIGN §3 that can be left out.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Rule 5: tokens are compared whenever a base is adopted.
    pub compare: bool,
    /// Rule 7: after a conflict or an unknown outcome the table is searched for the attempts, and its tokens are compared.
    /// Without it the payload goes onto the new head.
    pub look: bool,
    /// Rule 3: a token's snapshot must belong to the head's history.
    pub lineage: bool,
    /// What the code adds to rule 3: the snapshot that directly follows a token's must name it as its parent.
    pub follows: bool,
    /// Rule 4: writes to the source are conditional on its epoch.
    pub conditional: bool,
    /// Rule 4: `resume` refuses no offset where rows were acknowledged, and an offset that the source does not know.
    pub known: bool,
    /// Rule 6: a payload does not grow until it is resolved.
    pub frozen: bool,
    /// What goes with rule 5: who finds that orphans were removed since it took its first base is fenced.
    pub mark: bool,
    /// The removal of orphans commits a snapshot before it, which moves the head.
    pub fence: bool,
}

impl Rules {
    pub const ALL: Self = Self {
        compare: true,
        look: true,
        lineage: true,
        follows: true,
        conditional: true,
        known: true,
        frozen: true,
        mark: true,
        fence: true,
    };
}

/// How often something may happen in a run, of all tasks together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    pub starts: u8,
    pub requests: u8,
    /// Deliveries of a request that stays on its way and may be delivered again.
    pub doubles: u8,
    /// Commits of others, without tokens.
    pub appends: u8,
    /// Expiries of every snapshot but the current one.
    pub expiries: u8,
    /// Rollbacks by one snapshot.
    pub rollbacks: u8,
    /// CREATE OR REPLACE: a new root, the properties stay.
    pub replaces: u8,
    /// DROP and CREATE: another UUID.
    pub recreates: u8,
    /// Removals of orphans.
    pub orphans: u8,
}

/// The model and its bounds.
#[derive(Clone, Debug)]
pub struct Commits {
    pub rules: Rules,
    pub instances: u8,
    pub streams: u8,
    /// Rows of each stream.
    pub rows: u8,
    pub budget: Budget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Token {
    offset: Offset,
    /// The commit's id and its snapshot's.
    commit: u8,
    sequence: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Snapshot {
    id: u8,
    parent: Option<u8>,
    sequence: u8,
    /// All rows that its history holds.
    rows: Rows,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Table {
    uuid: u8,
    head: Option<u8>,
    last_sequence: u8,
    /// Those that have not expired.
    snapshots: Vec<Snapshot>,
    tokens: [Option<Token>; STREAMS],
    /// The last removal of orphans.
    mark: u8,
}

/// Files of rows, by the epoch of the task that wrote them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Files(Vec<Rows>);

impl Files {
    fn add(&mut self, epoch: u8, rows: Rows) {
        let epoch = usize::from(epoch);
        if self.0.len() <= epoch {
            self.0.resize(epoch + 1, 0);
        }
        self.0[epoch] |= rows;
    }

    fn of(&self, epoch: u8) -> Rows {
        self.0.get(usize::from(epoch)).copied().unwrap_or(0)
    }

    fn without(&self, others: &Self) -> Self {
        Self((0..).zip(&self.0).map(|(epoch, rows)| rows & !others.of(epoch)).collect())
    }
}

/// How far a removal of orphans is, with the files that it found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Removal {
    Listed(Files),
    Fenced(Files),
}

impl Table {
    fn snapshot(&self, id: u8) -> Option<&Snapshot> {
        self.snapshots.iter().find(|snapshot| snapshot.id == id)
    }

    /// The rows that a reader finds.
    fn rows(&self) -> Rows {
        self.head.and_then(|head| self.snapshot(head)).map_or(0, |head| head.rows)
    }

    /// Makes a snapshot the current one.
    fn push(&mut self, id: u8, parent: Option<u8>, rows: Rows) {
        self.last_sequence += 1;
        self.snapshots.push(Snapshot { id, parent, sequence: self.last_sequence, rows });
        self.head = Some(id);
    }

    /// Whether the history of the head may hold a token's snapshot.
    fn holds(&self, token: &Token, follows: bool) -> bool {
        let Some(mut oldest) = self.head.and_then(|head| self.snapshot(head)) else { return false };
        loop {
            if oldest.id == token.commit {
                return true;
            }
            if oldest.sequence <= token.sequence {
                return false;
            }
            match oldest.parent.and_then(|parent| self.snapshot(parent)) {
                Some(parent) => oldest = parent,
                None => break,
            }
        }
        let replaced = follows && oldest.sequence == token.sequence + 1 && oldest.parent != Some(token.commit);
        self.snapshot(token.commit).is_none() && oldest.parent.is_some() && !replaced
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Listed {
    stream: usize,
    offset: Offset,
    rows: Rows,
}

/// The database of the buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Source {
    epoch: u8,
    acknowledged: Rows,
    batches: Vec<Listed>,
    /// The offset last acknowledged.
    stored: [Option<Offset>; STREAMS],
}

impl Source {
    fn acknowledge(&mut self, stream: usize, offset: Offset) {
        for batch in &self.batches {
            if batch.stream == stream && batch.offset.0 == offset.0 && batch.offset.1 <= offset.1 {
                self.acknowledged |= batch.rows;
            }
        }
        self.batches.retain(|batch| batch.stream != stream || batch.offset > offset);
        self.stored[stream] = Some(offset);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Request {
    instance: u8,
    epoch: u8,
    commit: u8,
    uuid: u8,
    head: Option<u8>,
    sequence: u8,
    rows: Rows,
    offsets: [Option<Offset>; STREAMS],
}

/// An acknowledgement on its way; it can outlive its task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Acknowledgement {
    instance: u8,
    epoch: u8,
    stream: usize,
    offset: Offset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stream {
    Unknown,
    /// The table was loaded; this is what it said.
    Announced(Option<Offset>),
    Resumed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Attempt {
    commit: u8,
    sequence: u8,
    offsets: [Option<Offset>; STREAMS],
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Payload {
    rows: Rows,
    offsets: [Option<Offset>; STREAMS],
    attempts: Vec<Attempt>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Base {
    uuid: u8,
    head: Option<u8>,
    last_sequence: u8,
    mark: u8,
}

/// A running task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Task {
    epoch: u8,
    streams: [Stream; STREAMS],
    base: Option<Base>,
    /// The tokens of the streams it has announced.
    owned: [Option<Option<Token>>; STREAMS],
    batches: u8,
    emitted: Rows,
    /// Written to the sink and not frozen.
    written: Rows,
    offsets: [Option<Offset>; STREAMS],
    payload: Option<Payload>,
    /// The last request's reply has arrived and says 200.
    succeeded: bool,
    /// A request is out whose reply is waited for.
    waiting: bool,
}

impl Task {
    fn new(epoch: u8) -> Self {
        Self {
            epoch,
            streams: [Stream::Unknown; STREAMS],
            base: None,
            owned: [None; STREAMS],
            batches: 0,
            emitted: 0,
            written: 0,
            offsets: [None; STREAMS],
            payload: None,
            succeeded: false,
            waiting: false,
        }
    }

    /// Takes what one of the payload's requests made durable.
    fn landed(&mut self, instance: u8, attempt: &Attempt, acknowledgements: &mut Vec<Acknowledgement>) {
        let Some(payload) = self.payload.take() else { return };
        for (stream, offset) in attempt.offsets.iter().enumerate() {
            if let Some(offset) = *offset {
                let Attempt { commit, sequence, .. } = *attempt;
                self.owned[stream] = Some(Some(Token { offset, commit, sequence }));
            }
        }
        for (stream, offset) in payload.offsets.into_iter().enumerate() {
            if let Some(offset) = offset {
                acknowledgements.push(Acknowledgement { instance, epoch: self.epoch, stream, offset });
            }
        }
    }
}

/// Why a task ends.
enum Stop {
    Fenced,
    Refused,
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
    source: Source,
    table: Table,
    instances: Vec<Instance>,
    flight: Vec<Request>,
    acknowledgements: Vec<Acknowledgement>,
    left: Budget,
    next_commit: u8,
    /// Files that were written, that were ever committed, and that were removed; where orphans are.
    files: Files,
    live: Files,
    removed: Files,
    removal: Option<Removal>,
    /// A commit named a file that was removed.
    broken: bool,
    /// Somebody took rows out of the table.
    harmed: bool,
    /// A commit brought a row that its history held.
    doubled: bool,
    /// A commit of a stream came into a table without rows of it that were acknowledged.
    went_on: bool,
}

/// A step; the first number is the instance's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Starts, whatever it was doing: claims an epoch.
    Start(u8),
    Announce(u8, usize),
    Resume(u8, usize),
    /// Reads a row and lists its batch.
    Read(u8, usize),
    Send(u8),
    /// A request reaches the catalog.
    Deliver(u8),
    /// It does, and will once more.
    DeliverTwice(u8),
    /// A reply reaches the task.
    Succeed(u8),
    /// The outcome is unknown, or it is a conflict.
    Look(u8),
    /// An acknowledgement reaches the source.
    Acknowledge(usize),
    ForeignAppend,
    Expire,
    RollBack,
    Replace,
    Recreate,
    /// The removal of orphans: lists the files that are not live, sets the fence, removes what is not live then.
    List,
    Fence,
    Remove,
}

impl Commits {
    fn of_stream(&self, stream: usize) -> Rows {
        ((1 << self.rows) - 1) << (stream as u8 * self.rows)
    }

    /// The table as it is now becomes the task's base.
    fn adopt(&self, state: &mut State, instance: u8, task: &mut Task) -> Result<(), Stop> {
        let table = &state.table;
        if task.base.is_some_and(|base| base.uuid != table.uuid) {
            return Err(Stop::Refused);
        }
        if self.rules.mark && task.base.is_some_and(|base| base.mark != table.mark) {
            return Err(Stop::Fenced);
        }
        let known =
            |commit| table.snapshot(commit).is_some() || table.tokens.iter().flatten().any(|t| t.commit == commit);
        let payload = task.payload.as_ref().filter(|payload| !payload.attempts.is_empty());
        let landed = payload
            .filter(|_| self.rules.look)
            .and_then(|payload| payload.attempts.iter().find(|attempt| known(attempt.commit)).cloned());
        let careless = !self.rules.look && payload.is_some();
        let grown = payload.is_some();
        if let Some(attempt) = &landed {
            task.landed(instance, attempt, &mut state.acknowledgements);
        }
        for stream in 0..STREAMS {
            let Some(expected) = task.owned[stream] else { continue };
            let found = table.tokens[stream];
            if self.rules.compare && !careless && found != expected {
                return Err(Stop::Fenced);
            }
            if self.rules.lineage && found.is_some_and(|token| !table.holds(&token, self.rules.follows)) {
                return Err(Stop::Refused);
            }
            task.owned[stream] = Some(found);
        }
        let Table { uuid, head, last_sequence, mark, .. } = state.table;
        task.base = Some(Base { uuid, head, last_sequence, mark });
        if !self.rules.frozen
            && grown
            && let Some(payload) = &mut task.payload
        {
            payload.rows |= std::mem::take(&mut task.written);
            for (stream, offset) in std::mem::take(&mut task.offsets).into_iter().enumerate() {
                payload.offsets[stream] = offset.or(payload.offsets[stream]);
            }
        }
        Ok(())
    }

    /// Sends the payload on the task's base.
    fn send(state: &mut State, instance: u8, task: &mut Task) {
        let (Some(payload), Some(base)) = (&mut task.payload, task.base) else { return };
        if state.left.requests == 0 {
            return;
        }
        state.left.requests -= 1;
        let commit = state.next_commit;
        state.next_commit += 1;
        let sequence = base.last_sequence + 1;
        let Payload { rows, offsets, .. } = *payload;
        payload.attempts.push(Attempt { commit, sequence, offsets });
        let Base { uuid, head, .. } = base;
        state.flight.push(Request { instance, epoch: task.epoch, commit, uuid, head, sequence, rows, offsets });
        task.waiting = true;
        task.succeeded = false;
    }

    /// A step of a task.
    fn advance(&self, state: &mut State, action: Action, instance: u8, task: &mut Task) -> Result<(), Stop> {
        match action {
            Action::Announce(_, stream) => {
                let found = state.table.tokens[stream];
                self.adopt(state, instance, task)?;
                if self.rules.lineage && found.is_some_and(|token| !state.table.holds(&token, self.rules.follows)) {
                    return Err(Stop::Refused);
                }
                task.owned[stream] = Some(found);
                task.streams[stream] = Stream::Announced(found.map(|token| token.offset));
            }
            Action::Resume(_, stream) => {
                let Stream::Announced(offset) = task.streams[stream] else { return Ok(()) };
                let source = &mut state.source;
                if self.rules.conditional && source.epoch != task.epoch {
                    return Err(Stop::Fenced);
                }
                let stored = source.stored[stream];
                let known = match offset {
                    None => stored.is_none(),
                    Some(offset) => {
                        let listed = |batch: &Listed| batch.stream == stream && batch.offset == offset;
                        stored == Some(offset) || source.batches.iter().any(listed)
                    }
                };
                if self.rules.known && !known {
                    return Err(Stop::Refused);
                }
                if let Some(offset) = offset {
                    source.acknowledge(stream, offset);
                }
                task.streams[stream] = Stream::Resumed;
            }
            Action::Read(_, stream) => {
                let source = &mut state.source;
                if self.rules.conditional && source.epoch != task.epoch {
                    return Err(Stop::Fenced);
                }
                let unread = self.of_stream(stream) & !source.acknowledged & !task.emitted;
                let row = unread & unread.wrapping_neg();
                task.emitted |= row;
                task.batches += 1;
                let offset = (task.epoch, task.batches);
                source.batches.push(Listed { stream, offset, rows: row });
                if self.budget.orphans > 0 {
                    state.files.add(task.epoch, row);
                }
                task.written |= row;
                task.offsets[stream] = Some(offset);
            }
            Action::Send(_) => {
                let rows = std::mem::take(&mut task.written);
                let offsets = std::mem::take(&mut task.offsets);
                task.payload = Some(Payload { rows, offsets, attempts: Vec::new() });
                Self::send(state, instance, task);
            }
            Action::Succeed(_) => {
                let attempt = task.payload.as_ref().and_then(|payload| payload.attempts.last().cloned());
                if let (Some(attempt), Some(base)) = (attempt, task.base) {
                    let Attempt { commit, sequence, .. } = attempt;
                    task.landed(instance, &attempt, &mut state.acknowledgements);
                    task.base = Some(Base { head: Some(commit), last_sequence: sequence, ..base });
                }
                (task.waiting, task.succeeded) = (false, false);
            }
            Action::Look(_) => {
                (task.waiting, task.succeeded) = (false, false);
                self.adopt(state, instance, task)?;
                Self::send(state, instance, task);
            }
            _ => {}
        }
        Ok(())
    }

    /// The catalog carries a request out, or answers with a conflict.
    fn deliver(&self, state: &mut State, request: &Request) {
        let Request { instance, epoch, commit, uuid, head, sequence, rows, offsets } = request.clone();
        let table = &mut state.table;
        if table.uuid != uuid || table.head != head || sequence <= table.last_sequence {
            return;
        }
        let before = table.rows();
        state.doubled |= before & rows != 0;
        state.broken |= state.removed.of(epoch) & rows != 0;
        if self.budget.orphans > 0 {
            state.live.add(epoch, rows);
        }
        table.push(commit, head, before | rows);
        for (stream, offset) in offsets.into_iter().enumerate() {
            if let Some(offset) = offset {
                table.tokens[stream] = Some(Token { offset, commit, sequence });
                let acknowledged = state.source.acknowledged & self.of_stream(stream);
                state.went_on |= acknowledged & !table.rows() != 0;
            }
        }
        if let Instance::Up(task) = &mut state.instances[usize::from(instance)] {
            let last = task.payload.as_ref().and_then(|payload| payload.attempts.last());
            task.succeeded |= task.waiting && last.is_some_and(|last| last.commit == commit);
        }
    }
}

impl Model for Commits {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            source: Source::default(),
            table: Table::default(),
            instances: vec![Instance::Down; usize::from(self.instances)],
            flight: Vec::new(),
            acknowledgements: Vec::new(),
            left: self.budget.clone(),
            next_commit: 1,
            files: Files::default(),
            live: Files::default(),
            removed: Files::default(),
            removal: None,
            broken: false,
            harmed: false,
            doubled: false,
            went_on: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let State { left, table, .. } = state;
        let mut fresh = true;
        for (at, instance) in (0..).zip(&state.instances) {
            // Instances that have never run are all alike.
            let startable = *instance != Instance::Down || fresh;
            fresh &= *instance != Instance::Down;
            if left.starts > 0 && startable && *instance != Instance::Refused {
                actions.push(Action::Start(at));
            }
            let Instance::Up(task) = instance else { continue };
            for stream in 0..usize::from(self.streams) {
                match task.streams[stream] {
                    Stream::Unknown if !task.waiting => actions.push(Action::Announce(at, stream)),
                    Stream::Unknown => {}
                    Stream::Announced(_) => actions.push(Action::Resume(at, stream)),
                    Stream::Resumed => {
                        if self.of_stream(stream) & !state.source.acknowledged & !task.emitted != 0 {
                            actions.push(Action::Read(at, stream));
                        }
                    }
                }
            }
            if task.payload.is_none() && task.written != 0 && left.requests > 0 {
                actions.push(Action::Send(at));
            }
            if task.succeeded {
                actions.push(Action::Succeed(at));
            }
            if task.payload.is_some() {
                actions.push(Action::Look(at));
            }
        }
        for (at, _) in (0..).zip(&state.flight) {
            actions.push(Action::Deliver(at));
            if left.doubles > 0 {
                actions.push(Action::DeliverTwice(at));
            }
        }
        for (at, one) in state.acknowledgements.iter().enumerate() {
            // A session sends one after the other.
            if !state.acknowledgements[..at].iter().any(|earlier| earlier.epoch == one.epoch) {
                actions.push(Action::Acknowledge(at));
            }
        }
        if left.appends > 0 {
            actions.push(Action::ForeignAppend);
        }
        if left.expiries > 0 && table.snapshots.len() > 1 {
            actions.push(Action::Expire);
        }
        let parent = table.head.and_then(|head| table.snapshot(head)?.parent).and_then(|id| table.snapshot(id));
        if left.rollbacks > 0 && parent.is_some() {
            actions.push(Action::RollBack);
        }
        if left.replaces > 0 && table.head.is_some() {
            actions.push(Action::Replace);
        }
        if left.recreates > 0 && table.head.is_some() {
            actions.push(Action::Recreate);
        }
        match state.removal {
            // With nothing to remove nothing happens.
            None if left.orphans > 0 && state.files != state.live => actions.push(Action::List),
            None => {}
            Some(Removal::Listed(_)) => actions.push(Action::Fence),
            Some(Removal::Fenced(_)) => actions.push(Action::Remove),
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Start(at) => {
                state.left.starts -= 1;
                state.source.epoch += 1;
                state.instances[usize::from(at)] = Instance::Up(Box::new(Task::new(state.source.epoch)));
            }
            Action::Announce(at, _)
            | Action::Resume(at, _)
            | Action::Read(at, _)
            | Action::Send(at)
            | Action::Succeed(at)
            | Action::Look(at) => {
                let place = usize::from(at);
                let Instance::Up(mut task) = std::mem::replace(&mut state.instances[place], Instance::Down) else {
                    return None;
                };
                state.instances[place] = match self.advance(&mut state, action, at, &mut task) {
                    Ok(()) => Instance::Up(task),
                    Err(Stop::Fenced) => Instance::Fenced,
                    Err(Stop::Refused) => Instance::Refused,
                };
            }
            Action::Deliver(at) => {
                let request = state.flight.remove(usize::from(at));
                self.deliver(&mut state, &request);
            }
            Action::DeliverTwice(at) => {
                state.left.doubles -= 1;
                let request = state.flight[usize::from(at)].clone();
                self.deliver(&mut state, &request);
            }
            Action::Acknowledge(at) => {
                let Acknowledgement { instance, epoch, stream, offset } = state.acknowledgements.remove(at);
                if !self.rules.conditional || state.source.epoch == epoch {
                    state.source.acknowledge(stream, offset);
                } else if let Instance::Up(task) = &state.instances[usize::from(instance)]
                    && task.epoch == epoch
                {
                    state.instances[usize::from(instance)] = Instance::Fenced;
                }
            }
            Action::ForeignAppend => {
                state.left.appends -= 1;
                let (head, rows) = (state.table.head, state.table.rows());
                state.table.push(state.next_commit, head, rows);
                state.next_commit += 1;
            }
            Action::Expire => {
                state.left.expiries -= 1;
                let head = state.table.head;
                state.table.snapshots.retain(|snapshot| Some(snapshot.id) == head);
            }
            Action::RollBack => {
                state.left.rollbacks -= 1;
                let lost = state.table.rows();
                state.table.head = state.table.head.and_then(|head| state.table.snapshot(head)?.parent);
                state.harmed |= lost != state.table.rows();
            }
            Action::Replace => {
                state.left.replaces -= 1;
                state.harmed = true;
                state.table.push(state.next_commit, None, 0);
                state.next_commit += 1;
            }
            Action::Recreate => {
                state.left.recreates -= 1;
                state.harmed = true;
                state.table = Table { uuid: state.table.uuid + 1, ..Table::default() };
            }
            Action::List => {
                state.left.orphans -= 1;
                state.removal = Some(Removal::Listed(state.files.without(&state.live).without(&state.removed)));
            }
            Action::Fence => {
                let Some(Removal::Listed(found)) = state.removal.take() else { return None };
                if self.rules.fence {
                    let (head, rows) = (state.table.head, state.table.rows());
                    state.table.push(state.next_commit, head, rows);
                }
                state.table.mark = state.next_commit;
                state.next_commit += 1;
                state.removal = Some(Removal::Fenced(found));
            }
            Action::Remove => {
                let Some(Removal::Fenced(found)) = state.removal.take() else { return None };
                let orphans = found.without(&state.live);
                (0..).zip(orphans.0).for_each(|(epoch, rows)| state.removed.add(epoch, rows));
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(NO_ROW_TWICE, |_, state: &State| !state.doubled),
            Property::always(NO_ROW_LOST, |_, state: &State| {
                state.harmed || state.source.acknowledged & !state.table.rows() == 0
            }),
            Property::always(NOBODY_GOES_ON, |_, state: &State| !state.went_on),
            Property::always(NO_VAIN_REFUSAL, |_, state: &State| {
                state.harmed || !state.instances.contains(&Instance::Refused)
            }),
            Property::sometimes("all rows are delivered and acknowledged", |model: &Self, state: &State| {
                let all = (0..usize::from(model.streams)).fold(0, |rows, stream| rows | model.of_stream(stream));
                state.table.rows() == all && state.source.acknowledged == all
            }),
        ];
        if self.budget.orphans > 0 {
            properties.push(Property::always(NO_LIVE_FILE_REMOVED, |_, state: &State| !state.broken));
            properties.push(Property::sometimes("a task is fenced by the removal of its files", |_, state: &State| {
                state.instances.contains(&Instance::Fenced) && state.source.epoch == 1 && state.removed.of(1) != 0
            }));
        }
        if self.budget.starts > 1 {
            properties.push(Property::sometimes("a task is fenced", |_, state: &State| {
                state.instances.contains(&Instance::Fenced)
            }));
        }
        if self.budget.rollbacks + self.budget.replaces + self.budget.recreates > 0 {
            properties.push(Property::sometimes("a task refuses", |_, state: &State| {
                state.instances.contains(&Instance::Refused)
            }));
        }
        properties
    }
}

pub const NO_ROW_TWICE: &str = "no row is in the table twice";
pub const NO_LIVE_FILE_REMOVED: &str = "no commit names a file that was removed as an orphan";
pub const NO_ROW_LOST: &str = "what was acknowledged is in the table, unless somebody took it out";
pub const NOBODY_GOES_ON: &str = "nobody goes on with a stream after somebody took acknowledged rows of it out";
pub const NO_VAIN_REFUSAL: &str = "nothing is refused unless somebody took rows out";
