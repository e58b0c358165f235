//! A partition as what it tells readers: they take its value for the value of every row in it.

use std::hash::{Hash, Hasher};

use iceberg::spec::{Literal, PrimitiveLiteral, Struct};

/// A partition by which rows are gathered. The crate's own takes -0 and 0 for one.
#[derive(Clone, Debug)]
pub(crate) struct PartitionKey(Struct);

impl PartitionKey {
    pub(crate) fn as_struct(&self) -> &Struct {
        &self.0
    }
}

impl From<Struct> for PartitionKey {
    fn from(partition: Struct) -> Self {
        Self(partition)
    }
}

impl PartialEq for PartitionKey {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 && self.0.iter().zip(other.0.iter()).all(|(one, other)| signs(one) == signs(other))
    }
}

impl Eq for PartitionKey {}

impl Hash for PartitionKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // What is equal here is equal there.
        self.0.hash(state);
    }
}

/// Whether a float is below zero, or a zero that is; a NaN has no sign.
fn signs(value: Option<&Literal>) -> bool {
    match value {
        Some(Literal::Primitive(PrimitiveLiteral::Float(value))) => value.is_sign_negative() && !value.is_nan(),
        Some(Literal::Primitive(PrimitiveLiteral::Double(value))) => value.is_sign_negative() && !value.is_nan(),
        _ => false,
    }
}
