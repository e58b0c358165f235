//! Whatever a reader finds in an upsert table at whatever moment is the source table as it was after some change. `make upsert`
//! does it with 10,000 keys, 1,000,000 changes and 20 kills.

use std::io::Write;
use std::time::Instant;

use philotes_tests::postgres_or_skip;
use philotes_tests::upsert::{Sizes, run};

/// What `make test` does.
const SMALL: [i64; 4] = [2_000, 20_000, 3, 2];

#[test]
fn equal_at_each_look_in_format_2() {
    equal_at_each_look(2);
}

#[test]
fn equal_at_each_look_in_format_3() {
    equal_at_each_look(3);
}

fn equal_at_each_look(version: u8) {
    let Some(postgres) = postgres_or_skip() else { return };
    let sizes = std::env::var("PHILOTES_UPSERT").ok();
    let [keys, changes, kills, compactions] = sizes.map_or(SMALL, |sizes| {
        let sizes: Vec<i64> = sizes.split_whitespace().map(|size| size.parse().unwrap()).collect();
        sizes.try_into().expect("keys, changes, kills and compactions")
    });
    let seed = std::env::var("SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    let start = Instant::now();
    let outcome = run(&postgres, version, &Sizes { keys, changes, kills, compactions }, seed)
        .unwrap_or_else(|error| panic!("upsert v{version}, SEED={seed}: {error:#}"));
    let line = format!("upsert v{version}: {outcome}; {:.0} s\n", start.elapsed().as_secs_f32());
    // Past the harness, which shows what a test prints only where the test fails.
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}
