//! Each target with what is in its corpus, and for a second with what becomes of that by chance. `make fuzz` looks longer.

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

#[test]
fn what_is_known_and_what_becomes_of_it_ends_in_a_value_or_an_error() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no corpus");
        for seed in &seeds {
            try_input(name, target, seed);
        }
        let mut random = StdRng::seed_from_u64(1);
        let begun = Instant::now();
        while begun.elapsed() < TIME {
            try_input(name, target, &changed(&mut random, &seeds));
        }
    }
}

#[test]
fn each_corpus_is_one_of_a_target() {
    let corpora = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")).unwrap();
    for corpus in corpora {
        let name = corpus.unwrap().file_name().into_string().unwrap();
        assert!(TARGETS.iter().any(|(target, _)| *target == name), "{name}");
    }
}
