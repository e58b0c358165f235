//! Why a message was not taken.

use std::borrow::Cow;

use philotes_sdk::json::Fault;

/// Why a message was not taken. It says nothing of its values.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Cow<'static, str>,
    pub(crate) column: Option<String>,
}

impl Refusal {
    pub(crate) const fn new(reason: &'static str) -> Self {
        Self { reason: Cow::Borrowed(reason), column: None }
    }

    /// With a reason that names what was found in a schema or in the configuration, never in a row.
    pub(crate) fn said(reason: String) -> Self {
        Self { reason: Cow::Owned(reason), column: None }
    }

    /// The column it is about, unless it names one already.
    pub(crate) fn of(mut self, column: &str) -> Self {
        self.column.get_or_insert_with(|| column.to_owned());
        self
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::new(fault.reason())
    }
}
