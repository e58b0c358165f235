//! The configuration's `key`: which columns identify the rows of a stream, where the buffer's rows do not say it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use philotes_sdk::StreamName;

/// By stream, the columns' names.
pub type KeyConfig = BTreeMap<String, Vec<String>>;

/// The keys of streams.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys(HashMap<StreamName, Arc<[String]>>);

impl Keys {
    /// What the configuration says, or each of its faults with the path of its key.
    pub(crate) fn new(config: &KeyConfig) -> Result<Self, Vec<String>> {
        let (mut keys, mut faults) = (HashMap::new(), Vec::new());
        for (stream, columns) in config {
            let Some(name) = stream.parse::<StreamName>().ok().filter(|name| name.parts().len() == 2) else {
                faults.push(format!("key.{stream}: no stream; allowed is schema.table, as in public.orders"));
                continue;
            };
            if columns.is_empty() {
                faults.push(format!("key.{stream}: names no column; allowed are one or more"));
            }
            if let Some(twice) = columns.iter().enumerate().find(|(at, column)| columns[..*at].contains(column)) {
                faults.push(format!("key.{stream}: column {:?} stands there twice; allowed is once", twice.1));
            }
            keys.insert(name, columns.clone().into());
        }
        if faults.is_empty() { Ok(Self(keys)) } else { Err(faults) }
    }

    /// That of a stream, where the configuration names it.
    pub(crate) fn of(&self, stream: &StreamName) -> Option<Arc<[String]>> {
        self.0.get(stream).cloned()
    }
}
