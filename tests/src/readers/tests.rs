use super::*;
use crate::services::Server;

/// Times that Python has no words for, and what is nested, come as what they are from each reader.
#[test]
fn cells_are_exact() {
    if let Err(error) = install() {
        return crate::skip(&error);
    }
    let dir = tempfile::tempdir().unwrap();
    let table = Table::new(&dir.path().join("catalog.db"), "cdc.public_t");
    let list =
        |element: Value| json!({"type": "list", "element-id": 20, "element": element, "element-required": false});
    let inner = json!({"type": "struct", "fields": [
        {"id": 31, "name": "a.b", "type": "timestamptz", "required": false},
        {"id": 32, "name": "c", "type": {"type": "list", "element-id": 33, "element": "date", "element-required": false},
         "required": false}]});
    let fields = [
        json!(["id", "long", true]),
        json!(["at", "timestamp", false]),
        json!(["moment", "timestamptz", false]),
        json!(["day", "date", false]),
        json!(["a \"quoted\" `name`.with dots", "float", false]),
        json!(["much", "decimal(38, 38)", false]),
        json!(["bytes", "binary", false]),
        json!(["nested", list(inner), false]),
    ];
    // In days and microseconds: the ends of what PostgreSQL has, and its infinities.
    let (first, last) = (-210_866_803_200_000_000_i64, 9_223_371_331_199_999_999_i64 - 946_684_800_000_000);
    let times = [first, last, i64::MAX, -i64::MAX, -1, -12_219_292_800_000_001, 253_402_300_800_000_000];
    let days = [-2_440_588_i64, 2_145_031_948, i64::from(i32::MAX), i64::from(-i32::MAX), -1, -141_428, 2_932_897];
    // PyIceberg has no words for such bounds.
    let properties = json!({"write.metadata.metrics.default": "none"});
    let warehouse = format!("file://{}", dir.path().display());
    let request = json!({"fields": fields, "warehouse": warehouse, "properties": properties});
    Reader::PyIceberg.ask::<()>(&table, "create", request).unwrap();
    // PyIceberg makes an empty list of a missing list of structs.
    let mut rows =
        vec![json!({"id": 0, "nested": []}), json!({"id": 1, "nested": [], fields[4][0].as_str().unwrap(): -0.0})];
    for (time, day) in times.iter().zip(days) {
        rows.push(json!({"id": rows.len(), "at": time, "moment": time, "day": day,
            "nested": [null, {"a.b": time, "c": [day, null]}, {"a.b": null, "c": null}]}));
    }
    table.append_as_somebody_else(Reader::PyIceberg, &rows).unwrap();
    let names: Vec<&str> = fields.iter().map(|field| field[0].as_str().unwrap()).collect();
    let mut expected = vec![
        json!(["0", null, null, null, null, null, null, []]),
        json!(["1", null, null, null, "8000000000000000", null, null, []]),
    ];
    for (number, (time, day)) in times.iter().zip(days).enumerate() {
        let (time, day) = (time.to_string(), day.to_string());
        let nested = json!([null, {"a.b": time, "c": [day, null]}, {"a.b": null, "c": null}]);
        expected.push(json!([(number + 2).to_string(), time, time, day, null, null, null, nested]));
    }
    for reader in READERS_WITH_SPARK {
        let mut found = reader.rows_of(&table, &names).unwrap();
        found.rows.sort_by_key(|row| row[0].as_str().unwrap().to_owned());
        assert_eq!(found.columns, names, "{reader}");
        assert_eq!(Value::from(found.rows), Value::from(expected.clone()), "{reader}");
    }
}

/// A table in the storage, under a REST catalog, outlives both servers' crashes; both readers find the same in it.
#[test]
fn a_rest_catalog_is_read() {
    let started = Minio::start().and_then(|minio| Ok((IcebergRest::start(&minio)?, minio)));
    let (mut rest, mut minio) = match started {
        Ok(started) => started,
        Err(error) => return crate::skip(&error),
    };
    let table = Table::rest(&Rest::new(&rest, &minio), "cdc.public_t");
    assert!(!table.exists().unwrap());
    table.create_as_somebody_else(None, &[json!(["id", "long", true]), json!(["who", "string", false])]).unwrap();
    assert!(table.exists().unwrap());
    table.append_as_somebody_else(Reader::PyIceberg, &[json!({"id": 1, "who": "a"}), json!({"id": 2})]).unwrap();
    rest.kill9();
    minio.kill9();
    assert!(table.exists().is_err() && Reader::DuckDb.rows(&table).is_err());
    minio.restart().unwrap();
    rest.restart().unwrap();
    table.append_as_somebody_else(Reader::PyIceberg, &[json!({"id": 3, "who": "c"})]).unwrap();

    let expected = [[json!("1"), json!("a")], [json!("2"), json!(null)], [json!("3"), json!("c")]];
    for reader in READERS {
        assert_eq!(reader.query(&table, "select id, who from t order by id").unwrap().rows, expected, "{reader}");
        let names: Vec<String> = reader.schema(&table).unwrap().into_iter().map(|column| column.name).collect();
        assert_eq!(names, ["id", "who"], "{reader}");
        assert_eq!(reader.snapshots(&table).unwrap().len(), 2, "{reader}");
        let files = reader.files(&table).unwrap();
        assert_eq!(files.iter().map(|file| file.rows).collect::<Vec<_>>(), [2, 1], "{reader}");
        assert!(files[0].path.starts_with(IcebergRest::WAREHOUSE), "{reader}: {}", files[0].path);
    }
    assert_eq!(table.rows_in_order().unwrap().rows, expected);
    assert_eq!(table.parquet_field_ids().unwrap().len(), 2);
    table.drop_as_somebody_else().unwrap();
    assert!(!table.exists().unwrap());
}

/// The table as it was, and after Spark has written its rows anew.
#[test]
fn a_table_is_read_as_it_was() {
    if let Err(error) = install() {
        return crate::skip(&error);
    }
    let dir = tempfile::tempdir().unwrap();
    let table = Table::new(&dir.path().join("catalog.db"), "cdc.public_t");
    table.create_as_somebody_else(Some(dir.path()), &[json!(["id", "long", true])]).unwrap();
    for id in [1, 2] {
        table.append_as_somebody_else(Reader::PyIceberg, &[json!({"id": id})]).unwrap();
    }
    let snapshots = Reader::PyIceberg.snapshots(&table).unwrap();
    for dangling in [Dangling::Keep, Dangling::Remove] {
        assert_eq!(table.rewrite_as_somebody_else(dangling).unwrap(), 0);
        for reader in READERS {
            assert_eq!(reader.files(&table).unwrap().iter().map(|file| file.rows).collect::<Vec<_>>(), [2], "{reader}");
        }
    }
    for reader in READERS_WITH_SPARK {
        assert_eq!(reader.number(&table, "select sum(id) from t").unwrap(), 3, "{reader}");
        assert_eq!(reader.delete_files(&table).unwrap(), [], "{reader}");
        assert_eq!(reader.snapshots(&table).unwrap().len(), 4, "{reader}");
    }
    for reader in [Reader::DuckDb, Reader::Spark] {
        assert_eq!(reader.rows_at(&table, &snapshots[0].id, &["id"]).unwrap().rows, [[json!("1")]], "{reader}");
        assert!(reader.seconds(&table, "select sum(id) from t").unwrap() > 0.0, "{reader}");
    }
}
