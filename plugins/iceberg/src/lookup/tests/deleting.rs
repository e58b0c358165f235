//! What is dead: equality deletes, position deletes and deletion vectors, and what they apply to.

use iceberg::metadata_columns::{RESERVED_FIELD_ID_DELETE_FILE_PATH, RESERVED_FIELD_ID_DELETE_FILE_POS};
use iceberg::spec::{DataContentType, DataFileBuilder, DataFileFormat, Literal};

use super::*;

/// What Spark 3.5 with Iceberg 1.10.1 wrote for `DELETE … WHERE id IN (0, 3, 65535, 65536, 131072, 199999)` into a table with the
/// ids from 0 to 199999 in their order.
pub(in crate::lookup) const SPARKS_VECTOR: &str = "00000044d1d339640100000000000000000000003a3000000400000000000200010000000200000003000000\
    280000002e000000300000003200000000000300ffff000000003f0d57b8a329";

pub(in crate::lookup) fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Position deletes of these rows; `of` names the one file that they are in.
pub(super) async fn positions(rig: &Rig, places: &[(&Waiting, i64)], of: Option<&Waiting>) -> Waiting {
    let fields = [
        column(RESERVED_FIELD_ID_DELETE_FILE_PATH, "file_path", PrimitiveType::String),
        column(RESERVED_FIELD_ID_DELETE_FILE_POS, "pos", PrimitiveType::Long),
    ];
    let paths: Vec<&str> = places.iter().map(|(file, _)| file.file.file_path()).collect();
    let at: Vec<i64> = places.iter().map(|(_, position)| *position).collect();
    let file = rig.plain(schema(fields), &rows([("file_path", texts(&paths)), ("pos", longs(&at))])).await;
    let (spec, partition) = (places[0].0.spec.clone(), places[0].0.file.partition().clone());
    let mut builder = rig::described(&file, DataContentType::PositionDeletes, &spec, partition);
    builder.referenced_data_file(of.map(|of| of.file.file_path().to_owned()));
    Waiting { file: builder.build().unwrap(), spec, sequence: -1 }
}

/// A deletion vector of a file.
pub(super) fn vector(rig: &Rig, of: &Waiting, blob: &[u8]) -> Waiting {
    let path = rig.folder.path().join("deletes.puffin");
    // What is around it is never looked at: the manifest says where it is.
    std::fs::write(&path, [b"PFA1", blob, b"and more"].concat()).unwrap();
    let file = DataFileBuilder::default()
        .content(DataContentType::PositionDeletes)
        .file_path(format!("file://{}", path.display()))
        .file_format(DataFileFormat::Puffin)
        .partition(of.file.partition().clone())
        .partition_spec_id(of.spec.spec_id())
        .record_count(6)
        .file_size_in_bytes(blob.len() as u64 + 12)
        .referenced_data_file(Some(of.file.file_path().to_owned()))
        .content_offset(Some(4))
        .content_size_in_bytes(Some(i64::try_from(blob.len()).unwrap()))
        .build()
        .unwrap();
    Waiting { file, spec: of.spec.clone(), sequence: -1 }
}

#[tokio::test]
async fn equality_deletes_reach_what_is_older_than_they_are() {
    let mut notes = Notes::new(FormatVersion::V2);
    notes.upsert(&[(1, "a"), (2, "b")]).await;
    let deletes = notes.deletes(&[1]).await;
    notes.0.commit(vec![], vec![deletes], &[]).await;
    assert_eq!(notes.found(&[1, 2]).await, "- b");
    // The same commit's own rows live.
    notes.upsert(&[(1, "again")]).await;
    assert_eq!(notes.found(&[1, 2]).await, "again b");
    let deletes = notes.deletes(&[2, 1, 77]).await;
    notes.0.commit(vec![], vec![deletes], &[]).await;
    assert_eq!(notes.found(&[1, 2]).await, "- -");
}

#[tokio::test]
async fn a_newer_row_that_is_dead_hides_the_older_ones() {
    let mut notes = Notes::new(FormatVersion::V2);
    let older = notes.data(&[(1, "old"), (2, "kept")]).await;
    let gone = notes.data(&[(3, "gone")]).await[0].clone();
    notes.0.commit([older, vec![gone.clone()]].concat(), vec![], &[]).await;
    // It takes longer to look through, and is to count first.
    let many: Vec<(i64, &str)> = (1000..100_000).map(|id| (id, "other")).chain([(1, "new")]).collect();
    let newer = notes.data(&many).await;
    // Nothing deletes the older one, because it cannot be there any more.
    notes.0.commit(newer.clone(), vec![], &[]).await;
    let deletes = positions(&notes.0, &[(&newer[0], 99_000)], None).await;
    notes.0.commit(vec![], vec![deletes], &[]).await;
    assert_eq!(notes.found(&[1, 2, 1000]).await, "- kept other");
    // The older one stands in the newest manifest, the newer one among many before it.
    for id in 10..20 {
        notes.upsert(&[(id, "x")]).await;
    }
    notes.0.commit(vec![], vec![], &[gone.file.file_path().to_owned()]).await;
    assert_eq!(notes.found(&[1, 2, 3, 1000]).await, "- kept - other");
}

/// A table of which another partitioning, or none, was in force before.
struct Parts {
    rig: Rig,
    row: Waiting,
}

impl Parts {
    /// A row with the id 1 in the partition 7.
    async fn new(part: PrimitiveType, value: ArrayRef) -> Self {
        let fields =
            [column(1, "id", PrimitiveType::Long), column(2, "part", part), column(3, "note", PrimitiveType::String)];
        let mut rig = Rig::new(schema(fields), by(2, "part"), FormatVersion::V2);
        let data = rig.data(&rows([("id", longs(&[1])), ("part", value), ("note", texts(&["a"]))])).await;
        let row = data[0].clone();
        rig.commit(data, vec![], &[]).await;
        Self { rig, row }
    }

    async fn deleted(&mut self, spec: &PartitionSpecRef, partition: Struct) -> bool {
        let deletes = self.rig.equality(&[1], &rows([("id", longs(&[1]))]), (spec, partition)).await;
        let path = deletes.file.file_path().to_owned();
        self.rig.commit(vec![], vec![deletes], &[]).await;
        let found = find(&mut self.rig.base(), &[1], &rows([("id", longs(&[1]))]), &[3]).await.unwrap();
        self.rig.commit(vec![], vec![], &[path]).await;
        found.places[0].is_none()
    }
}

#[tokio::test]
async fn equality_deletes_reach_their_partition_or_without_one_all() {
    let mut parts = Parts::new(PrimitiveType::Int, Arc::new(arrow::array::Int32Array::from(vec![7]))).await;
    let spec = parts.row.spec.clone();
    let value = |value| Struct::from_iter([Some(Literal::int(value))]);
    assert!(parts.deleted(&spec, value(7)).await);
    assert!(!parts.deleted(&spec, value(8)).await);
    assert!(!parts.deleted(&spec, Struct::from_iter([None])).await);
    let other = parts.rig.add_spec(by(1, "by_id"), false);
    assert!(!parts.deleted(&other, Struct::from_iter([Some(Literal::long(7))])).await);
    let global = unpartitioned(&mut parts.rig);
    assert!(parts.deleted(&global, Struct::empty()).await);

    // The column that partitions are made of is wider now, and so is what manifests say of it.
    let fields = [
        column(1, "id", PrimitiveType::Long),
        column(2, "part", PrimitiveType::Long),
        column(3, "note", PrimitiveType::String),
    ];
    parts.rig.alter(schema(fields));
    assert!(parts.deleted(&spec, Struct::from_iter([Some(Literal::long(7))])).await);
    assert!(!parts.deleted(&spec, Struct::from_iter([Some(Literal::long(8))])).await);
}

#[tokio::test]
async fn an_unpartitioned_tables_deletes_reach_rows_of_a_partitioned_past() {
    let mut parts = Parts::new(PrimitiveType::String, texts(&["x"])).await;
    // A partitioning whose fields are all void is none.
    let spec = UnboundPartitionSpec::builder().add_partition_field(2, "part_null", Transform::Void).unwrap().build();
    let void = parts.rig.add_spec(spec, true);
    assert!(parts.deleted(&void, Struct::from_iter([None])).await);
}

#[tokio::test]
async fn position_deletes_reach_rows_of_the_files_they_name() {
    let mut notes = Notes::new(FormatVersion::V2);
    let one = notes.data(&[(1, "a"), (2, "b"), (3, "c")]).await.remove(0);
    let other = notes.data(&[(11, "A"), (12, "B"), (13, "C")]).await.remove(0);
    notes.0.commit(vec![one.clone(), other.clone()], vec![], &[]).await;
    let deletes = positions(&notes.0, &[(&one, 1), (&one, 700), (&other, 2)], None).await;
    notes.0.commit(vec![], vec![deletes], &[]).await;
    assert_eq!(notes.found(&[1, 2, 3, 11, 12, 13]).await, "a - c A B -");
    let deletes = positions(&notes.0, &[(&one, 0)], Some(&one)).await;
    notes.0.commit(vec![], vec![deletes], &[]).await;
    assert_eq!(notes.found(&[1, 2, 3, 11, 12, 13]).await, "- - c A B -");
    // Of an earlier commit they do not count, of the same one they do.
    for of_one in [false, true] {
        let new = notes.data(&[(21, "x"), (22, "y")]).await.remove(0);
        let of = of_one.then_some(&new);
        let mut earlier = positions(&notes.0, &[(&new, 0)], of).await;
        earlier.sequence = 1;
        let same = positions(&notes.0, &[(&new, 1)], of).await;
        notes.0.commit(vec![new], vec![earlier, same], &[]).await;
        assert_eq!(notes.found(&[21, 22]).await, "x -");
    }
}

#[tokio::test]
async fn a_commit_that_wrote_a_key_twice_has_deleted_all_but_one() {
    let mut notes = Notes::new(FormatVersion::V2);
    notes.upsert(&[(1, "old")]).await;
    let data = [notes.data(&[(1, "a"), (2, "b"), (1, "c")]).await, notes.data(&[(1, "d")]).await].concat();
    let deletes = notes.deletes(&[1, 2]).await;
    let own = positions(&notes.0, &[(&data[0], 0), (&data[0], 2)], None).await;
    notes.0.commit(data.clone(), vec![deletes, own], &[]).await;
    assert_eq!(notes.found(&[1, 2]).await, "d b");
}

#[tokio::test]
async fn a_deletion_vector_of_sparks_reaches_the_rows_of_its_file() {
    let mut notes = Notes::new(FormatVersion::V3);
    let ids: Vec<(i64, &str)> = (0..200_000).map(|id| (id, "x")).collect();
    let file = notes.data(&ids).await.remove(0);
    let other = notes.data(&[(1_000_000, "other")]).await.remove(0);
    notes.0.commit(vec![file.clone(), other], vec![], &[]).await;
    let deletes = vector(&notes.0, &file, &bytes(SPARKS_VECTOR));
    notes.0.commit(vec![], vec![deletes], &[]).await;
    let deleted = [0, 3, 65_535, 65_536, 131_072, 199_999];
    assert_eq!(notes.found(&deleted).await, "- - - - - -");
    assert_eq!(notes.found(&[1, 2, 4, 65_534, 65_537, 131_071, 199_998]).await, "x x x x x x x");
    assert_eq!(notes.found(&[1_000_000]).await, "other");
}

#[tokio::test]
async fn after_a_compaction_rows_are_as_old_as_it_was_when_it_began() {
    let mut notes = Notes::new(FormatVersion::V2);
    let mut gone = Vec::new();
    for (id, note) in [(1, "a"), (2, "b"), (3, "c")] {
        gone.extend(notes.upsert(&[(id, note)]).await);
    }
    let began = notes.0.metadata.last_sequence_number();
    // While it runs, one row is written anew and another deleted.
    notes.upsert(&[(1, "new")]).await;
    let deletes = notes.deletes(&[2]).await;
    notes.0.commit(vec![], vec![deletes], &[]).await;
    let mut compacted = notes.data(&[(1, "a"), (2, "b"), (3, "c")]).await;
    compacted[0].sequence = began;
    let gone: Vec<String> = gone.iter().map(|file| file.file.file_path().to_owned()).collect();
    gone.iter().for_each(|path| std::fs::remove_file(path.strip_prefix("file://").unwrap()).unwrap());
    notes.0.commit(compacted, vec![], &gone).await;
    assert_eq!(notes.found(&[1, 2, 3]).await, "new - c");
    notes.upsert(&[(3, "C"), (2, "B")]).await;
    assert_eq!(notes.found(&[1, 2, 3]).await, "new B C");
}
