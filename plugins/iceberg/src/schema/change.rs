//! One change of a table's schema, as the log, `plan` and errors tell it.

use std::fmt;

use iceberg::spec::Type;

use super::type_name;

/// What becomes of one column. Printed: `add note: string`, `id: int to long`, `rename a to b`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// The column as it is called until now, nested ones with dots; of a reorder, all of them.
    pub(crate) column: String,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Add(Type),
    Widen {
        from: Type,
        to: Type,
    },
    /// From required to optional.
    Relax(Type),
    Rename {
        r#type: Type,
        to: String,
    },
    Drop(Type),
    Comment(Type),
    Reorder,
}

impl Change {
    pub(super) fn new(column: impl Into<String>, what: What) -> Self {
        Self { column: column.into(), what }
    }

    /// The column's type until now; `None` where it is new.
    pub(crate) fn from(&self) -> Option<String> {
        match &self.what {
            What::Add(_) | What::Reorder => None,
            What::Widen { from: r#type, .. }
            | What::Relax(r#type)
            | What::Rename { r#type, .. }
            | What::Drop(r#type)
            | What::Comment(r#type) => Some(type_name(r#type)),
        }
    }

    /// The column's type from now on; `None` where it is gone.
    pub(crate) fn to(&self) -> Option<String> {
        match &self.what {
            What::Drop(_) | What::Reorder => None,
            What::Add(r#type)
            | What::Widen { to: r#type, .. }
            | What::Relax(r#type)
            | What::Rename { r#type, .. }
            | What::Comment(r#type) => Some(type_name(r#type)),
        }
    }

    /// What it is to its column, where that is named beside it: `add`, `int to long`, `renamed from a`. `None` where no one
    /// column is left to name.
    pub(crate) fn beside(&self) -> Option<String> {
        match &self.what {
            What::Add(_) => Some("add".to_owned()),
            What::Widen { from, to } => Some(format!("{} to {}", type_name(from), type_name(to))),
            What::Relax(_) => Some("required to optional".to_owned()),
            What::Rename { .. } => Some(format!("renamed from {}", self.column)),
            What::Comment(_) => Some("comment".to_owned()),
            What::Drop(_) | What::Reorder => None,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = &self.column;
        match &self.what {
            What::Add(r#type) => write!(f, "add {column}: {}", type_name(r#type)),
            What::Widen { from, to } => write!(f, "{column}: {} to {}", type_name(from), type_name(to)),
            What::Relax(_) => write!(f, "{column}: required to optional"),
            What::Rename { to, .. } => write!(f, "rename {column} to {to}"),
            What::Drop(r#type) => write!(f, "drop {column}: {}", type_name(r#type)),
            What::Comment(_) => write!(f, "comment of {column}"),
            What::Reorder => write!(f, "order: {column}"),
        }
    }
}
