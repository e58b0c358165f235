//! One column of the batch that is being built.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, FixedSizeBinaryBuilder,
    Float32Builder, Float64Builder, Int32Builder, Int64Builder, ListArray, StringBuilder, Time64MicrosecondBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{Field, Int64Type};
use philotes_sdk::batch::{META_INFERRED, META_SOURCE_TYPE, UTC};

use super::json::{Scanner, Value};
use super::{ColumnType, Refusal, scalar};

/// A column: its name, its type, and the values so far.
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: ColumnType,
    /// The type's name at the source; `None` where the type was inferred from values.
    pub(crate) source_type: Option<String>,
    /// The name as a key of JSON, quotes and colon and all, as PostgreSQL prints it.
    pub(crate) token: Vec<u8>,
    values: Values,
    /// How many values there are.
    len: usize,
}

impl Column {
    /// A column that is null in the `rows` rows there are already.
    pub(crate) fn new(name: &str, kind: ColumnType, source_type: Option<String>, rows: usize) -> Self {
        let mut values = Values::new(&kind);
        values.append_nulls(rows);
        let mut token = String::with_capacity(name.len() + 3);
        token.push('"');
        for c in name.chars() {
            match c {
                '"' => token.push_str("\\\""),
                '\\' => token.push_str("\\\\"),
                c => token.push(c),
            }
        }
        token.push_str("\":");
        Self { name: name.to_owned(), kind, source_type, token: token.into_bytes(), values, len: rows }
    }

    pub(crate) fn field(&self) -> Field {
        let mut field = self.kind.field(&self.name);
        let (key, value) = match &self.source_type {
            Some(source_type) => (META_SOURCE_TYPE, source_type.as_str()),
            None => (META_INFERRED, "true"),
        };
        field.metadata_mut().insert(key.to_owned(), value.to_owned());
        field
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Appends a value; one of an inferred column may widen the column's type.
    #[inline(always)]
    pub(crate) fn append(&mut self, value: Value<'_>) -> Result<(), Refusal> {
        if self.source_type.is_none() && !matches!(value, Value::Null) {
            self.widen(value)?;
        }
        self.values.append(value)?;
        self.len += 1;
        Ok(())
    }

    pub(crate) fn append_null(&mut self) {
        self.values.append_nulls(1);
        self.len += 1;
    }

    /// Takes the first `rows` values and starts anew.
    pub(crate) fn finish(&mut self, rows: usize) -> ArrayRef {
        self.len = 0;
        let array = std::mem::replace(&mut self.values, Values::new(&self.kind)).finish();
        if array.len() == rows { array } else { array.slice(0, rows) }
    }

    /// Another type for an empty column.
    pub(crate) fn retype(&mut self, kind: ColumnType, source_type: Option<String>) {
        debug_assert_eq!(self.len(), 0);
        self.values = Values::new(&kind);
        self.kind = kind;
        self.source_type = source_type;
    }

    /// Makes room for a value in a column whose type is inferred: the values so far keep their worth.
    fn widen(&mut self, value: Value<'_>) -> Result<(), Refusal> {
        let Some(needed) = infer(value)? else { return Ok(()) };
        let wanted = match (&self.kind, &needed) {
            (a, b) if a == b => return Ok(()),
            (ColumnType::Float64, ColumnType::Int64) if fits_double(value) => return Ok(()),
            (ColumnType::Int64, ColumnType::Float64) if self.values.fit_double() => ColumnType::Float64,
            (ColumnType::Text, _) => return Ok(()),
            _ => ColumnType::Text,
        };
        self.values = std::mem::replace(&mut self.values, Values::new(&wanted)).convert(&wanted);
        self.kind = wanted;
        Ok(())
    }
}

/// The type that one value speaks for: whole numbers of 64 bits are Int64; other numbers are Float64 where the double's
/// shortest digits are the number's own, and text where they are not; objects and arrays are JSON.
pub(crate) fn infer(value: Value<'_>) -> Result<Option<ColumnType>, Refusal> {
    Ok(Some(match value {
        Value::Null => return Ok(None),
        Value::Bool(_) => ColumnType::Boolean,
        Value::Number(digits) if digits.parse::<i64>().is_ok() => ColumnType::Int64,
        Value::Number(digits) if survives_double(digits) => ColumnType::Float64,
        Value::Number(_) | Value::String(_) | Value::Escaped(_) => ColumnType::Text,
        Value::Nested(_) => ColumnType::Json,
    }))
}

/// Whether a number's digits come back from a double, zeros at either end aside.
fn survives_double(digits: &str) -> bool {
    let Ok(double) = digits.parse::<f64>() else { return false };
    // Display prints the shortest digits that read back as the same double, and never an exponent.
    double.is_finite() && plain(&double.to_string()) == plain(digits)
}

/// Sign and significant digits of a number without an exponent, or the text itself where it has one.
fn plain(digits: &str) -> (bool, String, usize) {
    let (negative, digits) = digits.strip_prefix('-').map_or((false, digits), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    let all = format!("{whole}{fraction}");
    let significant = all.trim_start_matches('0').to_owned();
    (negative && !significant.is_empty(), significant, fraction.len())
}

fn fits_double(value: Value<'_>) -> bool {
    matches!(value, Value::Number(digits) if digits.parse::<i64>().is_ok_and(|number| number.unsigned_abs() <= 1 << 53))
}

/// The values of a column, by type.
enum Values {
    Boolean(BooleanBuilder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal(Decimal128Builder, u8, i8),
    Text(StringBuilder),
    Json(StringBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    TimestampTz(TimestampMicrosecondBuilder),
    Uuid(FixedSizeBinaryBuilder),
    Bytea(BinaryBuilder),
    List { field: Arc<Field>, offsets: Vec<i32>, valid: Vec<bool>, elements: Box<Self> },
}

/// Runs an expression on whichever builder there is; lists apart.
macro_rules! each {
    ($values:expr, $builder:pat_param => $flat:expr, $list:pat => $nested:expr) => {
        match $values {
            Values::Boolean($builder) => $flat,
            Values::Int32($builder) => $flat,
            Values::Int64($builder) => $flat,
            Values::Float32($builder) => $flat,
            Values::Float64($builder) => $flat,
            Values::Decimal($builder, _, _) => $flat,
            Values::Text($builder) | Values::Json($builder) => $flat,
            Values::Date($builder) => $flat,
            Values::Time($builder) => $flat,
            Values::Timestamp($builder) | Values::TimestampTz($builder) => $flat,
            Values::Uuid($builder) => $flat,
            Values::Bytea($builder) => $flat,
            $list => $nested,
        }
    };
}

impl Values {
    /// Without room for values: of many streams most have few rows, and Arrow's own choice is room for a thousand.
    fn new(kind: &ColumnType) -> Self {
        match kind {
            ColumnType::Boolean => Self::Boolean(BooleanBuilder::with_capacity(0)),
            ColumnType::Int32 => Self::Int32(Int32Builder::with_capacity(0)),
            ColumnType::Int64 => Self::Int64(Int64Builder::with_capacity(0)),
            ColumnType::Float32 => Self::Float32(Float32Builder::with_capacity(0)),
            ColumnType::Float64 => Self::Float64(Float64Builder::with_capacity(0)),
            ColumnType::Decimal(precision, scale) => {
                let builder = Decimal128Builder::with_capacity(0).with_data_type(kind.arrow());
                Self::Decimal(builder, *precision, *scale)
            }
            ColumnType::Text => Self::Text(StringBuilder::with_capacity(0, 0)),
            ColumnType::Json => Self::Json(StringBuilder::with_capacity(0, 0)),
            ColumnType::Date => Self::Date(Date32Builder::with_capacity(0)),
            ColumnType::Time => Self::Time(Time64MicrosecondBuilder::with_capacity(0)),
            ColumnType::Timestamp => Self::Timestamp(TimestampMicrosecondBuilder::with_capacity(0)),
            ColumnType::TimestampTz => {
                Self::TimestampTz(TimestampMicrosecondBuilder::with_capacity(0).with_timezone(UTC))
            }
            ColumnType::Uuid => Self::Uuid(FixedSizeBinaryBuilder::with_capacity(0, 16)),
            ColumnType::Bytea => Self::Bytea(BinaryBuilder::with_capacity(0, 0)),
            ColumnType::List(element) => Self::List {
                field: Arc::new(element.field("item")),
                offsets: vec![0],
                valid: Vec::new(),
                elements: Box::new(Self::new(element)),
            },
        }
    }

    fn len(&self) -> usize {
        use arrow::array::ArrayBuilder;
        each!(self, builder => builder.len(), Self::List { valid, .. } => valid.len())
    }

    fn append_nulls(&mut self, count: usize) {
        for _ in 0..count {
            each!(self, builder => builder.append_null(), Self::List { valid, offsets, .. } => {
                valid.push(false);
                offsets.push(offsets.last().copied().unwrap_or(0));
            });
        }
    }

    fn append(&mut self, value: Value<'_>) -> Result<(), Refusal> {
        if matches!(value, Value::Null) {
            self.append_nulls(1);
            return Ok(());
        }
        match self {
            Self::Boolean(builder) => builder.append_value(boolean(value)?),
            Self::Int32(builder) => {
                let number = scalar::integer(&text_of(value)?)?;
                builder.append_value(i32::try_from(number).map_err(|_| Refusal::new("beyond what the type holds"))?);
            }
            Self::Int64(builder) => builder.append_value(scalar::integer(&text_of(value)?)?),
            #[expect(clippy::cast_possible_truncation, reason = "parsed as a single, every value is one")]
            Self::Float32(builder) => builder.append_value(scalar::float(&text_of(value)?, true)? as f32),
            Self::Float64(builder) => builder.append_value(scalar::float(&text_of(value)?, false)?),
            Self::Decimal(builder, precision, scale) => {
                builder.append_value(scalar::decimal(&text_of(value)?, *precision, *scale)?);
            }
            Self::Text(builder) => match value {
                Value::String(text) | Value::Number(text) | Value::Nested(text) => builder.append_value(text),
                Value::Escaped(_) => builder.append_value(text_of(value)?),
                Value::Bool(truth) => builder.append_value(if truth { "true" } else { "false" }),
                Value::Null => builder.append_null(),
            },
            Self::Json(builder) => match value {
                // A JSON string stays one: the column holds JSON, not its text.
                Value::String(raw) | Value::Escaped(raw) => {
                    // Writing to a builder cannot fail.
                    let _ = write!(builder, "\"{raw}\"");
                    builder.append_value("");
                }
                Value::Number(text) | Value::Nested(text) => builder.append_value(text),
                Value::Bool(truth) => builder.append_value(if truth { "true" } else { "false" }),
                Value::Null => builder.append_null(),
            },
            Self::Date(builder) => builder.append_value(scalar::date(&text_of(value)?)?),
            Self::Time(builder) => builder.append_value(scalar::time(&text_of(value)?)?),
            Self::Timestamp(builder) => builder.append_value(scalar::timestamp(&text_of(value)?, false)?),
            Self::TimestampTz(builder) => builder.append_value(scalar::timestamp(&text_of(value)?, true)?),
            Self::Uuid(builder) => {
                builder.append_value(scalar::uuid(&text_of(value)?)?).map_err(|_| Refusal::new("not a uuid"))?;
            }
            Self::Bytea(builder) => builder.append_value(scalar::bytea(&text_of(value)?)?),
            Self::List { offsets, valid, elements, .. } => {
                let Value::Nested(text) = value else { return Err(Refusal::new("not an array")) };
                let mut scanner = Scanner::enter(text, b'[').map_err(|_| Refusal::new("not an array"))?;
                while let Some(element) = scanner.element()? {
                    let is_array = matches!(element, Value::Nested(text) if text.starts_with('['));
                    if is_array && !matches!(**elements, Self::Json(_)) {
                        return Err(Refusal::new("an array of more than one dimension; a list holds one"));
                    }
                    elements.append(element)?;
                }
                let end = i32::try_from(elements.len())
                    .map_err(|_| Refusal::new("more array elements than a batch holds"))?;
                offsets.push(end);
                valid.push(true);
            }
        }
        Ok(())
    }

    fn finish(self) -> ArrayRef {
        each!(self, mut builder => Arc::new(builder.finish()) as ArrayRef, Self::List { field, offsets, valid, elements } => {
            let elements = elements.finish();
            // A value that was refused halfway leaves elements behind the last offset.
            let end = offsets.last().and_then(|end| usize::try_from(*end).ok()).unwrap_or(0);
            let elements = elements.slice(0, end);
            Arc::new(ListArray::new(field, OffsetBuffer::new(offsets.into()), elements, Some(NullBuffer::from(valid))))
        })
    }

    /// Whether every whole number so far is one as a double, too.
    fn fit_double(&self) -> bool {
        match self {
            Self::Int64(builder) => builder.values_slice().iter().all(|number| number.unsigned_abs() <= 1 << 53),
            _ => false,
        }
    }

    /// The same values as doubles or as texts.
    fn convert(self, wanted: &ColumnType) -> Self {
        let mut to = Self::new(wanted);
        let array = self.finish();
        for index in 0..array.len() {
            if array.is_null(index) {
                to.append_nulls(1);
                continue;
            }
            match &mut to {
                Self::Float64(doubles) => {
                    let numbers = arrow::array::AsArray::as_primitive::<Int64Type>(&array);
                    #[expect(clippy::cast_precision_loss, reason = "fit_double() was asked")]
                    doubles.append_value(numbers.value(index) as f64);
                }
                Self::Text(texts) => texts.append_value(printed(&array, index)),
                // widen() asks for nothing else.
                _ => to.append_nulls(1),
            }
        }
        to
    }
}

/// One value of an inferred type as JSON printed it.
fn printed(array: &ArrayRef, index: usize) -> String {
    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Float64Type};
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(index).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(index).to_string(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(index).to_string(),
        _ => array.as_string::<i32>().value(index).to_owned(),
    }
}

#[inline(always)]
fn text_of(value: Value<'_>) -> Result<std::borrow::Cow<'_, str>, Refusal> {
    value.scalar()?.ok_or(Refusal::new("not a value of the type"))
}

fn boolean(value: Value<'_>) -> Result<bool, Refusal> {
    match value {
        Value::Bool(truth) => Ok(truth),
        Value::String("t" | "true") => Ok(true),
        Value::String("f" | "false") => Ok(false),
        _ => Err(Refusal::new("not true or false")),
    }
}
