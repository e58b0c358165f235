//! What stands in the table, and what stands in the consumer group.
//!
//! The table's offset is the truth: the last message that it covers, with the cluster and the topic's id, so that a topic that was
//! made anew is told from the old one. The group's committed offset is for people's tools. It only counts where its metadata,
//! which nobody else writes, says exactly what the table says: then it tells how far messages reach that are no rows.

use philotes_sdk::{Error, Offset, Result};
use serde::{Deserialize, Serialize};

/// Which topic an offset counts in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lineage {
    /// The cluster's id.
    pub(crate) cluster: String,
    /// The topic's id; none where the brokers know no ids.
    pub(crate) topic_id: Option<String>,
}

/// The offset of a partition: everything up to this message is in the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TableOffset {
    #[serde(flatten)]
    pub(crate) lineage: Lineage,
    /// The message's offset.
    pub(crate) offset: i64,
}

impl TableOffset {
    pub(crate) fn write(&self) -> Result<Offset> {
        Offset::from_value(self)
    }

    /// Reads what the sink has.
    ///
    /// # Errors
    /// Config where this source has not written it.
    pub(crate) fn read(offset: &Offset) -> Result<Self> {
        serde_json::from_str(offset.as_str())
            .ok()
            .filter(|read: &Self| read.offset >= 0)
            .ok_or_else(|| Error::config("the table's offset is none of a Kafka source"))
    }
}

/// The metadata of the group's committed offset: all messages between the table's offset and this one are no rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupMark {
    topic_id: Option<String>,
    /// The table's offset; none where nothing of the partition is in the table.
    pub(crate) table: Option<i64>,
}

impl GroupMark {
    pub(crate) fn new(lineage: &Lineage, table: Option<i64>) -> Self {
        Self { topic_id: lineage.topic_id.clone(), table }
    }

    pub(crate) fn write(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::internal("a mark does not serialise").with_source(e))
    }

    /// Reads metadata; nothing where somebody else wrote it, or it is about another topic of this name.
    pub(crate) fn read(metadata: &str, lineage: &Lineage) -> Option<Self> {
        serde_json::from_str(metadata).ok().filter(|mark: &Self| mark.topic_id == lineage.topic_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lineage(topic_id: &str) -> Lineage {
        Lineage { cluster: "c".into(), topic_id: Some(topic_id.into()) }
    }

    #[test]
    fn offsets_come_back_as_they_were() {
        let offset = TableOffset { lineage: lineage("t"), offset: 7 };
        assert_eq!(offset.write().unwrap().as_str(), r#"{"cluster":"c","topic_id":"t","offset":7}"#);
        assert_eq!(TableOffset::read(&offset.write().unwrap()).unwrap(), offset);
        for foreign in ["1", "{}", r#"{"cluster":"c","topic_id":"t"}"#, r#"{"cluster":"c","topic_id":"t","offset":-1}"#]
        {
            let error = TableOffset::read(&Offset::new(foreign).unwrap()).unwrap_err();
            assert_eq!(error.kind(), philotes_sdk::ErrorKind::Config, "{foreign}");
        }
    }

    #[test]
    fn marks_of_others_say_nothing() {
        let mark = GroupMark::new(&lineage("t"), Some(3));
        assert_eq!(GroupMark::read(&mark.write().unwrap(), &lineage("t")), Some(mark.clone()));
        assert_eq!(GroupMark::read(&mark.write().unwrap(), &lineage("u")), None);
        assert_eq!(GroupMark::read("", &lineage("t")), None);
    }
}
