use std::fs;

use super::*;
use crate::config::document::Process;
use crate::testing::World;

fn loaded(files: &[(&str, &str)]) -> (Vec<ConnectorConfig>, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let loaded = load(&[dir.path().to_owned()], &World::with_rows(0), &Process);
    let prefix = format!("{}/", dir.path().display());
    (loaded.connectors, loaded.faults.iter().map(|fault| fault.to_string().replace(&prefix, "")).collect())
}

fn faults(text: &str) -> Vec<String> {
    loaded(&[("f.yaml", text)]).1
}

const GOOD: &str = "name: shop\nsource: {plugin: memory-source}\nsink: {plugin: memory-sink}\n";

#[test]
fn a_whole_connector() {
    let (connectors, faults) = loaded(&[(
        "f.yaml",
        "name: shop-1
source: {plugin: memory-source, dsn: 'secret', rows: '${env:PHILOTES_NONE:-7}'}
sink: {plugin: memory-sink, mode: append}
route: {include: [public.*], exclude: ['*.x'], rename: {public.a: 'lake.\"b c\"'}}
commit: {interval: 500ms, max_rows: 5, max_bytes: 64KiB}
errors: {tolerance: none}
tasks: 2
retry: {initial: 2s, max: 1m, elapsed: 1h}
stalled_after: 5s
restart: {policy: never, initial: 1s, max: 2s, attempts: 3}
max_memory: 1GiB
",
    )]);
    assert!(faults.is_empty(), "{faults:?}");
    let [connector] = &connectors[..] else { panic!() };
    assert_eq!(connector.name, "shop-1");
    assert_eq!(connector.source.config, r#"{"dsn":"secret","rows":7}"#);
    assert_eq!(connector.sink.config, r#"{"mode":"append"}"#);
    assert_eq!((connector.route.include.len(), connector.route.exclude.len()), (1, 1));
    let (from, to) = connector.rename.iter().next().unwrap();
    assert_eq!((from.parts(), to.parts()), (&["public".into(), "a".into()][..], &["lake".into(), "b c".into()][..]));
    let ms = std::time::Duration::from_millis;
    assert_eq!(connector.commit, CommitPolicy { interval: ms(500), max_rows: 5, max_bytes: 65_536 });
    assert_eq!(connector.retry, RetryPolicy { initial: ms(2000), max: ms(60_000), elapsed: ms(3_600_000) });
    assert_eq!(connector.stalled_after, ms(5000));
    let restart = RestartPolicy { on_failure: false, initial: ms(1000), max: ms(2000), attempts: 3 };
    assert_eq!(connector.restart, restart);
    assert_eq!((connector.tasks, connector.max_memory), (2, Some(1 << 30)));
}

#[test]
fn defaults() {
    let (connectors, faults) = loaded(&[("f.yml", GOOD)]);
    assert!(faults.is_empty(), "{faults:?}");
    let ms = std::time::Duration::from_millis;
    assert_eq!(connectors[0].commit, CommitPolicy { interval: ms(10_000), max_rows: 1_000_000, max_bytes: 128 << 20 });
    assert_eq!((connectors[0].retry.initial, connectors[0].retry.max), (ms(1000), ms(30_000)));
    assert!(connectors[0].restart.on_failure);
    assert_eq!(connectors[0].stalled_after, ms(30_000));
    assert_eq!((connectors[0].tasks, connectors[0].max_memory), (1, None));
}

#[test]
fn each_fault_is_a_line_with_file_path_and_what_is_allowed() {
    for (from, to, expected) in [
        ("name: shop\n", "", "f.yaml: name: missing; allowed: [a-z0-9-]{1,63}"),
        ("shop", "My Shop", "f.yaml: name: found \"My Shop\"; allowed: [a-z0-9-]{1,63}"),
        ("source: {plugin: memory-source}", "", "f.yaml: source: missing; allowed: a map with plugin: memory-source"),
        ("{plugin: memory-source}", "{rows: 1}", "f.yaml: source.plugin: missing; allowed: memory-source"),
        ("{plugin: memory-source}", "5", "f.yaml: source: found a number; allowed: a map with plugin"),
        (
            "memory-sink",
            "memory-snk",
            "f.yaml: sink.plugin: no sink plugin \"memory-snk\" was found, did you mean memory-sink?; allowed: memory-sink",
        ),
        ("plugin: memory-sink", "plugin: memory-sink, rows: 13", "f.yaml: sink.rows: 13 brings bad luck"),
        ("plugin: memory-sink", "plugin: memory-sink, rows: 14", "f.yaml: sink: nothing goes: at all"),
        ("plugin: memory-sink", "plugin: memory-sink, rwos: 1", "f.yaml: sink.rwos: unknown key, did you mean rows?"),
        ("sink:", "comit: {}\nsink:", "f.yaml: comit: unknown key, did you mean commit?; allowed: name, source, sink"),
        ("sink:", "commit: {intervall: 1s}\nsink:", "f.yaml: commit.intervall: unknown key, did you mean interval?"),
        ("sink:", "commit: {interval: 10}\nsink:", "f.yaml: commit.interval: found the number 10; allowed: a duration"),
        ("sink:", "commit: {interval: 0s}\nsink:", "f.yaml: commit.interval: found \"0s\"; allowed: a duration"),
        ("sink:", "commit: {max_bytes: 1MB}\nsink:", "f.yaml: commit.max_bytes: found \"1MB\"; allowed: a size"),
        (
            "sink:",
            "commit: {max_rows: many}\nsink:",
            "f.yaml: commit.max_rows: found \"many\"; allowed: a whole number",
        ),
        ("sink:", "commit: 5\nsink:", "f.yaml: commit: found the number 5; allowed: a map"),
        (
            "sink:",
            "errors: {tolerance: all}\nsink:",
            "f.yaml: errors.tolerance: found \"all\"; allowed: none, dead-letter",
        ),
        (
            "sink:",
            "errors: {tolerance: dead-letter}\nsink:",
            "f.yaml: errors.tolerance: found \"dead-letter\", and the sink memory-sink keeps no dead letters; allowed: none",
        ),
        (
            "sink:",
            "restart: {policy: always}\nsink:",
            "f.yaml: restart.policy: found \"always\"; allowed: on-failure, never",
        ),
        ("sink:", "tasks: 0\nsink:", "f.yaml: tasks: found the number 0; allowed: a whole number from 1 on"),
        ("sink:", "max_memory: 1MiB\nsink:", "f.yaml: max_memory: found \"1MiB\"; allowed: a size"),
        ("sink:", "route: {include: public.*}\nsink:", "f.yaml: route.include: found \"public.*\"; allowed: a list"),
        ("sink:", "route: {exclude: [5]}\nsink:", "f.yaml: route.exclude[0]: found the number 5; allowed: a pattern"),
        ("sink:", "route: {rename: [a]}\nsink:", "f.yaml: route.rename: found a list; allowed: a map of stream names"),
        ("sink:", "route: {rename: {a: 'b.'}}\nsink:", "f.yaml: route.rename.a: found \"b.\"; allowed: stream names"),
        (
            "sink:",
            "route: {rename: {a: c, b: c}}\nsink:",
            "f.yaml: route.rename.b: b and a would both become c; allowed: one stream per name",
        ),
        ("name: shop", "name: [shop", "f.yaml: broken YAML: "),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let found = faults(&GOOD.replacen(from, to, 1));
        assert_eq!(found.len(), 1, "{to}: {found:?}");
        assert!(found[0].starts_with(expected), "{to}: {found:?}");
    }
}

#[test]
fn all_faults_of_all_files_are_collected() {
    let (connectors, faults) = loaded(&[
        ("a.yaml", GOOD),
        ("b.yml", GOOD),
        ("c.yaml", "name: X\nsource: {plugin: none}\nsink: {plugin: memory-sink, dsn: 5}\ntasks: -1\n"),
        ("d.yaml", ""),
        ("ignored.txt", "nonsense"),
        ("compose.yaml", "services: {}"),
        ("docker-compose.yml", "services: {}"),
    ]);
    assert_eq!(connectors.len(), 1);
    assert_eq!(faults.len(), 6, "{faults:?}");
    assert!(faults[0].starts_with("b.yml: name: \"shop\" is the name of the connector in "), "{faults:?}");
    assert!(faults[1].starts_with("c.yaml: name:"));
    assert!(faults[5].starts_with("d.yaml: the file is empty"));
}

#[test]
fn what_is_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("absent.yaml");
    let found = load(&[dir.path().to_owned(), absent.clone()], &World::with_rows(0), &Process);
    let lines: Vec<String> = found.faults.iter().map(ToString::to_string).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].ends_with("the directory holds no connector; allowed: files named *.yaml or *.yml"));
    assert!(lines[1].starts_with(&format!("{}: cannot be read: ", absent.display())));
}

#[test]
fn stream_names_are_read_as_they_are_printed() {
    for name in ["public.orders", "topic", r#"public."order items"."a.b"."q""q"."""#] {
        assert_eq!(connector::parse_stream(name).unwrap().to_string(), name);
    }
    for name in ["", ".", "a.", ".a", "a b", "\"a", "\"a\"b", "a\"b"] {
        assert_eq!(connector::parse_stream(name), None, "{name}");
    }
}
