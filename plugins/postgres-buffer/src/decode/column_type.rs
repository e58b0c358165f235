//! From PostgreSQL's type names to Arrow types.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use philotes_sdk::batch::{META_SOURCE_TYPE, UTC};
use serde::Deserialize;

/// As many as PostgreSQL allows.
const MAX_DIMENSIONS: u8 = 6;
/// The longest name of a type, in bytes. PostgreSQL's own stay below 300: two quoted identifiers and a modifier.
pub(crate) const MAX_TYPE_NAME: usize = 1024;
/// How deep composite types may stand in one another. What is deeper is text.
const MAX_LEVELS: usize = 16;
/// How many fields may lie below one column, all levels together. More than that is text.
pub(crate) const MAX_FIELDS: usize = 4096;

/// A column as somebody told it: the row's metadata, the source's catalog, or the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct ToldColumn {
    pub(crate) name: String,
    /// As `format_type` prints it; of a domain the type beneath it.
    #[serde(rename = "type")]
    pub(crate) type_name: String,
    /// `attnum`.
    #[serde(default)]
    pub(crate) number: Option<i32>,
    #[serde(default)]
    pub(crate) comment: Option<String>,
    /// Of json and its arrays: each value is a JSON string that holds the value's own text.
    #[serde(default)]
    pub(crate) text: bool,
    /// How many dimensions an array was declared with, where that is more than one.
    #[serde(default)]
    pub(crate) dimensions: Option<u8>,
    /// The fields of a composite type, also where the column is an array of it.
    #[serde(default)]
    pub(crate) fields: Vec<Self>,
}

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
    /// JSON whose own text stands in a string: PostgreSQL's `json` keeps what `jsonb` would not.
    JsonText,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    /// A timestamp without a zone that is told to be in UTC.
    TimestampUtc,
    /// A timestamp that is read as text.
    TimestampText,
    Uuid,
    Bytea,
    List(Box<Self>),
    Struct(Vec<Member>),
}

/// A field of a composite type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) source_type: String,
    pub(crate) kind: ColumnType,
}

impl ColumnType {
    /// The type of a column that was told. A composite type beyond the bounds is text, as are types that are not known.
    pub(crate) fn told(column: &ToldColumn) -> Self {
        let mut left = MAX_FIELDS;
        Self::told_within(column, MAX_LEVELS, &mut left).unwrap_or_else(|| Self::in_arrays(column, |_| Self::Text))
    }

    /// `None` where the composite types in it have more levels or fields.
    fn told_within(column: &ToldColumn, levels: usize, left: &mut usize) -> Option<Self> {
        if column.fields.is_empty() {
            let text = |kind| if kind == Self::Json && column.text { Self::JsonText } else { kind };
            return Some(Self::in_arrays(column, text));
        }
        *left = left.checked_sub(column.fields.len())?;
        let levels = levels.checked_sub(1)?;
        let mut members = Vec::with_capacity(column.fields.len());
        for field in &column.fields {
            let kind = Self::told_within(field, levels, left)?;
            members.push(Member { name: field.name.clone(), source_type: field.type_name.clone(), kind });
        }
        Some(Self::in_arrays(column, |_| Self::Struct(members)))
    }

    /// What `make` makes of the type that the column is or is an array of, in as many arrays as it has dimensions.
    fn in_arrays(column: &ToldColumn, make: impl FnOnce(Self) -> Self) -> Self {
        // PostgreSQL's type is the same whatever the number of dimensions.
        let (kind, dimensions) = match Self::of(&column.type_name) {
            Self::List(element) => (*element, column.dimensions.unwrap_or(1).clamp(1, MAX_DIMENSIONS)),
            kind => (kind, 0),
        };
        (0..dimensions).fold(make(kind), |kind, _| Self::List(Box::new(kind)))
    }

    /// The type of a name as `format_type` or `pg_type` print it: `numeric(10,2)`, `timestamp(3) with time zone`,
    /// `int4`, `_text`, `integer[]`. A name that is not known means text.
    pub(crate) fn of(name: &str) -> Self {
        Self::known(name).unwrap_or(Self::Text)
    }

    /// The same; `None` where the name is not known. An array of what is not known is known to be an array.
    pub(crate) fn known(name: &str) -> Option<Self> {
        let (mut name, mut array) = (unqualified(name), false);
        // An array of arrays is an array.
        while let Some(element) = name.strip_suffix("[]").or_else(|| name.strip_prefix('_')) {
            (name, array) = (unqualified(element), true);
        }
        let element = Self::known_scalar(name);
        if array { Some(Self::List(Box::new(element.unwrap_or(Self::Text)))) } else { element }
    }

    /// The same of a type that is no array.
    fn known_scalar(name: &str) -> Option<Self> {
        // The modifier may stand in the middle: timestamp(3) with time zone.
        let (base, modifier) = match name.split_once('(') {
            Some((before, after)) => {
                let (modifier, after) = after.split_once(')').unwrap_or((after, ""));
                (format!("{}{after}", before.trim_end()), Some(modifier))
            }
            None => (name.to_owned(), None),
        };
        Some(match base.to_ascii_lowercase().as_str() {
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
            "text" | "character varying" | "varchar" | "character" | "char" | "bpchar" => Self::Text,
            _ => return None,
        })
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
            Self::Text | Self::TimestampText | Self::Json | Self::JsonText => DataType::Utf8,
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::TimestampTz | Self::TimestampUtc => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
            Self::Uuid => DataType::FixedSizeBinary(16),
            Self::Bytea => DataType::Binary,
            Self::List(element) => DataType::List(Arc::new(element.field("item"))),
            Self::Struct(members) => DataType::Struct(members.iter().map(Member::field).collect()),
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

    /// How values told as this type are read where the configuration says another one.
    pub(crate) fn read_as(&self, wanted: &Self) -> Self {
        match (self, wanted) {
            (Self::Timestamp, Self::TimestampTz) => Self::TimestampUtc,
            (Self::Timestamp | Self::TimestampTz, Self::Text) => Self::TimestampText,
            // The text is the JSON.
            (Self::Text | Self::JsonText, Self::Json) => Self::JsonText,
            (Self::List(told), Self::List(wanted)) => Self::List(Box::new(told.read_as(wanted))),
            _ => wanted.clone(),
        }
    }

    /// The type that holds the values of both without changing one, where it is one of the two.
    pub(crate) fn wider(&self, other: &Self) -> Option<Self> {
        let (narrow, wide) = match (self, other) {
            (a, b) if a == b => return Some(a.clone()),
            (Self::Int32, Self::Int64) | (Self::Float32, Self::Float64) => (self, other),
            (Self::Int64, Self::Int32) | (Self::Float64, Self::Float32) => (other, self),
            (Self::Decimal(p, s), Self::Decimal(q, t)) if s == t => return Some(Self::Decimal(*p.max(q), *s)),
            (Self::List(a), Self::List(b)) => return a.wider(b).map(|element| Self::List(Box::new(element))),
            (Self::Struct(a), Self::Struct(b)) => return wider_members(a, b).map(Self::Struct),
            _ => return None,
        };
        debug_assert_ne!(narrow, wide);
        Some(wide.clone())
    }
}

impl Member {
    pub(crate) fn field(&self) -> Field {
        let mut field = self.kind.field(&self.name);
        field.metadata_mut().insert(META_SOURCE_TYPE.to_owned(), self.source_type.clone());
        field
    }
}

/// The members that are told last, each as wide as it was told before.
fn wider_members(known: &[Member], told: &[Member]) -> Option<Vec<Member>> {
    told.iter()
        .map(|member| {
            let before = known.iter().find(|before| before.name == member.name);
            let kind = before.map_or(Some(member.kind.clone()), |before| before.kind.wider(&member.kind))?;
            Some(Member { kind, ..member.clone() })
        })
        .collect()
}

/// A name without the schema of PostgreSQL's own types.
fn unqualified(name: &str) -> &str {
    let name = name.trim();
    name.strip_prefix("pg_catalog.").unwrap_or(name)
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

    /// docs/TYPES.md says what the code does.
    #[test]
    fn the_documented_types_are_these() {
        let document = include_str!("../../../../docs/TYPES.md");
        let rows = document.lines().filter(|line| line.starts_with("| `"));
        let mut types = 0;
        for row in rows {
            let mut cells = row.split('|').map(str::trim).skip(1);
            let (names, arrow) = (cells.next().unwrap(), cells.next().unwrap().trim_matches('`'));
            for name in names.split("`, `").map(|name| name.trim_matches('`')) {
                assert_eq!(ColumnType::of(name).arrow().to_string(), arrow, "{name}");
                types += 1;
            }
        }
        assert!(types > 60, "only {types} types");
    }

    /// A stranger's name of a type takes no stack, however many arrays it says.
    #[test]
    fn a_name_of_many_arrays_is_an_array() {
        let list = ColumnType::List(Box::new(ColumnType::Int32));
        for count in [1, 2, 12_000, 1_000_000] {
            assert_eq!(ColumnType::of(&format!("{}int4", "_".repeat(count))), list);
            assert_eq!(ColumnType::of(&format!("int4{}", "[]".repeat(count))), list);
            assert_eq!(ColumnType::of(&"_".repeat(count)), ColumnType::List(Box::new(ColumnType::Text)));
        }
    }

    /// Composite types whose fields double at each level, or that stand in one another without an end in sight.
    #[test]
    fn a_composite_type_beyond_the_bounds_is_text() {
        let column = |fields: Vec<ToldColumn>| ToldColumn {
            name: "c".into(),
            type_name: if fields.is_empty() { "integer" } else { "public.c" }.into(),
            fields,
            ..ToldColumn::default()
        };
        let nested =
            |levels: usize, fields: usize| (0..levels).fold(column(Vec::new()), |inner, _| column(vec![inner; fields]));
        let is_struct = |column: &ToldColumn| matches!(ColumnType::told(column), ColumnType::Struct(_));
        assert!(is_struct(&nested(MAX_LEVELS, 1)) && is_struct(&nested(1, MAX_FIELDS)) && is_struct(&nested(3, 15)));
        assert_eq!(ColumnType::told(&nested(MAX_LEVELS + 1, 1)), ColumnType::Text);
        assert_eq!(ColumnType::told(&nested(1, MAX_FIELDS + 1)), ColumnType::Text);
        assert_eq!(ColumnType::told(&nested(12, 2)), ColumnType::Text);
        let array = ToldColumn { type_name: "public.c[]".into(), ..nested(12, 2) };
        assert_eq!(ColumnType::told(&array), ColumnType::List(Box::new(ColumnType::Text)));
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
