//! A private MinIO, the S3 of the tests: its data in a temporary folder, one bucket in it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::daemon::{Daemon, free_port};
use super::{Folder, Life, Server, install, installed_dir, lock, run, status};

/// RELEASE.2025-09-07T16-13-09Z, by the version that Go gives it.
const PACKAGE: &str = "github.com/minio/minio@v0.0.0-20250907161309-07c3a429bfed";

const ACCESS_KEY: &str = "philotes";
const SECRET_KEY: &str = "philotes-secret";

/// A running server, or a killed one that can be started again. Dropping it stops it and removes its data.
#[derive(Debug, Serialize, Deserialize)]
pub struct Minio {
    // Stopped before its data goes.
    daemon: Daemon,
    dir: Folder,
    port: u16,
    program: PathBuf,
}

impl Minio {
    /// The bucket that is there from the start.
    pub const BUCKET: &str = "lake";

    /// The region that requests are signed for.
    pub const REGION: &str = "us-east-1";

    /// A new server that answers, with an empty bucket.
    ///
    /// # Errors
    /// When MinIO is missing and cannot be built, or does not start; the message names its log.
    pub fn start() -> Result<Self> {
        Self::start_for(Life::Tied)
    }

    /// The same for another life.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_for(life: Life) -> Result<Self> {
        let program = install_minio()?;
        let dir = Folder::new("philotes-minio-")?;
        // A folder is a bucket to MinIO.
        std::fs::create_dir_all(dir.0.join("data").join(Self::BUCKET))?;
        let mut minio = Self { daemon: Daemon::new("minio", life)?, dir, port: free_port()?, program };
        minio.restart()?;
        Ok(minio)
    }

    /// The port of 127.0.0.1 that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it answers: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The id of the key that may do everything.
    #[must_use]
    pub fn access_key(&self) -> &str {
        ACCESS_KEY
    }

    /// Its secret.
    #[must_use]
    pub fn secret_key(&self) -> &str {
        SECRET_KEY
    }
}

impl Minio {
    /// The keys of the bucket's objects, whatever a table says of them.
    ///
    /// # Errors
    /// When its folder cannot be read.
    pub fn objects(&self) -> Result<Vec<String>> {
        let bucket = self.dir.0.join("data").join(Self::BUCKET);
        let mut objects = Vec::new();
        let mut folders = vec![bucket.clone()];
        while let Some(folder) = folders.pop() {
            // MinIO keeps an object in a folder of its name, with this file in it.
            if folder.join("xl.meta").exists() {
                objects.push(folder.strip_prefix(&bucket)?.display().to_string());
                continue;
            }
            for entry in std::fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        Ok(objects)
    }
}

impl Server for Minio {
    fn restart(&mut self) -> Result<()> {
        let mut command = Command::new(&self.program);
        command
            .arg("server")
            .arg(self.dir.0.join("data"))
            .args(["--address", &format!("127.0.0.1:{}", self.port)])
            // Nothing of the user's own settings, no console on another port, no question for a newer version.
            .env("HOME", &self.dir.0)
            .envs([("MINIO_BROWSER", "off"), ("MINIO_UPDATE", "off")])
            .envs([("MINIO_ROOT_USER", ACCESS_KEY), ("MINIO_ROOT_PASSWORD", SECRET_KEY)]);
        // It calls itself ready before it looks at keys. Nothing is told to a request without a signature.
        self.daemon.start(&command, || status(self.port, "/lake/") == Some(403))
    }

    fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}

/// The program, built where it is missing. Nobody packages MinIO for Debian.
fn install_minio() -> Result<PathBuf> {
    let _lock = lock()?;
    let bin = installed_dir()?.join("bin");
    let program = bin.join("minio");
    if program.exists() {
        return Ok(program);
    }
    eprintln!("building MinIO, which takes some minutes, once");
    run(Command::new(go()?).args(["install", PACKAGE]).env("GOBIN", &bin))?;
    Ok(program)
}

/// Go: from the PATH, or where its own archive puts it, or Debian's.
fn go() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/local/go/bin")])
        .map(|dir| dir.join("go"))
        .find(|program| program.exists());
    if let Some(program) = found {
        return Ok(program);
    }
    install(&["go:golang"])?;
    Ok(PathBuf::from("go"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::is_alive;

    #[test]
    fn survives_a_crash_and_leaves_nothing() {
        let mut minio = match Minio::start() {
            Ok(minio) => minio,
            Err(error) => return crate::skip(&error),
        };
        let (port, dir) = (minio.port, minio.dir.0.clone());
        assert_eq!(status(port, "/minio/health/ready"), Some(200));
        minio.kill9();
        assert_eq!(status(port, "/minio/health/ready"), None);
        minio.restart().unwrap();
        assert_eq!(status(port, "/minio/health/ready"), Some(200));
        let pid = minio.daemon.pid().unwrap();
        drop(minio);
        assert!(!is_alive(pid) && !dir.exists());
    }
}
