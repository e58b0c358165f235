//! Which of the rows that were found are dead: named by a delete file that applies to them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use iceberg::metadata_columns::{RESERVED_FIELD_ID_DELETE_FILE_PATH, RESERVED_FIELD_ID_DELETE_FILE_POS};
use iceberg::spec::{ManifestContentType, ManifestFile, NestedField, PrimitiveType, Schema, Type};
use philotes_sdk::{Error, Result};

use super::columns::Columns;
use super::entries::{self, DataEntry, DeleteEntry, Deletes};
use super::input::Inputs;
use super::keys::Keys;
use super::{Candidate, READ_AT_ONCE, names, vector};
use crate::base::Base;
use crate::error::from_iceberg;
use crate::storage::MAX_WHOLE_BYTES;

/// For each candidate, whether it is dead. They come by their keys.
pub(super) async fn dead(
    base: &Base,
    inputs: &Inputs<'_>,
    manifests: &[ManifestFile],
    keys: &Keys,
    files: &[DataEntry],
    candidates: &[Candidate],
) -> Result<Vec<bool>> {
    let mut dead = vec![false; candidates.len()];
    let Some(oldest) = files.iter().map(|file| file.sequence).min() else { return Ok(dead) };
    let manifests: Vec<&ManifestFile> = manifests
        .iter()
        .filter(|m| m.content == ManifestContentType::Deletes && (m.has_added_files() || m.has_existing_files()))
        .filter(|manifest| manifest.sequence_number >= oldest)
        .collect();
    let found = Rows::new(base, inputs, keys, files, candidates)?;
    let may_matter = |entry: &DeleteEntry| found.may_hold(entry);
    let entries = entries::deletes(inputs.files, &base.metadata, &manifests, keys, may_matter).await?;
    let mut reads: Vec<BoxFuture<'_, Result<Vec<usize>>>> = Vec::with_capacity(entries.len());
    for entry in &entries {
        reads.push(Box::pin(found.named_by(entry)));
    }
    let mut reads = futures::stream::iter(reads).buffer_unordered(READ_AT_ONCE);
    while let Some(named) = reads.try_next().await? {
        named.into_iter().for_each(|candidate| dead[candidate] = true);
    }
    Ok(dead)
}

/// The rows that were found, by all that delete files name rows by.
struct Rows<'a> {
    base: &'a Base,
    inputs: &'a Inputs<'a>,
    keys: &'a Keys,
    files: &'a [DataEntry],
    candidates: &'a [Candidate],
    /// Where the candidates of each key begin, and where the last ones end.
    starts: Vec<usize>,
    by_path: HashMap<&'a str, HashMap<u64, usize>>,
    /// The columns of files of position deletes.
    positions: Columns,
}

impl<'a> Rows<'a> {
    fn new(
        base: &'a Base,
        inputs: &'a Inputs<'a>,
        keys: &'a Keys,
        files: &'a [DataEntry],
        candidates: &'a [Candidate],
    ) -> Result<Self> {
        let starts = (0..=keys.len()).map(|key| candidates.partition_point(|candidate| candidate.key < key));
        let mut by_path: HashMap<&str, HashMap<u64, usize>> = HashMap::new();
        for (number, candidate) in candidates.iter().enumerate() {
            by_path.entry(&files[candidate.file].file.path).or_default().insert(candidate.position, number);
        }
        let field = |id, name: &str, r#type| Arc::new(NestedField::required(id, name, Type::Primitive(r#type)));
        let (path, position) = (RESERVED_FIELD_ID_DELETE_FILE_PATH, RESERVED_FIELD_ID_DELETE_FILE_POS);
        let fields = [field(path, "file_path", PrimitiveType::String), field(position, "pos", PrimitiveType::Long)];
        let schema = Schema::builder().with_fields(fields).build();
        let schema = schema.map_err(|e| Error::internal("position deletes have no schema").with_source(e))?;
        let positions = Columns::of(&schema, &[path, position])?;
        Ok(Self { base, inputs, keys, files, candidates, starts: starts.collect(), by_path, positions })
    }

    fn file_of(&self, candidate: usize) -> &DataEntry {
        &self.files[self.candidates[candidate].file]
    }

    /// The candidates with this key that a delete file applies to.
    fn with_key(&self, key: usize, entry: &DeleteEntry) -> impl Iterator<Item = usize> {
        (self.starts[key]..self.starts[key + 1]).filter(|candidate| entry.applies_to(self.file_of(*candidate)))
    }

    /// Whether a delete file may name one of the rows, by what its manifest says.
    fn may_hold(&self, entry: &DeleteEntry) -> bool {
        match &entry.deletes {
            Deletes::Equality { bounds, .. } => {
                self.keys.any_within(bounds, |key| self.with_key(key, entry).next().is_some())
            }
            Deletes::Positions { .. } | Deletes::Vector { .. } => self.files.iter().any(|file| entry.applies_to(file)),
        }
    }

    /// The rows that a delete file names.
    async fn named_by(&self, entry: &DeleteEntry) -> Result<Vec<usize>> {
        let named = match &entry.deletes {
            Deletes::Equality { ids, .. } => {
                self.check_columns(entry, ids)?;
                self.by_equality(entry).await
            }
            Deletes::Positions { .. } => self.by_position(entry).await,
            Deletes::Vector { path, offset, bytes } => self.by_vector(entry, path, *offset, *bytes).await,
        };
        named.map_err(|e| e.context("cannot tell which rows are deleted"))
    }

    /// Refuses equality deletes by other columns than the key's.
    fn check_columns(&self, entry: &DeleteEntry, ids: &[i32]) -> Result<()> {
        let key: Vec<i32> = self.keys.columns().fields().iter().map(|field| field.id).collect();
        if ids.len() == key.len() && ids.iter().all(|id| key.contains(id)) {
            return Ok(());
        }
        let schema = self.base.metadata.current_schema();
        Err(Error::data(format!(
            "the delete file {} deletes rows by the columns ({}), perhaps some that are looked up by their key; allowed are \
             equality deletes by the key ({}), position deletes and deletion vectors; compacting the table away from that file helps",
            entry.file.path,
            names(schema, ids),
            names(schema, &key)
        )))
    }

    async fn by_equality(&self, entry: &DeleteEntry) -> Result<Vec<usize>> {
        let mut named = Vec::new();
        let open = self.inputs.open(&entry.file, self.keys.columns()).await?;
        open.check_columns()?;
        let mut pieces = open.read(None).await?;
        while let Some((_, columns)) = pieces.next().await? {
            let keys = self.keys.numbers(&columns)?.into_iter().flatten();
            named.extend(keys.flat_map(|key| self.with_key(key, entry)));
        }
        Ok(named)
    }

    async fn by_position(&self, entry: &DeleteEntry) -> Result<Vec<usize>> {
        let mut named = Vec::new();
        let open = self.inputs.open(&entry.file, &self.positions).await?;
        open.check_columns()?;
        let mut pieces = open.read(None).await?;
        while let Some((_, columns)) = pieces.next().await? {
            let (paths, positions) = (columns[0].as_string::<i32>(), columns[1].as_primitive::<Int64Type>());
            for (path, position) in paths.iter().zip(positions) {
                let rows = path.and_then(|path| self.by_path.get(path));
                let row = rows.zip(position).and_then(|(rows, row)| rows.get(&u64::try_from(row).ok()?));
                named.extend(row.copied().filter(|row| entry.applies_to(self.file_of(*row))));
            }
        }
        Ok(named)
    }

    async fn by_vector(&self, entry: &DeleteEntry, path: &str, offset: u64, bytes: u64) -> Result<Vec<usize>> {
        let failed = |e| from_iceberg(format!("cannot read {}", entry.file.path), e);
        let reader = self.inputs.files.new_input(&entry.file.path).map_err(failed)?.reader().await.map_err(failed)?;
        let end = offset.checked_add(bytes).filter(|_| bytes <= MAX_WHOLE_BYTES);
        let end = end.ok_or_else(|| {
            Error::data(format!(
                "the deletion vector at {offset} of {} has {bytes} bytes; allowed are {} MiB",
                entry.file.path,
                MAX_WHOLE_BYTES >> 20
            ))
        })?;
        let blob = reader.read(offset..end).await.map_err(failed)?;
        let deleted = vector::parse(&blob).map_err(|e| e.context(format!("{} at {offset}", entry.file.path)))?;
        let rows = self.by_path.get(path).into_iter().flatten();
        Ok(rows.filter(|(position, _)| deleted.contains(**position)).map(|(_, row)| *row).collect())
    }
}
