//! `services up` starts the servers that a developer works with, or those of them that have died, and prints their
//! environment; `services down` stops exactly those. A second argument says where they are remembered instead of
//! `target/services.json`.

use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use philotes_tests::services::iceberg_rest::IcebergRest;
use philotes_tests::services::kafka::Kafka;
use philotes_tests::services::minio::Minio;
use philotes_tests::services::postgres::{Options, Postgres};
use philotes_tests::services::{Life, Server};
use philotes_tests::{interrupt, target};
use serde::{Deserialize, Serialize};

/// What runs; dropping it stops it. The catalog goes before its storage.
#[derive(Serialize, Deserialize)]
struct Services {
    rest: IcebergRest,
    kafka: Kafka,
    minio: Minio,
    postgres: Postgres,
}

fn main() -> ExitCode {
    // After a Ctrl-C nothing is left that is not remembered.
    interrupt::run("services", || {
        let mut arguments = std::env::args().skip(1);
        let command = arguments.next().unwrap_or_default();
        let state = arguments.next().map_or_else(|| target::root().join("services.json"), PathBuf::from);
        match command.as_str() {
            "up" => up(&state)?,
            "down" => down(&state)?,
            _ => bail!("services up | services down"),
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn up(state: &Path) -> Result<()> {
    let services = match Services::remembered(state)? {
        Some(services) => {
            // They go on whatever fails here.
            let mut services = ManuallyDrop::new(services);
            let revived = services.revive();
            services.remember(state)?;
            revived.context("cannot start again what has died; `services down` removes it")?;
            services
        }
        None => {
            let services = Services::start()?;
            services.remember(state)?;
            ManuallyDrop::new(services)
        }
    };
    for (name, value) in services.environment() {
        println!("export {name}='{value}'");
    }
    Ok(())
}

fn down(state: &Path) -> Result<()> {
    if let Some(services) = Services::remembered(state)? {
        drop(services);
        std::fs::remove_file(state).context("cannot forget the services")?;
    }
    Ok(())
}

impl Services {
    fn start() -> Result<Self> {
        let life = Life::Detached;
        let minio = Minio::start_for(life)?;
        Ok(Self {
            rest: IcebergRest::start_for(life, &minio)?,
            kafka: Kafka::start_for(life)?,
            minio,
            postgres: Postgres::start(Options { life, ..Options::default() })?,
        })
    }

    fn revive(&mut self) -> Result<()> {
        // The catalog after its storage.
        let servers: [&mut dyn Server; 4] = [&mut self.postgres, &mut self.minio, &mut self.rest, &mut self.kafka];
        for server in servers {
            if !server.is_alive() {
                server.restart()?;
            }
        }
        Ok(())
    }

    fn remembered(state: &Path) -> Result<Option<Self>> {
        if !state.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(state)?;
        Ok(Some(serde_json::from_str(&text).with_context(|| format!("cannot read {}", state.display()))?))
    }

    fn remember(&self, state: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(state, text).with_context(|| format!("cannot write {}", state.display()))
    }

    fn environment(&self) -> [(&'static str, String); 7] {
        [
            ("PHILOTES_BUFFER_DSN", self.postgres.dsn()),
            ("PHILOTES_LAKE", target::root().join("lake").display().to_string()),
            ("PHILOTES_CATALOG_URI", self.rest.uri()),
            ("PHILOTES_S3_ENDPOINT", self.minio.endpoint()),
            ("PHILOTES_S3_ACCESS_KEY", self.minio.access_key().to_owned()),
            ("PHILOTES_S3_SECRET_KEY", self.minio.secret_key().to_owned()),
            ("PHILOTES_KAFKA_BOOTSTRAP", self.kafka.bootstrap()),
        ]
    }
}
