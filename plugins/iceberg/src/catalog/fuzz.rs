//! What catalogs answer and keep, for tests/fuzz.

use iceberg::spec::TableMetadata;

use super::{metadata, rest, sql};
use crate::storage;

/// A metadata file, perhaps compressed.
pub(crate) fn file(input: &[u8]) -> Option<TableMetadata> {
    let json = sql::unpacked(input).ok()?;
    let written: serde_json::Value = serde_json::from_slice(&json).ok()?;
    let _ = metadata::unreadable(&written);
    let read: TableMetadata = serde_json::from_slice(&json).ok()?;
    let _ = metadata::lost(&written, &read);
    Some(read)
}

/// The answers of a REST catalog, of a token endpoint and of a signer.
pub(crate) fn answers(input: &[u8]) -> Option<TableMetadata> {
    rest::fuzz(input)
}

/// Where catalogs and files are.
pub(crate) fn locations(input: &str) {
    let _ = sql::database_path(input);
    let _ = sql::Warehouse::parse(input);
    let normalised = storage::normalised(input);
    assert_eq!(storage::normalised(&normalised), normalised);
    let _ = (storage::is_local(input), storage::s3_parts(input));
}
