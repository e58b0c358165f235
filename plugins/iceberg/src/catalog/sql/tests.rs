//! The embedded catalog on real files.

use iceberg::spec::{NestedField, PrimitiveType, Schema, Type};
use iceberg::{TableRequirement, TableUpdate};

use super::*;

fn config(folder: &tempfile::TempDir) -> SqlCatalogConfig {
    let root = folder.path().display();
    SqlCatalogConfig {
        uri: format!("sqlite://{root}/new/folder/catalog.db"),
        warehouse: format!("file://{root}/warehouse"),
        name: "philotes".into(),
    }
}

fn creation(name: &str) -> TableCreation {
    let field = NestedField::optional(1, "id", Type::Primitive(PrimitiveType::Long));
    let schema = Schema::builder().with_fields([field.into()]).build().unwrap();
    TableCreation::builder()
        .name(name.into())
        .schema(schema)
        .properties([
            (DELETE_AFTER_COMMIT.to_owned(), "true".to_owned()),
            ("write.metadata.previous-versions-max".to_owned(), "2".to_owned()),
        ])
        .build()
}

fn namespace(name: &str) -> NamespaceIdent {
    NamespaceIdent::from_strs(name.split('.')).unwrap()
}

fn set(name: &str, value: &str) -> CommitRequest {
    let updates = HashMap::from([(name.to_owned(), value.to_owned())]);
    CommitRequest {
        id: Uuid::new_v4(),
        requirements: Vec::new(),
        updates: vec![TableUpdate::SetProperties { updates }],
        planned_on: None,
    }
}

async fn kind<T: std::fmt::Debug>(result: impl Future<Output = Result<T>>) -> Kind {
    result.await.unwrap_err().kind()
}

#[tokio::test]
async fn namespaces_and_tables_come_and_are_found() {
    let folder = tempfile::tempdir().unwrap();
    assert!(SqlCatalog::open_existing(&config(&folder), Files::local()).await.unwrap().is_none());
    let catalog = SqlCatalog::open(&config(&folder), Files::local()).await.unwrap();
    let cdc = namespace("cdc.inner");
    assert!(!catalog.namespace_exists(&cdc).await.unwrap());
    assert_eq!(kind(catalog.create_table(&cdc, creation("t"))).await, Kind::NotFound);
    catalog.create_namespace(&cdc).await.unwrap();
    assert_eq!(kind(catalog.create_namespace(&cdc)).await, Kind::AlreadyExists);
    assert!(catalog.namespace_exists(&cdc).await.unwrap());
    assert!(catalog.namespace_exists(&namespace("cdc")).await.unwrap());
    assert!(!catalog.namespace_exists(&namespace("cd")).await.unwrap());
    assert_eq!(catalog.list_namespaces().await.unwrap(), std::slice::from_ref(&cdc));

    let table = TableIdent::new(cdc.clone(), "order items/a?b".into());
    assert!(!catalog.table_exists(&table).await.unwrap());
    assert_eq!(kind(catalog.load_table(&table)).await, Kind::NotFound);
    let created = catalog.create_table(&cdc, creation(table.name())).await.unwrap();
    let below = format!("file://{}/warehouse/cdc/inner/order%20items%2Fa%3Fb-", folder.path().display());
    assert!(created.metadata.location().starts_with(&below), "{}", created.metadata.location());
    assert_eq!(kind(catalog.create_table(&cdc, creation(table.name()))).await, Kind::AlreadyExists);
    assert!(catalog.table_exists(&table).await.unwrap());
    assert_eq!(catalog.list_tables(&cdc).await.unwrap(), std::slice::from_ref(&table));

    // Another program, later: the same file, read from disk.
    let other = SqlCatalog::open_existing(&config(&folder), Files::local()).await.unwrap().unwrap();
    assert_eq!(other.load_table(&table).await.unwrap().metadata, created.metadata);
    // Another catalog in the same file sees none of it.
    let stranger = SqlCatalogConfig { name: "other".into(), ..config(&folder) };
    assert!(SqlCatalog::open(&stranger, Files::local()).await.unwrap().list_namespaces().await.unwrap().is_empty());
}

#[tokio::test]
async fn one_of_two_commits_on_the_same_state_conflicts() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (
        SqlCatalog::open(&config(&folder), Files::local()).await.unwrap(),
        SqlCatalog::open(&config(&folder), Files::local()).await.unwrap(),
    );
    let cdc = namespace("cdc");
    one.create_namespace(&cdc).await.unwrap();
    one.create_table(&cdc, creation("t")).await.unwrap();
    let table = TableIdent::new(cdc, "t".into());
    // Both have read the same state; the row moves once.
    let (current, metadata) = two.load(&table).await.unwrap();
    one.commit_table(&table, set("a", "1")).await.unwrap();
    assert_ne!(two.load(&table).await.unwrap().0, current);
    drop(metadata);
    two.commit_table(&table, set("b", "2")).await.unwrap();
    let properties = one.load_table(&table).await.unwrap().metadata.properties().clone();
    assert_eq!((properties["a"].as_str(), properties["b"].as_str()), ("1", "2"));

    // Many at once: every one that is reported as done is in the table.
    let (one, two) = (Arc::new(one), Arc::new(two));
    let commits = (0..20).map(|n| {
        let (catalog, table) = (if n % 2 == 0 { one.clone() } else { two.clone() }, table.clone());
        tokio::spawn(async move {
            (n, catalog.commit_table(&table, set(&format!("n{n}"), "x")).await.map_err(|e| e.kind()))
        })
    });
    let mut done = 0;
    for outcome in futures::future::join_all(commits).await {
        let (n, result) = outcome.unwrap();
        let found = one.load_table(&table).await.unwrap().metadata.properties().contains_key(&format!("n{n}"));
        match result {
            Ok(_) => done += 1,
            Err(kind) => assert_eq!(kind, Kind::Conflict),
        }
        assert_eq!(found, result.is_ok(), "n{n}");
    }
    assert!(done > 0);
}

#[tokio::test]
async fn a_failed_requirement_is_a_conflict_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = SqlCatalog::open(&config(&folder), Files::local()).await.unwrap();
    let cdc = namespace("cdc");
    catalog.create_namespace(&cdc).await.unwrap();
    let created = catalog.create_table(&cdc, creation("t")).await.unwrap();
    let table = TableIdent::new(cdc, "t".into());
    let request =
        CommitRequest { requirements: vec![TableRequirement::UuidMatch { uuid: Uuid::new_v4() }], ..set("a", "1") };
    assert_eq!(kind(catalog.commit_table(&table, request)).await, Kind::Conflict);
    let bad = CommitRequest { updates: vec![TableUpdate::SetCurrentSchema { schema_id: 7 }], ..set("a", "1") };
    assert_eq!(kind(catalog.commit_table(&table, bad)).await, Kind::Refused);
    assert_eq!(metadata_files(&created), 1);
}

fn metadata_files(table: &LoadedTable) -> usize {
    let folder = format!("{}/metadata", table.metadata.location().strip_prefix("file://").unwrap());
    std::fs::read_dir(folder).unwrap().count()
}

#[tokio::test]
async fn superseded_metadata_files_are_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = SqlCatalog::open(&config(&folder), Files::local()).await.unwrap();
    let cdc = namespace("cdc");
    catalog.create_namespace(&cdc).await.unwrap();
    let created = catalog.create_table(&cdc, creation("t")).await.unwrap();
    let table = TableIdent::new(cdc, "t".into());
    for n in 0..6 {
        catalog.commit_table(&table, set("n", &n.to_string())).await.unwrap();
    }
    // The current one, and as many before it as the table's property says.
    assert_eq!(metadata_files(&created), 3);
    let (location, _) = catalog.load(&table).await.unwrap();
    assert!(location.rsplit('/').next().unwrap().starts_with("00006-"), "{location}");
}

#[tokio::test]
async fn a_file_of_an_older_program_has_no_types_and_views_are_no_tables() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder);
    let path = database_path(&config.uri).unwrap();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let database = Connection::open(&path).unwrap();
    database.execute_batch(&TABLES.replace("    iceberg_type VARCHAR(5),\n", "")).unwrap();
    let catalog = SqlCatalog::open(&config, Files::local()).await.unwrap();
    let cdc = namespace("cdc");
    catalog.create_namespace(&cdc).await.unwrap();
    catalog.create_table(&cdc, creation("t")).await.unwrap();
    let table = TableIdent::new(cdc.clone(), "t".into());
    catalog.commit_table(&table, set("a", "1")).await.unwrap();

    database.execute_batch("ALTER TABLE iceberg_tables ADD COLUMN iceberg_type VARCHAR(5)").unwrap();
    let catalog = SqlCatalog::open(&config, Files::local()).await.unwrap();
    assert!(catalog.table_exists(&table).await.unwrap());
    database.execute_batch("UPDATE iceberg_tables SET iceberg_type = 'VIEW'").unwrap();
    assert!(!catalog.table_exists(&table).await.unwrap());
    assert!(catalog.list_tables(&cdc).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_no_catalog_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder);
    let path = database_path(&config.uri).unwrap();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "this is no database, whatever its name says; long enough to be looked at").unwrap();
    let error = SqlCatalog::open(&config, Files::local()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().starts_with("catalog.uri: "), "{error}");
    std::fs::write(&path, "").unwrap();
    assert!(SqlCatalog::open_existing(&config, Files::local()).await.unwrap().is_none());
    let below_a_file = SqlCatalogConfig { uri: format!("sqlite://{}/x/c.db", path.display()), ..config };
    assert_eq!(kind(SqlCatalog::open(&below_a_file, Files::local())).await, Kind::Unavailable);
}

#[test]
fn uris() {
    assert_eq!(database_path("sqlite:///a/b.db").unwrap(), Path::new("/a/b.db"));
    assert_eq!(database_path("sqlite:////a/b.db").unwrap(), Path::new("/a/b.db"));
    for bad in ["", "sqlite://", "sqlite://a.db", "sqlite::memory:", "sqlite:///a/", "postgresql://x/y", "/a/b.db"] {
        assert!(database_path(bad).is_err(), "{bad}");
    }
    assert_eq!(Warehouse::parse("file:///a b/c/").unwrap(), Warehouse::Folder("/a b/c".into()));
    assert_eq!(Warehouse::parse("s3://bucket/a b/").unwrap(), Warehouse::S3);
    for bad in
        ["", "file://", "file:///", "file:///a//b", "file:///a/../b", "file:///a?b", "s3://", "s3://bucket//a", "/a"]
    {
        assert!(Warehouse::parse(bad).is_err(), "{bad}");
    }
}

/// 300 MiB of spaces are 300 KiB of gzip, and a file of a gigabyte need not take a byte on the disk.
#[tokio::test]
async fn metadata_that_would_fill_the_memory_is_refused() {
    use std::io::Write;
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..300 {
        bomb.write_all(&vec![b' '; 1 << 20]).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 4 << 20);
    let error = unpacked(&bomb).unwrap_err().to_string();
    assert!(error.contains("more than the 256 MiB that metadata may take; expire snapshots"), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("00001-a.metadata.json");
    std::fs::File::create(&path).unwrap().set_len(1 << 30).unwrap();
    let files = Files::local();
    let input = files.io.new_input(format!("file://{}", path.display())).unwrap();
    let error = input.read().await.unwrap_err().to_string();
    assert!(error.contains("00001-a.metadata.json") && error.contains("it has 1073741824 bytes, more than"), "{error}");
}
