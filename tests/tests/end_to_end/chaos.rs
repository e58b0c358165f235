//! The host under fire at every failpoint; `make chaos` runs the whole product.

use philotes_tests::chaos::{compiled_in, pairwise, run_all};
use philotes_tests::{bed_or_skip, skip};

#[test]
fn each_change_once_whatever_happens_where() {
    if let Err(error) = compiled_in() {
        return skip(&error);
    }
    let Some(bed) = bed_or_skip() else { return };
    assert_eq!(run_all(&pairwise(), &bed), Vec::<String>::new());
}
