//! Where cargo put what was built: beside the executable that runs now.

use std::path::PathBuf;

/// The folder of this profile's binaries and plugins (`target/debug`, `target/release`).
#[must_use]
pub fn profile_dir() -> PathBuf {
    let executable = std::env::current_exe().unwrap_or_default();
    let dir = executable.parent().unwrap_or(&executable);
    // Tests lie one level deeper than the binaries.
    if dir.ends_with("deps") { dir.parent().unwrap_or(dir).to_owned() } else { dir.to_owned() }
}

/// Cargo's target folder.
#[must_use]
pub fn root() -> PathBuf {
    let profile = profile_dir();
    profile.parent().map_or(profile.clone(), PathBuf::from)
}

/// The repository's folder.
#[must_use]
pub fn repository() -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    tests.parent().map_or(tests.clone(), PathBuf::from)
}

/// The host.
#[must_use]
pub fn philotes() -> PathBuf {
    profile_dir().join("philotes")
}
