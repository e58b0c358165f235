//! Formats, partitionings and sort orders of tables, as foreign readers see them.

use std::collections::BTreeSet;

use philotes_tests::connector::Connector;
use philotes_tests::host::{Host, philotes};
use philotes_tests::readers::{READERS_WITH_SPARK, Reader};
use philotes_tests::sql::Session;
use philotes_tests::{bed_or_skip, postgres_or_skip};
use serde_json::json;

use crate::foreign::append;
use crate::sound::assert_sound;
use crate::{assert_acknowledged, captured, captured_by, pairs, pairs_by, pairs_of_log};

fn insert(session: &Session, from: i64, to: i64) {
    session
        .batch(&format!("insert into t select i, i % 10, 'who ' || i from generate_series({from}, {to}) i"))
        .unwrap();
}

/// The row ids of a table of version 3 stay what they are while its manifests are merged, whoever else writes to it.
#[test]
fn rows_keep_their_ids() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    rows_keep_their_ids_through(&session, &connector.sink("format_version: 3"));
}

#[test]
fn rows_keep_their_ids_in_a_rest_catalog() {
    let Some(bed) = bed_or_skip() else { return };
    let connector = Connector::rest(&bed.postgres.dsn(), &bed.rest, &bed.minio).unwrap();
    let (session, connector) = captured_by(&bed.postgres, connector);
    rows_keep_their_ids_through(&session, &connector.sink("format_version: 3"));
}

fn rows_keep_their_ids_through(session: &Session, connector: &Connector) {
    let table = connector.table("cdc.public_t");
    insert(session, 1, 3);
    Host::until_idle(connector).unwrap();
    assert_eq!(table.layout().unwrap().version, 3);
    table.set_property_as_somebody_else("commit.manifest.min-count-to-merge", "3").unwrap();
    let mut known = Reader::Spark.row_ids(&table).unwrap();
    assert_eq!(known, [(1, 0), (2, 1), (3, 2)]);
    for round in 1..=5 {
        if round == 3 {
            append(&table, Reader::Spark, 1001);
            known = Reader::Spark.row_ids(&table).unwrap();
        }
        insert(session, round * 10, round * 10 + 4);
        Host::until_idle(connector).unwrap();
        let now = Reader::Spark.row_ids(&table).unwrap();
        let kept: BTreeSet<_> = now.iter().collect();
        assert!(known.iter().all(|pair| kept.contains(pair)), "round {round}: {known:?} became {now:?}");
        let ids: BTreeSet<i64> = now.iter().map(|(_, id)| *id).collect();
        assert_eq!(ids.len(), now.len(), "round {round}: {now:?}");
        assert_eq!(now.len(), known.len() + 5);
        known = now;
    }
    // DuckDB reads the same ids.
    assert_eq!(Reader::DuckDb.row_ids(&table).unwrap(), known);
    assert_eq!(pairs(&table).len(), 29);
    assert_acknowledged(session);
}

/// `partition_by` and `sort_by` of a connector that has written before: `plan` shows what would change, new files follow it, the
/// old ones stay, and every reader finds all rows.
#[test]
fn another_layout_is_for_new_data() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    another_layout_through(&session, connector);
}

#[test]
fn another_layout_is_for_new_data_in_a_rest_catalog() {
    let Some(bed) = bed_or_skip() else { return };
    let connector = Connector::rest(&bed.postgres.dsn(), &bed.rest, &bed.minio).unwrap();
    let (session, connector) = captured_by(&bed.postgres, connector);
    another_layout_through(&session, connector.sink("format_version: 3"));
}

fn another_layout_through(session: &Session, connector: Connector) {
    let table = connector.table("cdc.public_t");
    insert(session, 1, 100);
    Host::until_idle(&connector).unwrap();
    assert_eq!(table.partitions().unwrap(), [""; 0]);

    let connector = connector.sink("partition_by: [\"bucket(3, id)\"]").sink("sort_by: [v desc, id desc nulls first]");
    insert(session, 101, 200);
    let plan = philotes(&["plan", connector.file().unwrap().to_str().unwrap()]).unwrap().success().unwrap();
    assert!(plan.contains("the table is not partitioned; partition_by says bucket(3, id)"), "{plan}");
    assert!(plan.contains("the table is not sorted; sort_by says v desc, id desc nulls first"), "{plan}");
    assert_eq!(table.partitions().unwrap(), [""; 0]);
    Host::until_idle(&connector).unwrap();
    assert_eq!(table.partitions().unwrap(), ["bucket[3](id) as id_bucket"]);
    let layout = table.layout().unwrap();
    assert_eq!(layout.order, ["identity(v) desc nulls-last", "identity(id) desc nulls-first"]);
    let files: Vec<_> = layout.files.iter().map(|file| (file.spec, file.order)).collect();
    assert_eq!(files, [(0, Some(0)), (1, Some(1)), (1, Some(1)), (1, Some(1))]);

    // The first file's rows are in the order in which they came, each other file's in its own.
    let rows = table.rows_in_order().unwrap();
    let number = |cell: &serde_json::Value| cell.as_str().unwrap().parse::<i64>().unwrap();
    let keys: Vec<(i64, i64)> =
        rows.column("v").unwrap().iter().map(number).zip(rows.column("id").unwrap().iter().map(number)).collect();
    assert!(keys[..100].iter().map(|(_, id)| *id).eq(1..=100));
    let descents = keys[100..].windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert_eq!(descents, 2, "three sorted files");

    // Nothing to do for the same again; `sort_by` taken away leaves rows as they come.
    insert(session, 201, 300);
    Host::until_idle(&connector).unwrap();
    let plan = philotes(&["plan", connector.file().unwrap().to_str().unwrap()]).unwrap().success().unwrap();
    assert!(!plan.contains("partition_by says"), "{plan}");
    for reader in READERS_WITH_SPARK {
        assert_eq!(pairs_by(reader, &table), pairs_of_log(session), "as {reader} sees it");
    }
    // Pruned by partition and by bounds, as readers do.
    for reader in READERS_WITH_SPARK {
        assert_eq!(reader.number(&table, "select count(*) from t where id = 150 and v = 0").unwrap(), 1, "{reader}");
    }
    assert_sound(&table);
    assert_acknowledged(session);
}

/// Columns that Avro has no names for and paths no letters: each reader finds every row, and Spark writes beside us.
#[test]
fn tables_are_partitioned_by_columns_with_odd_names() {
    let Some(postgres) = postgres_or_skip() else { return };
    let session = postgres.session().unwrap();
    let names = ["Day Of.Week", "a \\\"\\\"b\\\"\\\" /c", "émoji 😎", "UPPER", "9lives", "a b"];
    let quoted: Vec<String> = names.iter().map(|name| format!("\"\\\"{name}\\\"\"")).collect();
    for version in [2, 3] {
        let connector = Connector::new(&postgres.dsn()).unwrap().named(&format!("odd-{version}"));
        let connector = connector
            .source_id(&format!("odd{version}"))
            .source("poll_interval: 100ms")
            .sink(&format!("format_version: {version}"))
            .sink(&format!("partition_by: [{}]", quoted.join(", ")));
        odd_names_through(&session, &connector, &format!("odd{version}"));
    }
}

fn odd_names_through(session: &Session, connector: &Connector, name: &str) {
    session
        .batch(&format!(
            "create table {name} (\"Id\" bigint primary key, \"Day Of.Week\" text, \"a \"\"b\"\" /c\" integer, \"émoji 😎\" text, \
             \"UPPER\" date, \"9lives\" boolean, \"a b\" integer)",
        ))
        .unwrap();
    connector.capture(&[&format!("public.{name}")]).unwrap();
    let table = connector.table(&format!("cdc.public_{name}"));
    let write = |from: i64| {
        session
            .batch(&format!(
                "insert into {name} select i, 'Mo / ' || i % 2, i % 2, case i % 3 when 0 then null else 'ü😎=%' end, \
                 date '2026-01-01' + i % 2, i % 2 = 0, i % 3 from generate_series({from}, {}) i",
                from + 5
            ))
            .unwrap();
    };
    write(1);
    Host::until_idle(connector).unwrap();
    table.set_property_as_somebody_else("commit.manifest.min-count-to-merge", "2").unwrap();
    write(7);
    Host::until_idle(connector).unwrap();
    assert_eq!(Reader::DuckDb.number(&table, "select count(*) from t").unwrap(), 12);
    // A manifest by Java, into which it merges the others, with a letter that DuckDB's Avro takes for no part of a name: until
    // it is merged by us.
    let theirs = json!({
        "Id": 1001, "Day Of.Week": "Mo / 9", "a \"b\" /c": 1, "émoji 😎": "x", "a b": 6,
        "_cdc_operation": "INSERT", "_cdc_timestamp": 1_700_000_000_123_456_i64, "_cdc_lsn": "0/0",
    });
    table.append_as_somebody_else(Reader::Spark, &[theirs]).unwrap();
    for from in [13, 19] {
        write(from);
        Host::until_idle(connector).unwrap();
    }
    let select = "select \"Id\", \"Day Of.Week\", \"a \"\"b\"\" /c\", \"émoji 😎\", \"UPPER\", \"9lives\", \"a b\" from t \
                  where \"_cdc_operation\" = 'INSERT' order by 1";
    let expected = Reader::PyIceberg.query(&table, select).unwrap().rows;
    assert_eq!(expected.len(), 25);
    assert_eq!(Reader::DuckDb.query(&table, select).unwrap().rows, expected);
    let select = select.replace("\"\"b\"\"", "'b'").replace('"', "`").replace("'b'", "\"b\"");
    assert_eq!(Reader::Spark.query(&table, &select).unwrap().rows, expected);
    for reader in READERS_WITH_SPARK {
        let quote = if reader == Reader::Spark { '`' } else { '"' };
        let filter =
            format!("select count(*) from t where {quote}a b{quote} = 2 and {quote}Day Of.Week{quote} = 'Mo / 0'");
        assert_eq!(reader.number(&table, &filter).unwrap(), 4, "{reader}");
    }
    let files = Reader::PyIceberg.files(&table).unwrap();
    assert!(files.iter().any(|file| file.path.contains("/Day+Of.Week=Mo+%2F+1/a+%22b%22+%2Fc=1/")), "{files:?}");
}

/// A partition value of every type that rows can be partitioned by as they are, in manifests that each reader reads.
#[test]
fn tables_are_partitioned_by_columns_of_every_type() {
    let Some(postgres) = postgres_or_skip() else { return };
    let session = postgres.session().unwrap();
    session
        .batch(
            "create table kinds (id bigint primary key, u uuid, n numeric(9,2), m numeric(38,10), d date, tz timestamptz, ts timestamp, \
             b bytea, o boolean, r real, f double precision, t text, i integer, u2 uuid, n2 numeric(9,2))",
        )
        .unwrap();
    let columns = ["u", "n", "m", "d", "tz", "ts", "b", "o", "r", "f", "t", "i", "id", "\"bucket(8, u2)\"", "n2"];
    let connector = Connector::new(&postgres.dsn()).unwrap().source("poll_interval: 100ms");
    let connector = connector.sink(&format!("partition_by: [{}]", columns.join(", ")));
    connector.capture(&["public.kinds"]).unwrap();
    session
        .batch(
            "insert into kinds values \
             (1, '00000000-0000-0000-0000-000000000001', -0.01, -1234567890123456789012345678.0123456789, '1969-12-31', \
              '1969-12-31 23:59:59.999999+00', '1969-12-31 23:59:59.999999', '\\x00ff', true, 'NaN', '-infinity', 'a/b=c', -1, null, null), \
             (2, 'f79c3e09-677c-4bbd-a479-3f349cb785e7', 9999999.99, 0, '0001-01-01', '9999-12-31 23:59:59.999999+00', \
              '2026-01-01', '', false, 'infinity', 0.5, '', 2147483647, '00000000-0000-0000-0000-000000000002', 1), \
             (3, null, null, null, null, null, null, null, null, null, null, null, null, null, null), \
             (4, 'f79c3e09-677c-4bbd-a479-3f349cb785e7', 9999999.99, 0, '0001-01-01', '9999-12-31 23:59:59.999999+00', \
              '2026-01-01', '', false, 0.0, 0.5, '', 2147483647, '00000000-0000-0000-0000-000000000002', 1)",
        )
        .unwrap();
    Host::until_idle(&connector).unwrap();
    let table = connector.table("cdc.public_kinds");
    assert_eq!(Reader::PyIceberg.files(&table).unwrap().len(), 4);
    let select = "select id, u, n, m, d, tz, ts, b, o, r, f, t, i from t order by id";
    let float =
        |value: f64| json!(value.to_bits().to_be_bytes().iter().map(|b| format!("{b:02x}")).collect::<String>());
    let uuid = "f79c3e09-677c-4bbd-a479-3f349cb785e7";
    let (zero, last, new_year) = ("0.0000000000", "253402300799999999", "1767225600000000");
    let expected = json!([
        [
            "1",
            "00000000-0000-0000-0000-000000000001",
            "-0.01",
            "-1234567890123456789012345678.0123456789",
            "-1",
            "-1",
            "-1",
            "00ff",
            "true",
            float(f64::NAN),
            float(f64::NEG_INFINITY),
            "a/b=c",
            "-1"
        ],
        [
            "2",
            uuid,
            "9999999.99",
            zero,
            "-719162",
            last,
            new_year,
            "",
            "false",
            float(f64::INFINITY),
            float(0.5),
            "",
            "2147483647"
        ],
        ["3", null, null, null, null, null, null, null, null, null, null, null, null],
        [
            "4",
            uuid,
            "9999999.99",
            zero,
            "-719162",
            last,
            new_year,
            "",
            "false",
            float(0.0),
            float(0.5),
            "",
            "2147483647"
        ],
    ]);
    for reader in READERS_WITH_SPARK {
        assert_eq!(json!(reader.query(&table, select).unwrap().rows), expected, "{reader}");
        // By the bounds in the manifest list.
        for (id, of) in [(uuid, 2), ("00000000-0000-0000-0000-000000000001", 1)] {
            let filter = format!("select count(*) from t where u = '{id}' and n is not null");
            assert_eq!(reader.number(&table, &filter).unwrap(), of, "{reader}");
        }
    }
    let faults = table.file_faults().unwrap();
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Times that no calendar of the readers' languages holds, as partition values and in the order of a file.
#[test]
fn times_at_their_ends_are_partitioned_and_sorted() {
    let Some(postgres) = postgres_or_skip() else { return };
    let session = postgres.session().unwrap();
    session.batch("create table ends (id bigint primary key, d date, tz timestamptz)").unwrap();
    let connector = Connector::new(&postgres.dsn()).unwrap().source("poll_interval: 100ms");
    let partition_by = "partition_by: [month(d), \"bucket(4, d)\", day(tz), \"bucket(4, tz)\"]";
    let connector = connector.sink(partition_by).sink("sort_by: [tz desc nulls first, d]");
    connector.capture(&["public.ends"]).unwrap();
    session
        .batch(
            "insert into ends values (1, 'infinity', 'infinity'), (2, '-infinity', '-infinity'), (3, '4714-11-24 BC', '4714-11-24 BC'), \
             (4, '5874897-12-31', '294246-12-31 23:59:59.999999+00'), (5, '2026-01-24', '2026-01-24 00:00:00+00'), (6, null, null), \
             (7, 'infinity', 'infinity')",
        )
        .unwrap();
    Host::until_idle(&connector).unwrap();
    let table = connector.table("cdc.public_ends");
    assert_eq!(Reader::PyIceberg.files(&table).unwrap().len(), 6);
    let faults = table.file_faults().unwrap();
    assert!(faults.is_empty(), "{faults:#?}");
    // Days and microseconds since 1970; infinity is the number before the last.
    let expected = json!([
        ["1", "2147483647", "9223372036854775807"],
        ["2", "-2147483647", "-9223372036854775807"],
        ["3", "-2440588", "-210866803200000000"],
        ["4", "2145042905", "9223371244799999999"],
        ["5", "20477", "1769212800000000"],
        ["6", null, null],
        ["7", "2147483647", "9223372036854775807"],
    ]);
    for reader in READERS_WITH_SPARK {
        let rows = reader.query(&table, "select id, d, tz from t order by id").unwrap().rows;
        assert_eq!(json!(rows), expected, "{reader}");
        assert_eq!(reader.number(&table, "select count(*) from t where d > date '2025-01-01'").unwrap(), 4, "{reader}");
    }
}

/// The catalog gives the columns ids of its own; the order speaks of the same columns still.
#[test]
fn a_table_is_made_sorted_in_a_rest_catalog() {
    let Some(bed) = bed_or_skip() else { return };
    let connector = Connector::rest(&bed.postgres.dsn(), &bed.rest, &bed.minio).unwrap();
    let (session, connector) = captured_by(&bed.postgres, connector);
    let connector = connector.sink("sort_by: [v desc, id]").sink("partition_by: [\"truncate(4, who)\"]");
    insert(&session, 1, 50);
    Host::until_idle(&connector).unwrap();
    let table = connector.table("cdc.public_t");
    let layout = table.layout().unwrap();
    assert_eq!(
        (layout.version, layout.order),
        (2, ["identity(v) desc nulls-last", "identity(id) asc nulls-first"].map(str::to_owned).into())
    );
    assert_eq!(layout.files.iter().map(|file| (file.spec, file.order)).collect::<Vec<_>>(), [(0, Some(1))]);
    let found = table.rows_in_order().unwrap().column("id").unwrap();
    let expected: Vec<_> = (0..10)
        .rev()
        .flat_map(|v| (1..=50).filter(move |id| id % 10 == v))
        .map(|id: i64| json!(id.to_string()))
        .collect();
    assert_eq!(found, expected);
    assert_eq!(pairs(&table), pairs_of_log(&session));
}
