//! The torture table: a column of every type that PostgreSQL has, the values at its edges, and random ones.
//!
//! Every row of the log of changes is compared, not only the last of a key: what was inserted, updated and deleted is kept in
//! tables beside, and in the end PostgreSQL says what each should look like.

mod columns;
mod documented;

use anyhow::{Result, ensure};

pub use columns::{COLUMNS, Column, TIMES};
pub use documented::Documented;

use crate::equal::{as_seen_by, found};
use crate::readers::{Reader, Table};
use crate::replay::{Change, Difference, State, differences, expect_none, state_of};
use crate::source_table::{Kind, SourceTable, quoted};
use crate::sql::Session;

/// How many columns are read at once: all of them with all rows are more than a reader wants to hold.
const AT_ONCE: usize = 40;

/// A table with these columns and a key `id`.
#[derive(Debug)]
pub struct Torture {
    /// Its name, without the schema `public`.
    pub name: &'static str,
    columns: &'static [Column],
    rows: usize,
}

/// Makes the types and the functions that draw values.
///
/// # Errors
/// PostgreSQL's.
pub fn prepare(session: &Session, seed: f64) -> Result<()> {
    session.batch(include_str!("draw.sql"))?;
    session.batch(include_str!("types.sql"))?;
    session.batch(&format!("select setseed({seed})"))
}

impl Torture {
    /// Makes the table.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub fn create(session: &Session, name: &'static str, columns: &'static [Column], rows: usize) -> Result<Self> {
        let declared: String = columns.iter().map(|column| format!(", {}", column.declaration())).collect();
        session.batch(&format!("create table {name} (id bigint primary key{declared})"))?;
        Ok(Self { name, columns, rows })
    }

    fn written(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| !column.is_generated())
    }

    fn names(&self) -> String {
        self.written().map(|column| quoted(column.name())).collect::<Vec<_>>().join(", ")
    }

    /// Inserts the edges, a row of nulls, and rows that are drawn.
    ///
    /// # Errors
    /// PostgreSQL's, with the name of the column.
    pub fn insert(&self, session: &Session) -> Result<()> {
        let (name, names) = (self.name, self.names());
        let edges = self.columns.iter().map(|column| column.edges.len()).max().unwrap_or(0) + 1;
        for row in 0..edges {
            let values: Vec<String> = self.written().map(|column| column.edge(row)).collect();
            session.batch(&format!("insert into {name} (id, {names}) values ({row}, {})", values.join(", ")))?;
        }
        let drawn: Vec<String> = self.written().map(Column::drawn).collect();
        session.batch(&format!(
            "insert into {name} (id, {names}) select i, {} from generate_series({edges}, {}) i",
            drawn.join(", "),
            self.rows - 1
        ))?;
        session.batch(&format!(
            "create table {name}_inserted as table {name}; alter table {name}_inserted add primary key (id)"
        ))
    }

    /// Gives a third of the rows the values of others, and deletes a tenth.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub fn change(&self, session: &Session) -> Result<()> {
        let (name, names, rows) = (self.name, self.names(), self.rows);
        session.batch(&format!(
            "update {name} t set ({names}) = (select {names} from {name}_inserted s where s.id = t.id * 7919 % {rows}) \
             where id % 3 = 0; \
             create table {name}_updated as select * from {name} where id % 3 = 0; \
             create table {name}_deleted as select * from {name} where id % 10 = 7; \
             delete from {name} where id % 10 = 7"
        ))
    }

    /// What PostgreSQL says that the log and the table hold, in parts of the columns.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub fn expected(&self, session: &Session) -> Result<Vec<Expected>> {
        let all = SourceTable::read(session, &format!("public.{}", self.name))?;
        let names: Vec<&str> = all.names().collect();
        names.chunks(AT_ONCE).map(|part| self.expected_of(session, part)).collect()
    }

    /// The same of some columns, at once.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub fn expected_of(&self, session: &Session, columns: &[&str]) -> Result<Expected> {
        let all = SourceTable::read(session, &format!("public.{}", self.name))?;
        Expected::read(session, all.only(|column| columns.contains(&column.name.as_str())))
    }
}

/// What should be found of some columns.
#[derive(Debug)]
pub struct Expected {
    /// The table, with only these columns and its key.
    pub source: SourceTable,
    /// By operation: the rows of the log.
    log: [(&'static str, State); 3],
    /// The table as it is now.
    now: State,
}

impl Expected {
    fn read(session: &Session, source: SourceTable) -> Result<Self> {
        let of = |operation, table: &str| {
            anyhow::Ok((operation, source.state_of(session, &format!("{}_{table}", source.name))?))
        };
        let log = [of("INSERT", "inserted")?, of("UPDATE", "updated")?, of("DELETE", "deleted")?];
        let now = source.state(session)?;
        Ok(Self { source, log, now })
    }

    /// What a reader finds in the lake's table.
    ///
    /// # Errors
    /// The reader's, and when the rows are no log of changes.
    pub fn found(&self, reader: Reader, table: &Table) -> Result<Vec<Change>> {
        found(&self.source, reader, table)
    }

    /// Compares every cell of every change; gives back how many they were.
    ///
    /// # Errors
    /// When there are differences: how many, and the first of each column.
    pub fn compare(&self, reader: Reader, found: &[Change]) -> Result<usize> {
        expect_none(&self.differences(reader, found)?)?;
        Ok(found.len() * self.source.columns.len())
    }

    /// Where what was found differs from what PostgreSQL has: in the changes of each operation, and in the table that they make.
    ///
    /// # Errors
    /// When the changes are none that a table can have had.
    pub fn differences(&self, reader: Reader, found: &[Change]) -> Result<Vec<Difference>> {
        let source = &self.source;
        let compare = |expected: &State, found: &State| {
            differences(source, &as_seen_by(reader, source, expected), &as_seen_by(reader, source, found))
        };
        let mut all = Vec::new();
        for (operation, expected) in &self.log {
            let of_operation = found.iter().filter(|change| change.operation == *operation);
            let state: State = of_operation.clone().map(|change| (change.key.clone(), change.cells.clone())).collect();
            ensure!(state.len() == of_operation.count(), "{}: two {operation} of one key", self.source.name);
            all.extend(compare(expected, &state));
        }
        let now = state_of(found.iter().cloned())?;
        all.extend(compare(&self.now, &now));
        Ok(all)
    }
}

/// What PyIceberg has to call a type.
#[must_use]
pub fn iceberg_type(kind: &Kind, documented: &Documented) -> String {
    match kind {
        Kind::Scalar(name, modifier) if name == "numeric" => documented::numeric(*modifier),
        Kind::Scalar(name, _) => documented.scalar(name).to_owned(),
        Kind::Array(element, dimensions) => {
            let element = iceberg_type(element, documented);
            (0..*dimensions).fold(element, |element, _| format!("list<{element}>"))
        }
        Kind::Composite(fields) => {
            let field = |(name, kind): &(String, Kind)| format!("{name}: optional {}", iceberg_type(kind, documented));
            format!("struct<{}>", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
    }
}
