//! Bytes that the specification of Avro gives, or that another writer has written, and what they become.

mod events;
mod hostile;
mod messages;
mod types;
mod written;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::Value;

use super::bytes::Bytes;
use super::plan::Plan;
use super::schema::{self, Type};
use crate::decode::Refusal;
use crate::decode::logical::Dialect;
use crate::decode::values::Values;
use crate::registry::{Language, Registered};

fn registered(schema: &Value) -> Registered {
    Registered { id: 1, language: Language::Avro, text: schema.to_string(), references: Vec::new() }
}

fn parse(schema: &Value) -> Result<Arc<Type>, String> {
    schema::parse(&registered(schema))
}

fn plan(schema: &Value) -> Plan {
    Plan::new(&parse(schema).unwrap(), Dialect::Connect).unwrap()
}

/// One value, all of the bytes.
fn append(plan: &Plan, mut bytes: &[u8], values: &mut Values) -> Result<(), Refusal> {
    let before = values.len();
    let mut rest = Bytes::new(bytes);
    let read = plan.append(&mut rest, values);
    bytes = rest.0;
    match read {
        Ok(()) if bytes.is_empty() => Ok(()),
        Ok(()) => panic!("{} bytes are left", bytes.len()),
        Err(refusal) => {
            values.truncate(before);
            Err(refusal)
        }
    }
}

fn read(schema: &Value, rows: &[&[u8]]) -> Result<ArrayRef, Refusal> {
    let plan = plan(schema);
    let mut values = Values::new(&plan.kind);
    for row in rows {
        append(&plan, row, &mut values)?;
    }
    Ok(values.finish().unwrap())
}

/// As Arrow prints values.
fn printed(array: &ArrayRef) -> Vec<String> {
    let options = FormatOptions::default().with_null("null");
    let formatter = ArrayFormatter::try_new(array, &options).unwrap();
    (0..array.len()).map(|row| formatter.value(row).to_string()).collect()
}
