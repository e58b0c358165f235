//! Rows that cannot be written, and what becomes of them: an error that stops the connector, or dead letters.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use philotes_sdk::batch::reserved_fields;
use philotes_sdk::{ChangeBatch, Error, ErrorKind, Result};

use super::{Incoming, Table};
use crate::dead_letters::{self, Letter, Main, Ranges, Sifted, read_intent};
use crate::overrides::Conversion;

impl Table {
    /// Writes rows; those that cannot be written become letters, where the connector tolerates that.
    pub(super) async fn write_rows(&mut self, batch: &ChangeBatch) -> Result<()> {
        let tolerant = self.settings.context.info().tolerance.dead_letters();
        match self.write_all(batch).await {
            Err(error) if error.kind() == ErrorKind::Data && tolerant => {}
            outcome => return outcome,
        }
        let sifted = self.sift(&Incoming::of(batch)).await?;
        let letters = letters_of(batch, &sifted.bad)?;
        if let Some(good) = &sifted.good {
            self.take_in(good).await?;
        }
        self.set_aside(batch, &sifted.bad, letters);
        Ok(())
    }

    /// Keeps the letters of rows of a batch that cannot be written. There may be none, where the table was altered for them.
    pub(super) fn set_aside(&mut self, batch: &ChangeBatch, bad: &[(usize, Error)], letters: Vec<Letter>) {
        let Some((first, reason)) = bad.first() else { return };
        tracing::warn!(
            stream = %batch.at.stream, partition = batch.at.partition, offset = batch.offset.as_str(), rows = letters.len(),
            first_row = first, error = %reason,
            "rows cannot be written and become dead letters; the first of them is named"
        );
        self.letters.extend(letters);
    }

    async fn write_all(&mut self, batch: &ChangeBatch) -> Result<()> {
        let rows = self.fit(batch, &Incoming::of(batch)).await?;
        self.take_in(&rows).await
    }

    /// The rows of a batch as the table's.
    pub(super) async fn fit(&mut self, batch: &ChangeBatch, incoming: &Incoming<'_>) -> Result<RecordBatch> {
        let prepared = self.converted(incoming).await;
        let conversion = prepared.map_err(|e| e.context(format!("stream {}", batch.at.stream)))?;
        let projected = self.project(incoming.schema_id, &conversion, incoming.rows);
        projected.map_err(|e| e.context(format!("{}, offset {}", batch.at, batch.offset.as_str())))
    }

    /// Makes the table take such rows, and gives back how they are converted.
    async fn converted(&mut self, incoming: &Incoming<'_>) -> Result<Conversion> {
        let conversion = Conversion::new(self.columns_of(incoming.stream), incoming.rows.schema_ref())?;
        self.prepare(incoming, &conversion).await?;
        Ok(conversion)
    }

    fn project(&self, schema_id: u64, conversion: &Conversion, rows: &RecordBatch) -> Result<RecordBatch> {
        let projection = self.open.as_ref().and_then(|open| open.projections.get(&schema_id));
        let projection = projection.ok_or_else(|| Error::internal("rows of a schema that was not prepared"))?;
        projection.project(&conversion.apply(rows)?)
    }

    /// Takes rows in that were projected to the table's schema.
    pub(crate) async fn take_in(&mut self, rows: &RecordBatch) -> Result<()> {
        match &mut self.open {
            Some(open) if rows.num_rows() > 0 => {
                open.writer.write(rows).await.map_err(|e| e.context(format!("table {}", self.name)))
            }
            _ => Ok(()),
        }
    }

    /// Parts rows into those that can be written, projected, and the others; creates or alters the table as for any rows.
    pub(crate) async fn sift(&mut self, incoming: &Incoming<'_>) -> Result<Sifted> {
        let mut prepared = self.converted(incoming).await;
        if self.base.is_some() && prepared.as_ref().is_err_and(|error| error.kind() == ErrorKind::Data) {
            // Somebody may have altered the table since it was loaded.
            self.reload().await?;
            prepared = self.converted(incoming).await;
        }
        let conversion = match prepared {
            Ok(conversion) => conversion,
            // The schema itself: no row of it can be written.
            Err(error) if error.kind() == ErrorKind::Data => {
                return Ok(Sifted::nothing_of(incoming.rows.num_rows(), &error));
            }
            Err(error) => return Err(error),
        };
        dead_letters::sift(incoming.rows, |part| {
            let projected = self.project(incoming.schema_id, &conversion, part)?;
            if let Some(open) = &self.open {
                open.writer.accepts(&projected)?;
            }
            Ok(projected)
        })
    }

    /// Memory that letters hold until they are durable.
    pub(super) fn letter_bytes(&self) -> usize {
        self.letters.bytes() + self.payload.as_ref().map_or(0, |payload| payload.letters.bytes())
    }

    /// Creates the table where nothing has come for it that has columns, only dead letters or a TRUNCATE: their offset, and the intent
    /// of the letters, need a place.
    pub(crate) async fn create_bare(&mut self) -> Result<()> {
        if self.base.is_some() {
            return Ok(());
        }
        // Its other columns follow with the first row that can be written.
        self.create(&Schema::new(reserved_fields().to_vec()), None).await.map_err(|error| match error.kind() {
            ErrorKind::Config => Error::data(format!(
                "nothing has come for table {} yet that has its columns, and it cannot be made without them; make it by hand, or \
                 let a row come first that can be written",
                self.name
            ))
            .with_source(error),
            _ => error,
        })
    }

    /// Completes the connector's intent in the table, if it is not known to be completed.
    pub(crate) async fn complete_intent(&mut self) -> Result<()> {
        let Some(base) = &self.base else { return Ok(()) };
        let Some(intent) = read_intent(&base.metadata, self.settings.connector())? else { return Ok(()) };
        if intent.number > self.completed {
            dead_letters::append(&self.settings, Main { name: &self.name, uuid: base.metadata.uuid() }, &intent)
                .await?;
            self.completed = intent.number;
        }
        Ok(())
    }

    /// Which letters were replayed into the table.
    pub(crate) fn replayed(&self) -> Result<Ranges> {
        match &self.base {
            Some(base) => Ranges::replayed(&base.metadata, self.settings.connector()),
            None => Ok(Ranges::default()),
        }
    }
}

/// The letters of rows of a batch that cannot be written.
pub(super) fn letters_of(batch: &ChangeBatch, bad: &[(usize, Error)]) -> Result<Vec<Letter>> {
    bad.iter().map(|(row, error)| Letter::of_row(batch, *row, error)).collect()
}
