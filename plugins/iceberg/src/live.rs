//! Which files a table's metadata reaches.
//!
//! Files are told apart by their names alone, without their folders. That one folder can be spelt in many ways (`s3a:`, `file:/`,
//! a symbolic link, percent-encoding) then cannot make a live file look like one that nothing reaches. Writers put a UUID
//! into every name; where one does not, an orphan that is called as a live file stays.

use std::collections::HashSet;

use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use iceberg::TableIdent;
use iceberg::spec::{ManifestFile, SnapshotRef, TableMetadata};
use percent_encoding::percent_decode_str;
use philotes_sdk::{Error, Result};

use crate::base::read_manifest_list;
use crate::catalog::{Catalog, LoadedTable};
use crate::manifests;
use crate::table::ROUNDS;

/// Manifests and manifest lists read at a time.
const READ_AT_ONCE: usize = 8;
/// What this sink's properties begin with; a file that one of them mentions is in use.
const OWN_PROPERTIES: &str = "philotes.";

/// Where a manifest list or a manifest is, and what it names.
type Read<T> = (String, Vec<T>);

/// The files that were found to be in use, of every state of the table that was looked at.
#[derive(Debug, Default)]
pub(crate) struct Live {
    names: HashSet<String>,
    /// Manifest lists and manifests whose content is known already; neither ever changes.
    read: HashSet<String>,
    /// Values of properties that may mention files.
    mentions: Vec<String>,
}

impl Live {
    /// Adds what the table reaches as it is now, and gives back that state of it.
    ///
    /// # Errors
    /// What cannot be read: then it is not known what is in use.
    pub(crate) async fn reach(&mut self, catalog: &dyn Catalog, table: &TableIdent) -> Result<LoadedTable> {
        let mut loaded = catalog.load_table(table).await?;
        for _ in 0..ROUNDS {
            let Err(error) = self.add_all(&loaded).await else { return Ok(loaded) };
            // A snapshot may have expired while it was read, and its files be gone.
            let now = catalog.load_table(table).await?;
            if now.metadata_location == loaded.metadata_location {
                return Err(error.context(format!("table {table}: it cannot be seen which files are in use")));
            }
            loaded = now;
        }
        Err(Error::unavailable(format!("table {table} changes faster than it can be read")))
    }

    async fn add_all(&mut self, table: &LoadedTable) -> Result<()> {
        let metadata = &table.metadata;
        table.metadata_location.iter().for_each(|location| self.add(location));
        metadata.metadata_log().iter().for_each(|log| self.add(&log.metadata_file));
        metadata.statistics_iter().for_each(|file| self.add(&file.statistics_path));
        metadata.partition_statistics_iter().for_each(|file| self.add(&file.statistics_path));
        let own = metadata.properties().iter().filter(|(name, _)| name.starts_with(OWN_PROPERTIES));
        self.mentions = own.map(|(_, value)| value.clone()).chain(std::mem::take(&mut self.mentions)).collect();
        self.mentions.sort();
        self.mentions.dedup();

        let mut lists: Vec<BoxFuture<'_, Result<Read<ManifestFile>>>> = Vec::new();
        for snapshot in metadata.snapshots().filter(|snapshot| !self.read.contains(snapshot.manifest_list())) {
            lists.push(Box::pin(read_list(table, metadata, snapshot)));
        }
        let mut lists = futures::stream::iter(lists).buffer_unordered(READ_AT_ONCE);
        while let Some((list, listed)) = lists.try_next().await? {
            let mut manifests: Vec<BoxFuture<'_, Result<Read<String>>>> = Vec::new();
            for manifest in listed.into_iter().filter(|manifest| !self.read.contains(&manifest.manifest_path)) {
                manifests.push(Box::pin(read_manifest(table, manifest)));
            }
            let mut manifests = futures::stream::iter(manifests).buffer_unordered(READ_AT_ONCE);
            while let Some((manifest, files)) = manifests.try_next().await? {
                files.iter().for_each(|file| self.add(file));
                self.add(&manifest);
                self.read.insert(manifest);
            }
            self.add(&list);
            self.read.insert(list);
        }
        Ok(())
    }

    fn add(&mut self, location: &str) {
        for name in names(location) {
            self.names.insert(name);
        }
    }

    /// Adds files that these texts name.
    pub(crate) fn mention(&mut self, texts: impl IntoIterator<Item = String>) {
        self.mentions.extend(texts);
    }

    /// Whether a file is in use.
    pub(crate) fn holds(&self, location: &str) -> bool {
        let [raw, decoded] = names(location);
        // Hadoop's catalogs find the current metadata by it.
        raw.starts_with("version-hint")
            || self.mentions.iter().any(|text| text.contains(&raw) || text.contains(&decoded))
            || self.names.contains(&raw)
            || self.names.contains(&decoded)
    }
}

/// The file's name as it stands there, and without percent-encoding.
fn names(location: &str) -> [String; 2] {
    let raw = location.rsplit('/').next().unwrap_or(location);
    [raw.to_owned(), percent_decode_str(raw).decode_utf8_lossy().into_owned()]
}

async fn read_list(
    table: &LoadedTable,
    metadata: &TableMetadata,
    snapshot: &SnapshotRef,
) -> Result<Read<ManifestFile>> {
    let manifests = read_manifest_list(&table.files.io, metadata, snapshot).await?;
    Ok((snapshot.manifest_list().to_owned(), manifests))
}

/// The files that a manifest names, those it says are deleted included: an older snapshot may hold them.
async fn read_manifest(table: &LoadedTable, manifest: ManifestFile) -> Result<Read<String>> {
    let path = manifest.manifest_path.clone();
    let read = manifests::read(&table.files.io, &manifest).await?;
    Ok((path, read.entries.iter().map(|entry| entry.file_path().to_owned()).collect()))
}

/// Whether the metadata shows every snapshot that is left of the table's history. One that begins late, without anything
/// before it, was either put in place of an older table or is all that a catalog shows.
pub(crate) fn shows_its_history(metadata: &TableMetadata) -> bool {
    let oldest = metadata.snapshots().map(|snapshot| snapshot.sequence_number()).min();
    metadata.snapshots().all(|snapshot| {
        let number = snapshot.sequence_number();
        snapshot.parent_snapshot_id().is_some() || number <= 1 || oldest.is_some_and(|oldest| oldest < number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_file_is_known_however_its_location_is_spelt() {
        let mut live = Live::default();
        for location in ["s3a://lake/t/data/a b.parquet", "file:/w/t/data/c%20d.parquet", "/w/t/metadata/e.avro"] {
            live.add(location);
        }
        live.mentions.push(r#"{"files":["s3://lake/t/data/f.parquet"]}"#.into());
        for location in [
            "s3://lake/t/data/a b.parquet",
            "s3://lake/t/data/a%20b.parquet",
            "file:///w/t/data/c d.parquet",
            "file:///w/t/data/c%20d.parquet",
            "file:///elsewhere/e.avro",
            "s3://lake/t/data/f.parquet",
            "file:///w/t/metadata/version-hint.text",
        ] {
            assert!(live.holds(location), "{location}");
        }
        assert!(!live.holds("s3://lake/t/data/b.parquet"));
    }
}
