//! From rows of the buffer to record batches: one decoder per stream.
//!
//! Types come from the row's own `metadata.columns`, else from the source's catalog, else they are inferred. A decoder never
//! guesses a value: what does not fit its column is a Data error that names stream, buffer id, column and reason.

mod bytea;
mod column;
mod column_type;
mod description;
mod infer;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, ListBuilder, RecordBatch, RecordBatchOptions, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{Schema, SchemaRef};
use philotes_sdk::batch::{META_KEY, META_RELATION, META_STREAM, UTC, reserved_fields, unchanged_field};
use philotes_sdk::json::{Entry, Fault, Scanner, Value};
use philotes_sdk::{Error, ErrorKind, Result, StreamName};

use crate::copy::Row;
use crate::ranges::{self, Range};
use column::{Column, Description};
pub(crate) use column_type::{ColumnType, MAX_FIELDS, MAX_TYPE_NAME, ToldColumn};
pub(crate) use description::{Override, Overrides};

/// Why a value was not taken. It says nothing of the value itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    reason: &'static str,
    column: Option<String>,
    /// It is not the row that is wrong but the configuration.
    configured: bool,
}

impl Refusal {
    pub(crate) const fn new(reason: &'static str) -> Self {
        Self { reason, column: None, configured: false }
    }

    fn of(mut self, column: &str) -> Self {
        self.column.get_or_insert_with(|| column.to_owned());
        self
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::new(fault.reason())
    }
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

/// What a row's object lacks.
#[derive(Clone, Copy)]
enum Lacking<'a> {
    /// It is null.
    Null,
    /// It was not sent: it did not change, or the row is gone and only a part of it was told. The row before may have it.
    Unsent { before: Option<&'a str> },
}

/// Decodes the rows of one stream.
pub(crate) struct StreamDecoder {
    stream: StreamName,
    columns: Vec<Column>,
    index: HashMap<String, usize>,
    /// Which column the n-th key of the last row was.
    order: Vec<usize>,
    key: Vec<String>,
    /// The key is the configuration's, whatever rows say.
    key_is_fixed: bool,
    /// The text that `key` was read from, or would have been.
    key_text: Vec<u8>,
    /// The metadata of the last row that had one, and its columns: most rows repeat them byte by byte.
    metadata: Option<String>,
    /// A row was decoded.
    any: bool,
    /// What [`know`](Self::know) said last, and whether it is what the last row had.
    known: Option<(Option<String>, Vec<u8>)>,
    known_is_current: bool,
    told_text: String,
    /// What the columns' numbers belong to, where they have some.
    relation: Option<String>,
    /// What the configuration says of columns, and of which none was met so far.
    overrides: Arc<Overrides>,
    unmet: HashSet<String>,
    /// Whether a catalog can be asked, and for which columns it has been in vain.
    catalog: bool,
    unknown: HashSet<String>,
    operations: StringBuilder,
    timestamps: TimestampMicrosecondBuilder,
    lsns: StringBuilder,
    /// The columns that rows left out, once one did.
    unchanged: Option<ListBuilder<StringBuilder>>,
    /// What the row that is being appended leaves out.
    left_out: Vec<usize>,
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
    pub(crate) fn new(stream: StreamName, catalog: bool, overrides: Arc<Overrides>) -> Self {
        Self {
            stream,
            columns: Vec::new(),
            index: HashMap::new(),
            order: Vec::new(),
            key: Vec::new(),
            key_is_fixed: false,
            key_text: Vec::new(),
            metadata: None,
            any: false,
            known: None,
            known_is_current: false,
            told_text: String::new(),
            relation: None,
            unmet: overrides.keys().cloned().collect(),
            overrides,
            catalog,
            unknown: HashSet::new(),
            operations: StringBuilder::with_capacity(0, 0),
            timestamps: TimestampMicrosecondBuilder::with_capacity(0).with_timezone(UTC),
            lsns: StringBuilder::with_capacity(0, 0),
            unchanged: None,
            left_out: Vec::new(),
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

    /// The same with a key that the configuration names, if it does.
    pub(crate) fn identified_by(mut self, key: Option<Arc<[String]>>) -> Self {
        if let Some(key) = key {
            self.key = key.to_vec();
            self.key_is_fixed = true;
        }
        self
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
        self.columns.iter().any(Column::is_inferred)
    }

    /// Appends a row. After an error, and where [`Appended`] says so, the batch must be closed before the next one.
    pub(crate) fn append(&mut self, row: &Row<'_>) -> Result<Appended> {
        let (rows, bytes, columns) = (self.rows, self.bytes, self.columns.len());
        let outcome = self.try_append(row);
        if outcome.as_ref().is_err_and(Refusal::is_too_many_columns) {
            // Those that fitted are not worth more than the others: the next row would have no room for its own.
            self.forget_columns(columns);
        }
        if !matches!(outcome, Ok(Appended::Done)) {
            (self.rows, self.bytes) = (rows, bytes);
        }
        outcome.map_err(|refusal| self.refused(Some(row.id), refusal))
    }

    fn refused(&self, id: Option<i64>, refusal: Refusal) -> Error {
        let id = id.map_or_else(String::new, |id| format!(", buffer id {id}"));
        let column = refusal.column.map_or_else(String::new, |column| format!(", column {column}"));
        let kind = if refusal.configured { ErrorKind::Config } else { ErrorKind::Data };
        Error::new(kind, format!("stream {}{id}{column}: {}", self.stream, refusal.reason))
    }

    fn try_append(&mut self, row: &Row<'_>) -> Result<Appended, Refusal> {
        if !(row.known && self.known_is_current) && self.take_description(row)? == Appended::CloseFirst {
            return Ok(Appended::CloseFirst);
        }
        let before = row.before.map(utf8).transpose()?;
        let after = row.after.map(utf8).transpose()?;
        let wanted = Refusal::new("an INSERT or UPDATE without after_data");
        let appended = match row.operation.unwrap_or_default() {
            b"INSERT" => {
                let after = after.ok_or(wanted)?;
                self.check_key(Some(after))?;
                self.push(row, "INSERT", after, Lacking::Null)?
            }
            b"UPDATE" => {
                let (after, lacking) = (after.ok_or(wanted)?, Lacking::Unsent { before });
                self.check_key(Some(after))?;
                // Without the row before, nobody could say whether such a key has changed.
                self.check_key(before)?;
                match before {
                    Some(before) if self.key_changed(before, after)? => {
                        match self.push(row, "DELETE", before, Lacking::Unsent { before: None })? {
                            Appended::Done => self.push(row, "INSERT", after, lacking)?,
                            other => other,
                        }
                    }
                    _ => self.push(row, "UPDATE", after, lacking)?,
                }
            }
            b"DELETE" => {
                let key = if before.is_none() { self.key_of_metadata(row) } else { None };
                let gone = before
                    .or(key.as_deref())
                    .ok_or(Refusal::new("a DELETE with neither before_data nor metadata.key"))?;
                self.check_key(Some(gone))?;
                self.push(row, "DELETE", gone, Lacking::Unsent { before: None })?
            }
            b"TRUNCATE" => self.push(row, "TRUNCATE", "{}", Lacking::Null)?,
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
    fn push(
        &mut self,
        row: &Row<'_>,
        operation: &'static str,
        object: &str,
        lacking: Lacking<'_>,
    ) -> Result<Appended, Refusal> {
        let filled = self.fill(object, lacking)?;
        if filled != Appended::Done {
            return Ok(filled);
        }
        self.operations.append_value(operation);
        self.timestamps.append_option(row.event_time.or(row.created_at));
        match row.lsn {
            Some(lsn) => self.lsns.append_value(utf8(lsn)?),
            None => self.lsns.append_null(),
        }
        self.push_unchanged();
        self.rows += 1;
        // Values take about as much as their text; the reserved columns some thirty bytes.
        self.bytes += object.len() + 32;
        Ok(Appended::Done)
    }

    /// Notes what the row leaves out, and that it leaves nothing out where others did.
    fn push_unchanged(&mut self) {
        if self.left_out.is_empty() && self.unchanged.is_none() {
            return;
        }
        let (rows, current) = (self.rows, &mut self.current);
        let lists = self.unchanged.get_or_insert_with(|| {
            *current = None;
            let mut lists = ListBuilder::new(StringBuilder::new());
            (0..rows).for_each(|_| lists.append_null());
            lists
        });
        for column in &self.left_out {
            lists.values().append_value(&self.columns[*column].name);
        }
        lists.append(!self.left_out.is_empty());
        self.left_out.clear();
    }

    fn fill(&mut self, object: &str, lacking: Lacking<'_>) -> Result<Appended, Refusal> {
        self.left_out.clear();
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
            if let Lacking::Unsent { before } = lacking {
                self.leave_out(before)?;
            }
            for column in self.columns.iter_mut().filter(|column| column.len() == self.rows) {
                column.append_null();
            }
        }
        Ok(Appended::Done)
    }

    /// Takes what the row lacks from the row before, and notes what that lacks, too.
    fn leave_out(&mut self, before: Option<&str>) -> Result<(), Refusal> {
        let lacking = |column: &Column, rows| column.current && column.len() == rows;
        if let Some(before) = before {
            let mut scanner = Scanner::enter(before, b'{')?;
            while let Some(Entry::Other(key)) = scanner.entry(b"")? {
                let value = scanner.value()?;
                if let Some(column) = self.index.get(key.as_ref()).copied()
                    && lacking(&self.columns[column], self.rows)
                {
                    self.put(column, value)?;
                }
            }
        }
        let left_out = self.columns.iter().enumerate().filter(|(_, column)| lacking(column, self.rows));
        self.left_out.extend(left_out.map(|(at, _)| at));
        Ok(())
    }

    #[inline(always)]
    fn put(&mut self, column: usize, value: Value<'_>) -> Result<(), Refusal> {
        let column = &mut self.columns[column];
        if column.len() > self.rows {
            return Err(Refusal::new("the row has the key twice").of(&column.name));
        }
        // An inferred column may become wider.
        if column.is_inferred() {
            let before = column.told.kind.clone();
            column.append(value).map_err(|refusal| refusal.of(&column.name))?;
            if column.told.kind != before {
                self.current = None;
            }
            return Ok(());
        }
        column.append(value).map_err(|refusal| refusal.of(&column.name))
    }

    /// A key that is no column yet. One that is null does not become one: nothing tells its type.
    fn fill_unknown(&mut self, key: &str, value: Value<'_>) -> Result<Appended, Refusal> {
        self.unmet.remove(key);
        let description = match self.overrides.get(key) {
            Some(Override::Drop) => return Ok(Appended::Done),
            Some(Override::Type(kind, name)) => {
                Some(Description { source_type: Some(name.clone()), ..Description::inferred(kind.clone()) })
            }
            None => None,
        };
        if let Some(description) = description {
            self.add(key, description)?;
            self.put(self.columns.len() - 1, value)?;
            return Ok(Appended::Done);
        }
        if self.catalog && self.unknown.insert(key.to_owned()) {
            return Ok(Appended::TypesWanted);
        }
        let Some(kind) = infer::infer(value) else { return Ok(Appended::Done) };
        if !self.inferred_said {
            self.inferred_said = true;
            tracing::warn!(
                stream = %self.stream, column = key, as_type = ?kind,
                "types of columns are inferred from values, for this column and maybe others: neither metadata.columns nor types_from tells them"
            );
        }
        self.add(key, Description::inferred(kind))?;
        self.put(self.columns.len() - 1, value)?;
        Ok(Appended::Done)
    }

    fn key_changed(&self, before: &str, after: &str) -> Result<bool, Refusal> {
        if self.key.is_empty() {
            return Ok(false);
        }
        let (before, after) = (self.key_values(before)?, self.key_values(after)?);
        // A key column that the row before does not show has not changed.
        Ok(before.iter().zip(&after).any(|(before, after)| before.is_some() && before != after))
    }

    /// Refuses a row, as it was before or after a change, without a column that the configuration says identifies it.
    fn check_key(&self, object: Option<&str>) -> Result<(), Refusal> {
        if !self.key_is_fixed {
            return Ok(());
        }
        let values = match object {
            Some(object) => self.key_values(object)?,
            None => vec![None; self.key.len()],
        };
        let Some((name, _)) = self.key.iter().zip(&values).find(|(_, value)| value.is_none()) else { return Ok(()) };
        let unknown = self.relation.is_some() && !self.index.contains_key(name);
        let refusal = Refusal::new(if unknown {
            "`key` names it, and the table has no such column"
        } else {
            "`key` names it, and before_data or after_data of the row do not have it; allowed are columns that both have, as with \
             REPLICA IDENTITY FULL"
        });
        Err(Refusal { configured: unknown, ..refusal.of(name) })
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
        if let Some(lists) = &mut self.unchanged {
            arrays.push(Arc::new(lists.finish().slice(0, rows)));
        }
        if rows == 0 {
            return Ok(None);
        }
        self.warn_of_unmet();
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

    /// Says so once where the configuration names columns that the rows have not: one that is to be left out may be misspelt.
    fn warn_of_unmet(&mut self) {
        if self.unmet.is_empty() {
            return;
        }
        let mut columns: Vec<String> = self.unmet.drain().collect();
        columns.sort();
        let columns = columns.join(", ");
        tracing::warn!(stream = %self.stream, columns, "the configuration's `columns` names columns that the stream does not have");
    }

    /// The schema as it is now, and its id: a schema that comes back gets the id it had.
    pub(crate) fn schema(&mut self) -> (SchemaRef, u64) {
        if let Some((schema, id)) = &self.current {
            return (Arc::clone(schema), *id);
        }
        let mut fields: Vec<_> = self.columns.iter().map(Column::field).chain(reserved_fields()).collect();
        fields.extend(self.unchanged.is_some().then(unchanged_field));
        let known = self.key.iter().all(|name| self.index.contains_key(name));
        let key: &[String] = if known { &self.key } else { &[] };
        let mut metadata = HashMap::from([
            (META_STREAM.to_owned(), self.stream.to_string()),
            (META_KEY.to_owned(), serde_json::json!(key).to_string()),
        ]);
        metadata.extend(self.relation.clone().map(|relation| (META_RELATION.to_owned(), relation)));
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
