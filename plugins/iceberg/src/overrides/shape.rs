//! Leaves columns out and gives them their names.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use philotes_sdk::batch::{META_KEY, RESERVED_PREFIX, UNCHANGED};
use philotes_sdk::{ChangeBatch, Error, Result};

use super::rules::{Columns, Rule};

/// Field metadata: the name that a column came with, where it has another one here.
const META_ORIGINAL: &str = "philotes.column";

/// The name that a column came with.
pub(crate) fn original(field: &Field) -> &str {
    field.metadata().get(META_ORIGINAL).map_or(field.name(), String::as_str)
}

impl Columns {
    /// Columns that are named here and that such batches do not have.
    pub(crate) fn unknown(&self, schema: &Schema) -> Vec<&str> {
        let had: HashSet<&str> = schema.fields().iter().map(|field| original(field)).collect();
        self.0.keys().map(String::as_str).filter(|column| !had.contains(column)).collect()
    }

    /// The schema of shaped batches, and which of their columns are left.
    pub(crate) fn shape_schema(&self, schema: &Schema) -> Result<(Schema, Vec<usize>)> {
        let mut kept = Vec::new();
        let mut fields: Vec<FieldRef> = Vec::new();
        let mut names: HashMap<&str, Option<&str>> = HashMap::new();
        for (index, field) in schema.fields().iter().enumerate() {
            match self.0.get(original(field)) {
                Some(Rule::Drop) => {
                    names.insert(field.name(), None);
                    continue;
                }
                Some(Rule::Keep { name: Some(name), .. }) if name != field.name() => {
                    let mut metadata = field.metadata().clone();
                    metadata.insert(META_ORIGINAL.to_owned(), original(field).to_owned());
                    names.insert(field.name(), Some(name));
                    fields.push(Arc::new(field.as_ref().clone().with_name(name).with_metadata(metadata)));
                }
                _ => fields.push(field.clone()),
            }
            kept.push(index);
        }
        let mut metadata = schema.metadata().clone();
        if !names.is_empty() && metadata.contains_key(META_KEY) {
            let key = ChangeBatch::key_columns(schema)?;
            let key: Vec<&str> =
                key.iter().filter_map(|name| *names.get(name.as_str()).unwrap_or(&Some(name))).collect();
            let key =
                serde_json::to_string(&key).map_err(|e| Error::internal("a key does not serialise").with_source(e))?;
            metadata.insert(META_KEY.to_owned(), key);
        }
        Ok((Schema::new_with_metadata(fields, metadata), kept))
    }

    /// The rows without the columns that are dropped, the others under their names.
    pub(crate) fn shape(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let (schema, kept) = self.shape_schema(&rows.schema())?;
        let mut columns: Vec<ArrayRef> = kept.iter().map(|index| rows.column(*index).clone()).collect();
        if let Ok(index) = schema.index_of(UNCHANGED) {
            columns[index] = self.rename_in(&columns[index], &rows.schema())?;
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(Arc::new(schema), columns, &options)
            .map_err(|e| Error::internal("a batch without some of its columns is none").with_source(e))
    }

    /// The lists of columns that were not sent, under the names that these have here.
    fn rename_in(&self, lists: &ArrayRef, schema: &Schema) -> Result<ArrayRef> {
        let other = || Error::data(format!("column {UNCHANGED}: it must be a list of utf8, not {}", lists.data_type()));
        let lists_of = lists.as_list_opt::<i32>().ok_or_else(other)?;
        let values = lists_of.values().as_string_opt::<i32>().ok_or_else(other)?;
        let shaped: HashSet<&str> =
            schema.fields().iter().filter(|f| original(f) != f.name()).map(|f| f.name().as_str()).collect();
        let told = |name: &str| match self.0.get(name) {
            // A batch that was shaped before has the names in its lists already.
            Some(_) if shaped.contains(name) => Some(name.to_owned()),
            Some(Rule::Drop) => None,
            Some(Rule::Keep { name: Some(new), .. }) => Some(new.clone()),
            _ => Some(name.to_owned()),
        };
        let (mut names, mut lengths): (Vec<Option<String>>, Vec<usize>) = (Vec::new(), Vec::new());
        for row in 0..lists_of.len() {
            let before = names.len();
            if lists_of.is_valid(row) {
                let range = lists_of.value_offsets()[row]..lists_of.value_offsets()[row + 1];
                for at in range.filter_map(|at| usize::try_from(at).ok()) {
                    let name = values.is_valid(at).then(|| values.value(at)).and_then(told);
                    names.extend(name.map(Some));
                }
            }
            lengths.push(names.len() - before);
        }
        let DataType::List(element) = lists.data_type() else { return Err(other()) };
        let nulls: Option<NullBuffer> = lists_of.nulls().cloned();
        let values = Arc::new(names.into_iter().collect::<StringArray>());
        let renamed = ListArray::try_new(element.clone(), OffsetBuffer::from_lengths(lengths), values, nulls);
        Ok(Arc::new(
            renamed.map_err(|e| Error::internal("a list of columns under their names is none").with_source(e))?,
        ))
    }
}

/// Whether the column belongs to the row itself, and not to what is told about it.
pub(super) fn is_own(field: &Field) -> bool {
    !field.name().starts_with(RESERVED_PREFIX)
}
