//! Rows of a table by their key, as the table is in its current snapshot.
//!
//! A change need not say all of its row: a value that PostgreSQL left out because it did not change, a DELETE of which the row is to
//! stay. What is missing stands in the table, and is read back from there.
//!
//! A key has one live row at most, and every change of it writes a newer one. So the files are gone through from the highest
//! sequence number down, and a key is no longer looked for below the first that holds it: whatever is older of it is dead. What
//! was found is then held against the delete files that came later. Only those rows that are left are read, and of them only
//! the columns that were asked for.
//!
//! Other programs write to these tables too, compact them and delete from them, so that everything counts that the
//! specification lets apply to a file: equality deletes of its partition and of all, position deletes, deletion vectors. What is
//! not understood is refused where it may matter.
//!
//! `entries` is what manifests say of files, `keys` what is looked for, `input` how Parquet is read, `columns` how a file's columns
//! become the table's of today; `scan` finds the keys, `deletes` (with `vector`) sorts out the dead, `rows` reads the rest. Nothing
//! is kept from one lookup to the next.

mod columns;
mod deletes;
mod entries;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod input;
mod keys;
mod literal;
mod rows;
mod scan;
mod thrift;
mod vector;
mod whole;

use arrow::array::RecordBatch;
use iceberg::spec::Schema;
use philotes_sdk::{Error, Result};

use crate::base::Base;
use columns::Columns;
use entries::DataEntry;
use input::Inputs;
use keys::Keys;

pub(crate) use literal::array as array_of;
pub(crate) use whole::keys_of;

/// Files and manifests read at a time.
const READ_AT_ONCE: usize = 8;

/// What was found of the rows with some keys.
#[derive(Debug)]
pub(crate) struct Found {
    /// The rows that were found: the columns asked for, in their order, of the table's own Arrow types.
    pub(crate) rows: RecordBatch,
    /// For each key: its row in `rows`; `None` where the table holds no live row of it.
    pub(crate) places: Vec<Option<usize>>,
}

/// What was found of the rows with some keys, of which there may be several each.
#[derive(Debug)]
pub(crate) struct FoundAll {
    /// As those of [`Found`].
    pub(crate) rows: RecordBatch,
    /// For each key: its rows in `rows`.
    pub(crate) places: Vec<Vec<usize>>,
}

impl From<Found> for FoundAll {
    fn from(found: Found) -> Self {
        let places = found.places.into_iter().map(|place| place.into_iter().collect()).collect();
        Self { rows: found.rows, places }
    }
}

/// Which rows of a key are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// The newest, since no other is alive.
    Newest,
    All,
}

/// Where a row with one of the keys stands, dead or alive.
#[derive(Debug)]
struct Candidate {
    key: usize,
    /// Its file, among those that hold candidates.
    file: usize,
    /// Its row in the file, counted from 0.
    position: u64,
}

/// Finds rows by their key.
///
/// `keys`: the values of the key's columns, one column per id of `key` (field ids of top-level columns), in the table's current
/// types, each key once. `columns`: field ids of top-level columns of the current schema.
///
/// # Errors
/// Data: a file that may hold one of the rows, or may delete it, is none that can be read for this; a key has two live rows.
/// Unavailable and others: what reading files reports.
pub(crate) async fn find(base: &mut Base, key: &[i32], keys: &RecordBatch, columns: &[i32]) -> Result<Found> {
    let FoundAll { rows, places } = look(base, key, keys, columns, Wanted::Newest).await?;
    Ok(Found { rows, places: places.into_iter().map(|places| places.first().copied()).collect() })
}

/// Finds all live rows of keys, in a table that may hold some twice, from the oldest to the newest as far as files say it. For the
/// rest see [`find`].
///
/// # Errors
/// As those of [`find`], but for a key that has two live rows.
pub(crate) async fn find_all(base: &mut Base, key: &[i32], keys: &RecordBatch, columns: &[i32]) -> Result<FoundAll> {
    look(base, key, keys, columns, Wanted::All).await
}

async fn look(base: &mut Base, key: &[i32], keys: &RecordBatch, columns: &[i32], wanted: Wanted) -> Result<FoundAll> {
    let manifests = base.manifests().await?;
    let schema = base.metadata.current_schema();
    let columns = Columns::of(schema, columns)?;
    let keys = Keys::new(schema, key, keys)?;
    let inputs = Inputs::new(&base.files);
    let (files, mut candidates) = scan::candidates(base, &inputs, &manifests, &keys, wanted).await?;
    let dead = deletes::dead(base, &inputs, &manifests, &keys, &files, &candidates).await?;
    let mut alive = dead.iter().map(|dead| !dead);
    candidates.retain(|_| alive.next().unwrap_or(false));
    let twice_held = candidates.windows(2).find(|pair| pair[0].key == pair[1].key);
    if let Some(pair) = twice_held.filter(|_| wanted == Wanted::Newest) {
        return Err(twice(schema, key, &files[pair[0].file], &files[pair[1].file]));
    }
    rows::read(&inputs, &columns, &files, candidates, keys.len()).await
}

fn twice(schema: &Schema, key: &[i32], one: &DataEntry, other: &DataEntry) -> Error {
    Error::data(format!(
        "the table holds two rows with one key ({}), in {} and {}; allowed is one, and another program has written the other",
        names(schema, key),
        one.file.path,
        other.file.path
    ))
}

/// Columns by their names, for a message.
fn names(schema: &Schema, ids: &[i32]) -> String {
    let name = |id: &i32| schema.name_by_field_id(*id).map_or_else(|| format!("field {id}"), str::to_owned);
    ids.iter().map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
