//! Rows that change their keys while other rows still hold them, as a DEFERRABLE key allows within a transaction.
//!
//! What is expected is what a table of PostgreSQL would hold: rows with an identity of their own, whatever their keys.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::upserts::{Change, UNSENT, changes, flush, upserting, write};
use super::*;
use crate::config::Deletes;
use crate::tests::faulty::Fault;
use crate::upsert;

/// Fills the table, writes the changes with a commit after so many of them each time, by sinks that are begun anew where
/// that is said, and gives back what a reader finds.
async fn after(filled: &[Change], then: &[Change], every: usize, restarts: bool) -> Vec<(i64, String)> {
    let lake = upserting();
    let (mut sink, _) = lake.announced().await;
    write(&mut sink, filled, 1).await;
    flush(&mut sink, 1).await;
    // A changed key is two rows, which come in one batch.
    let mut events: Vec<Vec<Change>> = Vec::new();
    for change in then {
        match events.last_mut() {
            Some(event) if change.0 == "MOVED" => event.push(*change),
            _ => events.push(vec![*change]),
        }
    }
    for (to, events) in (2..).zip(events.chunks(every)) {
        write(&mut sink, &events.concat(), to).await;
        flush(&mut sink, to).await;
        if restarts {
            sink = lake.announced().await.0;
        }
    }
    lake.bag().await.0
}

async fn displaced(lake: &Lake) -> u64 {
    let metadata = lake.metadata().await;
    upsert::displaced(&metadata, "shop").unwrap()
}

fn rows(rows: &[(i64, &str)]) -> Vec<(i64, String)> {
    rows.iter().map(|(id, note)| (*id, (*note).to_owned())).collect()
}

/// The same in one commit, in one per change, and with a start after each.
async fn always(filled: &[Change], then: &[Change], expected: &[(i64, &str)]) {
    for (every, restarts) in [(usize::MAX, false), (1, false), (1, true), (2, true)] {
        assert_eq!(after(filled, then, every, restarts).await, rows(expected), "{then:?}, {every}, {restarts}");
    }
}

const THREE: [Change; 3] = [("INSERT", 1, "a"), ("INSERT", 2, "b"), ("INSERT", 3, "c")];

#[tokio::test]
async fn every_key_goes_up_by_one() {
    for known in [["a", "b", "c"], [UNSENT; 3]] {
        let [a, b, c] = known;
        let shift = [
            ("DELETE", 1, a),
            ("MOVED", 2, "a"),
            ("DELETE", 2, b),
            ("MOVED", 3, "b"),
            ("DELETE", 3, c),
            ("MOVED", 4, "c"),
        ];
        always(&THREE, &shift, &[(2, "a"), (3, "b"), (4, "c")]).await;
        // The values that did not change are not sent.
        let shift = [
            ("DELETE", 1, UNSENT),
            ("MOVED", 2, UNSENT),
            ("DELETE", 2, UNSENT),
            ("MOVED", 3, UNSENT),
            ("DELETE", 3, UNSENT),
            ("MOVED", 4, UNSENT),
        ];
        always(&THREE, &shift, &[(2, "a"), (3, "b"), (4, "c")]).await;
    }
}

#[tokio::test]
async fn rows_of_equal_values_are_counted() {
    let filled = [("INSERT", 1, "x"), ("INSERT", 2, "x")];
    let shift = [("DELETE", 1, "x"), ("MOVED", 2, "x"), ("DELETE", 2, "x"), ("MOVED", 3, "x")];
    always(&filled, &shift, &[(2, "x"), (3, "x")]).await;
    // The same changes, of one row.
    always(&filled[..1], &shift, &[(3, "x")]).await;
}

#[tokio::test]
async fn two_rows_change_places() {
    let swap = [("DELETE", 1, "a"), ("MOVED", 2, "a"), ("DELETE", 2, "b"), ("MOVED", 1, "b")];
    always(&THREE, &swap, &[(1, "b"), (2, "a"), (3, "c")]).await;
    let unsent = swap.map(|(op, id, _)| (op, id, UNSENT));
    always(&THREE, &unsent, &[(1, "b"), (2, "a"), (3, "c")]).await;
}

#[tokio::test]
async fn a_row_moves_on_or_goes() {
    // Over one that stays, which the DELETE does not describe.
    let over = [("DELETE", 1, "a"), ("MOVED", 2, "a"), ("DELETE", 2, "a"), ("MOVED", 4, "a")];
    always(&THREE, &over, &[(2, "b"), (3, "c"), (4, "a")]).await;
    always(&THREE, &[("DELETE", 1, "a"), ("MOVED", 2, "a"), ("DELETE", 2, "a")], &[(2, "b"), (3, "c")]).await;
    // Onto one that is then deleted.
    always(&THREE, &[("DELETE", 1, "a"), ("MOVED", 2, "a"), ("DELETE", 2, "b")], &[(2, "a"), (3, "c")]).await;
    always(&THREE, &[("DELETE", 1, UNSENT), ("MOVED", 2, "a"), ("DELETE", 2, UNSENT)], &[(2, "a"), (3, "c")]).await;
    // And is changed before.
    let changed = [("DELETE", 1, "a"), ("MOVED", 2, "a"), ("UPDATE", 2, "d"), ("DELETE", 2, "b")];
    always(&THREE, &changed, &[(2, "d"), (3, "c")]).await;
    // Two of them are there by then.
    let both = [("DELETE", 1, "a"), ("MOVED", 3, "a"), ("DELETE", 2, "b"), ("MOVED", 3, "b"), ("DELETE", 3, "c")];
    let gone = [&both[..], &[("DELETE", 3, "a"), ("MOVED", 5, "a")]].concat();
    always(&THREE, &gone, &[(3, "b"), (5, "a")]).await;
}

#[tokio::test]
async fn a_move_that_comes_again_leaves_one_row() {
    let again = [("DELETE@7", 1, "a"), ("MOVED@7", 4, "a"), ("UPDATE@8", 4, "d")];
    for every in [1, usize::MAX] {
        let lake = upserting();
        let (mut sink, _) = lake.announced().await;
        write(&mut sink, &THREE, 1).await;
        flush(&mut sink, 1).await;
        for to in 2..5 {
            write(&mut sink, &again, to).await;
            if every == 1 {
                flush(&mut sink, to).await;
            }
        }
        if every != 1 {
            flush(&mut sink, 4).await;
        }
        assert_eq!(lake.bag().await.0, rows(&[(2, "b"), (3, "c"), (4, "d")]));
        assert_eq!(displaced(&lake).await, 0);
    }
}

#[tokio::test]
async fn the_table_says_when_it_holds_a_key_twice() {
    let lake = upserting();
    let (mut sink, _) = lake.announced().await;
    write(&mut sink, &THREE, 1).await;
    flush(&mut sink, 1).await;
    write(&mut sink, &[("DELETE", 1, "a"), ("MOVED", 2, "a")], 2).await;
    flush(&mut sink, 2).await;
    assert_eq!(lake.bag().await.0, rows(&[(2, "a"), (2, "b"), (3, "c")]));
    assert_eq!(lake.metadata().await.properties()["philotes.displaced.shop"], "1");
    let (mut sink, _) = lake.announced().await;
    write(&mut sink, &[("UPDATE", 3, "d")], 3).await;
    flush(&mut sink, 3).await;
    assert_eq!(lake.metadata().await.properties()["philotes.displaced.shop"], "1");
    write(&mut sink, &[("TRUNCATE", 0, ""), ("INSERT", 2, "e")], 4).await;
    flush(&mut sink, 4).await;
    assert_eq!(lake.bag().await.0, rows(&[(2, "e")]));
    assert_eq!(lake.metadata().await.properties()["philotes.displaced.shop"], "0");
}

#[tokio::test]
async fn deleted_rows_stay_and_count_for_nothing() {
    let mut lake = upserting();
    lake.config.deletes = Some(Deletes::Soft);
    let shift = [("DELETE", 1, "a"), ("MOVED", 2, "a"), ("DELETE", 2, "b"), ("MOVED", 3, "b")];
    let (mut sink, _) = lake.announced().await;
    write(&mut sink, &[&THREE[..2], &[("INSERT", 3, "z"), ("DELETE", 3, "z")]].concat(), 1).await;
    flush(&mut sink, 1).await;
    for (to, pair) in (2..).zip(shift.chunks(2)) {
        write(&mut sink, pair, to).await;
        flush(&mut sink, to).await;
    }
    assert_eq!(lake.bag().await.0, rows(&[(1, "a"), (2, "a"), (3, "b")]));
    assert_eq!(displaced(&lake).await, 0);
}

/// Random transactions of rows that come, change, move and go; commits that fail, and starts, anywhere in them.
#[tokio::test]
async fn whatever_moves_the_table_holds_the_sources_rows() {
    let mut twice = 0;
    for seed in 0..12 {
        twice += run(seed).await;
    }
    assert!(twice > 100, "keys were held twice {twice} times");
}

#[derive(Clone, Debug)]
struct Source {
    rows: Vec<(i64, String)>,
    /// In the order in which they came to their keys.
    came: Vec<u64>,
    clock: u64,
    /// DELETEs say the row before.
    described: bool,
    alike: bool,
}

impl Source {
    fn is_twice(&self, id: i64) -> bool {
        self.rows.iter().filter(|(other, _)| *other == id).count() > 1
    }

    fn is_consistent(&self) -> bool {
        self.rows.iter().all(|(id, _)| !self.is_twice(*id))
    }

    /// Whether it can be told which row leaves its key.
    fn can_leave(&self, row: usize) -> bool {
        let others = (0..self.rows.len()).filter(|other| self.rows[*other].0 == self.rows[row].0);
        let first = others.min_by_key(|other| self.came[*other]);
        let same = |other: &&(i64, String)| **other == self.rows[row];
        (self.described && self.rows.iter().filter(same).count() == 1) || first == Some(row)
    }

    /// One change of the source, as it is sent.
    fn change(&mut self, random: &mut StdRng) -> Vec<(&'static str, i64, String)> {
        self.clock += 1;
        let note = if self.alike { "x".to_owned() } else { format!("n{}", self.clock) };
        let row = random.random_range(0..self.rows.len().max(1));
        let key = random.random_range(1..7);
        let told = |note: &str, described: bool| if described { note.to_owned() } else { UNSENT.to_owned() };
        match random.random_range(0..10) {
            0..2 if !self.rows.iter().any(|(id, _)| *id == key) => {
                self.rows.push((key, note.clone()));
                self.came.push(self.clock);
                vec![("INSERT", key, note)]
            }
            2 if row < self.rows.len() && self.can_leave(row) => {
                let (id, before) = self.rows.remove(row);
                self.came.remove(row);
                vec![("DELETE", id, told(&before, self.described))]
            }
            3..5 if row < self.rows.len() && !self.is_twice(self.rows[row].0) => {
                let id = self.rows[row].0;
                let keeps = random.random_ratio(1, 2);
                if !keeps {
                    self.rows[row].1.clone_from(&note);
                }
                vec![("UPDATE", id, told(&note, !keeps))]
            }
            5..10 if row < self.rows.len() && key != self.rows[row].0 && self.can_leave(row) => {
                let (id, before) = std::mem::replace(&mut self.rows[row], (key, String::new()));
                let keeps = random.random_ratio(1, 2);
                let now = if keeps { before.clone() } else { note };
                self.rows[row].1.clone_from(&now);
                self.came[row] = self.clock;
                vec![("DELETE", id, told(&before, self.described)), ("MOVED", key, told(&now, !keeps))]
            }
            _ => Vec::new(),
        }
    }
}

/// Gives back how often a commit found a key that was held twice.
async fn run(seed: u64) -> u64 {
    let mut random = StdRng::seed_from_u64(seed);
    let mut lake = upserting();
    if seed % 3 == 1 {
        lake.config.partition_by = vec!["note".into()];
    }
    if seed % 3 == 2 {
        lake.config.format_version = 3;
    }
    let mut source =
        Source { rows: Vec::new(), came: Vec::new(), clock: 0, described: seed % 4 < 3, alike: seed % 5 == 4 };
    let (mut sink, mut catalog) = lake.announced().await;
    let (mut to, mut twice) = (0, 0u64);
    for step in 0..120 {
        let events = if step < 110 || !source.is_consistent() { 1 } else { 0 };
        for _ in 0..events {
            let sent = source.change(&mut random);
            if sent.is_empty() {
                continue;
            }
            to += 1;
            let sent: Vec<(&str, i64, &str)> = sent.iter().map(|(op, id, note)| (*op, *id, note.as_str())).collect();
            sink.write(&changes(&sent, to)).await.unwrap();
        }
        if to == 0 || random.random_ratio(2, 3) {
            continue;
        }
        let faults: Vec<Fault> = (0..random.random_range(0..3))
            .map(|_| match random.random_range(0..4) {
                0 => Fault::AppliedButConflict,
                1 => Fault::LostReply,
                2 => Fault::Swallowed,
                _ => Fault::Unavailable,
            })
            .collect();
        catalog.script(faults);
        let mut flushes = 0;
        loop {
            let failed = sink.flush().await.unwrap().failed;
            let Some((_, error)) = failed.first() else { break };
            flushes += 1;
            assert!(flushes < 10, "seed {seed}, step {step}: {error}");
        }
        let mut expected = source.rows.clone();
        expected.sort();
        assert_eq!(lake.bag().await.0, expected, "seed {seed}, step {step}");
        let shared: u64 = expected.chunk_by(|one, other| one.0 == other.0).map(|rows| rows.len() as u64 - 1).sum();
        assert_eq!(displaced(&lake).await, shared, "seed {seed}, step {step}");
        twice += shared;
        if random.random_ratio(1, 3) {
            (sink, catalog) = lake.faulty().await;
            assert_eq!(sink.offsets(&[orders()]).await.unwrap(), [Some(offset(to))]);
        }
    }
    twice
}
