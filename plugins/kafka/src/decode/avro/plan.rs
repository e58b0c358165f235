//! How the bytes of a type become values of a column.
//!
//! The column's kind follows from the shape, Avro's logical type and the name that Kafka Connect gives the type.

use std::sync::Arc;

use super::bytes::{Bytes, within};
use super::meaning;
use super::schema::{Notes, Record, Shape, Type};
use crate::decode::Refusal;
use crate::decode::kind::{Kind, Member, Text};
use crate::decode::logical::Dialect;
use crate::decode::values::Values;

pub(super) const MISMATCH: Refusal = Refusal::new("the columns were made for another type");

/// Reads values of one type, null or not.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What the values become.
    pub(crate) kind: Kind,
    /// `None` where the type is no union with null.
    pub(super) union: Option<Choice>,
    pub(super) read: Read,
}

/// A union whose branches, but for null, are one type.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) null: Option<usize>,
    pub(super) branches: usize,
}

#[derive(Debug)]
pub(super) enum Read {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Fixed(usize),
    Symbol(Arc<[String]>),
    List {
        item: Box<Plan>,
        may_be_empty: bool,
    },
    Map(Box<Plan>),
    Struct(Vec<Part>),
    /// A union of several types: a struct that has one of its members.
    Several {
        null: Option<usize>,
        members: Vec<Part>,
    },
    /// A record of a scale and the bytes of an unscaled value, in this order or the other.
    VariableScale {
        scale_first: bool,
    },
    /// What holds nothing is always null.
    Nothing(Type),
}

/// A field of a record, or a branch of a union.
#[derive(Debug)]
pub(crate) struct Part {
    pub(super) name: String,
    pub(super) of: Arc<Type>,
    /// `None` where it has no values that a column could hold: it is read over.
    pub(super) plan: Option<Plan>,
}

impl Plan {
    /// An error says what cannot be read.
    pub(crate) fn new(of: &Type, dialect: Dialect) -> Result<Self, String> {
        if !of.has_values() {
            return Ok(Self { kind: Kind::STRING, union: None, read: Read::Nothing(of.clone()) });
        }
        let Shape::Union(branches) = &of.shape else { return Self::of_value(of, None, dialect) };
        let null = branches.iter().position(|branch| branch.shape == Shape::Null);
        let inner = of.beneath_null();
        if std::ptr::eq(inner, of) && branches.len() > 1 {
            return several(branches, null, dialect);
        }
        Self::of_value(inner, Some(Choice { null, branches: branches.len() }), dialect)
    }

    fn of_value(of: &Type, union: Option<Choice>, dialect: Dialect) -> Result<Self, String> {
        let told = meaning::kind(of, dialect)?;
        let (read, kind) = match &of.shape {
            Shape::Null | Shape::Union(_) => (Read::Nothing(of.clone()), Kind::STRING),
            Shape::Boolean => (Read::Boolean, Kind::Boolean),
            Shape::Int => (Read::Int, Kind::Int),
            Shape::Long => (Read::Long, Kind::Long),
            Shape::Float => (Read::Float, Kind::Float),
            Shape::Double => (Read::Double, Kind::Double),
            Shape::Bytes => (Read::Bytes, Kind::Binary),
            Shape::String => (Read::Text, Kind::STRING),
            Shape::Fixed(size) => (Read::Fixed(*size), Kind::Binary),
            Shape::Enum(symbols) => (Read::Symbol(symbols.clone()), Kind::STRING),
            Shape::Array(items) => {
                let item = Self::new(items, dialect)?;
                let kind = Kind::List(Box::new(item.kind.clone()));
                (Read::List { item: Box::new(item), may_be_empty: items.may_be_empty() }, kind)
            }
            Shape::Map(values) => {
                let value = Self::new(values, dialect)?;
                let kind = Kind::Map(Box::new(Kind::STRING), Box::new(value.kind.clone()));
                (Read::Map(Box::new(value)), kind)
            }
            Shape::Record(record) if told == Some(Kind::String(Text::VariableScale)) => {
                (Read::VariableScale { scale_first: meaning::scale_first(record)? }, Kind::STRING)
            }
            Shape::Record(record) => {
                let (parts, members) = parts(record, dialect)?;
                (Read::Struct(parts), Kind::Struct(members))
            }
        };
        Ok(Self { kind: told.unwrap_or(kind), union, read })
    }

    /// Whether the value that comes next is null.
    pub(super) fn is_null_next(&self, mut bytes: Bytes<'_>) -> bool {
        match &self.union {
            Some(Choice { null: Some(null), branches }) => bytes.index(*branches, "branch") == Ok(*null),
            _ => false,
        }
    }

    /// Appends the value that comes next. After a refusal the values have to be truncated.
    pub(crate) fn append(&self, bytes: &mut Bytes<'_>, values: &mut Values) -> Result<(), Refusal> {
        if let Some(Choice { null, branches }) = &self.union {
            let branch = bytes.index(*branches, "branch")?;
            if Some(branch) == *null {
                values.push_null();
                return Ok(());
            }
        }
        self.append_value(bytes, values)
    }

    fn append_value(&self, bytes: &mut Bytes<'_>, values: &mut Values) -> Result<(), Refusal> {
        match &self.read {
            Read::Boolean => values.push_boolean(bytes.boolean()?),
            Read::Int => values.push_integer(i64::from(bytes.int()?)),
            Read::Long => values.push_integer(bytes.long()?),
            Read::Float => values.push_double(f64::from(f32::from_le_bytes(bytes.array()?))),
            Read::Double => values.push_double(f64::from_le_bytes(bytes.array()?)),
            Read::Bytes => values.push_bytes(bytes.bytes()?),
            Read::Text => values.push_text(bytes.text()?),
            Read::Fixed(size) => values.push_bytes(bytes.take(*size)?),
            Read::Symbol(symbols) => values.push_text(&symbols[bytes.index(symbols.len(), "symbol")?]),
            Read::List { item, may_be_empty } => {
                let elements = values.elements()?;
                bytes.items(*may_be_empty, |bytes| item.append(bytes, elements))?;
                values.end_list()
            }
            Read::Map(value) => {
                let (keys, entries) = values.entries()?;
                let start = keys.len();
                bytes.items(false, |bytes| {
                    keys.push_text(bytes.text()?)?;
                    value.append(bytes, entries)
                })?;
                if keys.repeats_from(start) {
                    return Err(Refusal::new("a map that has a key twice"));
                }
                values.end_map()
            }
            Read::Struct(parts) => {
                append_parts(parts, bytes, values.members()?.0.iter_mut())?;
                values.end_struct()
            }
            Read::Several { null, members } => {
                let branch = bytes.index(members.len(), "branch")?;
                if Some(branch) == *null {
                    values.push_null();
                    return Ok(());
                }
                let mut columns = values.members()?.0.iter_mut();
                for (index, member) in members.iter().enumerate() {
                    match (&member.plan, index == branch) {
                        (Some(plan), true) => {
                            let column = columns.next().ok_or(MISMATCH)?;
                            plan.append(bytes, column).map_err(|why| within(&member.name, why))?;
                        }
                        (Some(_), false) => columns.next().ok_or(MISMATCH)?.push_null(),
                        (None, true) => bytes.skip(&member.of)?,
                        (None, false) => {}
                    }
                }
                values.end_struct()
            }
            Read::VariableScale { scale_first } => {
                let before = if *scale_first { Some(bytes.int()?) } else { None };
                let unscaled = bytes.bytes()?;
                let scale = before.map_or_else(|| bytes.int(), Ok)?;
                values.push_variable_scale(unscaled, scale)
            }
            Read::Nothing(of) => {
                bytes.skip(of)?;
                values.push_null();
                Ok(())
            }
        }
    }
}

/// The fields of a record, and the members that they become.
pub(crate) fn parts(record: &Record, dialect: Dialect) -> Result<(Vec<Part>, Vec<Member>), String> {
    let mut members = Vec::new();
    let mut parts = Vec::new();
    for field in &record.fields {
        let mut part = Part { name: field.name.clone(), of: field.of.clone(), plan: None };
        if field.of.has_values() {
            let plan = Plan::new(&field.of, dialect).map_err(|why| format!("field {:?}: {why}", field.name))?;
            members.push(member(&field.name, &plan, &field.of));
            part.plan = Some(plan);
        }
        parts.push(part);
    }
    Ok((parts, members))
}

fn member(name: &str, plan: &Plan, of: &Type) -> Member {
    Member { name: name.to_owned(), kind: plan.kind.clone(), source_type: Some(source_type(of).to_owned()) }
}

/// Appends a record to the columns of its fields.
fn append_parts<'v>(
    parts: &[Part],
    bytes: &mut Bytes<'_>,
    mut columns: impl Iterator<Item = &'v mut Values>,
) -> Result<(), Refusal> {
    for part in parts {
        let read = match (&part.plan, &part.of) {
            (Some(plan), _) => match columns.next() {
                Some(column) => plan.append(bytes, column),
                None => Err(MISMATCH),
            },
            (None, of) => bytes.skip(of),
        };
        read.map_err(|why| within(&part.name, why))?;
    }
    Ok(())
}

/// A union of several types beside null.
fn several(branches: &[Arc<Type>], null: Option<usize>, dialect: Dialect) -> Result<Plan, String> {
    let mut described = Vec::new();
    let mut members = Vec::new();
    for (branch, name) in branches.iter().zip(member_names(branches)) {
        let plan = if branch.has_values() { Some(Plan::new(branch, dialect)?) } else { None };
        described.extend(plan.as_ref().map(|plan| member(&name, plan, branch)));
        members.push(Part { name, of: branch.clone(), plan });
    }
    Ok(Plan { kind: Kind::Struct(described), union: None, read: Read::Several { null, members } })
}

/// What the branches of a union are called: by their type's name, with its namespace where two have the same without.
fn member_names(branches: &[Arc<Type>]) -> Vec<String> {
    let full: Vec<&str> = branches.iter().map(|branch| type_name(branch)).collect();
    let short = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let all: Vec<String> = full.iter().map(|name| short(name)).collect();
    let twice = |name: &String| all.iter().filter(|other| *other == name).count() > 1;
    all.iter().zip(&full).map(|(name, full)| if twice(name) { (*full).to_owned() } else { name.clone() }).collect()
}

/// The name of a column's type, the most telling one.
pub(crate) fn source_type(of: &Type) -> &str {
    let of = of.beneath_null();
    let Notes { connect_name, logical, connect_parameters, .. } = &of.notes;
    let told = connect_parameters.get("__debezium.source.column.type").or(connect_name.as_ref()).or(logical.as_ref());
    told.map_or_else(|| type_name(of), String::as_str)
}

/// The name of a type as the specification has it.
fn type_name(of: &Type) -> &str {
    if let Some(name) = &of.notes.name {
        return name;
    }
    match &of.shape {
        Shape::Null => "null",
        Shape::Boolean => "boolean",
        Shape::Int => "int",
        Shape::Long => "long",
        Shape::Float => "float",
        Shape::Double => "double",
        Shape::Bytes => "bytes",
        Shape::String => "string",
        Shape::Fixed(_) => "fixed",
        Shape::Enum(_) => "enum",
        Shape::Array(_) => "array",
        Shape::Map(_) => "map",
        Shape::Record(_) => "record",
        Shape::Union(_) => "union",
    }
}
