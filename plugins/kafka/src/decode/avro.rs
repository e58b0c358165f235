//! Avro in Confluent's wire format, decoded into our own columns.

mod bytes;
mod logical;
mod plan;
mod schema;
#[cfg(test)]
mod tests;
