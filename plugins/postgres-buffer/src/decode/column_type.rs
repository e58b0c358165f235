//! From PostgreSQL's type names to Arrow types.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use philotes_sdk::batch::UTC;

/// How a column's values are read and what they become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ColumnType {
    Boolean,
    Int32,
    Int64,
    Float32,
    Float64,
    /// Precision and scale, both as Arrow and Iceberg allow them.
    Decimal(u8, i8),
    /// Whatever has no better counterpart, as PostgreSQL prints it.
    Text,
    Json,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Uuid,
    Bytea,
    List(Box<Self>),
}

impl ColumnType {
    /// The type of a name as `format_type` or `pg_type` print it: `numeric(10,2)`, `timestamp(3) with time zone`,
    /// `int4`, `_text`, `integer[]`. A name that is not known means text.
    pub(crate) fn of(name: &str) -> Self {
        let name = name.trim();
        let name = name.strip_prefix("pg_catalog.").unwrap_or(name);
        if let Some(element) = name.strip_suffix("[]").or_else(|| name.strip_prefix('_')) {
            let element = Self::of(element);
            // PostgreSQL's type is the same whatever the number of dimensions.
            return if matches!(element, Self::List(_)) { element } else { Self::List(Box::new(element)) };
        }
        // The modifier may stand in the middle: timestamp(3) with time zone.
        let (base, modifier) = match name.split_once('(') {
            Some((before, after)) => {
                let (modifier, after) = after.split_once(')').unwrap_or((after, ""));
                (format!("{}{after}", before.trim_end()), Some(modifier))
            }
            None => (name.to_owned(), None),
        };
        match base.to_ascii_lowercase().as_str() {
            "boolean" | "bool" => Self::Boolean,
            "smallint" | "integer" | "int" | "int2" | "int4" | "smallserial" | "serial" => Self::Int32,
            "bigint" | "int8" | "bigserial" | "oid" => Self::Int64,
            "real" | "float4" => Self::Float32,
            "double precision" | "float8" => Self::Float64,
            "numeric" | "decimal" => modifier.and_then(decimal).unwrap_or(Self::Text),
            "json" | "jsonb" => Self::Json,
            "date" => Self::Date,
            "time" | "time without time zone" => Self::Time,
            "timestamp" | "timestamp without time zone" => Self::Timestamp,
            "timestamptz" | "timestamp with time zone" => Self::TimestampTz,
            "uuid" => Self::Uuid,
            "bytea" => Self::Bytea,
            _ => Self::Text,
        }
    }

    /// The Arrow type.
    pub(crate) fn arrow(&self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
            Self::Decimal(precision, scale) => DataType::Decimal128(*precision, *scale),
            Self::Text | Self::Json => DataType::Utf8,
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
            Self::Uuid => DataType::FixedSizeBinary(16),
            Self::Bytea => DataType::Binary,
            Self::List(element) => DataType::List(Arc::new(element.field("item"))),
        }
    }

    /// A nullable field of this type, with Arrow's canonical extension where there is one.
    pub(crate) fn field(&self, name: &str) -> Field {
        let field = Field::new(name, self.arrow(), true);
        let extension = match self {
            Self::Uuid => "arrow.uuid",
            Self::Json => "arrow.json",
            _ => return field,
        };
        field.with_metadata([("ARROW:extension:name".to_owned(), extension.to_owned())].into())
    }

    /// The type that holds the values of both without changing one, where it is one of the two.
    pub(crate) fn wider(&self, other: &Self) -> Option<Self> {
        let (narrow, wide) = match (self, other) {
            (a, b) if a == b => return Some(a.clone()),
            (Self::Int32, Self::Int64) | (Self::Float32, Self::Float64) => (self, other),
            (Self::Int64, Self::Int32) | (Self::Float64, Self::Float32) => (other, self),
            (Self::Decimal(p, s), Self::Decimal(q, t)) if s == t => return Some(Self::Decimal(*p.max(q), *s)),
            (Self::List(a), Self::List(b)) => return a.wider(b).map(|element| Self::List(Box::new(element))),
            _ => return None,
        };
        debug_assert_ne!(narrow, wide);
        Some(wide.clone())
    }
}

/// numeric(p,s) where 38 digits hold it. PostgreSQL 15 allows a negative scale, and one above the precision.
fn decimal(modifier: &str) -> Option<ColumnType> {
    let (precision, scale) = modifier.split_once(',').unwrap_or((modifier, "0"));
    let (precision, scale): (i32, i32) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
    // numeric(3,-2) holds 99900: five digits before the point. numeric(2,5) holds 0.00099: five after it.
    let (precision, scale) = if scale < 0 { (precision - scale, 0) } else { (precision.max(scale), scale) };
    if !(1..=38).contains(&precision) {
        return None;
    }
    Some(ColumnType::Decimal(u8::try_from(precision).ok()?, i8::try_from(scale).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_types() {
        use ColumnType::*;
        let list = |element| List(Box::new(element));
        for (name, expected) in [
            ("smallint", Int32),
            ("integer", Int32),
            ("bigint", Int64),
            ("oid", Int64),
            ("real", Float32),
            ("double precision", Float64),
            ("numeric(10,2)", Decimal(10, 2)),
            ("numeric(38,0)", Decimal(38, 0)),
            ("numeric(5)", Decimal(5, 0)),
            ("numeric(3,-2)", Decimal(5, 0)),
            ("numeric(2,5)", Decimal(5, 5)),
            ("numeric(39,2)", Text),
            ("numeric(30,-10)", Text),
            ("numeric", Text),
            ("boolean", Boolean),
            ("text", Text),
            ("character varying(20)", Text),
            ("character(3)", Text),
            ("public.mood", Text),
            ("interval", Text),
            ("inet", Text),
            ("time with time zone", Text),
            ("date", Date),
            ("time(3) without time zone", Time),
            ("timestamp without time zone", Timestamp),
            ("timestamp(3) with time zone", TimestampTz),
            ("timestamptz", TimestampTz),
            ("uuid", Uuid),
            ("jsonb", Json),
            ("json", Json),
            ("bytea", Bytea),
            ("integer[]", list(Int32)),
            ("integer[][]", list(Int32)),
            ("_numeric", list(Text)),
            ("numeric(10,2)[]", list(Decimal(10, 2))),
            ("timestamp(3) with time zone[]", list(TimestampTz)),
        ] {
            assert_eq!(ColumnType::of(name), expected, "{name}");
        }
    }

    #[test]
    fn widening_never_changes_a_value() {
        use ColumnType::*;
        assert_eq!(Int32.wider(&Int64), Some(Int64));
        assert_eq!(Int64.wider(&Int32), Some(Int64));
        assert_eq!(Decimal(10, 2).wider(&Decimal(12, 2)), Some(Decimal(12, 2)));
        assert_eq!(Decimal(10, 2).wider(&Decimal(12, 3)), None);
        assert_eq!(Int64.wider(&Float64), None);
        assert_eq!(Text.wider(&Json), None);
    }
}
