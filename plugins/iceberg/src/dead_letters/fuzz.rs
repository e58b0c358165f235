//! What a table says of dead letters, for tests/fuzz.

use iceberg::TableIdent;
use iceberg::spec::TableMetadata;
use uuid::Uuid;

use super::{Main, Ranges, intent, letter};

/// Whatever stands in its properties.
pub(crate) fn properties(metadata: &TableMetadata) {
    let Ok(name) = TableIdent::from_strs(["n", "t"]) else { return };
    let _ = intent::read(metadata, "c");
    let _ = intent::appended(metadata, "c", Main { name: &name, uuid: Uuid::nil() });
    let _ = intent::holds_letters(metadata);
    let _ = Ranges::replayed(metadata, "c");
    for value in metadata.properties().values() {
        if let Ok(ranges) = value.parse::<Ranges>() {
            assert_eq!(ranges.to_string().parse(), Ok(ranges.clone()));
            assert_eq!(ranges.union(&ranges), ranges);
        }
    }
}

/// The row of a letter.
pub(crate) fn row(input: &[u8]) {
    let _ = letter::from_ipc(input);
}
