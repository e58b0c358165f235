//! The tables whose rows are changed, and what PostgreSQL itself keeps of all that was committed on them.

use anyhow::{Context, Result};
use serde_json::Value;

use super::oracle::{Change, What};
use crate::source_table::{Kind, SourceColumn, SourceTable};
use crate::sql::Session;

/// How many changes are read at once.
const AT_ONCE: usize = 10_000;

/// A table. Its keys are made of slots, which are numbers from 0 on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyed {
    pub(super) name: &'static str,
    /// The columns of the key.
    pub(super) key: &'static [Column],
}

/// A column, and how SQL makes its value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    kind: &'static str,
    /// Of `slot` in a key, elsewhere of the change's `number`.
    pub(super) value: &'static str,
}

const fn column(name: &'static str, kind: &'static str, value: &'static str) -> Column {
    Column { name, kind, value }
}

/// The one that is partitioned by `region`.
pub(super) const KV: Keyed = Keyed {
    name: "kv",
    // Neither of them is enough.
    key: &[column("tenant", "text", "'t' || slot % 7"), column("id", "bigint", "slot / 7")],
};
pub(super) const BY_ID: Keyed = Keyed { name: "by_id", key: &[column("id", "bigint", "slot * 1000003 - 5000000000")] };
pub(super) const BY_UUID: Keyed = Keyed { name: "by_uuid", key: &[column("id", "uuid", "md5(slot::text)::uuid")] };

/// What each of them has beside its key and `region`.
pub(super) const CONTENT: [Column; 6] = [
    column("v", "bigint", "number"),
    column("amount", "numeric(12, 2)", "(number * 7919 % 1000000000)::numeric / 100"),
    column("at", "timestamptz", "timestamptz '2026-01-01 00:00:00.000001+00' + number * interval '1.000001 second'"),
    column("note", "text", "case when number % 3 > 0 then repeat('note ', (number % 5)::integer) || number end"),
    column(
        "ratio",
        "double precision",
        "case number % 5 when 0 then null when 1 then float8 '-0' else number / 7.0 end",
    ),
    column("tags", "text[]", "case when number % 4 > 0 then array['tag ' || number % 9, null] end"),
];

/// A region that follows from a number.
pub(super) fn region(number: &str) -> String {
    format!("(array['north', 'east', 'south', 'west', null])[1 + {number} % 5]")
}

impl Keyed {
    /// Makes the table.
    pub(super) fn make(&self, session: &Session) -> Result<()> {
        let declared = |column: &Column| format!("{} {}", column.name, column.kind);
        let names: Vec<&str> = self.key.iter().map(|column| column.name).collect();
        session.batch(&format!(
            "create table {} ({}, region text, {}, primary key ({}))",
            self.name,
            self.key.iter().map(declared).collect::<Vec<_>>().join(", "),
            CONTENT.iter().map(declared).collect::<Vec<_>>().join(", "),
            names.join(", "),
        ))
    }

    /// Keeps every change from now on, the row before and the row after it, in the order in which the rows were changed.
    pub(super) fn audit(&self, session: &Session) -> Result<()> {
        let name = self.name;
        session.batch(&format!(
            "create table audit_{name} (number bigserial primary key, gone {name}, come {name});
             create function audit_{name}() returns trigger language plpgsql as $$
             begin
                 if tg_op = 'INSERT' then insert into audit_{name} (come) values (new);
                 elsif tg_op = 'DELETE' then insert into audit_{name} (gone) values (old);
                 elsif tg_op = 'UPDATE' then insert into audit_{name} (gone, come) values (old, new);
                 else insert into audit_{name} default values;
                 end if;
                 return null;
             end $$;
             create trigger audit_row after insert or update or delete on {name} for each row execute function audit_{name}();
             create trigger audit_truncate after truncate on {name} for each statement execute function audit_{name}()"
        ))
    }

    /// How many changes were committed.
    pub(super) fn changes(&self, session: &Session) -> Result<i64> {
        session.number(&format!("select count(*) from audit_{}", self.name))
    }

    /// The number of the last change; there are fewer of them, for some were rolled back.
    pub(super) fn last_change(&self, session: &Session) -> Result<i64> {
        session.number(&format!("select coalesce(max(number), 0) from audit_{}", self.name))
    }

    /// Some of the changes after this one, in order.
    pub(super) fn changes_after(&self, session: &Session, source: &SourceTable, number: i64) -> Result<Vec<Change>> {
        let gone = |name: &str| format!("gone.{name}");
        let whole = |name: &str| SourceColumn { name: name.to_owned(), kind: Kind::Scalar("int8".to_owned(), -1) };
        let keys = source.columns.iter().filter(|column| source.key.contains(&column.name));
        let keys = keys.map(|column| SourceColumn { name: gone(&column.name), ..column.clone() });
        let columns = [whole("number")].into_iter().chain(keys).chain(source.columns.iter().cloned()).collect();
        let log = SourceTable { columns, ..source.clone() };
        let names: Vec<String> = source.key.iter().map(|name| format!("(gone).{name} as \"{}\"", gone(name))).collect();
        let relation = format!(
            "(select number, {}, (come).* from public.audit_{} where number > {number} order by number limit {AT_ONCE})",
            names.join(", "),
            self.name
        );
        let (width, places) = (source.key.len(), source.key_places()?);
        let change = |mut row: Vec<Value>| {
            let number = row[0].as_str().context("no number")?.parse()?;
            let come = row.split_off(1 + width);
            let gone: Option<_> = row.split_off(1).into_iter().map(|cell| cell.as_str().map(str::to_owned)).collect();
            let come = places.iter().all(|place| !come[*place].is_null()).then_some(come);
            let what = if gone.is_none() && come.is_none() { What::All } else { What::Row { gone, come } };
            Ok(Change { number, what })
        };
        let mut changes: Vec<Change> =
            log.rows_of(session, &relation)?.into_iter().map(change).collect::<Result<_>>()?;
        changes.sort_by_key(|change| change.number);
        Ok(changes)
    }
}
