//! Lookups in real tables, with everything that other programs do to them.

pub(super) mod deleting;
mod evolving;
mod finding;
mod refusing;
mod rig;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use iceberg::spec::{
    FormatVersion, NestedField, NestedFieldRef, PartitionSpec, PartitionSpecRef, PrimitiveType, Schema, Struct,
    Transform, Type, UnboundPartitionSpec,
};
use philotes_sdk::{Error, Result};

use super::find;
use rig::{Rig, Waiting};

fn column(id: i32, name: &str, r#type: PrimitiveType) -> NestedFieldRef {
    Arc::new(NestedField::optional(id, name, Type::Primitive(r#type)))
}

fn schema(fields: impl IntoIterator<Item = NestedFieldRef>) -> Schema {
    Schema::builder().with_fields(fields).build().unwrap()
}

/// A partitioning by the values of one column.
fn by(source: i32, name: &str) -> UnboundPartitionSpec {
    UnboundPartitionSpec::builder().add_partition_field(source, name, Transform::Identity).unwrap().build()
}

fn nothing() -> UnboundPartitionSpec {
    UnboundPartitionSpec::builder().build()
}

fn rows<const N: usize>(columns: [(&str, ArrayRef); N]) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

fn longs(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn texts<T: AsRef<str>>(values: &[T]) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

/// Notes with an id, which is their key.
struct Notes(Rig);

const ID: i32 = 1;
const NOTE: i32 = 2;

impl Notes {
    fn new(version: FormatVersion) -> Self {
        let fields = [column(ID, "id", PrimitiveType::Long), column(NOTE, "note", PrimitiveType::String)];
        Self(Rig::new(schema(fields), nothing(), version))
    }

    fn of<T: AsRef<str>>(notes: &[(i64, T)]) -> RecordBatch {
        let ids: Vec<i64> = notes.iter().map(|(id, _)| *id).collect();
        let notes: Vec<&str> = notes.iter().map(|(_, note)| note.as_ref()).collect();
        rows([("id", longs(&ids)), ("note", texts(&notes))])
    }

    async fn data(&self, notes: &[(i64, &str)]) -> Vec<Waiting> {
        self.0.data(&Self::of(notes)).await
    }

    async fn deletes(&self, ids: &[i64]) -> Waiting {
        let spec = self.0.metadata.default_partition_spec().clone();
        self.0.equality(&[ID], &rows([("id", longs(ids))]), (&spec, Struct::empty())).await
    }

    /// What the sink commits: rows, and deletes of what there was of their keys.
    async fn upsert(&mut self, notes: &[(i64, &str)]) -> Vec<Waiting> {
        let ids: Vec<i64> = notes.iter().map(|(id, _)| *id).collect();
        let (data, deletes) = (self.data(notes).await, self.deletes(&ids).await);
        self.0.commit(data.clone(), vec![deletes], &[]).await;
        data
    }

    async fn find(&self, ids: &[i64]) -> Result<Vec<Option<String>>> {
        let found = find(&mut self.0.base(), &[ID], &rows([("id", longs(ids))]), &[NOTE]).await?;
        let notes = found.rows.column(0).as_string::<i32>();
        Ok(found.places.iter().map(|place| place.map(|row| notes.value(row).to_owned())).collect())
    }

    /// What is found of these keys, `-` where there is nothing.
    async fn found(&self, ids: &[i64]) -> String {
        let found = self.find(ids).await.unwrap();
        found.into_iter().map(|note| note.unwrap_or_else(|| "-".into())).collect::<Vec<_>>().join(" ")
    }

    async fn refused(&self, ids: &[i64]) -> Error {
        let error = self.find(ids).await.unwrap_err();
        assert_eq!(error.kind(), philotes_sdk::ErrorKind::Data, "{error}");
        error
    }
}

/// A specification of the table that has no partitions.
fn unpartitioned(rig: &mut Rig) -> PartitionSpecRef {
    let found = rig.metadata.partition_specs_iter().find(|spec| PartitionSpec::is_unpartitioned(spec)).cloned();
    found.unwrap_or_else(|| rig.add_spec(nothing(), false))
}
