//! What the connector's key `columns` says of single columns: which are left out, what they are called, what type they have.
//!
//! A batch is *shaped* before anything else sees it, dead letters included: columns that are dropped leave, others take their
//! name. Types are *converted* later, where a row that cannot be converted is told apart from the others. Shaping what was
//! shaped changes nothing, so that a dead letter can come back: a column that has another name remembers the one it came with.

mod cell;
mod convert;
mod print;
mod read;
mod rules;
mod scrub;
mod shape;

pub(crate) use convert::Conversion;
pub use rules::Column;
#[cfg(feature = "fuzz")]
pub(crate) use rules::Given;
pub(crate) use rules::{Columns, Overrides};
pub(crate) use scrub::without;
pub(crate) use shape::original;

#[cfg(test)]
mod tests;
