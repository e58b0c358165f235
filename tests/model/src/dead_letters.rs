//! DESIGN §3, rule 9: rows that cannot be written go into a second table, exactly once too. The code is in the sink's
//! `dead_letters`.
//!
//! What is abstracted away, and why that is safe:
//! - Every row is a dead letter; what becomes of the others is `commits`' matter. So is the main table's token: a commit of
//!   the main table lands if the token is the one that its task knows.
//! - A commit is told by its number and by an id of its own. A task that restarts may put other rows into commit n than
//!   its predecessor's commit n held, which may still be on its way.
//! - Lost requests are never delivered, and an unknown outcome is a reload at any moment, as in `commits`.

use stateright::{Model, Property};

/// How dead letters reach their table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Rule 9: as an intent in the main commit, completed before the next.
    Intent,
    /// A commit of their own before the main commit.
    Before,
    /// A commit of their own after the main commit.
    After,
}

/// Parts of rule 9 that can be left out.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub order: Order,
    /// An intent is completed before the next main commit.
    pub completed: bool,
    /// Letters are appended only if their table's token is below the intent's number.
    pub compare: bool,
    /// An append asserts the head whose token was compared.
    pub swap: bool,
}

impl Rules {
    pub const ALL: Self = Self { order: Order::Intent, completed: true, compare: true, swap: true };
}

/// How often something may happen in a run, of all tasks together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    pub starts: u8,
    /// Requests to either table.
    pub requests: u8,
    /// Commits of others in the dead-letter table.
    pub foreign: u8,
}

/// The model and its bounds.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    pub rules: Rules,
    pub instances: u8,
    /// Each task writes a key of its own into the one table: what another commits moves the head under it, and takes the
    /// next number, but does not fence it.
    pub keys_apart: bool,
    /// All of them cannot be written.
    pub rows: u8,
    pub budget: Budget,
}

/// What the main table's token says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Main {
    number: u8,
    commit: u8,
    /// The rows of its last commit, which are its intent: after the first number up to the second.
    from: u8,
    upto: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Letters {
    head: u8,
    token: u8,
    rows: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Request {
    Main { expected: u8, next: Main },
    Append { head: u8, number: u8, from: u8, upto: u8 },
}

/// A running task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Task {
    main: Main,
    /// Nothing is left to do before the next main commit.
    settled: bool,
    /// The main commits that it sent since it last knew where it stands.
    attempts: Vec<u8>,
    /// What appending found when a request was sent; only without an intent, which needs no memory.
    appended_at: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Instance {
    Down,
    Up(Task),
    Fenced,
}

/// Everything at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    main: Main,
    letters: Letters,
    instances: Vec<Instance>,
    flight: Vec<Request>,
    left: Budget,
    next_commit: u8,
}

/// A step; the first number is the instance's, or the request's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Starts, whatever it was doing, and loads the main table.
    Start(u8),
    /// Loads the dead-letter table, and sends the letters if they are not there.
    Append(u8),
    /// Sends a main commit of so many rows.
    Commit(u8, u8),
    /// Loads the main table, to learn what became of its commits.
    Look(u8),
    /// A request reaches the catalog.
    Deliver(usize),
    ForeignCommit,
}

impl DeadLetters {
    /// The letters that a task has to append now, and under which number.
    fn due(&self, main: Main) -> (u8, u8, u8) {
        match self.rules.order {
            Order::Before => (main.number + 1, main.upto, main.upto + 1),
            Order::Intent | Order::After => (main.number, main.from, main.upto),
        }
    }

    fn append(&self, state: &mut State, task: &mut Task) {
        let (number, from, upto) = self.due(task.main);
        let Letters { head, token, .. } = state.letters;
        let done = match self.rules.order {
            Order::Intent if self.rules.compare => token >= number,
            // Its own request has landed, or somebody else's: a plain commit tells no more.
            _ => task.appended_at.is_some_and(|before| before < head),
        };
        if done {
            task.settled = true;
            task.appended_at = None;
        } else if state.left.requests > 0 {
            state.left.requests -= 1;
            task.appended_at = (self.rules.order != Order::Intent || !self.rules.compare).then_some(head);
            state.flight.push(Request::Append { head, number, from, upto });
        }
    }

    fn look(&self, state: &State, task: &mut Task) -> Result<(), Instance> {
        if state.main == task.main {
            return Ok(());
        }
        if !self.keys_apart && !task.attempts.contains(&state.main.commit) {
            return Err(Instance::Fenced);
        }
        task.main = state.main;
        task.attempts.clear();
        task.settled = task.main.from == task.main.upto;
        Ok(())
    }
}

impl Model for DeadLetters {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            main: Main::default(),
            letters: Letters::default(),
            instances: vec![Instance::Down; usize::from(self.instances)],
            flight: Vec::new(),
            left: self.budget.clone(),
            next_commit: 1,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let mut fresh = true;
        for (at, instance) in (0..).zip(&state.instances) {
            // Instances that have never run are all alike.
            let startable = *instance != Instance::Down || fresh;
            fresh &= *instance != Instance::Down;
            if state.left.starts > 0 && startable {
                actions.push(Action::Start(at));
            }
            let Instance::Up(task) = instance else { continue };
            if !task.settled && self.due(task.main).2 <= self.rows {
                actions.push(Action::Append(at));
            }
            if !task.attempts.is_empty() {
                actions.push(Action::Look(at));
            }
            if state.left.requests > 0 && (task.settled || !self.rules.completed) {
                let most = if self.rules.order == Order::Before { 1 } else { 2 };
                let left = self.rows - task.main.upto;
                actions.extend((1..=left.min(most)).map(|rows| Action::Commit(at, rows)));
            }
        }
        actions.extend((0..state.flight.len()).map(Action::Deliver));
        if state.left.foreign > 0 {
            actions.push(Action::ForeignCommit);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Start(at) => {
                state.left.starts -= 1;
                let main = state.main;
                // Only an intent tells a start what is left to do.
                let settled = match self.rules.order {
                    Order::Intent => main.from == main.upto,
                    Order::Before => false,
                    Order::After => true,
                };
                let task = Task { main, settled, attempts: Vec::new(), appended_at: None };
                state.instances[usize::from(at)] = Instance::Up(task);
            }
            Action::Append(at) | Action::Commit(at, _) | Action::Look(at) => {
                let place = usize::from(at);
                let Instance::Up(mut task) = std::mem::replace(&mut state.instances[place], Instance::Down) else {
                    return None;
                };
                let mut after = Ok(());
                match action {
                    Action::Append(_) => self.append(&mut state, &mut task),
                    Action::Look(_) => after = self.look(&state, &mut task),
                    Action::Commit(_, rows) => {
                        state.left.requests -= 1;
                        let (commit, Main { number, upto, .. }) = (state.next_commit, task.main);
                        state.next_commit += 1;
                        let next = Main { number: number + 1, commit, from: upto, upto: upto + rows };
                        task.attempts.push(commit);
                        state.flight.push(Request::Main { expected: task.main.commit, next });
                    }
                    _ => {}
                }
                state.instances[place] = match after {
                    Ok(()) => Instance::Up(task),
                    Err(stopped) => stopped,
                };
            }
            Action::Deliver(at) => match state.flight.remove(at) {
                Request::Main { expected, next } => {
                    if state.main.commit == expected {
                        state.main = next;
                    }
                }
                Request::Append { head, number, from, upto } => {
                    if !self.rules.swap || state.letters.head == head {
                        state.letters.head += 1;
                        state.letters.token = number;
                        state.letters.rows.extend(from + 1..=upto);
                    }
                }
            },
            Action::ForeignCommit => {
                state.left.foreign -= 1;
                state.letters.head += 1;
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NO_LETTER_TWICE, |_, State { letters, .. }: &State| {
                let rows = &letters.rows;
                (1..rows.len()).all(|at| !rows[..at].contains(&rows[at]))
            }),
            Property::always(NO_LETTER_LOST, |_, State { main, letters, .. }: &State| {
                (1..=main.from).all(|row| letters.rows.contains(&row))
            }),
            Property::sometimes("all letters are delivered", |model: &Self, state: &State| {
                state.main.upto == model.rows && state.letters.rows.len() == usize::from(model.rows)
            }),
            Property::sometimes("a task is fenced, if one can be", |model: &Self, state: &State| {
                model.keys_apart || state.instances.contains(&Instance::Fenced)
            }),
        ]
    }
}

pub const NO_LETTER_TWICE: &str = "no dead letter is in its table twice";
pub const NO_LETTER_LOST: &str = "the letters of every main commit but the last are in their table";
