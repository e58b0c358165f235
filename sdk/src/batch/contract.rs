//! What every change batch has to look like, checked: by the host for whatever a source delivers, by the conformance suite, and by
//! whoever tests a source.
//!
//! The shape of a schema is checked once, and then of each batch only what can differ between batches.

use std::collections::HashSet;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};

use super::{
    ChangeBatch, META_KEY, META_STREAM, OPERATION, RESERVED_PREFIX, UNCHANGED, UTC, reserved_fields, unchanged_field,
};
use crate::{Error, Result, StreamPartition, dead_letter};

/// What `_cdc_operation` may hold.
pub const OPERATIONS: [&str; 4] = ["INSERT", "UPDATE", "DELETE", "TRUNCATE"];

/// A schema of change batches that keeps the contract.
#[derive(Clone, Debug)]
pub struct Contract {
    /// Where `_cdc_operation` stands.
    operation: usize,
}

impl Contract {
    /// Checks a schema: the reserved columns close it in their order and with their types, no two columns have one name, the metadata
    /// names the stream and a key of columns that exist, and every zone is spelled `+00:00`.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal): what is wrong, where, and what is expected.
    pub fn of_rows(at: &StreamPartition, schema: &Schema) -> Result<Self> {
        fault_of(at, schema).map_or(Ok(Self { operation: row_columns(schema) }), |fault| Err(broken(at, &fault)))
    }

    /// Checks rows of that schema: every operation is known.
    ///
    /// # Errors
    /// As [`Contract::of_rows`].
    pub fn check(&self, at: &StreamPartition, rows: &RecordBatch) -> Result<()> {
        let operations = rows.column(self.operation).as_string::<i32>();
        let Some(row) = first_unknown(operations) else { return Ok(()) };
        let found = match operations.is_valid(row) {
            true => format!("{:?}", operations.value(row).chars().take(32).collect::<String>()),
            false => "null".to_owned(),
        };
        Err(broken(
            at,
            &format!(
                "row {row} of {} has the {OPERATION} {found}; allowed: {}",
                rows.num_rows(),
                OPERATIONS.join(", ")
            ),
        ))
    }
}

impl ChangeBatch {
    /// Checks that the batch keeps the contract, its dead letters included; [`Contract`] does so for many batches of one schema.
    ///
    /// # Errors
    /// As [`Contract::of_rows`].
    pub fn check(&self) -> Result<()> {
        let schema = self.rows.schema();
        if self.dead_letters {
            return dead_letter::check(&schema).map_err(|error| broken(&self.at, error.message()));
        }
        Contract::of_rows(&self.at, &schema)?.check(&self.at, &self.rows)
    }
}

fn broken(at: &StreamPartition, fault: &str) -> Error {
    Error::internal(format!(
        "a batch of {at} breaks the contract of change batches, which is a fault of the source: {fault}"
    ))
}

/// The first row whose operation is none of the known ones.
fn first_unknown(operations: &StringArray) -> Option<usize> {
    let (values, offsets) = (operations.value_data(), operations.value_offsets());
    let known = |row: usize| {
        let range = usize::try_from(offsets[row]).ok()?..usize::try_from(offsets[row + 1]).ok()?;
        matches!(values.get(range)?, b"INSERT" | b"UPDATE" | b"DELETE" | b"TRUNCATE").then_some(())
    };
    let null = |row: usize| operations.null_count() > 0 && operations.is_null(row);
    (0..operations.len()).find(|row| known(*row).is_none() || null(*row))
}

/// How many columns are the row's own, where the schema keeps the contract.
fn row_columns(schema: &Schema) -> usize {
    let unchanged = schema.fields().last().is_some_and(|field| field.name() == UNCHANGED);
    schema.fields().len().saturating_sub(3 + usize::from(unchanged))
}

fn fault_of(at: &StreamPartition, schema: &Schema) -> Option<String> {
    let fields = schema.fields();
    let row_columns = row_columns(schema);
    let reserved: Vec<Field> = reserved_fields().into_iter().chain([unchanged_field()]).collect();
    let closing = &fields[row_columns..];
    if closing.len() < 3 || closing.iter().zip(&reserved).any(|(found, expected)| found.name() != expected.name()) {
        let missing = reserved[..3].iter().find(|field| schema.index_of(field.name()).is_err());
        let fault = missing.map_or_else(
            || "the reserved columns stand in another order, or not at the end".to_owned(),
            |field| format!("column {} is missing", field.name()),
        );
        let found: Vec<&str> =
            fields.iter().map(|field| field.name().as_str()).filter(|name| name.starts_with(RESERVED_PREFIX)).collect();
        let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
        return Some(format!(
            "{fault}; of the columns that begin with {RESERVED_PREFIX} there are {found}; behind the row's own columns stand {}, {}, {} and, \
             where a source leaves columns out, {UNCHANGED}, in this order",
            reserved[0].name(),
            reserved[1].name(),
            reserved[2].name()
        ));
    }
    if let Some(own) = fields[..row_columns].iter().find(|field| field.name().starts_with(RESERVED_PREFIX)) {
        return Some(format!(
            "column {:?} is one of the row's own; names that begin with {RESERVED_PREFIX} are reserved",
            own.name()
        ));
    }
    for (found, expected) in closing.iter().zip(&reserved) {
        let alike = match (found.data_type(), expected.data_type()) {
            // The name of a list's items says nothing.
            (DataType::List(found), DataType::List(expected)) => found.data_type() == expected.data_type(),
            (found, expected) => found == expected,
        };
        if !alike {
            return Some(format!(
                "column {} is {}; it has to be {}",
                found.name(),
                found.data_type(),
                expected.data_type()
            ));
        }
        if found.is_nullable() && !expected.is_nullable() {
            return Some(format!("column {} may be null; it must not", found.name()));
        }
    }
    let mut names = HashSet::with_capacity(fields.len());
    if let Some(twice) = fields.iter().find(|field| !names.insert(field.name())) {
        return Some(format!("two columns have the name {:?}", twice.name()));
    }
    if let Some((column, zone)) = fields.iter().find_map(|field| Some((field.name(), other_zone(field.data_type())?))) {
        return Some(format!("column {column:?} has the time zone {zone:?}; it is always spelled {UTC}"));
    }
    match schema.metadata().get(META_STREAM) {
        Some(stream) if *stream == at.stream.to_string() => {}
        Some(stream) => {
            return Some(format!("the schema's metadata {META_STREAM} is {stream:?}; the stream is {}", at.stream));
        }
        None => return Some(format!("the schema's metadata has no {META_STREAM}; it is the stream's printed name")),
    }
    if !schema.metadata().contains_key(META_KEY) {
        return Some(format!(
            "the schema's metadata has no {META_KEY}; it is a JSON array of the key's columns, [] where there is no key"
        ));
    }
    let key = match ChangeBatch::key_columns(schema) {
        Ok(key) => key,
        Err(error) => return Some(error.to_string()),
    };
    let mut names = HashSet::new();
    key.iter().find_map(|name| match schema.index_of(name) {
        Ok(index) if index >= row_columns => {
            Some(format!("key column {name:?} is a reserved one, and none of the row's own"))
        }
        _ if !names.insert(name) => Some(format!("key column {name:?} is named twice")),
        _ => None,
    })
}

/// A time zone in a type that is not spelled as it has to be.
fn other_zone(data_type: &DataType) -> Option<&str> {
    match data_type {
        DataType::Timestamp(_, Some(zone)) if &**zone != UTC => Some(zone),
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => other_zone(field.data_type()),
        DataType::Struct(fields) => fields.iter().find_map(|field| other_zone(field.data_type())),
        DataType::Dictionary(_, values) => other_zone(values),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, TimestampMicrosecondArray};
    use arrow::datatypes::TimeUnit;

    use super::*;
    use crate::batch::{LSN, TIMESTAMP, schema};
    use crate::{ErrorKind, Offset, StreamName};

    fn at() -> StreamPartition {
        StreamPartition::only(StreamName::new(["public", "t"]).unwrap())
    }

    fn good() -> Schema {
        let columns = [Field::new("id", DataType::Int64, false), Field::new("v", DataType::Utf8, true)];
        Schema::clone(&schema(&at().stream, &["id"], columns))
    }

    fn fault(schema: &Schema) -> String {
        let error = Contract::of_rows(&at(), schema).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        let text = error.message().to_owned();
        assert!(text.starts_with("a batch of public.t/0 breaks the contract"), "{text}");
        text
    }

    /// The schema with other fields, in the order of these numbers.
    fn of(order: &[usize]) -> Schema {
        let fields: Vec<Field> = order.iter().map(|index| good().field(*index).clone()).collect();
        Schema::new_with_metadata(fields, good().metadata().clone())
    }

    fn with(index: usize, field: Field) -> Schema {
        let mut fields: Vec<Field> = good().fields().iter().map(|field| (**field).clone()).collect();
        fields[index] = field;
        Schema::new_with_metadata(fields, good().metadata().clone())
    }

    fn keyed(key: Option<&str>) -> Schema {
        let mut metadata = good().metadata().clone();
        metadata.remove(META_KEY);
        metadata.extend(key.map(|key| (META_KEY.to_owned(), key.to_owned())));
        good().with_metadata(metadata)
    }

    #[test]
    fn what_keeps_the_contract_is_taken() {
        Contract::of_rows(&at(), &good()).unwrap();
        Contract::of_rows(&at(), &keyed(Some("[]"))).unwrap();
        Contract::of_rows(&at(), &keyed(Some(r#"["v","id"]"#))).unwrap();
        let mut fields: Vec<Field> = good().fields().iter().map(|field| (**field).clone()).collect();
        fields.push(unchanged_field());
        Contract::of_rows(&at(), &Schema::new_with_metadata(fields.clone(), good().metadata().clone())).unwrap();
        // As another exporter names the items of lists.
        *fields.last_mut().unwrap() = Field::new_list(UNCHANGED, Field::new("element", DataType::Utf8, false), true);
        Contract::of_rows(&at(), &Schema::new_with_metadata(fields, good().metadata().clone())).unwrap();
    }

    #[test]
    fn reserved_columns_close_the_schema_in_their_order() {
        for (order, expected) in [
            (&[0, 1][..], "column _cdc_operation is missing; of the columns that begin with _cdc_ there are none"),
            (
                &[0, 1, 3, 4],
                "column _cdc_operation is missing; of the columns that begin with _cdc_ there are _cdc_timestamp, _cdc_lsn",
            ),
            (&[0, 1, 2, 4], "column _cdc_timestamp is missing"),
            (&[0, 1, 2, 3], "column _cdc_lsn is missing"),
            (&[], "column _cdc_operation is missing"),
            (&[0, 1, 3, 2, 4], "in another order"),
            (&[2, 3, 4, 0, 1], "in another order, or not at the end"),
            (&[0, 2, 3, 4, 1], "in another order, or not at the end"),
        ] {
            let text = fault(&of(order));
            assert!(text.contains(expected), "{order:?}: {text}");
            assert!(text.ends_with("_cdc_operation, _cdc_timestamp, _cdc_lsn and, where a source leaves columns out, _cdc_unchanged, in this order"));
        }
        let mut fields: Vec<Field> = good().fields().iter().map(|field| (**field).clone()).collect();
        fields.insert(2, unchanged_field());
        assert!(
            fault(&Schema::new_with_metadata(fields, good().metadata().clone()))
                .contains("column \"_cdc_unchanged\" is one of the row's own")
        );
    }

    #[test]
    fn reserved_columns_have_their_types() {
        let time = |zone: Option<&str>, unit| DataType::Timestamp(unit, zone.map(Into::into));
        for (index, field, expected) in [
            (
                2,
                Field::new(OPERATION, DataType::LargeUtf8, false),
                "column _cdc_operation is LargeUtf8; it has to be Utf8",
            ),
            (2, Field::new(OPERATION, DataType::Utf8, true), "column _cdc_operation may be null"),
            (3, Field::new(TIMESTAMP, time(None, TimeUnit::Microsecond), true), "column _cdc_timestamp is Timestamp"),
            (
                3,
                Field::new(TIMESTAMP, time(Some(UTC), TimeUnit::Nanosecond), true),
                "column _cdc_timestamp is Timestamp",
            ),
            (4, Field::new(LSN, DataType::Int64, true), "column _cdc_lsn is Int64; it has to be Utf8"),
            (1, Field::new("id", DataType::Utf8, true), "two columns have the name \"id\""),
            (
                1,
                Field::new("v", time(Some("UTC"), TimeUnit::Microsecond), true),
                "column \"v\" has the time zone \"UTC\"",
            ),
            (
                1,
                Field::new_list("v", Field::new("item", time(Some("Z"), TimeUnit::Second), true), true),
                "time zone \"Z\"",
            ),
        ] {
            let text = fault(&with(index, field));
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn the_metadata_names_the_stream_and_its_key() {
        for (key, expected) in [
            (None, "has no philotes.key"),
            (Some("id"), "must be a JSON array of names"),
            (Some(r#"["ident"]"#), "key column \"ident\" is not a column of the schema"),
            (Some(r#"["id","id"]"#), "key column \"id\" is named twice"),
            (Some(r#"["_cdc_lsn"]"#), "key column \"_cdc_lsn\" is a reserved one"),
        ] {
            let text = fault(&keyed(key));
            assert!(text.contains(expected), "{text}");
        }
        let mut metadata = good().metadata().clone();
        metadata.insert(META_STREAM.to_owned(), "public.u".to_owned());
        assert!(
            fault(&good().with_metadata(metadata.clone()))
                .contains("philotes.stream is \"public.u\"; the stream is public.t")
        );
        metadata.remove(META_STREAM);
        assert!(fault(&good().with_metadata(metadata)).contains("has no philotes.stream"));
    }

    fn batch(operations: &[&str]) -> ChangeBatch {
        let rows = operations.len();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(0..i64::try_from(rows).unwrap())),
            Arc::new(StringArray::new_null(rows)),
            Arc::new(StringArray::from_iter_values(operations)),
            Arc::new(TimestampMicrosecondArray::new_null(rows).with_timezone(UTC)),
            Arc::new(StringArray::new_null(rows)),
        ];
        ChangeBatch {
            at: at(),
            schema_id: 1,
            rows: RecordBatch::try_new(Arc::new(good()), columns).unwrap(),
            offset: Offset::new("1").unwrap(),
            ends_transaction: true,
            initial_load: false,
            dead_letters: false,
            newest_micros: 0,
        }
    }

    #[test]
    fn operations_are_the_known_ones() {
        batch(&OPERATIONS).check().unwrap();
        batch(&[]).check().unwrap();
        for other in ["insert", "", "UPSERT", "INSERTS", "INSER", "DELETE\n"] {
            let error = batch(&["INSERT", other, "DELETE"]).check().unwrap_err();
            let expected =
                format!("row 1 of 3 has the _cdc_operation {other:?}; allowed: INSERT, UPDATE, DELETE, TRUNCATE");
            assert!(error.message().ends_with(&expected), "{error}");
        }
        // A slice is checked where it begins.
        let whole = batch(&["x", "INSERT", "UPDATE", "y"]);
        let part = ChangeBatch { rows: whole.rows.slice(1, 2), ..whole.clone() };
        part.check().unwrap();
        assert!(
            ChangeBatch { rows: whole.rows.slice(1, 3), ..whole }.check().unwrap_err().message().contains("row 2 of 3")
        );
    }

    #[test]
    fn dead_letters_have_a_shape_of_their_own() {
        let letters = dead_letter::to_rows(&at().stream, &[]).unwrap();
        let batch = ChangeBatch { rows: letters, dead_letters: true, ..batch(&[]) };
        batch.check().unwrap();
        assert!(ChangeBatch { dead_letters: false, ..batch }.check().is_err());
    }
}
