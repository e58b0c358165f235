//! Dead letters: records that cannot be written, kept with the reason instead of stopping the connector.
//!
//! A source makes them where it cannot make a row of a record, a sink where it cannot write one. A source sends its own as a
//! [`ChangeBatch`](crate::ChangeBatch) with [`dead_letters`](crate::ChangeBatch::dead_letters) set: it belongs to a stream
//! partition and has an offset as every batch has, but its columns are the ones named here, in this order, whatever the
//! stream's own are. Only where the connector tolerates them ([`TaskInfo::tolerance`](crate::TaskInfo)).

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};

use crate::batch::{META_KEY, META_STREAM, TIMESTAMP, UTC};
use crate::{Error, ErrorKind, Result, StreamName};

/// `position`: utf8, nullable: the source's own name of the record, such as the id of its row in a buffer.
pub const POSITION: &str = "position";
/// `kind`: utf8: the kind of the error, as [`ErrorKind::name`] prints it.
pub const KIND: &str = "kind";
/// `message`: utf8: why it cannot be written. It names the column where it is about one, and quotes no value.
pub const MESSAGE: &str = "message";
/// `record`: utf8: the record as the source has it, best as JSON. Bytes that are no text stand there in base64, in members whose names
/// end in `_base64`: a sink that has to leave columns out leaves these out whole.
pub const RECORD: &str = "record";

/// One record that cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The source's own name of the record.
    pub position: Option<String>,
    /// The kind of the error.
    pub kind: ErrorKind,
    /// Why it cannot be written.
    pub message: String,
    /// The record as the source has it.
    pub record: String,
    /// When it happened at the source, in microseconds since 1970 UTC.
    pub timestamp_micros: Option<i64>,
}

/// The schema of a stream's dead letters.
#[must_use]
pub fn schema(stream: &StreamName) -> SchemaRef {
    let metadata =
        HashMap::from([(META_STREAM.to_owned(), stream.to_string()), (META_KEY.to_owned(), "[]".to_owned())]);
    Arc::new(Schema::new_with_metadata(fields().to_vec(), metadata))
}

fn fields() -> [Field; 5] {
    [
        Field::new(POSITION, DataType::Utf8, true),
        Field::new(KIND, DataType::Utf8, false),
        Field::new(MESSAGE, DataType::Utf8, false),
        Field::new(RECORD, DataType::Utf8, false),
        Field::new(TIMESTAMP, DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())), true),
    ]
}

/// The rows of a batch of dead letters.
///
/// # Errors
/// [`ErrorKind::Internal`] where they take more than two gibibytes.
pub fn to_rows(stream: &StreamName, letters: &[DeadLetter]) -> Result<RecordBatch> {
    let text =
        |of: fn(&DeadLetter) -> &str| Arc::new(StringArray::from_iter_values(letters.iter().map(of))) as ArrayRef;
    let times: TimestampMicrosecondArray = letters.iter().map(|letter| letter.timestamp_micros).collect();
    let positions: StringArray = letters.iter().map(|letter| letter.position.as_deref()).collect();
    let columns = vec![
        Arc::new(positions) as ArrayRef,
        text(|letter| letter.kind.name()),
        text(|letter| &letter.message),
        text(|letter| &letter.record),
        Arc::new(times.with_timezone(UTC)),
    ];
    RecordBatch::try_new(schema(stream), columns)
        .map_err(|e| Error::internal("dead letters make no batch").with_source(e))
}

/// The dead letters of a batch.
///
/// # Errors
/// [`ErrorKind::Internal`] where the columns are others than this module names, or a kind is unknown.
pub fn from_rows(rows: &RecordBatch) -> Result<Vec<DeadLetter>> {
    check(&rows.schema())?;
    let [positions, kinds, messages, records] = [0, 1, 2, 3].map(|at| rows.column(at).as_string::<i32>());
    let times = rows.column(4).as_primitive::<TimestampMicrosecondType>();
    (0..rows.num_rows())
        .map(|row| {
            let kind = kinds.value(row);
            Ok(DeadLetter {
                position: positions.is_valid(row).then(|| positions.value(row).to_owned()),
                kind: ErrorKind::from_name(kind)
                    .ok_or_else(|| Error::internal(format!("a dead letter of the unknown kind {kind:?}")))?,
                message: messages.value(row).to_owned(),
                record: records.value(row).to_owned(),
                timestamp_micros: times.is_valid(row).then(|| times.value(row)),
            })
        })
        .collect()
}

/// Checks that a batch with this schema can hold dead letters.
///
/// # Errors
/// [`ErrorKind::Internal`] where the columns are others than this module names.
pub fn check(schema: &Schema) -> Result<()> {
    let expected = fields();
    let alike = |found: &Field, expected: &Field| {
        found.name() == expected.name()
            && found.data_type() == expected.data_type()
            && (expected.is_nullable() || !found.is_nullable())
    };
    if schema.fields().len() == expected.len()
        && schema.fields().iter().zip(&expected).all(|(found, expected)| alike(found, expected))
    {
        return Ok(());
    }
    let names =
        |fields: &mut dyn Iterator<Item = &Field>| fields.map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ");
    Err(Error::internal(format!(
        "a batch of dead letters has the columns {}; they are {}, with the types of the header",
        names(&mut schema.fields().iter().map(|field| &**field)),
        names(&mut expected.iter())
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_come_back_as_they_were() {
        let stream = StreamName::new(["public", "orders"]).unwrap();
        let letter = |position: Option<&str>, timestamp_micros| DeadLetter {
            position: position.map(str::to_owned),
            kind: ErrorKind::Data,
            message: "column v: no number".into(),
            record: "{\"v\": \"ä\"}".into(),
            timestamp_micros,
        };
        let letters = [letter(Some("7"), Some(1)), letter(None, None)];
        let rows = to_rows(&stream, &letters).unwrap();
        assert_eq!(rows.schema(), schema(&stream));
        assert_eq!(from_rows(&rows).unwrap(), letters);
    }

    #[test]
    fn other_columns_are_refused() {
        let good = schema(&StreamName::new(["t"]).unwrap());
        check(&good).unwrap();
        let without =
            |at: usize| Schema::new((0..5).filter(|i| *i != at).map(|i| good.field(i).clone()).collect::<Vec<_>>());
        for at in 0..5 {
            let message = check(&without(at)).unwrap_err().to_string();
            assert!(message.contains("dead letters"), "{message}");
        }
        let mut fields: Vec<Field> = good.fields().iter().map(|field| (**field).clone()).collect();
        fields[3] = Field::new(RECORD, DataType::Utf8, true);
        assert!(check(&Schema::new(fields)).is_err());
        let rows = to_rows(&StreamName::new(["t"]).unwrap(), &[]).unwrap();
        let kinds: ArrayRef = Arc::new(StringArray::from(vec!["odd"]));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
        let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0]).with_timezone(UTC));
        let odd = RecordBatch::try_new(rows.schema(), vec![text.clone(), kinds, text.clone(), text, time]).unwrap();
        assert!(from_rows(&odd).unwrap_err().to_string().contains("unknown kind \"odd\""));
    }
}
