//! One connector: its host, its tables, and what is found in them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::Value;

use super::oracle::Oracle;
use super::tables::Keyed;
use super::writer;
use crate::connector::Connector;
use crate::equal::expect_current;
use crate::eventually;
use crate::host::Host;
use crate::readers::{Dangling, DeleteKind, Reader, Rows, Table};
use crate::source_table::SourceTable;
use crate::sql::Session;

/// How long rows may be on their way.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often Spark tries to compact a table that changes meanwhile.
const TRIES: usize = 5;
/// One look back in so many is Spark's.
const SPARK: usize = 10;
/// How many deleted keys DuckDB (1.5) is asked to apply: it compares every older row with each of them.
const DUCKDB: u64 = 20_000;

/// A connector and its tables.
pub(super) struct Side {
    connector: Connector,
    host: Option<Host>,
    tables: Vec<Looked>,
}

/// How often a reader looked at a table.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Looks {
    pub(super) duckdb: u32,
    pub(super) spark: u32,
}

/// A table of the lake.
struct Looked {
    keyed: Keyed,
    table: Table,
    oracle: Oracle,
    looks: Looks,
}

impl Side {
    /// Makes the tables and has them captured.
    pub(super) fn new(session: &Session, connector: Connector, tables: &[Keyed]) -> Result<Self> {
        let mut looked = Vec::new();
        for keyed in tables {
            keyed.make(session)?;
            keyed.audit(session)?;
            let name = format!("public.{}", keyed.name);
            connector.capture(&[&name])?;
            let oracle = Oracle::new(SourceTable::read(session, &name)?)?;
            looked.push(Looked {
                keyed: *keyed,
                table: connector.table(&format!("cdc.public_{}", keyed.name)),
                oracle,
                looks: Looks::default(),
            });
        }
        Ok(Self { connector, host: None, tables: looked })
    }

    /// Starts the host.
    pub(super) fn start(&mut self) -> Result<()> {
        self.host = Some(Host::start(&self.connector, &[])?);
        Ok(())
    }

    /// Kills it; it has to run until then.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.expect_running()?;
        self.host.take().into_iter().for_each(Host::kill9);
        Ok(())
    }

    /// Sees to it that the host has not given up.
    pub(super) fn expect_running(&mut self) -> Result<()> {
        let Some(host) = &mut self.host else { bail!("no host") };
        ensure!(host.is_running()?, "the host {} has ended", self.connector.name());
        Ok(())
    }

    /// Kills the host, and has another deliver all that is left.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.kill()?;
        Host::until_idle(&self.connector)
    }

    /// Inserts a part of the keys into each table, and waits until the rows are in the lake.
    pub(super) fn fill(&self, session: &Session, keys: i64, part: i64, parts: i64) -> Result<()> {
        for Looked { keyed, table, .. } in &self.tables {
            session.batch(&writer::fill(keyed, keys, part, parts))?;
            let expected = session.number(&format!("select count(*) from {}", keyed.name))?;
            let arrived = eventually(PATIENCE, || {
                // Until its first commit there is no table.
                Ok(Reader::DuckDb.number(table, "select count(*) from t").is_ok_and(|rows| rows == expected))
            })?;
            ensure!(arrived, "{}: {expected} rows do not arrive", table.name);
        }
        Ok(())
    }

    /// Sees to it that the tables have had at least so many commits, and none that deleted anything.
    pub(super) fn expect_no_deletes(&self, commits: i64) -> Result<()> {
        for Looked { table, .. } in &self.tables {
            let snapshots = Reader::PyIceberg.snapshots(table)?;
            ensure!(snapshots.len() as i64 >= commits, "{}: {} commits", table.name, snapshots.len());
            let other = snapshots.iter().find(|snapshot| snapshot.operation != "append");
            ensure!(other.is_none(), "{}: a commit of inserts: {other:?}", table.name);
            for reader in [Reader::PyIceberg, Reader::DuckDb] {
                let deletes = reader.delete_files(table)?;
                ensure!(deletes.is_empty(), "{}: {reader} finds {deletes:?} after inserts", table.name);
            }
        }
        Ok(())
    }

    /// Waits until all that has been written by now is in the lake.
    pub(super) fn arrived(&self, session: &Session) -> Result<()> {
        let source = self.connector.name();
        let last = session.number("select coalesce(max(id), 0) from philotes.cdc_events")?;
        let waiting = format!(
            "select count(*) from philotes.cdc_events where source_id = '{source}' and processed_at is null and id <= {last}"
        );
        let arrived = eventually(PATIENCE, || Ok(session.number(&waiting)? == 0))?;
        ensure!(arrived, "{} changes are not acknowledged", session.one(&waiting)?);
        Ok(())
    }

    /// Looks at one of the tables.
    pub(super) fn look(&mut self, session: &Session, random: &mut StdRng, reader: Reader) -> Result<()> {
        let number = random.random_range(0..self.tables.len());
        self.tables[number].look(session, reader).map(drop)
    }

    /// Looks at each of the tables.
    pub(super) fn look_at_all(&mut self, session: &Session, reader: Reader) -> Result<()> {
        self.tables.iter_mut().try_for_each(|looked| looked.look(session, reader).map(drop))
    }

    /// Has Spark write the rows of each table anew. Where the table changes meanwhile, it may have to try again.
    pub(super) fn compact(&self, dangling: Dangling) -> Result<()> {
        for Looked { table, .. } in &self.tables {
            let mut tries = 1;
            while let Err(error) = table.rewrite_as_somebody_else(dangling) {
                ensure!(tries < TRIES, "{}: Spark does not come to compact it: {error:#}", table.name);
                tries += 1;
            }
        }
        Ok(())
    }

    /// Compares each table with PostgreSQL's, cell by cell, as it is and after Spark has compacted it once more.
    pub(super) fn expect_current(&mut self, session: &Session) -> Result<()> {
        for compacted in [false, true] {
            if compacted {
                self.compact(Dangling::Keep)?;
            }
            for looked in &mut self.tables {
                for reader in [Reader::DuckDb, Reader::Spark] {
                    let able = looked.look(session, reader)?;
                    expect_current(session, looked.keyed.name, able, &looked.table)?;
                    ensure!(able == reader || !compacted, "{}: there is much to delete", looked.table.name);
                }
                looked.expect_identifiers()?;
            }
        }
        Ok(())
    }

    /// Looks at the tables as they were at some of their snapshots.
    pub(super) fn look_back(&mut self, session: &Session, snapshots: usize) -> Result<()> {
        self.tables.iter_mut().try_for_each(|looked| looked.look_back(session, snapshots))
    }

    /// How often the tables were looked at.
    pub(super) fn looks(&self) -> impl Iterator<Item = Looks> {
        self.tables.iter().map(|looked| looked.looks)
    }

    /// How many changes the tables have had.
    pub(super) fn changes(&self, session: &Session) -> Result<i64> {
        self.tables.iter().map(|looked| looked.keyed.changes(session)).sum()
    }

    /// The last lines that the host has said.
    pub(super) fn log_tail(&self) -> String {
        self.host.as_ref().map(Host::log_tail).unwrap_or_default()
    }
}

impl Looked {
    /// What a reader finds has to be the source table after a change that is not before that of the last look. Where there is too much
    /// for DuckDB to apply, Spark looks. Who did.
    fn look(&mut self, session: &Session, reader: Reader) -> Result<Reader> {
        let reader = able(reader, self.expect_few_deletes()?);
        let columns: Vec<&str> = self.oracle.source().names().collect();
        let found = reader.rows_of(&self.table, &columns)?;
        see(&mut self.oracle, &self.keyed, session, found).with_context(|| format!("as {reader} sees it"))?;
        self.looks.count(reader);
        Ok(reader)
    }

    /// At most one delete file per commit, by the values of the key; how many keys are to be deleted from some file.
    fn expect_few_deletes(&self) -> Result<u64> {
        let name = &self.table.name;
        let schema = Reader::PyIceberg.schema(&self.table)?;
        let key: Vec<i64> = schema.iter().filter(|column| column.identifier).map(|column| column.id).collect();
        let files = Reader::PyIceberg.files(&self.table)?;
        let oldest = files.iter().map(|file| file.sequence).min().unwrap_or(i64::MAX);
        let (mut by_commit, mut deleted) = (BTreeMap::new(), 0);
        for mut file in Reader::PyIceberg.delete_files(&self.table)? {
            file.columns.sort_unstable();
            deleted += if file.sequence > oldest { file.rows } else { 0 };
            ensure!(file.kind == DeleteKind::Equality && file.columns == key, "{name}: {file:?}, the key is {key:?}");
            let other = by_commit.insert(file.snapshot.clone(), file);
            ensure!(other.is_none(), "{name}: a commit with two delete files, {other:?} is one of them");
        }
        Ok(deleted)
    }

    /// The key's columns are the identifier fields, and required; the others are neither.
    fn expect_identifiers(&self) -> Result<()> {
        let key = &self.oracle.source().key;
        for column in Reader::PyIceberg.schema(&self.table)? {
            let of_key = key.contains(&column.name);
            ensure!(
                (column.required, column.identifier) == (of_key, of_key),
                "{}: the key is {key:?}, but {column:?}",
                self.table.name
            );
        }
        Ok(())
    }

    fn look_back(&mut self, session: &Session, wanted: usize) -> Result<()> {
        let mut oracle = Oracle::new(self.oracle.source().clone())?;
        let columns: Vec<&str> = self.oracle.source().names().collect();
        let snapshots = Reader::PyIceberg.snapshots(&self.table)?;
        for (number, snapshot) in snapshots.iter().step_by(snapshots.len().div_ceil(wanted).max(1)).enumerate() {
            let reader = if number % SPARK == SPARK - 1 { Reader::Spark } else { Reader::DuckDb };
            let deleted = snapshot.summary.get("total-equality-deletes").and_then(Value::as_str);
            let reader = able(reader, deleted.and_then(|deleted| deleted.parse().ok()).unwrap_or_default());
            let found = reader.rows_at(&self.table, &snapshot.id, &columns)?;
            see(&mut oracle, &self.keyed, session, found)
                .with_context(|| format!("snapshot {} as {reader} sees it", snapshot.id))?;
            self.looks.count(reader);
        }
        Ok(())
    }
}

impl Looks {
    fn count(&mut self, reader: Reader) {
        if reader == Reader::Spark { self.spark += 1 } else { self.duckdb += 1 }
    }
}

/// The reader, unless it would take too long where so many keys are deleted.
fn able(reader: Reader, deleted: u64) -> Reader {
    if deleted > DUCKDB { Reader::Spark } else { reader }
}

fn see(oracle: &mut Oracle, keyed: &Keyed, session: &Session, found: Rows) -> Result<i64> {
    let source = oracle.source().clone();
    oracle.see(found.rows, |number| keyed.changes_after(session, &source, number))
}
