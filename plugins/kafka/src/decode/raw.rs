//! The format `raw`: bytes that are not looked into.

use std::sync::Arc;

use philotes_sdk::{Error, Result};

use super::batch::{Change, Layout, Lsn, OpenBatch, Operation};
use super::column::ColumnSpec;
use super::kind::Kind;
use super::topic::Topic;
use super::{Appended, Refusal, message_micros};
use crate::message::Message;

pub(super) struct RawRows {
    layout: Arc<Layout>,
}

impl RawRows {
    pub(super) fn new(topic: &mut Topic) -> Result<Self> {
        let value = ColumnSpec::told("value", Kind::Binary, Some("bytes".to_owned()));
        let layout = topic.layout(vec![value], Arc::default()).map_err(|refusal| Error::internal(refusal.reason))?;
        Ok(Self { layout })
    }

    pub(super) fn append(
        &self,
        topic: &mut Topic,
        batch: &mut OpenBatch,
        message: &Message<'_>,
    ) -> Result<Appended, Refusal> {
        if !topic.begin(batch, &self.layout, false) {
            return Ok(Appended::CloseFirst);
        }
        if let Some(value) = message.value {
            batch.columns[0].values.push_bytes(value)?;
        }
        let bytes = message.value.map_or(0, <[u8]>::len);
        let change = Change { operation: Operation::Insert, micros: message_micros(message), lsn: Lsn::Offset, bytes };
        topic.end_row(batch, message, &change)?;
        Ok(Appended::Rows)
    }
}
