//! Who writes in the chaos: events as a writer of the buffer's own makes them, and what they come to.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::rows::Rows;
use super::{Mode, PART};
use crate::readers::{READERS, Reader, Table};
use crate::source_table::literal;
use crate::sql::Session;

/// A writer of one case.
pub(super) struct Shop {
    session: Session,
    source_id: String,
    parts: i64,
    /// What an upsert table has to hold; nobody for a log.
    rows: Option<Rows>,
}

impl Shop {
    pub(super) fn new(session: Session, source_id: &str, mode: Mode, soft: bool) -> Self {
        let rows = (mode == Mode::Upsert).then(|| Rows::new(soft));
        Self { session, source_id: source_id.to_owned(), parts: 0, rows }
    }

    /// Changes, and two rows that become dead letters; a column is renamed first.
    pub(super) fn write_part(&mut self) -> Result<()> {
        let (part, renamed) = (self.parts, renamed(self.parts));
        let (events, [one, other]) = match &mut self.rows {
            None => (self.new_rows_and_updates(), [0, 0]),
            Some(rows) => {
                let event = |event: super::rows::Event| {
                    let data =
                        |row: Option<Value>| row.map_or_else(|| "null".to_owned(), |row| literal(&row.to_string()));
                    let (before, after) = (data(event.before), data(event.after));
                    format!("('{}', '0/{part:X}', {before}, {after})", event.operation)
                };
                let events: Vec<String> = rows.change(part, renamed).into_iter().map(event).collect();
                (format!("values {}", events.join(", ")), Rows::keys_of(part))
            }
        };
        let (many, text) = (self.bad_row(2 * part, one), self.bad_row(2 * part + 1, other));
        self.session.batch(
            &(self.written("integer", &events) + &self.written("integer", &many) + &self.written("text", &text)),
        )?;
        self.parts += 1;
        Ok(())
    }

    /// A statement that writes these: operation, LSN, the row before and the row after. They are described as the capture triggers do.
    fn written(&self, v: &str, events: &str) -> String {
        let column = |(name, kind): (&str, &str), number: i32| {
            format!("{{\"name\": \"{name}\", \"type\": \"{kind}\", \"number\": {number}}}")
        };
        let columns = [("id", "bigint"), ("v", v), (renamed(self.parts), "bigint"), ("big", "text")];
        let columns: Vec<String> = columns.into_iter().zip(1..).map(|(of, number)| column(of, number)).collect();
        format!(
            "insert into philotes.cdc_events (source_id, schema_name, table_name, operation, lsn, transaction_id, key_columns, \
             before_data, after_data, metadata, event_time) \
             select '{}', 'public', 't', operation, lsn, 1, '[\"id\"]', before::jsonb, after::jsonb, \
             '{{\"relation\": \"1.16384\", \"columns\": [{}]}}', now() from ({events}) e (operation, lsn, before, after);",
            self.source_id,
            columns.join(", ")
        )
    }

    /// New rows, and an update of each row of the part before.
    fn new_rows_and_updates(&self) -> String {
        let (from, to) = (self.parts * PART + 1, (self.parts + 1) * PART);
        let w = renamed(self.parts);
        let event = |operation: &str, v: i64, from: i64, to: i64| {
            format!(
                "select '{operation}', '0/' || upper(to_hex(i)), null, \
                 jsonb_build_object('id', i, 'v', {v}, '{w}', i, 'big', null) from generate_series({from}, {to}) i"
            )
        };
        event("INSERT", 1, from, to) + " union all " + &event("UPDATE", 2, (from - PART).max(1), from - 1)
    }

    /// A text for a number. Where the number's type is told, the source cannot decode it; where a text's is told, the table
    /// cannot take it.
    fn bad_row(&self, number: i64, id: i64) -> String {
        format!("values ('INSERT', 'bad {number}.', null, '{{\"id\": {id}, \"v\": \"many\"}}')")
    }

    /// Fails where the table or the dead letters are anything else than what was written comes to.
    pub(super) fn expect(&self, table: &Table, letters: &Table) -> Result<()> {
        match &self.rows {
            // PyIceberg (0.12) reads no table with equality deletes.
            Some(rows) => rows.expect(Reader::DuckDb, table, renamed(self.parts - 1)).context("as DuckDB sees it")?,
            None => READERS.into_iter().try_for_each(|reader| self.expect_changes(reader, table))?,
        }
        for reader in READERS {
            let (found, expected) = (marks(reader, letters)?, self.expected_letters());
            ensure!(found == expected, "{reader}: letters {found:?} instead of {expected:?}");
        }
        Ok(())
    }

    /// Fails where a reader does not find each change once.
    fn expect_changes(&self, reader: Reader, table: &Table) -> Result<()> {
        let (found, expected) = (pairs(reader, table)?, self.expected());
        ensure!(found == expected, "{reader}: {}", difference(&found, &expected));
        // The column that was renamed with every part still holds what it was given.
        let lost = format!("select count(*) from t where {} is distinct from id", renamed(self.parts - 1));
        let lost = reader.number(table, &lost)?;
        ensure!(lost == 0, "{reader}: {lost} values of the renamed column are lost");
        Ok(())
    }

    /// The marks of all bad rows, sorted.
    fn expected_letters(&self) -> Vec<i64> {
        (0..2 * self.parts).collect()
    }

    /// Every change that was written to a log: (id, v), sorted.
    fn expected(&self) -> Vec<(i64, i64)> {
        let updated = (self.parts - 1) * PART;
        (1..=self.parts * PART)
            .flat_map(|id| [Some((id, 1)), (id <= updated).then_some((id, 2))].into_iter().flatten())
            .collect()
    }

    /// Rows that are not acknowledged.
    pub(super) fn waiting(&self) -> Result<i64> {
        self.left("and processed_at is null")
    }

    /// Rows of the buffer for which this holds.
    pub(super) fn left(&self, condition: &str) -> Result<i64> {
        let source_id = &self.source_id;
        self.session
            .number(&format!("select count(*) from philotes.cdc_events where source_id = '{source_id}' {condition}"))
    }
}

/// What the column is called that each part renames.
fn renamed(part: i64) -> &'static str {
    if part % 2 == 0 { "w" } else { "x" }
}

fn pairs(reader: Reader, table: &Table) -> Result<Vec<(i64, i64)>> {
    let rows = reader.query(table, "select id, v from t order by 1, 2")?;
    let number = |cell: &Value| cell.as_str().and_then(|cell| cell.parse().ok());
    let pair = |row: &Vec<Value>| Some((number(row.first()?)?, number(row.get(1)?)?));
    rows.rows.iter().map(|row| pair(row).with_context(|| format!("{row:?} is no change"))).collect()
}

/// What the records of dead letters are marked with, sorted: each holds its LSN.
pub(crate) fn marks(reader: Reader, table: &Table) -> Result<Vec<i64>> {
    let rows = reader.query(table, "select record from t")?.rows;
    let mark = |record: &str| record.split_once("bad ")?.1.split_once('.')?.0.parse().ok();
    let mut marks = rows
        .iter()
        .map(|row| row.first().and_then(|cell| mark(cell.as_str()?)).with_context(|| format!("{row:?} has no mark")))
        .collect::<Result<Vec<i64>>>()?;
    marks.sort_unstable();
    Ok(marks)
}

fn difference(found: &[(i64, i64)], expected: &[(i64, i64)]) -> String {
    let lost: Vec<_> = expected.iter().filter(|pair| !found.contains(pair)).collect();
    let mut doubled: Vec<_> = found.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    doubled.dedup();
    format!("{} changes of {}; lost: {lost:?}, doubled: {doubled:?}", found.len(), expected.len())
}
