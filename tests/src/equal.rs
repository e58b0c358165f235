//! Whether a table of the lake holds what its table of PostgreSQL holds, cell by cell and change by change; or, where it is kept
//! equal (`mode: upsert`), row by row.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::readers::{Reader, Table};
use crate::replay::{Change, Difference, State, What, changes, differences, expect_equal, expect_none, state_of};
use crate::source_table::{Kind, SourceTable, key_of, literal};
use crate::sql::Session;

/// How many columns are compared at once: a reader need not hold all of a large table.
const AT_ONCE: usize = 10;

/// Compares what a reader finds of a table that was captured from its first row on: the rows that its changes come to, and how many
/// changes of each kind there are. A table without a key has to be one that was only inserted into. Gives back how many changes
/// there are.
///
/// # Errors
/// When something differs, or PostgreSQL or the reader fail.
pub fn expect_same(session: &Session, source_id: &str, name: &str, reader: Reader, table: &Table) -> Result<usize> {
    let source = SourceTable::read(session, name)?;
    let captured = captured(session, source_id, &source)?;
    let names: Vec<&str> = source.names().collect();
    for part in names.chunks(AT_ONCE) {
        let part = source.only(|column| part.contains(&column.name.as_str()));
        let found = found(&part, reader, table).with_context(|| format!("as {reader} sees it"))?;
        let counted = count(found.iter().map(|change| (change.operation.clone(), 1)));
        ensure!(counted == captured, "{name}: {reader} finds {counted:?}, and {captured:?} were captured");
        let compared = if source.key.is_empty() {
            same_rows(&part, &part.rows(session)?, found)
        } else {
            let (expected, found) = (part.state(session)?, state_of(found)?);
            expect_equal(&part, &as_seen_by(reader, &part, &expected), &as_seen_by(reader, &part, &found))
        };
        compared.with_context(|| format!("as {reader} sees it"))?;
    }
    Ok(captured.values().sum())
}

/// Compares what a reader finds of a table that is kept equal with what PostgreSQL holds now. Gives back how many rows there are.
///
/// # Errors
/// When something differs, or PostgreSQL or the reader fail.
pub fn expect_current(session: &Session, name: &str, reader: Reader, table: &Table) -> Result<usize> {
    let source = SourceTable::read(session, name)?;
    let expected = source.state(session)?;
    let different = not_current(&source, &expected, reader, table)?;
    expect_none(&different).with_context(|| format!("as {reader} sees it"))?;
    Ok(expected.len())
}

/// All differences between what a table has to hold and what a reader finds in it; a key that is there once more is too much.
///
/// # Errors
/// The reader's, and where a key has no value.
pub fn not_current(source: &SourceTable, expected: &State, reader: Reader, table: &Table) -> Result<Vec<Difference>> {
    let columns: Vec<&str> = source.names().collect();
    let places = source.key_places()?;
    let (mut found, mut all) = (State::new(), Vec::new());
    let mut rows = reader.rows_of(table, &columns)?.rows;
    // Whoever reads them, of several rows of a key the same one is too much.
    rows.sort_by_cached_key(|cells| format!("{cells:?}"));
    for cells in rows {
        let key = key_of(&cells, &places)?;
        let is_right = expected.get(&key) == Some(&cells);
        match found.entry(key.clone()) {
            Entry::Vacant(entry) => drop(entry.insert(cells)),
            Entry::Occupied(mut entry) => {
                if is_right {
                    entry.insert(cells);
                }
                all.push(Difference { table: source.name.clone(), key, what: What::TooMuch });
            }
        }
    }
    all.extend(differences(source, &as_seen_by(reader, source, expected), &as_seen_by(reader, source, &found)));
    Ok(all)
}

/// The changes that a reader finds, with the cells of these columns.
///
/// # Errors
/// The reader's, and when the rows are no log of changes.
pub fn found(source: &SourceTable, reader: Reader, table: &Table) -> Result<Vec<Change>> {
    let columns: Vec<&str> = source.names().chain(["_cdc_operation", "_cdc_lsn"]).collect();
    changes(reader.rows_of(table, &columns)?, source)
}

/// A state without what a reader is known not to tell apart.
#[must_use]
pub fn as_seen_by<'a>(reader: Reader, source: &SourceTable, state: &'a State) -> Cow<'a, State> {
    let mut state = Cow::Borrowed(state);
    if reader == Reader::PyIceberg {
        for cells in state.to_mut().values_mut() {
            cells.iter_mut().zip(&source.columns).for_each(|(cell, column)| empty_where_missing(cell, &column.kind));
        }
    }
    state
}

/// PyIceberg (0.12) makes an empty list of a missing list of structs, where the file has the column. The other readers tell
/// them apart.
fn empty_where_missing(cell: &mut Value, kind: &Kind) {
    match kind {
        Kind::Array(element, 1) => {
            if cell.is_null() && matches!(**element, Kind::Composite(_)) {
                *cell = Value::Array(Vec::new());
            }
            cell.as_array_mut().into_iter().flatten().for_each(|cell| empty_where_missing(cell, element));
        }
        Kind::Composite(fields) => {
            for (name, kind) in fields {
                cell.get_mut(name).into_iter().for_each(|cell| empty_where_missing(cell, kind));
            }
        }
        Kind::Array(..) | Kind::Scalar(..) => {}
    }
}

/// How many changes of each kind the buffer was given. A row of it whose key has changed is two of them.
fn captured(session: &Session, source_id: &str, source: &SourceTable) -> Result<BTreeMap<String, usize>> {
    let moved =
        source.key.iter().map(|name| format!("before_data ->> {0} is distinct from after_data ->> {0}", literal(name)));
    let moved = moved.chain(["false".to_owned()]).collect::<Vec<_>>().join(" or ");
    let rows = session.rows(&format!(
        "select unnest(case when operation = 'UPDATE' and ({moved}) then array['DELETE', 'INSERT'] else array[operation] end), \
         count(*) from philotes.cdc_events where source_id = {} and format('%I.%I', schema_name, table_name) = {} group by 1",
        literal(source_id),
        literal(&source.name)
    ))?;
    let counts = rows.into_iter().map(|row| match <[Option<String>; 2]>::try_from(row) {
        Ok([Some(operation), Some(number)]) => Ok((operation, number.parse()?)),
        _ => anyhow::bail!("a count of {} makes no sense", source.name),
    });
    Ok(count(counts.collect::<Result<Vec<_>>>()?))
}

fn count(operations: impl IntoIterator<Item = (String, usize)>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (operation, number) in operations {
        *counts.entry(operation).or_default() += number;
    }
    counts
}

/// Rows without a key, as often as they are there.
fn same_rows(source: &SourceTable, expected: &[Vec<Value>], found: Vec<Change>) -> Result<()> {
    let sorted = |rows: Vec<String>| {
        let mut rows = rows;
        rows.sort_unstable();
        rows
    };
    let expected = sorted(expected.iter().map(|row| format!("{row:?}")).collect());
    let found = sorted(found.into_iter().map(|change| format!("{:?}", change.cells)).collect());
    ensure!(expected.len() == found.len(), "{}: {} rows expected, {} found", source.name, expected.len(), found.len());
    let different = expected.iter().zip(&found).find(|(expected, found)| expected != found);
    ensure!(different.is_none(), "{}: these rows differ: {different:?}", source.name);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::readers::{READERS, install};
    use crate::source_table::SourceColumn;

    #[test]
    fn each_fault_of_a_table_that_is_kept_equal_is_seen() {
        if let Err(error) = install() {
            return crate::skip(&error);
        }
        let dir = tempfile::tempdir().unwrap();
        let table = Table::new(&dir.path().join("catalog.db"), "cdc.t");
        table
            .create_as_somebody_else(Some(dir.path()), &[json!(["id", "long", true]), json!(["v", "string", false])])
            .unwrap();
        let column = |(name, kind): (&str, &str)| SourceColumn {
            name: name.to_owned(),
            kind: Kind::Scalar(kind.to_owned(), -1),
        };
        let columns = [("id", "int8"), ("v", "text")].map(column).into();
        let source = SourceTable { name: "t".to_owned(), columns, key: vec!["id".to_owned()] };
        let row = |id: i64, v: Option<&str>| (vec![id.to_string()], vec![json!(id.to_string()), json!(v)]);
        let add = |id: i64, v: Option<&str>| {
            table.append_as_somebody_else(Reader::PyIceberg, &[json!({"id": id, "v": v})]).unwrap();
        };
        let expected = State::from([row(1, Some("a")), row(2, None)]);
        add(1, Some("a"));
        add(2, None);
        for reader in READERS {
            assert_eq!(not_current(&source, &expected, reader, &table).unwrap(), [], "{reader}");
        }
        // Once more, another value, and neither here nor there.
        add(1, Some("a"));
        add(4, None);
        let expected = State::from([row(1, Some("a")), row(2, Some("b")), row(3, None)]);
        for reader in READERS {
            let found = not_current(&source, &expected, reader, &table).unwrap();
            let told: Vec<String> = found.iter().map(ToString::to_string).collect();
            let expected = [
                "t, key [\"1\"]: too much",
                "t, key [\"2\"], column \"v\": expected \"b\", found null",
                "t, key [\"3\"]: missing",
                "t, key [\"4\"]: too much",
            ];
            assert_eq!(told, expected, "{reader}");
        }
    }
}
