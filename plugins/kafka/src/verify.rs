//! Holds batches back until their topic is known to be still the one that it was.
//!
//! A topic that is deleted and made again keeps its name, and librdkafka goes on reading at the old offset. So before a batch goes on,
//! the cluster is asked for the topic's id, after the batch was complete: ids never come back, so that the same answer means
//! that all of its messages are of the old topic. One question covers all batches that wait, and the next one is only asked when it was
//! answered.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use philotes_sdk::{ChangeBatch, Error, Result, StreamPartition};

use crate::client::Consumer;
use crate::cluster;
use crate::native::{Described, TopicIds};
use crate::offset::Lineage;

/// A batch that waits.
pub(crate) struct Waiting {
    pub(crate) topic: Arc<str>,
    pub(crate) batch: ChangeBatch,
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

    pub(crate) fn push(&mut self, topic: Arc<str>, batch: ChangeBatch) {
        self.bytes += batch.bytes();
        self.waiting.push_back(Waiting { topic, batch });
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Lets go of what waits of these partitions.
    pub(crate) fn forget(&mut self, partitions: &[StreamPartition]) {
        let mut asked = self.asked;
        let mut index = 0;
        self.waiting.retain(|waiting| {
            let stays = !partitions.contains(&waiting.batch.at);
            if !stays {
                self.bytes -= waiting.batch.bytes();
                // The question goes by how many there were before it.
                if let Some(asked) = &mut asked
                    && index < self.asked.unwrap_or(0)
                {
                    *asked -= 1;
                }
            }
            index += 1;
            stays
        });
        self.asked = asked;
    }

    /// The batches whose topics are still what they were; waits so long for an answer.
    ///
    /// # Errors
    /// Config where a topic is another one by now; Unavailable where there is none, or no answer.
    pub(crate) fn proved(
        &mut self,
        lineages: &HashMap<String, Lineage>,
        patience: Duration,
    ) -> Result<Vec<ChangeBatch>> {
        let mut proved = Vec::new();
        if let Some(asked) = self.asked
            && let Some(answer) = self.ids.answer(patience)
        {
            let described = answer?;
            self.asked = None;
            for Waiting { topic, batch } in self.waiting.drain(..asked) {
                self.bytes -= batch.bytes();
                check(&topic, &described, lineages)?;
                proved.push(batch);
            }
        }
        if self.asked.is_none() && !self.waiting.is_empty() {
            let topics: BTreeSet<&str> = self.waiting.iter().map(|waiting| &*waiting.topic).collect();
            self.ids.ask(topics.into_iter())?;
            self.asked = Some(self.waiting.len());
        }
        Ok(proved)
    }
}

fn check(topic: &str, described: &HashMap<String, Described>, lineages: &HashMap<String, Lineage>) -> Result<()> {
    let now = cluster::topic_id(topic, described.get(topic).cloned())?;
    let then = lineages.get(topic).and_then(|lineage| lineage.topic_id.clone());
    if now == then {
        return Ok(());
    }
    let print = |id: Option<String>| id.unwrap_or_else(|| "unknown".to_owned());
    Err(Error::config(format!(
        "topic {topic} was made anew while it was read: its id was {} and is {}. What may be of the new topic was not written; to read \
         that, forget the table's offset with the sink's action `offsets stream={topic} reset=true`",
        print(then),
        print(now)
    )))
}
