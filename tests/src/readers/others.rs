//! What somebody else does to a table: makes it, appends to it, alters, compacts, expires, renames and drops it.
//!
//! With PyIceberg where nothing else is said.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Reader, Table};

/// What becomes of delete files when Spark writes the rows anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dangling {
    /// Those that Java keeps until a commit finds them older than every data file.
    Keep,
    /// None stay that Spark takes for without effect: `remove-dangling-deletes`.
    Remove,
}

impl Table {
    /// Sets a property of the table, as somebody else with Spark would: PyIceberg writes no metadata of format version 3.
    ///
    /// # Errors
    /// What Spark says.
    pub fn set_property_as_somebody_else(&self, name: &str, value: &str) -> Result<()> {
        Reader::Spark.ask(self, "set_property", json!({ "name": name, "value": value }))
    }

    /// Creates the table with fields `[name, type, required]`, as somebody else with PyIceberg would. A SQLite catalog
    /// has to be told the warehouse's folder, a REST catalog has a warehouse of its own.
    ///
    /// # Errors
    /// What PyIceberg says.
    pub fn create_as_somebody_else(&self, warehouse: Option<&Path>, fields: &[Value]) -> Result<()> {
        let warehouse = match warehouse {
            Some(dir) => {
                std::fs::create_dir_all(dir)?;
                Some(format!("file://{}", dir.display()))
            }
            None => None,
        };
        Reader::PyIceberg.ask(self, "create", json!({"fields": fields, "warehouse": warehouse}))
    }

    /// Appends rows, each an object by the columns' names, as somebody else with PyIceberg or Spark would. Times are
    /// microseconds since 1970 UTC.
    ///
    /// # Errors
    /// What the writer says; DuckDB is none.
    pub fn append_as_somebody_else(&self, writer: Reader, rows: &[Value]) -> Result<()> {
        writer.ask(self, "append", json!({ "rows": rows }))
    }

    /// Drops the table, as somebody else with PyIceberg would.
    ///
    /// # Errors
    /// What PyIceberg says.
    pub fn drop_as_somebody_else(&self) -> Result<()> {
        Reader::PyIceberg.ask(self, "drop", json!({}))
    }

    /// Drops a column of the table, as somebody else with PyIceberg would.
    ///
    /// # Errors
    /// What PyIceberg says.
    pub fn drop_column_as_somebody_else(&self, column: &str) -> Result<()> {
        Reader::PyIceberg.ask(self, "drop_column", json!({ "column": column }))
    }

    /// Rolls the table back to a snapshot, as somebody else with PyIceberg would.
    ///
    /// # Errors
    /// What PyIceberg says.
    pub fn roll_back_as_somebody_else(&self, snapshot: &str) -> Result<()> {
        Reader::PyIceberg.ask(self, "rollback", json!({ "snapshot": snapshot }))
    }

    /// Gives the table another name in the same catalog, as an operator with PyIceberg would.
    ///
    /// # Errors
    /// What PyIceberg says.
    pub fn rename_as_somebody_else(&self, to: &str) -> Result<()> {
        Reader::PyIceberg.ask(self, "rename", json!({ "to": to }))
    }

    /// Writes all rows into one file, in their order, in place of the files that are there, as somebody else with PyIceberg
    /// would; not of a table with equality deletes.
    ///
    /// # Errors
    /// What PyIceberg says, such as that the table has changed meanwhile.
    pub fn compact_as_somebody_else(&self) -> Result<()> {
        Reader::PyIceberg.ask(self, "compact", json!({}))
    }

    /// Writes all rows anew without those that are deleted, as somebody else with Spark would; how many delete files have gone.
    /// PyIceberg cannot read a table that has some.
    ///
    /// # Errors
    /// What Spark says, such as that the files which it has read are gone meanwhile.
    pub fn rewrite_as_somebody_else(&self, dangling: Dangling) -> Result<u64> {
        Reader::Spark.ask(self, "rewrite", json!({ "remove_dangling": dangling == Dangling::Remove }))
    }

    /// Expires all snapshots but the current one, and removes what only they had, as somebody else with PyIceberg would.
    ///
    /// # Errors
    /// What PyIceberg says.
    pub fn expire_as_somebody_else(&self) -> Result<()> {
        Reader::PyIceberg.ask(self, "expire", json!({}))
    }
}
