//! From rows of the buffer to record batches: one decoder per stream.
//!
//! Types come from the row's own `metadata.columns`, else from the source's catalog, else they are inferred. A decoder never
//! guesses a value: what does not fit its column is a Data error that names stream, buffer id, column and reason.

mod column;
mod column_type;
pub(crate) mod json;
mod scalar;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringBuilder, TimestampMicrosecondBuilder};
use arrow::datatypes::{Schema, SchemaRef};
use philotes_sdk::batch::{META_KEY, META_STREAM, RESERVED_PREFIX, UTC, reserved_fields};
use philotes_sdk::{Error, Result, StreamName};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::copy::Row;
use crate::ranges::{self, Range};
use column::Column;
use column_type::ColumnType;
use json::{Entry, Scanner, Value};

/// Why a value was not taken. It says nothing of the value itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    reason: &'static str,
    column: Option<String>,
}

impl Refusal {
    pub(crate) const fn new(reason: &'static str) -> Self {
        Self { reason, column: None }
    }

    fn of(mut self, column: &str) -> Self {
        self.column.get_or_insert_with(|| column.to_owned());
        self
    }
}

/// A column as somebody told it: the row's metadata or the source's catalog.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct ToldColumn {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) type_name: String,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow, default)]
    columns: Option<&'a RawValue>,
    /// The key of a deleted row, as an object, where the row itself is not known.
    #[serde(borrow, default)]
    key: Option<&'a RawValue>,
}

/// What became of a row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Appended {
    Done,
    /// The row has another schema: close the batch, then append the row again.
    CloseFirst,
    /// The row has a column of unknown type, and the source's catalog has not been asked for it yet: close the batch, tell
    /// the columns by [`StreamDecoder::tell`], then append the row again.
    TypesWanted,
}

/// The rows of a closed batch.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) rows: RecordBatch,
    pub(crate) schema_id: u64,
    /// The buffer's ids of these rows, exactly.
    pub(crate) ids: Vec<Range>,
    /// How many rows of the buffer; one that changes its key is two rows of the batch.
    pub(crate) buffer_rows: u64,
    /// When the buffer took in the newest of them, in microseconds since 1970; 0 where unknown.
    pub(crate) newest_micros: i64,
}

/// Decodes the rows of one stream.
pub(crate) struct StreamDecoder {
    stream: StreamName,
    columns: Vec<Column>,
    index: HashMap<String, usize>,
    /// Which column the n-th key of the last row was.
    order: Vec<usize>,
    key: Vec<String>,
    /// The text that `key` was read from.
    key_text: Vec<u8>,
    /// The metadata of the last row that had one, and its columns: most rows repeat them byte by byte.
    metadata: Option<String>,
    /// A row was decoded.
    any: bool,
    /// What [`know`](Self::know) said last, and whether it is what the last row had.
    known: Option<(Option<String>, Vec<u8>)>,
    known_is_current: bool,
    told_text: String,
    /// Whether a catalog can be asked, and for which columns it has been in vain.
    catalog: bool,
    unknown: HashSet<String>,
    operations: StringBuilder,
    timestamps: TimestampMicrosecondBuilder,
    lsns: StringBuilder,
    rows: usize,
    ids: Vec<Range>,
    buffer_rows: u64,
    newest_micros: i64,
    bytes: usize,
    /// The schema of the batch that is being built, where it is known already.
    current: Option<(SchemaRef, u64)>,
    schemas: Vec<SchemaRef>,
    inferred_said: bool,
}

impl StreamDecoder {
    /// A decoder that knows no column yet; `catalog` says whether [`Appended::TypesWanted`] can be answered.
    pub(crate) fn new(stream: StreamName, catalog: bool) -> Self {
        Self {
            stream,
            columns: Vec::new(),
            index: HashMap::new(),
            order: Vec::new(),
            key: Vec::new(),
            key_text: Vec::new(),
            metadata: None,
            any: false,
            known: None,
            known_is_current: false,
            told_text: String::new(),
            catalog,
            unknown: HashSet::new(),
            operations: StringBuilder::with_capacity(0, 0),
            timestamps: TimestampMicrosecondBuilder::with_capacity(0).with_timezone(UTC),
            lsns: StringBuilder::with_capacity(0, 0),
            rows: 0,
            ids: Vec::new(),
            buffer_rows: 0,
            newest_micros: 0,
            bytes: 0,
            current: None,
            schemas: Vec::new(),
            inferred_said: false,
        }
    }

    /// How many columns it knows.
    pub(crate) fn columns(&self) -> usize {
        self.columns.len()
    }

    /// Rows in the batch that is being built.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Roughly how much memory they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the server need not send of rows to come: metadata and key columns of the last row. `None` before the first.
    pub(crate) fn know(&mut self) -> Option<(Option<&str>, Option<&str>)> {
        self.known = self.any.then(|| (self.metadata.clone(), self.key_text.clone()));
        self.known_is_current = self.any;
        let (metadata, key) = self.known.as_ref()?;
        // Both were read as JSON before.
        let key = std::str::from_utf8(key).ok().filter(|key| !key.is_empty());
        Some((metadata.as_deref(), key))
    }

    /// Whether any column's type was inferred.
    pub(crate) fn inferred(&self) -> bool {
        self.columns.iter().any(|column| column.source_type.is_none())
    }

    /// Takes in what the catalog says, with an empty batch; columns that it does not know will be inferred.
    pub(crate) fn tell(&mut self, columns: &[ToldColumn]) -> Result<()> {
        let unknown = std::mem::take(&mut self.unknown);
        self.unknown = unknown.into_iter().filter(|name| columns.iter().all(|column| column.name != *name)).collect();
        self.reconcile(columns).map(|_| ()).map_err(|refusal| self.refused(None, refusal))
    }

    /// Appends a row. After an error, and where [`Appended`] says so, the batch must be closed before the next one.
    pub(crate) fn append(&mut self, row: &Row<'_>) -> Result<Appended> {
        let (rows, bytes) = (self.rows, self.bytes);
        let outcome = self.try_append(row);
        if !matches!(outcome, Ok(Appended::Done)) {
            (self.rows, self.bytes) = (rows, bytes);
        }
        outcome.map_err(|refusal| self.refused(Some(row.id), refusal))
    }

    fn refused(&self, id: Option<i64>, refusal: Refusal) -> Error {
        let id = id.map_or_else(String::new, |id| format!(", buffer id {id}"));
        let column = refusal.column.map_or_else(String::new, |column| format!(", column {column}"));
        Error::data(format!("stream {}{id}{column}: {}", self.stream, refusal.reason))
    }

    fn try_append(&mut self, row: &Row<'_>) -> Result<Appended, Refusal> {
        if !(row.known && self.known_is_current) && self.take_description(row)? == Appended::CloseFirst {
            return Ok(Appended::CloseFirst);
        }
        let before = row.before.map(utf8).transpose()?;
        let after = row.after.map(utf8).transpose()?;
        let wanted = Refusal::new("an INSERT or UPDATE without after_data");
        let appended = match row.operation.unwrap_or_default() {
            b"INSERT" => self.push(row, "INSERT", after.ok_or(wanted)?)?,
            b"UPDATE" => {
                let after = after.ok_or(wanted)?;
                match before {
                    Some(before) if self.key_changed(before, after)? => match self.push(row, "DELETE", before)? {
                        Appended::Done => self.push(row, "INSERT", after)?,
                        other => other,
                    },
                    _ => self.push(row, "UPDATE", after)?,
                }
            }
            b"DELETE" => {
                let key = if before.is_none() { self.key_of_metadata(row) } else { None };
                let gone = before
                    .or(key.as_deref())
                    .ok_or(Refusal::new("a DELETE with neither before_data nor metadata.key"))?;
                self.push(row, "DELETE", gone)?
            }
            b"TRUNCATE" => self.push(row, "TRUNCATE", "{}")?,
            _ => return Err(Refusal::new("operation is none of INSERT, UPDATE, DELETE, TRUNCATE")),
        };
        if appended == Appended::Done {
            self.any = true;
            ranges::push(&mut self.ids, row.id);
            self.buffer_rows += 1;
            self.newest_micros = self.newest_micros.max(row.created_at.unwrap_or(0));
        }
        Ok(appended)
    }

    /// One row of the batch: the object's values and the reserved columns.
    fn push(&mut self, row: &Row<'_>, operation: &'static str, object: &str) -> Result<Appended, Refusal> {
        let filled = self.fill(object)?;
        if filled != Appended::Done {
            return Ok(filled);
        }
        self.operations.append_value(operation);
        self.timestamps.append_option(row.event_time.or(row.created_at));
        match row.lsn {
            Some(lsn) => self.lsns.append_value(utf8(lsn)?),
            None => self.lsns.append_null(),
        }
        self.rows += 1;
        // Values take about as much as their text; the reserved columns some thirty bytes.
        self.bytes += object.len() + 32;
        Ok(Appended::Done)
    }

    fn fill(&mut self, object: &str) -> Result<Appended, Refusal> {
        let mut scanner = Scanner::enter(object, b'{')?;
        let (mut position, mut filled) = (0, 0);
        loop {
            let token = self.order.get(position).map_or(&[][..], |column| &self.columns[*column].token);
            let Some(entry) = scanner.entry(token)? else { break };
            let value = scanner.value()?;
            let column = match entry {
                Entry::Expected => self.order[position],
                Entry::Other(key) => {
                    let Some(column) = self.index.get(key.as_ref()).copied() else {
                        let columns = self.columns.len();
                        if self.fill_unknown(&key, value)? == Appended::TypesWanted {
                            return Ok(Appended::TypesWanted);
                        }
                        filled += self.columns.len() - columns;
                        continue;
                    };
                    self.order.truncate(position);
                    self.order.push(column);
                    column
                }
            };
            self.put(column, value)?;
            position += 1;
            filled += 1;
        }
        if filled < self.columns.len() {
            for column in self.columns.iter_mut().filter(|column| column.len() == self.rows) {
                column.append_null();
            }
        }
        Ok(Appended::Done)
    }

    #[inline(always)]
    fn put(&mut self, column: usize, value: Value<'_>) -> Result<(), Refusal> {
        let column = &mut self.columns[column];
        if column.len() > self.rows {
            return Err(Refusal::new("the row has the key twice").of(&column.name));
        }
        // An inferred column may become wider.
        if column.source_type.is_none() {
            let before = column.kind.clone();
            column.append(value).map_err(|refusal| refusal.of(&column.name))?;
            if column.kind != before {
                self.current = None;
            }
            return Ok(());
        }
        column.append(value).map_err(|refusal| refusal.of(&column.name))
    }

    /// A key that is no column yet. One that is null does not become one: nothing tells its type.
    fn fill_unknown(&mut self, key: &str, value: Value<'_>) -> Result<Appended, Refusal> {
        if self.catalog && self.unknown.insert(key.to_owned()) {
            return Ok(Appended::TypesWanted);
        }
        let Some(kind) = column::infer(value).map_err(|refusal| refusal.of(key))? else { return Ok(Appended::Done) };
        if !self.inferred_said {
            self.inferred_said = true;
            tracing::warn!(
                stream = %self.stream, column = key, as_type = ?kind,
                "types of columns are inferred from values, for this column and maybe others: neither metadata.columns nor types_from tells them"
            );
        }
        self.add(key, kind, None)?;
        let column = self.columns.len() - 1;
        self.put(column, value)?;
        Ok(Appended::Done)
    }

    fn add(&mut self, name: &str, kind: ColumnType, source_type: Option<String>) -> Result<(), Refusal> {
        if name.starts_with(RESERVED_PREFIX) {
            return Err(Refusal::new("names that begin with _cdc_ are reserved").of(name));
        }
        self.index.insert(name.to_owned(), self.columns.len());
        self.columns.push(Column::new(name, kind, source_type, self.rows));
        self.current = None;
        Ok(())
    }

    /// Takes in the row's metadata and key columns, or those that are known where it does not send them.
    fn take_description(&mut self, row: &Row<'_>) -> Result<Appended, Refusal> {
        let known = if row.known { self.known.take() } else { None };
        let (metadata, key) = match &known {
            Some((metadata, key)) => (metadata.as_deref().map(str::as_bytes), &key[..]),
            None => (row.metadata, row.key_columns.unwrap_or_default()),
        };
        let mut taken = Ok(Appended::Done);
        if let Some(metadata) = metadata {
            taken = self.take_metadata(metadata);
        }
        if taken == Ok(Appended::Done) {
            taken = self.take_key(key);
        }
        self.known_is_current = known.is_some() && taken == Ok(Appended::Done);
        self.known = known.or(self.known.take());
        taken
    }

    fn take_metadata(&mut self, text: &[u8]) -> Result<Appended, Refusal> {
        if self.metadata.as_ref().is_some_and(|last| last.as_bytes() == text) {
            return Ok(Appended::Done);
        }
        let text = utf8(text)?;
        // A writer's metadata may be anything; only an object can have columns.
        let told = serde_json::from_str::<Metadata<'_>>(text).ok().and_then(|metadata| metadata.columns);
        if let Some(told) = told
            && told.get() != self.told_text
        {
            let columns: Vec<ToldColumn> = serde_json::from_str(told.get())
                .map_err(|_| Refusal::new("metadata.columns is no array of {name, type, nullable}"))?;
            if self.reconcile(&columns)? == Appended::CloseFirst {
                return Ok(Appended::CloseFirst);
            }
            told.get().clone_into(&mut self.told_text);
        }
        self.metadata = Some(text.to_owned());
        Ok(Appended::Done)
    }

    /// Makes the columns hold what was told: new ones are added, types widened where both are held by one of them, and
    /// replaced where not. A column that is no longer told stays, null from now on.
    fn reconcile(&mut self, told: &[ToldColumn]) -> Result<Appended, Refusal> {
        let mut retyped = Vec::new();
        for column in told {
            let kind = ColumnType::of(&column.type_name);
            let Some(at) = self.index.get(&column.name).copied() else { continue };
            let known = &self.columns[at];
            let wide = if known.source_type.is_some() { known.kind.wider(&kind) } else { None };
            let (kind, name) = match wide {
                Some(wide) if wide == known.kind => continue,
                Some(wide) => (wide, column.type_name.clone()),
                None => (kind, column.type_name.clone()),
            };
            retyped.push((at, kind, name));
        }
        if !retyped.is_empty() && self.rows > 0 {
            return Ok(Appended::CloseFirst);
        }
        for (at, kind, name) in retyped {
            self.columns[at].retype(kind, Some(name));
            self.current = None;
        }
        for column in told {
            if !self.index.contains_key(&column.name) {
                self.add(&column.name, ColumnType::of(&column.type_name), Some(column.type_name.clone()))?;
            }
        }
        Ok(Appended::Done)
    }

    fn take_key(&mut self, text: &[u8]) -> Result<Appended, Refusal> {
        if self.key_text == text {
            return Ok(Appended::Done);
        }
        let key: Vec<String> = match text {
            b"" | b"null" => Vec::new(),
            text => serde_json::from_slice(text).map_err(|_| Refusal::new("key_columns is no array of names"))?,
        };
        if key != self.key {
            if self.rows > 0 {
                return Ok(Appended::CloseFirst);
            }
            self.key = key;
            self.current = None;
        }
        self.key_text = text.to_vec();
        Ok(Appended::Done)
    }

    /// The object `metadata.key` of the row's metadata.
    fn key_of_metadata(&self, row: &Row<'_>) -> Option<String> {
        let told = match &self.known {
            Some((metadata, _)) if row.known => metadata.is_some(),
            _ => row.metadata.is_some(),
        };
        let metadata = self.metadata.as_deref().filter(|_| told)?;
        let key = serde_json::from_str::<Metadata<'_>>(metadata).ok().and_then(|metadata| metadata.key);
        key.map(|key| key.get().to_owned())
    }

    fn key_changed(&self, before: &str, after: &str) -> Result<bool, Refusal> {
        if self.key.is_empty() {
            return Ok(false);
        }
        let (before, after) = (self.key_values(before)?, self.key_values(after)?);
        // A key column that the row before does not show has not changed.
        Ok(before.iter().zip(&after).any(|(before, after)| before.is_some() && before != after))
    }

    fn key_values<'a>(&self, object: &'a str) -> Result<Vec<Option<Value<'a>>>, Refusal> {
        let mut values = vec![None; self.key.len()];
        let mut scanner = Scanner::enter(object, b'{')?;
        while let Some(Entry::Other(key)) = scanner.entry(b"")? {
            let value = scanner.value()?;
            if let Some(at) = self.key.iter().position(|name| *name == key) {
                values[at] = Some(value);
            }
        }
        Ok(values)
    }

    /// Closes the batch; `None` where it has no rows.
    pub(crate) fn close(&mut self) -> Result<Option<Built>> {
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let mut arrays: Vec<ArrayRef> = self.columns.iter_mut().map(|column| column.finish(rows)).collect();
        // A row that was refused halfway may have left a value behind.
        arrays.push(Arc::new(self.operations.finish().slice(0, rows)));
        arrays.push(Arc::new(self.timestamps.finish().with_timezone(UTC).slice(0, rows)));
        arrays.push(Arc::new(self.lsns.finish().slice(0, rows)));
        if rows == 0 {
            return Ok(None);
        }
        let (schema, schema_id) = self.schema();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(schema, arrays, &options).map_err(|e| {
            Error::internal(format!("stream {}: the batch does not match its schema", self.stream)).with_source(e)
        })?;
        Ok(Some(Built {
            rows: batch,
            schema_id,
            ids: std::mem::take(&mut self.ids),
            buffer_rows: std::mem::take(&mut self.buffer_rows),
            newest_micros: std::mem::take(&mut self.newest_micros),
        }))
    }

    /// The schema as it is now, and its id: a schema that comes back gets the id it had.
    pub(crate) fn schema(&mut self) -> (SchemaRef, u64) {
        if let Some((schema, id)) = &self.current {
            return (Arc::clone(schema), *id);
        }
        let fields: Vec<_> = self.columns.iter().map(Column::field).chain(reserved_fields()).collect();
        let known = self.key.iter().all(|name| self.index.contains_key(name));
        let key: &[String] = if known { &self.key } else { &[] };
        let metadata = HashMap::from([
            (META_STREAM.to_owned(), self.stream.to_string()),
            (META_KEY.to_owned(), serde_json::json!(key).to_string()),
        ]);
        let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
        let at = self.schemas.iter().position(|known| *known == schema).unwrap_or_else(|| {
            self.schemas.push(Arc::clone(&schema));
            self.schemas.len() - 1
        });
        let current = (Arc::clone(&self.schemas[at]), at as u64 + 1);
        self.current = Some(current.clone());
        current
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).map_err(|_| Refusal::new("not UTF-8"))
}

/// The stream of a row.
pub(crate) fn stream_name(row: &Row<'_>) -> Result<StreamName> {
    let part = |bytes| match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(text) => Ok(text.to_owned()),
        Cow::Owned(_) => Err(Error::data(format!("buffer id {}: schema_name or table_name is not UTF-8", row.id))),
    };
    StreamName::new([part(row.schema)?, part(row.table)?])
}

#[cfg(test)]
mod tests;
