//! A table of PostgreSQL, as its catalog describes it, and its values in the form of `readers/protocol.py`, made by SQL within
//! PostgreSQL: no code is shared with what reads the lake.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::replay::State;
use crate::sql::{Row, Session};

/// A table, as it is now.
#[derive(Clone, Debug)]
pub struct SourceTable {
    /// Its name, as SQL takes it.
    pub name: String,
    /// Its columns, in its order.
    pub columns: Vec<SourceColumn>,
    /// The names of its key's columns.
    pub key: Vec<String>,
}

/// A column.
#[derive(Clone, Debug)]
pub struct SourceColumn {
    /// Its name.
    pub name: String,
    /// What its values are.
    pub kind: Kind,
}

/// What values of a type are. A domain is what lies beneath it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Neither of the others: the type's name in `pg_type`, and its modifier, -1 where it has none.
    Scalar(String, i32),
    /// An array, and how many dimensions it was declared with.
    Array(Box<Self>, usize),
    /// A composite type's fields.
    Composite(Vec<(String, Self)>),
}

/// How everything is printed, whatever the session says; and without a compiler, which such long expressions keep busy.
pub const SETTINGS: &str = "set local search_path = pg_catalog, pg_temp; set local timezone = 'UTC'; \
                            set local datestyle = 'ISO, MDY'; set local intervalstyle = 'postgres'; \
                            set local extra_float_digits = 1; set local bytea_output = 'hex'; \
                            set local jit = off";

impl SourceTable {
    /// What the catalog says of a table.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub fn read(session: &Session, name: &str) -> Result<Self> {
        // With its schema: nothing is looked for in any other.
        let name = session.one(&format!(
            "select format('%I.%I', nspname, relname) from pg_class join pg_namespace n on n.oid = relnamespace \
             where pg_class.oid = '{name}'::regclass"
        ))?;
        let columns = session
            .rows(&format!(
                "select attname, atttypid, atttypmod, attndims from pg_attribute \
                 where attrelid = '{name}'::regclass and attnum > 0 and not attisdropped order by attnum"
            ))?
            .into_iter()
            .map(|row| {
                let [name, oid, modifier, dimensions] = whole(row)?;
                let kind = Kind::read(session, &oid, modifier.parse()?, dimensions.parse()?)?;
                Ok(SourceColumn { name, kind })
            })
            .collect::<Result<_>>()?;
        let key = session.rows(&format!(
            "select attname from pg_index i, unnest(i.indkey::int2[]) with ordinality k(n, place) \
             join pg_attribute on attnum = n where attrelid = indrelid and indisprimary \
             and indrelid = '{name}'::regclass order by place"
        ))?;
        Ok(Self { name, columns, key: key.into_iter().flatten().flatten().collect() })
    }

    /// What PostgreSQL holds in the table now; its primary key tells the rows apart.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub fn state(&self, session: &Session) -> Result<State> {
        self.state_of(session, &self.name)
    }

    /// The same of another table of the same columns, or a query in parentheses.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub fn state_of(&self, session: &Session, relation: &str) -> Result<State> {
        let places = self.key_places()?;
        let keyed = |cells: Vec<Value>| Ok((key_of(&cells, &places)?, cells));
        self.rows_of(session, relation)?.into_iter().map(keyed).collect()
    }

    /// The table's rows, in no order.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub fn rows(&self, session: &Session) -> Result<Vec<Vec<Value>>> {
        self.rows_of(session, &self.name)
    }

    /// The same of another table of the same columns, or a query in parentheses.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub fn rows_of(&self, session: &Session, relation: &str) -> Result<Vec<Vec<Value>>> {
        let cells: Vec<String> = self
            .columns
            .iter()
            .map(|column| format!("to_json({})", column.kind.cell(&format!("t.{}", quoted(&column.name)))))
            .collect();
        let sql = format!("begin; {SETTINGS}; select {} from {relation} t; commit", cells.join(", "));
        let cell = |cell: Option<String>| cell.map_or(Ok(Value::Null), |cell| serde_json::from_str(&cell));
        let row = |row: Row| Ok(row.into_iter().map(cell).collect::<Result<_, _>>()?);
        session.rows(&sql)?.into_iter().map(row).collect()
    }

    /// Only these columns and the key.
    #[must_use]
    pub fn only(&self, wanted: impl Fn(&SourceColumn) -> bool) -> Self {
        let chosen = |column: &&SourceColumn| self.key.contains(&column.name) || wanted(column);
        Self { columns: self.columns.iter().filter(chosen).cloned().collect(), ..self.clone() }
    }

    /// The columns' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    /// Where the key's columns stand.
    pub(crate) fn key_places(&self) -> Result<Vec<usize>> {
        let place = |key: &String| {
            let found = self.names().position(|name| name == key);
            found.with_context(|| format!("{} has no column {key}", self.name))
        };
        self.key.iter().map(place).collect()
    }
}

pub(crate) fn key_of(cells: &[Value], places: &[usize]) -> Result<Vec<String>> {
    places.iter().map(|place| Ok(cells[*place].as_str().context("a key without a value")?.to_owned())).collect()
}

/// A name as SQL takes it.
#[must_use]
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL takes it.
#[must_use]
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn whole<const N: usize>(row: Row) -> Result<[String; N]> {
    let cells: Vec<String> = row.into_iter().flatten().collect();
    <[String; N]>::try_from(cells).map_err(|cells| anyhow::anyhow!("{cells:?} are not {N} cells"))
}

/// Not `is null`, which is true of a row of nulls, too.
const MISSING: &str = "is not distinct from null";

impl Kind {
    /// What the catalog says of a type.
    fn read(session: &Session, oid: &str, modifier: i32, dimensions: usize) -> Result<Self> {
        let row = session.rows(&format!(
            "select typname, typtype, case when typcategory = 'A' and typlen = -1 and left(typname, 1) = '_' then typelem else 0 end, \
             typbasetype, typtypmod, typndims, typrelid from pg_type where oid = {oid}"
        ))?;
        let [name, kind, element, base, base_modifier, base_dimensions, relation] =
            whole(row.into_iter().next().context("no type")?)?;
        if kind == "d" {
            return Self::read(session, &base, base_modifier.parse()?, base_dimensions.parse()?);
        }
        if element != "0" {
            return Ok(Self::Array(Box::new(Self::read(session, &element, modifier, 0)?), dimensions.max(1)));
        }
        if kind != "c" {
            return Ok(Self::Scalar(name, modifier));
        }
        let fields = session.rows(&format!(
            "select attname, atttypid, atttypmod, attndims from pg_attribute \
             where attrelid = {relation} and attnum > 0 and not attisdropped order by attnum"
        ))?;
        let field = |row| {
            let [name, oid, modifier, dimensions] = whole(row)?;
            let kind = Self::read(session, &oid, modifier.parse()?, dimensions.parse()?)?;
            Ok((name, kind))
        };
        let fields: Vec<_> = fields.into_iter().map(field).collect::<Result<_>>()?;
        // One without fields has nothing but its text.
        Ok(if fields.is_empty() { Self::Scalar(name, modifier) } else { Self::Composite(fields) })
    }

    /// SQL for the protocol's form of a value: text, or JSON of what is nested.
    #[must_use]
    pub fn cell(&self, value: &str) -> String {
        self.cell_at(value, 0)
    }

    fn cell_at(&self, value: &str, depth: usize) -> String {
        match self {
            Self::Scalar(name, _) => format!("case when {value} {MISSING} then null else {} end", scalar(value, name)),
            Self::Array(element, dimensions) => {
                let rows = elements(value, "", element, 1, *dimensions, depth);
                format!("case when {value} {MISSING} then null else coalesce({rows}, '[]') end")
            }
            Self::Composite(fields) => {
                let cell = |(name, kind): &(String, Self)| {
                    let field = format!("({value}).{}", quoted(name));
                    format!("{}, {}", literal(name), kind.cell_at(&field, depth))
                };
                let cells: Vec<String> = fields.iter().map(cell).collect();
                format!("case when {value} {MISSING} then null else json_build_object({}) end", cells.join(", "))
            }
        }
    }
}

/// SQL for the elements of an array from this dimension on; `indexes` are those of the dimensions around it.
fn elements(value: &str, indexes: &str, element: &Kind, dimension: usize, last: usize, depth: usize) -> String {
    let index = format!("i{depth}");
    let indexes = format!("{indexes}[{index}]");
    let cell = if dimension < last {
        elements(value, &indexes, element, dimension + 1, last, depth + 1)
    } else {
        element.cell_at(&format!("(({value}){indexes})"), depth + 1)
    };
    format!("(select json_agg({cell} order by {index}) from generate_subscripts({value}, {dimension}) as {index})")
}

fn scalar(value: &str, name: &str) -> String {
    // The ends of the range, which the readers find where PostgreSQL has infinities.
    let finite = |kind: &str, last: i64, number: String| {
        format!(
            "case when {value} = 'infinity'::{kind} then '{last}' when {value} = '-infinity'::{kind} then '-{last}' \
             else ({number})::text end"
        )
    };
    let micros = format!("(extract(epoch from {value}) * 1000000)::bigint");
    match name {
        "bool" => format!("{value}::text"),
        "float4" | "float8" => format!("encode(float8send({value}::float8), 'hex')"),
        "date" => finite("date", i32::MAX.into(), format!("{value} - date '1970-01-01'")),
        "timestamp" | "timestamptz" => finite(name, i64::MAX, micros),
        "time" => format!("{micros}::text"),
        "bytea" => format!("encode({value}, 'hex')"),
        // As the type's output function prints it; a cast to text would cut a char's spaces and lengthen an inet.
        _ => format!("concat({value})"),
    }
}
