//! Types of columns from the source database's catalog, where `types_from` names it.
//!
//! The catalog says what a table is now, and not what it was when a row was written: its numbers of columns, which tell a
//! renamed column from a new one, are therefore left out.

use std::collections::HashMap;

use philotes_sdk::{Error, Result};
use tokio_postgres::{Client, Row};

use crate::config::Config;
use crate::connect::{Connector, failed};
use crate::decode::{MAX_FIELDS, ToldColumn};

/// How many types that are not PostgreSQL's own may stand beneath a column: domains of domains, fields of fields.
const MAX_LEVELS: usize = 64;

/// Asks the catalog of the source database. Rare, so that no session is kept open for it.
pub(crate) struct Catalog {
    connector: Connector,
}

const ATTRIBUTES: &str = "SELECT a.attname::text, a.atttypid, format_type(a.atttypid, a.atttypmod), a.attndims::int4, \
    col_description(a.attrelid, a.attnum) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
    JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

/// What is not PostgreSQL's own, of all that these types lead to: domains, arrays, composite types.
const TYPES: &str = "WITH RECURSIVE reached (oid) AS (\
    SELECT unnest($1::oid[]) UNION SELECT next.oid FROM reached JOIN pg_type t ON t.oid = reached.oid \
    CROSS JOIN LATERAL (SELECT t.typbasetype UNION ALL SELECT t.typelem WHERE t.typcategory = 'A' \
    UNION ALL SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) next (oid) \
    WHERE t.oid >= 16384 AND next.oid <> 0) \
    SELECT t.oid, t.typtype::text, t.typbasetype, format_type(t.typbasetype, t.typtypmod), \
    CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE 0 END, format_type(t.typelem, NULL), t.typndims \
    FROM reached JOIN pg_type t USING (oid) WHERE t.oid >= 16384";

const FIELDS: &str = "SELECT t.oid, a.attname::text, a.atttypid, format_type(a.atttypid, a.atttypmod), a.attndims::int4 \
    FROM pg_type t JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped \
    WHERE t.oid = ANY ($1) AND t.typtype = 'c' ORDER BY t.oid, a.attnum";

impl Catalog {
    /// `None` where the configuration names no source database.
    pub(crate) fn new(config: &Config, renewed: bool) -> Result<Option<Self>> {
        let Some(dsn) = &config.types_from else { return Ok(None) };
        Ok(Some(Self { connector: Connector::new("types_from", dsn, config)?.renewed(renewed) }))
    }

    /// The columns of a table; none where the database has no such table.
    pub(crate) async fn columns(&self, schema: &str, table: &str) -> Result<Vec<ToldColumn>> {
        let settings =
            "SET statement_timeout = '30s'; SET default_transaction_read_only = on; SET search_path = pg_catalog";
        let session = self.connector.open("philotes types", settings).await.map_err(|e| e.context("types_from"))?;
        let client = session.spawn(|_: Error| {});
        let attributes = client.query(ATTRIBUTES, &[&schema, &table]).await.map_err(unread)?;
        let types = Types::of(&client, attributes.iter().map(|row| row.get(1)).collect()).await?;
        Ok(attributes
            .iter()
            .map(|row| {
                let attribute = Attribute::of(row, 0);
                ToldColumn { comment: row.get(4), ..types.told(&attribute) }
            })
            .collect())
    }
}

fn unread(error: tokio_postgres::Error) -> Error {
    failed("types_from: cannot read the catalog", error)
}

/// A column, or a field of a composite type.
struct Attribute {
    name: String,
    type_oid: u32,
    type_name: String,
    dimensions: i32,
}

impl Attribute {
    fn of(row: &Row, at: usize) -> Self {
        let dimensions = row.get(at + 3);
        Self { name: row.get(at), type_oid: row.get(at + 1), type_name: row.get(at + 2), dimensions }
    }
}

/// A type that is not PostgreSQL's own, and what stands beneath it.
enum Type {
    Domain { base: u32, name: String, dimensions: i32 },
    Array { element: u32, name: String },
    Composite(Vec<Attribute>),
}

struct Types(HashMap<u32, Type>);

impl Types {
    async fn of(client: &Client, oids: Vec<u32>) -> Result<Self> {
        let mut types = HashMap::new();
        for row in client.query(TYPES, &[&oids]).await.map_err(unread)? {
            let (oid, element): (u32, u32) = (row.get(0), row.get(4));
            let found = match row.get(1) {
                "d" => Type::Domain { base: row.get(2), name: row.get(3), dimensions: row.get(6) },
                "c" => Type::Composite(Vec::new()),
                _ if element != 0 => Type::Array { element, name: row.get(5) },
                _ => continue,
            };
            types.insert(oid, found);
        }
        let is_composite = |found: &Type| matches!(found, Type::Composite(_));
        let composites: Vec<u32> = types.iter().filter(|(_, found)| is_composite(found)).map(|(oid, _)| *oid).collect();
        for row in client.query(FIELDS, &[&composites]).await.map_err(unread)? {
            if let Some(Type::Composite(fields)) = types.get_mut(&row.get(0)) {
                fields.push(Attribute::of(&row, 1));
            }
        }
        Ok(Self(types))
    }

    /// A column. Where the types beneath it are more than a column may hold, it has no fields, and is read as text.
    fn told(&self, attribute: &Attribute) -> ToldColumn {
        let mut left = MAX_FIELDS;
        let mut column = self.told_within(attribute, MAX_LEVELS, &mut left);
        if left == 0 {
            column.fields.clear();
        }
        column
    }

    fn told_within(&self, attribute: &Attribute, levels: usize, left: &mut usize) -> ToldColumn {
        let Attribute { name, type_oid, type_name, dimensions } = attribute;
        let beneath = self.beneath(*type_oid, type_name, *dimensions, levels, left);
        ToldColumn {
            name: name.clone(),
            type_name: beneath.name,
            dimensions: u8::try_from(beneath.dimensions).ok().filter(|dimensions| *dimensions > 1),
            fields: beneath.fields,
            ..ToldColumn::default()
        }
    }

    /// A type without its domains, declared with so many dimensions where it is an array.
    fn beneath(&self, oid: u32, name: &str, declared: i32, levels: usize, left: &mut usize) -> Beneath {
        let Some(levels) = levels.checked_sub(1) else {
            *left = 0;
            return Beneath { name: name.to_owned(), dimensions: declared, fields: Vec::new() };
        };
        match self.0.get(&oid) {
            Some(Type::Domain { base, name, dimensions }) => {
                self.beneath(*base, name, declared.saturating_add(*dimensions), levels, left)
            }
            Some(Type::Array { element, name }) => {
                let element = self.beneath(*element, name, 0, levels, left);
                Beneath {
                    name: format!("{}[]", element.name),
                    dimensions: declared.max(1).saturating_add(element.dimensions),
                    fields: element.fields,
                }
            }
            Some(Type::Composite(fields)) => {
                *left = left.saturating_sub(fields.len());
                let fields = if *left > 0 { &fields[..] } else { &[] };
                let fields = fields.iter().map(|field| self.told_within(field, levels, left)).collect();
                Beneath { name: name.to_owned(), dimensions: 0, fields }
            }
            // One of PostgreSQL's own: only an array is declared with dimensions.
            None => Beneath { name: name.to_owned(), dimensions: declared, fields: Vec::new() },
        }
    }
}

/// What a type is, its domains aside.
struct Beneath {
    name: String,
    dimensions: i32,
    /// Of what is composite in it.
    fields: Vec<ToldColumn>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(type_oid: u32) -> Attribute {
        Attribute { name: format!("f{type_oid}"), type_oid, type_name: format!("public.t{type_oid}"), dimensions: 0 }
    }

    /// Thirty composite types, each of two fields of the one before, would be a column of a milliard fields.
    #[test]
    fn types_that_explode_are_told_without_their_fields() {
        let composite = |oid: u32| (oid, Type::Composite(vec![attribute(oid - 1), attribute(oid - 1)]));
        let types = Types((101..=130).map(composite).collect());
        assert_eq!(types.told(&attribute(103)).fields.len(), 2);
        let told = types.told(&attribute(130));
        assert_eq!((told.type_name.as_str(), told.fields.len()), ("public.t130", 0));
    }

    #[test]
    fn domains_of_domains_take_no_stack() {
        let domain = |oid: u32| (oid, Type::Domain { base: oid - 1, name: format!("t{}", oid - 1), dimensions: 0 });
        let types = Types((101..=100_100).map(domain).collect());
        assert_eq!(types.told(&attribute(120)).type_name, "t100");
        assert!(types.told(&attribute(100_100)).fields.is_empty());
    }
}
