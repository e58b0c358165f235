//! The state of a table that the next commit builds on.

use std::sync::Arc;

use iceberg::io::FileIO;
use iceberg::spec::{ManifestContentType, ManifestFile, ManifestList, SnapshotRef, TableMetadata, TableMetadataRef};
use philotes_sdk::Result;

use crate::catalog::LoadedTable;
use crate::error::from_iceberg;
use crate::lineage;
use crate::manifests;

/// A table at one moment, with its current snapshot's manifests once they were needed.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    pub(crate) metadata: TableMetadataRef,
    pub(crate) files: FileIO,
    /// The manifests of the current snapshot. Kept from commit to commit, which saves reading a file in each.
    manifests: Option<Arc<Vec<ManifestFile>>>,
}

impl Base {
    pub(crate) fn new(loaded: LoadedTable) -> Self {
        Self { metadata: loaded.metadata, files: loaded.files.io, manifests: None }
    }

    /// The same, where the current snapshot is known to be one of these manifests.
    pub(crate) fn with_manifests(mut self, manifests: Arc<Vec<ManifestFile>>) -> Self {
        self.manifests = Some(manifests);
        self
    }

    /// The current snapshot; `None` in a table nothing was committed to.
    pub(crate) fn head(&self) -> Option<&SnapshotRef> {
        lineage::head(&self.metadata)
    }

    /// The manifests of the current snapshot.
    pub(crate) async fn manifests(&mut self) -> Result<Arc<Vec<ManifestFile>>> {
        if let Some(manifests) = &self.manifests {
            return Ok(manifests.clone());
        }
        let manifests = Arc::new(match self.head() {
            Some(head) => read_manifest_list(&self.files, &self.metadata, head).await?,
            None => Vec::new(),
        });
        self.manifests = Some(manifests.clone());
        Ok(manifests)
    }

    /// Whether no data file is part of the table.
    pub(crate) async fn is_empty(&mut self) -> Result<bool> {
        let manifests = self.manifests().await?;
        Ok(!manifests.iter().any(|m| m.content == ManifestContentType::Data && manifests::is_alive(m)))
    }

    /// Whether delete files are part of the table that may apply to rows of it.
    pub(crate) async fn has_deletes(&mut self) -> Result<bool> {
        let listed = self.manifests().await?;
        let least = manifests::least_data_sequence(&listed);
        let mut deletes = listed.iter().filter(|m| m.content == ManifestContentType::Deletes && manifests::is_alive(m));
        Ok(deletes.any(|manifest| !manifests::may_dangle(manifest, least)))
    }
}

/// Reads a snapshot's manifest list.
pub(crate) async fn read_manifest_list(
    files: &FileIO,
    metadata: &TableMetadata,
    snapshot: &SnapshotRef,
) -> Result<Vec<ManifestFile>> {
    let failed = |e| from_iceberg(format!("cannot read the manifest list of snapshot {}", snapshot.snapshot_id()), e);
    let bytes = files.new_input(snapshot.manifest_list()).map_err(failed)?.read().await.map_err(failed)?;
    // All of it is in memory at once.
    let bytes = manifests::bounded(&bytes, manifests::Content::List)
        .map_err(|e| e.context(format!("the manifest list {}", snapshot.manifest_list())))?;
    let list = ManifestList::parse_with_version(&bytes, metadata.format_version()).map_err(failed)?;
    Ok(list.consume_entries().into_iter().collect())
}
