//! The table of dead letters: made when it is first needed, and appended to exactly once per intent.

use std::collections::BTreeMap;

use iceberg::TableIdent;
use iceberg::spec::{DataContentType, DataFileBuilder, DataFileFormat, PartitionSpecRef, TableMetadata};
use philotes_sdk::{Error, Result, failpoint};
use uuid::Uuid;

use super::intent::{self, Appended, Intent, LetterFile};
use super::letter::{self, Letter};
use crate::base::Base;
use crate::catalog::{CatalogErrorKind, LoadedTable};
use crate::manifests::AddedFile;
use crate::schema::Projection;
use crate::snapshot::{self, Changes};
use crate::storage;
use crate::table::{Making, ROUNDS, Settings, check_format, create_table};
use crate::writer::{TableWriter, WriterTarget};

/// The table whose commits carry the intents.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Main<'a> {
    pub(crate) name: &'a TableIdent,
    pub(crate) uuid: Uuid,
}

/// Stores letters in files of their table, and gives back the intent to add them: the next one after `last`.
///
/// # Errors
/// Unavailable: nothing is lost. Config and Data: the table cannot hold letters.
pub(crate) async fn store(
    settings: &Settings,
    main: Main<'_>,
    last: Option<&Intent>,
    letters: &[Letter],
) -> Result<Intent> {
    let wrong = |e: Error| e.context(format!("table of dead letters {}", settings.dead_letters));
    let loaded = load_or_create(settings).await.map_err(wrong)?;
    let metadata = &loaded.metadata;
    // Should the property of the stream's table be gone, its numbers must not be given a second time.
    let appended = intent::appended(metadata, settings.connector(), main)?;
    let (number, from) = (
        last.map_or(0, |last| last.number).max(appended.number) + 1,
        last.map_or(0, |last| last.upto).max(appended.upto),
    );
    let rows = letter::to_rows(settings.connector(), main, from, letters)?;
    let target =
        WriterTarget { spec: unpartitioned(&settings.dead_letters, metadata)?, ..WriterTarget::current(metadata) };
    let rows = Projection::new(&target.schema, &rows.schema()).and_then(|p| p.project(&rows)).map_err(wrong)?;
    let mut writer = TableWriter::new(loaded.files.io.clone(), target, settings.writer)?;
    writer.write(&rows).await.map_err(wrong)?;
    let files = writer.finish().await.map_err(wrong)?.into_iter().map(|file| LetterFile {
        path: file.file_path().to_owned(),
        bytes: file.file_size_in_bytes(),
        rows: file.record_count(),
    });
    let upto = from + letters.len() as u64;
    let table = settings.dead_letters.clone();
    let intent = Intent { number, from, upto, table, table_uuid: metadata.uuid(), files: files.collect() };
    failpoint!("letters.stored", |message| Error::unavailable(message));
    Ok(intent)
}

/// Completes an intent: sees to it that its files are in the table of dead letters, once.
///
/// # Errors
/// Unavailable: it is not known to be completed, and can be asked for again.
pub(crate) async fn append(settings: &Settings, main: Main<'_>, intent: &Intent) -> Result<()> {
    let (name, connector) = (&intent.table, settings.connector());
    // The tables of a task would only get into each other's way.
    let mut expiry = settings.appending.lock().await;
    let mut last = None;
    for _ in 0..ROUNDS {
        let loaded = match settings.catalog.load_table(name).await {
            Ok(loaded) => Some(loaded).filter(|loaded| loaded.metadata.uuid() == intent.table_uuid),
            Err(error) if error.kind() == CatalogErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let Some(loaded) = loaded else {
            warn_gone(main, intent);
            return Ok(());
        };
        if intent::appended(&loaded.metadata, connector, main)?.number >= intent.number {
            return Ok(());
        }
        check_format(name, &loaded.metadata)?;
        let files = added(&loaded.metadata, intent)?;
        let mut base = Base::new(loaded);
        let changes = Changes {
            connector,
            files: &files,
            empties: false,
            offsets: &BTreeMap::new(),
            properties: &Appended { number: intent.number, upto: intent.upto }.property(connector, main)?,
            forget: &expiry.done(),
        };
        let (request, attempt) = snapshot::propose(&mut base, changes).await?;
        let proposed: Result<()> = async {
            failpoint!("letters.unsent", |message| Error::unavailable(message));
            Ok(())
        }
        .await;
        if let Err(error) = proposed {
            storage::discard(&base.files, attempt.locations).await;
            return Err(error);
        }
        let answer = settings.catalog.commit_table(name, request).await;
        failpoint!("letters.appended", |message| Error::unavailable(message));
        match answer {
            Ok(loaded) if intent::appended(&loaded.metadata, connector, main)?.number >= intent.number => {
                let rows = intent.upto - intent.from;
                tracing::info!(table = %name, of = %main.name, rows, number = intent.number, "appended dead letters");
                let catalog = settings.catalog.as_ref();
                expiry.tend(catalog, name, connector, settings.retention, &loaded.metadata).await;
                return Ok(());
            }
            // Looked at again: the number tells whether it has been appended, by whomever.
            Ok(_) => {}
            Err(error) if error.calls_for_a_look() => {
                tracing::debug!(table = %name, commit = %attempt.commit_id, %error, "looking for the dead letters");
                last = Some(error);
            }
            Err(error) => {
                if error.never_left() {
                    storage::discard(&base.files, attempt.locations).await;
                }
                return Err(error.into());
            }
        }
    }
    let error = Error::unavailable(format!("table {name}: none of {ROUNDS} commits of dead letters came about"));
    Err(match last {
        Some(last) => error.with_source(last),
        None => error,
    })
}

/// Removes the files of letters that no request has ever named.
pub(crate) async fn remove(settings: &Settings, intent: &Intent) {
    let loaded = match settings.catalog.load_table(&intent.table).await {
        Ok(loaded) if loaded.metadata.uuid() == intent.table_uuid => loaded,
        _ => return,
    };
    storage::discard(&loaded.files.io, intent.files.iter().map(|file| file.path.clone())).await;
}

/// The table was dropped or replaced, by somebody who is done with its letters or did not know of these.
fn warn_gone(main: Main<'_>, intent: &Intent) {
    let files: Vec<&str> = intent.files.iter().map(|file| file.path.as_str()).collect();
    tracing::warn!(
        table = %intent.table, of = %main.name, number = intent.number, rows = intent.upto - intent.from,
        files = files.join(", "),
        "the table of dead letters was dropped or replaced; unless they had been in it before, the last letters are in these files only"
    );
}

async fn load_or_create(settings: &Settings) -> Result<LoadedTable> {
    let name = &settings.dead_letters;
    let loaded = match settings.catalog.load_table(name).await {
        Ok(loaded) => loaded,
        Err(error) if error.kind() == CatalogErrorKind::NotFound => {
            // Of version 2 whatever the others are: others may delete from it, and the actions read no deletion vectors.
            match create_table(settings.catalog.as_ref(), name, &Making::plain(), (&letter::schema(), None)).await? {
                Some(created) => created,
                None => settings.catalog.load_table(name).await?,
            }
        }
        Err(error) => return Err(error.into()),
    };
    check_format(name, &loaded.metadata)?;
    Ok(loaded)
}

/// The specification that letters are written with, whatever the table has become since.
fn unpartitioned(name: &TableIdent, metadata: &TableMetadata) -> Result<PartitionSpecRef> {
    let default = metadata.default_partition_spec();
    let mut specs = std::iter::once(default).chain(metadata.partition_specs_iter());
    specs.find(|spec| spec.is_unpartitioned()).cloned().ok_or_else(|| {
        Error::config(format!("table {name} has always been partitioned; dead letters need one that was not made so"))
    })
}

fn added(metadata: &TableMetadata, intent: &Intent) -> Result<Vec<AddedFile>> {
    let spec = unpartitioned(&intent.table, metadata)?;
    let added = |file: &LetterFile| {
        let described = DataFileBuilder::default()
            .content(DataContentType::Data)
            .file_path(file.path.clone())
            .file_format(DataFileFormat::Parquet)
            .partition_spec_id(spec.spec_id())
            .record_count(file.rows)
            .file_size_in_bytes(file.bytes)
            .build()
            .map_err(|e| Error::internal("a file with dead letters cannot be described").with_source(e))?;
        Ok(AddedFile { file: described, schema: metadata.current_schema().clone(), spec: spec.clone() })
    };
    intent.files.iter().map(added).collect()
}
