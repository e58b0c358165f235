//! Sort orders: `sort_by` read and bound to a table's columns. Only that a file's rows are sorted is the writer's.

use std::fmt;

use iceberg::spec::{NullOrder, Schema, SortDirection, SortField as IcebergSortField, SortOrder, Transform};
use philotes_sdk::{Error, Result};

use crate::partition::{Parser, quoted};
use crate::schema::type_name;

const ALLOWED: &str = "column [asc|desc] [nulls first|nulls last], names in double quotes where they need them";

/// One entry of `sort_by`. Printed as it is parsed: `day desc nulls first`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SortField {
    /// The column, nested ones with dots.
    pub(crate) column: String,
    pub(crate) direction: SortDirection,
    pub(crate) nulls: NullOrder,
}

/// Where nulls are unless it is said: first where values rise, last where they fall.
fn usual_nulls(direction: SortDirection) -> NullOrder {
    match direction {
        SortDirection::Ascending => NullOrder::First,
        SortDirection::Descending => NullOrder::Last,
    }
}

impl fmt::Display for SortField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quoted(&self.column))?;
        write_order(f, self.direction, self.nulls)
    }
}

fn write_order(f: &mut impl fmt::Write, direction: SortDirection, nulls: NullOrder) -> fmt::Result {
    if direction == SortDirection::Descending {
        f.write_str(" desc")?;
    }
    match nulls {
        usual if usual == usual_nulls(direction) => Ok(()),
        NullOrder::First => f.write_str(" nulls first"),
        NullOrder::Last => f.write_str(" nulls last"),
    }
}

/// Reads the entries of `sort_by`.
///
/// # Errors
/// Config: an entry that does not read, or a column that stands there twice.
pub(crate) fn parse(entries: &[String]) -> Result<Vec<SortField>> {
    let mut parsed: Vec<SortField> = Vec::with_capacity(entries.len());
    for entry in entries {
        let mut text = Parser::new("sort_by", ALLOWED, entry);
        let (column, _) = text.name("a column")?;
        let direction = if text.takes_word("desc") {
            SortDirection::Descending
        } else {
            text.takes_word("asc");
            SortDirection::Ascending
        };
        let nulls = if !text.takes_word("nulls") {
            usual_nulls(direction)
        } else if text.takes_word("first") {
            NullOrder::First
        } else if text.takes_word("last") {
            NullOrder::Last
        } else {
            return Err(text.expected("\"first\" or \"last\""));
        };
        if !text.at_end() {
            return Err(text.expected("\"asc\", \"desc\", \"nulls first\", \"nulls last\" or the end"));
        }
        if parsed.iter().any(|other| other.column == column) {
            return Err(text.fault(&format!("column {column:?} stands there twice")));
        }
        parsed.push(SortField { column, direction, nulls });
    }
    Ok(parsed)
}

/// The entries of `sort_by` as an order over this schema's columns, without an id of its own.
///
/// # Errors
/// Config: a column that the schema lacks or that rows cannot be sorted by; it names those that they can.
pub(crate) fn bind(fields: &[SortField], schema: &Schema) -> Result<SortOrder> {
    let mut order = SortOrder::unsorted_order();
    for field in fields {
        let fault = |what: &str| {
            let sortable = schema.as_struct().fields().iter().filter(|field| field.field_type.is_primitive());
            let columns: Vec<String> = sortable.map(|field| quoted(&field.name)).collect();
            Error::config(format!(
                "sort_by: {:?}: {what}; the columns to sort by are {}",
                field.to_string(),
                columns.join(", ")
            ))
        };
        let column = &field.column;
        let source = schema.field_by_name(column).ok_or_else(|| fault(&format!("no column {column:?}")))?;
        if !source.field_type.is_primitive() {
            return Err(fault(&format!(
                "column {column:?} is of type {}, which has no order",
                type_name(&source.field_type)
            )));
        }
        if schema.accessor_by_field_id(source.id).is_none() {
            return Err(fault(&format!("column {column:?} lies in a list or a map, which has many values per row")));
        }
        let (direction, null_order) = (field.direction, field.nulls);
        order.fields.push(IcebergSortField {
            source_id: source.id,
            transform: Transform::Identity,
            direction,
            null_order,
        });
    }
    if !order.is_unsorted() {
        order.order_id = 1;
    }
    Ok(order)
}

/// An order's fields as the configuration writes them, those of others with their transforms.
pub(crate) fn printed(order: &SortOrder, schema: &Schema) -> Vec<String> {
    let print = |field: &IcebergSortField| {
        let column = quoted(schema.name_by_field_id(field.source_id).unwrap_or("?"));
        let mut text = match field.transform {
            Transform::Identity => column,
            other => format!("{other}({column})"),
        };
        // Writing to a String cannot fail.
        let _ = write_order(&mut text, field.direction, field.null_order);
        text
    };
    order.fields.iter().map(print).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use iceberg::spec::{ListType, NestedField, PrimitiveType, StructType, Type};
    use philotes_sdk::ErrorKind;

    use super::*;

    fn parsed(entries: &[&str]) -> Result<Vec<SortField>> {
        parse(&entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>())
    }

    fn schema() -> Schema {
        let primitive = |id, name: &str| NestedField::optional(id, name, Type::Primitive(PrimitiveType::Long));
        let element = primitive(5, "element");
        let inner = StructType::new(vec![primitive(7, "x").into()]);
        let fields = [
            primitive(1, "id"),
            primitive(2, "a \"b\""),
            primitive(3, "desc"),
            NestedField::optional(4, "tags", Type::List(ListType::new(element.into()))),
            NestedField::optional(6, "s", Type::Struct(inner)),
        ];
        Schema::builder().with_fields(fields.map(Arc::new)).build().unwrap()
    }

    #[test]
    fn entries_are_read_and_printed() {
        for (entry, printed) in [
            ("id", "id"),
            ("id asc", "id"),
            ("id ASC NULLS FIRST", "id"),
            ("id nulls last", "id nulls last"),
            ("  id   desc ", "id desc"),
            ("id desc nulls last", "id desc"),
            ("id desc nulls first", "id desc nulls first"),
            ("\"a \"\"b\"\"\" desc", "\"a \"\"b\"\"\" desc"),
            ("desc desc", "desc desc"),
            ("s.x", "s.x"),
        ] {
            let fields = parsed(&[entry]).unwrap();
            assert_eq!(fields[0].to_string(), printed, "{entry}");
            let order = bind(&fields, &schema()).unwrap();
            assert_eq!(super::printed(&order, &schema()), [printed], "{entry}");
        }
    }

    #[test]
    fn what_does_not_read_is_refused() {
        for (entry, what) in [
            ("", "a column"),
            ("id up", "found \"up\""),
            ("id nulls", "\"first\" or \"last\""),
            ("id nulls first desc", "found \"desc\""),
            ("\"id", "not closed"),
            ("id, v", "found \", v\""),
        ] {
            let error = parsed(&[entry]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            let text = error.to_string();
            assert!(text.contains("sort_by") && text.contains(what) && text.contains("allowed are"), "{text}");
        }
        assert!(parsed(&["id", "id desc"]).unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn what_has_no_order_is_refused_with_what_has() {
        for (entry, what) in [
            ("nothing", "no column \"nothing\""),
            ("tags", "list<long>"),
            ("s", "struct<x: long>"),
            ("tags.element", "lies in a list"),
        ] {
            let error = bind(&parsed(&[entry]).unwrap(), &schema()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            let text = error.to_string();
            assert!(text.contains(what) && text.contains("sort by are id, \"a \"\"b\"\"\", desc"), "{text}");
        }
    }
}
