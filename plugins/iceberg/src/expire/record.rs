//! What an expiry says of itself, in the table, and what it turns out to have done.
//!
//! A request sets the record and removes the snapshots at once, so that there is no moment at which only one of them is known. Each
//! record has a name of its own: nobody can assert a property, and one name for all would be overwritten.

use std::fmt;
use std::sync::Arc;

use iceberg::TableIdent;
use iceberg::spec::{MAIN_BRANCH, SnapshotReference, TableMetadata, TableMetadataRef};
use philotes_sdk::{Error, Result};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::clean::Removed;
use super::{gc_enabled, references};
use crate::catalog::{LoadedTable, unpacked};
use crate::error::from_iceberg;

/// What a record's property begins with; the request's id follows.
const PREFIX: &str = "philotes.expiry.";
/// More metadata files than this are not read to find the one that a request replaced.
const MAX_READ: usize = 100;

/// What a request removes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Record {
    /// The metadata file that it was planned on, where the catalog says so.
    pub(crate) planned_on: Option<String>,
    pub(crate) snapshots: Vec<i64>,
}

impl Record {
    /// The table's property: name and value.
    pub(super) fn property(&self, request: Uuid) -> Result<(String, String)> {
        let value = serde_json::to_string(self);
        let value = value.map_err(|e| Error::internal("a record of an expiry does not serialise").with_source(e))?;
        Ok((format!("{PREFIX}{request}"), value))
    }
}

/// The records in a table, each with its property's name; `None` where somebody has changed it so that it cannot be read.
pub(crate) fn records(metadata: &TableMetadata) -> impl Iterator<Item = (&str, Option<Record>)> {
    let ours = metadata.properties().iter().filter(|(name, _)| name.starts_with(PREFIX));
    ours.map(|(name, value)| (name.as_str(), serde_json::from_str(value).ok()))
}

/// What a record turned out to be about.
#[derive(Debug)]
pub(crate) struct Found {
    /// The record's property.
    pub(crate) name: String,
    /// The metadata file that the request was planned on.
    planned_on: Option<String>,
    pub(crate) snapshots: Vec<i64>,
    pub(crate) verdict: Verdict,
}

/// Whether anything was removed that should not have been.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Nothing was. These snapshots were removed by this very request.
    Harmless(Removed),
    /// The metadata that the request replaced forbade it.
    Forbidden {
        /// The refs that were dropped with their snapshots.
        refs: Vec<(String, SnapshotReference)>,
        gc_off: bool,
        /// That metadata, and the file that holds it.
        replaced: TableMetadataRef,
        file: String,
    },
    /// It cannot be seen, because of this.
    Unseen(String),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, id) = (self.snapshots.len(), self.id());
        match &self.verdict {
            Verdict::Harmless(removed) => {
                write!(f, "expiry {id} removed {} snapshots, which nothing held", removed.len())
            }
            Verdict::Forbidden { refs, gc_off, file, .. } => {
                write!(f, "expiry {id} removed")?;
                let named =
                    refs.iter().map(|(name, reference)| format!("snapshot {} of {name:?}", reference.snapshot_id));
                let named: Vec<_> = named.collect();
                match &named[..] {
                    [] => write!(f, " {count} snapshots")?,
                    named => write!(f, " {}, made just before,", named.join(" and "))?,
                }
                if *gc_off {
                    write!(f, " although gc.enabled=false had just been set,")?;
                }
                write!(f, " which the catalog let happen: see the metadata file {file}. Their files are kept")
            }
            Verdict::Unseen(why) => {
                let planned = self.planned_on.as_ref().map(|file| format!(" (planned on {file})")).unwrap_or_default();
                write!(
                    f,
                    "expiry {id} removed {count} snapshots{planned}, and it cannot be seen whether a tag or branch named one of them: \
                     {why}. Their files are kept"
                )
            }
        }
    }
}

impl Found {
    pub(crate) fn id(&self) -> &str {
        self.name.strip_prefix(PREFIX).unwrap_or(&self.name)
    }

    /// What an operator can do.
    pub(crate) fn way_out(&self, table: &TableIdent) -> String {
        format!(
            "put back what is wanted, as the metadata file says; then the sink's action `expiries table={table} release={}` says that \
             the files of the rest may go",
            self.id()
        )
    }
}

/// Looks what a record was about. `planned_on` is a state of the table that is at hand.
///
/// # Errors
/// A metadata file cannot be read just now.
pub(super) async fn look(
    name: &str,
    record: Option<Record>,
    loaded: &LoadedTable,
    planned_on: Option<&LoadedTable>,
) -> Result<Found> {
    let (name, mut found) = (name.to_owned(), Verdict::Unseen(format!("the table property {name} was changed")));
    let Some(Record { planned_on: planned, snapshots }) = record else {
        return Ok(Found { name, planned_on: None, snapshots: Vec::new(), verdict: found });
    };
    found = match replaced(&name, loaded, planned_on).await? {
        Ok((replaced, file)) => judge(&snapshots, replaced, file)?,
        Err(why) => Verdict::Unseen(why),
    };
    Ok(Found { name, planned_on: planned, snapshots, verdict: found })
}

/// The metadata that a record's request replaced: the newest that does not have the record; or why there is none.
async fn replaced(
    name: &str,
    loaded: &LoadedTable,
    planned_on: Option<&LoadedTable>,
) -> Result<Result<(TableMetadataRef, String), String>> {
    let log = loaded.metadata.metadata_log();
    if log.is_empty() {
        return Ok(Err("the catalog does not show the table's metadata log".to_owned()));
    }
    for entry in log.iter().rev().take(MAX_READ) {
        let file = &entry.metadata_file;
        let at_hand = planned_on.filter(|planned| planned.metadata_location.as_ref() == Some(file));
        let metadata = match at_hand {
            Some(planned) => planned.metadata.clone(),
            None => match read(loaded, file).await? {
                Ok(metadata) => metadata,
                Err(why) => return Ok(Err(why)),
            },
        };
        if !metadata.properties().contains_key(name) {
            return Ok(Ok((metadata, file.clone())));
        }
    }
    Ok(Err("the table's metadata log does not go back so far any more".to_owned()))
}

/// Reads a metadata file; or why it cannot ever be.
async fn read(loaded: &LoadedTable, file: &str) -> Result<Result<TableMetadataRef, String>> {
    let failed = |e| from_iceberg(format!("cannot read the metadata file {file}"), e);
    let input = loaded.files.io.new_input(file).map_err(failed)?;
    let bytes = match input.read().await {
        Ok(bytes) => bytes,
        Err(error) => {
            return match input.exists().await {
                Ok(false) => Ok(Err(format!("the metadata file {file} is gone"))),
                _ => Err(failed(error)),
            };
        }
    };
    let json = match unpacked(&bytes) {
        Ok(json) => json,
        Err(error) => return Ok(Err(format!("the metadata file {file} cannot be unpacked: {error}"))),
    };
    match serde_json::from_slice::<TableMetadata>(&json) {
        Ok(metadata) => Ok(Ok(Arc::new(metadata))),
        Err(error) => Ok(Err(format!("the metadata file {file} cannot be read: {error}"))),
    }
}

fn judge(snapshots: &[i64], replaced: TableMetadataRef, file: String) -> Result<Verdict> {
    // What another request had removed by then is that one's matter.
    let removed = Removed::of(&replaced, snapshots);
    if removed.is_empty() {
        return Ok(Verdict::Harmless(removed));
    }
    let dropped = |(name, reference): &(String, SnapshotReference)| {
        name != MAIN_BRANCH && removed.contains(reference.snapshot_id)
    };
    let mut refs: Vec<_> = references(&replaced)?.into_iter().filter(dropped).collect();
    refs.sort_by(|(one, _), (other, _)| one.cmp(other));
    let gc_off = !gc_enabled(&replaced);
    if refs.is_empty() && !gc_off {
        return Ok(Verdict::Harmless(removed));
    }
    Ok(Verdict::Forbidden { refs, gc_off, replaced, file })
}
