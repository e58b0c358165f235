//! One group of several hosts and tasks: they share the partitions, come, go, die and are taken for dead, and each message is in
//! the table once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::kafka::{Client, Record};
use philotes_tests::services::iceberg_rest::IcebergRest;
use philotes_tests::services::minio::Minio;
use philotes_tests::{eventually, or_skip};

use super::broker::Broker;
use super::{Produced, SOON, assert_once, message, of_group, turn};
use crate::PATIENCE;

const PARTITIONS: i32 = 6;

/// Where several hosts can write.
struct Lake {
    minio: Minio,
    rest: IcebergRest,
}

impl Lake {
    fn start() -> Option<Self> {
        or_skip(|| {
            let minio = Minio::start()?;
            Ok(Self { rest: IcebergRest::start(&minio)?, minio })
        })
    }

    /// A connector as each of the hosts has it.
    fn connector(&self, bootstrap: &str, topic: &str) -> Connector {
        let connector = Connector::kafka_rest(bootstrap, &self.rest, &self.minio).unwrap();
        of_group(connector, topic).source(&format!("topics: [{topic}]")).source(SOON)
    }
}

/// Produces some thousand messages a second until it is told to end; what was produced.
struct Load {
    ended: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Produced>,
}

impl Load {
    fn start(bootstrap: &str, topic: &'static str, first: i64) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let client = Client::new(bootstrap).unwrap();
        let thread = std::thread::spawn({
            let ended = Arc::clone(&ended);
            move || {
                let producer = client.producer().unwrap();
                let mut next = first;
                while !ended.load(Ordering::Relaxed) {
                    for id in next..next + 120 {
                        producer.send(topic, turn(id, PARTITIONS), &Record::of(&message(id))).unwrap();
                    }
                    next += 120;
                    producer.flush().unwrap();
                    std::thread::sleep(Duration::from_millis(20));
                }
                Produced::in_turn(0..next, PARTITIONS)
            }
        });
        Self { ended, thread }
    }

    fn end(self) -> Produced {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn wait_for_members(client: &Client, group: &str, members: usize, hosts: &[&Host]) {
    let mut found = 0;
    let joined = eventually(PATIENCE, || {
        found = client.members(group)?;
        Ok(found == members)
    });
    let logs: Vec<String> = hosts.iter().map(|host| story(host)).collect();
    assert!(joined.unwrap(), "{found} members instead of {members}: {}", logs.join("\n---\n"));
}

/// A host's log without its many commits.
fn story(host: &Host) -> String {
    host.log().lines().filter(|line| !line.contains("plugin: committed")).collect::<Vec<_>>().join("\n")
}

/// Waits until a host has been given partitions.
fn wait_for_share(host: &mut Host) {
    host.wait_for_log(&["assigned partitions"], PATIENCE).unwrap();
}

/// How often a host was given partitions.
fn shares(host: &Host) -> usize {
    let none = "partitions=0";
    host.log().lines().filter(|line| line.contains("assigned partitions") && !line.contains(none)).count()
}

#[test]
fn members_leave_join_and_are_killed() {
    let topic = "shared";
    let (Some((broker, client)), Some(lake)) = (Broker::shared(), Lake::start()) else { return };
    client.create_topic(topic, PARTITIONS).unwrap();
    let (one, two) = (lake.connector(broker.bootstrap(), topic), lake.connector(broker.bootstrap(), topic));
    let tasks = lake.connector(broker.bootstrap(), topic).top("tasks: 2");
    let table = one.table("cdc.shared");
    let load = Load::start(broker.bootstrap(), topic, 0);
    let pause = || std::thread::sleep(Duration::from_secs(2));

    let mut first = Host::start(&one, &[]).unwrap();
    wait_for_share(&mut first);
    pause();
    let mut second = Host::start(&two, &[]).unwrap();
    let mut third = Host::start(&tasks, &[]).unwrap();
    for host in [&mut second, &mut third] {
        wait_for_share(host);
    }
    wait_for_members(&client, topic, 4, &[&first, &second, &third]);
    pause();
    second.terminate().unwrap();
    pause();
    third.kill9();
    pause();
    let second = Host::start(&two, &[]).unwrap();
    pause();
    first.kill9();
    let first = Host::start(&tasks, &[]).unwrap();
    wait_for_members(&client, topic, 3, &[&first, &second]);
    pause();
    let produced = load.end();
    let done = eventually(PATIENCE, || {
        Ok(philotes_tests::readers::Reader::DuckDb.number(&table, "select count(*) from t")? >= produced.rows())
    });
    assert!(done.unwrap(), "{}\n---\n{}", story(&first), story(&second));
    for host in [first, second] {
        host.terminate().unwrap();
    }
    assert_once(&table, &produced);

    // After all have left: the table is what counts, and one goes on for all.
    client.delete_group(topic).unwrap();
    let load = Load::start(broker.bootstrap(), topic, produced.rows());
    std::thread::sleep(Duration::from_millis(500));
    let produced = load.end();
    Host::until_idle(&one).unwrap();
    assert_once(&table, &produced);
}

/// A host is stopped for longer than the group waits, another one goes on with its partitions, and the first is continued: it
/// finds that it was given up, and what it still had is nowhere.
#[test]
fn a_member_that_was_given_up_is_fenced() {
    let topic = "given_up";
    let (Some((broker, client)), Some(lake)) = (Broker::shared(), Lake::start()) else { return };
    client.create_topic(topic, PARTITIONS).unwrap();
    let connector = lake.connector(broker.bootstrap(), topic);
    let table = connector.table("cdc.given_up");
    let load = Load::start(broker.bootstrap(), topic, 0);
    let mut first = Host::start(&connector, &[]).unwrap();
    wait_for_share(&mut first);
    let mut second = Host::start(&connector, &[]).unwrap();
    wait_for_share(&mut second);
    wait_for_members(&client, topic, 2, &[&first, &second]);
    for round in 1..=3 {
        // It has partitions to lose.
        let has_share = eventually(PATIENCE, || Ok(shares(&first) >= round)).unwrap();
        assert!(has_share, "round {round}: {}", story(&first));
        std::thread::sleep(Duration::from_secs(1));
        // While the two begin, either may be fenced by the other.
        let is_fence = |line: &str| line.contains("reopening") && line.contains("kind=\"fenced\"");
        let fences = || first.log().lines().filter(|line| is_fence(line)).count();
        let before = fences();
        first.signal("STOP");
        wait_for_members(&client, topic, 1, &[&first, &second]);
        std::thread::sleep(Duration::from_secs(2));
        first.signal("CONT");
        let is_fenced = || Ok(fences() > before);
        assert!(eventually(PATIENCE, is_fenced).unwrap(), "round {round}: {}", story(&first));
    }
    let produced = load.end();
    for host in [first, second] {
        host.terminate().unwrap();
    }
    Host::until_idle(&connector).unwrap();
    assert_once(&table, &produced);
}
