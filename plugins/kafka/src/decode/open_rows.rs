//! The rows of messages that have no schema: some columns are declared, the others' types come from values.

use std::sync::Arc;

use philotes_sdk::json::{Scanner, Value};

use super::batch::{Layout, OpenBatch};
use super::column::ColumnSpec;
use super::fill::fill;
use super::kind::Kind;
use super::topic::{Topic, check_name};
use super::type_language::Declared;
use super::unavailable::Unavailable;
use super::{Refusal, infer};
use crate::config::Others;

/// Columns of a topic at most: members whose names are values would make ever more of them.
const MOST_COLUMNS: usize = 2_000;

/// What is known of them, for all partitions of the topic.
pub(super) struct OpenRows {
    layout: Layout,
    others: Others,
    /// That types are inferred was logged.
    said: bool,
}

impl OpenRows {
    pub(super) fn new(topic: &mut Topic, declared: Vec<Declared>, others: Others, key: Arc<[String]>) -> Self {
        let told = |(name, kind, source_type): Declared| ColumnSpec::told(&name, kind, Some(source_type));
        let layout = Layout { id: topic.layout_id(), columns: declared.into_iter().map(told).collect(), key };
        Self { layout, others, said: false }
    }

    /// The columns that identify rows from now on.
    pub(super) fn set_key(&mut self, topic: &mut Topic, key: &Arc<[String]>) {
        if self.layout.key != *key {
            self.layout.key = Arc::clone(key);
            self.layout.id = topic.layout_id();
        }
    }

    /// Makes the batch ready for a row; `false` where it has to be closed first. A batch that is behind gets the columns that rows of
    /// other partitions have brought.
    pub(super) fn begin(
        &mut self,
        topic: &mut Topic,
        batch: &mut OpenBatch,
        initial_load: bool,
    ) -> Result<bool, Refusal> {
        if batch.rows() == 0 {
            topic.begin(batch, &self.layout, initial_load);
            batch.open = true;
            return Ok(true);
        }
        if !batch.open || batch.initial_load != initial_load || batch.key != self.layout.key {
            return Ok(false);
        }
        if batch.layout == self.layout.id {
            return Ok(true);
        }
        let mut beyond = false;
        for (at, spec) in self.layout.columns.iter_mut().enumerate() {
            let Some(column) = batch.columns.get_mut(at) else {
                batch.add(spec.clone());
                continue;
            };
            if column.spec.kind != spec.kind && column.widen_to(&spec.kind)? {
                spec.kind = column.spec.kind.clone();
                beyond = true;
            }
        }
        if beyond {
            self.layout.id = topic.layout_id();
        }
        batch.layout = self.layout.id;
        Ok(true)
    }

    /// Reads the object that the scanner has entered.
    pub(super) fn fill(
        &mut self,
        topic: &Topic,
        batch: &mut OpenBatch,
        scanner: &mut Scanner<'_>,
        unavailable: Option<&Unavailable>,
    ) -> Result<(), Refusal> {
        let Self { others, said, .. } = self;
        fill(batch, scanner, unavailable, |batch, key, value| match others {
            Others::Drop => Ok(()),
            Others::Refuse => {
                Err(Refusal::new("a member that `columns` does not name, and `others` says refuse").of(key))
            }
            Others::Infer => {
                check_name(key)?;
                let at = add_inferred(topic, batch, key, value, said);
                let Some(at) = at else { return Ok(()) };
                if at >= MOST_COLUMNS {
                    return Err(Refusal::new(
                        "more than 2000 columns: are names of members values? `others` can drop them, and `columns` declare a map around them",
                    ));
                }
                if unavailable.is_some_and(|unavailable| unavailable.is(&Kind::Json, value)) {
                    // It is not null, so that there has to be a column to say this of.
                    batch.left_out.push(at);
                    return Ok(());
                }
                batch.append(at, value)
            }
        })
    }

    /// What the row has brought is known from now on. To be called before the row ends.
    pub(super) fn learn(&mut self, topic: &mut Topic, batch: &mut OpenBatch) {
        if batch.grew() {
            self.layout.columns = batch.columns.iter().map(|column| column.spec.clone()).collect();
            self.layout.id = topic.layout_id();
            batch.layout = self.layout.id;
        }
    }
}

/// A member that is no column yet becomes one; where it is null it does not, for nothing tells its type.
fn add_inferred(topic: &Topic, batch: &mut OpenBatch, key: &str, value: Value<'_>, said: &mut bool) -> Option<usize> {
    let kind = infer::infer(value)?;
    if !std::mem::replace(said, true) {
        tracing::warn!(
            stream = %topic.stream(), column = key, as_type = ?kind,
            "types of columns are inferred from values, for this column and maybe others: `columns` can declare them"
        );
    }
    batch.add_for_row(ColumnSpec::inferred(key, kind));
    Some(batch.columns.len() - 1)
}
