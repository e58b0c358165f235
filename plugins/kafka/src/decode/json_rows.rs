//! The format `json`: an object is a row, its members are the columns.

use std::sync::Arc;

use philotes_sdk::json::Scanner;
use philotes_sdk::{Error, Result};

use super::batch::{Change, Lsn, OpenBatch, Operation};
use super::open_rows::OpenRows;
use super::topic::{Topic, check_key};
use super::type_language::parse_columns;
use super::{Appended, Refusal, message_micros, row_key, utf8};
use crate::config::JsonFormat;
use crate::message::Message;

pub(super) struct JsonRows {
    rows: OpenRows,
    key: Arc<[String]>,
}

impl JsonRows {
    pub(super) fn new(topic: &mut Topic, format: &JsonFormat) -> Result<Self> {
        let declared = parse_columns(&format.columns).map_err(|faults| undeclared(&faults))?;
        let key: Arc<[String]> = format.key.clone().into();
        let rows = OpenRows::new(topic, declared, format.others, Arc::clone(&key));
        Ok(Self { rows, key })
    }

    pub(super) fn append(
        &mut self,
        topic: &mut Topic,
        batch: &mut OpenBatch,
        message: &Message<'_>,
    ) -> Result<Appended, Refusal> {
        let deleted = if message.value.is_none() { Some(row_key::of_tombstone(message, &self.key)?) } else { None };
        if !self.rows.begin(topic, batch, false)? {
            return Ok(Appended::CloseFirst);
        }
        let text = match deleted {
            Some(key) => {
                row_key::append(batch, key)?;
                key
            }
            None => {
                let text = utf8(message.value.unwrap_or_default())?;
                let mut scanner =
                    Scanner::enter(text, b'{').map_err(|_| Refusal::new("the value is no JSON object"))?;
                self.rows.fill(topic, batch, &mut scanner, None)?;
                scanner.end()?;
                text
            }
        };
        check_key(batch)?;
        self.rows.learn(topic, batch);
        let operation = if deleted.is_some() { Operation::Delete } else { Operation::Insert };
        let change = Change { operation, micros: message_micros(message), lsn: Lsn::Offset, bytes: text.len() };
        topic.end_row(batch, message, &change)?;
        Ok(Appended::Rows)
    }
}

/// What is wrong with declared columns, where nobody has looked before.
pub(super) fn undeclared(faults: &[(String, String)]) -> Error {
    let faults: Vec<String> = faults.iter().map(|(column, fault)| format!("columns.{column}: {fault}")).collect();
    Error::config(faults.join("; "))
}
