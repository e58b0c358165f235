//! The mark that the removal of orphan files leaves in a table before it removes any.
//!
//! What a task has written and not committed looks like orphans, and nobody else can tell how old it may be: the task may have
//! been paused for days. So the removal first commits an empty snapshot that sets this mark. The new head lets every
//! request fail that was made before, however late it arrives; and a task that finds another mark than when it read the
//! table first drops what it has, and has its rows read again, instead of committing files that may be gone. Whatever is
//! written after the mark is newer than the list of files that the removal goes by.

use std::collections::HashMap;

use iceberg::spec::TableMetadata;
use iceberg::{TableIdent, TableUpdate};
use philotes_sdk::{Error, Result};
use uuid::Uuid;

/// The table's property; its value is the id of the commit that set it.
const PROPERTY: &str = "philotes.orphans";

/// The update that sets the mark.
pub(crate) fn set(commit_id: Uuid) -> TableUpdate {
    TableUpdate::SetProperties { updates: HashMap::from([(PROPERTY.to_owned(), commit_id.to_string())]) }
}

/// Whether the table has the mark of this commit.
pub(crate) fn is_set(metadata: &TableMetadata, commit_id: Uuid) -> bool {
    metadata.properties().get(PROPERTY).is_some_and(|mark| *mark == commit_id.to_string())
}

/// Refuses to go on from one state of a table to another where orphan files were removed between them.
pub(crate) fn check(table: &TableIdent, from: &TableMetadata, to: &TableMetadata) -> Result<()> {
    if from.properties().get(PROPERTY) == to.properties().get(PROPERTY) {
        return Ok(());
    }
    Err(Error::fenced(format!(
        "table {table}: orphan files were removed meanwhile, and what this task has written may be among them"
    )))
}
