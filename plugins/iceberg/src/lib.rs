//! Sink: Apache Iceberg tables.

#[allow(dead_code, unused_imports, reason = "the sink that uses it lands separately")]
mod schema;

#[allow(dead_code, unused_imports, reason = "the sink that uses it lands separately")]
mod partition;

#[allow(dead_code, unused_imports, reason = "the sink that uses it lands separately")]
mod writer;
