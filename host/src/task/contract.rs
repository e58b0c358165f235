//! Refuses batches that break the contract of change batches, before any sink sees them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use philotes_sdk::batch::Contract;
use philotes_sdk::{ChangeBatch, Result, StreamName};

/// The schemas that were found to be sound: the last one of each stream, whose batches follow each other.
#[derive(Default)]
pub(super) struct Contracts(HashMap<StreamName, (SchemaRef, Contract)>);

impl Contracts {
    /// Checks a batch, its schema only where it is not the stream's last.
    pub(super) fn check(&mut self, batch: &ChangeBatch) -> Result<()> {
        if batch.dead_letters {
            return batch.check();
        }
        let schema = batch.rows.schema_ref();
        let known = self.0.get(&batch.at.stream).filter(|(known, _)| Arc::ptr_eq(known, schema) || known == schema);
        if let Some((_, contract)) = known {
            return contract.check(&batch.at, &batch.rows);
        }
        let contract = Contract::of_rows(&batch.at, schema)?;
        contract.check(&batch.at, &batch.rows)?;
        self.0.insert(batch.at.stream.clone(), (Arc::clone(schema), contract));
        Ok(())
    }
}
