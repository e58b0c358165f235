//! The source suite over a buffer that plain SQL fills, as any writer of Philotes would.

use std::ops::Range;

use async_trait::async_trait;
use philotes_host::plugin::Kind;
use philotes_sdk::conformance::{KEYS, SourceFixture, check_source};
use philotes_sdk::{Error, Result, Source, StreamName, TaskInfo};
use philotes_tests::postgres_or_skip;
use philotes_tests::services::postgres::Postgres;
use serde_json::{Value, json};

use crate::loaded::{LoadedSource, connector};
use crate::runtime;

struct Buffer {
    postgres: Postgres,
    acknowledge: &'static str,
    /// Each scenario has a source_id of its own.
    scenario: u32,
    added: [bool; 2],
}

impl Buffer {
    fn source_id(&self) -> String {
        format!("conformance-{}", self.scenario)
    }

    fn sql(&self, sql: &str) -> Result<String> {
        self.postgres.psql(&["-At", "-c", sql]).map_err(|error| Error::internal(format!("{error:#}")))
    }
}

#[async_trait]
impl SourceFixture for Buffer {
    type Source = LoadedSource;

    async fn reset(&mut self) -> Result<()> {
        self.scenario += 1;
        self.added = [false; 2];
        let init = connector(Kind::Source, LoadedSource::NAME)?;
        init.act(&self.config().to_string(), &TaskInfo::default(), "init", &json!({})).map(drop)
    }

    fn config(&self) -> Value {
        json!({
            "dsn": self.postgres.dsn(),
            "source_id": self.source_id(),
            "acknowledge": self.acknowledge,
            "poll_interval": "50ms",
            "batch_rows": 8,
        })
    }

    fn stream(&self, index: usize) -> StreamName {
        StreamName::new(["conformance", ["first", "second"][index]]).expect("two parts")
    }

    async fn put(&mut self, stream: usize, numbers: Range<i64>) -> Result<()> {
        let mut columns = vec![
            json!({"name": "k", "type": "integer", "nullable": false}),
            json!({"name": "n", "type": "bigint", "nullable": false}),
        ];
        let mut row = format!("'k', n % {KEYS}, 'n', n");
        if self.added[stream] {
            columns.push(json!({"name": "added", "type": "text", "nullable": true}));
            row.push_str(", 'added', 'new'");
        }
        self.sql(&format!(
            "insert into philotes.cdc_events (source_id, schema_name, table_name, operation, key_columns, after_data, \
             metadata, event_time) select '{}', 'conformance', '{}', 'UPDATE', '[\"k\"]', jsonb_build_object({row}), \
             '{}', now() from generate_series({}::bigint, {}) n order by n",
            self.source_id(),
            self.stream(stream).parts()[1],
            json!({ "columns": columns }),
            numbers.start,
            numbers.end - 1,
        ))
        .map(drop)
    }

    async fn unacknowledged(&mut self) -> Result<Option<u64>> {
        let count = self.sql(&format!(
            "select count(*) from philotes.cdc_events where source_id = '{}' and processed_at is null",
            self.source_id()
        ))?;
        Ok(count.trim().parse().ok())
    }

    async fn add_column(&mut self, stream: usize) -> Result<bool> {
        self.added[stream] = true;
        Ok(true)
    }
}

fn check(acknowledge: &'static str) {
    let Some(postgres) = postgres_or_skip() else { return };
    let mut buffer = Buffer { postgres, acknowledge, scenario: 0, added: [false; 2] };
    match runtime().block_on(check_source(&mut buffer)) {
        Ok(unchecked) => assert_eq!(unchecked, [""; 0]),
        Err(violations) => panic!("{violations}"),
    }
}

#[test]
fn the_loaded_buffer_source_that_marks() {
    check("mark");
}

#[test]
fn the_loaded_buffer_source_that_deletes() {
    check("delete");
}
