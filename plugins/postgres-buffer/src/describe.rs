//! Types of columns from the source database's catalog, where `types_from` names it.

use philotes_sdk::{Error, Result};

use crate::config::Config;
use crate::connect::{Connector, failed};
use crate::decode::ToldColumn;

/// Asks the catalog of the source database. Rare, so that no session is kept open for it.
pub(crate) struct Catalog {
    connector: Connector,
}

impl Catalog {
    /// `None` where the configuration names no source database.
    pub(crate) fn new(config: &Config) -> Result<Option<Self>> {
        let Some(dsn) = &config.types_from else { return Ok(None) };
        Ok(Some(Self { connector: Connector::new("types_from", dsn, config)? }))
    }

    /// The columns of a table; none where the database has no such table.
    pub(crate) async fn columns(&self, schema: &str, table: &str) -> Result<Vec<ToldColumn>> {
        let settings =
            "SET statement_timeout = '30s'; SET default_transaction_read_only = on; SET search_path = pg_catalog";
        let session = self.connector.open("philotes types", settings).await.map_err(|e| e.context("types_from"))?;
        let client = session.spawn(|_: Error| {});
        // A domain counts as the type beneath it.
        let rows = client
            .query(
                "WITH RECURSIVE base (attnum, name, type, modifier, kind) AS (\
                 SELECT a.attnum, a.attname, a.atttypid, a.atttypmod, t.typtype FROM pg_attribute a \
                 JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
                 JOIN pg_type t ON t.oid = a.atttypid \
                 WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped \
                 UNION ALL SELECT b.attnum, b.name, t.typbasetype, t.typtypmod, u.typtype FROM base b \
                 JOIN pg_type t ON t.oid = b.type JOIN pg_type u ON u.oid = t.typbasetype WHERE b.kind = 'd') \
                 SELECT name::text, format_type(type, modifier) FROM base WHERE kind <> 'd' ORDER BY attnum",
                &[&schema, &table],
            )
            .await
            .map_err(|e| failed("types_from: cannot read the catalog", e))?;
        Ok(rows.iter().map(|row| ToldColumn { name: row.get(0), type_name: row.get(1) }).collect())
    }
}
