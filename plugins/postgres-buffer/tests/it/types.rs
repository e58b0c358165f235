//! Types, from PostgreSQL's own printing of values to Arrow.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Decimal128Type};
use philotes_postgres_buffer::PostgresBuffer;
use philotes_sdk::{ErrorKind, Source};
use serde_json::json;

use crate::driver::{Buffer, Driver, error_of};

const SHOP: &str = "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN cents AS numeric(8,2);
    CREATE TABLE shop (id bigint PRIMARY KEY, small smallint, n int, o oid, r real, d double precision, amount numeric(20,4),
    big numeric, c cents, b boolean, t text, vc varchar(20), ch char(3), m mood, ip inet, iv interval, day date, clock time,
    ts timestamp, tz timestamptz, u uuid, j json, jb jsonb, raw bytea, list int[], names text[], money numeric(10,2)[])";

#[tokio::test(flavor = "multi_thread")]
async fn captured_rows_arrive_as_postgresql_has_them() {
    let Some(buffer) = Buffer::new().await else { return };
    buffer.sql(SHOP).await;
    buffer.act("capture", json!({"table": "public.shop"})).await.unwrap();
    // A session's own way to print values must not matter.
    buffer.sql("SET timezone = 'Asia/Kolkata'; SET bytea_output = 'escape'; SET extra_float_digits = -5; SET intervalstyle = 'iso_8601'").await;
    buffer
        .sql(
            r#"INSERT INTO shop VALUES (9007199254740993, -32768, 2147483647, 4294967295, 0.1, 0.1, 1234567890123456.7891,
            123456789012345678901234567890123456789012.5, 12.30, true, E'a"b\\c\nä', 'vc', 'x', 'ok', '10.0.0.1/8', '1 day 02:03:04',
            '2024-02-29', '01:02:03.000001', '2024-02-29 01:02:03.000001', '2024-02-29 01:02:03+00', '00010203-0405-0607-0809-0a0b0c0d0e0f',
            '{"a": 1}', '{"b": [1, "x"]}', '\x00ff41', '{1,NULL,3}', '{"a,b",NULL}', '{1.50,2}');
            INSERT INTO shop (id) VALUES (2); INSERT INTO shop (id, r, d) VALUES (3, 'NaN', '-Infinity')"#,
        )
        .await;
    let mut driver = Driver::open(&buffer).await;
    driver.drain().await.unwrap();
    for (column, expected) in [
        ("id", ["9007199254740993", "2", "3"]),
        ("small", ["-32768", "-", "-"]),
        ("n", ["2147483647", "-", "-"]),
        ("o", ["4294967295", "-", "-"]),
        ("r", ["0.1", "-", "NaN"]),
        ("d", ["0.1", "-", "-inf"]),
        ("amount", ["1234567890123456.7891", "-", "-"]),
        ("big", ["123456789012345678901234567890123456789012.5", "-", "-"]),
        ("c", ["12.30", "-", "-"]),
        ("b", ["true", "-", "-"]),
        ("t", ["a\"b\\c\nä", "-", "-"]),
        ("vc", ["vc", "-", "-"]),
        ("ch", ["x  ", "-", "-"]),
        ("m", ["ok", "-", "-"]),
        ("ip", ["10.0.0.1/8", "-", "-"]),
        ("iv", ["1 day 02:03:04", "-", "-"]),
        ("day", ["2024-02-29", "-", "-"]),
        ("clock", ["01:02:03.000001", "-", "-"]),
        ("ts", ["2024-02-29T01:02:03.000001", "-", "-"]),
        ("tz", ["2024-02-29T01:02:03Z", "-", "-"]),
        ("u", ["000102030405060708090a0b0c0d0e0f", "-", "-"]),
        ("j", ["{\"a\": 1}", "-", "-"]),
        ("jb", ["{\"b\": [1, \"x\"]}", "-", "-"]),
        ("raw", ["00ff41", "-", "-"]),
        ("list", ["[1, , 3]", "-", "-"]),
        ("names", ["[a,b, ]", "-", "-"]),
        ("money", ["[1.50, 2.00]", "-", "-"]),
        ("_cdc_operation", ["INSERT", "INSERT", "INSERT"]),
    ] {
        assert_eq!(driver.column(column), expected, "{column}");
    }
    let schema = driver.batches[0].rows.schema();
    for (column, expected) in [
        ("small", DataType::Int32),
        ("o", DataType::Int64),
        ("r", DataType::Float32),
        ("big", DataType::Utf8),
        ("c", DataType::Decimal128(8, 2)),
    ] {
        assert_eq!(schema.field_with_name(column).unwrap().data_type(), &expected, "{column}");
    }
    assert_eq!(schema.metadata()["philotes.key"], "[\"id\"]");
    driver.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrow_or_its_readers_cannot_hold_stops_with_its_name() {
    for (column, value) in [
        ("tz", "'294276-01-01 00:00:00+00'"),
        ("clock", "'24:00:00'"),
        ("amount", "'NaN'"),
        ("list", "'{{1,2},{3,4}}'"),
    ] {
        let Some(buffer) = Buffer::new().await else { return };
        buffer.sql(SHOP).await;
        buffer.act("capture", json!({"table": "shop"})).await.unwrap();
        buffer.sql(&format!("INSERT INTO shop (id, {column}) VALUES (1, {value})")).await;
        let mut driver = Driver::open(&buffer).await;
        let error = error_of(driver.drain().await);
        assert_eq!(error.kind(), ErrorKind::Data, "{column} {value}");
        let text = error.to_string();
        assert!(
            text.contains("stream public.shop, buffer id 1") && text.contains(&format!("column {column}:")),
            "{text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_altered_tells_its_new_columns_at_once() {
    let Some(buffer) = Buffer::new().await else { return };
    buffer.sql("CREATE TABLE t (id int PRIMARY KEY, v int)").await;
    buffer.act("capture", json!({"table": "public.t"})).await.unwrap();
    buffer
        .sql(
            "BEGIN; INSERT INTO t VALUES (1, 1); ALTER TABLE t ALTER v TYPE bigint; INSERT INTO t VALUES (2, 3000000000);
             ALTER TABLE t ADD w date; INSERT INTO t VALUES (3, 3, '2024-01-01'); ALTER TABLE t DROP v; INSERT INTO t VALUES (4, NULL); COMMIT",
        )
        .await;
    let mut driver = Driver::open(&buffer).await;
    driver.drain().await.unwrap();
    assert_eq!(driver.column("id"), ["1", "2", "3", "4"]);
    let dropped = driver.batches.pop().unwrap();
    assert!(dropped.rows.column_by_name("v").is_none(), "a column that the table no longer has is not the row's");
    assert_eq!(driver.column("v"), ["1", "3000000000", "3"]);
    let kinds: Vec<_> =
        driver.batches.iter().map(|b| b.rows.column_by_name("v").unwrap().data_type().clone()).collect();
    assert_eq!(kinds, [DataType::Int32, DataType::Int64, DataType::Int64]);
    let numbers: Vec<_> =
        dropped.rows.schema().fields().iter().map(|f| f.metadata().get("philotes.number").cloned()).collect();
    assert_eq!(numbers[..2], [Some("1".to_owned()), Some("3".to_owned())]);
    driver.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_of_a_key_deletes_and_truncates() {
    let Some(buffer) = Buffer::new().await else { return };
    buffer.sql("CREATE TABLE t (a int, b text, v int, PRIMARY KEY (b, a)); CREATE TABLE keyless (v int)").await;
    buffer.act("capture", json!({"table": "public.t, public.keyless"})).await.unwrap();
    buffer
        .sql(
            "INSERT INTO t VALUES (1, 'x', 1); UPDATE t SET v = 2; UPDATE t SET b = 'y'; DELETE FROM t; TRUNCATE t;
              INSERT INTO keyless VALUES (1); UPDATE keyless SET v = 2",
        )
        .await;
    let mut driver = Driver::open(&buffer).await;
    driver.drain().await.unwrap();
    let (t, keyless): (Vec<_>, Vec<_>) = driver.batches.drain(..).partition(|batch| batch.at.stream.parts()[1] == "t");
    driver.batches = t;
    assert_eq!(driver.column("_cdc_operation"), ["INSERT", "UPDATE", "DELETE", "INSERT", "DELETE", "TRUNCATE"]);
    assert_eq!(driver.column("b"), ["x", "x", "x", "y", "y", "-"]);
    assert_eq!(driver.column("v"), ["1", "2", "2", "2", "2", "-"]);
    assert_eq!(driver.batches[0].rows.schema().metadata()["philotes.key"], "[\"b\",\"a\"]");
    assert!(!driver.column("_cdc_lsn").contains(&"-".to_owned()));
    driver.batches = keyless;
    assert_eq!(driver.column("_cdc_operation"), ["INSERT", "UPDATE"]);
    assert_eq!(driver.batches[0].rows.schema().metadata()["philotes.key"], "[]");
    driver.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_captured_as_their_table() {
    let Some(buffer) = Buffer::new().await else { return };
    buffer
        .sql("CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
              CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20)")
        .await;
    buffer.act("capture", json!({"table": "public.p"})).await.unwrap();
    buffer.sql("INSERT INTO p VALUES (1, 'a'), (11, 'b'); INSERT INTO p1 VALUES (2, 'c'); UPDATE p SET id = 12 WHERE id = 2").await;
    let mut driver = Driver::open(&buffer).await;
    driver.drain().await.unwrap();
    assert_eq!(driver.ids_of("p"), [1, 11, 2, 2, 12]);
    driver.close().await;
}

/// Events without metadata, as another writer may write them.
const PLAIN: &str = r#"INSERT INTO philotes.cdc_events (source_id, schema_name, table_name, operation, key_columns, after_data) VALUES
    ('shop', 'public', 'plain', 'INSERT', '["id"]', '{"id": 1, "amount": 12.30, "at": "2024-01-01T00:00:00+00:00",
     "ps": [{"a": 1.5, "b": [2, null]}], "grid": [[1], [2]], "m": [[1]]}')"#;

#[tokio::test(flavor = "multi_thread")]
async fn types_come_from_the_source_or_are_inferred() {
    let Some(mut buffer) = Buffer::new().await else { return };
    buffer
        .sql(
            "CREATE DOMAIN money2 AS numeric(10,2); CREATE TYPE pair AS (a money2, b money2[]);
             CREATE DOMAIN matrix AS int[][];
             CREATE TABLE plain (id int PRIMARY KEY, amount money2, at timestamptz, p pair, ps pair[], grid int[][], m matrix);
             COMMENT ON COLUMN plain.amount IS 'in euros'",
        )
        .await;
    buffer.sql(PLAIN).await;
    buffer.keys["types_from"] = json!(buffer.server.dsn(&buffer.database));
    let streams = PostgresBuffer::streams(buffer.config(), buffer.context()).await.unwrap();
    assert_eq!((streams.len(), streams[0].sampled_rows), (1, None));
    let mut driver = Driver::open(&buffer).await;
    driver.drain().await.unwrap();
    let amount = driver.batches[0].rows.column_by_name("amount").unwrap().as_primitive::<Decimal128Type>();
    assert_eq!((amount.value(0), amount.scale()), (1230, 2));
    let schema = driver.batches[0].rows.schema();
    assert_eq!(schema.field_with_name("amount").unwrap().metadata()["philotes.comment"], "in euros");
    let pair = [("a", DataType::Decimal128(10, 2)), ("b", DataType::new_list(DataType::Decimal128(10, 2), true))];
    let DataType::Struct(fields) = schema.field_with_name("p").unwrap().data_type() else { panic!("{schema}") };
    let found: Vec<_> = fields.iter().map(|field| (field.name().as_str(), field.data_type().clone())).collect();
    assert_eq!(found, pair);
    assert_eq!(driver.column("ps"), ["[{a: 1.50, b: [2.00, ]}]"]);
    assert_eq!(driver.column("grid"), ["[[1], [2]]"]);
    assert_eq!(driver.column("m"), ["[[1]]"]);
    driver.close().await;

    buffer.keys.as_object_mut().unwrap().remove("types_from");
    let streams = PostgresBuffer::streams(buffer.config(), buffer.context()).await.unwrap();
    assert_eq!(streams[0].sampled_rows, Some(1));
    let amount = streams[0].schema.field_with_name("amount").unwrap();
    assert_eq!((amount.data_type(), amount.metadata()["philotes.inferred"].as_str()), (&DataType::Float64, "true"));
    assert_eq!(streams[0].schema.field_with_name("at").unwrap().data_type(), &DataType::Utf8);
    assert_eq!(buffer.ask("SELECT count(*) FROM philotes.batches").await, "1", "a sample writes nothing down");

    buffer.keys["types_from"] = json!("host=/nowhere user=postgres");
    let error = error_of(PostgresBuffer::streams(buffer.config(), buffer.context()).await);
    assert!(error.kind() == ErrorKind::Unavailable && error.to_string().contains("types_from"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_metadata_crosses_once() {
    let Some(buffer) = Buffer::new().await else { return };
    buffer.sql("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    buffer.act("capture", json!({"table": "public.t"})).await.unwrap();
    let mut driver = Driver::open(&buffer).await;
    // From the second snapshot on the server compares; the columns must still be known, and change when they change.
    for n in 0..3 {
        buffer.sql(&format!("INSERT INTO t VALUES ({n}, 'x')")).await;
        driver.drain().await.unwrap();
    }
    buffer.sql("ALTER TABLE t ADD w int; INSERT INTO t VALUES (3, 'x', 5)").await;
    driver.drain().await.unwrap();
    assert_eq!(driver.ids(), [0, 1, 2, 3]);
    assert_eq!(crate::driver::printed(driver.batches.last().unwrap(), "w"), ["5"]);
    assert!(driver.batches.iter().all(|batch| batch.rows.column_by_name("v").unwrap().null_count() == 0));
    driver.close().await;
}

/// Values of users' types are read from what PostgreSQL prints, so that no cast is called. It is
/// what `to_jsonb` makes of them, where that is exact.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_from_printed_values_is_what_to_jsonb_makes() {
    let Some(buffer) = Buffer::new().await else { return };
    buffer.sql("CREATE TABLE u (id int)").await;
    buffer.act("capture", json!({"table": "u"})).await.unwrap();
    buffer
        .sql(
            r#"CREATE TYPE mood AS ENUM ('a b', 'say "x"', 'back\slash', 'NULL', '', 'com,ma', '{b}');
            CREATE TYPE p AS (a int, b text, c numeric, d timestamptz, e bool, f date, g text[], h int[], i mood, j jsonb, k float8, l inet);
            CREATE TYPE q AS (p p, ps p[], t text, e mood[]); CREATE DOMAIN d AS q; CREATE DOMAIN da AS int[]; CREATE TYPE one AS (a int);
            CREATE TABLE t (m mood, ms mood[], p p, q q, qs q[], d d, das da[], one one, ones one[], grid q[][]);
            INSERT INTO t SELECT m, ARRAY[m, NULL, m], v, x, ARRAY[ROW(v, '{}', '', NULL)::q, NULL], ROW(v, NULL, NULL, '{}')::q,
                '{"{1,2}",NULL}', ROW(NULL)::one, ARRAY[ROW(NULL)::one, NULL, ROW(3)::one], ARRAY[[x, NULL], [NULL, x]]
            FROM generate_series(1, 7) n CROSS JOIN LATERAL (SELECT (enum_range(NULL::mood))[n]) s (m)
            CROSS JOIN LATERAL (SELECT ROW(n, E'x"\\,()\t' || n, 1.50, '2024-02-29 01:02:03.5+02'::timestamptz, n % 2 = 0, '0044-03-15 BC'::date,
                ARRAY['a,b', NULL, '', 'NULL', '{x}', E'\\"'], '[0:1]={1,2}'::int[], m, '{"a": [1, "x"]}'::jsonb, 1.5, '10.0.0.1/8'::inet)::p) w (v)
            CROSS JOIN LATERAL (SELECT ROW(v, ARRAY[v, NULL, v], E'a\\b"c,\n(d)', ARRAY[[m, m], [NULL, m]])::q) y (x)"#,
        )
        .await;
    for (column, kind) in [
        ("m", "mood"),
        ("ms", "mood[]"),
        ("p", "p"),
        ("q", "q"),
        ("qs", "q[]"),
        ("d", "d"),
        ("das", "da[]"),
        ("one", "one"),
        ("ones", "one[]"),
        ("grid", "q[]"),
    ] {
        let same = format!(
            "SELECT count(*) FROM t WHERE to_jsonb({column}) = philotes.value_json(format('%s', {column}), '{kind}'::regtype)"
        );
        assert_eq!(buffer.ask(&same).await, "7", "{column}");
    }
}

/// A transaction that sees the catalog as it was takes every column by what is printed of it; the
/// JSON is the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_serializable_transaction_captures_the_same() {
    let Some(buffer) = Buffer::new().await else { return };
    buffer
        .sql(
            r#"CREATE TABLE t (id int PRIMARY KEY, b bit(3), vb varbit, c char(4), "char" "char", n name, x xml, iv interval, m money, ip inet,
                tsv tsvector, u uuid, ts timestamp, tz timestamptz, ttz timetz, dt date, i8 int8[], tx text[], bo box[], nu numeric, f4 float4,
                f8 float8, by bytea, pt point, j json, jb jsonb, jn jsonb, rg int4range, v2 int2vector, ov oidvector, fl float8[], boo bool,
                dd date[], rc regclass, bl bool[], e text)"#,
        )
        .await;
    buffer.act("capture", json!({"table": "t"})).await.unwrap();
    buffer
        .sql(
            r#"INSERT INTO t VALUES (1, '101', '1', 'ab', 'x', 'n', '<a>&amp;</a>', '1 day 02:03', '1.50', '10.0.0.1/8', 'a b',
                '00010203-0405-0607-0809-0a0b0c0d0e0f', 'infinity', '2024-01-01 00:00+05', '10:00+02', '0044-03-15 BC', '{1,9007199254740993}',
                '{a,"b,c",NULL}', '{(1,2),(3,4);(5,6),(7,8)}', 1.50, 0.1, '-0', '\x00ff', '(1,2)', '{"a":  1}', '{"a": 1.10}', 'null', '[1,5)',
                '1 2', '3 4', '{-0,1.5,NULL,NaN}', true, '{2024-01-01,infinity}', 'pg_class', '{t,f}', NULL)"#,
        )
        .await;
    buffer.sql("BEGIN ISOLATION LEVEL SERIALIZABLE; UPDATE t SET id = 2; COMMIT").await;
    let one = "SELECT count(DISTINCT j - 'id') || ' of ' || count(*) FROM philotes.cdc_events, unnest(ARRAY[before_data, after_data]) j \
        WHERE j IS NOT NULL";
    assert_eq!(buffer.ask(one).await, "1 of 3");
    let some = "SELECT jsonb_build_array(j -> 'i8', j -> 'f8', j -> 'jn', j -> 'tz', j -> 'fl', j -> 'boo', j -> 'j') FROM \
        (SELECT after_data AS j FROM philotes.cdc_events ORDER BY id DESC LIMIT 1) e";
    let expected = r#"[[1, 9007199254740993], "-0", "null", "2023-12-31T19:00:00+00:00", ["-0", "1.5", null, "NaN"], true, "{\"a\":  1}"]"#;
    assert_eq!(buffer.ask(some).await, expected);
}
