//! One column of the batch that is being built.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, FixedSizeBinaryBuilder,
    Float32Builder, Float64Builder, Int32Builder, Int64Builder, ListArray, StringBuilder, StructArray,
    Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields};
use philotes_sdk::batch::{META_COLUMN_NUMBER, META_COMMENT, META_INFERRED, META_SOURCE_TYPE, UTC};
use philotes_sdk::json::time::{self, Zone};
use philotes_sdk::json::{Entry, Scanner, Value, scalar, token};

use super::{ColumnType, Refusal, bytea, infer};

/// What is known of a column beside its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) kind: ColumnType,
    /// The type's name at the source; `None` where the type was inferred from values.
    pub(crate) source_type: Option<String>,
    pub(crate) number: Option<i32>,
    pub(crate) comment: Option<String>,
}

impl Description {
    /// Of a column whose type is inferred.
    pub(crate) fn inferred(kind: ColumnType) -> Self {
        Self { kind, source_type: None, number: None, comment: None }
    }
}

/// A column: its name, what is known of it, and the values so far.
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) told: Description,
    /// A row that lacks it has left it out: it is not one that the source no longer has.
    pub(crate) current: bool,
    /// The name as a key of JSON, quotes and colon and all, as PostgreSQL prints it.
    pub(crate) token: Vec<u8>,
    values: Values,
    /// How many values there are.
    len: usize,
}

impl Column {
    /// A column that is null in the `rows` rows there are already.
    pub(crate) fn new(name: &str, told: Description, rows: usize) -> Self {
        let mut values = Values::new(&told.kind);
        values.append_nulls(rows);
        let token = token(name);
        Self { name: name.to_owned(), told, current: true, token, values, len: rows }
    }

    pub(crate) fn field(&self) -> Field {
        let mut field = self.told.kind.field(&self.name);
        let metadata = field.metadata_mut();
        match &self.told.source_type {
            Some(source_type) => metadata.insert(META_SOURCE_TYPE.to_owned(), source_type.clone()),
            None => metadata.insert(META_INFERRED.to_owned(), "true".to_owned()),
        };
        if let Some(number) = self.told.number {
            metadata.insert(META_COLUMN_NUMBER.to_owned(), number.to_string());
        }
        if let Some(comment) = &self.told.comment {
            metadata.insert(META_COMMENT.to_owned(), comment.clone());
        }
        field
    }

    /// Whether the type is inferred from values.
    pub(crate) fn is_inferred(&self) -> bool {
        self.told.source_type.is_none()
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Appends a value; one of an inferred column may widen the column's type.
    #[inline(always)]
    pub(crate) fn append(&mut self, value: Value<'_>) -> Result<(), Refusal> {
        if self.is_inferred() && !matches!(value, Value::Null) {
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
        let array = std::mem::replace(&mut self.values, Values::new(&self.told.kind)).finish();
        if array.len() == rows { array } else { array.slice(0, rows) }
    }

    /// Another description of an empty column.
    pub(crate) fn retell(&mut self, told: Description) {
        debug_assert_eq!(self.len(), 0);
        self.values = Values::new(&told.kind);
        self.told = told;
    }

    /// Makes room for a value in a column whose type is inferred: the values so far keep their worth.
    fn widen(&mut self, value: Value<'_>) -> Result<(), Refusal> {
        if infer::holds(&self.told.kind, value) {
            return Ok(());
        }
        let so_far = std::mem::replace(&mut self.values, Values::new(&ColumnType::Text)).finish();
        let texts: Vec<Option<String>> = (0..so_far.len()).map(|index| printed(&so_far, index)).collect();
        self.told.kind = infer::wider(&self.told.kind, &texts, value);
        self.values = Values::new(&self.told.kind);
        for text in &texts {
            // What is not text is one of JSON's numbers by now.
            let value = text.as_deref().map_or(
                Value::Null,
                match self.told.kind {
                    ColumnType::Text => Value::String,
                    _ => Value::Number,
                },
            );
            self.values.append(value)?;
        }
        Ok(())
    }
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
    TimestampText(StringBuilder),
    /// What a JSON string holds is the text of the JSON.
    JsonText(StringBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder, Zone),
    Uuid(FixedSizeBinaryBuilder),
    Bytea(BinaryBuilder),
    List {
        field: Arc<Field>,
        offsets: Vec<i32>,
        valid: Vec<bool>,
        elements: Box<Self>,
    },
    Struct {
        fields: Fields,
        members: Vec<Member>,
        valid: Vec<bool>,
    },
}

/// A field of a composite type: its name as a key of JSON, and its values.
struct Member {
    token: Vec<u8>,
    values: Values,
}

/// Runs an expression on whichever builder there is; lists and structs apart.
macro_rules! each {
    ($values:expr, $builder:pat_param => $flat:expr, $list:pat => $in_list:expr, $struct:pat => $in_struct:expr) => {
        match $values {
            Values::Boolean($builder) => $flat,
            Values::Int32($builder) => $flat,
            Values::Int64($builder) => $flat,
            Values::Float32($builder) => $flat,
            Values::Float64($builder) => $flat,
            Values::Decimal($builder, _, _) => $flat,
            Values::Text($builder)
            | Values::TimestampText($builder)
            | Values::Json($builder)
            | Values::JsonText($builder) => $flat,
            Values::Date($builder) => $flat,
            Values::Time($builder) => $flat,
            Values::Timestamp($builder, _) => $flat,
            Values::Uuid($builder) => $flat,
            Values::Bytea($builder) => $flat,
            $list => $in_list,
            $struct => $in_struct,
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
            ColumnType::TimestampText => Self::TimestampText(StringBuilder::with_capacity(0, 0)),
            ColumnType::JsonText => Self::JsonText(StringBuilder::with_capacity(0, 0)),
            ColumnType::Date => Self::Date(Date32Builder::with_capacity(0)),
            ColumnType::Time => Self::Time(Time64MicrosecondBuilder::with_capacity(0)),
            ColumnType::Timestamp => Self::Timestamp(TimestampMicrosecondBuilder::with_capacity(0), Zone::Without),
            ColumnType::TimestampTz | ColumnType::TimestampUtc => {
                let zone = if *kind == ColumnType::TimestampTz { Zone::With } else { Zone::Utc };
                Self::Timestamp(TimestampMicrosecondBuilder::with_capacity(0).with_timezone(UTC), zone)
            }
            ColumnType::Uuid => Self::Uuid(FixedSizeBinaryBuilder::with_capacity(0, 16)),
            ColumnType::Bytea => Self::Bytea(BinaryBuilder::with_capacity(0, 0)),
            ColumnType::List(element) => Self::List {
                field: Arc::new(element.field("item")),
                offsets: vec![0],
                valid: Vec::new(),
                elements: Box::new(Self::new(element)),
            },
            ColumnType::Struct(members) => Self::Struct {
                fields: members.iter().map(super::column_type::Member::field).collect(),
                members: members
                    .iter()
                    .map(|member| Member { token: token(&member.name), values: Self::new(&member.kind) })
                    .collect(),
                valid: Vec::new(),
            },
        }
    }

    fn len(&self) -> usize {
        use arrow::array::ArrayBuilder;
        each!(self, builder => builder.len(), Self::List { valid, .. } => valid.len(), Self::Struct { valid, .. } => valid.len())
    }

    fn append_nulls(&mut self, count: usize) {
        for _ in 0..count {
            each!(
                self,
                builder => builder.append_null(),
                Self::List { valid, offsets, .. } => {
                    valid.push(false);
                    offsets.push(offsets.last().copied().unwrap_or(0));
                },
                Self::Struct { valid, members, .. } => {
                    valid.push(false);
                    members.iter_mut().for_each(|member| member.values.append_nulls(1));
                }
            );
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
            Self::TimestampText(builder) => builder.append_value(time::timestamp_text(&text_of(value)?)),
            Self::JsonText(builder) => match value {
                Value::String(text) => builder.append_value(text),
                Value::Escaped(_) => builder.append_value(text_of(value)?),
                Value::Number(text) | Value::Nested(text) => builder.append_value(text),
                Value::Bool(truth) => builder.append_value(if truth { "true" } else { "false" }),
                Value::Null => builder.append_null(),
            },
            Self::Date(builder) => builder.append_value(time::date(&text_of(value)?)?),
            Self::Time(builder) => builder.append_value(time::time(&text_of(value)?)?),
            Self::Timestamp(builder, zone) => builder.append_value(time::timestamp(&text_of(value)?, *zone)?),
            Self::Uuid(builder) => {
                builder.append_value(scalar::uuid(&text_of(value)?)?).map_err(|_| Refusal::new("not a uuid"))?;
            }
            Self::Bytea(builder) => builder.append_value(bytea::bytea(&text_of(value)?)?),
            Self::List { offsets, valid, elements, .. } => {
                append_list(elements, value)?;
                let end = i32::try_from(elements.len())
                    .map_err(|_| Refusal::new("more array elements than a batch holds"))?;
                offsets.push(end);
                valid.push(true);
            }
            Self::Struct { members, valid, .. } => {
                append_members(members, value, valid.len())?;
                valid.push(true);
            }
        }
        Ok(())
    }

    fn finish(self) -> ArrayRef {
        each!(
            self,
            mut builder => Arc::new(builder.finish()) as ArrayRef,
            Self::List { field, offsets, valid, elements } => {
                // A value that was refused halfway leaves elements behind the last offset.
                let end = offsets.last().and_then(|end| usize::try_from(*end).ok()).unwrap_or(0);
                let elements = elements.finish().slice(0, end);
                let nulls = NullBuffer::from(valid);
                Arc::new(ListArray::new(field, OffsetBuffer::new(offsets.into()), elements, Some(nulls)))
            },
            Self::Struct { fields, members, valid } => {
                // The same holds for members.
                let members = members.into_iter().map(|member| member.values.finish().slice(0, valid.len())).collect();
                Arc::new(StructArray::new(fields, members, Some(NullBuffer::from(valid))))
            }
        )
    }
}

/// The elements of a JSON array.
fn append_list(elements: &mut Values, array: Value<'_>) -> Result<(), Refusal> {
    const NO_ARRAY: Refusal = Refusal::new("not an array of as many dimensions as the column is declared with");
    let Value::Nested(text) = array else { return Err(NO_ARRAY) };
    let mut scanner = Scanner::enter(text, b'[').map_err(|_| NO_ARRAY)?;
    while let Some(element) = scanner.element()? {
        let is_array = matches!(element, Value::Nested(text) if text.starts_with('['));
        if is_array && !matches!(elements, Values::Json(_) | Values::List { .. }) {
            return Err(Refusal::new(
                "an array of more dimensions than the column is declared with; `columns` can have it read as json",
            ));
        }
        elements.append(element)?;
    }
    Ok(())
}

/// The members of a JSON object, behind the `rows` there are; those that it lacks are null.
fn append_members(members: &mut [Member], object: Value<'_>, rows: usize) -> Result<(), Refusal> {
    const NO_OBJECT: Refusal = Refusal::new("not a value of the composite type");
    let Value::Nested(text) = object else { return Err(NO_OBJECT) };
    let mut scanner = Scanner::enter(text, b'{').map_err(|_| NO_OBJECT)?;
    // They come in their order, most often.
    let mut position = 0;
    loop {
        let expected = members.get(position).map_or(&[][..], |member| &member.token);
        let Some(entry) = scanner.entry(expected)? else { break };
        if let Entry::Other(key) = entry {
            let key = token(&key);
            let Some(found) = members.iter().position(|member| member.token == key) else {
                return Err(Refusal::new("a field that the composite type has not"));
            };
            position = found;
        }
        let values = &mut members[position].values;
        if values.len() > rows {
            return Err(Refusal::new("a field of the composite type twice"));
        }
        values.append(scanner.value()?)?;
        position += 1;
    }
    for member in members.iter_mut().filter(|member| member.values.len() == rows) {
        member.values.append_nulls(1);
    }
    Ok(())
}

/// One value of an inferred type as JSON printed it.
fn printed(array: &ArrayRef, index: usize) -> Option<String> {
    use arrow::array::AsArray;
    use arrow::datatypes::{Decimal128Type, Float64Type, Int64Type};
    if array.is_null(index) {
        return None;
    }
    Some(match array.data_type() {
        DataType::Boolean => array.as_boolean().value(index).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(index).to_string(),
        // Never with an exponent.
        DataType::Float64 => array.as_primitive::<Float64Type>().value(index).to_string(),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value_as_string(index),
        _ => array.as_string::<i32>().value(index).to_owned(),
    })
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
