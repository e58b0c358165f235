//! Databases with a full buffer.

use anyhow::{Context, Result};
use philotes_tests::connector::Connector;
use philotes_tests::services::postgres::Postgres;
use philotes_tests::sql::Session;

/// Which rows the connector's route takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    All,
    OneInTen,
}

/// A database with a buffer.
pub(crate) struct Database {
    dsn: String,
    session: Session,
}

/// The database that is a copy of another.
const COPY: &str = "scenario";

fn dsn(postgres: &Postgres, name: &str) -> String {
    postgres.dsn().replace("dbname=postgres", &format!("dbname={name}"))
}

/// A new database with an empty buffer.
pub(crate) fn database(postgres: &Postgres, name: &str) -> Result<Database> {
    postgres.session()?.batch(&format!("create database {name}"))?;
    let dsn = dsn(postgres, name);
    Connector::new(&dsn)?.action(&["source", "init"])?;
    Ok(Database { session: Session::connect(&dsn)?, dsn })
}

/// A session on a database that is there.
pub(crate) fn open(postgres: &Postgres, name: &str) -> Result<Session> {
    Session::connect(&dsn(postgres, name))
}

/// A copy of a database that nobody is connected to; one at a time.
pub(crate) fn copy_database(postgres: &Postgres, template: &str) -> Result<String> {
    let session = postgres.session()?;
    session.batch(&format!("create database {COPY} template {template} strategy file_copy"))?;
    session.batch("checkpoint")?;
    Ok(dsn(postgres, COPY))
}

/// Drops the copy.
pub(crate) fn drop_copy(postgres: &Postgres) -> Result<()> {
    postgres.session()?.batch(&format!("drop database {COPY} with (force)"))
}

impl Database {
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn dsn(&self) -> &str {
        &self.dsn
    }

    /// Adds rows that wait: orders of eight columns, about 200 bytes of JSON, with the types as capture writes them.
    pub(crate) fn fill(&self, rows: u64, wanted: Wanted) -> Result<()> {
        let table = match wanted {
            Wanted::All => "'orders'",
            Wanted::OneInTen => "case when i % 10 = 1 then 'orders' else 'events_' || i % 10 end",
        };
        self.insert(rows, &Rows { table, ..Rows::default() })
    }

    /// Adds rows that were processed an hour ago.
    pub(crate) fn fill_processed(&self, rows: u64) -> Result<()> {
        self.insert(rows, &Rows { processed_at: "now() - interval '1 hour'", ..Rows::default() })
    }

    /// Adds changes that wait: an INSERT of each of so many orders, and UPDATEs of them in turn, out of order.
    pub(crate) fn fill_changes(&self, changes: u64, orders: u64) -> Result<()> {
        let id = format!("(i * 7919 % {orders} + 1)");
        let operation = format!("case when i <= {orders} then 'INSERT' else 'UPDATE' end");
        let before = format!("case when i > {orders} then {} end", order(&id, &format!("(i - {orders})")));
        self.insert(changes, &Rows { id: &id, operation: &operation, before: &before, ..Rows::default() })
    }

    /// Adds UPDATEs that wait, of orders by chance among so many.
    pub(crate) fn fill_updates(&self, updates: u64, orders: u64) -> Result<()> {
        let id = format!("(abs(hashint8(i)::bigint) % {orders} + 1)");
        self.insert(
            updates,
            &Rows {
                id: &id,
                operation: "'UPDATE'",
                before: &order(&id, &id),
                number: "(i + 1000000000)",
                ..Rows::default()
            },
        )
    }

    fn insert(&self, rows: u64, of: &Rows<'_>) -> Result<()> {
        let Rows { table, processed_at, operation, id, number, before } = of;
        // Loading is not what is measured.
        self.session.batch("set synchronous_commit = off")?;
        self.session
            .batch(&format!(
                "insert into philotes.cdc_events (source_id, schema_name, table_name, operation, lsn, transaction_id, \
                 key_columns, before_data, after_data, metadata, event_time, processed_at) \
                 select 'shop', 'public', {table}, {operation}, '0/' || upper(to_hex(i)), i / 100, '[\"id\"]', \
                 {before}, {}, '{COLUMNS}', now() + i * interval '1 microsecond', {processed_at} \
                 from generate_series(1::bigint, {rows}) i",
                order(id, number)
            ))
            .context("cannot fill the buffer")?;
        self.session.batch("vacuum analyze philotes.cdc_events")?;
        self.session.batch("checkpoint")
    }
}

/// SQL of what is added to the buffer; `i` counts the rows from 1 on.
struct Rows<'a> {
    table: &'a str,
    processed_at: &'a str,
    operation: &'a str,
    id: &'a str,
    /// What the order's other values follow from.
    number: &'a str,
    before: &'a str,
}

impl Default for Rows<'_> {
    fn default() -> Self {
        Self {
            table: "'orders'",
            processed_at: "null",
            operation: "'INSERT'",
            id: "i",
            number: "i",
            before: "null::jsonb",
        }
    }
}

/// SQL of an order.
fn order(id: &str, number: &str) -> String {
    format!(
        "jsonb_build_object('id', {id}, 'customer_id', {number} * 7919 % 100000, \
           'status', (array['new', 'paid', 'shipped', 'cancelled'])[({number} % 4 + 1)::int], \
           'total', (({number} * 31 % 1000000)::numeric / 100 + 0.01)::numeric(14, 2), 'quantity', {number} % 12, \
           'placed_at', to_jsonb(timestamptz '2026-01-01 00:00:00.000001+00' + {number} * interval '1 second'), \
           'email', 'customer' || {number} * 7919 % 100000 || '@example.com', 'note', md5({number}::text))"
    )
}

/// What capture says of the table.
const COLUMNS: &str = r#"{"columns": [
    {"name": "id", "type": "bigint", "nullable": false},
    {"name": "customer_id", "type": "bigint", "nullable": false},
    {"name": "status", "type": "text", "nullable": false},
    {"name": "total", "type": "numeric(14,2)", "nullable": false},
    {"name": "quantity", "type": "integer", "nullable": true},
    {"name": "placed_at", "type": "timestamp with time zone", "nullable": false},
    {"name": "email", "type": "text", "nullable": true},
    {"name": "note", "type": "text", "nullable": true}]}"#;
