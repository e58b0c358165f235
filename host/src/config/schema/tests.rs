use std::path::Path;

use super::*;
use crate::config::document::{self, Process};

/// The shapes that schemars 1.2 writes for serde types: a struct with optional and secret fields, an internally tagged
/// enum, a documented enum, an untagged one, a map, a flattened struct.
fn spec() -> Value {
    json!({
        "type": "object",
        "properties": {
            "dsn": {"type": "string", "writeOnly": true},
            "port": {"type": ["integer", "null"], "format": "uint16", "minimum": 0, "maximum": 65535},
            "tls": {"type": "boolean", "default": false},
            "ratio": {"type": "number"},
            "catalog": {"description": "Where.", "$ref": "#/$defs/Catalog"},
            "mode": {"$ref": "#/$defs/Mode"},
            "storage": {"anyOf": [{"$ref": "#/$defs/Storage"}, {"type": "null"}]},
            "columns": {"type": "object", "additionalProperties": {"type": "string"}},
            "partition_by": {"type": "array", "items": {"type": "string"}},
            "level": {"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0}]},
            "anything": true,
            "snapshots": {"type": "object", "properties": {"keep": {"type": "integer"}}, "$ref": "#/$defs/Storage"}
        },
        "additionalProperties": false,
        "required": ["dsn", "catalog"],
        "$defs": {
            "Catalog": {"oneOf": [
                {"type": "object", "properties": {"type": {"type": "string", "const": "rest"}, "uri": {"type": "string"}},
                 "additionalProperties": false, "required": ["type", "uri"]},
                {"type": "object", "properties": {"type": {"type": "string", "const": "sql"}, "path": {"type": "string"}},
                 "additionalProperties": false, "required": ["type", "path"]}
            ]},
            "Mode": {"oneOf": [
                {"type": "string", "enum": ["merge"]},
                {"type": "string", "const": "append", "description": "the log"},
                {"type": "string", "const": "upsert"}
            ]},
            "Storage": {"type": "object", "properties": {
                "secret_key": {"type": ["string", "null"], "writeOnly": true}, "path_style": {"type": "boolean"}
            }}
        }
    })
}

fn run(yaml: &str) -> (Value, Vec<String>) {
    let mut faults = Faults::new(Path::new("f"));
    let node = document::read(yaml, &Process, &mut faults).expect("the test's own YAML is sound");
    let json = check(&node, &spec(), "sink", &mut faults);
    (json, faults.into_list().iter().map(ToString::to_string).collect())
}

const BASE: &str = "dsn: d\ncatalog: {type: sql, path: p}\n";

fn faults_of(extra: &str) -> Vec<String> {
    run(&format!("{BASE}{extra}\n")).1
}

#[test]
fn a_sound_section_becomes_json() {
    let (json, faults) = run(&format!(
        "{BASE}port: 5\nmode: append\nstorage: {{secret_key: s, path_style: true}}\ncolumns: {{a: b}}\n\
         partition_by: [x]\nlevel: 3\nanything: {{k: [1, null]}}\nsnapshots: {{keep: 3, path_style: false}}\nratio: 1\n"
    ));
    assert!(faults.is_empty(), "{faults:?}");
    assert_eq!(
        json,
        json!({"dsn": "d", "catalog": {"type": "sql", "path": "p"}, "port": 5, "mode": "append", "ratio": 1,
               "storage": {"secret_key": "s", "path_style": true}, "columns": {"a": "b"}, "partition_by": ["x"],
               "level": 3, "anything": {"k": [1, null]}, "snapshots": {"keep": 3, "path_style": false}})
    );
    let (json, faults) = run(&format!("{BASE}storage:\nport: null\n"));
    assert!(faults.is_empty(), "{faults:?}");
    assert_eq!(json["storage"], Value::Null);
}

#[test]
fn text_from_variables_takes_the_type_the_schema_asks_for() {
    let (json, faults) = run(&format!(
        "{BASE}port: ${{env:PHILOTES_NONE:-5432}}\ntls: ${{env:PHILOTES_NONE:-true}}\nratio: ${{env:PHILOTES_NONE:-0.5}}\n"
    ));
    assert!(faults.is_empty(), "{faults:?}");
    assert_eq!((&json["port"], &json["tls"], &json["ratio"]), (&json!(5432), &json!(true), &json!(0.5)));
    assert_eq!(
        faults_of("port: ${env:PHILOTES_NONE:-hidden}"),
        ["f: sink.port: found what a variable holds; allowed: a whole number from 0 to 65535"]
    );
    // Without a variable the file's own types count.
    assert_eq!(faults_of("port: '5432'"), ["f: sink.port: found \"5432\"; allowed: a whole number from 0 to 65535"]);
}

#[test]
fn each_fault_names_its_key_and_what_is_allowed() {
    for (extra, expected) in [
        ("prot: 5", "f: sink.prot: unknown key, did you mean port?; allowed: "),
        ("zzzzzzzz: 5", "f: sink.zzzzzzzz: unknown key; allowed: "),
        ("port: 70000", "f: sink.port: found the number 70000; allowed: a whole number from 0 to 65535"),
        ("port: 1.5", "f: sink.port: found the number 1.5; allowed: a whole number"),
        ("tls: yess", "f: sink.tls: found \"yess\"; allowed: true or false"),
        ("mode: apend", "f: sink.mode: found \"apend\", did you mean append?; allowed: merge, append, upsert"),
        ("storage: [1]", "f: sink.storage: found a list; allowed: a map"),
        ("storage: {path_styl: 1}", "f: sink.storage.path_styl: unknown key, did you mean path_style?"),
        ("columns: {a: 1}", "f: sink.columns.a: found the number 1; allowed: a text; put it in quotes"),
        ("partition_by: day", "f: sink.partition_by: found \"day\"; allowed: a list"),
        ("partition_by: [a, [b]]", "f: sink.partition_by[1]: found a list; allowed: a text"),
        ("level: true", "f: sink.level: found true; allowed: a text or a whole number from 0 on"),
        ("level: -1", "f: sink.level: found the number -1; allowed: a whole number from 0 on"),
        ("snapshots: {keep: x}", "f: sink.snapshots.keep: found \"x\"; allowed: a whole number"),
    ] {
        let faults = faults_of(extra);
        assert_eq!(faults.len(), 1, "{extra}: {faults:?}");
        assert!(faults[0].starts_with(expected), "{extra}: {faults:?}");
    }
}

#[test]
fn a_tag_chooses_the_branch() {
    let tagged = |catalog: &str| run(&format!("dsn: d\ncatalog: {catalog}\n")).1;
    assert_eq!(tagged("{path: p}"), ["f: sink.catalog.type: missing; allowed: rest, sql"]);
    assert_eq!(
        tagged("{type: rst, path: p}"),
        ["f: sink.catalog.type: found \"rst\", did you mean rest?; allowed: rest, sql"]
    );
    assert_eq!(
        tagged("{type: rest, path: p}"),
        [
            "f: sink.catalog.path: unknown key; allowed: type, uri".to_owned(),
            "f: sink.catalog.uri: missing; allowed: a text".to_owned()
        ]
    );
    assert_eq!(tagged("5"), ["f: sink.catalog: found the number 5; allowed: a map with type"]);
}

#[test]
fn all_faults_are_collected_and_secrets_are_not_printed() {
    let (_, faults) = run("dsn: 4711\nstorage: {secret_key: 4712}\ntls: 3\n");
    assert_eq!(
        faults,
        [
            "f: sink.dsn: found a number; allowed: a text; put it in quotes",
            "f: sink.storage.secret_key: found a number; allowed: a text; put it in quotes",
            "f: sink.tls: found the number 3; allowed: true or false",
            "f: sink.catalog: missing; allowed: a map with type: rest or sql",
        ]
    );
}

/// A plugin's spec is a stranger's: one that goes in circles, or doubles at each step, is the plugin's fault and not the host's end.
#[test]
fn a_spec_without_an_end_is_refused() {
    let circle = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}},
        "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "array", "items": {"$ref": "#/$defs/A"}}]}}});
    let mut doubling =
        json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/D30"}}, "$defs": {"D0": {"type": "boolean"}}});
    for level in 1..=30 {
        let below = json!({"$ref": format!("#/$defs/D{}", level - 1)});
        let array = json!({"type": "array", "items": below});
        doubling["$defs"][format!("D{level}")] = json!({"anyOf": [below, below, array]});
    }
    let mut wide = json!({"type": "object", "properties": {"a": {"type": "string"}}, "$ref": "#/$defs/W0"});
    for level in 0..=16 {
        let below = json!({"$ref": format!("#/$defs/W{}", level + 1)});
        wide["$defs"][format!("W{level}")] =
            json!({"properties": {}, "allOf": [below, below, below, below, below, below]});
    }
    for spec in [circle, doubling, wide] {
        let mut faults = Faults::new(Path::new("f.yaml"));
        let node = document::read("a: x", &Process, &mut faults).unwrap();
        check(&node, &spec, "source", &mut faults);
        let faults: Vec<String> = faults.into_list().iter().map(ToString::to_string).collect();
        assert!(
            faults.iter().any(|f| f.starts_with("f.yaml: source: cannot be checked; allowed: a plugin")),
            "{faults:?}"
        );
    }
}
