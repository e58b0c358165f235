//! The log of changes, replayed: what a table of changes says that its source table must hold now, cell by cell.
//!
//! Both sides are brought into the form of `readers/protocol.py`: here by SQL in PostgreSQL, so that no code is shared.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::readers::Rows;
use crate::sql::Session;

/// A table's rows by key; the cells in the order of [`columns`].
pub type State = BTreeMap<Vec<String>, Vec<Value>>;

/// A column of a PostgreSQL table.
#[derive(Clone, Debug)]
pub struct SourceColumn {
    /// Its name.
    pub name: String,
    /// Its type, as `format_type` prints it.
    pub kind: String,
}

/// The columns of a table, in its order.
///
/// # Errors
/// PostgreSQL's.
pub fn columns(session: &Session, table: &str) -> Result<Vec<SourceColumn>> {
    let rows = session.rows(&format!(
        "select attname, format_type(atttypid, atttypmod) from pg_attribute \
         where attrelid = '{table}'::regclass and attnum > 0 and not attisdropped order by attnum"
    ))?;
    rows.into_iter()
        .map(|row| match <[Option<String>; 2]>::try_from(row) {
            Ok([Some(name), Some(kind)]) => Ok(SourceColumn { name, kind }),
            _ => bail!("the columns of {table} make no sense"),
        })
        .collect()
}

/// What PostgreSQL holds in a table now.
///
/// # Errors
/// PostgreSQL's.
pub fn state_of_source(session: &Session, table: &str, key: &[&str]) -> Result<State> {
    let columns = columns(session, table)?;
    let cells: Vec<String> =
        columns.iter().map(|column| cell(&format!("t.\"{}\"", column.name), &column.kind)).collect();
    let mut state = State::new();
    for row in session.rows(&format!("select json_build_array({})::text from {table} t", cells.join(", ")))? {
        let text = row.into_iter().next().flatten().context("a row without text")?;
        let cells: Vec<Value> = serde_json::from_str(&text)?;
        let cells = normalise(cells, &columns);
        let at = key_of(&cells, &positions(columns.iter().map(|column| column.name.as_str()), key)?)?;
        state.insert(at, cells);
    }
    Ok(state)
}

/// What a log of changes says the table holds: its rows in the order of `_cdc_lsn`, each key's last one, without the deleted.
///
/// # Errors
/// When a row has no position, or two rows of one key have the same.
pub fn state_of_log(log: &Rows, columns: &[SourceColumn], key: &[&str]) -> Result<State> {
    let places = positions(
        log.columns.iter().map(String::as_str),
        &columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
    )?;
    let (lsn, operation) = (log.index("_cdc_lsn")?, log.index("_cdc_operation")?);
    let key_places = positions(columns.iter().map(|column| column.name.as_str()), key)?;
    let mut changes = Vec::with_capacity(log.rows.len());
    for row in &log.rows {
        let cells = normalise(places.iter().map(|place| row[*place].clone()).collect(), columns);
        changes.push((key_of(&cells, &key_places)?, position(&row[lsn])?, &row[operation], cells));
    }
    changes.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    let mut state = State::new();
    for pair in changes.windows(2) {
        if pair[0].0 == pair[1].0 && pair[0].1 == pair[1].1 {
            bail!("two changes of key {:?} at the same position", pair[0].0);
        }
    }
    for (key, _, operation, cells) in changes {
        match operation.as_str() {
            Some("INSERT" | "UPDATE") => state.insert(key, cells),
            Some("DELETE") => state.remove(&key),
            other => bail!("an operation {other:?}"),
        };
    }
    Ok(state)
}

/// A PostgreSQL position `X/Y`, as a number.
///
/// # Errors
/// When it is none.
pub fn position(lsn: &Value) -> Result<u64> {
    let parse = |text: &str| {
        let (high, low) = text.split_once('/')?;
        Some(u64::from_str_radix(high, 16).ok()? << 32 | u64::from_str_radix(low, 16).ok()?)
    };
    lsn.as_str().and_then(parse).with_context(|| format!("{lsn} is no position in PostgreSQL's log"))
}

/// SQL for one cell in the form of `readers/protocol.py`.
fn cell(value: &str, kind: &str) -> String {
    if let Some(element) = kind.strip_suffix("[]") {
        let element = cell("e", element);
        return format!(
            "case when {value} is null then null else coalesce((select json_agg({element} order by i) \
             from unnest({value}) with ordinality as u(e, i)), '[]') end"
        );
    }
    let base = kind.split('(').next().unwrap_or(kind);
    let has_zone = kind.ends_with("with time zone");
    let text = match base.trim() {
        "boolean" => format!("{value}::text"),
        "real" | "double precision" => format!("encode(float8send({value}::float8), 'hex')"),
        "date" => format!("({value} - date '1970-01-01')::text"),
        name if name.starts_with("timestamp") || (name.starts_with("time") && !has_zone) => {
            format!("(extract(epoch from {value}) * 1000000)::bigint::text")
        }
        "bytea" => format!("encode({value}, 'hex')"),
        _ => format!("concat({value})"),
    };
    format!("case when {value} is null then null else {text} end")
}

/// JSON columns are compared as what they mean: neither side promises white space or the order of keys.
fn normalise(mut cells: Vec<Value>, columns: &[SourceColumn]) -> Vec<Value> {
    for (cell, column) in cells.iter_mut().zip(columns) {
        if matches!(column.kind.as_str(), "json" | "jsonb")
            && let Some(parsed) = cell.as_str().and_then(|text| serde_json::from_str(text).ok())
        {
            *cell = parsed;
        }
    }
    cells
}

fn positions<'a>(names: impl Iterator<Item = &'a str>, wanted: &[&str]) -> Result<Vec<usize>> {
    let names: Vec<&str> = names.collect();
    wanted
        .iter()
        .map(|column| {
            let place = names.iter().position(|name| name == column);
            place.with_context(|| format!("no column {column}; there are {}", names.join(", ")))
        })
        .collect()
}

fn key_of(cells: &[Value], places: &[usize]) -> Result<Vec<String>> {
    places.iter().map(|place| Ok(cells[*place].as_str().context("a key without a value")?.to_owned())).collect()
}

/// The first difference between two states, in words; `None` when they are equal.
#[must_use]
pub fn difference(expected: &State, found: &State) -> Option<String> {
    for (key, cells) in expected {
        match found.get(key) {
            None => return Some(format!("key {key:?} is missing")),
            Some(other) if other != cells => return Some(format!("key {key:?}: expected {cells:?}, found {other:?}")),
            Some(_) => {}
        }
    }
    let extra = found.keys().find(|key| !expected.contains_key(*key))?;
    Some(format!("key {extra:?} is too much"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn log(rows: &[(&str, &str, &str, Option<&str>)]) -> Rows {
        Rows {
            columns: ["id", "_cdc_operation", "_cdc_lsn", "v"].map(str::to_owned).into(),
            rows: rows.iter().map(|(id, op, lsn, v)| vec![json!(id), json!(op), json!(lsn), json!(v)]).collect(),
        }
    }

    fn schema() -> Vec<SourceColumn> {
        [("id", "integer"), ("v", "jsonb")]
            .map(|(name, kind)| SourceColumn { name: name.into(), kind: kind.into() })
            .into()
    }

    #[test]
    fn the_last_change_of_a_key_wins() {
        let rows = log(&[
            ("1", "UPDATE", "0/10", Some("{\"a\": 2}")),
            ("1", "INSERT", "0/9", Some("1")),
            ("2", "INSERT", "0/A", None),
            ("2", "DELETE", "1/0", None),
        ]);
        let state = state_of_log(&rows, &schema(), &["id"]).unwrap();
        let expected = State::from([(vec!["1".to_owned()], vec![json!("1"), json!({"a": 2})])]);
        assert_eq!(difference(&expected, &state), None);
        assert!(difference(&State::new(), &state).unwrap().contains("too much"));
        assert!(difference(&expected, &State::new()).unwrap().contains("missing"));
    }

    #[test]
    fn a_doubled_change_is_seen() {
        let rows = log(&[("1", "INSERT", "0/9", None), ("1", "INSERT", "0/9", None)]);
        assert!(state_of_log(&rows, &schema(), &["id"]).is_err());
    }
}
