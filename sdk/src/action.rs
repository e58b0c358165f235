//! Actions: what a plugin offers beside moving data.

use serde::{Deserialize, Serialize};

/// One action, as `philotes action FILE` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// Its name, `[a-z0-9_-]{1,63}`: `init`, `capture`, `dead_letters`. The loader refuses a plugin with any other.
    pub name: String,
    /// One sentence: what it does.
    pub doc: String,
    /// Its arguments, `key=value` on the command line.
    pub arguments: Vec<ActionArgument>,
}

/// One argument of an [`Action`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionArgument {
    /// Its name.
    pub name: String,
    /// One sentence: what it says and what is allowed.
    pub doc: String,
    /// The action cannot do without it.
    pub required: bool,
    /// Whoever gives it has stopped the connector: the host holds its source meanwhile, and does not begin where it runs.
    pub exclusive: bool,
}

/// What an action has to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionOutput {
    /// A text for the operator.
    Text(String),
    /// A table: the columns' names, and rows of as many cells.
    Rows {
        /// Names of the columns.
        columns: Vec<String>,
        /// The rows.
        rows: Vec<Vec<String>>,
    },
}
