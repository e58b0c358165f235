//! Tables that are created, found and altered.

use iceberg::spec::{
    FormatVersion, NestedField, PrimitiveType, Schema as IcebergSchema, Transform, Type, UnboundPartitionSpec,
};
use iceberg::{NamespaceIdent, TableCreation, TableUpdate};
use philotes_sdk::{ErrorKind, Sink};

use super::faulty::Fault;
use super::*;

pub(super) fn names(metadata: &iceberg::spec::TableMetadata) -> Vec<String> {
    metadata.current_schema().as_struct().fields().iter().map(|field| field.name.clone()).collect()
}

/// A table of another program's making.
pub(super) async fn foreign_table(lake: &Lake, fields: Vec<NestedField>, version: FormatVersion) {
    let catalog = lake.catalog().await;
    let namespace = NamespaceIdent::new("cdc".into());
    catalog.create_namespace(&namespace).await.unwrap();
    let schema = IcebergSchema::builder().with_fields(fields.into_iter().map(Arc::new)).build().unwrap();
    let creation = TableCreation::builder().name("public_orders".into()).schema(schema).format_version(version).build();
    catalog.create_table(&namespace, creation).await.unwrap();
}

pub(super) fn optional(id: i32, name: &str, r#type: PrimitiveType) -> NestedField {
    NestedField::optional(id, name, Type::Primitive(r#type))
}

#[tokio::test]
async fn a_table_is_created_at_its_first_row_partitioned_as_configured() {
    let mut lake = Lake::new();
    lake.config.table = "lake.{schema}.{table}".into();
    lake.config.partition_by = vec!["day(_cdc_timestamp) as date".into()];
    let (mut sink, _) = lake.announced().await;
    assert!(lake.catalog().await.list_namespaces().await.unwrap().is_empty());
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    let table = lake.load("lake.public.orders").await.metadata;
    assert_eq!(names(&table), ["id", "_cdc_operation", "_cdc_timestamp", "_cdc_lsn"]);
    let fields = table.default_partition_spec().fields();
    assert_eq!((fields[0].name.as_str(), fields[0].transform), ("date", Transform::Day));
    assert_eq!(table.format_version(), FormatVersion::V2);
    assert_eq!(table.properties()["write.metadata.delete-after-commit.enabled"], "true");
    assert_eq!(lake.rows("lake.public.orders").await, [(1, None)]);
    let data = table.location().strip_prefix("file://").unwrap().to_owned() + "/data";
    let partitions: Vec<_> = std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(partitions, ["date=2026-01-24"]);
}

#[tokio::test]
async fn a_partition_field_that_cannot_be_is_refused_before_anything_is_written() {
    let mut lake = Lake::new();
    lake.config.partition_by = vec!["day(created_at)".into()];
    let (mut sink, _) = lake.announced().await;
    assert_eq!(sink.write(&row(1)).await.unwrap_err().kind(), ErrorKind::Config);
    assert!(lake.catalog().await.list_namespaces().await.unwrap().is_empty());
    assert_eq!(outcome(&sink.flush().await.unwrap()), outcome(&Flushed::default()));
}

#[tokio::test]
async fn several_streams_are_committed_in_one_flush() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.faulty().await;
    let streams: Vec<_> = (0..20).map(|n| stream(&format!("t{n}"))).collect();
    assert_eq!(sink.offsets(&streams).await.unwrap(), vec![None; 20]);
    for (at, n) in streams.iter().zip(0..) {
        sink.write(&rows(at.clone(), &[n], None)).await.unwrap();
    }
    catalog.script([Fault::Unavailable]);
    let (durable, failed) = outcome(&sink.flush().await.unwrap());
    assert_eq!((durable.len(), failed), (19, vec![ErrorKind::Unavailable]));
    let (durable, failed) = outcome(&sink.flush().await.unwrap());
    assert_eq!((durable.len(), failed.len()), (1, 0));
    for n in 0..20 {
        assert_eq!(lake.rows(&format!("cdc.public_t{n}")).await, [(n, None)]);
    }
}

#[tokio::test]
async fn two_streams_into_one_table_are_a_data_error_whatever_their_case() {
    let mut lake = Lake::new();
    lake.config.table = "cdc.{table}".into();
    let (mut sink, _) = lake.announced().await;
    let other = StreamPartition::only(StreamName::new(["private", "Orders"]).unwrap());
    let error = sink.offsets(&[other]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains("public.orders") && error.to_string().contains("private.Orders"), "{error}");
}

#[tokio::test]
async fn rows_before_their_announcement_are_a_bug() {
    let lake = Lake::new();
    let (mut sink, _) = lake.announced().await;
    let error = sink.write(&rows(stream("other"), &[1], None)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    let other = StreamPartition { partition: "1".into(), ..orders() };
    assert_eq!(sink.write(&rows(other, &[1], None)).await.unwrap_err().kind(), ErrorKind::Internal);
}

#[tokio::test]
async fn a_new_column_is_added_before_the_rows_that_have_it() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    sink.write(&row(1)).await.unwrap();
    sink.write(&rows(orders(), &[2], Some("new"))).await.unwrap();
    sink.write(&row(3)).await.unwrap();
    let flushed = sink.flush().await.unwrap();
    assert_durable(&flushed, 3);
    let expected = [(1, None), (2, Some("new".to_owned())), (3, None)];
    assert_eq!(lake.rows(ORDERS).await, expected);
    let metadata = lake.metadata().await;
    assert_eq!(names(&metadata), ["id", "_cdc_operation", "_cdc_timestamp", "_cdc_lsn", "note"]);
    // One commit for the column, one for all the rows, in one manifest per schema they were written with.
    assert_eq!(catalog.requests().len(), 2);
    assert_eq!((flushed.commits.len(), flushed.commits[0].files), (1, 2));
    assert_eq!(Base::new(lake.load(ORDERS).await).manifests().await.unwrap().len(), 2);
}

#[tokio::test]
async fn altering_survives_lost_replies_and_foreign_alterations() {
    for fault in [Fault::LostReply, Fault::AppliedButConflict, Fault::Swallowed] {
        let lake = Lake::new();
        let (mut sink, catalog) = lake.announced().await;
        assert_durable(&commit(&mut sink, &[1]).await, 1);
        catalog.script([fault]);
        sink.write(&rows(orders(), &[2], Some("new"))).await.unwrap();
        assert_durable(&sink.flush().await.unwrap(), 2);
        assert_eq!(names(&*lake.metadata().await).iter().filter(|name| *name == "note").count(), 1);
        assert_eq!(lake.rows(ORDERS).await, [(1, None), (2, Some("new".to_owned()))]);
    }
}

/// A base adopted while altering: duplicates, were the tokens not compared then.
#[tokio::test]
async fn altering_compares_the_tokens() {
    let lake = Lake::new();
    let (mut first, _) = lake.announced().await;
    assert_durable(&commit(&mut first, &[1]).await, 1);
    let (mut second, _) = lake.announced().await;
    assert_durable(&commit(&mut second, &[2]).await, 2);
    let error = first.write(&rows(orders(), &[2], Some("new"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert_eq!(lake.ids().await, [1, 2]);
}

#[tokio::test]
async fn a_foreign_alteration_does_not_invalidate_rows_under_way() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    sink.write(&row(2)).await.unwrap();
    // Another program adds a column, and partitions by the id from now on.
    let metadata = lake.metadata().await;
    let mut fields = metadata.current_schema().as_struct().fields().to_vec();
    fields.push(optional(9, "extra", PrimitiveType::String).into());
    let schema = IcebergSchema::builder().with_fields(fields).build().unwrap();
    let spec = UnboundPartitionSpec::builder().add_partition_field(1, "bucket", Transform::Bucket(4)).unwrap().build();
    let updates = vec![
        TableUpdate::AddSchema { schema },
        TableUpdate::SetCurrentSchema { schema_id: -1 },
        TableUpdate::AddSpec { spec },
        TableUpdate::SetDefaultSpec { spec_id: -1 },
    ];
    foreign::apply(&catalog.inner, updates).await;
    assert_durable(&sink.flush().await.unwrap(), 2);
    // What comes next is written as the table now is.
    assert_durable(&commit(&mut sink, &[3, 4]).await, 4);
    assert_eq!(lake.ids().await, [1, 2, 3, 4]);
    let mut base = Base::new(lake.load(ORDERS).await);
    let specs: Vec<_> = base.manifests().await.unwrap().iter().map(|m| m.partition_spec_id).collect();
    assert_eq!(specs.iter().filter(|id| **id == 1).count(), 1, "{specs:?}");
    assert_eq!(specs.len(), 3);
}

#[tokio::test]
async fn a_foreign_table_is_written_to_as_it_is() {
    let lake = Lake::new();
    let fields = vec![optional(1, "note", PrimitiveType::String), optional(2, "id", PrimitiveType::Long)];
    foreign_table(&lake, fields, FormatVersion::V2).await;
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    assert_eq!(names(&*lake.metadata().await), ["note", "id", "_cdc_operation", "_cdc_timestamp", "_cdc_lsn"]);
    assert_eq!(lake.ids().await, [1]);
}

#[tokio::test]
async fn tables_of_version_1_are_refused() {
    let lake = Lake::new();
    foreign_table(&lake, vec![optional(1, "id", PrimitiveType::Long)], FormatVersion::V1).await;
    let (mut sink, _) = lake.faulty().await;
    let error = sink.offsets(&[orders()]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("has format version 1; allowed are 2 and 3"), "{error}");
}

#[tokio::test]
async fn a_column_that_cannot_become_what_comes_is_a_data_error() {
    let lake = Lake::new();
    foreign_table(&lake, vec![optional(1, "id", PrimitiveType::String)], FormatVersion::V2).await;
    let (mut sink, _) = lake.announced().await;
    let error = sink.write(&row(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains("public.orders") && error.to_string().contains("\"id\""), "{error}");
    // The batch is as if it had never been given.
    assert_eq!(outcome(&sink.flush().await.unwrap()), outcome(&Flushed::default()));
}

#[tokio::test]
async fn an_offset_without_rows_is_committed_too() {
    let lake = Lake::new();
    let (mut sink, _) = lake.announced().await;
    sink.write(&ChangeBatch { offset: offset(7), ..rows(orders(), &[], None) }).await.unwrap();
    assert_durable(&sink.flush().await.unwrap(), 7);
    assert_eq!(lake.sink().await.offsets(&[orders()]).await.unwrap(), [Some(offset(7))]);
    assert_eq!(lake.ids().await, [0_i64; 0]);
}
