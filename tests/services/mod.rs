//! Servers that tests, quickstart and bench start for themselves: private folders, no fixed port, stopped by process id.
//!
//! What is not here: anything that knows Philotes. A service knows how to install, start, stop, kill and reach itself.

mod daemon;
pub mod iceberg_rest;
pub mod maven;
pub mod minio;
pub mod postgres;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Installs Debian packages whose command is missing: `COMMAND:PACKAGE` pairs.
///
/// # Errors
/// When a package cannot be installed.
pub fn install(pairs: &[&str]) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("services/debian.sh");
    let status = Command::new("sh").arg(&script).args(pairs).status().context("cannot run sh")?;
    if !status.success() {
        bail!("cannot install {}", pairs.join(" "));
    }
    Ok(())
}

/// Where a service puts what is not Debian's, made if it is not there.
fn installed_dir() -> Result<PathBuf> {
    let dir = crate::target::root().join("services");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// Held while something is installed: several tests may come for it at once, in this process and in others.
fn lock() -> Result<File> {
    let lock = File::create(installed_dir()?.join("lock"))?;
    lock.lock()?;
    Ok(lock)
}

/// Sends a signal by name (`TERM`, `KILL`) to one process. A process that is gone already is fine.
pub fn signal(pid: u32, name: &str) {
    // The shell's own `kill`: a bare machine has no other.
    let _ = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid} 2>/dev/null")).status();
}

/// Whether the process exists and is no zombie.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    stat_fields(pid).is_some_and(|fields| fields[0] != "Z" && fields[0] != "X")
}

/// The processes whose parent this is.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|child| stat_fields(*child).is_some_and(|fields| fields[1] == pid.to_string()))
        .collect()
}

/// The fields of `/proc/PID/stat` from the third (the state) on: the second may hold spaces.
#[must_use]
pub fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
    (fields.len() > 20).then_some(fields)
}

/// The folder under which a service keeps its logs, made if it is not there.
///
/// # Errors
/// When it cannot be made.
pub fn logs_dir() -> Result<PathBuf> {
    let dir = crate::target::root().join("services-logs");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}
