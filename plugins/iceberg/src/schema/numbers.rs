//! The source's own numbers of columns, and which field of the table each of them is: a property per connector and stream.
//!
//! A number outlives its column's name, so that a rename can be told from a drop and an addition. The property is written
//! with an alteration of the table, or with the next commit of rows, and by nothing else; it says nothing of the rows
//! themselves, only of names, so that a commit that is made twice or on another head cannot make it wrong.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::{Field, Schema as ArrowSchema};
use iceberg::spec::TableMetadata;
use philotes_sdk::batch::{META_COLUMN_NUMBER, META_RELATION};
use philotes_sdk::{Error, Result, StreamName};
use serde::{Deserialize, Serialize};

use crate::token;

const PREFIX: &str = "philotes.columns.";

/// Which field of a table each number of a relation's columns is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Numbers {
    /// What the numbers belong to; another relation's mean other columns.
    relation: String,
    /// Field ids by number.
    fields: BTreeMap<u32, i32>,
}

/// The property of a connector's stream.
pub(crate) fn property(connector: &str, stream: &StreamName) -> String {
    token::named(PREFIX, connector, stream.parts())
}

/// The number of a column, where the source gives one.
pub(super) fn number(field: &Field) -> Result<Option<u32>> {
    let Some(text) = field.metadata().get(META_COLUMN_NUMBER) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        Error::data(format!("column {:?}: field metadata {META_COLUMN_NUMBER} must be a whole number", field.name()))
    })
}

impl Numbers {
    /// What the table says of a connector's stream.
    ///
    /// # Errors
    /// Config: the property holds something else.
    pub(crate) fn read(metadata: &TableMetadata, connector: &str, stream: &StreamName) -> Result<Option<Self>> {
        let name = property(connector, stream);
        let Some(value) = metadata.properties().get(&name) else { return Ok(None) };
        serde_json::from_str(value).map(Some).map_err(|e| {
            Error::config(format!(
                "table property {name} does not say which fields the source's columns are; remove it, and they are found \
                 by their names"
            ))
            .with_source(e)
        })
    }

    /// The property's value.
    pub(crate) fn to_value(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::internal("numbers of columns do not serialise").with_source(e))
    }

    /// Whether the numbers of such batches are these.
    pub(crate) fn speak_of(&self, arrow: &ArrowSchema) -> bool {
        arrow.metadata().get(META_RELATION) == Some(&self.relation)
    }

    /// The field of a number.
    pub(super) fn field(&self, number: u32) -> Option<i32> {
        self.fields.get(&number).copied()
    }

    /// Whether a field belongs to a number that is none of these.
    pub(super) fn is_of_others(&self, field: i32, numbers: &BTreeSet<u32>) -> bool {
        self.fields.iter().any(|(number, id)| *id == field && !numbers.contains(number))
    }

    /// The map once these numbers are these fields. Numbers that such batches lack keep their fields, as far as nobody else
    /// has taken them. `None` where the source gives no numbers.
    pub(super) fn renewed(known: Option<&Self>, arrow: &ArrowSchema, found: BTreeMap<u32, i32>) -> Option<Self> {
        let relation = arrow.metadata().get(META_RELATION)?.clone();
        let taken: BTreeSet<i32> = found.values().copied().collect();
        let mut fields: BTreeMap<u32, i32> = match known {
            Some(known) => known.fields.iter().filter(|(_, id)| !taken.contains(id)).map(|(n, id)| (*n, *id)).collect(),
            None => BTreeMap::new(),
        };
        fields.extend(found);
        Some(Self { relation, fields })
    }

    /// Without the numbers whose fields are gone.
    pub(super) fn retain(&mut self, lives: impl Fn(i32) -> bool) {
        self.fields.retain(|_, id| lives(*id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_property_is_compact_json_under_an_encoded_name() {
        let stream = StreamName::new(["public", "order items", "a.b"]).unwrap();
        assert_eq!(property("shop", &stream), "philotes.columns.shop.public.order%20items.a%2Eb");
        let numbers = Numbers { relation: "5.16384".into(), fields: [(1, 1), (2, 7)].into() };
        let value = numbers.to_value().unwrap();
        assert_eq!(value, r#"{"relation":"5.16384","fields":{"1":1,"2":7}}"#);
        assert_eq!(serde_json::from_str::<Numbers>(&value).unwrap(), numbers);
    }
}
