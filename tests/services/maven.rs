//! What Java runs with: the dependencies of a `NAME.xml` in this folder, as Maven resolves them.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{install, installed_dir, lock};
use crate::target;

/// The class path of `NAME.xml`, which Maven resolves where that has not been done, or its files are gone.
pub(crate) fn classpath(name: &str) -> Result<String> {
    let _lock = lock()?;
    let pom = target::repository().join(format!("tests/services/{name}.xml"));
    let wanted = std::fs::read_to_string(&pom)?;
    let dir = installed_dir()?;
    let (file, stamp) = (dir.join(format!("{name}.classpath")), dir.join(format!("{name}.xml")));
    let is_there = |classpath: &str| std::env::split_paths(classpath).all(|jar| jar.exists());
    let installed = std::fs::read_to_string(&file).unwrap_or_default();
    if std::fs::read_to_string(&stamp).is_ok_and(|stamp| stamp == wanted) && is_there(&installed) {
        install(&["javac:default-jdk-headless"])?;
        return Ok(installed);
    }
    install(&["javac:default-jdk-headless", "mvn:maven"])?;
    let output = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(&pom)
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
