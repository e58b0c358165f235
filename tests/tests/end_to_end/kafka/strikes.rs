//! The host dies, fails, panics and stalls at each failpoint of the Kafka source, and dies at those of host and sink; a plain one is
//! started after it, and each message is in the table once.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use philotes_tests::eventually;
use philotes_tests::failpoints::{FAILPOINTS, Failpoint, KAFKA_FAILPOINTS};
use philotes_tests::host::Host;
use philotes_tests::kafka::Client;

use super::broker::Broker;
use super::{Produced, SOON, connector, found_by, produce};
use crate::PATIENCE;
use philotes_tests::readers::READERS;

const PARTITIONS: i32 = 4;
/// Messages of a part.
const PART: i64 = 400;
/// Cases at a time: they wait more than they work.
const AT_ONCE: usize = 4;

/// What happens at the point: the action of the crate `fail`, and whether it ends the process.
const BLOWS: [(&str, &str, bool); 4] = [
    ("abort", "return(abort)", true),
    ("error", "return", false),
    ("panic", "panic", true),
    ("stall", "sleep(3000)", false),
];

struct Case {
    point: &'static Failpoint,
    blow: &'static str,
    action: &'static str,
    /// The process is gone then.
    ends: bool,
}

impl Case {
    fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        for point in &KAFKA_FAILPOINTS {
            for (blow, action, ends) in BLOWS {
                cases.push(Self { point, blow, action, ends });
            }
        }
        // Those of the letters are not passed here, and the others' are PostgreSQL's.
        let shared = ["token.", "host.", "file.", "commit.", "schema."];
        for point in FAILPOINTS.iter().filter(|point| shared.iter().any(|prefix| point.name.starts_with(prefix))) {
            if point.name != "schema.altered" {
                cases.push(Self { point, blow: "abort", action: "return(abort)", ends: true });
            }
        }
        cases
    }

    fn run(&self, client: &Client, bootstrap: &str, number: usize) -> Result<()> {
        let topic = format!("strike{number}");
        client.create_topic(&topic, PARTITIONS)?;
        let producer = client.producer()?;
        produce(&producer, &topic, 0..PART, PARTITIONS);
        let connector = connector(bootstrap, &topic).source(SOON).source("batch_rows: 50");
        let before = if self.point.at_start { "" } else { "1*off->" };
        let failpoints = format!("{}={before}1*{}", self.point.name, self.action);
        let environment = [("FAILPOINTS", failpoints), ("RUST_BACKTRACE", "0".to_owned())];
        let log = connector.dir().join("struck.log");
        let mut struck = Host::start_in(&environment, &connector.file()?, &log, &[])?;
        // Somebody to take over from it, which is when it is revoked something.
        let second = if self.point.name == "kafka.revoked" {
            struck.wait_for_log(&["assigned partitions"], PATIENCE)?;
            Some(Host::start(&connector, &[])?)
        } else {
            None
        };
        let mut next = PART;
        let mut part = || {
            produce(&producer, &topic, next..next + PART, PARTITIONS);
            next += PART;
            std::thread::sleep(Duration::from_millis(300));
        };
        if self.ends {
            let gone = eventually(PATIENCE, || {
                part();
                Ok(!struck.is_running()?)
            })?;
            ensure(gone, "it did not die", &struck)?;
        } else {
            (0..10).for_each(|_| part());
            // It has to go on by itself.
            ensure(struck.is_running()?, "it did not go on", &struck)?;
            ensure(self.blow == "stall" || struck.log().contains(self.point.name), "nothing happened", &struck)?;
            struck.terminate()?;
        }
        if let Some(second) = second {
            second.terminate()?;
        }
        Host::until_idle(&connector)?;
        let expected = Produced::in_turn(0..next, PARTITIONS);
        for reader in READERS {
            let found = found_by(reader, &connector.table(&format!("cdc.{topic}")))?;
            ensure!(found == expected, "{reader} finds {found:?} instead of {expected:?}");
        }
        Ok(())
    }
}

fn ensure(holds: bool, otherwise: &str, host: &Host) -> Result<()> {
    if holds { Ok(()) } else { bail!("{otherwise}: {}", host.log_tail()) }
}

#[test]
fn each_message_is_there_once_wherever_it_is_struck() {
    philotes_tests::chaos::compiled_in().unwrap();
    let Some((broker, _)) = Broker::shared() else { return };
    let (cases, next, failed) = (Case::all(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    assert!(cases.len() >= 24, "{} cases", cases.len());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let client = Client::new(broker.bootstrap()).unwrap();
                while let Some((number, case)) = {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    cases.get(number).map(|case| (number, case))
                } {
                    let outcome = case.run(&client, broker.bootstrap(), number);
                    if let Err(error) = outcome.with_context(|| format!("{} {}", case.point.name, case.blow)) {
                        failed.lock().unwrap().push(format!("{error:#}"));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {} cases: {}", failed.len(), cases.len(), failed.join("\n"));
}
