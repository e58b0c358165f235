//! The sink suite over Iceberg tables that PyIceberg reads.

use async_trait::async_trait;
use philotes_sdk::conformance::{Landed, LandedRow, SinkFixture, check_sink};
use philotes_sdk::{Error, Offset, Result, StreamPartition};
use philotes_tests::readers::{Reader, Table};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::loaded::LoadedSink;
use crate::runtime;

struct Lake {
    folder: TempDir,
}

fn failed(error: &anyhow::Error) -> Error {
    Error::internal(format!("{error:#}"))
}

impl Lake {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }
}

#[async_trait]
impl SinkFixture for Lake {
    type Sink = LoadedSink;

    async fn reset(&mut self) -> Result<()> {
        *self = Self::new();
        Ok(())
    }

    fn config(&self) -> Value {
        let folder = self.folder.path().display();
        json!({
            "catalog": {
                "type": "sql",
                "uri": format!("sqlite://{folder}/catalog.db"),
                "warehouse": format!("file://{folder}/warehouse"),
            },
        })
    }

    async fn landed(&mut self, at: &StreamPartition) -> Result<Landed> {
        let [schema, table] = at.stream.parts() else { return Err(Error::internal("two parts were expected")) };
        let table = Table::new(&self.folder.path().join("catalog.db"), &format!("cdc.{schema}_{table}"));
        let is_empty = || Ok(!table.exists()? || Reader::PyIceberg.snapshots(&table)?.is_empty());
        if is_empty().map_err(|e| failed(&e))? {
            return Ok(Landed::default());
        }
        let found = table.rows_in_order().map_err(|e| failed(&e))?;
        let (ids, notes) = (found.index("id"), found.index("note"));
        let (ids, notes, added) =
            (ids.map_err(|e| failed(&e))?, notes.map_err(|e| failed(&e))?, found.index("added").ok());
        let number = |cell: &Value| cell.as_str().and_then(|cell| cell.parse().ok());
        let rows = found
            .rows
            .iter()
            .map(|row| {
                Ok(LandedRow {
                    id: number(&row[ids]).ok_or_else(|| Error::internal("a row without id"))?,
                    note: row[notes].as_str().map(str::to_owned),
                    added: added.and_then(|added| number(&row[added])),
                })
            })
            .collect::<Result<_>>()?;
        let token = format!("philotes.offset.conformance.{}.{}", at.stream.parts().join("."), at.partition);
        let properties = table.properties().map_err(|e| failed(&e))?;
        let offset = properties.get(&token).map(|token| {
            let token: Value = serde_json::from_str(token).map_err(|e| Error::internal("no JSON").with_source(e))?;
            Offset::new(token["offset"].as_str().unwrap_or_default())
        });
        Ok(Landed { rows, offset: offset.transpose()? })
    }

    async fn outage(&mut self, out_of_reach: bool) -> Result<bool> {
        let (here, away) = (self.folder.path().join("warehouse"), self.folder.path().join("away"));
        let moved = if out_of_reach {
            std::fs::rename(&here, away).and_then(|()| std::fs::write(here, "in the way"))
        } else {
            std::fs::remove_file(&here).and_then(|()| std::fs::rename(away, here))
        };
        moved.map_err(|e| Error::internal("cannot move the warehouse").with_source(e))?;
        Ok(true)
    }
}

#[test]
fn the_loaded_iceberg_sink() {
    match runtime().block_on(check_sink(&mut Lake::new())) {
        // A batch that must be refused is the in-process suite's: its cells are those of the table's types.
        Ok(unchecked) => assert_eq!(unchecked.len(), 1, "{unchecked:?}"),
        Err(violations) => panic!("{violations}"),
    }
}
