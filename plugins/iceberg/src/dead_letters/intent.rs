//! Intents in the table that a stream is written to, and their counterpart in the table of dead letters: how far it has come.

use std::collections::HashMap;

use iceberg::TableIdent;
use iceberg::spec::TableMetadata;
use philotes_sdk::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Main;

/// What the properties of both tables begin with.
const PREFIX: &str = "philotes.dead-letters.";

/// Files that are to be added to the table of dead letters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Intent {
    /// Counts the commits with dead letters of a connector in a table, from 1.
    pub(crate) number: u64,
    /// The letters in the files: those after the first sequence number up to the second.
    pub(crate) from: u64,
    pub(crate) upto: u64,
    /// The table of dead letters, which is another one once the configuration says so.
    pub(crate) table: TableIdent,
    pub(crate) table_uuid: Uuid,
    pub(crate) files: Vec<LetterFile>,
}

/// A data file with letters, unpartitioned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct LetterFile {
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) rows: u64,
}

/// How far the table of dead letters has come with those of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Appended {
    /// The number of the last intent that was completed.
    pub(crate) number: u64,
    /// The sequence number of its last letter.
    pub(crate) upto: u64,
}

impl Intent {
    /// The property of the stream's table that holds it, with its value.
    pub(crate) fn property(&self, connector: &str) -> Result<(String, String)> {
        Ok((format!("{PREFIX}{connector}"), to_value(self)?))
    }
}

impl Appended {
    /// The property of the table of dead letters that says so for a table.
    pub(crate) fn property(&self, connector: &str, main: Main<'_>) -> Result<HashMap<String, String>> {
        Ok(HashMap::from([(name(connector, main), to_value(self)?)]))
    }
}

fn name(connector: &str, main: Main<'_>) -> String {
    format!("{PREFIX}{connector}.{}", main.uuid)
}

fn to_value(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::internal("an intent does not serialise").with_source(e))
}

/// The last intent of a connector in a table, completed or not.
///
/// # Errors
/// Config: the property holds something else.
pub(crate) fn read(metadata: &TableMetadata, connector: &str) -> Result<Option<Intent>> {
    property(metadata, &format!("{PREFIX}{connector}"))
}

/// How far a table of dead letters has come with those of another table.
///
/// # Errors
/// Config: the property holds something else.
pub(crate) fn appended(letters: &TableMetadata, connector: &str, main: Main<'_>) -> Result<Appended> {
    Ok(property(letters, &name(connector, main))?.unwrap_or_default())
}

/// Every connector's intent in a table, as it stands there.
pub(crate) fn intents(metadata: &TableMetadata) -> impl Iterator<Item = &str> {
    let of_connector = |name: &str| name.strip_prefix(PREFIX).is_some_and(|connector| !connector.contains('.'));
    metadata.properties().iter().filter(move |(name, _)| of_connector(name)).map(|(_, value)| value.as_str())
}

/// Whether dead letters were appended to a table.
pub(crate) fn holds_letters(metadata: &TableMetadata) -> bool {
    metadata.properties().keys().any(|name| name.strip_prefix(PREFIX).is_some_and(|of| of.contains('.')))
}

fn property<T: DeserializeOwned>(metadata: &TableMetadata, name: &str) -> Result<Option<T>> {
    let read = |value: &String| {
        serde_json::from_str(value).map_err(|e| {
            Error::config(format!("table property {name} says nothing of dead letters; remove it, or restore it"))
                .with_source(e)
        })
    };
    metadata.properties().get(name).map(read).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_have_the_names_and_values_of_the_protocol() {
        let file = LetterFile { path: "s3://b/x.parquet".into(), bytes: 9, rows: 2 };
        let table = TableIdent::from_strs(["cdc", "dead_letters"]).unwrap();
        let intent = Intent { number: 3, from: 5, upto: 7, table, table_uuid: Uuid::nil(), files: vec![file] };
        let (name, value) = intent.property("shop").unwrap();
        assert_eq!(name, "philotes.dead-letters.shop");
        assert_eq!(
            value,
            r#"{"number":3,"from":5,"upto":7,"table":{"namespace":["cdc"],"name":"dead_letters"},"table-uuid":"00000000-0000-0000-0000-000000000000","files":[{"path":"s3://b/x.parquet","bytes":9,"rows":2}]}"#
        );
        assert_eq!(serde_json::from_str::<Intent>(&value).unwrap(), intent);
        let name = TableIdent::from_strs(["cdc", "t"]).unwrap();
        let main = Main { name: &name, uuid: Uuid::nil() };
        let properties = Appended { number: 3, upto: 7 }.property("shop", main).unwrap();
        assert_eq!(
            properties["philotes.dead-letters.shop.00000000-0000-0000-0000-000000000000"],
            r#"{"number":3,"upto":7}"#
        );
    }
}
