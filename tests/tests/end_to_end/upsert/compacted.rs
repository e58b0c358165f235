//! Spark has compacted the table: what comes after that is applied to its files as well.

use philotes_tests::connector::Connector;
use philotes_tests::equal::expect_current;
use philotes_tests::host::Host;
use philotes_tests::postgres_or_skip;
use philotes_tests::readers::{Dangling, Reader};

/// Java compares UUIDs as two signed numbers, and bounds that it has written itself are in the order of their bytes: it would not apply a
/// delete file to its own data file if they were held against each other.
#[test]
fn a_uuid_is_deleted_from_a_file_of_sparks() {
    let Some(postgres) = postgres_or_skip() else { return };
    let session = postgres.session().unwrap();
    session.batch("create table t (id uuid primary key, v integer not null)").unwrap();
    let connector = Connector::new(&postgres.dsn()).unwrap().sink("mode: upsert");
    connector.capture(&["public.t"]).unwrap();
    let uuid = |digit: u32| format!("{digit:x}3992e9a-68c5-ae12-bd18-488bc579b30d");
    for digit in 0..16 {
        session.batch(&format!("insert into t values ('{}', {digit})", uuid(digit))).unwrap();
    }
    Host::until_idle(&connector).unwrap();
    let table = connector.table("cdc.public_t");
    table.rewrite_as_somebody_else(Dangling::Keep).unwrap();
    // Each key in a delete file of its own, and so between bounds of one sign.
    for digit in [0, 4, 8, 12, 15] {
        let change = if digit % 8 == 0 { "delete from t" } else { "update t set v = -v" };
        session.batch(&format!("{change} where id = '{}'", uuid(digit))).unwrap();
        Host::until_idle(&connector).unwrap();
    }
    for compacted in [false, true] {
        if compacted {
            table.rewrite_as_somebody_else(Dangling::Keep).unwrap();
        }
        for reader in [Reader::DuckDb, Reader::Spark] {
            assert_eq!(expect_current(&session, "public.t", reader, &table).unwrap(), 14, "{reader}, {compacted}");
        }
    }
}
