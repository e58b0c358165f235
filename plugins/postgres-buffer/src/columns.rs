//! The configuration's `columns`: how columns are read where that is not what the source tells, and which are left out.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use philotes_sdk::StreamName;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::decode::{ColumnType, MAX_TYPE_NAME, Override, Overrides};

/// What is said of a column.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct ColumnConfig {
    /// PostgreSQL's name of the type that its values are read as, whatever the source tells: json, text, numeric(20,4), timestamptz.
    #[serde(default, rename = "type")]
    #[schemars(with = "String")]
    pub type_name: Option<String>,
    /// Whether the column is left out: it reaches neither tables nor dead letters.
    #[serde(default)]
    pub drop: bool,
}

/// By stream and column.
pub type ColumnsConfig = BTreeMap<String, BTreeMap<String, ColumnConfig>>;

const TYPES: &str = "boolean, smallint, integer, bigint, oid, real, double precision, numeric, numeric(p,s), text, json, jsonb, date, \
    time, timestamp, timestamptz, uuid, bytea, and arrays of them such as integer[]";

/// The overrides of each stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Columns(HashMap<StreamName, Arc<Overrides>>);

impl Columns {
    /// What the configuration says, or each of its faults with the path of its key.
    pub(crate) fn new(config: &ColumnsConfig) -> Result<Self, Vec<String>> {
        let (mut streams, mut faults) = (HashMap::new(), Vec::new());
        for (stream, columns) in config {
            let Some(name) = stream.parse::<StreamName>().ok().filter(|name| name.parts().len() == 2) else {
                faults.push(format!("columns.{stream}: no stream; allowed is schema.table, as in public.orders"));
                continue;
            };
            let mut overrides = Overrides::new();
            for (column, said) in columns {
                match said.resolve() {
                    Ok(said) => drop(overrides.insert(column.clone(), said)),
                    Err((key, fault)) => faults.push(format!("columns.{stream}.{column}{key}: {fault}")),
                }
            }
            streams.insert(name, Arc::new(overrides));
        }
        if faults.is_empty() { Ok(Self(streams)) } else { Err(faults) }
    }

    /// Those of one stream.
    pub(crate) fn of(&self, stream: &StreamName) -> Arc<Overrides> {
        self.0.get(stream).cloned().unwrap_or_default()
    }
}

impl ColumnConfig {
    fn resolve(&self) -> Result<Override, (&'static str, String)> {
        match (&self.type_name, self.drop) {
            (None, true) => Ok(Override::Drop),
            (Some(name), false) if name.len() > MAX_TYPE_NAME => Err((
                ".type",
                format!("a name of {} bytes; allowed are {MAX_TYPE_NAME} at most, and {TYPES}", name.len()),
            )),
            // An array of anything is known to be an array: what counts is its element.
            (Some(name), false) => match ColumnType::known(name.trim_end_matches("[]").trim_start_matches('_')) {
                Some(_) => Ok(Override::Type(ColumnType::of(name), name.clone())),
                None => Err((".type", format!("{name:?} is no type that values can be read as; allowed are {TYPES}"))),
            },
            (Some(_), true) => Err(("", "excludes type and drop from one another; allowed is one of them".to_owned())),
            (None, false) => Err(("", "says nothing; allowed are type: NAME and drop: true".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(json: serde_json::Value) -> Result<Columns, Vec<String>> {
        Columns::new(&serde_json::from_value(json).unwrap())
    }

    #[test]
    fn columns_are_found_by_stream() {
        let stream = StreamName::new(["public", "my orders"]).unwrap();
        let columns = columns(serde_json::json!({
            (stream.to_string()): {"note": {"type": "json"}, "ssn": {"drop": true}}
        }));
        let overrides = columns.unwrap().of(&stream);
        assert_eq!(overrides["note"], Override::Type(ColumnType::Json, "json".to_owned()));
        assert_eq!(overrides["ssn"], Override::Drop);
    }

    #[test]
    fn each_fault_names_its_key() {
        for (json, fault) in [
            (serde_json::json!({"orders": {}}), "columns.orders: no stream"),
            (serde_json::json!({"public.t": {"c": {"type": "jsn"}}}), "columns.public.t.c.type: \"jsn\" is no type"),
            (
                serde_json::json!({"public.t": {"c": {"type": "jsn[]"}}}),
                "columns.public.t.c.type: \"jsn[]\" is no type",
            ),
            (serde_json::json!({"public.t": {"c": {"type": "_jsn"}}}), "columns.public.t.c.type: \"_jsn\" is no type"),
            (
                serde_json::json!({"public.t": {"c": {"type": "_".repeat(50_000)}}}),
                "columns.public.t.c.type: a name of 50000 bytes; allowed are 1024 at most",
            ),
            (serde_json::json!({"public.t": {"c": {}}}), "columns.public.t.c: says nothing"),
            (serde_json::json!({"public.t": {"c": {"type": "text", "drop": true}}}), "columns.public.t.c: excludes"),
        ] {
            let faults = columns(json).unwrap_err();
            assert!(faults.len() == 1 && faults[0].starts_with(fault), "{faults:?}");
        }
    }
}
