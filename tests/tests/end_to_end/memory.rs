//! Memory is a reason to commit, whatever the connector's `commit` says.

use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::readers::{READERS, Reader};
use philotes_tests::{eventually, postgres_or_skip};

use crate::PATIENCE;

#[test]
fn rows_that_memory_has_no_room_for_are_committed_before_their_time() {
    let Some(postgres) = postgres_or_skip() else { return };
    let session = postgres.session().unwrap();
    let tables: Vec<String> = (0..6).map(|table| format!("public.wide_{table}")).collect();
    let connector = Connector::new(&postgres.dsn())
        .unwrap()
        .source("poll_interval: 100ms")
        .top("commit: {interval: 1h, max_rows: 1000000, max_bytes: 1GiB}")
        .top("max_memory: 16MiB");
    for table in &tables {
        session.batch(&format!("create table {table} (id bigint primary key, v integer, large text)")).unwrap();
    }
    connector.capture(&tables.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    // Row by row another table, as if nobody wanted a row group to fill.
    for id in 1..=8 {
        for table in &tables {
            // Random, so that no encoder makes little of it.
            let large = "string_agg(md5(random()::text || i), '')";
            let from = "from generate_series(1, 32768) i";
            session.batch(&format!("insert into {table} select {id}, 1, {large} {from}")).unwrap();
        }
    }
    let host = Host::start(&connector, &[]).unwrap();
    let first = connector.table("cdc.public_wide_0");
    let count = "select count(*) from t";
    let early = eventually(PATIENCE, || Ok(Reader::DuckDb.number(&first, count).unwrap_or(0) > 0)).unwrap();
    assert!(early, "nothing was committed: {}", host.log_tail());
    host.terminate().unwrap();
    // What it had not read yet.
    Host::until_idle(&connector).unwrap();
    for table in &tables {
        for reader in READERS {
            let table = connector.table(&format!("cdc.{}", table.replace('.', "_")));
            let sql = "select count(distinct id) * 1000000000 + sum(length(large)) from t";
            assert_eq!(reader.number(&table, sql).unwrap(), 8_000_000_000 + 8 * (1 << 20), "{reader}: {}", table.name);
        }
    }
}
