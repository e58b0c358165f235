//! The parsers of connector files, for tests/fuzz.

use std::path::Path;

use crate::config::fuzz::{Faults, check, nearest, read};

/// A connector file against the configuration spec of a plugin such as there are.
pub fn connector_file(input: &str) {
    let spec = serde_json::json!({"type": "object", "additionalProperties": false, "required": ["plugin"], "properties": {
        "plugin": {"type": "string"}, "secret": {"type": "string", "writeOnly": true},
        "port": {"type": ["integer", "null"], "minimum": 0, "maximum": 65535},
        "catalog": {"oneOf": [
            {"type": "object", "properties": {"type": {"const": "a"}, "x": {"type": "number"}}, "required": ["type"]},
            {"type": "object", "properties": {"type": {"const": "b"}, "y": {"enum": ["one", "two"]}}}]},
        "list": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "boolean"}, {"type": "null"}]}},
        "open": {"type": "object", "additionalProperties": {"$ref": "#/properties/list"}}}});
    let mut faults = Faults::new(Path::new("f.yaml"));
    if let Some(node) = read(input, &mut faults) {
        check(&node, &spec, "source", &mut faults);
    }
    for fault in faults.into_list() {
        assert!(!fault.to_string().contains('\n'));
    }
    nearest(&["catalog", "list"], input);
}

/// A plugin's own spec, against a file with a value of each kind.
pub fn spec(input: &str) {
    let Ok(spec) = serde_json::from_str(input) else { return };
    let mut faults = Faults::new(Path::new("f.yaml"));
    let file = "{a: 1, b: x, c: [true, null, 1.5], d: {a: {a: {a: [x]}}}, e: null, type: a}";
    if let Some(node) = read(file, &mut faults) {
        check(&node, &spec, "source", &mut faults);
    }
    faults.into_list();
}
