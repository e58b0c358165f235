//! Formats: which versions tables are made in, and which tables this sink can write to.

use iceberg::TableIdent;
use iceberg::spec::{FormatVersion, TableMetadata};
use philotes_sdk::{Error, Result};

/// The version of the specification that this number names.
///
/// # Errors
/// A text that begins with the key.
pub(crate) fn version(number: u8) -> Result<FormatVersion, String> {
    match number {
        2 => Ok(FormatVersion::V2),
        3 => Ok(FormatVersion::V3),
        other => Err(format!("format_version: {other} is not allowed; allowed are 2 and 3")),
    }
}

/// Refuses a table that this sink cannot write to.
///
/// # Errors
/// Config: another version than 2 and 3, or an encrypted table, whose files would be written in the clear.
pub(crate) fn check_format(name: &TableIdent, metadata: &TableMetadata) -> Result<()> {
    let version = metadata.format_version();
    if version < FormatVersion::V2 {
        return Err(Error::config(format!("table {name} has format version {}; allowed are 2 and 3", version as u8)));
    }
    let encrypted = if metadata.encryption_keys_iter().len() > 0 {
        Some("it has encryption keys")
    } else if metadata.properties().contains_key("encryption.key-id") {
        Some("it has the property encryption.key-id")
    } else if metadata.snapshots().any(|snapshot| snapshot.encryption_key_id().is_some()) {
        Some("a snapshot of it names a key")
    } else {
        None
    };
    match encrypted {
        Some(why) => Err(Error::config(format!(
            "table {name} is encrypted ({why}), and would be written to in the clear; allowed are tables that are not encrypted"
        ))),
        None => Ok(()),
    }
}
