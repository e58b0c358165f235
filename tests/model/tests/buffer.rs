//! The buffer's rules hold, and each of them is needed.

use philotes_model::buffer::{
    Budget, Buffer, KEYS_IN_ORDER, NO_ROW_LOST, NO_ROW_TWICE, NO_ROW_UNDONE, NO_VAIN_REFUSAL, Rules,
};
use philotes_model::check::{deep, exhaust, refute};

/// Two instances, two starts in all, three rows of two keys, snapshots that return all; PostgreSQL stays up.
fn small() -> Buffer {
    let budget = Budget { starts: 2, ..Budget::default() };
    Buffer { rules: Rules::ALL, instances: 2, rows: 3, keys: 2, limit: 8, budget }
}

#[test]
fn two_instances_and_late_ids() {
    let mut model = small();
    model.budget.starts = 3;
    if deep() {
        model.instances = 3;
    }
    exhaust("buffer, late ids", model).holds();
}

#[test]
fn short_snapshots() {
    let mut model = Buffer { limit: 1, rows: 4, ..small() };
    if deep() {
        model.rows = 3;
        model.budget.starts = 3;
    }
    exhaust("buffer, snapshots of one row", model).holds();
}

#[test]
fn postgres_crashes() {
    let mut model = small();
    model.budget = Budget { starts: 3, crashes: 1, ..model.budget };
    if deep() {
        model.budget.crashes = 2;
    }
    exhaust("buffer, crashes", model).holds();
}

#[test]
fn the_buffer_is_truncated() {
    let mut model = small();
    model.budget = Budget { starts: 3, truncates: 1, ..model.budget };
    if deep() {
        model.budget.crashes = 1;
    }
    exhaust("buffer, truncated", model).holds();
}

#[test]
fn a_standby_is_promoted() {
    let mut model = small();
    model.budget.failovers = 1;
    if deep() {
        model.rows = 2;
        model.budget = Budget { starts: 3, crashes: 1, ..model.budget };
    }
    exhaust("buffer, failover", model).holds();
}

#[test]
fn a_counter_alone_loses_rows_after_a_failover() {
    let mut model = Buffer { rows: 2, ..small() };
    model.budget = Budget { starts: 3, failovers: 1, ..model.budget };
    model.rules.bits = false;
    refute("without random bits in the epoch", &model, NO_ROW_LOST);
}

#[test]
fn batch_rows_that_are_not_flushed_bring_undone_rows_into_the_table() {
    let mut model = small();
    model.budget.crashes = 1;
    model.rules.synchronous = false;
    refute("without synchronous batch rows", &model, NO_ROW_UNDONE);
    refute("without synchronous batch rows", &model, NO_VAIN_REFUSAL);
}

#[test]
fn batches_that_outlive_their_session_lose_rows() {
    let mut model = small();
    model.budget.crashes = 1;
    model.rules.same_session = false;
    refute("without discarding what a broken session read", &model, NO_ROW_LOST);
}

#[test]
fn acknowledging_on_a_new_session_doubles_rows_after_a_failover() {
    let mut model = Buffer { rows: 2, ..small() };
    model.budget.failovers = 1;
    model.rules.same_acknowledger = false;
    // The epoch had reached the standby and the batch had not: nothing is marked, and yet its offset is stored.
    refute("without acknowledging on the sessions of the start", &model, NO_ROW_TWICE);
}

#[test]
fn a_span_of_ids_loses_late_ones() {
    let mut model = small();
    model.rules.exact = false;
    refute("without exact ids", &model, NO_ROW_LOST);
}

#[test]
fn batches_that_a_start_clears_away_are_missed() {
    let mut model = small();
    model.rules.kept = false;
    refute("without keeping batches until they are acknowledged", &model, NO_VAIN_REFUSAL);
    model.rules.known = false;
    refute("nor refusing unknown offsets", &model, NO_ROW_TWICE);
}

#[test]
fn a_late_acknowledgement_of_an_earlier_epoch_takes_the_offset_back() {
    let mut model = Buffer { rows: 2, ..small() };
    model.budget.starts = 3;
    model.rules.conditional = false;
    refute("without the condition on the epoch", &model, NO_VAIN_REFUSAL);
}

#[test]
fn reading_on_from_the_last_id_turns_a_key_around() {
    let mut model = Buffer { limit: 1, ..small() };
    model.rules.lowest = false;
    refute("without starting at the lowest id", &model, KEYS_IN_ORDER);
}

#[test]
fn a_truncated_buffer_with_old_lists_loses_rows() {
    let mut model = small();
    model.budget.truncates = 1;
    model.rules.trigger = false;
    refute("without the trigger on TRUNCATE", &model, NO_ROW_LOST);
}
