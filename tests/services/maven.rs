//! Java's class paths, as Maven resolves them from a pom with pinned versions.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{install, installed_dir, lock};
use crate::target;

/// The class path of `NAME.xml` in this folder.
pub(super) fn classpath(name: &str) -> Result<String> {
    classpath_of(&target::repository().join(format!("tests/services/{name}.xml")))
}

/// The class path of a pom's dependencies, resolved where that has not been done, or its files are gone. Java is there
/// afterwards as well.
///
/// # Errors
/// When Java or Maven cannot be installed, or Maven does not find the dependencies.
pub fn classpath_of(pom: &Path) -> Result<String> {
    let _lock = lock()?;
    let wanted = std::fs::read_to_string(pom)?;
    let stamp = installed_dir()?.join(pom.file_name().context("a pom without a name")?);
    let file = stamp.with_extension("classpath");
    let is_there = |classpath: &str| std::env::split_paths(classpath).all(|jar| jar.exists());
    let installed = std::fs::read_to_string(&file).unwrap_or_default();
    if std::fs::read_to_string(&stamp).is_ok_and(|stamp| stamp == wanted) && is_there(&installed) {
        install(&["javac:default-jdk-headless"])?;
        return Ok(installed);
    }
    install(&["javac:default-jdk-headless", "mvn:maven"])?;
    let output = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(pom)
        .args(["dependency:build-classpath", &format!("-Dmdep.outputFile={}", file.display())])
        .output()
        .context("cannot run mvn")?;
    if !output.status.success() {
        // Maven writes its errors to the standard output.
        bail!("cannot resolve {}: {}", pom.display(), String::from_utf8_lossy(&output.stdout));
    }
    std::fs::write(&stamp, wanted)?;
    Ok(std::fs::read_to_string(&file)?)
}

/// Java, small and quick to start: several tests run one each, on few cores.
pub(super) fn java(classpath: &str, megabytes: u32) -> Command {
    let mut command = Command::new("java");
    command.arg(format!("-Xmx{megabytes}m")).args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", classpath]);
    command
}
