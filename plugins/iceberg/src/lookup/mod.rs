//! Placeholder.
use crate::base::Base;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use iceberg::spec::DataFile;
use philotes_sdk::{Error, Result};
/// What was found of the rows with some keys.
pub(crate) struct Found {
    pub(crate) rows: RecordBatch,
    pub(crate) places: Vec<Option<usize>>,
}
pub(crate) async fn find(_base: &mut Base, _key: &[i32], _keys: &RecordBatch, _columns: &[i32]) -> Result<Found> {
    Err(Error::internal("not here"))
}
pub(crate) async fn keys_of(
    _base: &Base,
    _file: &DataFile,
    _key: &[i32],
    _schema: SchemaRef,
    _each: impl FnMut(&RecordBatch) -> Result<()>,
) -> Result<()> {
    Err(Error::internal("not here"))
}
