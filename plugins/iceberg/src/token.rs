//! Tokens: how far each stream partition of a connector has come, kept in the table as a property per key.
//!
//! A token is written in the commit that writes the rows it covers, and by nothing else. It outlives the snapshot it names:
//! expiry and compaction leave properties alone. That is also why a token alone proves nothing: a rollback leaves it
//! too (see `lineage.rs`).

use std::collections::{BTreeMap, HashMap};

use iceberg::spec::TableMetadata;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use philotes_sdk::{Error, Offset, Result, StreamName, StreamPartition};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What every token's property begins with.
const PREFIX: &str = "philotes.offset.";
/// What the properties of this sink begin with: tokens, intents of dead letters, what was replayed.
const OURS: &str = "philotes.";
/// How much they may take together in a table, names and values, in bytes: every commit writes them again.
const MAX_BYTES: usize = 256 << 10;
/// What stays as it is in the parts of a property's name. Dots do not: they separate the parts.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-');

/// How far one stream partition has come, and the commit that brought it there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Token {
    /// The source's offset, its JSON text as it came.
    pub(crate) offset: Offset,
    /// The commit that wrote the token.
    pub(crate) commit_id: Uuid,
    /// That commit's snapshot.
    pub(crate) snapshot_id: i64,
    /// That snapshot's sequence number.
    pub(crate) sequence_number: i64,
}

impl Token {
    /// The property's value.
    pub(crate) fn to_value(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::internal("a token does not serialise").with_source(e))
    }
}

/// The property that holds the token of a connector's stream partition.
pub(crate) fn property(connector: &str, at: &StreamPartition) -> String {
    named(PREFIX, connector, at.stream.parts().iter().chain([&at.partition]))
}

/// The name of a connector's property that is about these parts.
pub(crate) fn named<'a>(prefix: &str, connector: &str, parts: impl IntoIterator<Item = &'a String>) -> String {
    let mut name = format!("{prefix}{connector}");
    for part in parts {
        name.push('.');
        name.extend(utf8_percent_encode(part, KEPT));
    }
    name
}

/// The connector and the stream partition whose token a property holds; `None` where it is no token's name.
fn parse_property(name: &str) -> Option<(&str, StreamPartition)> {
    let mut parts = name.strip_prefix(PREFIX)?.split('.');
    let connector = parts.next()?;
    let mut names = parts
        .map(|part| percent_decode_str(part).decode_utf8().ok().map(|decoded| decoded.into_owned()))
        .collect::<Option<Vec<_>>>()?;
    let partition = names.pop()?;
    Some((connector, StreamPartition { stream: StreamName::new(names).ok()?, partition }))
}

/// The token of one stream partition.
///
/// # Errors
/// A Config error where the property holds something else than a token.
pub(crate) fn read(metadata: &TableMetadata, connector: &str, at: &StreamPartition) -> Result<Option<Token>> {
    let name = property(connector, at);
    metadata.properties().get(&name).map(|value| parse_value(&name, value)).transpose()
}

/// All tokens of a connector in a table.
pub(crate) fn read_all(metadata: &TableMetadata, connector: &str) -> Result<BTreeMap<StreamPartition, Token>> {
    let own = metadata.properties().iter().filter_map(|(name, value)| {
        let (owner, at) = parse_property(name)?;
        (owner == connector).then(|| Ok((at, parse_value(name, value)?)))
    });
    own.collect()
}

/// The tokens of all connectors in a table.
pub(crate) fn read_everyones(metadata: &TableMetadata) -> Result<Vec<(&str, StreamPartition, Token)>> {
    let mut tokens = Vec::new();
    for (name, value) in metadata.properties() {
        if let Some((owner, at)) = parse_property(name) {
            tokens.push((owner, at, parse_value(name, value)?));
        }
    }
    Ok(tokens)
}

fn parse_value(name: &str, value: &str) -> Result<Token> {
    serde_json::from_str(value).map_err(|e| {
        Error::config(format!("table property {name} is no offset of Philotes; set it right with the action `offsets`"))
            .with_source(e)
    })
}

/// Refuses a commit after which the sink's properties would take more than is allowed.
pub(crate) fn check_size(properties: &HashMap<String, String>, updates: &HashMap<String, String>) -> Result<()> {
    let kept = properties.iter().filter(|(name, _)| !updates.contains_key(*name));
    let bytes: usize = kept
        .chain(updates)
        .filter(|(name, _)| name.starts_with(OURS))
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if bytes > MAX_BYTES {
        return Err(Error::config(format!(
            "the sink's own properties of the table would take {bytes} bytes; allowed are {MAX_BYTES}: \
             fewer connectors, streams or partitions per table (`table` names it), fewer gaps between letters that are replayed"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use philotes_sdk::ErrorKind;

    use super::*;

    fn at(parts: &[&str], partition: &str) -> StreamPartition {
        StreamPartition { stream: StreamName::new(parts.iter().copied()).unwrap(), partition: partition.into() }
    }

    #[test]
    fn property_names_are_percent_encoded_and_come_back() {
        assert_eq!(property("shop", &at(&["public", "orders"], "0")), "philotes.offset.shop.public.orders.0");
        assert_eq!(
            property("shop", &at(&["public", "order items", "a.b", ""], "p/1")),
            "philotes.offset.shop.public.order%20items.a%2Eb..p%2F1"
        );
        for at in [at(&["public", "orders"], "0"), at(&["größe 100%", "a.b", ""], ""), at(&[""], "x")] {
            assert_eq!(parse_property(&property("a-b", &at)), Some(("a-b", at)));
        }
        assert_eq!(parse_property("philotes.offset.shop"), None);
        assert_eq!(parse_property("philotes.offset.shop.0"), None);
        assert_eq!(parse_property("write.format.default"), None);
    }

    #[test]
    fn values_are_json_with_the_names_of_the_protocol() {
        let token = Token {
            offset: Offset::new("{ \"batch\": 7 }").unwrap(),
            commit_id: Uuid::nil(),
            snapshot_id: 3_051_729_675_574_597_004,
            sequence_number: 12,
        };
        let value = token.to_value().unwrap();
        assert_eq!(
            value,
            r#"{"offset":"{ \"batch\": 7 }","commit-id":"00000000-0000-0000-0000-000000000000","snapshot-id":3051729675574597004,"sequence-number":12}"#
        );
        assert_eq!(parse_value("x", &value).unwrap(), token);
        assert_eq!(parse_value("x", "{}").unwrap_err().kind(), ErrorKind::Config);
    }

    #[test]
    fn too_many_tokens_are_a_config_error() {
        let update = |bytes: usize| HashMap::from([(format!("{PREFIX}shop.a.0"), "x".repeat(bytes))]);
        let name_bytes = format!("{PREFIX}shop.a.0").len();
        assert!(check_size(&HashMap::new(), &update(MAX_BYTES - name_bytes)).is_ok());
        assert_eq!(check_size(&HashMap::new(), &update(MAX_BYTES)).unwrap_err().kind(), ErrorKind::Config);
        // A token that is replaced counts once; other properties do not count.
        let before = HashMap::from([("comment".to_owned(), "y".repeat(MAX_BYTES))]);
        assert!(check_size(&before, &update(10)).is_ok());
        assert!(check_size(&update(MAX_BYTES - name_bytes), &update(10)).is_ok());
    }
}
