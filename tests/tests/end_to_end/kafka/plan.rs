//! What an operator is told before a connector runs: `plan` and `validate --connect`.

use philotes_tests::host::{Finished, philotes};

use super::broker::Broker;
use super::{connector, filled};

fn validate(connector: &philotes_tests::connector::Connector) -> Finished {
    philotes(&["validate", "--connect", connector.file().unwrap().to_str().unwrap()]).unwrap()
}

#[test]
fn plan_prints_and_commits_nothing() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "planned";
    let (_, connector) = filled(&client, broker.bootstrap(), topic, 10, 2);
    let file = connector.file().unwrap();
    let printed = philotes(&["plan", file.to_str().unwrap()]).unwrap().success().unwrap();
    for word in ["cdc.planned", "id", "long", "pad", "string", "_kafka_offset"] {
        assert!(printed.contains(word), "no {word:?} in: {printed}");
    }
    assert_eq!(client.committed(topic, topic, 0).unwrap(), None);
    assert_eq!(client.members(topic).unwrap(), 0);
    let left: Vec<_> = std::fs::read_dir(connector.dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["shop.yaml"], "plan wrote something");
}

#[test]
fn validate_asks_the_broker() {
    let Some((broker, client)) = Broker::shared() else { return };
    let (_, good) = filled(&client, broker.bootstrap(), "valid", 1, 1);
    let found = validate(&good);
    assert_eq!(found.code, 0, "{found:?}");

    let nobody = connector("127.0.0.1:9", "valid");
    let found = validate(&nobody);
    assert_eq!(found.code, 2, "{found:?}");
    assert!(found.stdout.contains("source.bootstrap_servers") && found.stdout.contains("127.0.0.1:9"), "{found:?}");

    let found = validate(&connector(broker.bootstrap(), "nowhere_to_be_found"));
    assert_eq!(found.code, 2, "{found:?}");
    assert!(found.stdout.contains("source.topics") && found.stdout.contains("nowhere_to_be_found"), "{found:?}");
}
