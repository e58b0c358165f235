//! Makes table and rows fit each other: creates the table, alters it, and finds which field each column is.
//!
//! An alteration is one commit, made before the rows that need it, and with it goes what the table has to say of the source's
//! numbers of columns. Where names follow the source, everything that was written is committed before any alteration: should
//! the process die,
//! - before that commit or in it, rows and alteration come again as they came;
//! - after it and before the alteration, the alteration's rows come again, and with them the alteration;
//! - after the alteration and before the commit of the rows that need it, these rows come again, and find the table altered.
//!
//! So no row comes again under an older schema than the table has followed, which would undo a rename or drop a new column.
//! Where only columns are added and widened, rows of an older schema are no harm. In mode upsert everything is committed
//! before as well, because a commit's rows are told apart by one key of one schema.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema as ArrowSchema;
use iceberg::spec::{Schema, TableMetadata};
use iceberg::{TableRequirement, TableUpdate};
use philotes_sdk::batch::META_RELATION;
use philotes_sdk::{ChangeBatch, Error, ErrorKind, Result, StreamName, failpoint};
use uuid::Uuid;

use super::{ROUNDS, Table};
use crate::catalog::CommitRequest;
use crate::layout;
use crate::overrides::{Columns, Conversion};
use crate::schema::{self, Change, Fitted, Numbers, Policy, Projection, What, Wish};
use crate::snapshot::{self, Changes};
use crate::token;

/// Rows on their way into a table, shaped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Incoming<'a> {
    pub(crate) stream: &'a StreamName,
    pub(crate) schema_id: u64,
    pub(crate) rows: &'a RecordBatch,
    /// They come later than their order, so that their names may be old ones.
    pub(crate) late: bool,
    /// The places of the columns that identify a row, in mode upsert.
    pub(crate) key: Option<&'a [usize]>,
}

impl<'a> Incoming<'a> {
    pub(super) fn of(batch: &'a ChangeBatch) -> Self {
        Self { stream: &batch.at.stream, schema_id: batch.schema_id, rows: &batch.rows, late: false, key: None }
    }
}

impl Table {
    /// What the connector says of a stream's columns.
    pub(super) fn columns_of(&self, stream: &StreamName) -> Option<&Columns> {
        self.settings.overrides.of(stream)
    }

    /// The rows without what is dropped, under the names that the connector gives.
    pub(crate) fn shaped(&self, stream: &StreamName, rows: &RecordBatch) -> Result<RecordBatch> {
        match self.columns_of(stream) {
            Some(columns) => columns.shape(rows).map_err(|e| e.context(format!("stream {stream}"))),
            None => Ok(rows.clone()),
        }
    }

    /// Says once which of the columns that the connector names a stream does not have.
    pub(super) fn tell_unknown_columns(&mut self, batch: &ChangeBatch) {
        let stream = &batch.at.stream;
        let unknown = self.columns_of(stream).map(|columns| columns.unknown(batch.rows.schema_ref()));
        for column in unknown.into_iter().flatten().map(str::to_owned).collect::<Vec<_>>() {
            if self.said.insert(format!("{stream} {column}")) {
                tracing::warn!(%stream, column, "`columns` names a column that the stream does not have");
            }
        }
    }

    /// Makes table and writer take such rows: creates or alters the table where that is needed.
    pub(super) async fn prepare(&mut self, incoming: &Incoming<'_>, conversion: &Conversion) -> Result<()> {
        let arrow = conversion.schema();
        if self.base.is_none() {
            self.create(arrow, incoming.key).await?;
        }
        let mut nulls = BTreeSet::new();
        for _ in 0..ROUNDS {
            let known = self.open_writer().is_some_and(|open| open.projections.contains_key(&incoming.schema_id));
            if !known || !nulls.is_empty() {
                let fields = self.evolve(incoming, arrow, &nulls).await?;
                if let Some(key) = incoming.key {
                    let ids: Vec<i32> = key.iter().map(|place| fields[*place]).collect();
                    if self.identify(incoming.stream, &ids).await? {
                        continue;
                    }
                }
                let fitted_to = self.base.as_ref().map(|base| base.metadata.current_schema_id());
                self.lay_out().await?;
                if self.base.as_ref().map(|base| base.metadata.current_schema_id()) != fitted_to {
                    // Somebody has altered the table meanwhile.
                    continue;
                }
                if self.open_writer().is_none() {
                    if self.upsert.is_some() && self.holds_rows() {
                        self.commit_before_altering().await?;
                        continue;
                    }
                    self.roll().await?;
                    self.open = Some(self.new_writer()?);
                }
                if let Some(open) = &mut self.open {
                    open.projections.insert(incoming.schema_id, Projection::onto(&open.schema, arrow, &fields)?);
                }
            }
            if self.settings.policy == Policy::None {
                return Ok(());
            }
            let projection = self.open.as_ref().and_then(|open| open.projections.get(&incoming.schema_id));
            let found = projection.map(|projection| projection.nulls(incoming.rows)).unwrap_or_default();
            // What is required although it was asked for is an identifier field; its rows are refused one by one.
            if found.is_subset(&nulls) {
                return Ok(());
            }
            nulls = found;
        }
        Err(self.altered_all_the_time())
    }

    /// Others alter the table as often as this task looks at it.
    pub(super) fn altered_all_the_time(&self) -> Error {
        Error::unavailable(format!("table {} is altered by others all the time", self.name))
    }

    /// Alters the table until such rows fit, by commits of their own before the rows. Gives back the field of each column.
    async fn evolve(
        &mut self,
        incoming: &Incoming<'_>,
        arrow: &ArrowSchema,
        nulls: &BTreeSet<i32>,
    ) -> Result<Vec<i32>> {
        let policy = self.settings.policy;
        let follows = matches!(policy, Policy::Full { .. }) && arrow.metadata().contains_key(META_RELATION);
        let mut proposed: Vec<Change> = Vec::new();
        for _ in 0..ROUNDS {
            let Some(base) = &self.base else { return Err(Error::internal("a table without metadata")) };
            let metadata = base.metadata.clone();
            let known = self.numbers_of(&metadata, incoming.stream, arrow)?;
            let fixed = fixed_fields(&metadata);
            let wish = Wish {
                arrow,
                policy,
                late: incoming.late,
                known: known.as_ref(),
                nulls,
                fixed: &fixed,
                last_column_id: metadata.last_column_id(),
            };
            let fitted = schema::evolve(metadata.current_schema(), &wish)?;
            self.tell_notes(&fitted.notes);
            let Fitted { schema, changes, fields, numbers, .. } = fitted;
            let numbers = numbers.filter(|_| !incoming.late);
            let Some(schema) = schema else {
                self.tell_changes(&proposed);
                if let Some(numbers) = numbers {
                    self.numbers = Some((incoming.stream.clone(), numbers));
                }
                return Ok(fields);
            };
            layout::check_names(&metadata, &schema).map_err(|e| e.context(format!("table {}", self.name)))?;
            if (self.upsert.is_some() || follows && !incoming.late) && self.holds_rows() {
                self.commit_before_altering().await?;
                continue;
            }
            self.check_widened_key(&changes).await?;
            // What was written so far has the schema it was written with.
            self.roll().await?;
            let drops = changes.iter().any(|change| matches!(change.what, What::Drop(_)));
            let told = numbers.map(|numbers| (incoming.stream, numbers));
            let request = self.alteration(&metadata, schema, drops, told)?;
            if changes.iter().any(|change| matches!(change.what, What::Rename { .. })) {
                // The configuration names the layout's columns as they were called.
                self.laid_out = false;
            }
            proposed = changes;
            self.alter(request).await?;
        }
        Err(self.altered_all_the_time())
    }

    /// Sends a request that alters the table, and adopts what the table is afterwards, by this request or by somebody else's.
    pub(super) async fn alter(&mut self, request: CommitRequest) -> Result<()> {
        let request = self.in_time(request).await?;
        let answer = self.settings.catalog.commit_table(&self.name, request).await;
        failpoint!("schema.altered", |message| Error::unknown(message));
        match answer {
            Ok(loaded) => self.adopt(loaded),
            Err(error) if error.calls_for_a_look() => {
                tracing::debug!(table = %self.name, %error, "looking at the table before it is altered again");
                self.reload().await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The same request, with an empty snapshot where the table's last change lies ahead of the clock.
    async fn in_time(&mut self, mut request: CommitRequest) -> Result<CommitRequest> {
        let Some(base) = &mut self.base else { return Ok(request) };
        if !snapshot::is_ahead(&base.metadata) {
            return Ok(request);
        }
        tracing::debug!(table = %self.name, "the table's last change lies ahead of the clock: altering it with an empty snapshot");
        let changes = Changes {
            connector: self.settings.connector(),
            files: &[],
            empties: false,
            offsets: &BTreeMap::new(),
            properties: &HashMap::new(),
            forget: &[],
        };
        let (with, _) = snapshot::propose(base, changes).await?;
        request.requirements.extend(with.requirements);
        request.updates = [with.updates, request.updates].concat();
        Ok(request)
    }

    /// The request that gives the table this schema, and says with it which fields a stream's numbers are.
    fn alteration(
        &self,
        metadata: &TableMetadata,
        schema: Schema,
        drops: bool,
        numbers: Option<(&StreamName, Numbers)>,
    ) -> Result<CommitRequest> {
        let mut requirements = vec![
            TableRequirement::UuidMatch { uuid: metadata.uuid() },
            TableRequirement::CurrentSchemaIdMatch { current_schema_id: metadata.current_schema_id() },
            TableRequirement::LastAssignedFieldIdMatch { last_assigned_field_id: metadata.last_column_id() },
        ];
        if drops {
            // Somebody may be about to partition or sort the table by what is dropped.
            let (spec, order) = (metadata.default_partition_spec_id(), metadata.default_sort_order_id());
            requirements.push(TableRequirement::DefaultSpecIdMatch { default_spec_id: spec });
            requirements.push(TableRequirement::DefaultSortOrderIdMatch { default_sort_order_id: order });
        }
        let mut updates = schema::change_to(metadata, schema);
        if let Some((stream, numbers)) = numbers {
            let set = [(schema::numbers_property(self.settings.connector(), stream), numbers.to_value()?)].into();
            token::check_size(metadata.properties(), &set)?;
            updates.push(TableUpdate::SetProperties { updates: set });
        }
        Ok(CommitRequest { id: Uuid::new_v4(), requirements, updates, planned_on: None })
    }

    /// Which fields the numbers of such batches are: as they were found last, else as the table says.
    fn numbers_of(
        &self,
        metadata: &TableMetadata,
        stream: &StreamName,
        arrow: &ArrowSchema,
    ) -> Result<Option<Numbers>> {
        let known = match &self.numbers {
            Some((of, numbers)) if of == stream => Some(numbers.clone()),
            _ => Numbers::read(metadata, self.settings.connector(), stream)?,
        };
        Ok(known.filter(|known| known.speak_of(arrow)))
    }

    /// What the next commit has to say of the numbers, if the table does not say it yet.
    pub(crate) fn numbers_to_tell(&self) -> Result<Option<(String, String)>> {
        let (Some(base), Some((stream, numbers))) = (&self.base, &self.numbers) else { return Ok(None) };
        let name = schema::numbers_property(self.settings.connector(), stream);
        let value = numbers.to_value()?;
        Ok((base.metadata.properties().get(&name) != Some(&value)).then_some((name, value)))
    }

    /// Commits everything that was written; the next flush reports it.
    pub(super) async fn commit_before_altering(&mut self) -> Result<()> {
        self.commit_all().await.map_err(|error| {
            // Nothing is wrong with the rows at hand.
            let kind = if error.kind() == ErrorKind::Data { ErrorKind::Config } else { error.kind() };
            Error::new(kind, format!("table {}: what was written before cannot be committed", self.name))
                .with_source(error)
        })
    }

    pub(super) fn holds_rows(&self) -> bool {
        self.payload.is_some() || !self.offsets.is_empty()
    }

    fn tell_notes(&mut self, notes: &[String]) {
        for note in notes {
            if self.said.insert(note.clone()) {
                tracing::warn!(table = %self.name, "{note}");
            }
        }
    }

    fn tell_changes(&self, changes: &[Change]) {
        for change in changes {
            let (table, column) = (&self.name, &change.column);
            tracing::warn!(%table, column, from = change.from(), to = change.to(), "altered the table: {change}");
        }
    }
}

/// Fields of the top level that the table is or was partitioned or sorted by.
pub(crate) fn fixed_fields(metadata: &TableMetadata) -> BTreeSet<i32> {
    let schema = metadata.current_schema();
    let partitioned = metadata.partition_specs_iter().flat_map(|spec| spec.fields()).map(|field| field.source_id);
    let sorted = metadata.sort_orders_iter().flat_map(|order| &order.fields).map(|field| field.source_id);
    let sources: BTreeSet<i32> = partitioned.chain(sorted).collect();
    let fields = schema.as_struct().fields().iter();
    let fixed = fields.filter(|field| sources.iter().any(|id| schema::lies_within(field, *id)));
    fixed.map(|field| field.id).collect()
}
