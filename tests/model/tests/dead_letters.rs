//! Rule 9 holds, and each part of it is needed.

use philotes_model::check::{deep, exhaust, refute};
use philotes_model::dead_letters::{Budget, DeadLetters, NO_LETTER_LOST, NO_LETTER_TWICE, Order, Rules};

fn small() -> DeadLetters {
    let budget = Budget { starts: 3, requests: 5, foreign: 1 };
    DeadLetters { rules: Rules::ALL, instances: 2, keys_apart: false, rows: 3, budget }
}

#[test]
fn letters_arrive_once() {
    let mut model = small();
    if deep() {
        model = DeadLetters { instances: 3, budget: Budget { requests: 6, ..model.budget }, ..model };
    }
    exhaust("dead letters", model).holds();
}

/// Two tasks with keys of their own in one table share the intent and its numbers.
#[test]
fn letters_of_tasks_with_keys_of_their_own_arrive_once() {
    let mut model = DeadLetters { keys_apart: true, ..small() };
    if deep() {
        model.budget.requests = 6;
    }
    exhaust("dead letters of two keys", model).holds();
}

#[test]
fn a_plain_commit_before_the_main_one_doubles_letters() {
    let mut model = small();
    model.rules.order = Order::Before;
    refute("letters in a plain commit before the main one", &model, NO_LETTER_TWICE);
}

#[test]
fn a_plain_commit_after_the_main_one_loses_letters() {
    let mut model = small();
    model.rules.order = Order::After;
    refute("letters in a plain commit after the main one", &model, NO_LETTER_LOST);
}

#[test]
fn intents_that_are_not_completed_first_are_lost() {
    let mut model = small();
    model.rules.completed = false;
    refute("without completing an intent before the next commit", &model, NO_LETTER_LOST);
}

#[test]
fn without_comparing_the_token_letters_are_doubled() {
    let mut model = small();
    model.rules.compare = false;
    refute("without comparing the letters' token", &model, NO_LETTER_TWICE);
}

#[test]
fn without_asserting_the_head_letters_are_doubled() {
    let mut model = small();
    model.rules.swap = false;
    refute("without asserting the head", &model, NO_LETTER_TWICE);
}
