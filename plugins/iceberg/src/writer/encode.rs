//! The Parquet that Iceberg asks for: field ids on every field, UUIDs as such, zstd, no Arrow schema beside it.

use std::io::Write;
use std::sync::Arc;

use arrow::datatypes::SchemaRef as ArrowSchemaRef;
use bytes::Bytes;
use iceberg::spec::{PrimitiveType, Schema, Type as IcebergType};
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::basic::{Compression, LogicalType, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::{SchemaDescriptor, Type, TypePtr};
use philotes_sdk::{Error, Result};

use super::WriterOptions;
use super::dictionaries::Dictionaries;
use super::metrics::NanColumns;

/// Encoded bytes are handed on in chunks of this size.
const CHUNK_BYTES: usize = 1 << 20;

pub(super) type Encoder = ArrowWriter<Chunks>;

/// How files of one table are encoded.
pub(super) struct Encoding {
    arrow: ArrowSchemaRef,
    parquet: SchemaDescriptor,
    properties: WriterProperties,
    nan_columns: Arc<NanColumns>,
}

impl Encoding {
    pub(super) fn new(
        schema: &Schema,
        arrow: ArrowSchemaRef,
        options: &WriterOptions,
        dictionaries: &Dictionaries,
    ) -> Result<Self> {
        let level = ZstdLevel::try_new(options.zstd_level)
            .map_err(|e| Error::config("the level of compression is not one of zstd's").with_source(e))?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_max_row_group_bytes(Some(options.row_group_bytes))
            .set_created_by(concat!("philotes-iceberg ", env!("CARGO_PKG_VERSION")).to_owned());
        let properties = dictionaries.apply(properties).build();
        Ok(Self {
            parquet: parquet_schema(schema, &arrow)?,
            nan_columns: Arc::new(NanColumns::of(schema)),
            arrow,
            properties,
        })
    }

    pub(super) fn start(&self) -> Result<(Encoder, Arc<NanColumns>)> {
        let options = ArrowWriterOptions::new()
            .with_properties(self.properties.clone())
            .with_parquet_schema(self.parquet.clone())
            .with_skip_arrow_metadata(true);
        let encoder = ArrowWriter::try_new_with_options(Chunks::default(), self.arrow.clone(), options);
        Ok((encoder.map_err(failed)?, self.nan_columns.clone()))
    }
}

/// What the Parquet crate reports. Rows that fit their schema encode, so it is a bug wherever it happens.
pub(super) fn failed(error: parquet::errors::ParquetError) -> Error {
    Error::internal("rows cannot be encoded as Parquet").with_source(error)
}

/// The crate's translation of the Arrow schema, with UUIDs marked: Arrow has only their 16 bytes.
fn parquet_schema(schema: &Schema, arrow: &ArrowSchemaRef) -> Result<SchemaDescriptor> {
    let translated = ArrowSchemaConverter::new().schema_root("table").convert(arrow).map_err(failed)?;
    let root = mark_uuids(schema, &translated.root_schema_ptr())?;
    Ok(SchemaDescriptor::new(root))
}

fn mark_uuids(schema: &Schema, node: &TypePtr) -> Result<TypePtr> {
    let info = node.get_basic_info();
    let id = info.has_id().then(|| info.id());
    if node.is_group() {
        let fields = node.get_fields().iter().map(|field| mark_uuids(schema, field)).collect::<Result<Vec<_>>>()?;
        let mut group = Type::group_type_builder(node.name())
            .with_fields(fields)
            .with_converted_type(info.converted_type())
            .with_logical_type(info.logical_type_ref().cloned())
            .with_id(id);
        if info.has_repetition() {
            group = group.with_repetition(info.repetition());
        }
        return Ok(Arc::new(group.build().map_err(failed)?));
    }
    let is_uuid = id
        .and_then(|id| schema.field_by_id(id))
        .is_some_and(|field| matches!(*field.field_type, IcebergType::Primitive(PrimitiveType::Uuid)));
    if !is_uuid {
        return Ok(node.clone());
    }
    let marked = Type::primitive_type_builder(node.name(), node.get_physical_type())
        .with_repetition(info.repetition())
        .with_length(16)
        .with_logical_type(Some(LogicalType::Uuid))
        .with_id(id)
        .build();
    Ok(Arc::new(marked.map_err(failed)?))
}

/// Gathers encoded bytes in chunks that can be sent without copying.
#[derive(Default)]
pub(super) struct Chunks {
    full: Vec<Bytes>,
    last: Vec<u8>,
}

impl Chunks {
    pub(super) fn take(&mut self) -> Vec<Bytes> {
        let mut chunks = std::mem::take(&mut self.full);
        if !self.last.is_empty() {
            chunks.push(std::mem::take(&mut self.last).into());
        }
        chunks
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.last.extend_from_slice(bytes);
        if self.last.len() >= CHUNK_BYTES {
            self.full.push(std::mem::take(&mut self.last).into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
