//! A connector of a test: its YAML in a temporary folder, its catalog and warehouse there too or behind a REST server.

use std::path::PathBuf;

use anyhow::Result;
use tempfile::TempDir;

use crate::host::philotes;
use crate::readers::{Catalog, Rest, Sqlite, Storage, Table};
use crate::services::iceberg_rest::IcebergRest;
use crate::services::minio::Minio;

/// A connector from a PostgreSQL buffer or Kafka into the embedded catalog or a REST catalog.
#[derive(Debug)]
pub struct Connector {
    dir: TempDir,
    from: Origin,
    catalog: Catalog,
    /// Whether the connector has keys of its own to the tables' storage.
    has_keys: bool,
    name: String,
    source: Vec<String>,
    catalog_keys: Vec<String>,
    sink: Vec<String>,
    top: Vec<String>,
}

/// What it reads.
#[derive(Clone, Debug)]
enum Origin {
    Buffer { dsn: String, source_id: String },
    Kafka { bootstrap: String },
}

impl Connector {
    /// A connector `shop` that commits often; its source id is `shop` as well.
    ///
    /// # Errors
    /// When there is no room for its folder.
    pub fn new(dsn: &str) -> Result<Self> {
        Self::from(Origin::Buffer { dsn: dsn.to_owned(), source_id: "shop".to_owned() })
    }

    fn from(from: Origin) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("philotes-").tempdir()?;
        Ok(Self {
            catalog: Catalog::Sqlite(Sqlite { file: dir.path().join("catalog.db"), storage: None }),
            dir,
            has_keys: true,
            from,
            name: "shop".to_owned(),
            source: Vec::new(),
            catalog_keys: Vec::new(),
            sink: Vec::new(),
            top: vec!["commit: {interval: 300ms}".to_owned()],
        })
    }

    /// A connector `shop` that commits often, from the topics that its source's lines name into `cdc.{stream}`.
    ///
    /// # Errors
    /// When there is no room for its folder.
    pub fn kafka(bootstrap: &str) -> Result<Self> {
        Ok(Self::from(Origin::Kafka { bootstrap: bootstrap.to_owned() })?.sink("table: \"cdc.{stream}\""))
    }

    /// The same into a REST catalog whose tables lie in MinIO.
    ///
    /// # Errors
    /// When there is no room for its folder.
    pub fn kafka_rest(bootstrap: &str, rest: &IcebergRest, minio: &Minio) -> Result<Self> {
        Ok(Self { catalog: Catalog::Rest(Rest::new(rest, minio)), ..Self::kafka(bootstrap)? })
    }

    /// A connector from a buffer into a REST catalog whose tables lie in MinIO.
    ///
    /// # Errors
    /// When there is no room for its folder.
    pub fn rest(dsn: &str, rest: &IcebergRest, minio: &Minio) -> Result<Self> {
        Self::rest_at(dsn, Rest::new(rest, minio))
    }

    /// The same into any REST catalog.
    ///
    /// # Errors
    /// When there is no room for its folder.
    pub fn rest_at(dsn: &str, rest: Rest) -> Result<Self> {
        Ok(Self { catalog: Catalog::Rest(rest), ..Self::new(dsn)? })
    }

    /// The same into the embedded catalog, whose tables lie in MinIO.
    ///
    /// # Errors
    /// When there is no room for its folder.
    pub fn in_s3(dsn: &str, minio: &Minio) -> Result<Self> {
        let connector = Self::new(dsn)?;
        let sqlite = Sqlite { file: connector.dir.path().join("catalog.db"), storage: Some(Storage::new(minio)) };
        Ok(Self { catalog: Catalog::Sqlite(sqlite), ..connector })
    }

    /// Leaves it without keys to the tables' storage: the catalog has to lend some.
    #[must_use]
    pub fn without_keys(mut self) -> Self {
        self.has_keys = false;
        self
    }

    /// Gives it another name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives it the rows of another source id of its buffer.
    #[must_use]
    pub fn source_id(mut self, wanted: &str) -> Self {
        if let Origin::Buffer { source_id, .. } = &mut self.from {
            wanted.clone_into(source_id);
        }
        self
    }

    /// Lets it read a buffer in another database, or from another broker; its tables stay.
    #[must_use]
    pub fn reads_from(mut self, server: &str) -> Self {
        match &mut self.from {
            Origin::Buffer { dsn: old, .. } | Origin::Kafka { bootstrap: old } => server.clone_into(old),
        }
        self
    }

    /// Adds a line to the source: `acknowledge: delete`, `topics: [orders]`.
    #[must_use]
    pub fn source(mut self, line: &str) -> Self {
        self.source.push(line.to_owned());
        self
    }

    /// Takes the source's lines of a key away.
    #[must_use]
    pub fn source_without(mut self, key: &str) -> Self {
        self.source.retain(|line| line.split(':').next() != Some(key));
        self
    }

    /// Adds a key to the sink's catalog: `timeout: 4s`.
    #[must_use]
    pub fn catalog(mut self, key: &str) -> Self {
        self.catalog_keys.push(format!(", {key}"));
        self
    }

    /// Adds a line to the sink: `partition_by: []`.
    #[must_use]
    pub fn sink(mut self, line: &str) -> Self {
        self.sink.push(line.to_owned());
        self
    }

    /// Takes the sink's lines of a key away.
    #[must_use]
    pub fn sink_without(mut self, key: &str) -> Self {
        self.sink.retain(|line| line.split(':').next() != Some(key));
        self
    }

    /// Adds a line to the connector itself; it replaces an earlier one of the same key.
    #[must_use]
    pub fn top(mut self, line: &str) -> Self {
        let key = line.split(':').next().unwrap_or(line);
        self.top.retain(|other| other.split(':').next() != Some(key));
        self.top.push(line.to_owned());
        self
    }

    /// The YAML.
    #[must_use]
    pub fn yaml(&self) -> String {
        let lines = |lines: &[String]| lines.iter().map(|line| format!("  {line}\n")).collect::<String>();
        let from = match &self.from {
            Origin::Buffer { dsn, source_id } => {
                format!("  plugin: postgres-buffer\n  dsn: \"{dsn}\"\n  source_id: {source_id}\n")
            }
            Origin::Kafka { bootstrap } => format!("  plugin: kafka\n  bootstrap_servers: \"{bootstrap}\"\n"),
        };
        format!(
            "name: {}\n\
             source:\n{from}{}\
             sink:\n  plugin: iceberg\n{}{}{}\n",
            self.name,
            lines(&self.source),
            self.catalog_yaml(),
            lines(&self.sink),
            self.top.join("\n"),
        )
    }

    fn catalog_yaml(&self) -> String {
        let (catalog, storage) = match &self.catalog {
            Catalog::Rest(rest) => {
                (format!("type: rest, uri: \"{}\", warehouse: \"{}\"", rest.uri, rest.warehouse), Some(&rest.storage))
            }
            Catalog::Sqlite(Sqlite { file, storage }) => {
                let warehouse = match storage {
                    None => format!("file://{}", self.dir.path().join("warehouse").display()),
                    Some(_) => format!("s3://{}/warehouse", Minio::BUCKET),
                };
                let uri = file.display();
                (format!("type: sql, uri: \"sqlite://{uri}\", warehouse: \"{warehouse}\""), storage.as_ref())
            }
        };
        let storage = storage.filter(|_| self.has_keys).map(|s| {
            format!(
                "  storage: {{endpoint: \"{}\", access_key: {}, secret_key: {}, region: {}, path_style: true}}\n",
                s.endpoint, s.access_key, s.secret_key, s.region,
            )
        });
        format!("  catalog: {{{catalog}{}}}\n{}", self.catalog_keys.concat(), storage.unwrap_or_default())
    }

    /// Writes the YAML file and says where.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(&self) -> Result<PathBuf> {
        let file = self.dir.path().join("shop.yaml");
        std::fs::write(&file, self.yaml())?;
        Ok(file)
    }

    /// The connector's own folder, where files of a test may lie as well.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// A table of its catalog: `cdc.public_orders`.
    #[must_use]
    pub fn table(&self, name: &str) -> Table {
        Table { catalog: self.catalog.clone(), name: name.to_owned() }
    }

    /// Does an action; gives back what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn action(&self, arguments: &[&str]) -> Result<String> {
        let file = self.file()?;
        let mut all = vec!["action", file.to_str().unwrap_or_default()];
        all.extend(arguments);
        philotes(&all)?.success()
    }

    /// Makes the buffer and installs capture on these tables.
    ///
    /// # Errors
    /// When an action fails.
    pub fn capture(&self, tables: &[&str]) -> Result<()> {
        self.action(&["source", "init"])?;
        for table in tables {
            self.action(&["source", "capture", &format!("table={table}")])?;
        }
        Ok(())
    }
}
