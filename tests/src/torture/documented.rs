//! What docs/TYPES.md says of each type.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};

use crate::source_table::literal;
use crate::sql::Session;
use crate::target;

/// The largest decimal of Iceberg.
const DIGITS: i32 = 38;

/// The documented types.
#[derive(Debug)]
pub struct Documented {
    /// By the type's name in `pg_type`: its Iceberg type.
    types: BTreeMap<String, String>,
    /// What is documented and no type of its own, such as arrays.
    sorts: BTreeSet<String>,
}

impl Documented {
    /// Reads the document: the rows of every table in it whose columns are headed `PostgreSQL`, `Arrow` and an Iceberg version.
    /// PostgreSQL says which type a name means.
    ///
    /// # Errors
    /// When the document is missing or documents nothing.
    pub fn read(session: &Session) -> Result<Self> {
        let path = target::repository().join("docs/TYPES.md");
        let text = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        let mut documented = Self { types: BTreeMap::new(), sorts: BTreeSet::new() };
        for (names, iceberg) in rows(&text) {
            for name in names {
                let resolved = session.one(&format!("select coalesce((select typname from pg_type where oid = to_regtype({})), '')", literal(&name)))?;
                if resolved.is_empty() {
                    documented.sorts.insert(name);
                } else if let Some(before) = documented.types.insert(resolved, iceberg.clone())
                    && before != iceberg
                    && !name.starts_with("numeric")
                {
                    bail!("docs/TYPES.md says of {name} both {before} and {iceberg}");
                }
            }
        }
        if documented.types.is_empty() {
            bail!("docs/TYPES.md documents no type");
        }
        Ok(documented)
    }

    /// The documented types, by their name in `pg_type`.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.types.keys().map(String::as_str)
    }

    /// What else is documented.
    pub fn sorts(&self) -> impl Iterator<Item = &str> {
        self.sorts.iter().map(String::as_str)
    }

    /// What a type becomes; a type that is not PostgreSQL's own becomes its text.
    pub(super) fn scalar(&self, name: &str) -> Result<&str> {
        Ok(self.types.get(name).map_or("string", String::as_str))
    }

    /// What a numeric becomes.
    #[expect(clippy::unused_self, reason = "the rule is the document's")]
    pub(super) fn numeric(&self, modifier: i32) -> Result<String> {
        if modifier < 0 {
            return Ok("string".to_owned());
        }
        let (precision, scale) = (((modifier - 4) >> 16) & 0xffff, (((modifier - 4) & 0x7ff) ^ 0x400) - 0x400);
        let (precision, scale) = if scale < 0 { (precision - scale, 0) } else { (precision.max(scale), scale) };
        Ok(if precision <= DIGITS { format!("decimal({precision}, {scale})") } else { "string".to_owned() })
    }
}

/// The names and the Iceberg type of each row of the document's tables of types.
fn rows(text: &str) -> Vec<(Vec<String>, String)> {
    let mut rows = Vec::new();
    let mut in_table = false;
    for line in text.lines() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        if !line.starts_with('|') {
            in_table = false;
        } else if cells.len() > 2 && cells[0].starts_with("PostgreSQL") && cells[1].starts_with("Arrow") {
            in_table = true;
        } else if in_table && cells.len() > 2 && !cells[0].starts_with("---") {
            rows.push((names(cells[0]), cells[2].trim_matches('`').to_owned()));
        }
    }
    rows
}

/// The names in a cell; a comma within parentheses is none between names.
fn names(cell: &str) -> Vec<String> {
    cell.replace('`', "").split(", ").map(|name| name.split('(').next().unwrap_or(name).trim().to_owned()).collect()
}
