//! A record whose fields are the columns of a row.

use super::bytes::{Bytes, within};
use super::placeholder;
use super::plan::{self, MISMATCH, Part, Plan};
use super::schema::Record;
use crate::decode::Refusal;
use crate::decode::batch::OpenBatch;
use crate::decode::column::ColumnSpec;
use crate::decode::kind::Kind;
use crate::decode::logical::Dialect;
use crate::decode::unavailable::Unavailable;

/// Reads records into the columns of a batch that has theirs.
#[derive(Debug)]
pub(super) struct Row {
    parts: Vec<Part>,
    /// Those of the parts that have one, in their order.
    pub(super) columns: Vec<ColumnSpec>,
    /// Of each column the bytes that stand for a value that was not sent.
    unavailable: Vec<Vec<Vec<u8>>>,
}

impl Row {
    /// An error says what cannot be read.
    pub(super) fn new(record: &Record, dialect: Dialect) -> Result<Self, String> {
        let (parts, members) = plan::parts(record, dialect)?;
        let columns: Vec<_> =
            members.into_iter().map(|member| ColumnSpec::told(&member.name, member.kind, member.source_type)).collect();
        let unavailable = columns.iter().map(|_| Vec::new()).collect();
        Ok(Self { parts, columns, unavailable })
    }

    /// The same where values may be left out.
    pub(super) fn with_unavailable(mut self, unavailable: &Unavailable) -> Self {
        let plans = self.parts.iter().filter_map(|part| part.plan.as_ref());
        self.unavailable = plans.map(|plan| placeholder::forms(plan, unavailable)).collect();
        self
    }

    fn is_unavailable(&self, at: usize, bytes: Bytes<'_>) -> bool {
        self.unavailable.get(at).is_some_and(|forms| forms.iter().any(|form| bytes.0.starts_with(form)))
    }

    /// Appends the record to the batch's columns, and notes what it leaves out.
    pub(super) fn append(&self, bytes: &mut Bytes<'_>, batch: &mut OpenBatch) -> Result<(), Refusal> {
        self.each(bytes, |at, part, plan, bytes| {
            if self.is_unavailable(at, *bytes) {
                batch.left_out.push(at);
                return bytes.skip(&part.of);
            }
            plan.append(bytes, values(batch, at)?)
        })
    }

    /// Takes what the row left out from the record that was there before, where that has it.
    pub(super) fn append_left_out(&self, bytes: &mut Bytes<'_>, batch: &mut OpenBatch) -> Result<(), Refusal> {
        self.each(bytes, |at, part, plan, bytes| {
            let missing = batch.left_out.iter().position(|left_out| *left_out == at);
            // A value that was too large to be sent is not null.
            match missing.filter(|_| !self.is_unavailable(at, *bytes) && !plan.is_null_next(*bytes)) {
                Some(found) => {
                    batch.left_out.remove(found);
                    plan.append(bytes, values(batch, at)?)
                }
                None => bytes.skip(&part.of),
            }
        })
    }

    /// Appends the columns that identify a row; what else the record has does not matter.
    pub(super) fn append_key(&self, bytes: &mut Bytes<'_>, batch: &mut OpenBatch) -> Result<(), Refusal> {
        self.each(bytes, |_, part, plan, bytes| {
            if !batch.key.contains(&part.name) {
                return bytes.skip(&part.of);
            }
            append_key_value(plan, &part.name, bytes, batch)
        })
    }

    /// Calls for each part that has a column, with that column's place.
    fn each(
        &self,
        bytes: &mut Bytes<'_>,
        mut read: impl FnMut(usize, &Part, &Plan, &mut Bytes<'_>) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut at = 0;
        for part in &self.parts {
            match &part.plan {
                Some(plan) => {
                    at += 1;
                    read(at - 1, part, plan, bytes)
                }
                None => bytes.skip(&part.of),
            }
            .map_err(|why| within(&part.name, why))?;
        }
        Ok(())
    }
}

fn values(batch: &mut OpenBatch, at: usize) -> Result<&mut crate::decode::values::Values, Refusal> {
    let column = batch.columns.get_mut(at).ok_or(MISMATCH)?;
    Ok(&mut column.values)
}

/// Appends a value of the message's key to the column that it identifies rows by.
pub(super) fn append_key_value(
    plan: &Plan,
    name: &str,
    bytes: &mut Bytes<'_>,
    batch: &mut OpenBatch,
) -> Result<(), Refusal> {
    let at = batch.index.get(name).copied().ok_or(Refusal::new("a key column that the row's schema has not"))?;
    let values = values(batch, at)?;
    let whole = |kind: &Kind| matches!(kind, Kind::Int | Kind::Long);
    if plan.kind != *values.kind() && !(whole(&plan.kind) && whole(values.kind())) {
        return Err(Refusal::new("a key column that has another type in the message's key than in its rows"));
    }
    plan.append(bytes, values)
}
