//! Nessie, an Iceberg REST catalog that shares no code with the Iceberg project's reference server: versions in RocksDB,
//! its tables in MinIO's bucket.

use std::fmt::Write as _;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::daemon::{Daemon, free_port};
use super::java::{classpath, java_21};
use super::minio::Minio;
use super::{Folder, Life, Server, status};

/// How its clients get at the files of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// With keys that they have themselves.
    OwnKeys,
    /// The catalog signs each of their requests (`s3.signer`).
    Signing,
    /// With keys for one table that the catalog hands out and that expire; MinIO allows 15 minutes at least.
    Role {
        /// How long the keys are good.
        seconds: u32,
    },
}

/// A running server, or a killed one that can be started again. Dropping it stops it and removes its catalog.
#[derive(Debug, Serialize, Deserialize)]
pub struct Nessie {
    // Stopped before its catalog goes.
    daemon: Daemon,
    dir: Folder,
    port: u16,
    classpath: String,
}

impl Nessie {
    /// Where new tables go.
    pub const WAREHOUSE: &str = "s3://lake/nessie";

    /// A new server that answers, with an empty catalog whose tables lie in this MinIO. Clients bring their own keys.
    ///
    /// # Errors
    /// When Java or the server is missing and cannot be installed, or it does not start; the message names its log.
    pub fn start(minio: &Minio) -> Result<Self> {
        Self::start_with(Access::OwnKeys, minio)
    }

    /// The same with another way to the files.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(access: Access, minio: &Minio) -> Result<Self> {
        let mut nessie = Self {
            classpath: classpath("nessie")?,
            daemon: Daemon::new("nessie", Life::Tied)?,
            dir: Folder::new("philotes-nessie-")?,
            port: free_port()?,
        };
        std::fs::write(nessie.dir.0.join("nessie.properties"), nessie.properties(access, minio)?)?;
        nessie.restart()?;
        Ok(nessie)
    }

    fn properties(&self, access: Access, minio: &Minio) -> Result<String> {
        const S3: &str = "nessie.catalog.service.s3.default-options";
        let mut text = format!(
            "quarkus.http.host=127.0.0.1\n\
             quarkus.http.port={}\n\
             # Cannot be switched off; nobody asks it, so any port will do.\n\
             quarkus.management.host=127.0.0.1\n\
             quarkus.management.port=0\n\
             nessie.version.store.type=ROCKSDB\n\
             nessie.version.store.persist.rocks.database-path={}\n\
             nessie.catalog.default-warehouse=lake\n\
             nessie.catalog.warehouses.lake.location={}\n\
             {S3}.endpoint={}\n\
             {S3}.path-style-access=true\n\
             {S3}.region={}\n\
             {S3}.access-key=urn:nessie-secret:quarkus:minio\n\
             minio.name={}\n\
             minio.secret={}\n\
             {S3}.request-signing-enabled={}\n",
            self.port,
            self.dir.0.join("versions").display(),
            Self::WAREHOUSE,
            minio.endpoint(),
            Minio::REGION,
            minio.access_key(),
            minio.secret_key(),
            access == Access::Signing,
        );
        if let Access::Role { seconds } = access {
            // MinIO asks for a role's name and does not look at it.
            write!(
                text,
                "{S3}.sts-endpoint={}\n\
                 {S3}.client-iam.enabled=true\n\
                 {S3}.client-iam.assume-role=arn:aws:iam::000000000000:role/reader\n\
                 {S3}.client-iam.session-duration=PT{seconds}S\n",
                minio.endpoint(),
            )?;
        }
        Ok(text)
    }

    /// The port of 127.0.0.1 that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its REST catalog answers: `http://127.0.0.1:PORT/iceberg`.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("http://127.0.0.1:{}/iceberg", self.port)
    }
}

impl Server for Nessie {
    fn restart(&mut self) -> Result<()> {
        let dir = self.dir.0.display();
        let mut command = java_21(&self.classpath, 384)?;
        command
            .arg(format!("-Dquarkus.config.locations={dir}/nessie.properties"))
            // What it unpacks goes with the rest.
            .arg(format!("-Djava.io.tmpdir={dir}"))
            .arg("io.quarkus.runner.GeneratedMain");
        self.daemon.start(&command, || status(self.port, "/iceberg/v1/config") == Some(200))
    }

    fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write as _};
    use std::net::{Ipv4Addr, TcpStream};

    use super::*;
    use crate::services::is_alive;

    #[test]
    fn survives_a_crash_and_leaves_nothing() {
        let started = Minio::start().and_then(|minio| Ok((Nessie::start(&minio)?, minio)));
        let (mut nessie, _minio) = match started {
            Ok(started) => started,
            Err(error) => return crate::skip(&error),
        };
        let (port, dir) = (nessie.port, nessie.dir.0.clone());
        table(&nessie);
        nessie.kill9();
        assert_eq!(status(port, "/iceberg/v1/config"), None);
        nessie.restart().unwrap();
        assert_eq!(status(port, "/iceberg/v1/main/namespaces/cdc/tables/t"), Some(200));
        assert_eq!(status(port, "/iceberg/v1/main/namespaces/cdc/tables/u"), Some(404));
        let pid = nessie.daemon.pid().unwrap();
        drop(nessie);
        assert!(!is_alive(pid) && !dir.exists());
    }

    /// Makes a table; what the catalog answers to that.
    fn table(nessie: &Nessie) -> String {
        let post = |path: &str, body: &str| {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, nessie.port)).unwrap();
            let (port, length) = (nessie.port, body.len());
            write!(
                stream,
                "POST /iceberg/v1/main/{path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
                 Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            )
            .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer.split_whitespace().collect::<String>()
        };
        post("namespaces", r#"{"namespace": ["cdc"], "properties": {}}"#);
        post(
            "namespaces/cdc/tables",
            r#"{"name": "t", "schema": {"type": "struct", "schema-id": 0, "fields": []}, "stage-create": false,
                "partition-spec": {"spec-id": 0, "fields": []}, "write-order": {"order-id": 0, "fields": []},
                "properties": {}}"#,
        )
    }

    #[test]
    fn clients_are_given_what_the_access_says() {
        let minio = match Minio::start() {
            Ok(minio) => minio,
            Err(error) => return crate::skip(&error),
        };
        for (access, signs, lends) in [
            (Access::OwnKeys, false, false),
            (Access::Signing, true, false),
            (Access::Role { seconds: 900 }, false, true),
        ] {
            let nessie = match Nessie::start_with(access, &minio) {
                Ok(nessie) => nessie,
                Err(error) => return crate::skip(&error),
            };
            let answer = table(&nessie);
            assert!(answer.contains(r#""location":"s3://lake/nessie/cdc/t_"#), "{answer}");
            assert_eq!(answer.contains(r#""s3.signer.endpoint":"v1/main/s3sign/"#), signs, "{answer}");
            assert_eq!(answer.contains(r#""s3.session-token":"#), lends, "{answer}");
        }
    }
}
