//! What libFuzzer runs: the target that `PHILOTES_FUZZ` names.

#![no_main]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

use philotes_fuzz::TARGETS;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("PHILOTES_FUZZ").unwrap_or_default();
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    let found = TARGETS.iter().find(|(target, _)| *target == name);
    found.unwrap_or_else(|| panic!("PHILOTES_FUZZ={name:?}; allowed are {}", names.join(", "))).1
});

/// Where the input stands that is being tried: nothing else is left of one that uses up the stack.
static RUNNING: LazyLock<Option<File>> = LazyLock::new(|| {
    let path = std::env::var_os("PHILOTES_FUZZ_RUNNING")?;
    Some(File::create(path).expect("a file for the input"))
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Some(file) = &*RUNNING {
        file.set_len(input.len() as u64).and_then(|()| file.write_all_at(input, 0)).expect("the input is written");
    }
    TARGET(input);
});
