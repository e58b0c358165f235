//! The commit protocol holds, and each of its rules is needed.

use philotes_model::check::{deep, exhaust, refute};
use philotes_model::commits::{
    Budget, Commits, NO_LIVE_FILE_REMOVED, NO_ROW_LOST, NO_ROW_TWICE, NOBODY_GOES_ON, Rules,
};

/// Two instances, one stream of two rows, two starts and two requests in all; nobody interferes.
fn small() -> Commits {
    let budget = Budget { starts: 2, requests: 2, ..Budget::default() };
    Commits { rules: Rules::ALL, instances: 2, streams: 1, rows: 2, budget }
}

#[test]
fn instances_and_a_network_that_loses_and_doubles() {
    let mut model = small();
    model.budget = Budget { starts: 3, requests: 3, doubles: 1, appends: 1, ..Budget::default() };
    if deep() {
        model.instances = 3;
    }
    exhaust("commits, one stream", model).holds();
}

#[test]
fn two_streams_share_a_table() {
    let mut model = Commits { streams: 2, rows: 1, ..small() };
    model.budget = Budget { starts: 2, requests: 3, appends: 1, ..Budget::default() };
    if deep() {
        model.budget = Budget { starts: 3, appends: 0, ..model.budget };
    }
    exhaust("commits, two streams", model).holds();
}

#[test]
fn others_roll_back_replace_and_recreate() {
    let mut model = small();
    model.budget = Budget { requests: 3, rollbacks: 1, replaces: 1, recreates: 1, appends: 1, ..model.budget };
    if deep() {
        model.budget = Budget { starts: 3, ..model.budget };
    }
    exhaust("commits, harmed tables", model).holds();
}

#[test]
fn snapshots_expire() {
    let mut model = small();
    model.budget = Budget { requests: 3, expiries: 1, appends: 1, rollbacks: 1, ..model.budget };
    if deep() {
        model.budget = Budget { starts: 3, expiries: 2, ..model.budget };
    }
    exhaust("commits, expiry", model).holds();
}

/// Nobody dies for good, so that a task may have slept for days.
#[test]
fn orphans_are_removed() {
    let mut model = small();
    model.budget = Budget { requests: 3, orphans: 1, ..model.budget };
    if deep() {
        model.budget = Budget { doubles: 1, appends: 1, orphans: 2, ..model.budget };
    }
    exhaust("commits, orphans", model).holds();
}

#[test]
fn without_the_mark_a_task_commits_files_that_are_gone() {
    let mut model = Commits { rows: 1, instances: 1, ..small() };
    model.budget = Budget { starts: 1, orphans: 1, ..model.budget };
    model.rules.mark = false;
    refute("without comparing the mark of orphans (5)", &model, NO_LIVE_FILE_REMOVED);
    // Nor is it enough to say that they are removed: a request may be on its way.
    model.rules = Rules { fence: false, ..Rules::ALL };
    refute("without a snapshot before orphans are removed", &model, NO_LIVE_FILE_REMOVED);
}

#[test]
fn without_comparing_tokens_rows_are_doubled() {
    let mut model = small();
    model.budget.requests = 3;
    model.rules.compare = false;
    refute("without comparing tokens (5)", &model, NO_ROW_TWICE);
    // Nor is it enough to compare after conflicts: a second stream's announcement brings a new head too.
    model = Commits { streams: 2, rows: 1, ..model };
    model.budget.requests = 2;
    refute("without comparing tokens (5), two streams", &model, NO_ROW_TWICE);
}

#[test]
fn without_looking_for_attempts_rows_are_doubled() {
    let mut model = Commits { rows: 1, instances: 1, ..small() };
    model.budget.starts = 1;
    model.rules.look = false;
    refute("without looking after an unknown outcome (7)", &model, NO_ROW_TWICE);
}

#[test]
fn without_the_lineage_a_task_goes_on_after_a_rollback() {
    let mut model = small();
    model.budget = Budget { rollbacks: 1, appends: 1, ..model.budget };
    model.rules.lineage = false;
    refute("without the lineage (3)", &model, NOBODY_GOES_ON);
}

#[test]
fn without_the_epoch_a_late_acknowledgement_loses_rows() {
    let mut model = small();
    model.budget = Budget { recreates: 1, ..model.budget };
    model.rules.conditional = false;
    refute("without the condition on the epoch (4)", &model, NOBODY_GOES_ON);
}

#[test]
fn without_refusing_unknown_offsets_a_task_goes_on_in_a_new_table() {
    let mut model = small();
    model.budget = Budget { recreates: 1, ..model.budget };
    model.rules.known = false;
    refute("without refusing unknown offsets (4)", &model, NOBODY_GOES_ON);
}

#[test]
fn a_payload_that_grows_loses_rows() {
    let mut model = small();
    model.rules.frozen = false;
    refute("without freezing the payload (6)", &model, NO_ROW_LOST);
}

#[test]
fn an_expiry_can_hide_a_rollback() {
    let mut model = small();
    // One of the foreign commits comes before all, so that there is something to roll back to.
    model.budget = Budget { appends: 2, expiries: 1, rollbacks: 1, ..model.budget };
    model.rules.follows = false;
    refute("rule 3 without what the code adds", &model, NOBODY_GOES_ON);
    // A known limit, which docs/ARCHITECTURE.md names: after two foreign commits the code cannot tell either.
    model.rules.follows = true;
    model.budget.appends = 3;
    refute("rollback, two foreign commits, expiry: a known limit", &model, NOBODY_GOES_ON);
}
