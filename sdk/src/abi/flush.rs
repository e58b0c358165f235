//! What a sink's `flush` emits.

use serde::{Deserialize, Serialize};

use crate::{Committed, Error, ErrorKind, Flushed, Result, StreamOffset, StreamPartition};

/// One item that a sink's `flush` emits, as JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlushItem {
    /// An offset that is durable.
    Durable(StreamOffset),
    /// A commit that became visible.
    Commit(Committed),
    /// Dead letters that are durable.
    DeadLetters {
        /// Whose.
        #[serde(flatten)]
        at: StreamPartition,
        /// How many.
        count: u64,
    },
    /// A partition whose rows are not durable.
    Failed {
        /// Which.
        #[serde(flatten)]
        at: StreamPartition,
        /// The number of an [`ErrorKind`].
        kind: u32,
        /// Why.
        message: String,
    },
}

impl FlushItem {
    /// The items of a flush.
    #[must_use]
    pub fn of(flushed: Flushed) -> Vec<Self> {
        let failed = flushed.failed.into_iter().map(|(at, error)| Self::Failed {
            at,
            kind: error.kind() as u32,
            message: error.to_string(),
        });
        let durable = flushed.durable.into_iter().map(Self::Durable);
        let letters = flushed.dead_letters.into_iter().map(|(at, count)| Self::DeadLetters { at, count });
        durable.chain(flushed.commits.into_iter().map(Self::Commit)).chain(letters).chain(failed).collect()
    }

    /// Adds an emitted item to what a flush achieved.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] where the text is no such item.
    pub fn add(json: &str, to: &mut Flushed) -> Result<()> {
        let item: Self = serde_json::from_str(json).map_err(|e| {
            Error::internal("flush emitted what is no durable offset, commit, count of dead letters or failure")
                .with_source(e)
        })?;
        match item {
            // Deserialised transparently, so that length and syntax are still to be checked.
            Self::Durable(StreamOffset { at, offset }) => {
                let offset = crate::Offset::new(offset.as_str()).map_err(|e| {
                    Error::internal(format!("flush emitted an offset of {at} that is none")).with_source(e)
                })?;
                to.durable.push(StreamOffset { at, offset });
            }
            Self::Commit(commit) => to.commits.push(commit),
            Self::DeadLetters { at, count } => to.dead_letters.push((at, count)),
            Self::Failed { at, kind, message } => {
                let kind = ErrorKind::from_u32(kind)
                    .ok_or_else(|| Error::internal(format!("flush emitted the unknown error kind {kind} for {at}")))?;
                to.failed.push((at, Error::new(kind, message)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Offset, StreamName};

    #[test]
    fn a_flush_comes_back_as_it_was() {
        let at = StreamPartition::only(StreamName::new(["public", "orders"]).unwrap());
        let durable = StreamOffset { at: at.clone(), offset: Offset::new("{\"n\":1}").unwrap() };
        let commit = Committed { table: "cdc.orders".into(), rows: 1, bytes: 2, files: 3, id: "4".into() };
        let flushed = Flushed {
            durable: vec![durable.clone()],
            commits: vec![commit.clone()],
            dead_letters: vec![(at.clone(), 5)],
            failed: vec![(at.clone(), Error::fenced("moved on"))],
        };
        let mut back = Flushed::default();
        for item in FlushItem::of(flushed) {
            FlushItem::add(&serde_json::to_string(&item).unwrap(), &mut back).unwrap();
        }
        assert_eq!((back.durable, back.commits), (vec![durable], vec![commit]));
        assert_eq!(back.dead_letters, [(at.clone(), 5)]);
        assert_eq!((&back.failed[0].0, back.failed[0].1.kind()), (&at, ErrorKind::Fenced));
    }

    /// The texts of the header, written by hand.
    #[test]
    fn the_documented_json_is_read() {
        let mut flushed = Flushed::default();
        for json in [
            r#"{"durable": {"stream": ["a", "b"], "partition": "0", "offset": "{\"n\":1}"}}"#,
            r#"{"commit": {"table": "t", "rows": 1, "bytes": 1, "files": 1, "id": "x"}}"#,
            r#"{"dead_letters": {"stream": ["a", "b"], "partition": "0", "count": 1}}"#,
            r#"{"failed": {"stream": ["a", "b"], "partition": "0", "kind": 2, "message": "why"}}"#,
        ] {
            FlushItem::add(json, &mut flushed).unwrap();
        }
        assert_eq!(flushed.durable[0].offset.as_str(), "{\"n\":1}");
        assert_eq!(flushed.failed[0].1.kind(), ErrorKind::Unavailable);
        for (json, expected) in [
            ("{}", "no durable offset"),
            (r#"{"durable": {"stream": ["a"], "partition": "0", "offset": "{"}}"#, "offset of a/0"),
            (r#"{"failed": {"stream": ["a"], "partition": "0", "kind": 9, "message": ""}}"#, "error kind 9"),
        ] {
            let message = FlushItem::add(json, &mut flushed).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
