//! One dead letter, and the columns of the table that it lies in.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, LargeBinaryArray, RecordBatch, StringArray, TimestampMicrosecondArray,
    UInt64Array,
};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::root_as_message;
use arrow::ipc::writer::StreamWriter;
use arrow::json::LineDelimitedWriter;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use philotes_sdk::batch::{LSN, TIMESTAMP, UTC};
use philotes_sdk::dead_letter;
use philotes_sdk::{ChangeBatch, Error, ErrorKind, Offset, Result, StreamPartition};

use super::Main;
use crate::overrides;
use crate::snapshot::now_ms;

/// Who could not handle the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The source could not make a row of it.
    Source,
    /// The sink could not write the row.
    Sink,
}

impl Origin {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Sink => "sink",
        }
    }
}

/// A record that cannot be written, on its way to its table.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) at: StreamPartition,
    offset: Offset,
    origin: Origin,
    position: Option<String>,
    kind: ErrorKind,
    message: String,
    record: String,
    /// The row of a sink's letter, for `replay`: a stream of Arrow IPC.
    arrow: Option<Vec<u8>>,
    timestamp_micros: Option<i64>,
    failed_micros: i64,
}

impl Letter {
    /// The letters that a source sent.
    pub(crate) fn of_source(batch: &ChangeBatch) -> Result<Vec<Self>> {
        let letter = |letter: dead_letter::DeadLetter| Self {
            at: batch.at.clone(),
            offset: batch.offset.clone(),
            origin: Origin::Source,
            position: letter.position,
            kind: letter.kind,
            message: letter.message,
            record: letter.record,
            arrow: None,
            timestamp_micros: letter.timestamp_micros,
            failed_micros: now_ms() * 1000,
        };
        Ok(dead_letter::from_rows(&batch.rows)?.into_iter().map(letter).collect())
    }

    /// The letter of a row that this sink cannot write because of that error.
    pub(crate) fn of_row(batch: &ChangeBatch, row: usize, error: &Error) -> Result<Self> {
        // Taken and not sliced: a slice would carry its whole batch.
        let index = UInt64Array::from(vec![row as u64]);
        let one = take_record_batch(&batch.rows, &index)
            .map_err(|e| Error::internal("a row cannot be taken out of its batch").with_source(e))?;
        let lsn = one.column_by_name(LSN).and_then(|column| column.as_string_opt::<i32>().cloned());
        let time =
            one.column_by_name(TIMESTAMP).and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>().cloned());
        Ok(Self {
            at: batch.at.clone(),
            offset: batch.offset.clone(),
            origin: Origin::Sink,
            position: lsn.filter(|lsn| lsn.is_valid(0)).map(|lsn| lsn.value(0).to_owned()),
            kind: error.kind(),
            message: error.to_string(),
            record: to_json(&one),
            arrow: Some(to_ipc(&one)?),
            timestamp_micros: time.filter(|time| time.is_valid(0)).map(|time| time.value(0)),
            failed_micros: now_ms() * 1000,
        })
    }

    /// Takes columns out of a record of the source.
    pub(crate) fn leave_out(&mut self, columns: &[&str]) {
        if !columns.is_empty() {
            self.record = overrides::without(&self.record, columns);
        }
    }

    /// Roughly how much memory it holds.
    fn bytes(&self) -> usize {
        let texts = self.record.len() + self.message.len() + self.offset.as_str().len();
        texts + self.arrow.as_ref().map_or(0, Vec::len) + 256
    }
}

/// Letters that wait for a commit.
#[derive(Debug, Default)]
pub(crate) struct Letters {
    all: Vec<Letter>,
    bytes: usize,
}

impl Letters {
    pub(crate) fn extend(&mut self, letters: Vec<Letter>) {
        self.bytes += letters.iter().map(Letter::bytes).sum::<usize>();
        self.all.extend(letters);
    }

    pub(crate) fn all(&self) -> &[Letter] {
        &self.all
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Roughly how much memory they hold.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A row for people. JSON has no counterpart for some values: infinity and NaN become null, bytes hexadecimal digits.
fn to_json(row: &RecordBatch) -> String {
    let mut text = Vec::new();
    let mut writer: LineDelimitedWriter<_> =
        WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut text);
    let written = writer.write(row).and_then(|()| writer.finish());
    drop(writer);
    match (written, String::from_utf8(text)) {
        (Ok(()), Ok(text)) => text.trim_end().to_owned(),
        // The column `arrow` has it nevertheless.
        _ => "{}".to_owned(),
    }
}

fn to_ipc(row: &RecordBatch) -> Result<Vec<u8>> {
    let failed = |e| Error::internal("a row cannot be written as Arrow IPC").with_source(e);
    let mut writer = StreamWriter::try_new(Vec::new(), &row.schema()).map_err(failed)?;
    writer.write(row).map_err(failed)?;
    writer.into_inner().map_err(failed)
}

/// The row of a letter's column `arrow`.
pub(super) fn from_ipc(bytes: &[u8]) -> Result<RecordBatch> {
    let failed = |e| Error::data("its column `arrow` is no row in Arrow IPC").with_source(e);
    check_ipc(bytes)
        .ok_or_else(|| Error::data("its column `arrow` is no row in Arrow IPC: it says more than it holds"))?;
    let reader = StreamReader::try_new(Cursor::new(bytes), None).map_err(failed)?;
    let schema = reader.schema();
    let batches = reader.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    concat_batches(&schema, &batches).map_err(failed)
}

/// Whether no message says of itself more than there is: the reader makes room for what it is told.
fn check_ipc(mut bytes: &[u8]) -> Option<()> {
    const GOES_ON: &[u8] = &[0xff; 4];
    while !bytes.is_empty() {
        bytes = bytes.strip_prefix(GOES_ON).unwrap_or(bytes);
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let length = usize::try_from(i32::from_le_bytes(*length)).ok()?;
        if length == 0 {
            break;
        }
        let (message, rest) = rest.split_at_checked(length)?;
        let message = root_as_message(message).ok()?;
        let body = usize::try_from(message.bodyLength()).ok()?;
        bytes = rest.get(body..)?;
        if let Some(batch) = message.header_as_record_batch() {
            let within = |offset: i64, length: i64| {
                let end = usize::try_from(offset).ok()?.checked_add(usize::try_from(length).ok()?)?;
                (end <= body).then_some(())
            };
            batch.buffers().into_iter().flatten().try_for_each(|buffer| within(buffer.offset(), buffer.length()))?;
        }
    }
    Some(())
}

/// The columns of the table of dead letters.
pub(super) fn schema() -> SchemaRef {
    let micros = || DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()));
    let fields = [
        ("connector", DataType::Utf8),
        ("table", DataType::Utf8),
        ("table_uuid", DataType::Utf8),
        ("stream", DataType::Utf8),
        ("partition", DataType::Utf8),
        ("offset", DataType::Utf8),
        ("sequence", DataType::Int64),
        ("origin", DataType::Utf8),
        ("position", DataType::Utf8),
        ("kind", DataType::Utf8),
        ("message", DataType::Utf8),
        ("record", DataType::Utf8),
        ("arrow", DataType::LargeBinary),
        (TIMESTAMP, micros()),
        ("failed_at", micros()),
    ];
    Arc::new(Schema::new(fields.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec()))
}

/// The letters as rows of their table, numbered after `from`.
pub(super) fn to_rows(connector: &str, main: Main<'_>, from: u64, letters: &[Letter]) -> Result<RecordBatch> {
    let text =
        |of: &dyn Fn(&Letter) -> String| Arc::new(StringArray::from_iter_values(letters.iter().map(of))) as ArrayRef;
    let times = |of: &dyn Fn(&Letter) -> Option<i64>| {
        Arc::new(letters.iter().map(of).collect::<TimestampMicrosecondArray>().with_timezone(UTC)) as ArrayRef
    };
    let positions: StringArray = letters.iter().map(|letter| letter.position.as_deref()).collect();
    let sequences = (from + 1..).take(letters.len()).map(|number| i64::try_from(number).unwrap_or(i64::MAX));
    let arrow: LargeBinaryArray = letters.iter().map(|letter| letter.arrow.as_deref()).collect();
    let columns = vec![
        text(&|_| connector.to_owned()),
        text(&|_| main.name.to_string()),
        text(&|_| main.uuid.to_string()),
        text(&|letter| letter.at.stream.to_string()),
        text(&|letter| letter.at.partition.clone()),
        text(&|letter| letter.offset.as_str().to_owned()),
        Arc::new(Int64Array::from_iter_values(sequences)),
        text(&|letter| letter.origin.name().to_owned()),
        Arc::new(positions),
        text(&|letter| letter.kind.name().to_owned()),
        text(&|letter| letter.message.clone()),
        text(&|letter| letter.record.clone()),
        Arc::new(arrow),
        times(&|letter| letter.timestamp_micros),
        times(&|letter| Some(letter.failed_micros)),
    ];
    RecordBatch::try_new(schema(), columns).map_err(|e| Error::internal("dead letters make no batch").with_source(e))
}
