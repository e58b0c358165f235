//! Files that a dead host has left: found, removed, and never a live one among them, whoever was asleep meanwhile.

use std::path::Path;

use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::readers::{READERS, Table};
use philotes_tests::services::postgres::Postgres;
use philotes_tests::sql::Session;
use philotes_tests::{bed_or_skip, eventually, postgres_or_skip};

use crate::{PATIENCE, assert_acknowledged, captured_by, pairs, wait_for_rows};

#[test]
fn on_a_disk() {
    let Some(postgres) = postgres_or_skip() else { return };
    let connector = Connector::new(&postgres.dsn()).unwrap();
    crashes_and_pauses(&postgres, connector);
}

#[test]
fn on_a_disk_in_format_3() {
    let Some(postgres) = postgres_or_skip() else { return };
    let connector = Connector::new(&postgres.dsn()).unwrap().sink("format_version: 3");
    crashes_and_pauses(&postgres, connector);
}

#[test]
fn in_s3_behind_a_rest_catalog() {
    let Some(bed) = bed_or_skip() else { return };
    let connector = Connector::rest(&bed.postgres.dsn(), &bed.rest, &bed.minio).unwrap();
    crashes_and_pauses(&bed.postgres, connector);
}

/// A connector, its table, and how many rows were written.
struct Shop {
    session: Session,
    connector: Connector,
    table: Table,
    rows: i64,
}

fn crashes_and_pauses(postgres: &Postgres, connector: Connector) {
    let (session, connector) = captured_by(postgres, connector);
    let table = connector.table("cdc.public_t");
    let mut shop = Shop { session, connector, table, rows: 0 };
    shop.insert();
    Host::until_idle(&shop.connector).unwrap();
    assert!(shop.orphans(&["older_than=0s"]).is_empty());

    // The data file of one, the data file, the manifest and the list of the next; then a commit nobody heard of.
    shop.insert();
    for point in ["file.stored", "commit.proposed", "commit.sent"] {
        let mut host = shop.start(&format!("{point}=1*return(abort)"), &[]);
        assert_eq!(host.wait(PATIENCE).unwrap(), -1, "{}", host.log_tail());
    }
    shop.assert_rows();
    let found = shop.orphans(&["older_than=0s"]);
    assert_eq!(found.iter().filter(|file| file.ends_with(".parquet")).count(), 2, "{found:?}");
    assert_eq!(found.iter().filter(|file| file.ends_with(".avro")).count(), 2, "{found:?}");
    assert!(shop.orphans(&["remove=true"]).is_empty(), "none is older than three days");
    assert_eq!(shop.orphans(&["older_than=0s"]), found);
    let live = shop.data_files();
    assert!(live.iter().all(|file| !found.contains(file)));
    assert_eq!(shop.orphans(&["older_than=0s", "remove=true"]), found);
    assert!(shop.orphans(&["older_than=0s"]).is_empty());
    assert_eq!(shop.data_files(), live);
    shop.assert_rows();
    Host::until_idle(&shop.connector).unwrap();
    shop.assert_rows();

    shop.removes_while_one_sleeps_before_it_sends();
    shop.removes_while_one_sleeps_before_it_knows();
    shop.fails_and_leaves_nothing();
}

impl Shop {
    fn insert(&mut self) {
        let from = self.rows + 1;
        self.rows += 100;
        let to = self.rows;
        self.session.batch(&format!("insert into t select i, 1 from generate_series({from}, {to}) i")).unwrap();
    }

    fn start(&self, failpoints: &str, arguments: &[&str]) -> Host {
        let log = self.connector.dir().join(format!("{}.log", failpoints.split('=').next().unwrap()));
        let environment = [("FAILPOINTS", failpoints.to_owned()), ("RUST_BACKTRACE", "0".to_owned())];
        Host::start_in(&environment, &self.connector.file().unwrap(), &log, arguments).unwrap()
    }

    /// The files that the action prints.
    fn orphans(&self, arguments: &[&str]) -> Vec<String> {
        let printed = self.connector.action(&[&["sink", "orphans"], arguments].concat()).unwrap();
        let mut lines = printed.lines();
        assert!(lines.next().unwrap().starts_with("table"), "{printed}");
        lines.map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect()
    }

    /// Every row once, by both readers, from files that are there.
    fn assert_rows(&self) {
        let expected: Vec<(i64, i64)> = (1..=self.rows).map(|id| (id, 1)).collect();
        assert_eq!(pairs(&self.table), expected);
        self.data_files();
    }

    /// The table's data files; those on this machine are there.
    fn data_files(&self) -> Vec<String> {
        let [one, other] = READERS.map(|reader| {
            let mut files: Vec<String> = reader.files(&self.table).unwrap().into_iter().map(|file| file.path).collect();
            files.sort();
            files
        });
        assert_eq!(one, other, "the readers differ");
        for path in one.iter().filter_map(|file| file.strip_prefix("file://")) {
            assert!(Path::new(path).exists(), "{path}");
        }
        one
    }

    /// Its data file and its manifests are stored, its request is not sent; it sleeps on while they go.
    fn removes_while_one_sleeps_before_it_sends(&mut self) {
        self.insert();
        let mut host = self.start("commit.proposed=1*sleep(8000)", &[]);
        let mut written = Vec::new();
        let proposed = eventually(PATIENCE, || {
            written = self.orphans(&["older_than=0s"]);
            Ok(written.iter().any(|file| file.contains("/snap-")))
        });
        assert!(proposed.unwrap(), "{}", host.log_tail());
        host.signal("STOP");
        let gone = self.orphans(&["older_than=0s", "remove=true"]);
        assert_eq!(gone, written);
        host.signal("CONT");
        host.wait_for_log(&["orphan files were removed meanwhile"], PATIENCE).unwrap();
        wait_for_rows(&self.table, self.rows);
        self.insert();
        wait_for_rows(&self.table, self.rows);
        host.terminate().unwrap();
        self.assert_rows();
        assert_acknowledged(&self.session);
    }

    /// Its commit is part of the table and it does not know; what another has left goes meanwhile.
    fn removes_while_one_sleeps_before_it_knows(&mut self) {
        let mut dead = self.start("file.stored=1*return(abort)", &[]);
        self.insert();
        assert_eq!(dead.wait(PATIENCE).unwrap(), -1, "{}", dead.log_tail());
        let mut host = self.start("commit.sent=1*sleep(8000)", &[]);
        wait_for_rows(&self.table, self.rows);
        host.signal("STOP");
        let gone = self.orphans(&["older_than=0s", "remove=true"]);
        assert!(gone.iter().any(|file| file.ends_with(".parquet")), "{gone:?}");
        self.assert_rows();
        host.signal("CONT");
        self.insert();
        host.wait_for_log(&["orphan files were removed meanwhile"], PATIENCE).unwrap();
        wait_for_rows(&self.table, self.rows);
        host.terminate().unwrap();
        self.assert_rows();
        assert_acknowledged(&self.session);
    }

    /// A host that fails before it sends takes its files with it, and so does one that recovers.
    fn fails_and_leaves_nothing(&mut self) {
        // What the last ones left.
        self.orphans(&["older_than=0s", "remove=true"]);
        self.insert();
        let host = self.start("commit.proposed=2*return", &[]);
        wait_for_rows(&self.table, self.rows);
        assert_acknowledged(&self.session);
        host.terminate().unwrap();
        assert_eq!(self.orphans(&["older_than=0s"]), [""; 0]);

        self.insert();
        let mut host = self.start("commit.proposed=return", &[]);
        host.wait_for_log(&["failpoint commit.proposed"], PATIENCE).unwrap();
        host.signal("TERM");
        host.wait(PATIENCE).unwrap();
        assert_eq!(self.orphans(&["older_than=0s"]), [""; 0]);
        Host::until_idle(&self.connector).unwrap();
        self.assert_rows();
    }
}
