//! A REST catalog and S3 instead of the embedded catalog and a folder.

use std::time::{Duration, Instant};

use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::readers::{Reader, Rest, Table};
use philotes_tests::services::Server;
use philotes_tests::services::iceberg_rest::IcebergRest;
use philotes_tests::services::loans::Loans;
use philotes_tests::services::minio::Minio;
use philotes_tests::services::proxy::{Answer, Fault, Proxy, Rule};
use philotes_tests::{bed_or_skip, eventually, or_skip, postgres_or_skip};

use crate::foreign::append;
use crate::{PATIENCE, assert_acknowledged, captured_by, pairs, pairs_of_log, wait_for_rows};

#[test]
fn rows_arrive_through_a_rest_catalog_in_s3() {
    let Some(bed) = bed_or_skip() else { return };
    let connector = Connector::rest(&bed.postgres.dsn(), &bed.rest, &bed.minio).unwrap();
    let (session, connector) = captured_by(&bed.postgres, connector);
    session.batch("insert into t select i, 1 from generate_series(1, 1000) i").unwrap();
    session.batch("update t set v = 2 where id <= 10; delete from t where id > 990").unwrap();
    Host::until_idle(&connector).unwrap();

    let table = connector.table("cdc.public_t");
    let expected = pairs_of_log(&session);
    assert_eq!(expected.len(), 1020);
    assert_eq!(pairs(&table), expected);
    assert_acknowledged(&session);

    Host::until_idle(&connector).unwrap();
    assert_eq!(pairs(&table), expected);
}

#[test]
fn the_catalog_and_the_storage_are_killed_for_ten_seconds() {
    let Some(mut bed) = bed_or_skip() else { return };
    let connector = Connector::rest(&bed.postgres.dsn(), &bed.rest, &bed.minio).unwrap();
    let (session, connector) = captured_by(&bed.postgres, connector);
    let table = connector.table("cdc.public_t");
    let insert = |from: i64, to: i64| {
        session.batch(&format!("insert into t select i, 1 from generate_series({from}, {to}) i")).unwrap();
    };
    insert(1, 1000);
    let mut host = Host::start(&connector, &[]).unwrap();
    wait_for_rows(&table, 1000);

    bed.rest.kill9();
    insert(1001, 2000);
    host.wait_for_log(&["unavailable"], PATIENCE).unwrap();
    std::thread::sleep(Duration::from_secs(10));
    assert!(host.is_running().unwrap(), "{}", host.log_tail());
    bed.rest.restart().unwrap();
    insert(2001, 3000);
    wait_for_rows(&table, 3000);

    let reported = lines_with_unavailable(&host);
    bed.minio.kill9();
    insert(3001, 4000);
    let again = eventually(PATIENCE, || Ok(lines_with_unavailable(&host) > reported)).unwrap();
    assert!(again, "the storage's end is not in the host's log: {}", host.log_tail());
    std::thread::sleep(Duration::from_secs(10));
    assert!(host.is_running().unwrap(), "{}", host.log_tail());
    bed.minio.restart().unwrap();
    insert(4001, 5000);
    wait_for_rows(&table, 5000);

    host.terminate().unwrap();
    let expected: Vec<(i64, i64)> = (1..=5000).map(|id| (id, 1)).collect();
    assert_eq!(pairs(&table), expected);
    assert_acknowledged(&session);
}

/// What a network and its proxies do to requests: whatever it is, every row arrives once.
#[test]
fn requests_and_replies_are_lost_and_doubled() {
    let Some(bed) = bed_or_skip() else { return };
    let proxy = Proxy::http(bed.rest.port()).unwrap();
    let uri = format!("http://127.0.0.1:{}", proxy.port());
    let rest = Rest::at(&uri, IcebergRest::WAREHOUSE, &bed.minio);
    let connector = Connector::rest_at(&bed.postgres.dsn(), rest).unwrap();
    let (session, connector) = captured_by(&bed.postgres, connector);
    let table = connector.table("cdc.public_t");
    let host = Host::start(&connector, &[]).unwrap();
    let mut rows = 0;
    let mut insert = || {
        session
            .batch(&format!("insert into t select i, 1 from generate_series({}, {}) i", rows + 1, rows + 100))
            .unwrap();
        rows += 100;
        rows
    };
    wait_for_rows(&table, insert());
    for fault in [
        Fault::Swallow,
        Fault::Cut(40),
        Fault::Double(Answer::First),
        // The first has succeeded, and what the client gets is a conflict with itself.
        Fault::Double(Answer::Second),
        Fault::Reset,
        Fault::Refuse,
        Fault::Delay(Duration::from_secs(2)),
    ] {
        let before = proxy.struck();
        proxy.set(Rule::new(fault).on("POST", "/tables/public_t").times(1)).unwrap();
        wait_for_rows(&table, insert());
        assert!(proxy.struck() > before, "{fault:?}");
        proxy.clear().unwrap();
    }
    // The reply is lost of a commit that failed: somebody else has moved the table since.
    let mut expected: Vec<(i64, i64)> = Vec::new();
    let direct = Table::rest(&Rest::new(&bed.rest, &bed.minio), "cdc.public_t");
    for (number, fault) in (1..).zip([Fault::Swallow, Fault::Cut(40), Fault::Double(Answer::Second)]) {
        append(&direct, Reader::PyIceberg, 10_000 + number);
        expected.push((10_000 + number, 0));
        let before = proxy.struck();
        proxy.set(Rule::new(fault).on("POST", "/tables/public_t").times(1)).unwrap();
        wait_for_rows(&direct, insert() + number);
        assert!(proxy.struck() > before, "{fault:?} of a commit that failed");
        proxy.clear().unwrap();
    }
    host.terminate().unwrap();
    expected.extend((1..=rows).map(|id| (id, 1)));
    expected.sort_unstable();
    assert_eq!(pairs(&table), expected);
    assert_acknowledged(&session);
}

fn lines_with_unavailable(host: &Host) -> usize {
    host.log().to_lowercase().lines().filter(|line| line.contains("unavailable")).count()
}

/// Keys that live for three seconds, lent once at the start; the run takes many times as long. `PHILOTES_LOAN_SECONDS` and
/// `PHILOTES_LOAN_RUN_SECONDS` say other times.
#[test]
fn keys_that_are_lent_end_during_a_run() {
    let seconds = |variable: &str, usual: u64| {
        Duration::from_secs(std::env::var(variable).map_or(usual, |seconds| seconds.parse().unwrap()))
    };
    let (life, run) = (seconds("PHILOTES_LOAN_SECONDS", 3), seconds("PHILOTES_LOAN_RUN_SECONDS", 12));
    let Some(postgres) = postgres_or_skip() else { return };
    let servers = or_skip(|| {
        let minio = Minio::start()?;
        let loans = Loans::new(&minio, life)?;
        Ok((IcebergRest::start_lending(&minio, &loans)?, loans, minio))
    });
    let Some((rest, loans, minio)) = servers else { return };
    let connector = Connector::rest(&postgres.dsn(), &rest, &minio).unwrap().without_keys();
    let (session, connector) = captured_by(&postgres, connector);
    let host = Host::start(&connector, &[]).unwrap();
    let (started, mut rows) = (Instant::now(), 0);
    while started.elapsed() < run {
        session.batch(&format!("insert into t values ({rows}, 1)")).unwrap();
        rows += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    let table = connector.table("cdc.public_t");
    wait_for_rows(&table, rows);
    assert_eq!(lines_with_unavailable(&host), 0, "{}", host.log_tail());
    host.terminate().unwrap();

    let expected: Vec<(i64, i64)> = (0..rows).map(|id| (id, 1)).collect();
    assert_eq!(pairs(&table), expected);
    assert_acknowledged(&session);
    let (lent, refused) = loans.seen();
    println!("{lent} loans of {life:?} in {run:?}, {refused} requests with one that had ended");
    assert_eq!(refused, 0);
    assert!(lent as u64 >= run.as_secs() / life.as_secs(), "{lent} loans");
}
