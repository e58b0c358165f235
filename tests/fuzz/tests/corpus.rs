//! Each target with what is in its corpus, and for a second, or for PHILOTES_FUZZ_SECONDS, with what becomes of that by chance.
//! `make fuzz` looks closer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use philotes_fuzz::TARGETS;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const TIME: Duration = Duration::from_secs(1);
const LONGEST: usize = 4096;

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

#[track_caller]
fn try_input(name: &str, target: fn(&[u8]), input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        panic!("{name}: b\"{}\"", input.escape_ascii());
    }
}

fn changed(random: &mut StdRng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut input = seeds[random.random_range(0..seeds.len())].clone();
    for _ in 0..random.random_range(1..=6) {
        let at = random.random_range(0..=input.len());
        let end = random.random_range(at..=input.len().min(at + 64));
        match random.random_range(0..6) {
            0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            1 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'['][random.random_range(0..7)],
            2 => drop(input.drain(at..end)),
            3 => {
                let part = input[at..end].to_vec();
                let times = random.random_range(1..50);
                input.splice(at..at, part.repeat(times));
            }
            4 => {
                let other = &seeds[random.random_range(0..seeds.len())];
                let start = random.random_range(0..=other.len());
                input.splice(at.., other[start..].iter().copied());
            }
            _ => drop(input.splice(at..at, std::iter::repeat_n(random.random::<u8>(), 1 + end - at))),
        }
        input.truncate(LONGEST);
    }
    input
}

/// The seeds, and what becomes of them in so long.
fn holds(name: &str) {
    let target = TARGETS.iter().find(|(target, _)| *target == name).expect("a target").1;
    let seeds = seeds(name);
    assert!(!seeds.is_empty(), "{name} has no corpus");
    for seed in &seeds {
        try_input(name, target, seed);
    }
    let time = std::env::var("PHILOTES_FUZZ_SECONDS").map_or(TIME, |text| Duration::from_secs(text.parse().unwrap()));
    let mut random = StdRng::seed_from_u64(1);
    let begun = Instant::now();
    while begun.elapsed() < time {
        try_input(name, target, &changed(&mut random, &seeds));
    }
}

macro_rules! targets {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            holds(stringify!($name));
        })*

        #[test]
        fn each_target_is_tried() {
            assert_eq!([$(stringify!($name)),*], TARGETS.map(|(name, _)| name));
        }
    };
}

targets!(config, json, buffer, kafka, registry, avro, metadata, files);

#[test]
fn each_corpus_is_one_of_a_target() {
    let corpora = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")).unwrap();
    for corpus in corpora {
        let name = corpus.unwrap().file_name().into_string().unwrap();
        assert!(TARGETS.iter().any(|(target, _)| *target == name), "{name}");
    }
}
