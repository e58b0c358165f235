//! Blocking PostgreSQL sessions whose results are text: tests read better without futures.

use std::pin::pin;

use anyhow::{Context, Result};
use futures::TryStreamExt;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// A row of text cells; `None` is NULL.
pub type Row = Vec<Option<String>>;

/// One session. Dropping it closes it; an open transaction is rolled back.
pub struct Session {
    client: Client,
    runtime: Runtime,
}

impl Session {
    /// Connects to a DSN.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn connect(dsn: &str) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let client = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
            tokio::spawn(connection);
            Ok::<_, tokio_postgres::Error>(client)
        })?;
        Ok(Self { client, runtime })
    }

    /// Runs statements; in one transaction, unless they say otherwise.
    ///
    /// # Errors
    /// PostgreSQL's, with the beginning of the statement.
    pub fn batch(&self, sql: &str) -> Result<()> {
        self.runtime.block_on(self.client.batch_execute(sql)).with_context(|| head(sql))
    }

    /// The rows of a query.
    ///
    /// # Errors
    /// As [`Session::batch`].
    pub fn rows(&self, sql: &str) -> Result<Vec<Row>> {
        let messages = self.runtime.block_on(self.client.simple_query(sql)).with_context(|| head(sql))?;
        Ok(messages
            .into_iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => {
                    Some((0..row.len()).map(|index| row.get(index).map(str::to_owned)).collect())
                }
                _ => None,
            })
            .collect())
    }

    /// Runs `COPY … TO STDOUT` and shows every message: a row each.
    ///
    /// # Errors
    /// As [`Session::batch`].
    pub fn copy_out(&self, sql: &str, mut each: impl FnMut(&[u8])) -> Result<()> {
        self.runtime
            .block_on(async {
                let mut messages = pin!(self.client.copy_out(sql).await?);
                while let Some(message) = messages.try_next().await? {
                    each(&message);
                }
                Ok::<_, tokio_postgres::Error>(())
            })
            .with_context(|| head(sql))
    }

    /// The only cell of a query's first row; the empty text for NULL.
    ///
    /// # Errors
    /// As [`Session::batch`], and when there is no row.
    pub fn one(&self, sql: &str) -> Result<String> {
        let rows = self.rows(sql)?;
        let row = rows.into_iter().next().with_context(|| format!("no row from: {}", head(sql)))?;
        Ok(row.into_iter().next().flatten().unwrap_or_default())
    }

    /// The only cell of a query's first row, as a number.
    ///
    /// # Errors
    /// As [`Session::one`], and when it is no whole number.
    pub fn number(&self, sql: &str) -> Result<i64> {
        let text = self.one(sql)?;
        text.parse().with_context(|| format!("{text:?} is no number, from: {}", head(sql)))
    }
}

fn head(sql: &str) -> String {
    sql.trim().chars().take(200).collect()
}
