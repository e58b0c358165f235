//! The rows of one partition that are not in a batch yet.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::error::ArrowError;
use philotes_sdk::json::Value;

use super::column::{Column, ColumnSpec, Narrower};
use super::kafka_columns::KafkaColumns;
use super::kind::Kind;
use super::values::Values;
use super::{Refusal, infer, json_value};
use crate::config::MetadataColumn;
use crate::message::Message;

/// The columns of a row, and which of them are its key.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// No two layouts of a topic have the same.
    pub(crate) id: u64,
    pub(crate) columns: Vec<ColumnSpec>,
    pub(crate) key: Arc<[String]>,
}

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Insert,
    Update,
    Delete,
    Truncate,
}

impl Operation {
    const fn name(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Truncate => "TRUNCATE",
        }
    }
}

/// What a row is beside its columns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change<'a> {
    pub(crate) operation: Operation,
    /// When it happened, in microseconds since 1970.
    pub(crate) micros: Option<i64>,
    pub(crate) lsn: Lsn<'a>,
    /// Roughly how much memory the row takes.
    pub(crate) bytes: usize,
}

/// The source's own position of a change.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lsn<'a> {
    /// topic-partition@offset.
    Offset,
    /// PostgreSQL's.
    Postgres(u64),
    Text(&'a str),
}

/// The rows of one partition that are not in a batch yet.
#[derive(Default)]
pub(crate) struct OpenBatch {
    pub(super) layout: u64,
    pub(super) key: Arc<[String]>,
    pub(crate) columns: Vec<Column>,
    pub(super) index: HashMap<String, usize>,
    /// Which column came after which one in the last row: that of `next[0]` first, that of `next[n + 1]` after the n-th.
    pub(super) next: Vec<usize>,
    /// Columns that the row being appended leaves out: they did not change, or a row is gone of which only the key is told.
    pub(crate) left_out: Vec<usize>,
    pub(super) initial_load: bool,
    /// Its rows have no schema: columns are added as they come.
    pub(super) open: bool,
    fixed: Option<Fixed>,
    undo: Vec<Undo>,
    rows: usize,
    bytes: usize,
    ends_in_delete: bool,
}

/// The columns that every batch has beside the row's own.
struct Fixed {
    operations: Values,
    micros: Values,
    lsns: Values,
    /// The columns that rows left out, once one did.
    unchanged: Option<Values>,
    kafka: KafkaColumns,
}

/// How a refused row is taken back.
enum Undo {
    Added,
    Widened(usize, Narrower),
}

impl OpenBatch {
    /// How many rows it has.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Roughly how much memory they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the last row is a DELETE, whose INSERT may follow: together they are a changed key.
    pub(crate) fn ends_in_delete(&self) -> bool {
        self.ends_in_delete
    }

    /// Begins anew with the columns of a layout; there are no rows.
    pub(super) fn begin(&mut self, layout: &Layout) {
        self.layout = layout.id;
        self.open = false;
        self.key = Arc::clone(&layout.key);
        self.columns.clear();
        self.index.clear();
        self.next.clear();
        layout.columns.iter().for_each(|spec| self.add(spec.clone()));
    }

    /// Adds a column, null in the rows there are.
    pub(super) fn add(&mut self, spec: ColumnSpec) {
        self.index.insert(spec.name.clone(), self.columns.len());
        self.columns.push(Column::new(spec, self.rows));
    }

    /// The same for the row that is being appended.
    pub(super) fn add_for_row(&mut self, spec: ColumnSpec) {
        self.add(spec);
        self.undo.push(Undo::Added);
    }

    /// Appends the first value of a column whose type comes from values.
    pub(super) fn append_new(&mut self, name: &str, value: Value<'_>) -> Result<(), Refusal> {
        let kind = infer::infer(value).ok_or(Refusal::new("a key column that is null or missing").of(name))?;
        if !self.open {
            return Err(Refusal::new("a key column that the row's schema has not").of(name));
        }
        self.add_for_row(ColumnSpec::inferred(name, kind));
        self.append(self.columns.len() - 1, value)
    }

    /// Whether the row that is being appended has changed what columns there are.
    pub(super) fn grew(&self) -> bool {
        !self.undo.is_empty()
    }

    /// Appends to a column a value as it stands in JSON.
    #[inline]
    pub(super) fn append(&mut self, at: usize, value: Value<'_>) -> Result<(), Refusal> {
        let column = &mut self.columns[at];
        if column.values.len() > self.rows {
            return Err(Refusal::new("the row has the member twice").of(&column.spec.name));
        }
        if column.spec.inferred
            && let Some(narrower) = column.widen(value)?
        {
            self.undo.push(Undo::Widened(at, narrower));
        }
        json_value::append(&mut column.values, value).map_err(|refusal| refusal.of(&column.spec.name))
    }

    /// Whether the row that is being appended has a value of this column.
    pub(super) fn has(&self, at: usize) -> bool {
        self.columns[at].values.len() > self.rows
    }

    /// Leaves out the columns of which the row that is being appended has no value.
    pub(super) fn leave_out_the_rest(&mut self) {
        let rest = (0..self.columns.len()).filter(|at| !self.has(*at)).collect::<Vec<_>>();
        self.left_out.extend(rest);
    }

    /// Ends the row: the columns that it lacks are null, those in `left_out` are named.
    pub(crate) fn end_row(
        &mut self,
        message: &Message<'_>,
        change: &Change<'_>,
        wanted: &[MetadataColumn],
        unchanged: bool,
    ) -> Result<(), Refusal> {
        let rows = self.rows;
        for column in self.columns.iter_mut().filter(|column| column.values.len() == rows) {
            column.values.push_null();
        }
        let fixed = self.fixed.get_or_insert_with(|| Fixed::new(wanted));
        fixed.operations.push_text(change.operation.name())?;
        match change.micros {
            Some(micros) => fixed.micros.push_integer(micros)?,
            None => fixed.micros.push_null(),
        }
        fixed.push_lsn(message, change.lsn)?;
        fixed.kafka.push(message)?;
        if unchanged || !self.left_out.is_empty() {
            let lists = fixed.unchanged_lists(rows);
            for at in &self.left_out {
                lists.elements()?.push_text(&self.columns[*at].spec.name)?;
            }
            if self.left_out.is_empty() { lists.push_null() } else { lists.end_list()? }
        }
        self.rows += 1;
        self.ends_in_delete = change.operation == Operation::Delete;
        self.bytes += change.bytes + 64;
        self.undo.clear();
        self.left_out.clear();
        Ok(())
    }

    /// Takes back whatever a refused row has left behind.
    pub(super) fn roll_back(&mut self) {
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Added => {
                    if let Some(column) = self.columns.pop() {
                        self.index.remove(&column.spec.name);
                    }
                }
                Undo::Widened(at, narrower) => self.columns[at].restore(narrower),
            }
        }
        // What followed what may name a column that is gone.
        self.next.clear();
        self.left_out.clear();
        let rows = self.rows;
        self.columns.iter_mut().for_each(|column| column.values.truncate(rows));
        if let Some(fixed) = &mut self.fixed {
            fixed.truncate(rows);
        }
    }

    /// Whether rows of it left columns out.
    pub(super) fn has_unchanged(&self) -> bool {
        self.fixed.as_ref().is_some_and(|fixed| fixed.unchanged.is_some())
    }

    /// Takes the arrays of all rows and starts anew with the same columns.
    pub(super) fn finish(&mut self) -> Result<Vec<ArrayRef>, ArrowError> {
        (self.rows, self.bytes, self.ends_in_delete) = (0, 0, false);
        let mut arrays = self.columns.iter_mut().map(|column| column.values.finish()).collect::<Result<Vec<_>, _>>()?;
        if let Some(fixed) = self.fixed.take() {
            fixed.finish(&mut arrays)?;
        }
        Ok(arrays)
    }
}

impl Fixed {
    fn new(wanted: &[MetadataColumn]) -> Self {
        Self {
            operations: Values::new(&Kind::STRING),
            micros: Values::new(&Kind::timestamp(true, Some(super::kind::Unit::Micros))),
            lsns: Values::new(&Kind::STRING),
            unchanged: None,
            kafka: KafkaColumns::new(wanted),
        }
    }

    fn push_lsn(&mut self, message: &Message<'_>, lsn: Lsn<'_>) -> Result<(), Refusal> {
        match lsn {
            Lsn::Offset => self.lsns.push_parts(message.topic, message.partition, message.offset),
            Lsn::Postgres(lsn) => self.lsns.push_lsn(lsn),
            Lsn::Text(text) => self.lsns.push_text(text),
        }
    }

    fn unchanged_lists(&mut self, rows: usize) -> &mut Values {
        self.unchanged.get_or_insert_with(|| {
            let mut lists = Values::new(&Kind::List(Box::new(Kind::STRING)));
            (0..rows).for_each(|_| lists.push_null());
            lists
        })
    }

    fn truncate(&mut self, rows: usize) {
        self.operations.truncate(rows);
        self.micros.truncate(rows);
        self.lsns.truncate(rows);
        self.kafka.truncate(rows);
        // Without rows that left something out it is as if there were none.
        if let Some(lists) = &mut self.unchanged {
            lists.truncate(rows);
        }
        if self.unchanged.as_ref().is_some_and(Values::all_null) {
            self.unchanged = None;
        }
    }

    /// In the order of the schema's fields.
    fn finish(mut self, arrays: &mut Vec<ArrayRef>) -> Result<(), ArrowError> {
        self.kafka.finish(arrays)?;
        arrays.push(self.operations.finish()?);
        arrays.push(self.micros.finish()?);
        arrays.push(self.lsns.finish()?);
        if let Some(mut lists) = self.unchanged {
            arrays.push(lists.finish()?);
        }
        Ok(())
    }
}
