//! An expiry takes nobody's files, and each of its rules is needed.

use philotes_model::check::{deep, exhaust, refute};
use philotes_model::expiry::{Budget, Expiry, NO_FILE_LOST, NO_KNOWN_REF_DROPPED, Rules};

/// A host that may die, a tag of somebody else, an orphan run, and two old snapshots.
fn small() -> Expiry {
    let budget = Budget { requests: 2, crashes: 1, tags: 1, orphans: 1, ..Budget::default() };
    Expiry { rules: Rules::ALL, hosts: 1, snapshots: 2, log: 3, embedded: false, budget }
}

#[test]
fn a_tag_made_meanwhile_keeps_its_files() {
    let mut model = small();
    model.budget = Budget { requests: 3, tags: 2, commits: 1, doubles: 1, ..model.budget };
    if deep() {
        model.budget.decisions = 1;
    }
    exhaust("expiry, one host", model).holds();
}

#[test]
fn two_hosts_expire_at_once() {
    let mut model = Expiry { hosts: 2, ..small() };
    if deep() {
        model.budget = Budget { requests: 3, tags: 2, ..model.budget };
    }
    exhaust("expiry, two hosts", model).holds();
}

#[test]
fn gc_is_switched_off_meanwhile() {
    let mut model = Expiry { hosts: 2, ..small() };
    model.budget.gc_off = 1;
    model.budget.decisions = 1;
    exhaust("expiry, gc.enabled=false", model).holds();
}

/// Metadata files go with every commit, so that what a request replaced is soon gone.
#[test]
fn old_metadata_is_gone() {
    let mut model = Expiry { log: 1, ..small() };
    model.budget = Budget { requests: 3, tags: 2, commits: 2, ..model.budget };
    exhaust("expiry, a short metadata log", model).holds();
}

#[test]
fn the_embedded_catalog_refuses() {
    let mut model = Expiry { embedded: true, hosts: 2, ..small() };
    model.budget = Budget { tags: 2, gc_off: 1, doubles: 1, ..model.budget };
    exhaust("expiry, embedded", model).holds();
}

#[test]
fn without_looking_at_what_was_replaced_a_tags_files_go() {
    let mut model = small();
    model.rules.looks = false;
    refute("expiry without a look", &model, NO_FILE_LOST);
}

#[test]
fn what_another_request_removed_is_that_ones_matter() {
    let mut model = Expiry { hosts: 2, ..small() };
    model.rules.own = false;
    refute("expiry that takes what was gone before it arrived for its own", &model, NO_FILE_LOST);
}

#[test]
fn a_request_from_before_a_tag_was_put_back_drops_it_again() {
    let mut model = small();
    model.budget = Budget { requests: 3, doubles: 1, ..model.budget };
    model.rules.restore_moves = false;
    refute("expiry, put back without a new current snapshot", &model, NO_FILE_LOST);
}

#[test]
fn without_asserting_refs_known_ones_are_dropped() {
    let mut model = small();
    model.budget.tags = 2;
    model.rules.asserts = false;
    refute("expiry without asserting refs", &model, NO_KNOWN_REF_DROPPED);
}

#[test]
fn without_a_record_an_orphan_run_takes_the_files() {
    let mut model = small();
    model.rules.record = false;
    refute("expiry without a record", &model, NO_FILE_LOST);
}

#[test]
fn records_under_one_name_overwrite_each_other() {
    let mut model = Expiry { hosts: 2, ..small() };
    model.rules.own_name = false;
    refute("expiry with one record for all", &model, NO_FILE_LOST);
}

#[test]
fn what_cannot_be_read_is_not_harmless() {
    let mut model = Expiry { log: 1, ..small() };
    model.budget.commits = 2;
    model.rules.unseen_stays = false;
    refute("expiry, replaced metadata gone", &model, NO_FILE_LOST);
}

#[test]
fn orphan_runs_that_do_not_refuse_take_the_files() {
    let mut model = small();
    model.rules.orphans_refuse = false;
    refute("orphan runs that take no notice", &model, NO_FILE_LOST);
}

#[test]
fn orphan_runs_that_look_once_take_the_files() {
    let mut model = small();
    model.rules.each_load = false;
    refute("orphan runs that look at the beginning only", &model, NO_FILE_LOST);
}
