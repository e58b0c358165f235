//! What rows are described by: the columns of their metadata, their key, and what the configuration says of columns.

use std::borrow::Cow;
use std::collections::HashMap;

use philotes_sdk::Result;
use philotes_sdk::batch::RESERVED_PREFIX;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::column::{Column, Description};
use super::column_type::{ColumnType, MAX_TYPE_NAME, ToldColumn};
use super::{Appended, Refusal, StreamDecoder, utf8};
use crate::copy::Row;

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow, default)]
    columns: Option<&'a RawValue>,
    /// What the columns' numbers belong to.
    #[serde(borrow, default)]
    relation: Option<Cow<'a, str>>,
    /// The key of a deleted row, as an object, where the row itself is not known.
    #[serde(borrow, default)]
    key: Option<&'a RawValue>,
}

/// What the configuration says of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Override {
    /// It is left out.
    Drop,
    /// It is read as this type, whose name is this.
    Type(ColumnType, String),
}

/// The overrides of one stream, by column.
pub(crate) type Overrides = HashMap<String, Override>;

/// How many columns a stream may have, and names a key. No database that is known allows more in a table, SQL Server's sparse
/// columns aside.
const MAX_COLUMNS: usize = 4096;
const TOO_MANY_COLUMNS: Refusal =
    Refusal::new("a column beyond the 4096 that a stream may have; `columns` can drop it, or others of the stream");

impl Refusal {
    pub(super) fn is_too_many_columns(&self) -> bool {
        self.reason == TOO_MANY_COLUMNS.reason
    }
}

/// Refuses what no database tells of its columns.
fn check_bounds(columns: &[ToldColumn]) -> Result<(), Refusal> {
    if let Some(column) = columns.get(MAX_COLUMNS) {
        return Err(TOO_MANY_COLUMNS.of(&column.name));
    }
    // Without a stack of calls: fields are told in fields.
    for column in columns {
        let mut left = vec![column];
        while let Some(next) = left.pop() {
            if next.type_name.len() > MAX_TYPE_NAME {
                return Err(Refusal::new("the name of its type is longer than the 1024 bytes that are allowed; `columns` can drop it or give it another type").of(&column.name));
            }
            left.extend(&next.fields);
        }
    }
    Ok(())
}

impl StreamDecoder {
    /// Takes in what the catalog says, with an empty batch; columns that it does not know will be inferred.
    pub(crate) fn tell(&mut self, columns: &[ToldColumn]) -> Result<()> {
        let unknown = std::mem::take(&mut self.unknown);
        self.unknown = unknown.into_iter().filter(|name| columns.iter().all(|column| column.name != *name)).collect();
        self.reconcile(columns, None).map(|_| ()).map_err(|refusal| self.refused(None, refusal))
    }

    /// Takes in the row's metadata and key columns, or those that are known where it does not send them.
    pub(super) fn take_description(&mut self, row: &Row<'_>) -> Result<Appended, Refusal> {
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
        let metadata = serde_json::from_str::<Metadata<'_>>(text).ok();
        let relation = metadata.as_ref().and_then(|metadata| metadata.relation.as_deref());
        let told = metadata.as_ref().and_then(|metadata| metadata.columns);
        if let Some(told) = told
            && (told.get() != self.told_text || relation != self.relation.as_deref())
        {
            let columns: Vec<ToldColumn> = serde_json::from_str(told.get())
                .map_err(|_| Refusal::new("metadata.columns is no array of {name, type, nullable}"))?;
            check_bounds(&columns)?;
            if self.reconcile(&columns, relation)? == Appended::CloseFirst {
                return Ok(Appended::CloseFirst);
            }
            told.get().clone_into(&mut self.told_text);
        }
        self.metadata = Some(text.to_owned());
        Ok(Appended::Done)
    }

    /// Makes the columns hold what was told. Where the source numbers its columns, those that are told are all there are;
    /// else they are what this row has of them.
    fn reconcile(&mut self, told: &[ToldColumn], relation: Option<&str>) -> Result<Appended, Refusal> {
        let relation = relation.filter(|_| !told.is_empty() && told.iter().all(|column| column.number.is_some()));
        match relation {
            Some(relation) => self.replace_columns(told, relation),
            None => self.merge_columns(told),
        }
    }

    /// Has exactly the columns that were told, in their order. A type stays as wide as it was for the same column.
    fn replace_columns(&mut self, told: &[ToldColumn], relation: &str) -> Result<Appended, Refusal> {
        let same_relation = self.relation.as_deref() == Some(relation);
        let mut next = Vec::with_capacity(told.len());
        for column in told {
            self.unmet.remove(&column.name);
            let Some(mut description) = self.describe(column) else { continue };
            description.number = column.number;
            let known = self.index.get(&column.name).map(|at| &self.columns[*at].told);
            if same_relation
                && let Some(known) = known.filter(|known| known.number == column.number)
                && let Some(wide) = known.kind.wider(&description.kind)
                && wide != description.kind
            {
                description.kind = wide;
                description.source_type.clone_from(&known.source_type);
            }
            next.push((&column.name, description));
        }
        let unchanged = same_relation
            && self.columns.len() == next.len()
            && self
                .columns
                .iter()
                .zip(&next)
                .all(|(column, (name, told))| column.name == **name && column.told == *told);
        if unchanged {
            return Ok(Appended::Done);
        }
        if self.rows > 0 {
            return Ok(Appended::CloseFirst);
        }
        self.columns.clear();
        self.index.clear();
        self.order.clear();
        for (name, description) in next {
            self.add(name, description)?;
        }
        self.relation = Some(relation.to_owned());
        self.current = None;
        Ok(Appended::Done)
    }

    /// Adds new columns, and widens types where both are held by one of them, else replaces them. A column that is not told
    /// stays, null from now on.
    fn merge_columns(&mut self, told: &[ToldColumn]) -> Result<Appended, Refusal> {
        let numbered = self.relation.is_some();
        let mut retold = Vec::new();
        for column in told {
            self.unmet.remove(&column.name);
            let Some(description) = self.describe(column) else { continue };
            let Some(at) = self.index.get(&column.name).copied() else { continue };
            let known = &self.columns[at];
            let wide = if known.is_inferred() { None } else { known.told.kind.wider(&description.kind) };
            match wide {
                Some(wide) if wide == known.told.kind => {}
                Some(wide) => retold.push((at, Description { kind: wide, ..description })),
                None => retold.push((at, description)),
            }
        }
        if (numbered || !retold.is_empty()) && self.rows > 0 {
            return Ok(Appended::CloseFirst);
        }
        for (at, description) in retold {
            self.columns[at].retell(description);
            self.current = None;
        }
        if numbered {
            self.relation = None;
            self.columns.iter_mut().for_each(|column| column.told.number = None);
            self.current = None;
        }
        for column in &mut self.columns {
            column.current = column.is_inferred() || told.iter().any(|told| told.name == column.name);
        }
        for column in told {
            if !self.index.contains_key(&column.name)
                && let Some(description) = self.describe(column)
            {
                self.add(&column.name, description)?;
            }
        }
        Ok(Appended::Done)
    }

    /// What a told column is, after the configuration; `None` where it is left out.
    fn describe(&self, column: &ToldColumn) -> Option<Description> {
        let told = ColumnType::told(column);
        let (kind, source_type) = match self.overrides.get(&column.name) {
            Some(Override::Drop) => return None,
            Some(Override::Type(kind, name)) => (told.read_as(kind), name),
            None => (told, &column.type_name),
        };
        let comment = column.comment.clone();
        Some(Description { kind, source_type: Some(source_type.clone()), number: None, comment })
    }

    /// Adds a column behind those there are.
    pub(super) fn add(&mut self, name: &str, description: Description) -> Result<(), Refusal> {
        if name.starts_with(RESERVED_PREFIX) {
            return Err(Refusal::new("names that begin with _cdc_ are reserved; `columns` can drop it").of(name));
        }
        if self.columns.len() >= MAX_COLUMNS {
            return Err(TOO_MANY_COLUMNS.of(name));
        }
        self.index.insert(name.to_owned(), self.columns.len());
        self.columns.push(Column::new(name, description, self.rows));
        self.current = None;
        Ok(())
    }

    /// Forgets the columns behind the first `count`.
    pub(super) fn forget_columns(&mut self, count: usize) {
        for column in self.columns.drain(count.min(self.columns.len())..) {
            self.index.remove(&column.name);
        }
        self.order.clear();
        self.current = None;
    }

    fn take_key(&mut self, text: &[u8]) -> Result<Appended, Refusal> {
        if self.key_is_fixed {
            self.key_text = text.to_vec();
            return Ok(Appended::Done);
        }
        if self.key_text == text {
            return Ok(Appended::Done);
        }
        let key: Vec<String> = match text {
            b"" | b"null" => Vec::new(),
            text => serde_json::from_slice(text).map_err(|_| Refusal::new("key_columns is no array of names"))?,
        };
        if key.len() > MAX_COLUMNS {
            return Err(Refusal::new(
                "key_columns has more than the 4096 names that are allowed; the configuration's `key` can name them",
            ));
        }
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
    pub(super) fn key_of_metadata(&self, row: &Row<'_>) -> Option<String> {
        let told = match &self.known {
            Some((metadata, _)) if row.known => metadata.is_some(),
            _ => row.metadata.is_some(),
        };
        let metadata = self.metadata.as_deref().filter(|_| told)?;
        let key = serde_json::from_str::<Metadata<'_>>(metadata).ok().and_then(|metadata| metadata.key);
        key.map(|key| key.get().to_owned())
    }
}
