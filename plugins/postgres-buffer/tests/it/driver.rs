//! Drives a source as the host does, and keeps what a table would hold.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use arrow::util::display::array_value_to_string;
use philotes_postgres_buffer::{Config, PostgresBuffer};
use philotes_sdk::{
    ActionOutput, ChangeBatch, Error, Offset, Poll, Route, Source, StreamOffset, StreamPartition, TaskContext,
    TaskInfo, Tolerance,
};
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::server::Server;

/// A database with a buffer.
pub(crate) struct Buffer {
    pub(crate) server: Arc<Server>,
    pub(crate) database: String,
    pub(crate) client: Client,
    /// Keys of the configuration beside dsn and source_id.
    pub(crate) keys: Value,
    pub(crate) route: Route,
    pub(crate) connector: String,
    pub(crate) tolerance: Tolerance,
}

impl Buffer {
    /// A fresh database on the shared server, after `init`.
    pub(crate) async fn new() -> Option<Self> {
        let buffer = Self::empty(Server::shared()?).await;
        buffer.act("init", json!({})).await.unwrap();
        Some(buffer)
    }

    /// A fresh database without a buffer.
    pub(crate) async fn empty(server: Arc<Server>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let database = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let template = server.connect("postgres").await;
        template.batch_execute(&format!("CREATE DATABASE {database}")).await.unwrap();
        let client = server.connect(&database).await;
        let keys = json!({"poll_interval": "50ms"});
        Self {
            server,
            database,
            client,
            keys,
            route: Route::default(),
            connector: "shop".to_owned(),
            tolerance: Tolerance::None,
        }
    }

    pub(crate) fn config(&self) -> Config {
        let mut config = json!({"dsn": self.server.dsn(&self.database), "source_id": "shop"});
        config.as_object_mut().unwrap().extend(self.keys.as_object().unwrap().clone());
        serde_json::from_value(config).unwrap()
    }

    pub(crate) fn context(&self) -> TaskContext {
        TaskContext::detached(TaskInfo {
            connector: self.connector.clone(),
            tasks: 1,
            route: self.route.clone(),
            tolerance: self.tolerance,
            ..TaskInfo::default()
        })
    }

    pub(crate) async fn act(&self, action: &str, arguments: Value) -> Result<ActionOutput, Error> {
        PostgresBuffer::act(self.config(), self.context(), action, arguments).await
    }

    pub(crate) async fn sql(&self, statement: &str) {
        self.client.batch_execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
    }

    /// The first column of the first row as text.
    pub(crate) async fn ask(&self, query: &str) -> String {
        let query = format!("SELECT q.a::text FROM ({query}) AS q (a)");
        self.client.query_one(&query, &[]).await.unwrap_or_else(|e| panic!("{query}: {e:?}")).get(0)
    }

    pub(crate) async fn unprocessed(&self) -> String {
        self.ask("SELECT count(*) FROM philotes.cdc_events WHERE processed_at IS NULL").await
    }

    pub(crate) async fn open(&self) -> Result<PostgresBuffer, Error> {
        PostgresBuffer::open(self.config(), self.context()).await
    }
}

/// The statement that writes rows of the table `orders` to the buffer, ids from..to.
pub(crate) fn insert(ids: std::ops::Range<i64>) -> String {
    insert_into("orders", "shop", ids)
}

pub(crate) fn insert_into(table: &str, source_id: &str, ids: std::ops::Range<i64>) -> String {
    let (from, last) = (ids.start, ids.end - 1);
    format!(
        "INSERT INTO philotes.cdc_events (source_id, schema_name, table_name, operation, lsn, key_columns, after_data, metadata, \
         event_time) SELECT '{source_id}', 'public', '{table}', 'INSERT', '0/1', '[\"id\"]', jsonb_build_object('id', n, 'v', 'x' || n), \
         '{{\"columns\": [{{\"name\": \"id\", \"type\": \"bigint\"}}, {{\"name\": \"v\", \"type\": \"text\"}}]}}', now() \
         FROM generate_series({from}, {last}) n;"
    )
}

/// A host with a source and a table per stream.
pub(crate) struct Driver {
    pub(crate) source: PostgresBuffer,
    /// What the sink's tables hold as offsets.
    pub(crate) durable: HashMap<StreamPartition, Offset>,
    /// The newest offset handed out and not durable.
    pub(crate) pending: HashMap<StreamPartition, Offset>,
    pub(crate) batches: Vec<ChangeBatch>,
}

impl Driver {
    pub(crate) async fn open(buffer: &Buffer) -> Self {
        Self::with_table(buffer, HashMap::new()).await
    }

    pub(crate) async fn with_table(buffer: &Buffer, durable: HashMap<StreamPartition, Offset>) -> Self {
        let source = buffer.open().await.unwrap();
        Self { source, durable, pending: HashMap::new(), batches: Vec::new() }
    }

    /// Polls until the source has caught up.
    pub(crate) async fn drain(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            assert!(Instant::now() < deadline, "the source does not catch up");
            match self.source.poll(Duration::from_millis(200), 8 << 20).await? {
                Poll::Batch(batch) => {
                    self.pending.insert(batch.at.clone(), batch.offset.clone());
                    self.batches.push(batch);
                }
                Poll::Announce(streams) => {
                    for at in streams {
                        let offset = self.durable.get(&at).cloned();
                        self.source.resume(&at, offset.as_ref()).await?;
                    }
                }
                Poll::Idle { caught_up: true } => return Ok(()),
                Poll::Idle { caught_up: false } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The sink has committed everything; the source hears of it.
    pub(crate) async fn commit(&mut self) {
        self.durable.extend(std::mem::take(&mut self.pending));
        let offsets: Vec<_> =
            self.durable.iter().map(|(at, offset)| StreamOffset { at: at.clone(), offset: offset.clone() }).collect();
        self.source.commit(&offsets).await.unwrap();
    }

    /// Commits and waits until all of it is acknowledged.
    pub(crate) async fn acknowledge(&mut self, buffer: &Buffer) {
        self.commit().await;
        let deadline = Instant::now() + Duration::from_secs(30);
        while buffer.ask("SELECT count(*) FROM philotes.batches").await != "0" {
            assert!(Instant::now() < deadline, "the source does not acknowledge");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn close(self) -> HashMap<StreamPartition, Offset> {
        self.source.close(Duration::from_secs(10)).await.unwrap();
        self.durable
    }

    /// A column of all rows of all batches so far, printed; `-` for null.
    pub(crate) fn column(&self, name: &str) -> Vec<String> {
        self.batches.iter().flat_map(|batch| printed(batch, name)).collect()
    }

    /// The ids of all rows so far.
    pub(crate) fn ids(&self) -> Vec<i64> {
        self.column("id").iter().map(|id| id.parse().unwrap()).collect()
    }

    /// The ids of one table's rows.
    pub(crate) fn ids_of(&self, table: &str) -> Vec<i64> {
        let of_table = self.batches.iter().filter(|batch| batch.at.stream.parts()[1] == table);
        of_table.flat_map(|batch| printed(batch, "id")).map(|id| id.parse().unwrap()).collect()
    }
}

/// A column of a batch, printed; `-` for null.
pub(crate) fn printed(batch: &ChangeBatch, name: &str) -> Vec<String> {
    let array = batch.rows.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"));
    if let Some(texts) = array.as_string_opt::<i32>() {
        return texts.iter().map(|text| text.unwrap_or("-").to_owned()).collect();
    }
    (0..array.len())
        .map(|at| if array.is_null(at) { "-".to_owned() } else { array_value_to_string(array, at).unwrap() })
        .collect()
}

/// The error of something that must fail.
pub(crate) fn error_of<T>(result: Result<T, Error>) -> Error {
    result.err().expect("this must fail")
}
