//! `chaos [WORD…]` runs every failpoint with everything, or the cases whose line has these words; `chaos --storm MINUTES SEED`
//! lets it storm; `chaos --write-docs` writes the table of docs/DELIVERY.md. `PHILOTES_STALL_MS` says how long a stall is:
//! 3000 without it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use philotes_tests::chaos::{Case, compiled_in, full, run_all};
use philotes_tests::failpoints::documented;
use philotes_tests::{Bed, interrupt, storm, target};

fn main() -> ExitCode {
    interrupt::run("chaos", || {
        let words: Vec<String> = std::env::args().skip(1).collect();
        if words == ["--write-docs"] {
            return write_docs();
        }
        if let [option, minutes, seed] = &words[..]
            && option == "--storm"
        {
            return storm(minutes, seed);
        }
        compiled_in()?;
        let began = Instant::now();
        let chosen = |case: &Case| {
            let line = case.to_string();
            words.iter().all(|word| line.split_whitespace().any(|of_line| of_line == word))
        };
        let cases: Vec<Case> = full().into_iter().filter(chosen).collect();
        let bed = Bed::start()?;
        let failed = run_all(&cases, &bed);
        println!("{} cases, {} failed, {:.0} s", cases.len(), failed.len(), began.elapsed().as_secs_f64());
        for case in &failed {
            println!("FAILED {case}");
        }
        Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

fn storm(minutes: &str, seed: &str) -> Result<ExitCode> {
    let minutes: f64 = minutes.parse().context("how many minutes?")?;
    let seed = seed.parse().context("SEED is a whole number")?;
    let outcome = storm::run(Bed::start()?, Duration::from_secs_f64(minutes * 60.0), seed)?;
    println!("{} keys out of order", outcome.disordered);
    println!("{} changes, {} lost, {} doubled", outcome.changes, outcome.lost, outcome.doubled);
    Ok(if outcome.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write_docs() -> Result<ExitCode> {
    let path = target::repository().join("docs/DELIVERY.md");
    let document = std::fs::read_to_string(&path)?;
    std::fs::write(path, documented(&document).context("docs/DELIVERY.md has no place for the failpoints")?)?;
    Ok(ExitCode::SUCCESS)
}
