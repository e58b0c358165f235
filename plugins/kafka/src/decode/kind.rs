//! The types of columns, and how their values stand in messages.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use philotes_sdk::batch::{META_SOURCE_TYPE, UTC};

/// A type, and how its values stand in a message where there is more than one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    /// Precision and scale, as Arrow and Iceberg allow them.
    Decimal(u8, i8, Digits),
    String(Text),
    /// Bytes; base64 in JSON.
    Binary,
    /// ISO 8601, or days since 1970.
    Date {
        infinities: Infinities,
    },
    /// ISO 8601, or a number of a unit since midnight.
    Time(Option<Unit>),
    /// ISO 8601, or a number of a unit since 1970.
    Timestamp {
        zone: bool,
        unit: Option<Unit>,
        infinities: Infinities,
    },
    Uuid,
    /// Any JSON value: its text.
    Json,
    /// A string that holds JSON.
    JsonText,
    List(Box<Self>),
    /// Keys and values.
    Map(Box<Self>, Box<Self>),
    Struct(Vec<Member>),
}

/// What the numbers of times and dates count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Millis,
    Micros,
    Nanos,
}

/// How a decimal stands in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Digits {
    /// A number, or its digits in a string.
    Text,
    /// The unscaled value's bytes, big endian, two's complement; base64 in JSON.
    Bytes,
}

/// What text a string is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    Itself,
    /// The digits of a struct of a scale and an unscaled value's bytes.
    VariableScale,
    /// The zeros and ones of bytes, the last byte first, as many as this.
    Bits(Option<u32>),
}

/// Whether numbers stand for PostgreSQL's infinities, as Debezium sends those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Infinities {
    No,
    Debezium,
}

/// A field of a struct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// The name of its type at the source, where there is one.
    pub(crate) source_type: Option<String>,
}

impl Kind {
    pub(crate) const STRING: Self = Self::String(Text::Itself);
    pub(crate) const DATE: Self = Self::Date { infinities: Infinities::No };

    /// A timestamp whose numbers are numbers.
    pub(crate) const fn timestamp(zone: bool, unit: Option<Unit>) -> Self {
        Self::Timestamp { zone, unit, infinities: Infinities::No }
    }

    /// The same, with numbers for PostgreSQL's infinities as Debezium sends them.
    pub(crate) fn with_infinities(self) -> Self {
        let inner = |kind: Box<Self>| Box::new(kind.with_infinities());
        match self {
            Self::Date { .. } => Self::Date { infinities: Infinities::Debezium },
            Self::Timestamp { zone, unit, .. } => Self::Timestamp { zone, unit, infinities: Infinities::Debezium },
            Self::List(element) => Self::List(inner(element)),
            Self::Map(key, value) => Self::Map(key, inner(value)),
            Self::Struct(members) => {
                let member = |member: Member| Member { kind: member.kind.with_infinities(), ..member };
                Self::Struct(members.into_iter().map(member).collect())
            }
            other => other,
        }
    }

    /// The Arrow type.
    pub(crate) fn arrow(&self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Int => DataType::Int32,
            Self::Long => DataType::Int64,
            Self::Float => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::Decimal(precision, scale, _) => DataType::Decimal128(*precision, *scale),
            Self::String(_) | Self::Json | Self::JsonText => DataType::Utf8,
            Self::Binary => DataType::Binary,
            Self::Date { .. } => DataType::Date32,
            Self::Time(_) => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp { zone, .. } => DataType::Timestamp(TimeUnit::Microsecond, zone.then(|| UTC.into())),
            Self::Uuid => DataType::FixedSizeBinary(16),
            Self::List(element) => DataType::List(element.element_field()),
            Self::Map(key, value) => DataType::Map(Self::entries_field(key, value), false),
            Self::Struct(members) => DataType::Struct(Self::member_fields(members)),
        }
    }

    /// A nullable field of this type, with Arrow's canonical extension where there is one.
    pub(crate) fn field(&self, name: &str) -> Field {
        let field = Field::new(name, self.arrow(), true);
        let extension = match self {
            Self::Uuid => "arrow.uuid",
            Self::Json | Self::JsonText => "arrow.json",
            _ => return field,
        };
        field.with_metadata([("ARROW:extension:name".to_owned(), extension.to_owned())].into())
    }

    pub(super) fn element_field(&self) -> Arc<Field> {
        Arc::new(self.field("item"))
    }

    pub(super) fn entry_fields(key: &Self, value: &Self) -> Fields {
        [key.field("key").with_nullable(false), value.field("value")].into_iter().collect()
    }

    pub(super) fn entries_field(key: &Self, value: &Self) -> Arc<Field> {
        Arc::new(Field::new("entries", DataType::Struct(Self::entry_fields(key, value)), false))
    }

    pub(super) fn member_fields(members: &[Member]) -> Fields {
        members.iter().map(Member::field).collect()
    }
}

impl Member {
    fn field(&self) -> Field {
        let mut field = self.kind.field(&self.name);
        if let Some(source_type) = &self.source_type {
            field.metadata_mut().insert(META_SOURCE_TYPE.to_owned(), source_type.clone());
        }
        field
    }
}
