//! One column of the batch that is being built.

use arrow::datatypes::Field;
use philotes_sdk::batch::{META_INFERRED, META_SOURCE_TYPE};
use philotes_sdk::json::{Value, token};

use super::kind::{Kind, Text};
use super::values::Values;
use super::{Refusal, infer, json_value};

/// What is known of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColumnSpec {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// The type's name at the source, where it says one.
    pub(crate) source_type: Option<String>,
    /// The type comes from values, and may become wider.
    pub(crate) inferred: bool,
}

impl ColumnSpec {
    /// A column whose type is told.
    pub(crate) fn told(name: &str, kind: Kind, source_type: Option<String>) -> Self {
        Self { name: name.to_owned(), kind, source_type, inferred: false }
    }

    /// A column whose type comes from values.
    pub(super) fn inferred(name: &str, kind: Kind) -> Self {
        Self { inferred: true, ..Self::told(name, kind, None) }
    }

    pub(super) fn field(&self) -> Field {
        let mut field = self.kind.field(&self.name);
        if let Some(source_type) = &self.source_type {
            field.metadata_mut().insert(META_SOURCE_TYPE.to_owned(), source_type.clone());
        }
        if self.inferred {
            field.metadata_mut().insert(META_INFERRED.to_owned(), "true".to_owned());
        }
        field
    }
}

/// A column and its values so far.
pub(crate) struct Column {
    pub(crate) spec: ColumnSpec,
    pub(crate) values: Values,
    /// The name as a key of JSON.
    pub(super) token: Vec<u8>,
}

/// What a column of an inferred type was before it became wider.
pub(super) type Narrower = (Kind, Values);

impl Column {
    /// A column that is null in the `rows` rows there are already.
    pub(super) fn new(spec: ColumnSpec, rows: usize) -> Self {
        let mut values = Values::new(&spec.kind);
        (0..rows).for_each(|_| values.push_null());
        let token = token(&spec.name);
        Self { spec, values, token }
    }

    /// Makes room for a value in a column whose type is inferred: the values so far keep their worth. What the column was
    /// before, where it is another now.
    #[inline]
    pub(super) fn widen(&mut self, value: Value<'_>) -> Result<Option<Narrower>, Refusal> {
        if infer::holds(&self.spec.kind, value) {
            return Ok(None);
        }
        let texts = self.values.printed();
        let kind = infer::wider_for(&self.spec.kind, &texts, value);
        self.retype(kind, &texts).map(Some)
    }

    /// Makes it as wide as the column of that name is elsewhere. Whether it became wider than that.
    pub(super) fn widen_to(&mut self, other: &Kind) -> Result<bool, Refusal> {
        let texts = self.values.printed();
        let kind = infer::joined(&self.spec.kind, &texts, other);
        let beyond = kind != *other;
        if kind != self.spec.kind {
            self.retype(kind, &texts)?;
        }
        Ok(beyond)
    }

    pub(super) fn restore(&mut self, narrower: Narrower) {
        (self.spec.kind, self.values) = narrower;
    }

    fn retype(&mut self, kind: Kind, texts: &[Option<String>]) -> Result<Narrower, Refusal> {
        let mut values = Values::new(&kind);
        for text in texts {
            // What is not text is one of JSON's numbers by now.
            let value = match (text, &kind) {
                (None, _) => Value::Null,
                (Some(text), Kind::String(Text::Itself)) => Value::String(text),
                (Some(text), _) => Value::Number(text),
            };
            json_value::append(&mut values, value)?;
        }
        let kind = std::mem::replace(&mut self.spec.kind, kind);
        Ok((kind, std::mem::replace(&mut self.values, values)))
    }
}
