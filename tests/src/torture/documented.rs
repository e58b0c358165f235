//! What docs/TYPES.md says of each type.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};

use super::columns::COLUMNS;
use crate::source_table::literal;
use crate::sql::Session;
use crate::target;

/// The largest decimal of Iceberg.
const DIGITS: i32 = 38;

/// What types made of others are called in the document, and a column of the torture table that is one.
const MADE: [(&str, &str); 8] = [
    ("an array, ", "integer[]"),
    ("an array declared with several dimensions", "integer[][]"),
    ("a composite type", "address"),
    ("a domain", "positive"),
    ("an enum", "mood"),
    ("a range type of your own", "own_range"),
    ("a type of an extension", "hstore"),
    ("a generated column", "generated long"),
];

/// The documented types.
#[derive(Debug)]
pub struct Documented {
    /// By the type's name in `pg_type`: its Iceberg type.
    types: BTreeMap<String, String>,
    /// All that stands in backticks anywhere.
    mentioned: BTreeSet<String>,
}

impl Documented {
    /// Reads the document. PostgreSQL says which type a name means.
    ///
    /// # Errors
    /// When the document is missing, contradicts itself, or has rows that no column stands for.
    pub fn read(session: &Session) -> Result<Self> {
        let path = target::repository().join("docs/TYPES.md");
        let text = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        let mut types = BTreeMap::new();
        for row in rows(&text, &["PostgreSQL", "Arrow", "Iceberg"]) {
            let iceberg = row[2].trim_matches('`').to_owned();
            for name in quoted_names(&row[0]) {
                let modifier = session.one(&format!("select {}::regtype::text", literal(base(&name))))?;
                if modifier == "numeric" {
                    let expected = decimal(&name)?;
                    ensure!(iceberg == expected, "docs/TYPES.md: {name} becomes {iceberg}, which should be {expected}");
                    continue;
                }
                let resolved = session
                    .one(&format!("select typname from pg_type where oid = {}::regtype", literal(base(&name))))?;
                let before = types.insert(resolved, iceberg.clone());
                ensure!(before.is_none_or(|before| before == iceberg), "docs/TYPES.md says two things of {name}");
            }
        }
        ensure!(!types.is_empty(), "docs/TYPES.md documents no type");
        types.insert("numeric".to_owned(), "string".to_owned());
        let made = rows(&text, &["PostgreSQL", "Iceberg"]);
        for row in &made {
            let known = MADE.iter().find(|(called, _)| row[0].starts_with(called));
            let Some((_, column)) = known else { bail!("docs/TYPES.md: nothing stands for {:?}", row[0]) };
            ensure!(COLUMNS.iter().any(|of| of.name() == *column), "no column {column}");
        }
        ensure!(made.len() == MADE.len(), "docs/TYPES.md has {} sorts of types that are made of others", made.len());
        let mentioned = text.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        Ok(Self { types, mentioned })
    }

    /// The documented types, by their name in `pg_type`.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.types.keys().map(String::as_str)
    }

    /// Whether a type is documented, or said to be left out.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.types.contains_key(name) || self.mentioned.contains(name)
    }

    /// What a type becomes; a type that is not PostgreSQL's own, its text.
    pub(super) fn scalar(&self, name: &str) -> &str {
        self.types.get(name).map_or("string", String::as_str)
    }
}

/// What a numeric of this modifier becomes.
pub(super) fn numeric(modifier: i32) -> String {
    if modifier < 0 {
        return "string".to_owned();
    }
    // As PostgreSQL's numeric_typmod_precision and numeric_typmod_scale take it apart.
    fitted(((modifier - 4) >> 16) & 0xffff, (((modifier - 4) & 0x7ff) ^ 0x400) - 0x400)
}

fn fitted(precision: i32, scale: i32) -> String {
    let (precision, scale) = if scale < 0 { (precision - scale, 0) } else { (precision.max(scale), scale) };
    if precision <= DIGITS { format!("decimal({precision}, {scale})") } else { "string".to_owned() }
}

/// What `numeric(p,s)` becomes.
fn decimal(name: &str) -> Result<String> {
    let Some((_, modifier)) = name.split_once('(') else { return Ok("string".to_owned()) };
    let (precision, scale) =
        modifier.trim_end_matches(')').split_once(',').unwrap_or((modifier.trim_end_matches(')'), "0"));
    Ok(fitted(precision.parse()?, scale.parse()?))
}

/// A type's name without its modifier.
fn base(name: &str) -> &str {
    name.split('(').next().unwrap_or(name)
}

/// The cells of each row of the document's tables that begin with these headings.
fn rows(text: &str, headings: &[&str]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut in_table = false;
    for line in text.lines() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        if !line.starts_with('|') {
            in_table = false;
        } else if cells.starts_with(headings) {
            in_table = true;
        } else if in_table && !cells[0].starts_with("---") {
            rows.push(cells.into_iter().map(str::to_owned).collect());
        }
    }
    rows
}

/// What stands in backticks.
fn quoted_names(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}
