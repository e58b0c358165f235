//! How the table's layout becomes that of the configuration, by a commit of its own before the rows that are laid out so.

use philotes_sdk::{Error, Result};

use super::{ROUNDS, Table};
use crate::layout::{self, Relayout};
use crate::schema::Policy;

impl Table {
    /// Changes the layout of a table that exists, where it differs from the configuration. Where its columns do not suffice,
    /// that waits for the rows that bring them.
    pub(super) async fn lay_out_known(&mut self) -> Result<()> {
        let making = &self.settings.making;
        match &self.base {
            Some(base) if layout::has_columns(making, base.metadata.current_schema()) => self.lay_out().await,
            _ => Ok(()),
        }
    }

    /// Changes the layout, where it differs from the configuration. Two tasks that do so at once come to the same.
    pub(super) async fn lay_out(&mut self) -> Result<()> {
        if self.laid_out {
            return Ok(());
        }
        let mut proposed: Option<Relayout> = None;
        for _ in 0..ROUNDS {
            let Some(base) = &self.base else { return Err(Error::internal("a table without metadata")) };
            let metadata = &base.metadata;
            let difference = layout::difference(&self.settings.making, metadata, metadata.current_schema());
            let Some(change) = difference.map_err(|e| e.context(format!("table {}", self.name)))? else {
                for difference in proposed.iter().flat_map(|change| &change.differences) {
                    tracing::warn!(
                        table = %self.name, key = difference.key, from = difference.from.join(", "), to = difference.to.join(", "),
                        "altered the table: data from now on is laid out as configured"
                    );
                }
                self.laid_out = true;
                return Ok(());
            };
            if self.settings.policy == Policy::None {
                for difference in &change.differences {
                    tracing::warn!(table = %self.name, "the table is {difference}, and stays as it is: `evolve: none`");
                }
                self.laid_out = true;
                return Ok(());
            }
            if self.upsert.is_some() && self.holds_rows() {
                self.commit_before_altering().await?;
                continue;
            }
            // What was written so far is laid out as it was.
            self.roll().await?;
            let request = change.request();
            proposed = Some(change);
            self.alter(request).await?;
        }
        Err(self.altered_all_the_time())
    }
}
