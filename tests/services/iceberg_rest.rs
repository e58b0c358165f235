//! The Iceberg project's own REST catalog server, the one its compatibility tests run against: a SQLite catalog behind
//! HTTP, its tables in MinIO's bucket.

use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use super::daemon::Daemon;
use super::maven;
use super::minio::Minio;
use crate::target;

/// A running server, or a killed one that can be started again. Dropping it stops it and removes its catalog.
#[derive(Debug)]
pub struct IcebergRest {
    // Stopped before its catalog goes.
    daemon: Daemon,
    dir: TempDir,
    classpath: String,
    storage: Vec<(&'static str, String)>,
}

impl IcebergRest {
    /// Where new tables go.
    pub const WAREHOUSE: &str = "s3://lake/warehouse";

    /// A new server that answers, with an empty catalog whose tables lie in this MinIO.
    ///
    /// # Errors
    /// When Java or the server is missing and cannot be installed, or it does not start; the message names its log.
    pub fn start(minio: &Minio) -> Result<Self> {
        let mut rest = Self {
            classpath: maven::classpath(&target::repository().join("tests/services/iceberg-rest.xml"))?,
            dir: tempfile::Builder::new().prefix("philotes-rest-").tempdir()?,
            daemon: Daemon::new("iceberg-rest", "/v1/config")?,
            storage: vec![
                ("CATALOG_S3_ENDPOINT", minio.endpoint()),
                ("CATALOG_S3_ACCESS__KEY__ID", minio.access_key().to_owned()),
                ("CATALOG_S3_SECRET__ACCESS__KEY", minio.secret_key().to_owned()),
                ("CATALOG_CLIENT_REGION", Minio::REGION.to_owned()),
            ],
        };
        rest.restart()?;
        Ok(rest)
    }

    /// Starts the server on the catalog that is there, on the same port, and waits until it answers.
    ///
    /// # Errors
    /// When it does not answer in time; the message names its log.
    pub fn restart(&mut self) -> Result<()> {
        let mut command = Command::new("java");
        command
            // Small and quick to start: several tests run one each, on few cores.
            .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", &self.classpath])
            .arg(target::repository().join("tests/services/IcebergRest.java"))
            .arg(self.daemon.port().to_string())
            .env("CATALOG_URI", format!("jdbc:sqlite:{}", self.dir.path().join("catalog.db").display()))
            .env("CATALOG_WAREHOUSE", Self::WAREHOUSE)
            // JdbcCatalog never ends its look whether its tables are there, which locks the file against all connections but its
            // own: there must be no second one.
            .env("CATALOG_CLIENTS", "1")
            .env("CATALOG_IO__IMPL", "org.apache.iceberg.aws.s3.S3FileIO")
            .env("CATALOG_S3_PATH__STYLE__ACCESS", "true")
            .envs(self.storage.iter().cloned());
        self.daemon.start(&command)
    }

    /// Kills the server as a crash would.
    pub fn kill9(&mut self) {
        self.daemon.kill9();
    }

    /// Where it answers: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("http://127.0.0.1:{}", self.daemon.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::daemon::status;
    use crate::services::is_alive;

    #[test]
    fn survives_a_crash_and_leaves_nothing() {
        let mut rest = match Minio::start().and_then(|minio| IcebergRest::start(&minio)) {
            Ok(rest) => rest,
            Err(error) => return crate::skip(&error),
        };
        let (port, dir) = (rest.daemon.port(), rest.dir.path().to_owned());
        assert_eq!(status(port, "/v1/namespaces"), Some(200));
        rest.kill9();
        assert_eq!(status(port, "/v1/config"), None);
        rest.restart().unwrap();
        assert_eq!(status(port, "/v1/namespaces"), Some(200));
        let pid = rest.daemon.pid().unwrap();
        drop(rest);
        assert!(!is_alive(pid) && !dir.exists());
    }
}
