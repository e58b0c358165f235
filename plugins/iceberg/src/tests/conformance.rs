//! The sdk's suite for sinks.

use async_trait::async_trait;
use philotes_sdk::conformance::{Landed, LandedRow, SinkFixture, check_sink};
use philotes_sdk::{Result, Sink};

use super::*;
use crate::template::Template;
use crate::token;

struct Fixture {
    lake: Lake,
    mode: Mode,
}

#[async_trait]
impl SinkFixture for Fixture {
    type Sink = IcebergSink;

    async fn reset(&mut self) -> Result<()> {
        self.lake = Lake::new();
        self.lake.config.mode = self.mode;
        // One file per partition and more than one file per commit make the order worth a look.
        self.lake.config.partition_by = vec!["_cdc_operation as operation".into()];
        Ok(())
    }

    fn config(&self) -> Config {
        self.lake.config.clone()
    }

    async fn landed(&mut self, at: &StreamPartition) -> Result<Landed> {
        let table = Template::parse(&self.lake.config.table).unwrap().table(&at.stream)?;
        if !self.lake.catalog().await.table_exists(&table).await? {
            return Ok(Landed::default());
        }
        let name = table.to_string();
        let mut rows = Vec::new();
        for batch in self.lake.batches(&name).await {
            let ids = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>();
            let notes = batch.column_by_name("note").unwrap().as_string::<i32>();
            let added = batch.column_by_name("added").map(|column| column.as_primitive::<Int64Type>());
            rows.extend((0..batch.num_rows()).map(|row| LandedRow {
                id: ids.value(row),
                note: notes.is_valid(row).then(|| notes.value(row).to_owned()),
                added: added.filter(|added| added.is_valid(row)).map(|added| added.value(row)),
            }));
        }
        let metadata = self.lake.load(&name).await.metadata;
        let offset = token::read(&metadata, "conformance", at)?.map(|token| token.offset);
        Ok(Landed { rows, offset })
    }

    fn spoil(&self, batch: ChangeBatch) -> Option<ChangeBatch> {
        let schema = batch.rows.schema();
        let (index, _) = schema.column_with_name("note")?;
        let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        fields[index] = Field::new("note", DataType::Int64, true);
        let mut columns = batch.rows.columns().to_vec();
        columns[index] = Arc::new(Int64Array::from(vec![7; batch.rows.num_rows()]));
        let schema = Schema::new_with_metadata(fields, schema.metadata().clone());
        let rows = RecordBatch::try_new(Arc::new(schema), columns).ok()?;
        Some(ChangeBatch { rows, schema_id: 99, ..batch })
    }

    async fn outage(&mut self, out_of_reach: bool) -> Result<bool> {
        let (here, away) = (self.lake.folder.path().join("warehouse"), self.lake.folder.path().join("away"));
        if out_of_reach {
            std::fs::rename(&here, away).unwrap();
            std::fs::write(here, "in the way").unwrap();
        } else {
            std::fs::remove_file(&here).unwrap();
            std::fs::rename(away, here).unwrap();
        }
        Ok(true)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sink_keeps_the_contract() {
    for mode in [Mode::Append, Mode::Upsert] {
        let mut fixture = Fixture { lake: Lake::new(), mode };
        match check_sink(&mut fixture).await {
            Ok(unchecked) => assert_eq!(unchecked, [""; 0], "{mode:?}"),
            Err(violations) => panic!("{mode:?}: {violations}"),
        }
    }
}

/// The catalog's file is gone for a while: what was written is kept.
#[tokio::test]
async fn a_missing_catalog_file_is_unavailable() {
    let lake = Lake::new();
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    let (here, away) = (lake.folder.path().join("catalog.db"), lake.folder.path().join("away.db"));
    std::fs::rename(&here, &away).unwrap();
    assert_failed(&commit(&mut sink, &[2]).await, ErrorKind::Unavailable);
    std::fs::rename(&away, &here).unwrap();
    assert_durable(&sink.flush().await.unwrap(), 2);
    assert_eq!(lake.ids().await, [1, 2]);
    sink.close(std::time::Duration::from_secs(1)).await.unwrap();
}
