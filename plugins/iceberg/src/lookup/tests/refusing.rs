//! What is not understood is refused where it may matter, and only there.

use iceberg::spec::{DataContentType, DataFile, DataFileBuilder, DataFileFormat};
use parquet::arrow::ArrowWriter;

use super::deleting::{SPARKS_VECTOR, bytes, positions, vector};
use super::*;

/// The same file, said to be of another format.
fn of_format(file: &Waiting, format: DataFileFormat) -> Waiting {
    let mut builder = DataFileBuilder::default();
    builder
        .content(file.file.content_type())
        .file_path(file.file.file_path().to_owned())
        .file_format(format)
        .partition_spec_id(0)
        .record_count(file.file.record_count())
        .file_size_in_bytes(file.file.file_size_in_bytes())
        .equality_ids(file.file.equality_ids())
        .lower_bounds(file.file.lower_bounds().clone())
        .upper_bounds(file.file.upper_bounds().clone());
    Waiting { file: builder.build().unwrap(), ..file.clone() }
}

fn assert_says(error: &Error, what: &[&str]) {
    let said = error.to_string();
    assert!(what.iter().all(|what| said.contains(what)), "{said}: {what:?}");
}

#[tokio::test]
async fn a_key_with_two_live_rows() {
    let mut notes = Notes::new(FormatVersion::V2);
    let data = [notes.data(&[(1, "a"), (2, "b")]).await, notes.data(&[(1, "c")]).await].concat();
    notes.0.commit(data.clone(), vec![], &[]).await;
    assert_eq!(notes.found(&[2]).await, "b");
    let error = notes.refused(&[1, 2]).await;
    assert_says(&error, &["(id)", data[0].file.file_path(), data[1].file.file_path()]);
    let twice = notes.data(&[(1, "d"), (1, "e")]).await;
    notes.0.commit(twice.clone(), vec![], &[]).await;
    assert_says(&notes.refused(&[1]).await, &[twice[0].file.file_path()]);
}

#[tokio::test]
async fn files_that_are_not_parquet() {
    let mut notes = Notes::new(FormatVersion::V2);
    let data = notes.data(&[(1, "a"), (5, "b")]).await;
    let orc = of_format(&notes.data(&[(10, "c"), (15, "d")]).await[0], DataFileFormat::Orc);
    notes.0.commit([data, vec![orc.clone()]].concat(), vec![], &[]).await;
    assert_eq!(notes.found(&[1, 3, 9, 16]).await, "a - - -");
    assert_says(&notes.refused(&[1, 12]).await, &[orc.file.file_path(), "orc", "allowed is parquet"]);

    let avro = of_format(&notes.deletes(&[2, 4]).await, DataFileFormat::Avro);
    notes.0.commit(vec![], vec![avro.clone()], &[]).await;
    assert_eq!(notes.found(&[1, 3, 5]).await, "a - b");
    notes.upsert(&[(3, "newer")]).await;
    assert_eq!(notes.found(&[3]).await, "newer");
    let older = notes.data(&[(2, "older")]).await;
    notes.0.commit(vec![Waiting { sequence: 1, ..older[0].clone() }], vec![], &[]).await;
    assert_says(&notes.refused(&[2]).await, &[avro.file.file_path(), "avro", "allowed is parquet"]);
}

#[tokio::test]
async fn equality_deletes_by_other_columns() {
    let mut notes = Notes::new(FormatVersion::V2);
    let spec = notes.0.metadata.default_partition_spec().clone();
    let by_note = notes.0.equality(&[NOTE], &rows([("note", texts(&["a"]))]), (&spec, Struct::empty())).await;
    notes.0.commit(vec![], vec![by_note], &[]).await;
    // They are older than all there is.
    notes.upsert(&[(1, "a"), (2, "b"), (3, "c")]).await;
    assert_eq!(notes.found(&[1, 2]).await, "a b");

    let both = rows([("id", longs(&[2])), ("note", texts(&["b"]))]);
    let by_both = notes.0.equality(&[ID, NOTE], &both, (&spec, Struct::empty())).await;
    notes.0.commit(vec![], vec![by_both.clone()], &[]).await;
    // Their bounds say which keys they may concern.
    assert_eq!(notes.found(&[1, 3]).await, "a c");
    let error = notes.refused(&[1, 2]).await;
    assert_says(&error, &[by_both.file.file_path(), "(id, note)", "by the key (id)"]);

    let by_note = notes.0.equality(&[NOTE], &rows([("note", texts(&["z"]))]), (&spec, Struct::empty())).await;
    notes.0.commit(vec![], vec![by_note.clone()], &[]).await;
    assert_says(&notes.refused(&[1]).await, &[by_note.file.file_path(), "(note)"]);
    assert_eq!(notes.found(&[9]).await, "-");
}

#[tokio::test]
async fn equality_deletes_by_a_part_of_the_key() {
    let fields = ["tenant", "id"].into_iter().zip(1..).map(|(name, id)| column(id, name, PrimitiveType::Long));
    let mut rig = Rig::new(schema(fields), nothing(), FormatVersion::V2);
    let data = rig.data(&rows([("tenant", longs(&[1, 2])), ("id", longs(&[1, 2]))])).await;
    rig.commit(data, vec![], &[]).await;
    let spec = rig.metadata.default_partition_spec().clone();
    let deletes = rig.equality(&[1], &rows([("tenant", longs(&[1]))]), (&spec, Struct::empty())).await;
    let path = deletes.file.file_path().to_owned();
    // The order in which a file says its columns says nothing.
    let both = rows([("id", longs(&[2])), ("tenant", longs(&[2]))]);
    let by_both = rig.equality(&[2, 1], &both, (&spec, Struct::empty())).await;
    rig.commit(vec![], vec![deletes, by_both], &[]).await;
    let key = |of: i64| rows([("tenant", longs(&[of])), ("id", longs(&[of]))]);
    assert_eq!(find(&mut rig.base(), &[1, 2], &key(2), &[2]).await.unwrap().places, [None]);
    let error = find(&mut rig.base(), &[1, 2], &key(1), &[2]).await.unwrap_err();
    assert_says(&error, &[&path, "columns (tenant)", "by the key (tenant, id)"]);
}

/// A Parquet file that no Iceberg writer has made.
fn foreign(rig: &Rig, name: &str, rows: &RecordBatch, content: DataContentType) -> DataFile {
    let path = rig.folder.path().join(name);
    let mut writer = ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), rows.schema(), None).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
    DataFileBuilder::default()
        .content(content)
        .file_path(format!("file://{}", path.display()))
        .file_format(DataFileFormat::Parquet)
        .partition_spec_id(0)
        .record_count(rows.num_rows() as u64)
        .file_size_in_bytes(std::fs::metadata(path).unwrap().len())
        .equality_ids((content == DataContentType::EqualityDeletes).then(|| vec![ID]))
        .build()
        .unwrap()
}

#[tokio::test]
async fn files_without_field_ids() {
    let mut notes = Notes::new(FormatVersion::V2);
    let spec = notes.0.metadata.default_partition_spec().clone();
    let file = foreign(&notes.0, "imported.parquet", &Notes::of(&[(1, "a")]), DataContentType::Data);
    let waiting = |file| Waiting { file, spec: spec.clone(), sequence: -1 };
    let imported = file.file_path().to_owned();
    notes.0.commit(vec![waiting(file)], vec![], &[]).await;
    assert_says(&notes.refused(&[1]).await, &["imported.parquet", "\"id\"", "field id"]);

    let mut others = Notes::new(FormatVersion::V2);
    others.upsert(&[(1, "a")]).await;
    let file = foreign(&others.0, "deletes.parquet", &rows([("id", longs(&[1]))]), DataContentType::EqualityDeletes);
    others.0.commit(vec![], vec![waiting(file)], &[]).await;
    assert_says(&others.refused(&[1]).await, &["deletes.parquet", "\"id\"", "field id"]);

    // Not read, it does no harm.
    notes.0.commit(vec![], vec![], &[imported]).await;
    assert_eq!(notes.found(&[1]).await, "-");
}

#[tokio::test]
async fn deletes_that_lack_what_they_are_by() {
    let mut notes = Notes::new(FormatVersion::V2);
    notes.upsert(&[(1, "a")]).await;
    let spec = notes.0.metadata.default_partition_spec().clone();
    let file =
        notes.0.plain(schema([column(NOTE, "note", PrimitiveType::String)]), &rows([("note", texts(&["a"]))])).await;
    let mut builder = rig::described(&file, DataContentType::EqualityDeletes, &spec, Struct::empty());
    let file = builder.equality_ids(Some(vec![ID])).build().unwrap();
    let path = file.file_path().to_owned();
    notes.0.commit(vec![], vec![Waiting { file, spec, sequence: -1 }], &[]).await;
    assert_says(&notes.refused(&[1]).await, &[&path, "\"id\" (field id 1)"]);
}

#[tokio::test]
async fn files_that_are_damaged() {
    let mut notes = Notes::new(FormatVersion::V3);
    let file = notes.data(&[(1, "a")]).await.remove(0);
    notes.0.commit(vec![file.clone()], vec![], &[]).await;
    let mut blob = bytes(SPARKS_VECTOR);
    blob[20] ^= 1;
    let deletes = vector(&notes.0, &file, &blob);
    let puffin = deletes.file.file_path().to_owned();
    notes.0.commit(vec![], vec![deletes], &[]).await;
    assert_says(&notes.refused(&[1]).await, &[&puffin, "at 4", "checksum"]);
    notes.0.commit(vec![], vec![], &[puffin]).await;

    let deletes = positions(&notes.0, &[(&file, 0)], None).await;
    let path = deletes.file.file_path().to_owned();
    std::fs::write(path.strip_prefix("file://").unwrap(), vec![0; 4096]).unwrap();
    notes.0.commit(vec![], vec![deletes], &[]).await;
    assert_says(&notes.refused(&[1]).await, &[&path, "cannot be read", "Parquet"]);
}
