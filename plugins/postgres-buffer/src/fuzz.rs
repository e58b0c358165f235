//! The parsers of what strangers write into the buffer, for tests/fuzz.

use std::sync::Arc;

use bytes::Bytes;
use philotes_sdk::{ErrorKind, Offset, StreamName};

use crate::columns::{Columns, ColumnsConfig};
use crate::copy::{Row, Rows};
use crate::decode::{Appended, ColumnType, StreamDecoder};
use crate::offset::BufferOffset;

/// Rows of one stream: of each the operation, metadata, key columns, the row before and after, each up to a NUL.
pub fn rows(input: &[u8]) {
    let stream = StreamName::new(["public", "t"]).unwrap_or_else(|_| unreachable!("it has two parts"));
    let overrides = Columns::new(&ColumnsConfig::default()).unwrap_or_default().of(&stream);
    let mut decoder = StreamDecoder::new(stream, false, overrides);
    let mut parts = input.split(|byte| *byte == 0);
    let mut id = 0;
    while let Some(operation) = parts.next() {
        let mut part = || parts.next().filter(|part| !part.is_empty());
        let (metadata, key_columns, before, after) = (part(), part(), part(), part());
        id += 1;
        let row = Row {
            id,
            place: None,
            known: false,
            schema: b"public",
            table: b"t",
            operation: Some(operation),
            lsn: Some(b"0/16"),
            event_time: None,
            created_at: Some(0),
            key_columns,
            before,
            after,
            metadata,
        };
        let mut appended = decoder.append(&row);
        if matches!(appended, Ok(Appended::CloseFirst)) {
            decoder.close().expect("the rows that were taken make a batch");
            appended = decoder.append(&row);
            assert!(!matches!(appended, Ok(Appended::CloseFirst)), "a row fits an empty batch");
        }
        if let Err(error) = appended {
            assert!(matches!(error.kind(), ErrorKind::Data | ErrorKind::Config), "{error}");
            decoder.close().expect("the rows before make a batch");
        }
    }
    decoder.close().expect("the rows make a batch");
}

/// What the server sends, in two messages.
pub fn copy(input: &[u8]) {
    let (first, second) = input.split_at(input.len() / 2);
    let mut rows = Rows::default();
    for message in [first, second] {
        rows.feed(Bytes::copy_from_slice(message));
        while let Ok(Some(_)) = rows.next() {}
    }
}

/// Names of types, offsets and the configuration's `columns`.
pub fn texts(input: &str) {
    let kind = ColumnType::of(input);
    assert_eq!(kind.wider(&kind), Some(kind.clone()));
    kind.arrow();
    if let Ok(offset) = Offset::new(input)
        && let Ok(offset) = BufferOffset::parse(&offset)
    {
        let _ = offset.to_offset();
    }
    if let Ok(columns) = serde_json::from_str::<ColumnsConfig>(input) {
        let _ = Columns::new(&columns).map(Arc::new);
    }
}
