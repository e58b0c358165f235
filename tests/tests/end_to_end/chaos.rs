//! The host under fire: at every failpoint, of which `make chaos` runs the whole product, and in a short storm, which
//! `make chaos MINUTES=20 SEED=1` makes long.

use std::time::Duration;

use philotes_tests::chaos::{compiled_in, pairwise, run_all};
use philotes_tests::{bed_or_skip, skip, storm};

#[test]
fn each_change_once_whatever_happens_where() {
    if let Err(error) = compiled_in() {
        return skip(&error);
    }
    let Some(bed) = bed_or_skip() else { return };
    assert_eq!(run_all(&pairwise(), &bed), Vec::<String>::new());
}

#[test]
fn each_change_once_after_a_short_storm() {
    let Some(bed) = bed_or_skip() else { return };
    // With this seed each of the lakes gets its share in so short a time: upsert tables are compacted, and begun anew.
    let outcome = storm::run(bed, Duration::from_secs(30), 139).unwrap();
    assert!(outcome.is_good(), "{outcome:?}");
}
