//! One connector in the storm: its host, its tables, and what others do to them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::shop::Shop;
use super::truth::{Change, Verdict, compare, of_rows};
use crate::chaos::{self, Mode};
use crate::connector::Connector;
use crate::equal::not_current;
use crate::host::Host;
use crate::readers::{Dangling, READERS, Reader, Rest, Rows, Snapshot, Table};
use crate::replay::Difference;
use crate::source_table::SourceTable;
use crate::sql::Session;

/// How long a host may take to notice what it has to.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often an orderly end is tried until nothing is left to acknowledge.
const TRIES: usize = 10;
/// Who reads tables that are kept equal: PyIceberg (0.12) cannot where rows were deleted.
const READERS_OF_ROWS: [Reader; 2] = [Reader::DuckDb, Reader::Spark];

/// A connector, and what has become of its tables.
pub(super) struct Lake {
    pub(super) connector: Connector,
    pub(super) shop: Shop,
    /// The catalog without the proxy before it; `None` where there is none before it.
    pub(super) direct: Option<Rest>,
    host: Option<Host>,
    /// By table: the names that it was given to make place for a new one.
    put_aside: BTreeMap<String, Vec<String>>,
    /// By table: the keys of others' rows, and whether their commit is known to have succeeded.
    foreign: BTreeMap<String, Vec<(i64, bool)>>,
}

impl Lake {
    pub(super) fn new(connector: Connector, shop: Shop, direct: Option<Rest>) -> Self {
        Self { connector, shop, direct, host: None, put_aside: BTreeMap::new(), foreign: BTreeMap::new() }
    }

    fn table(&self, name: &str) -> Table {
        let name = format!("chaos.{name}");
        match &self.direct {
            Some(rest) => Table::rest(rest, &name),
            None => self.connector.table(&name),
        }
    }

    /// Sees to it that a host runs; one that has ended by itself is an error.
    pub(super) fn tend(&mut self) -> Result<()> {
        let Some(host) = &mut self.host else {
            self.host = Some(Host::start(&self.connector, &[])?);
            return Ok(());
        };
        if host.is_running()? {
            return Ok(());
        }
        bail!("{}: the host has ended with {}: {}", self.shop.name, host.wait(PATIENCE)?, host.log_tail())
    }

    /// Kills the host; another one is started.
    pub(super) fn kill_host(&mut self) -> Result<()> {
        if let Some(host) = self.host.take() {
            host.kill9();
        }
        self.tend()
    }

    /// Asks the host to end, whatever comes of it; another one is started.
    pub(super) fn stop_host(&mut self) -> Result<()> {
        if let Some(host) = self.host.take() {
            // What it could not do in time it says with its exit code; the next one does it.
            let _ = host.terminate();
        }
        self.tend()
    }

    /// Starts a second host beside the first; after a while one of them is killed.
    pub(super) fn second_host(&mut self, together: Duration, kill_first: bool) -> Result<()> {
        self.tend()?;
        let second = Host::start(&self.connector, &[])?;
        std::thread::sleep(together);
        self.keep_one(second, kill_first)
    }

    /// Stops the host in the midst of what it does, takes its sessions away, and lets another one work; then it goes on, and
    /// after a while one of them is killed.
    pub(super) fn pause_host(&mut self, session: &Session, paused: Duration, kill_first: bool) -> Result<()> {
        self.tend()?;
        let Some(first) = &self.host else { bail!("no host") };
        first.signal("STOP");
        let name = &self.shop.name;
        session.rows(&format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'philotes {name} %'"
        ))?;
        let second = Host::start(&self.connector, &[])?;
        std::thread::sleep(paused);
        first.signal("CONT");
        std::thread::sleep(paused / 2);
        self.keep_one(second, kill_first)
    }

    fn keep_one(&mut self, mut second: Host, kill_first: bool) -> Result<()> {
        ensure!(second.is_running()?, "{}: the second host has ended: {}", self.shop.name, second.log_tail());
        self.tend()?;
        if kill_first {
            if let Some(first) = self.host.replace(second) {
                first.kill9();
            }
        } else {
            second.kill9();
        }
        Ok(())
    }

    /// Somebody else appends a row.
    pub(super) fn append(&mut self, table: &str, id: i64) -> Result<()> {
        let row = json!({
            "id": id, "v": 0, "who": "somebody else",
            "_cdc_operation": "INSERT", "_cdc_timestamp": 1_700_000_000_123_456_i64, "_cdc_lsn": "0/0",
        });
        let appended = self.table(table).append_as_somebody_else(Reader::PyIceberg, &[row]);
        self.foreign.entry(table.to_owned()).or_default().push((id, appended.is_ok()));
        appended
    }

    /// Somebody else writes the table's rows anew; where the table changes meanwhile, they try again.
    pub(super) fn compact(&self, table: &str) -> Result<()> {
        let table = self.table(table);
        let compact = || match self.shop.mode {
            Mode::Append => table.compact_as_somebody_else(),
            Mode::Upsert => table.rewrite_as_somebody_else(Dangling::Keep).map(drop),
        };
        compact().or_else(|_| compact()).or_else(|_| compact())
    }

    /// Somebody else expires all snapshots but the current one.
    ///
    /// PyIceberg, where it writes the metadata itself, takes the parent from what it leaves. After a commit of somebody else
    /// that looks as a replaced table does, and has to be refused.
    pub(super) fn expire(&self, table: &str) -> Result<()> {
        let table = self.table(table);
        if self.direct.is_none() {
            let snapshots = Reader::PyIceberg.snapshots(&table)?;
            let ours = |snapshot: &Snapshot| snapshot.summary.contains_key("philotes.commit-id");
            ensure!(snapshots.last().is_some_and(ours), "the last commit is none of the host's");
        }
        table.expire_as_somebody_else()
    }

    /// The table is gone while its rows are under way: the host has to refuse to go on. Then it is there again.
    pub(super) fn take_away(&mut self, session: &Session, table: &str) -> Result<()> {
        if !self.has_acknowledged(session, table)? {
            return Ok(());
        }
        self.tend()?;
        let away = format!("chaos.{table}_away");
        self.table(table).rename_as_somebody_else(&away)?;
        let Some(mut host) = self.host.take() else { bail!("no host") };
        let code = host.wait(PATIENCE).with_context(|| format!("{table} is gone"))?;
        ensure!(code == 1 && host.log_tail().contains("dropped"), "{table} is gone: {code}: {}", host.log_tail());
        self.table(&format!("{table}_away")).rename_as_somebody_else(&format!("chaos.{table}"))?;
        self.tend()
    }

    /// An operator stops the host in good order, puts the table aside, and has a new one begun, as the host's refusal says. One
    /// that is to be equal gets every row once more.
    pub(super) fn begin_anew(&mut self, session: &Session, table: &str) -> Result<()> {
        if !self.has_acknowledged(session, table)? {
            return Ok(());
        }
        for _ in 0..TRIES {
            self.tend()?;
            let Some(mut host) = self.host.take() else { continue };
            host.signal("TERM");
            let in_order = host.wait(PATIENCE)? == 0 && !host.log_tail().contains("before everything was acknowledged");
            if !in_order {
                continue;
            }
            let aside = self.put_aside.entry(table.to_owned()).or_default();
            let name = format!("{table}_{}", aside.len());
            aside.push(name.clone());
            self.table(table).rename_as_somebody_else(&format!("chaos.{name}"))?;
            let source_id = &self.shop.name;
            session.batch(&format!(
                "DELETE FROM philotes.acknowledged WHERE source_id = '{source_id}' AND stream = 'public.{table}'"
            ))?;
            if self.shop.mode == Mode::Upsert {
                // Two who lock rows in another order.
                let touch = || Shop::touch(session, table);
                touch().or_else(|_| touch()).or_else(|_| touch())?;
            }
            return self.tend();
        }
        bail!("{}: the host did not end in good order", self.shop.name);
    }

    fn has_acknowledged(&self, session: &Session, table: &str) -> Result<bool> {
        let source_id = &self.shop.name;
        let stored = session.number(&format!(
            "select count(*) from philotes.acknowledged where source_id = '{source_id}' and stream = 'public.{table}'"
        ))?;
        Ok(stored > 0 && self.table(table).exists()?)
    }

    /// Has all that is left delivered.
    pub(super) fn finish(&mut self, session: &Session) -> Result<()> {
        if let Some(host) = self.host.take() {
            host.kill9();
        }
        self.shop.close(session)?;
        Host::until_idle(&self.connector)?;
        let name = &self.shop.name;
        let waiting = session.number(&format!(
            "select count(*) from philotes.cdc_events where source_id = '{name}' and processed_at is null"
        ))?;
        ensure!(waiting == 0, "{name}: {waiting} rows are not acknowledged");
        Ok(())
    }

    /// What is wrong with a table.
    pub(super) fn judge(&self, session: &Session, table: &str) -> Result<Verdict> {
        match self.shop.mode {
            Mode::Append => self.judge_log(session, table),
            Mode::Upsert => self.judge_rows(session, table),
        }
    }

    /// What is wrong with a table that has to be equal now. Writers overlap, so only PostgreSQL knows what that is.
    fn judge_rows(&self, session: &Session, table: &str) -> Result<Verdict> {
        let source = SourceTable::read(session, table)?;
        let expected = source.state(session)?;
        let different = |reader| not_current(&source, &expected, reader, &self.table(table));
        let [first, second] = READERS_OF_ROWS.map(different);
        let (first, second) = (first?, second?);
        let told = |all: &[Difference]| all.iter().take(20).map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let [one, other] = READERS_OF_ROWS;
        ensure!(first == second, "{one} finds {}\n{other} finds {}", told(&first), told(&second));
        of_rows(&first)
    }

    /// What is wrong with a log, those that it took the place of included.
    fn judge_log(&self, session: &Session, table: &str) -> Result<Verdict> {
        let expected = Shop::changes(session, table)?;
        let mut names = self.put_aside.get(table).cloned().unwrap_or_default();
        names.push(table.to_owned());
        let mut found = Vec::new();
        for name in &names {
            let table = self.table(name);
            let rows = changes_of(&table.rows_in_order()?)?;
            let mut sorted = rows.clone();
            sorted.sort();
            for reader in READERS {
                let mut seen = changes_of(&reader.query(&table, "select id, _cdc_operation, v from t")?)?;
                seen.sort();
                ensure!(seen == sorted, "{reader} and the files differ on {name}");
            }
            found.extend(rows);
        }
        let (foreign, ours): (Vec<Change>, Vec<Change>) = found.into_iter().partition(|(id, _, _)| *id < 0);
        let mut verdict = compare(&expected, &ours);
        for (id, known) in self.foreign.get(table).into_iter().flatten() {
            let times = foreign.iter().filter(|(found, _, _)| found == id).count();
            let row = (*id, "INSERT".to_owned(), 0);
            match times {
                0 if *known => verdict.lost.push(row),
                0 | 1 => {}
                _ => verdict.doubled.push(row),
            }
        }
        Ok(verdict)
    }

    /// What is wrong with the dead letters.
    pub(super) fn judge_letters(&self, session: &Session) -> Result<Verdict> {
        let marks = |marks: Vec<i64>| marks.into_iter().map(|mark| (mark, "dead letter".to_owned(), 0)).collect();
        let expected: Vec<Change> = marks(self.shop.letters(session)?);
        let letters = self.table(&format!("{}_letters", self.shop.name));
        let found = READERS.map(|reader| chaos::marks(reader, &letters));
        let [first, second] = found;
        let (first, second) = (first?, second?);
        ensure!(first == second, "the readers differ on {}", letters.name);
        Ok(compare(&expected, &marks(first)))
    }

    /// Removes what nothing in a table's metadata reaches, whatever its age; gives back the names of the files.
    pub(super) fn remove_orphans(&self, table: &str) -> Result<BTreeSet<String>> {
        self.orphans(table, "true")
    }

    fn orphans(&self, table: &str, remove: &str) -> Result<BTreeSet<String>> {
        let (table, remove) = (format!("table=chaos.{table}"), format!("remove={remove}"));
        let printed = self.connector.action(&["sink", "orphans", &table, "older_than=0s", &remove])?;
        let files = printed.split_whitespace().filter(|word| word.contains("://"));
        Ok(files.map(|file| file.rsplit('/').next().unwrap_or(file).to_owned()).collect())
    }

    /// Sees to it that just those files are taken for orphans that PyIceberg cannot reach either, and that they go; how many.
    pub(super) fn settle_orphans(&self, table: &str) -> Result<usize> {
        if self.direct.is_some() && self.put_aside.contains_key(table) {
            // The catalog gave the new table the folder of the one that was put aside.
            let refused = self.orphans(table, "false");
            ensure!(refused.is_err(), "{table}: orphans were listed in a folder that two tables lie in");
            return Ok(0);
        }
        let expected: BTreeSet<String> = self.table(table).unreached()?.into_iter().collect();
        let listed = self.orphans(table, "false")?;
        ensure!(
            listed == expected,
            "{table}: {listed:?} were listed as orphans, PyIceberg does not reach {expected:?}"
        );
        let removed = self.remove_orphans(table)?;
        ensure!(removed == expected, "{table}: {removed:?} were removed");
        ensure!(self.table(table).unreached()?.is_empty(), "{table}: something has stayed");
        Ok(removed.len())
    }

    /// The last lines that the last host has said.
    pub(super) fn log_tail(&self) -> String {
        self.host.as_ref().map(Host::log_tail).unwrap_or_default()
    }
}

fn changes_of(rows: &Rows) -> Result<Vec<Change>> {
    let places = [rows.index("id")?, rows.index("_cdc_operation")?, rows.index("v")?];
    let change = |row: &Vec<serde_json::Value>| {
        let [id, operation, v] = places.map(|place| row.get(place).and_then(serde_json::Value::as_str));
        Some((id?.parse().ok()?, operation?.to_owned(), v?.parse().ok()?))
    };
    rows.rows.iter().map(|row| change(row).with_context(|| format!("{row:?} is no change"))).collect()
}
