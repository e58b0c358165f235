//! Rows that change their keys while other rows still hold them, in a table that holds one row per key. No design
//! page has this rule; the code is in the sink's `upsert::moves`.
//!
//! A DEFERRABLE key may be held twice until its transaction ends: `SET id = id + 1`, or two rows that change places.
//! Such a change comes as the DELETE of the old key and the INSERT of the new one, and the next row's DELETE then
//! names a key that the first row has moved to. The same four changes come from one row that moves twice.
//!
//! The rule: a row that moves to a key that is held is put *beside* the row there, in the table too, where a commit
//! falls between the two changes. A DELETE removes the row that it describes, else the one that has been there for
//! longest. A move that is not newer than the row at its key is a repetition, and takes its place.
//!
//! What is abstracted away, and why that is safe: a commit lands or does not, and a crash loses everything but the
//! table; how a request's outcome is found is `commits`' matter. Only one task writes.
//!
//! What the rule cannot do: where a source repeats changes after a crash of its own, the table no longer holds the
//! row that was displaced, and its DELETE, which comes again, removes the row that has moved there. So no key is held
//! twice in the runs with repetitions; they show that a repeated move leaves no second row behind.

use stateright::{Model, Property};

/// What is done with a row whose key another one moves to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Displaced {
    /// The last change of a key wins.
    Overwritten,
    /// The last change wins, and a DELETE that describes another row than the one there removes nothing.
    Compared,
    /// It stays beside the other in memory, and the table holds the newer one.
    Remembered,
    /// It stays beside the other, in the table too.
    Kept,
}

/// Parts of the rule.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub displaced: Displaced,
    /// A DELETE's description is looked at, where there is one.
    pub described: bool,
    /// Repetitions are told from moves.
    pub told_apart: bool,
}

impl Rules {
    pub const ALL: Self = Self { displaced: Displaced::Kept, described: true, told_apart: true };
}

/// The model and its bounds.
#[derive(Clone, Debug)]
pub struct Moves {
    pub rules: Rules,
    /// Rows that are there, in the table too, when it begins: row n has the key n.
    pub rows: u8,
    pub keys: u8,
    /// All rows have the same values.
    pub alike: bool,
    /// DELETEs say the row before, and not just its key.
    pub describes: bool,
    pub events: u8,
    pub crashes: u8,
    /// How often the source begins again at an earlier change.
    pub repeats: u8,
}

/// A change of a row: where it was, where it is now, and its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Event {
    from: u8,
    /// `None`: it is deleted.
    to: Option<u8>,
    values: u8,
}

/// A row in the table: its key, its values, and the number of the change that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Held {
    key: u8,
    values: u8,
    written: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Task {
    /// The rows as they are after what was read.
    rows: Vec<Held>,
    next: u8,
    /// The change up to which everything was read, whatever is repeated now.
    reached: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The source's rows, by number: their keys.
    source: Vec<Option<u8>>,
    log: Vec<Event>,
    /// After each number of changes: the source's rows, and whether a transaction ends there.
    after: Vec<(Vec<(u8, u8)>, bool)>,
    /// Nothing more is written.
    sealed: bool,
    table: Vec<Held>,
    token: u8,
    /// What the table's rows have reached, where the source repeats older changes.
    reached: u8,
    task: Option<Task>,
    crashes: u8,
    repeats: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A row gets another key, or is deleted.
    Change(u8, Option<u8>),
    /// The transaction ends.
    EndTransaction,
    Seal,
    Start,
    Read,
    Commit,
    Crash,
    /// The source begins again, at this change.
    Repeat(u8),
}

impl State {
    /// The table's rows: their keys and values.
    fn rows(&self) -> Vec<(u8, u8)> {
        let mut rows: Vec<_> = self.table.iter().map(|row| (row.key, row.values)).collect();
        rows.sort_unstable();
        rows
    }
}

impl Moves {
    fn values(&self, row: u8) -> u8 {
        if self.alike { 0 } else { row }
    }

    fn rows_of(&self, source: &[Option<u8>]) -> Vec<(u8, u8)> {
        let rows = (1..).zip(source).filter_map(|(row, key)| Some(((*key)?, self.values(row))));
        let mut rows: Vec<_> = rows.collect();
        rows.sort_unstable();
        rows
    }

    /// Which row of those with the key a DELETE removes.
    fn removed(&self, rows: &[Held], event: Event) -> Option<usize> {
        let mut held = (0..rows.len()).filter(|at| rows[*at].key == event.from);
        let described = self.rules.described && self.describes;
        let same = |at: &usize| rows[*at].values == event.values;
        if self.rules.displaced == Displaced::Compared {
            return held.find(|at| !described || same(at));
        }
        held.clone().find(|at| described && same(at)).or_else(|| held.next())
    }

    fn apply(&self, rows: &mut Vec<Held>, event: Event, number: u8) {
        if let Some(at) = self.removed(rows, event) {
            rows.remove(at);
        }
        let Some(key) = event.to else { return };
        let last = rows.iter().rposition(|row| row.key == key);
        let beside = matches!(self.rules.displaced, Displaced::Kept | Displaced::Remembered);
        if let Some(at) = last {
            let repeated = self.rules.told_apart && rows[at].written >= number;
            if !beside || repeated {
                rows.remove(at);
            }
        }
        rows.push(Held { key, values: event.values, written: number });
    }

    /// What a commit writes.
    fn written(&self, rows: &[Held]) -> Vec<Held> {
        let newest = |at: &usize| !rows[at + 1..].iter().any(|row| row.key == rows[*at].key);
        let all = self.rules.displaced != Displaced::Remembered;
        (0..rows.len()).filter(|at| all || newest(at)).map(|at| rows[at]).collect()
    }

    /// A row leaves a key before the one that was there first, which nobody can tell without descriptions.
    fn is_ambiguous(&self, state: &State) -> bool {
        let mut rows: Vec<(u8, u8)> = (1..=self.rows).map(|row| (row, row)).collect();
        let mut ambiguous = false;
        let mut at: Vec<Option<u8>> = (1..=self.rows).map(Some).collect();
        for event in &state.log {
            // Rows are told apart by their values where they have some of their own.
            let row = event.values;
            let first = rows.iter().find(|(key, _)| *key == event.from).map(|(_, row)| *row);
            ambiguous |= first != Some(row);
            rows.retain(|(_, other)| *other != row);
            at[usize::from(row) - 1] = event.to;
            rows.extend(event.to.map(|key| (key, row)));
        }
        ambiguous
    }
}

fn is_held_twice(rows: &[(u8, u8)]) -> bool {
    rows.windows(2).any(|pair| pair[0].0 == pair[1].0)
}

impl Model for Moves {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let source: Vec<Option<u8>> = (1..=self.rows).map(Some).collect();
        let held = |row: u8| Held { key: row, values: self.values(row), written: 0 };
        vec![State {
            log: Vec::new(),
            after: vec![(self.rows_of(&source), true)],
            source,
            sealed: false,
            table: (1..=self.rows).map(held).collect(),
            token: 0,
            reached: 0,
            task: None,
            crashes: self.crashes,
            repeats: self.repeats,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let length = u8::try_from(state.log.len()).unwrap_or(u8::MAX);
        let closed = state.after.last().is_some_and(|(_, closed)| *closed);
        if !state.sealed {
            if length < self.events {
                for (row, key) in (1..).zip(&state.source) {
                    let Some(key) = key else { continue };
                    actions.push(Action::Change(row, None));
                    let others = (1..=self.keys).filter(|to| to != key);
                    actions.extend(others.map(|to| Action::Change(row, Some(to))));
                }
            }
            let mut keys: Vec<u8> = state.source.iter().flatten().copied().collect();
            keys.sort_unstable();
            if !closed && keys.windows(2).all(|pair| pair[0] != pair[1]) {
                actions.push(Action::EndTransaction);
            }
            if closed && length > 0 {
                actions.push(Action::Seal);
            }
            return;
        }
        match &state.task {
            None => actions.push(Action::Start),
            Some(task) => {
                if task.next < length {
                    actions.push(Action::Read);
                }
                if task.next != state.token {
                    actions.push(Action::Commit);
                }
                if state.crashes > 0 {
                    actions.push(Action::Crash);
                }
                if state.repeats > 0 {
                    actions.extend((0..task.next).map(Action::Repeat));
                }
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Change(row, to) => {
                let place = &mut state.source[usize::from(row) - 1];
                state.log.push(Event { from: (*place)?, to, values: self.values(row) });
                *place = to;
                state.after.push((self.rows_of(&state.source), false));
            }
            Action::EndTransaction => state.after.last_mut()?.1 = true,
            Action::Seal => {
                if !self.describes && !self.alike && self.is_ambiguous(&state) {
                    return None;
                }
                if self.repeats > 0 && state.after.iter().any(|(rows, _)| is_held_twice(rows)) {
                    return None;
                }
                state.sealed = true;
            }
            Action::Start => {
                state.task = Some(Task { rows: state.table.clone(), next: state.token, reached: state.reached });
            }
            Action::Read => {
                let task = state.task.as_mut()?;
                let event = state.log[usize::from(task.next)];
                task.next += 1;
                task.reached = task.reached.max(task.next);
                self.apply(&mut task.rows, event, task.next);
            }
            Action::Commit => {
                let task = state.task.as_ref()?;
                state.table = self.written(&task.rows);
                state.token = task.next;
                state.reached = task.reached;
            }
            Action::Crash => {
                state.crashes -= 1;
                state.task = None;
            }
            Action::Repeat(from) => {
                state.repeats -= 1;
                state.task.as_mut()?.next = from;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(EQUAL_AT_ENDS, |_, state: &State| {
                let (source, ends) = &state.after[usize::from(state.token)];
                // While a source repeats older changes, the table shows them again.
                !ends || state.token < state.reached || state.rows() == *source
            }),
            Property::always(EQUAL, |model: &Self, state: &State| {
                let (source, _) = &state.after[usize::from(state.token)];
                model.repeats > 0 || state.rows() == *source
            }),
            Property::sometimes("a commit falls where a key is held twice", |model: &Self, state: &State| {
                let (source, _) = &state.after[usize::from(state.token)];
                // Nothing is to be met in the runs with repetitions.
                model.repeats > 0 || is_held_twice(source)
            }),
            Property::sometimes("everything is in the table", |_, state: &State| {
                state.sealed && usize::from(state.token) == state.log.len()
            }),
        ]
    }
}

pub const EQUAL_AT_ENDS: &str = "where a transaction ends, the table holds the source's rows";
pub const EQUAL: &str = "at each commit, the table holds the source's rows";
