//! The key `columns`, understood.

use std::collections::{BTreeMap, HashMap, HashSet};

use philotes_sdk::StreamName;
use philotes_sdk::batch::RESERVED_PREFIX;
use schemars::JsonSchema;
use serde::Deserialize;

use super::cell::Target;
use crate::schema::is_reserved;

/// What is said of one column.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its type in the table: boolean, int, long, float, double, decimal(p,s), date, time, timestamp, timestamptz, string, uuid,
    /// binary or json. A row whose value does not survive the conversion cannot be written.
    #[serde(default)]
    #[schemars(with = "String")]
    pub r#type: Option<String>,
    /// Whether it is left out: of the table, of dead letters and of logs.
    #[serde(default)]
    pub drop: bool,
    /// Its name in the table.
    #[serde(default)]
    #[schemars(with = "String")]
    pub name: Option<String>,
}

/// As it stands in the configuration: by stream, by column.
pub(crate) type Given = BTreeMap<String, BTreeMap<String, Column>>;

/// What is said of the columns of all streams.
#[derive(Debug, Default)]
pub(crate) struct Overrides(HashMap<StreamName, Columns>);

/// What is said of the columns of one stream, by the names that the source gives them.
#[derive(Debug, Default)]
pub(crate) struct Columns(pub(super) BTreeMap<String, Rule>);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rule {
    Drop,
    Keep { name: Option<String>, target: Option<Target> },
}

impl Overrides {
    /// Reads the key.
    ///
    /// # Errors
    /// Every fault, each beginning with the path of its key.
    pub(crate) fn parse(given: &Given) -> Result<Self, Vec<String>> {
        let (mut streams, mut faults) = (HashMap::new(), Vec::new());
        for (text, columns) in given {
            let at = format!("columns.{text}");
            let rules = Columns::parse(&at, columns, &mut faults);
            match text.parse::<StreamName>() {
                Err(error) => faults.push(format!("{at}: {}", error.message())),
                Ok(stream) => {
                    if streams.insert(stream, rules).is_some() {
                        faults.push(format!("{at}: the stream stands there twice; allowed is once"));
                    }
                }
            }
        }
        if faults.is_empty() { Ok(Self(streams)) } else { Err(faults) }
    }

    /// What is said of a stream's columns, if anything is.
    pub(crate) fn of(&self, stream: &StreamName) -> Option<&Columns> {
        self.0.get(stream)
    }
}

impl Columns {
    fn parse(at: &str, columns: &BTreeMap<String, Column>, faults: &mut Vec<String>) -> Self {
        let mut rules = BTreeMap::new();
        let mut names = HashSet::new();
        for (column, said) in columns {
            let at = format!("{at}.{column}");
            let before = faults.len();
            if !said.drop && said.r#type.is_none() && said.name.is_none() {
                faults.push(format!("{at}: says nothing; allowed are type, name, or drop"));
            }
            if said.drop && (said.r#type.is_some() || said.name.is_some()) {
                faults.push(format!("{at}.drop: excludes type and name; a column that is dropped has neither"));
            }
            if column.starts_with(RESERVED_PREFIX) && (said.r#type.is_some() || said.name.is_some()) {
                faults.push(format!(
                    "{at}: columns that begin with {RESERVED_PREFIX} keep name and type; allowed is drop"
                ));
            }
            if let Some(name) = &said.name {
                if name.is_empty() || is_reserved(name) || name.starts_with(RESERVED_PREFIX) {
                    faults.push(format!(
                        "{at}.name: {name:?} is not allowed; allowed is any name that neither Iceberg reserves nor begins \
                         with {RESERVED_PREFIX}"
                    ));
                }
                if !names.insert(name.to_lowercase()) {
                    faults.push(format!("{at}.name: {name:?} is given to two columns, compared without case"));
                }
            }
            let target = said.r#type.as_ref().and_then(|text| {
                let target = Target::parse(text);
                if target.is_none() {
                    faults.push(format!("{at}.type: {text:?} is not allowed; allowed are {}", Target::ALLOWED));
                }
                target
            });
            if faults.len() == before {
                let rule = if said.drop { Rule::Drop } else { Rule::Keep { name: said.name.clone(), target } };
                rules.insert(column.clone(), rule);
            }
        }
        Self(rules)
    }

    /// The columns that are dropped.
    pub(crate) fn dropped(&self) -> Vec<&str> {
        self.0.iter().filter(|(_, rule)| **rule == Rule::Drop).map(|(column, _)| column.as_str()).collect()
    }

    /// What is said, for `plan`: one line per column.
    pub(crate) fn notes(&self) -> Vec<String> {
        let line = |(column, rule): (&String, &Rule)| match rule {
            Rule::Drop => format!("columns: {column} is dropped"),
            Rule::Keep { name, target } => {
                let name = name.as_ref().map(|name| format!("is named {name}"));
                let target = target.map(|target| format!("is written as {target}"));
                let parts: Vec<String> = name.into_iter().chain(target).collect();
                format!("columns: {column} {}", parts.join(", "))
            }
        };
        self.0.iter().map(line).collect()
    }
}
