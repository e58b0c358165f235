//! Holds batches back until their topic is known to be still the one that it was.
//!
//! A topic that is deleted and made again keeps its name, and librdkafka goes on reading at the old offset. So before a batch goes on,
//! the cluster is asked for the topic's id, after the batch was complete: ids never come back, so that the same answer means
//! that all of its messages are of the old topic. One question covers all batches that wait, and the next one is only asked when it was
//! answered.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use philotes_sdk::{ChangeBatch, Error, Result, StreamPartition};

use crate::client::Consumer;
use crate::cluster;
use crate::native::{Described, TopicIds};
use crate::offset::Lineage;

/// Which topic messages are of.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) topic: String,
    pub(crate) lineage: Lineage,
}

/// A batch that waits.
struct Waiting {
    of: Arc<Identity>,
    batch: ChangeBatch,
}

/// Batches that wait for an answer.
pub(crate) struct Verify {
    ids: TopicIds,
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// How many of them the question under way is about; `None` where there is none.
    asked: Option<usize>,
}

impl Verify {
    pub(crate) fn new(consumer: &Arc<Consumer>) -> Result<Self> {
        Ok(Self { ids: TopicIds::new(consumer)?, waiting: VecDeque::new(), bytes: 0, asked: None })
    }

    pub(crate) fn push(&mut self, of: Arc<Identity>, batch: ChangeBatch) {
        self.bytes += batch.bytes();
        self.waiting.push_back(Waiting { of, batch });
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Lets go of what waits of these partitions.
    pub(crate) fn forget(&mut self, partitions: &[StreamPartition]) {
        let stays = |waiting: &Waiting| !partitions.contains(&waiting.batch.at);
        // The question goes by how many there were when it was asked.
        self.asked = self.asked.map(|asked| self.waiting.iter().take(asked).filter(|waiting| stays(waiting)).count());
        self.waiting.retain(stays);
        self.bytes = self.waiting.iter().map(|waiting| waiting.batch.bytes()).sum();
    }

    /// The batches whose topics are still what they were; waits so long for an answer.
    ///
    /// # Errors
    /// Config where a topic is another one by now; Unavailable where there is none, or no answer.
    pub(crate) fn proved(&mut self, patience: Duration) -> Result<Vec<ChangeBatch>> {
        let mut proved = Vec::new();
        if let Some(asked) = self.asked
            && let Some(answer) = self.ids.answer(patience)
        {
            let described = answer?;
            self.asked = None;
            for Waiting { of, batch } in self.waiting.drain(..asked) {
                self.bytes -= batch.bytes();
                of.is_unchanged(described.get(&of.topic))?;
                proved.push(batch);
            }
        }
        if self.asked.is_none() && !self.waiting.is_empty() {
            let topics: BTreeSet<&str> = self.waiting.iter().map(|waiting| waiting.of.topic.as_str()).collect();
            self.ids.ask(topics.into_iter())?;
            self.asked = Some(self.waiting.len());
        }
        Ok(proved)
    }
}

impl Identity {
    /// Whether the topic is still this one.
    fn is_unchanged(&self, described: Option<&Described>) -> Result<()> {
        let now = cluster::topic_id(&self.topic, described.cloned())?;
        if now == self.lineage.topic_id { Ok(()) } else { Err(self.made_anew(now.as_deref())) }
    }

    /// It is another one by now.
    pub(crate) fn made_anew(&self, now: Option<&str>) -> Error {
        let (topic, unknown) = (&self.topic, "unknown");
        Error::config(format!(
            "topic {topic} was made anew while it was read: its id was {} and is {}. What may be of the new topic was not written; to \
             read that, forget the table's offset with the sink's action `offsets stream={topic} reset=true`",
            self.lineage.topic_id.as_deref().unwrap_or(unknown),
            now.unwrap_or(unknown)
        ))
    }
}
