//! The Iceberg project's own REST catalog server, the one its compatibility tests run against: a SQLite catalog behind
//! HTTP, its tables in MinIO's bucket.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::daemon::{Daemon, free_port};
use super::java::{classpath, java};
use super::loans::Loans;
use super::minio::Minio;
use super::{Folder, Life, Server, status};
use crate::target;

/// A running server, or a killed one that can be started again. Dropping it stops it and removes its catalog.
#[derive(Debug, Serialize, Deserialize)]
pub struct IcebergRest {
    // Stopped before its catalog goes.
    daemon: Daemon,
    dir: Folder,
    port: u16,
    classpath: String,
    /// Variables that say how the storage is reached.
    storage: Vec<(String, String)>,
}

impl IcebergRest {
    /// Where new tables go.
    pub const WAREHOUSE: &str = "s3://lake/warehouse";

    /// A new server that answers, with an empty catalog whose tables lie in this MinIO.
    ///
    /// # Errors
    /// When Java or the server is missing and cannot be installed, or it does not start; the message names its log.
    pub fn start(minio: &Minio) -> Result<Self> {
        Self::start_for(Life::Tied, minio)
    }

    /// The same for another life.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_for(life: Life, minio: &Minio) -> Result<Self> {
        Self::start_with(life, minio, None)
    }

    /// The same, where clients are lent keys to the files of each table they load.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_lending(minio: &Minio, loans: &Loans) -> Result<Self> {
        Self::start_with(Life::Tied, minio, Some(loans))
    }

    fn start_with(life: Life, minio: &Minio, loans: Option<&Loans>) -> Result<Self> {
        let lending = loans.into_iter().flat_map(|loans| {
            [("LEND_SECONDS", loans.life().as_secs().to_string()), ("LEND_ENDPOINT", loans.endpoint())]
        });
        let storage = [
            ("CATALOG_S3_ENDPOINT", minio.endpoint()),
            ("CATALOG_S3_ACCESS__KEY__ID", minio.access_key().to_owned()),
            ("CATALOG_S3_SECRET__ACCESS__KEY", minio.secret_key().to_owned()),
            ("CATALOG_CLIENT_REGION", Minio::REGION.to_owned()),
        ];
        let mut rest = Self {
            classpath: classpath("iceberg-rest")?,
            daemon: Daemon::new("iceberg-rest", life)?,
            dir: Folder::new("philotes-rest-")?,
            port: free_port()?,
            storage: storage.into_iter().chain(lending).map(|(key, value)| (key.to_owned(), value)).collect(),
        };
        rest.restart()?;
        Ok(rest)
    }

    /// The port of 127.0.0.1 that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it answers: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Server for IcebergRest {
    fn restart(&mut self) -> Result<()> {
        let mut command = java(&self.classpath, 256);
        command
            .arg(target::repository().join("tests/services/IcebergRest.java"))
            .arg(self.port.to_string())
            .env("CATALOG_URI", format!("jdbc:sqlite:{}", self.dir.0.join("catalog.db").display()))
            .env("CATALOG_WAREHOUSE", Self::WAREHOUSE)
            // JdbcCatalog never ends its look whether its tables are there, which locks the file against all connections but its
            // own: there must be no second one.
            .env("CATALOG_CLIENTS", "1")
            .env("CATALOG_IO__IMPL", "org.apache.iceberg.aws.s3.S3FileIO")
            .env("CATALOG_S3_PATH__STYLE__ACCESS", "true")
            .envs(self.storage.iter().cloned());
        self.daemon.start(&command, || status(self.port, "/v1/config") == Some(200))
    }

    fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::is_alive;

    #[test]
    fn survives_a_crash_and_leaves_nothing() {
        let mut rest = match Minio::start().and_then(|minio| IcebergRest::start(&minio)) {
            Ok(rest) => rest,
            Err(error) => return crate::skip(&error),
        };
        let (port, dir) = (rest.port, rest.dir.0.clone());
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
