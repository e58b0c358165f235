//! All values of some columns of a file, dead rows included.

use arrow::array::RecordBatch;
use iceberg::spec::DataFile;
use philotes_sdk::{Error, Result};

use super::columns::Columns;
use super::entries;
use super::input::Inputs;
use crate::base::Base;

/// Hands out the values of the key's columns in a data file, a piece at a time, in the table's current types.
///
/// # Errors
/// Data: the file is none that can be read for this. Unavailable and others: what reading it reports, and what `each` does.
pub(crate) async fn keys_of(
    base: &Base,
    file: &DataFile,
    key: &[i32],
    mut each: impl FnMut(&RecordBatch) -> Result<()>,
) -> Result<()> {
    let columns = Columns::of(base.metadata.current_schema(), key)?;
    let inputs = Inputs::new(&base.files);
    let file = entries::file(file);
    let mut pieces = inputs.open(&file, &columns).await?.read(None).await?;
    while let Some((_, arrays)) = pieces.next().await? {
        let keys = RecordBatch::try_new(columns.schema().clone(), arrays);
        each(&keys.map_err(|e| Error::data(format!("{} has no whole keys", file.path)).with_source(e))?)?;
    }
    Ok(())
}
