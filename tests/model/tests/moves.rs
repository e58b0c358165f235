//! The rule for rows that change their keys holds, and each part of it is needed.

use philotes_model::check::{deep, exhaust, refute};
use philotes_model::moves::{Displaced, EQUAL, EQUAL_AT_ENDS, Moves, Rules};

/// Two rows and three keys, four changes in transactions of any length, commits and one crash anywhere.
fn small() -> Moves {
    let events = if deep() { 5 } else { 4 };
    Moves { rules: Rules::ALL, rows: 2, keys: 3, alike: false, describes: true, events, crashes: 1, repeats: 0 }
}

#[test]
fn rows_that_are_described() {
    exhaust("moves, described", Moves { rows: if deep() { 3 } else { 2 }, ..small() }).holds();
}

#[test]
fn rows_of_equal_values() {
    exhaust("moves, equal values", Moves { alike: true, ..small() }).holds();
    exhaust("moves, equal values, keys only", Moves { alike: true, describes: false, ..small() }).holds();
}

#[test]
fn keys_only() {
    exhaust("moves, keys only", Moves { describes: false, ..small() }).holds();
}

#[test]
fn a_source_that_repeats() {
    exhaust("moves, repeated", Moves { repeats: if deep() { 2 } else { 1 }, events: 4, ..small() }).holds();
}

#[test]
fn the_last_change_wins() {
    let rules = Rules { displaced: Displaced::Overwritten, ..Rules::ALL };
    refute("moves, overwritten", &Moves { rules, ..small() }, EQUAL_AT_ENDS);
}

#[test]
fn rows_are_only_compared() {
    let rules = Rules { displaced: Displaced::Compared, ..Rules::ALL };
    refute("moves, compared", &Moves { rules, alike: true, ..small() }, EQUAL_AT_ENDS);
    // Nor where they differ: the row that stays was overwritten by one that moves on.
    refute("moves, compared, moving on", &Moves { rules, ..small() }, EQUAL_AT_ENDS);
}

#[test]
fn only_memory_knows() {
    let rules = Rules { displaced: Displaced::Remembered, ..Rules::ALL };
    refute("moves, remembered", &Moves { rules, ..small() }, EQUAL_AT_ENDS);
}

#[test]
fn descriptions_are_not_looked_at() {
    let rules = Rules { described: false, ..Rules::ALL };
    refute("moves, not described", &Moves { rules, ..small() }, EQUAL);
    refute("moves, not described, ends", &Moves { rules, ..small() }, EQUAL_AT_ENDS);
}

#[test]
fn repetitions_are_taken_for_moves() {
    let rules = Rules { told_apart: false, ..Rules::ALL };
    refute("moves, repetitions", &Moves { rules, repeats: 1, ..small() }, EQUAL_AT_ENDS);
}
