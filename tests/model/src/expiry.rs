//! DESIGN §10: the sink expires snapshots of a table in which others make tags at any moment, through a catalog that can assert named
//! refs only. The code is in the sink's `expire`.
//!
//! What is abstracted away, and why that is safe:
//! - Only old snapshots are told apart, and each has files of its own; the current one is a number that foreign commits move.
//!   A tag stands for a branch too, whose history is held like its head.
//! - A metadata file is the state that it holds. The catalog keeps the last ones in the metadata log, and files that have fallen out of
//!   it are gone.
//! - A request that is lost is one that is never delivered; an unknown outcome is a load of the table at any moment later, which
//!   finds the request's record or does not.
//! - Clearing a record, deciding and what analysts do are one step each: they assert nothing that could fail.
//! - An orphan run lists and removes the files of snapshots only. Its fence is `commits`' matter.

use stateright::{Model, Property};

/// Old snapshots, or their files, as bits.
type Set = u8;

const TAGS: usize = 2;

/// Rules that can be left out.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The request asserts every ref that its plan knew.
    pub asserts: bool,
    /// Files go only after the metadata that the request replaced was read.
    pub looks: bool,
    /// Only files of snapshots that this very request removed go, not those that another had removed before it arrived.
    pub own: bool,
    /// The request sets a record of what it removes, which is cleared once that is done with.
    pub record: bool,
    /// What puts a snapshot back moves the current snapshot, which every expiry asserts: one that was planned before cannot come after.
    pub restore_moves: bool,
    /// Each request's record has a name of its own: nobody asserts properties.
    pub own_name: bool,
    /// Where the replaced metadata cannot be read, the files stay.
    pub unseen_stays: bool,
    /// An orphan run refuses a table with a record that is not known to be harmless.
    pub orphans_refuse: bool,
    /// It looks for records in every state of the table from which it learns what is in use.
    pub each_load: bool,
}

impl Rules {
    pub const ALL: Self = Self {
        asserts: true,
        looks: true,
        own: true,
        record: true,
        restore_moves: true,
        own_name: true,
        unseen_stays: true,
        orphans_refuse: true,
        each_load: true,
    };
}

/// How often something may happen in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    pub requests: u8,
    /// Deliveries of a request that stays on its way and may be delivered again.
    pub doubles: u8,
    pub crashes: u8,
    /// Tags made or moved by others.
    pub tags: u8,
    /// `gc.enabled=false`, set by others.
    pub gc_off: u8,
    /// Commits of others, which move the current snapshot.
    pub commits: u8,
    /// Runs that remove orphans.
    pub orphans: u8,
    /// Decisions of an operator that a record's files may go.
    pub decisions: u8,
}

/// The model and its bounds.
#[derive(Clone, Debug)]
pub struct Expiry {
    pub rules: Rules,
    pub hosts: u8,
    /// Old snapshots.
    pub snapshots: u8,
    /// Entries that the metadata log keeps.
    pub log: usize,
    /// The embedded catalog: a request applies only to the metadata that it was planned on.
    pub embedded: bool,
    pub budget: Budget,
}

/// What a request says it removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Record {
    request: u8,
    removes: Set,
}

/// The table's metadata.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Metadata {
    version: u8,
    head: u8,
    snapshots: Set,
    tags: [Option<u8>; TAGS],
    gc: bool,
    records: Vec<Record>,
}

impl Metadata {
    fn tagged(&self) -> Set {
        self.tags.iter().flatten().fold(0, |set, snapshot| set | 1 << snapshot)
    }

    /// What it forbids to remove.
    fn held(&self) -> Set {
        if self.gc { self.tagged() } else { Set::MAX }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Request {
    Expire {
        id: u8,
        planned_on: Metadata,
        removes: Set,
    },
    /// Puts back what these tags named, on a current snapshot.
    Restore {
        record: Record,
        tags: [Option<u8>; TAGS],
        head: u8,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Host {
    Idle,
    /// The table was loaded, and this is to go.
    Planned(Metadata, Set),
    /// The request is out.
    Sent(u8, Set),
    /// Files of these snapshots may go: nobody forbade what the record says.
    Harmless(Record, Set),
    /// They are gone.
    Done(u8),
}

/// An orphan run: the files that it listed, and the snapshots that it has found to be in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Orphans {
    listed: Set,
    live: Set,
    /// How often it has learnt what is in use.
    reached: u8,
}

/// Everything at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    table: Metadata,
    /// The metadata log, oldest first.
    log: Vec<Metadata>,
    files: Set,
    hosts: Vec<Host>,
    flight: Vec<Request>,
    orphans: Option<Orphans>,
    left: Budget,
    next_request: u8,
    /// Removed from the table although a tag named it or gc.enabled was false, and not put back.
    owed: Set,
    decided: Set,
    /// A ref that the plan knew was dropped.
    known_dropped: bool,
    restored: bool,
    swept: bool,
}

/// A step; the first number is the host's, or the request's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Loads the table and plans.
    Plan(u8),
    Send(u8),
    Deliver(usize),
    DeliverTwice(usize),
    /// The answer arrives: it shows the log as the request left it.
    Answer(u8),
    /// Loads the table and looks what its nth record was about.
    Look(u8, usize),
    Delete(u8),
    Clear(u8),
    Crash(u8),
    Tag(usize, u8),
    GcOff,
    ForeignCommit,
    /// An orphan run loads the table and lists files.
    Orphans,
    /// It loads the table to learn what is in use.
    Reach,
    Remove,
    /// An operator says that the files of the nth record may go.
    Decide(usize),
}

/// What a record was about.
enum Verdict {
    /// The request removed these snapshots, and nobody held one.
    Harmless(Set),
    /// These tags named some; none where gc.enabled forbade it.
    Forbidden([Option<u8>; TAGS]),
    Unseen,
}

impl Expiry {
    /// Looks for the metadata that a record's request replaced: the newest that does not have the record.
    fn judge(&self, log: &[Metadata], record: Record) -> Verdict {
        let without = |metadata: &&Metadata| metadata.records.iter().all(|other| other.request != record.request);
        let Some(replaced) = log.iter().rev().find(without).filter(|_| self.rules.looks) else {
            let careless = !self.rules.looks || !self.rules.unseen_stays;
            return if careless { Verdict::Harmless(record.removes) } else { Verdict::Unseen };
        };
        let removed = record.removes & replaced.snapshots;
        if replaced.held() & removed == 0 {
            // What was gone by then is the matter of the request that removed it.
            return Verdict::Harmless(if self.rules.own { removed } else { record.removes });
        }
        let named = |tag: Option<u8>| tag.filter(|snapshot| replaced.gc && removed & 1 << *snapshot != 0);
        Verdict::Forbidden(replaced.tags.map(named))
    }

    /// A commit: the metadata before it goes into the log.
    fn commit(&self, state: &mut State, next: Metadata) {
        let before = std::mem::replace(&mut state.table, next);
        state.table.version = before.version + 1;
        state.log.push(before);
        if state.log.len() > self.log {
            state.log.remove(0);
        }
    }

    fn deliver(&self, state: &mut State, request: &Request) {
        let mut next = state.table.clone();
        match request {
            Request::Expire { id, planned_on, removes } => {
                if self.embedded && planned_on.version != next.version || planned_on.head != next.head {
                    return;
                }
                let known = |tag: &usize| planned_on.tags[*tag].is_some();
                if self.rules.asserts && (0..TAGS).filter(known).any(|tag| planned_on.tags[tag] != next.tags[tag]) {
                    return;
                }
                let removed = removes & next.snapshots;
                state.owed |= removed & next.held();
                for tag in 0..TAGS {
                    if next.tags[tag].is_some_and(|snapshot| removed & 1 << snapshot != 0) {
                        state.known_dropped |= known(&tag);
                        next.tags[tag] = None;
                    }
                }
                next.snapshots &= !removed;
                if self.rules.record {
                    let request = if self.rules.own_name { *id } else { 0 };
                    next.records.retain(|record| record.request != request);
                    next.records.push(Record { request, removes: *removes });
                }
            }
            Request::Restore { record, tags, head } => {
                let free = |tag: usize| {
                    tags[tag].is_none_or(|snapshot| next.tags[tag].is_none() && next.snapshots & 1 << snapshot == 0)
                };
                if *head != next.head || !(0..TAGS).all(free) {
                    return;
                }
                let back = tags.iter().flatten().fold(0, |set, snapshot| set | 1 << snapshot);
                for (tag, snapshot) in tags.iter().enumerate() {
                    next.tags[tag] = snapshot.or(next.tags[tag]);
                }
                next.snapshots |= back;
                next.head += u8::from(self.rules.restore_moves);
                state.owed &= !back;
                state.restored = true;
                next.records.retain(|other| other.request != record.request);
            }
        }
        self.commit(state, next);
    }

    /// What a host does about a record, having seen this log.
    fn conclude(&self, state: &mut State, record: Record, log: &[Metadata]) -> Host {
        match self.judge(log, record) {
            Verdict::Harmless(removed) => Host::Harmless(record, removed & !state.table.snapshots),
            Verdict::Unseen => Host::Idle,
            Verdict::Forbidden(tags) => {
                // Where gc.enabled forbade it, only somebody can decide.
                if tags != [None; TAGS] && state.left.requests > 0 {
                    state.left.requests -= 1;
                    state.flight.push(Request::Restore { record, tags, head: state.table.head });
                }
                Host::Idle
            }
        }
    }

    fn advance(&self, state: &mut State, action: Action, host: Host) -> Host {
        match (action, host) {
            (Action::Plan(_), Host::Idle) => {
                let free = state.table.snapshots & !state.table.held();
                Host::Planned(state.table.clone(), free)
            }
            (Action::Send(_), Host::Planned(planned_on, removes)) => {
                let id = state.next_request;
                state.left.requests -= 1;
                state.next_request += 1;
                state.flight.push(Request::Expire { id, planned_on, removes });
                Host::Sent(if self.rules.own_name { id } else { 0 }, removes)
            }
            (Action::Answer(_), Host::Sent(request, removes)) => {
                let record = Record { request, removes };
                let log = state.log.clone();
                self.conclude(state, record, &log)
            }
            (Action::Look(_, nth), _) => {
                let (record, log) = (state.table.records[nth], state.log.clone());
                self.conclude(state, record, &log)
            }
            (Action::Delete(_), Host::Harmless(record, gone)) => {
                state.files &= !gone;
                Host::Done(record.request)
            }
            (Action::Clear(_), Host::Done(request)) => {
                let mut next = state.table.clone();
                next.records.retain(|record| record.request != request);
                self.commit(state, next);
                Host::Idle
            }
            (Action::Crash(_), _) => {
                state.left.crashes -= 1;
                Host::Idle
            }
            (_, host) => host,
        }
    }

    /// Whether an orphan run goes on with this state of the table.
    fn passes(&self, state: &State) -> bool {
        let harmless = |record: &Record| matches!(self.judge(&state.log, *record), Verdict::Harmless(_));
        !self.rules.orphans_refuse || state.table.gc && state.table.records.iter().all(harmless)
    }
}

impl Model for Expiry {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let snapshots = (1 << self.snapshots) - 1;
        let table = Metadata { version: 0, head: 0, snapshots, tags: [None; TAGS], gc: true, records: Vec::new() };
        vec![State {
            table,
            log: Vec::new(),
            files: snapshots,
            hosts: vec![Host::Idle; usize::from(self.hosts)],
            flight: Vec::new(),
            orphans: None,
            left: self.budget.clone(),
            next_request: 1,
            owed: 0,
            decided: 0,
            known_dropped: false,
            restored: false,
            swept: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (at, host) in (0..).zip(&state.hosts) {
            match host {
                Host::Idle => {
                    if state.table.snapshots & !state.table.held() != 0 && state.left.requests > 0 {
                        actions.push(Action::Plan(at));
                    }
                }
                Host::Planned(..) if state.left.requests > 0 => actions.push(Action::Send(at)),
                Host::Planned(..) => {}
                Host::Sent(request, _) => {
                    // An answer shows the request's own commit.
                    let newest = state.log.last();
                    let mine = |metadata: &Metadata| metadata.records.iter().any(|r| r.request == *request);
                    if mine(&state.table) && newest.is_some_and(|metadata| !mine(metadata)) {
                        actions.push(Action::Answer(at));
                    }
                }
                Host::Harmless(..) => actions.push(Action::Delete(at)),
                Host::Done(_) => actions.push(Action::Clear(at)),
            }
            if matches!(host, Host::Idle | Host::Sent(..)) {
                actions.extend((0..state.table.records.len()).map(|nth| Action::Look(at, nth)));
            }
            if *host != Host::Idle && state.left.crashes > 0 {
                actions.push(Action::Crash(at));
            }
        }
        for at in 0..state.flight.len() {
            actions.push(Action::Deliver(at));
            if state.left.doubles > 0 {
                actions.push(Action::DeliverTwice(at));
            }
        }
        if state.left.tags > 0 {
            let existing = (0..self.snapshots).filter(|snapshot| state.table.snapshots & 1 << snapshot != 0);
            for snapshot in existing {
                actions.extend((0..TAGS).map(|tag| Action::Tag(tag, snapshot)));
            }
        }
        if state.left.gc_off > 0 && state.table.gc {
            actions.push(Action::GcOff);
        }
        if state.left.commits > 0 {
            actions.push(Action::ForeignCommit);
        }
        match state.orphans {
            None if state.left.orphans > 0 => actions.push(Action::Orphans),
            None => {}
            Some(Orphans { reached: 2, .. }) => actions.push(Action::Remove),
            Some(_) => actions.push(Action::Reach),
        }
        if state.left.decisions > 0 {
            actions.extend((0..state.table.records.len()).map(Action::Decide));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Plan(at)
            | Action::Send(at)
            | Action::Answer(at)
            | Action::Look(at, _)
            | Action::Delete(at)
            | Action::Clear(at)
            | Action::Crash(at) => {
                let host = std::mem::replace(&mut state.hosts[usize::from(at)], Host::Idle);
                state.hosts[usize::from(at)] = self.advance(&mut state, action, host);
            }
            Action::Deliver(at) => {
                let request = state.flight.remove(at);
                self.deliver(&mut state, &request);
            }
            Action::DeliverTwice(at) => {
                state.left.doubles -= 1;
                let request = state.flight[at].clone();
                self.deliver(&mut state, &request);
            }
            Action::Tag(tag, snapshot) => {
                state.left.tags -= 1;
                let mut next = state.table.clone();
                next.tags[tag] = Some(snapshot);
                self.commit(&mut state, next);
            }
            Action::GcOff => {
                state.left.gc_off -= 1;
                let next = Metadata { gc: false, ..state.table.clone() };
                self.commit(&mut state, next);
            }
            Action::ForeignCommit => {
                state.left.commits -= 1;
                let next = Metadata { head: state.table.head + 1, ..state.table.clone() };
                self.commit(&mut state, next);
            }
            Action::Orphans => {
                state.left.orphans -= 1;
                if self.passes(&state) {
                    state.orphans = Some(Orphans { listed: state.files, live: 0, reached: 0 });
                }
            }
            Action::Reach => {
                let orphans = state.orphans.take()?;
                if !self.rules.each_load || self.passes(&state) {
                    let live = orphans.live | state.table.snapshots;
                    state.orphans = Some(Orphans { live, reached: orphans.reached + 1, ..orphans });
                }
            }
            Action::Remove => {
                let orphans = state.orphans.take()?;
                let gone = orphans.listed & !orphans.live & state.files;
                state.files &= !gone;
                state.swept |= gone != 0;
            }
            Action::Decide(nth) => {
                state.left.decisions -= 1;
                let record = state.table.records[nth];
                state.decided |= record.removes;
                let mut next = state.table.clone();
                next.records.retain(|other| other.request != record.request);
                self.commit(&mut state, next);
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NO_FILE_LOST, |_, state: &State| {
                let needed = (state.table.tagged() | state.owed) & !state.decided;
                needed & !state.files == 0
            }),
            Property::always(NO_KNOWN_REF_DROPPED, |_, state: &State| !state.known_dropped),
            Property::always(EMBEDDED_REFUSES, |model: &Self, state: &State| !model.embedded || state.owed == 0),
            Property::sometimes("files of expired snapshots go", |model: &Self, state: &State| {
                state.files != (1 << model.snapshots) - 1 && !state.swept
            }),
            Property::sometimes("a tag is put back, if one can be dropped", |model: &Self, state: &State| {
                state.restored || model.embedded || model.budget.tags == 0
            }),
            Property::sometimes("an orphan run removes files, if there is one", |model: &Self, state: &State| {
                state.swept || model.budget.orphans == 0
            }),
        ]
    }
}

pub const NO_FILE_LOST: &str = "what a tag names, or gc.enabled=false kept, has its files until somebody has decided";
pub const NO_KNOWN_REF_DROPPED: &str = "no ref that the plan knew is dropped";
pub const EMBEDDED_REFUSES: &str = "the embedded catalog drops nothing that is held";
