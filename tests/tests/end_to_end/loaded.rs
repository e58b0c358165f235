//! pgbench's tables, one of them without a key, and the quickstart's shop under load: several clients at once, and a host that is
//! killed in the midst of it.

use std::io::Write;
use std::time::Instant;

use philotes_tests::connector::Connector;
use philotes_tests::equal::expect_same;
use philotes_tests::host::Host;
use philotes_tests::readers::READERS;
use philotes_tests::sql::Session;
use philotes_tests::{postgres_or_skip, shop};

const PGBENCH: [&str; 4] =
    ["public.pgbench_accounts", "public.pgbench_branches", "public.pgbench_history", "public.pgbench_tellers"];
const ACCOUNTS: u32 = 100_000;
const CLIENTS: u32 = 4;
const TRANSACTIONS: u32 = 500;
const TRADERS: u32 = 3;
const ROUNDS: u32 = 4;

#[test]
fn pgbench_and_the_shop_under_load() {
    let Some(postgres) = postgres_or_skip() else { return };
    let session = postgres.session().unwrap();
    // Without its own data, which begins with a TRUNCATE.
    postgres.pgbench(&["--initialize", "--init-steps=dtp"]).unwrap();
    shop::create(&session).unwrap();
    let connector = Connector::new(&postgres.dsn()).unwrap().source("poll_interval: 100ms");
    let tables: Vec<&str> = PGBENCH.into_iter().chain(shop::TABLES).collect();
    connector.capture(&tables).unwrap();

    let start = Instant::now();
    let host = Host::start(&connector, &[]).unwrap();
    session
        .batch(&format!(
            "insert into pgbench_branches select 1, 0; \
             insert into pgbench_tellers select i, 1, 0 from generate_series(1, 10) i; \
             insert into pgbench_accounts select i, 1, 0, '' from generate_series(1, {ACCOUNTS}) i"
        ))
        .unwrap();
    std::thread::scope(|scope| {
        for trader in 0..TRADERS {
            let dsn = postgres.dsn();
            scope.spawn(move || {
                let session = Session::connect(&dsn).unwrap();
                for round in 0..ROUNDS {
                    shop::trade(&session, trader * ROUNDS + round, 100).unwrap();
                }
            });
        }
        let (clients, transactions) = (format!("--client={CLIENTS}"), format!("--transactions={TRANSACTIONS}"));
        postgres.pgbench(&["--no-vacuum", &clients, "--jobs=2", &transactions]).unwrap();
    });
    assert!(!host.log().contains("FAILED"), "{}", host.log_tail());
    host.kill9();
    Host::until_idle(&connector).unwrap();
    let streamed = start.elapsed().as_secs_f32();

    let history = session.number("select count(*) from pgbench_history").unwrap();
    assert_eq!(history, i64::from(CLIENTS * TRANSACTIONS));
    for reader in READERS {
        let start = Instant::now();
        let same = |name: &&str| {
            let table = connector.table(&format!("cdc.{}", name.replace('.', "_")));
            expect_same(&session, "shop", name, reader, &table).unwrap()
        };
        let changes: usize = tables.iter().map(same).sum();
        let seconds = start.elapsed().as_secs_f32();
        let line = format!("loaded, {reader}: {changes} changes in {streamed:.1} s equal ({seconds:.1} s)\n");
        // Past the harness, which shows what a test prints only where the test fails.
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
}
