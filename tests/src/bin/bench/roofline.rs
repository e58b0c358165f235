//! What the machine can do: the parts of the work without the host.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow_json::ReaderBuilder;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use philotes_tests::sql::Session;

use crate::measured::{Measured, cpu_seconds};

/// COPY in binary of the rows, thrown away; with all columns that the source reads, or without the metadata.
pub(crate) fn copy(session: &Session, rows: u64, metadata: bool) -> Result<Measured> {
    let metadata = if metadata { ", metadata" } else { "" };
    let sql = format!(
        "copy (select id, schema_name, table_name, operation, lsn, event_time, created_at, key_columns, before_data, \
         after_data{metadata} from philotes.cdc_events where source_id = 'shop' and processed_at is null \
         order by source_id, id) to stdout (format binary)"
    );
    let mut best = Measured { rows, elapsed: Duration::MAX, ..Measured::default() };
    // Twice: the first one may have to read from the disk.
    for _ in 0..2 {
        let mut messages: u64 = 0;
        let started = Instant::now();
        session.copy_out(&sql, |_| messages += 1)?;
        best.elapsed = best.elapsed.min(started.elapsed());
        if messages < rows {
            bail!("COPY brought {messages} rows of {rows}");
        }
    }
    Ok(best)
}

/// The rows' JSON decoded by arrow-json and written as Parquet to nowhere, on one thread.
pub(crate) fn json_to_parquet(session: &Session, rows: u64) -> Result<Measured> {
    let mut json = Vec::new();
    session.copy_out("copy (select after_data from philotes.cdc_events order by id) to stdout", |line| {
        json.extend_from_slice(line);
    })?;
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("customer_id", DataType::Int64, true),
        Field::new("status", DataType::Utf8, true),
        Field::new("total", DataType::Decimal128(14, 2), true),
        Field::new("quantity", DataType::Int32, true),
        Field::new("placed_at", DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())), true),
        Field::new("email", DataType::Utf8, true),
        Field::new("note", DataType::Utf8, true),
    ]));
    encode(&json, &schema, rows)
}

/// Lines of JSON decoded by arrow-json and written as Parquet to nowhere, on one thread.
pub(crate) fn encode(json: &[u8], schema: &SchemaRef, rows: u64) -> Result<Measured> {
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?)).build();
    let own = std::process::id();
    let cpu = cpu_seconds(own).context("no CPU time")?;
    let started = Instant::now();
    let mut decoder = ReaderBuilder::new(Arc::clone(schema)).with_batch_size(16_384).build_decoder()?;
    let mut writer = ArrowWriter::try_new(std::io::sink(), Arc::clone(schema), Some(properties))?;
    let (mut rest, mut written) = (json, 0);
    loop {
        let read = decoder.decode(rest)?;
        rest = &rest[read..];
        let Some(batch) = decoder.flush()? else { break };
        written += batch.num_rows() as u64;
        writer.write(&batch)?;
    }
    writer.close()?;
    if written != rows {
        bail!("{written} rows were encoded, not {rows}");
    }
    let cpu_seconds = cpu_seconds(own).context("no CPU time")? - cpu;
    Ok(Measured { rows, elapsed: started.elapsed(), cpu_seconds, peak_rss_kib: 0 })
}
