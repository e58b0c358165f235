//! What an operator sees: faults of the configuration, plans, the action.

use philotes_sdk::{ActionOutput, ErrorKind, Plan, Result, Sink};
use serde_json::json;

use super::*;
use crate::config::Snapshots;

async fn offsets(lake: &Lake, arguments: serde_json::Value) -> Result<ActionOutput> {
    IcebergSink::act(lake.config.clone(), Lake::context(), "offsets", arguments).await
}

async fn shown(lake: &Lake) -> Vec<Vec<String>> {
    match offsets(lake, json!({})).await.unwrap() {
        ActionOutput::Rows { rows, .. } => rows,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn offsets_are_shown_set_and_forgotten_and_fence_a_running_task() {
    let lake = Lake::new();
    assert_eq!(offsets(&lake, json!({})).await.unwrap_err().kind(), ErrorKind::Config);
    let (mut sink, catalog) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    let found = shown(&lake).await;
    assert_eq!(found[0][..4], [ORDERS, "public.orders", "0", r#"{"batch":1}"#]);
    assert_eq!(found[0][5], "ok");

    offsets(&lake, json!({"stream": "public.orders", "offset": r#"{"batch":9}"#})).await.unwrap();
    assert_eq!(shown(&lake).await[0][3], r#"{"batch":9}"#);
    assert_failed(&commit(&mut sink, &[2]).await, ErrorKind::Fenced);
    let (mut sink, _) = lake.faulty().await;
    assert_eq!(sink.offsets(&[orders()]).await.unwrap(), [Some(offset(9))]);
    assert_eq!(lake.metadata().await.snapshots().len(), 2);

    offsets(&lake, json!({"stream": "public.orders", "reset": "true"})).await.unwrap();
    assert!(shown(&lake).await.is_empty());
    assert_failed(&commit(&mut sink, &[2]).await, ErrorKind::Fenced);
    assert_eq!(lake.metadata().await.snapshots().len(), 3);
    assert_eq!(lake.ids().await, [1]);
    // Forgetting what is not there changes nothing.
    offsets(&lake, json!({"stream": "public.orders", "reset": true})).await.unwrap();
    assert_eq!(lake.metadata().await.snapshots().len(), 3);

    // The way out of a refusal.
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[2]).await, 2);
    foreign::roll_back(&catalog.inner).await;
    assert!(shown(&lake).await[0][5].contains("rolled back"));
    assert_eq!(lake.sink().await.offsets(&[orders()]).await.unwrap_err().kind(), ErrorKind::Config);
    offsets(&lake, json!({"stream": "public.orders", "offset": r#"{"batch":1}"#})).await.unwrap();
    let (mut sink, _) = lake.faulty().await;
    assert_eq!(sink.offsets(&[orders()]).await.unwrap(), [Some(offset(1))]);
    assert_durable(&commit(&mut sink, &[2]).await, 2);
    assert_eq!(lake.ids().await, [1, 2]);
}

#[tokio::test]
async fn arguments_that_make_no_sense_are_refused() {
    let lake = Lake::new();
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    for arguments in [
        json!({"offset": "1"}),
        json!({"reset": "true"}),
        json!({"stream": "public.orders", "offset": "1", "reset": "true"}),
        json!({"stream": "public.orders", "offset": "{"}),
        json!({"stream": "public.orders", "reset": "perhaps"}),
        json!({"stream": "a..b", "reset": "true"}),
        json!({"stream": "public.none", "offset": "1"}),
        json!({"strem": "public.orders"}),
    ] {
        let error = offsets(&lake, arguments.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{arguments}: {error}");
    }
    assert_eq!(lake.metadata().await.snapshots().len(), 1);
    assert!(IcebergSink::act(lake.config.clone(), Lake::context(), "none", json!({})).await.is_err());
}

async fn plan(lake: &Lake, batch: &ChangeBatch) -> Plan {
    IcebergSink::plan(lake.config.clone(), Lake::context(), &batch.at, batch.rows.schema()).await.unwrap()
}

#[tokio::test]
async fn plans_say_what_would_be_and_write_nothing() {
    let mut lake = Lake::new();
    lake.config.partition_by = vec!["day(_cdc_timestamp) as date".into(), "bucket(4, id)".into()];
    let created = plan(&lake, &row(1)).await;
    assert_eq!((created.table.as_str(), created.change.as_str()), (ORDERS, "create"));
    assert_eq!(created.partition_by, ["day(_cdc_timestamp) as date", "bucket(4, id)"]);
    let columns: Vec<_> = created.columns.iter().map(|c| (c.name.as_str(), c.target_type.as_str())).collect();
    let expected =
        [("id", "long"), ("_cdc_operation", "string"), ("_cdc_timestamp", "timestamptz"), ("_cdc_lsn", "string")];
    assert_eq!(columns, expected);
    assert_eq!(std::fs::read_dir(lake.folder.path()).unwrap().count(), 0);

    let (mut sink, catalog) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    let unchanged = plan(&lake, &row(1)).await;
    assert_eq!(unchanged.change, "none");
    assert!(unchanged.notes.len() == 1 && unchanged.notes[0].contains(r#"{"batch":1}"#), "{:?}", unchanged.notes);
    let altered = plan(&lake, &rows(orders(), &[2], Some("x"))).await;
    assert_eq!(altered.change, "alter");
    let note = altered.columns.iter().find(|column| column.name == "note").unwrap();
    assert_eq!(note.change, "add");
    lake.config.partition_by = vec!["id".into()];
    assert!(plan(&lake, &row(1)).await.notes[1].contains("day(_cdc_timestamp) as date"));
    assert_eq!(catalog.requests().len(), 1);
}

#[tokio::test]
async fn every_fault_of_the_configuration_names_its_key() {
    let good = Lake::new();
    assert_eq!(IcebergSink::validate(&good.config), [""; 0]);
    let fault = |change: &dyn Fn(&mut Config)| {
        let mut config = good.config.clone();
        change(&mut config);
        let faults = IcebergSink::validate(&config);
        assert_eq!(faults.len(), 1, "{faults:?}");
        faults.into_iter().next().unwrap()
    };
    let sql = |change: fn(&mut SqlCatalogConfig)| {
        fault(&|config: &mut Config| {
            let CatalogConfig::Sql(sql) = &mut config.catalog else { panic!("an embedded catalog") };
            change(sql);
        })
    };
    let expected = [
        ("catalog.uri: ", sql(|sql| sql.uri = "catalog.db".into())),
        ("catalog.warehouse: ", sql(|sql| sql.warehouse = "/warehouse".into())),
        ("catalog.name: ", sql(|sql| sql.name = String::new())),
        ("table: ", fault(&|config| config.table = "orders".into())),
        ("partition_by", fault(&|config| config.partition_by = vec!["dya(_cdc_timestamp)".into()])),
        ("sort_by", fault(&|config| config.sort_by = vec!["id up".into()])),
        ("format_version: 4 is not allowed; allowed are 2 and 3", fault(&|config| config.format_version = 4)),
        ("target_file_size: ", fault(&|config| config.target_file_size = "1 furlong".into())),
        ("target_file_size: ", fault(&|config| config.target_file_size = "1KiB".into())),
        ("snapshots.keep: ", fault(&|c| c.snapshots = Some(Snapshots { keep: 0, older_than: None }))),
        (
            "snapshots.older_than: ",
            fault(&|c| {
                c.snapshots = Some(Snapshots { keep: 1, older_than: Some("yesterday".into()) });
            }),
        ),
    ];
    for (start, found) in expected {
        assert!(found.starts_with(start), "{found}");
    }
}

#[test]
fn configurations_are_read_with_their_defaults_and_unknown_keys_refused() {
    let config: Config = serde_json::from_value(json!({
        "catalog": {"type": "sql", "uri": "sqlite:///c.db", "warehouse": "file:///w"},
        "snapshots": {"older_than": "24h"},
    }))
    .unwrap();
    assert_eq!((config.table.as_str(), config.format_version), ("cdc.{schema}_{table}", 2));
    let retention = config.retention().unwrap().unwrap();
    assert_eq!((retention.keep, retention.older_than.as_secs()), (100, 86_400));
    assert_eq!(config.target_file_bytes().unwrap(), 128 << 20);
    for bad in [
        json!({"catalog": {"type": "rset", "uri": "x", "warehouse": "y"}}),
        json!({"catalog": {"type": "rest", "uri": "x", "nmae": "z"}}),
        json!({"catalog": {"type": "rest", "uri": "x"}, "storage": {"acces_key": "z"}}),
        json!({"catalog": {"type": "sql", "uri": "x", "warehouse": "y", "nmae": "z"}}),
        json!({"catalog": {"type": "sql", "uri": "x", "warehouse": "y"}, "mode": "merge"}),
        json!({"catalog": {"type": "sql", "uri": "x", "warehouse": "y"}, "tabel": "z"}),
    ] {
        assert!(serde_json::from_value::<Config>(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn faults_of_a_rest_catalog_name_their_keys() {
    for (catalog, storage, expected) in [
        (json!({"uri": "https://lake.example.com/catalog", "token": "t"}), json!({}), &[][..]),
        (json!({"uri": "lake:8181"}), json!({}), &["catalog.uri: \"lake:8181\" is no server"]),
        (
            json!({"uri": "http://lake", "token": "t", "oauth2": {"client_id": "i", "client_secret": "s", "uri": "idp"}}),
            json!({}),
            &["catalog.oauth2.uri: \"idp\" is no server", "catalog.oauth2: excludes catalog.token"],
        ),
        (
            json!({"uri": "http://lake", "token": "t", "headers": {"Authorization": "Basic x"}}),
            json!({}),
            &["catalog.headers.authorization: excludes catalog.token"],
        ),
        (
            json!({"uri": "http://lake", "headers": {"a b": "x"}}),
            json!({}),
            &["catalog.headers: \"a b\" is no header's name"],
        ),
        (
            json!({"uri": "http://lake", "headers": {"X-A": "line\nbreak"}}),
            json!({}),
            &["catalog.headers.x-a: its value has characters"],
        ),
        (json!({"uri": "http://lake", "timeout": "0s"}), json!({}), &["catalog.timeout: \"0s\" is no duration"]),
        (
            json!({"uri": "http://lake"}),
            json!({"endpoint": "ftp://there", "access_key": "a"}),
            &["storage.endpoint: \"ftp://there\" is no server", "storage.secret_key: goes with"],
        ),
    ] {
        let mut catalog = catalog;
        catalog["type"] = json!("rest");
        let config: Config = serde_json::from_value(json!({"catalog": catalog, "storage": storage})).unwrap();
        let faults = config.faults();
        assert_eq!(faults.len(), expected.len(), "{faults:?}");
        for (fault, expected) in faults.iter().zip(expected) {
            assert!(fault.starts_with(expected), "{fault}");
        }
    }
}

#[tokio::test]
async fn check_reads_only_and_says_what_is_out_of_reach() {
    let lake = Lake::new();
    IcebergSink::check(lake.config.clone(), Lake::context()).await.unwrap();
    assert_eq!(std::fs::read_dir(lake.folder.path()).unwrap().count(), 0);
    lake.sink().await;
    IcebergSink::check(lake.config.clone(), Lake::context()).await.unwrap();
    std::fs::write(lake.folder.path().join("warehouse"), "").unwrap();
    let error = IcebergSink::check(lake.config.clone(), Lake::context()).await.unwrap_err();
    assert!(error.to_string().starts_with("catalog.warehouse: "), "{error}");
    std::fs::write(lake.folder.path().join("catalog.db"), "no database at all, and long enough to be seen").unwrap();
    let error = IcebergSink::check(lake.config.clone(), Lake::context()).await.unwrap_err();
    assert!(error.to_string().starts_with("catalog.uri: "), "{error}");
}
