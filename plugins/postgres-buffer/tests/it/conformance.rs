//! The sdk's suite for sources over a real buffer, in both ways to acknowledge.

use std::ops::Range;

use async_trait::async_trait;
use philotes_postgres_buffer::{Config, PostgresBuffer};
use philotes_sdk::conformance::{SourceFixture, check_source};
use philotes_sdk::{Error, Result, StreamName};
use serde_json::json;

use crate::driver::Buffer;

struct Fixture {
    mode: &'static str,
    buffer: Buffer,
    /// Streams whose rows have one more column.
    widened: [bool; 2],
}

const TABLES: [&str; 2] = ["orders", "items"];

#[async_trait]
impl SourceFixture for Fixture {
    type Source = PostgresBuffer;

    async fn reset(&mut self) -> Result<()> {
        self.buffer = Buffer::new().await.ok_or_else(|| Error::internal("no server"))?;
        self.buffer.keys = json!({"poll_interval": "50ms", "acknowledge": self.mode});
        self.widened = [false; 2];
        Ok(())
    }

    fn config(&self) -> Config {
        self.buffer.config()
    }

    fn stream(&self, index: usize) -> StreamName {
        StreamName::new(["public", TABLES[index]]).unwrap()
    }

    async fn put(&mut self, stream: usize, numbers: Range<i64>) -> Result<()> {
        let table = TABLES[stream];
        let mut columns = json!([{"name": "id", "type": "bigint"}, {"name": "n", "type": "bigint"}]);
        let mut row = "'id', n % 7, 'n', n".to_owned();
        if self.widened[stream] {
            columns.as_array_mut().unwrap().push(json!({"name": "more", "type": "text"}));
            row.push_str(", 'more', 'x'");
        }
        let (first, last) = (numbers.start, numbers.end - 1);
        self.buffer
            .sql(&format!(
                "INSERT INTO philotes.cdc_events (source_id, schema_name, table_name, operation, key_columns, after_data, metadata) \
                 SELECT 'shop', 'public', '{table}', CASE WHEN n < 7 THEN 'INSERT' ELSE 'UPDATE' END, '[\"id\"]', \
                 jsonb_build_object({row}), '{{\"columns\": {columns}}}' FROM generate_series({first}, {last}) n ORDER BY n"
            ))
            .await;
        Ok(())
    }

    async fn unacknowledged(&mut self) -> Result<Option<u64>> {
        Ok(self.buffer.unprocessed().await.parse().ok())
    }

    async fn add_column(&mut self, stream: usize) -> Result<bool> {
        self.widened[stream] = true;
        Ok(true)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sources_contract_holds() {
    for mode in ["mark", "delete"] {
        let Some(buffer) = Buffer::new().await else { return };
        let mut fixture = Fixture { mode, buffer, widened: [false; 2] };
        match check_source(&mut fixture).await {
            Ok(unchecked) => assert!(unchecked.is_empty(), "{mode}: not checked: {unchecked:?}"),
            Err(violations) => panic!("{mode}: {violations}"),
        }
    }
}
